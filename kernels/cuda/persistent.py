"""An epoch of small batches in one launch: weights live in the multiprocessors from the first step to the last.

The network has one hidden layer. Blocks share out its units, `BLOCK_UNITS` each. In a block, `GROUPS` groups of `SPAN`
threads take `UNITS` units each; a thread of a group keeps in registers those of their weights that belong to its
inputs: vectors `place`, `place + SPAN`, ..., of `VECTOR` inputs. With them it keeps the optimizer's state. The block's
weights to the outputs, and biases, are in shared memory.

    z = W₁ x      each thread multiplies its part; sums go over the threads of a group by shuffles, then over warps
    logits        each block sends its units' part of them to all others, in tagged words: the one exchange of a step
    δ, loss       every block works them out alike, with the sum of all parts, always in the same order
    ∂W₁ = δ₁ xᵀ   stays in registers: summed over the batch and applied on the spot

Meanwhile the samples of the next step are copied into the other half of the samples' shared memory.
"""

from fastmlp.kernels.cuda.functions import activation, update
from fastmlp.kernels.cuda.instructions import (
    afresh,
    commit_copies,
    copy_async,
    load_shared,
    quotient,
    receive,
    receive_double,
    remainder,
    send,
    send_double,
    wait_copies,
)
from fastmlp.kernels.cuda.records import Hyperparameters
from fastmlp.kernels.cuda.rows import ALL_LANES, row_functions
from fastmlp.kernels.cuda.shapes import lanes, sample_row, samples_together
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types, uint32

# The constants of one network, batch size and device; other values stand here in the copies that are compiled.
INPUTS = 784
HIDDEN = 100
OUTPUTS = 10
BATCH = 5
DTYPE = "float32"
INPUT_DTYPE = "float32"
ACTIVATION = "relu"
OUTPUT = "softmax"
LOSS = "cross_entropy"
RULE = "momentum"
SLOTS = 1
BIAS = True
LABELS = True
WEIGHTED = False
SCALED = False
PENALTY = False
SIZE = 83_296  # of all parameters, and where the rows of each layer's weights begin and how far apart they are
FIRST = 16
FIRST_STRIDE = 800
SECOND = 80_016
SECOND_STRIDE = 128
UNITS = 1
GROUPS = 8
SPAN = 64
BLOCKS = 13

T = float32 if DTYPE == "float32" else float64
INPUT_T = {"uint8": types.uint8, "float32": float32, "float64": float64}[INPUT_DTYPE]
VECTOR = 4 if DTYPE == "float32" else 2  # numbers in 16 bytes
ITEMSIZE = {"uint8": 1, "float32": 4, "float64": 8}[INPUT_DTYPE]
WORDS = 1 if DTYPE == "float32" else 2  # tagged words of a number
put, get = (send, receive) if DTYPE == "float32" else (send_double, receive_double)

THREADS = GROUPS * SPAN
WARPS = SPAN // 32  # of a group
BLOCK_UNITS = GROUPS * UNITS
INPUT_VECTORS = -(-INPUTS // VECTOR)
VECTORS = -(-INPUT_VECTORS // SPAN)  # of a thread
PIECE = UNITS * VECTOR  # weights of a thread for one vector of inputs
MINE = VECTORS * PIECE
PER_COPY = 16 // ITEMSIZE  # inputs in 16 bytes
ROW = sample_row(INPUTS, VECTOR, PER_COPY)  # of a sample: its inputs, then zeros, a vector or more
WHOLE = INPUTS % PER_COPY == 0  # whether samples can be copied 16 bytes at a time
COPIES = INPUTS // PER_COPY if WHOLE else INPUTS
TOGETHER = samples_together(UNITS, BATCH)  # samples that a thread multiplies at once
TURNS = -(-BATCH // TOGETHER)
COUNT = UNITS * TOGETHER  # sums of a thread in a turn
# How many of them a lane has left when it has shared them out with its partner so many lanes away; see `share_out`.
LEFT16 = COUNT if COUNT % 2 else COUNT // 2
LEFT8 = LEFT16 if LEFT16 % 2 else LEFT16 // 2
LEFT4 = LEFT8 if LEFT8 % 2 else LEFT8 // 2
LEFT2 = LEFT4 if LEFT4 % 2 else LEFT4 // 2
LEFT1 = LEFT2 if LEFT2 % 2 else LEFT2 // 2
ALIKE = 32 * LEFT1 // COUNT  # neighbouring lanes that then have the same
HELD = TURNS * TOGETHER  # samples that there is room for
SAMPLES_SIZE = HELD * ROW
HIDDEN_SIZE = HELD * BLOCK_UNITS
SUMS_SIZE = WARPS * HIDDEN_SIZE
LOGITS = BATCH * OUTPUTS
# Small parameters of a block: weights to the outputs [BLOCK_UNITS, OUTPUTS], biases of the outputs and of its units.
# Those of the outputs count as weights of one unit more, whose value is 1 in the first block, and 0 in all others.
VALUES = BLOCK_UNITS + 1
VALUES_SIZE = BATCH * VALUES
OUTPUT_BIASES = BLOCK_UNITS * OUTPUTS
UNIT_BIASES = OUTPUT_BIASES + OUTPUTS
SMALL = UNIT_BIASES + BLOCK_UNITS
ROW_LANES = lanes(OUTPUTS)  # threads that share a row of outputs
SHARE = -(-OUTPUTS // ROW_LANES)  # outputs of each
ROWS_AT_ONCE = THREADS // ROW_LANES
ROW_TURNS = -(-BATCH // ROWS_AT_ONCE)
TELLING = min(THREADS, -(-BATCH * ROW_LANES // 32) * 32)  # threads that have a row, and others of their warps
# Rounds in which the block's threads take a batch's copies, its hidden values and its logits: numbers that the compiler
# knows, so that a loop of one round is none, and no loop is unrolled for counts that never come.
COPY_ROUNDS, HIDDEN_ROUNDS, LOGIT_ROUNDS = (-(-BATCH * n // THREADS) for n in (COPIES, BLOCK_UNITS, OUTPUTS))
TOTALS = 4 * TELLING
SHARES = max(n for n in (1, 2, 4, 8, 16, 32) if n == 1 or (n * SMALL <= THREADS and n <= BATCH))  # of a small gradient
SMALL_ROUNDS = -(-(SMALL if BIAS else OUTPUT_BIASES) * SHARES // THREADS)
ASKED = min(BLOCKS, 26)  # words that a thread asks for before it looks at the first
STATE_SIZE = max(SLOTS, 1)
OWN_STATE, SMALL_STATE = STATE_SIZE * MINE, STATE_SIZE * SMALL
TWO_SAMPLES = 2 * BATCH

hidden_activation = activation(ACTIVATION)
step_of = update(RULE)
row = row_functions(DTYPE, OUTPUTS, (OUTPUT, LOSS), LABELS)


if INPUT_DTYPE != DTYPE or SCALED:

    @cuda.jit(device=True, forceinline=True)
    def load_inputs(v, x, at, first, numbers):
        """A vector of inputs as the network sees them, zero beyond the last; ``first`` is the first one's number."""
        for q in range(VECTOR):
            value = T(x[at + q]) * numbers.input_scale + numbers.input_shift
            v[q] = value if first + q < INPUTS else T(0)

elif VECTOR == 4:

    @cuda.jit(device=True, forceinline=True)
    def load_inputs(v, x, at, first, numbers):
        """A vector of inputs; behind the last are zeros."""
        v[0], v[1], v[2], v[3] = load_shared(x, at)

else:

    @cuda.jit(device=True, forceinline=True)
    def load_inputs(v, x, at, first, numbers):
        """A vector of inputs; behind the last are zeros."""
        v[0], v[1] = load_shared(x, at)


@cuda.jit(device=True, forceinline=True)
def vector_at(place, j):
    """The number of a thread's vector j of inputs; beyond the last, of the vector of zeros behind it."""
    return int32(min(int32(place + j * SPAN), int32(INPUT_VECTORS)))


@cuda.jit(device=True, forceinline=True)
def own_thread():
    """The thread's number, taken afresh in each phase: what follows from it would fill registers from step to step."""
    return afresh(int32(cuda.threadIdx.x))


@cuda.jit(device=True, forceinline=True)
def fetch(x, half, sample, data, rows):
    """Start copying the samples of a step into a half of their memory."""
    thread = own_thread()
    for turn in range(COPY_ROUNDS):
        e = int32(thread + turn * THREADS)
        if e < int32(rows * COPIES):
            i, k = quotient(e, COPIES), remainder(e, COPIES)
            origin = types.int64(sample[uint32(half * BATCH + i)]) * INPUTS
            target = int32(half * SAMPLES_SIZE + i * ROW)
            if WHOLE:
                copy_async(x, int32(target + k * PER_COPY), data.X, origin + int32(k * PER_COPY))
            else:
                x[uint32(target + k)] = data.X[origin + k]
    commit_copies()


@cuda.jit(device=True, forceinline=True)
def share_out(z, count, left, away, lane):
    """Add up the sums of a lane and of its partner so many lanes away; returns which is the lane's first then.

    If they are even in number, each gives the other half of its own, and keeps half of the result.
    """
    upper = int32(lane & away) != 0
    for k in range(left):
        if left < count:
            low, high = z[k], z[k + left]
            keep, give = high if upper else low, low if upper else high
            z[k] = keep + cuda.shfl_xor_sync(ALL_LANES, give, away)
        else:
            z[k] += cuda.shfl_xor_sync(ALL_LANES, z[k], away)
    return int32(left) if upper and left < count else int32(0)


@cuda.jit(device=True, forceinline=True)
def feedforward(x, half, w, sums, numbers):
    """Each warp's part of z = W₁ x, for the units of its group and `TOGETHER` samples at a time."""
    thread = own_thread()
    place, group, lane = remainder(thread, SPAN), quotient(thread, SPAN), remainder(thread, 32)
    mine = int32((quotient(place, 32) * GROUPS + group) * TURNS * COUNT)
    v, z = cuda.local.array(VECTOR, T), cuda.local.array(COUNT, T)
    for turn in range(TURNS):
        for k in range(COUNT):
            z[k] = T(0)
        for j in range(VECTORS):
            vector = vector_at(place, j)
            for i in range(TOGETHER):
                at = int32(half * SAMPLES_SIZE + (turn * TOGETHER + i) * ROW + vector * VECTOR)
                load_inputs(v, x, at, int32(vector * VECTOR), numbers)
                for q in range(VECTOR):
                    for u in range(UNITS):
                        z[u * TOGETHER + i] += w[j * PIECE + u * VECTOR + q] * v[q]
        first = share_out(z, COUNT, LEFT16, 16, lane)
        first = int32(first + share_out(z, LEFT16, LEFT8, 8, lane))
        first = int32(first + share_out(z, LEFT8, LEFT4, 4, lane))
        first = int32(first + share_out(z, LEFT4, LEFT2, 2, lane))
        first = int32(first + share_out(z, LEFT2, LEFT1, 1, lane))
        if remainder(lane, ALIKE) == 0:
            for k in range(LEFT1):
                sums[uint32(mine + turn * COUNT + first + k)] = z[k]


@cuda.jit(device=True, forceinline=True)
def activate(sums, small, a, slope):
    """Values and slopes of the block's units; a unit that is none has the value 0."""
    thread = own_thread()
    for turn in range(HIDDEN_ROUNDS):
        e = int32(thread + turn * THREADS)
        if e < BATCH * BLOCK_UNITS:
            i, u = quotient(e, BLOCK_UNITS), remainder(e, BLOCK_UNITS)
            place = int32((quotient(u, UNITS) * TURNS + quotient(i, TOGETHER)) * COUNT + remainder(i, TOGETHER))
            place = int32(place + remainder(u, UNITS) * TOGETHER)
            z = small[uint32(UNIT_BIASES + u)]
            for k in range(WARPS):
                z += sums[uint32(k * HIDDEN_SIZE + place)]
            value, slope[uint32(e)] = hidden_activation(z)
            a[uint32(i * VALUES + u)] = value if int32(cuda.blockIdx.x * BLOCK_UNITS + u) < HIDDEN else T(0)


@cuda.jit(device=True, forceinline=True)
def send_logits(a, small, words, step):
    """The block's part of all logits, to all blocks."""
    where = int32((remainder(step, 2) * BLOCKS + cuda.blockIdx.x) * LOGITS)
    thread = own_thread()
    for turn in range(LOGIT_ROUNDS):
        e = int32(thread + turn * THREADS)
        if e < LOGITS:
            i, o, z = quotient(e, OUTPUTS), remainder(e, OUTPUTS), T(0)
            for u in range(VALUES):
                z += a[uint32(i * VALUES + u)] * small[uint32(u * OUTPUTS + o)]
            put(words, int32((where + e) * WORDS), z, uint32(step + 1))


@cuda.jit(device=True, forceinline=True)
def receive_logit(words, e, step):
    """One logit: the sum of all blocks' parts, in their order. Words are asked for together until all are there."""
    value = cuda.local.array(ASKED, T)
    where, z, wanted = int32(remainder(step, 2) * BLOCKS * LOGITS + e), T(0), uint32(step + 1)
    for first in range(0, BLOCKS, ASKED):
        missing = uint32(1)
        while missing != 0:
            missing = uint32(0)
            at = afresh(where)  # or all addresses would be kept in registers from step to step
            for k in range(ASKED):
                if first + k < BLOCKS:
                    value[k], tag = get(words, int32((at + (first + k) * LOGITS) * WORDS))
                    missing = uint32(missing | (tag ^ wanted))
        for k in range(ASKED):
            if first + k < BLOCKS:
                z += value[k]
    return z


@cuda.jit(device=True, forceinline=True)
def output(words, d, totals, sample, data, rows, step):
    """Fill ``d`` with ∂loss/∂logits, zero beyond the last row; `ROW_LANES` threads a row.

    The last block leaves its threads' parts of loss and error in ``totals``.
    """
    thread, told, first = own_thread(), cuda.blockIdx.x == BLOCKS - 1, int32(step * BATCH)
    own, scale, loss, error = remainder(thread, ROW_LANES), T(1) / T(rows), T(0), T(0)
    z, y = cuda.local.array(SHARE, T), cuda.local.array(SHARE, T)
    for turn in range(ROW_TURNS):
        i = int32(turn * ROWS_AT_ONCE + quotient(thread, ROW_LANES))
        if int32(i - quotient(remainder(thread, 32), ROW_LANES)) < BATCH:  # the warp has a row
            for k in range(SHARE):
                o, z[k], y[k] = int32(own + k * ROW_LANES), T(0), T(0)
                if i < BATCH and o < OUTPUTS:
                    y[k] = row.target(data.Y, sample[uint32(remainder(step, 2) * BATCH + i)], o)
                    z[k] = receive_logit(words, int32(i * OUTPUTS + o), step)
            if WEIGHTED:
                scale = data.shares[uint32(first + i)] if i < rows else T(0)
            cuda.syncwarp()  # threads that had to wait for words fell behind; a diverged warp's shuffles are slow
            value, wrong, _ = row.finish(z, y, i < rows, own, scale, told)
            loss, error = loss + (value * scale if WEIGHTED else value), error + wrong
            for k in range(SHARE):
                o = int32(own + k * ROW_LANES)
                if i < BATCH and o < OUTPUTS:
                    d[uint32(i * OUTPUTS + o)] = y[k] if i < rows else T(0)
    if told and thread < TELLING:
        at = int32(2 * (remainder(step, 2) * TELLING + thread))
        totals[uint32(at)], totals[uint32(at + 1)] = loss, error


@cuda.jit(device=True, forceinline=True)
def report(totals, data, rows, step):
    """The last warp of the last block tells a step's mean loss and error, while others wait for the next words."""
    lane = int32(own_thread() - (THREADS - 32))
    if lane >= 0:
        loss, error = T(0), T(0)
        for k in range(int32(2 * lane), int32(2 * TELLING), int32(64)):
            loss += totals[uint32(2 * remainder(step, 2) * TELLING + k)]
            error += totals[uint32(2 * remainder(step, 2) * TELLING + k + 1)]
        loss, error = row.total(loss, 32), row.total(error, 32)
        if lane == 0:
            data.losses[step] = loss if WEIGHTED else loss / T(rows)
            data.errors[step] = error / (T(rows) * T(OUTPUTS))


@cuda.jit(device=True, forceinline=True)
def backpropagation(d, small, slope, e):
    """Fill ``e`` with W₂ᵀ d ∘ σ'(z) of the block's units."""
    thread = own_thread()
    for turn in range(HIDDEN_ROUNDS):
        k = int32(thread + turn * THREADS)
        if k < BATCH * BLOCK_UNITS:
            i, u, z = quotient(k, BLOCK_UNITS), remainder(k, BLOCK_UNITS), T(0)
            for o in range(OUTPUTS):
                z += d[uint32(i * OUTPUTS + o)] * small[uint32(u * OUTPUTS + o)]
            e[uint32(k)] = z * slope[uint32(k)]


@cuda.jit(device=True, forceinline=True)
def small_gradient(k, share, given):
    """A share of a small parameter's gradient: the sum over every `SHARES`-th sample."""
    a, d, e = given
    u, o, g = quotient(k, OUTPUTS), remainder(k, OUTPUTS), T(0)
    if k < UNIT_BIASES:
        for i in range(share, int32(BATCH), int32(SHARES)):
            g += a[uint32(i * VALUES + u)] * d[uint32(i * OUTPUTS + o)]
    else:
        for i in range(share, int32(BATCH), int32(SHARES)):
            g += e[uint32(i * BLOCK_UNITS + k - UNIT_BIASES)]
    return g


@cuda.jit(device=True, forceinline=True)
def update_small(small, state, given, decay, h):
    """A step of the weights to the outputs, and of the biases. `SHARES` threads share a parameter."""
    thread, last = own_thread(), int32(SMALL if BIAS else OUTPUT_BIASES)
    for turn in range(SMALL_ROUNDS):
        k, share = int32(turn * (THREADS // SHARES) + quotient(thread, SHARES)), remainder(thread, SHARES)
        g = row.total(small_gradient(k, share, given) if k < last else T(0), SHARES)
        if share == 0 and k < last:
            if PENALTY and k < OUTPUT_BIASES:
                g += decay * small[k]
            step_of(small, k, state, k, int32(SMALL), g, h)


@cuda.jit(device=True, forceinline=True)
def update_first(x, half, e, own, numbers, decay, h):
    """A step of this thread's weights of the first layer; their gradient lives in registers alone."""
    thread = own_thread()
    place, group = remainder(thread, SPAN), quotient(thread, SPAN)
    w, state = own
    g, v, delta = cuda.local.array(MINE, T), cuda.local.array(VECTOR, T), cuda.local.array(UNITS, T)
    for k in range(MINE):
        g[k] = T(0)
    for i in range(BATCH):
        for u in range(UNITS):
            delta[u] = e[uint32(i * BLOCK_UNITS + group * UNITS + u)]
        for j in range(VECTORS):
            vector = vector_at(place, j)
            at = int32(half * SAMPLES_SIZE + i * ROW + vector * VECTOR)
            load_inputs(v, x, at, int32(vector * VECTOR), numbers)
            for u in range(UNITS):
                for q in range(VECTOR):
                    g[j * PIECE + u * VECTOR + q] += delta[u] * v[q]
    for k in range(MINE):
        if PENALTY:
            g[k] += decay * w[k]
        step_of(w, k, state, k, MINE, g[k], h)


@cuda.jit(device=True, forceinline=True)
def first_layer(data, w, state, store):
    """The thread's weights of the first layer with their state, out of global memory or (``store``) back."""
    thread = int32(cuda.threadIdx.x)
    unit = int32(cuda.blockIdx.x * BLOCK_UNITS + quotient(thread, SPAN) * UNITS)
    for j in range(VECTORS):
        first = int32((remainder(thread, SPAN) + j * SPAN) * VECTOR)
        for u in range(UNITS):
            for q in range(VECTOR):
                k, there = j * PIECE + u * VECTOR + q, int32(unit + u) < HIDDEN and int32(first + q) < INPUTS
                at = int32(FIRST + (unit + u) * FIRST_STRIDE + first + q)
                if store:
                    if there:
                        data.parameters[at] = w[k]
                        for n in range(SLOTS):
                            data.slots[n * SIZE + at] = state[n * MINE + k]
                else:
                    w[k] = data.parameters[at] if there else T(0)
                    for n in range(SLOTS):
                        state[n * MINE + k] = data.slots[n * SIZE + at] if there else T(0)


@cuda.jit(device=True, forceinline=True)
def small_place(k):
    """Where a small parameter lies among all; -1 if it is none of this block's. The first has the outputs' biases."""
    first = int32(cuda.blockIdx.x * BLOCK_UNITS)
    if k < OUTPUT_BIASES:
        unit = int32(first + quotient(k, OUTPUTS))
        return int32(SECOND + remainder(k, OUTPUTS) * SECOND_STRIDE + unit) if unit < HIDDEN else int32(-1)
    if not BIAS:
        return int32(-1)
    if k < UNIT_BIASES:
        return int32(SECOND - 1 + (k - OUTPUT_BIASES) * SECOND_STRIDE) if cuda.blockIdx.x == 0 else int32(-1)
    unit = int32(first + k - UNIT_BIASES)
    return int32(FIRST - 1 + unit * FIRST_STRIDE) if unit < HIDDEN else int32(-1)


@cuda.jit(device=True, forceinline=True)
def small_parameters(data, small, state, store):
    """The small parameters with their state, out of global memory or (``store``) back."""
    for k in range(int32(cuda.threadIdx.x), int32(SMALL), int32(THREADS)):
        at = small_place(k)
        if store:
            if at >= 0:
                data.parameters[at] = small[k]
                for n in range(SLOTS):
                    data.slots[n * SIZE + at] = state[n * SMALL + k]
        else:
            small[k] = data.parameters[at] if at >= 0 else T(0)
            for n in range(SLOTS):
                state[n * SMALL + k] = data.slots[n * SIZE + at] if at >= 0 else T(0)


def epoch(data, numbers, words):
    """An epoch: a step for each `BATCH` samples of the order.

    ``data`` are `fastmlp.kernels.cuda.records.Arrays`, ``numbers`` its `Numbers`; ``words`` uint64
    [2 * BLOCKS * LOGITS * WORDS], zero. Shared memory given at the launch: 2 * SAMPLES_SIZE inputs.
    """
    x = cuda.shared.array(0, INPUT_T)
    sums, a = cuda.shared.array(SUMS_SIZE, T), cuda.shared.array(VALUES_SIZE, T)
    slope, e = cuda.shared.array(HIDDEN_SIZE, T), cuda.shared.array(HIDDEN_SIZE, T)
    d, totals = cuda.shared.array(LOGITS, T), cuda.shared.array(TOTALS, T)
    small, small_state = cuda.shared.array(SMALL, T), cuda.shared.array(SMALL_STATE, T)
    sample = cuda.shared.array(TWO_SAMPLES, int32)
    w, state = cuda.local.array(MINE, T), cuda.local.array(OWN_STATE, T)
    thread, samples, n = int32(cuda.threadIdx.x), int32(data.order.size), numbers

    first_layer(data, w, state, False)
    small_parameters(data, small, small_state, False)
    for k in range(thread, int32(2 * SAMPLES_SIZE), int32(THREADS)):
        x[k] = INPUT_T(0)
    for i in range(thread, int32(BATCH), int32(THREADS)):
        a[int32(i * VALUES + BLOCK_UNITS)] = T(1) if BIAS and cuda.blockIdx.x == 0 else T(0)
    for k in range(thread, int32(TWO_SAMPLES), int32(THREADS)):
        sample[k] = data.order[k] if k < samples else int32(0)
    cuda.syncthreads()
    fetch(x, int32(0), sample, data, int32(min(BATCH, samples)))
    wait_copies()
    cuda.syncthreads()

    for step in range(int32((samples + BATCH - 1) // BATCH)):
        half, left = remainder(step, 2), int32(samples - step * BATCH)
        rows, next_rows = int32(min(BATCH, left)), int32(max(min(BATCH, int32(left - BATCH)), 0))
        coming = int32(0)
        if thread < BATCH and int32(thread + 2 * BATCH) < left:
            coming = data.order[uint32((step + 2) * BATCH + thread)]
        correction1, correction2 = T(1), T(1)
        if RULE == "adam":
            correction1, correction2 = data.corrections[2 * step], data.corrections[2 * step + 1]
        h = Hyperparameters(n.learning_rate, n.momentum, n.beta1, n.beta2, n.epsilon, correction1, correction2)
        feedforward(x, half, w, sums, numbers)
        cuda.syncthreads()
        activate(sums, small, a, slope)
        cuda.syncthreads()
        send_logits(a, small, words, step)
        fetch(x, int32(1 - half), sample, data, next_rows)
        if cuda.blockIdx.x == BLOCKS - 1 and step > 0:
            report(totals, data, int32(BATCH), int32(step - 1))
        output(words, d, totals, sample, data, rows, step)
        cuda.syncthreads()
        backpropagation(d, small, slope, e)
        cuda.syncthreads()
        decay = T(0)
        if PENALTY:
            decay = data.decays[step] if WEIGHTED else numbers.l2 / T(rows)
        update_small(small, small_state, (a, d, e), decay, h)
        update_first(x, half, e, (w, state), numbers, decay, h)
        if thread < BATCH:
            sample[uint32(half * BATCH + thread)] = coming
        wait_copies()
        cuda.syncthreads()

    if cuda.blockIdx.x == BLOCKS - 1:
        last = int32((samples - 1) // BATCH)
        report(totals, data, int32(samples - last * BATCH), last)
    first_layer(data, w, state, True)
    small_parameters(data, small, small_state, True)
