"""Large batches, wide or deep networks, and inference: phases over tiles of matrix products, all of it in one launch.

A step is a sequence of phases, with a barrier of the whole grid after each; in a phase every block takes tiles of a
result in turn.

    feedforward      a layer's z = V Wᵀ: samples x units; then values and slopes
    output           rows of outputs: loss, and δ of the output layer
    backpropagation  δ of the layer below: (δ W) ∘ σ'(z), samples x units
    gradients        ∂W = δᵀ V: units x inputs, with one input more that is always 1, for the biases; the rule is
                     applied on the spot. With few tiles the batch is split in `SPLITS` parts, which are stored side
                     by side and, after a barrier, added up in their order

How a block works out a tile is in `fastmlp.kernels.cuda.products`.

Layers are numbered by their weights, from 0; values and deltas of layer l's inputs have number l, so that 0 are the
samples, at ``order``. What comes between the layers is in ``values`` and ``deltas``, for each sample a row of
`WIDTHS[l]` numbers, of which those beyond the units are zero; ``deltas`` hold the slopes until δ is known.
"""

from fastmlp.kernels.cuda.functions import activations, update
from fastmlp.kernels.cuda.instructions import acquire, arrive, quotient, remainder
from fastmlp.kernels.cuda.products import Operand, own_lines, product_of, sample_lines
from fastmlp.kernels.cuda.records import Hyperparameters
from fastmlp.kernels.cuda.rows import row_functions
from fastmlp.kernels.cuda.shapes import Tile, lanes
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types, uint32

# The constants of one network, kind of batch and device; other values stand here in the copies that are compiled.
JOB = "train"  # or "gradient", "evaluate", "predict", "feedforward"
SIZES = (784, 100, 10)
ACTIVATIONS = ("relu",)
DTYPE = "float32"
INPUT_DTYPE = "float32"
OUTPUT = "softmax"
LOSS = "cross_entropy"
RULE = "momentum"
SLOTS = 1
BIAS = True
LABELS = True
WEIGHTED = False
HITS = ""
SCALED = False
PENALTY = False
SIZE = 83_296  # of all parameters, and where the rows of each layer's weights begin and how far apart they are
FIRSTS = (16, 80_016)
STRIDES = (800, 128)
FORWARD = (80, 104, 4, 8, 16)
DELTA = (80, 104, 4, 8, 16)
GRADIENT = (104, 80, 4, 8, 16)
SPLITS = 13
THREADS = 256

T = float32 if DTYPE == "float32" else float64
VECTOR = 4 if DTYPE == "float32" else 2
LAYERS = len(SIZES) - 1
OUTPUTS = SIZES[-1]
TARGETS, LEARNS = JOB in ("train", "gradient", "evaluate"), JOB in ("train", "gradient")
FORWARD, DELTA, GRADIENT = Tile(*FORWARD), Tile(*DELTA), Tile(*GRADIENT)
POOL = max(tile.numbers(THREADS) for tile in (FORWARD, DELTA, GRADIENT))  # of shared memory, given at the launch
FORWARD_SUMS, FORWARD_WAYS, FORWARD_LINE = FORWARD.rows * FORWARD.columns, FORWARD.ways(THREADS), FORWARD.line
DELTA_SUMS, DELTA_WAYS, DELTA_LINE = DELTA.rows * DELTA.columns, DELTA.ways(THREADS), DELTA.line
GRADIENT_SUMS, GRADIENT_WAYS, GRADIENT_LINE = GRADIENT.rows * GRADIENT.columns, GRADIENT.ways(THREADS), GRADIENT.line
FORWARD_ROWS, FORWARD_COLUMNS = FORWARD.rows, FORWARD.columns
DELTA_ROWS, DELTA_COLUMNS = DELTA.rows, DELTA.columns
GRADIENT_ROWS, GRADIENT_COLUMNS, GRADIENT_DEPTH = GRADIENT.rows, GRADIENT.columns, GRADIENT.depth
WIDTHS = tuple(-(-units // VECTOR) * VECTOR for units in SIZES)
BEFORE = (0, *(sum(WIDTHS[1:layer]) for layer in range(1, LAYERS + 1)))  # numbers of a sample before each layer's
ROW_LANES = lanes(OUTPUTS)
SHARE = -(-OUTPUTS // ROW_LANES)
ROWS_AT_ONCE = THREADS // ROW_LANES
WARPS = THREADS // 32
BLOCK_SUMS = 3 * WARPS

activate, step_of = activations(ACTIVATIONS), update(RULE)
row = row_functions(DTYPE, OUTPUTS, (OUTPUT, LOSS), LABELS, HITS)
samples, of_own = sample_lines(DTYPE, INPUT_DTYPE, SIZES[0], SCALED), own_lines(DTYPE)
forward_samples = product_of(DTYPE, FORWARD, THREADS, (False, samples), (False, of_own))
forward_values = product_of(DTYPE, FORWARD, THREADS, (False, of_own), (False, of_own))
delta_product = product_of(DTYPE, DELTA, THREADS, (False, of_own), (True, of_own))
gradient_samples = product_of(DTYPE, GRADIENT, THREADS, (True, of_own), (True, samples))
gradient_values = product_of(DTYPE, GRADIENT, THREADS, (True, of_own), (True, of_own))


@cuda.jit(device=True, forceinline=True)
def meet(counter, met):
    """The barrier of the whole grid, the ``met``-th; what blocks wrote before can be seen by all after it."""
    cuda.syncthreads()
    if int32(cuda.threadIdx.x) == 0:
        arrive(counter, 0, uint32(1))
        while int32(acquire(counter, 0) - uint32(met * cuda.gridDim.x)) < 0:
            pass
    cuda.syncthreads()


@cuda.jit(device=True, forceinline=True)
def up(n, size):
    """How many of this size it takes for n."""
    return quotient(int32(n + size - 1), size)


@cuda.jit(device=True, forceinline=True)
def own_numbers(source, work, layer, batch, lines, one):
    """The values or deltas with this number as an operand."""
    data, numbers, _ = work
    first, width = types.int64(batch) * BEFORE[layer], int32(WIDTHS[layer])
    return Operand(source, data.order, first, width, lines, width, int32(one), numbers)


@cuda.jit(device=True, forceinline=True)
def weights_of(work, layer):
    """A layer's weights as an operand."""
    data, numbers, _ = work
    first, stride = types.int64(FIRSTS[layer]), int32(STRIDES[layer])
    lines, length = int32(SIZES[layer + 1]), int32(SIZES[layer])
    return Operand(data.parameters, data.order, first, stride, lines, length, int32(-1), numbers)


@cuda.jit(device=True, forceinline=True)
def samples_of(work, at, lines, one):
    """The samples of a batch, which begins at ``at`` in the order, as an operand."""
    data, numbers, _ = work
    return Operand(data.X, data.order, at, int32(SIZES[0]), lines, int32(SIZES[0]), int32(one), numbers)


@cuda.jit(device=True, forceinline=True)
def added(pool, at, count, ways):
    """The sum of the parts of all ways, ``count`` numbers apart."""
    z = pool[uint32(at)]
    for way in range(1, ways):
        z += pool[uint32(at + way * count)]
    return z


@cuda.jit(device=True, forceinline=True)
def feedforward(layer, pool, work, place):
    """A layer's values and slopes; of the output layer the pre-activations."""
    (data, _, own), (batch, at, rows) = work, place
    n_in, n_out, width = int32(SIZES[layer]), int32(SIZES[layer + 1]), int32(WIDTHS[layer + 1])
    first = types.int64(batch) * BEFORE[layer + 1]
    across = up(width, FORWARD_COLUMNS)
    for tile in range(int32(cuda.blockIdx.x), int32(up(rows, FORWARD_ROWS) * across), int32(cuda.gridDim.x)):
        sample, unit = int32(quotient(tile, across) * FORWARD_ROWS), int32(remainder(tile, across) * FORWARD_COLUMNS)
        span = int32(0), n_in
        if layer == 0:
            forward_samples(pool, (samples_of(work, at, rows, -1), weights_of(work, layer)), sample, unit, span)
        else:
            below = own_numbers(own.values, work, layer, batch, rows, -1)
            forward_values(pool, (below, weights_of(work, layer)), sample, unit, span)
        for e in range(int32(cuda.threadIdx.x), int32(FORWARD_SUMS), int32(THREADS)):
            down, right = quotient(e, FORWARD_COLUMNS), remainder(e, FORWARD_COLUMNS)
            s, u = int32(sample + down), int32(unit + right)
            if s < rows and u < width:
                value, slope = T(0), T(0)
                if u < n_out:
                    value = added(pool, int32(down * FORWARD_LINE + right), FORWARD_ROWS * FORWARD_LINE, FORWARD_WAYS)
                    if BIAS:
                        value += data.parameters[uint32(FIRSTS[layer] - 1 + u * STRIDES[layer])]
                    if layer < LAYERS - 1:
                        value, slope = activate(int32(layer), value)
                own.values[first + s * width + u] = value
                if LEARNS and layer < LAYERS - 1:
                    own.deltas[first + s * width + u] = slope


@cuda.jit(device=True, forceinline=True)
def output(work, place, totals):
    """Loss, hits and δ of the samples' outputs, or the outputs themselves."""
    (data, _, own), (batch, at, rows) = work, place
    thread, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
    lane, width = remainder(thread, ROW_LANES), int32(WIDTHS[LAYERS])
    z, y = cuda.local.array(SHARE, T), cuda.local.array(SHARE, T)
    loss, error, hits, scale = T(0), T(0), int32(0), T(1) / T(rows)
    for first in range(int32(block * ROWS_AT_ONCE), rows, int32(cuda.gridDim.x * ROWS_AT_ONCE)):
        s = int32(first + quotient(thread, ROW_LANES))
        start = types.int64(batch) * BEFORE[LAYERS] + s * width
        for k in range(SHARE):
            o, z[k], y[k] = int32(lane + k * ROW_LANES), T(0), T(0)
            if s < rows and o < OUTPUTS:
                z[k] = own.values[start + o]
                if TARGETS:
                    y[k] = row.target(data.Y, data.order[uint32(at + s)], o)
        if WEIGHTED:
            scale = data.shares[uint32(at + s)] if s < rows else T(0)
        value, wrong, right = row.finish(z, y, s < rows, lane, scale, TARGETS)
        if WEIGHTED:  # there is no error then, and what is wrong takes its place: the shares of all such samples
            value, wrong = value * scale, scale if lane == 0 and not right else T(0)
        loss, error = loss + value, error + wrong
        if s < rows:
            if lane == 0:
                hits = int32(hits + int32(right))
            for k in range(SHARE):
                o = int32(lane + k * ROW_LANES)
                if o < OUTPUTS:
                    if LEARNS:
                        own.deltas[start + o] = y[k]
                    elif not TARGETS:
                        own.results[types.int64(int32(at + s)) * OUTPUTS + o] = z[k]
            if LEARNS:
                for o in range(int32(OUTPUTS + lane), width, int32(ROW_LANES)):
                    own.deltas[start + o] = T(0)
    if TARGETS:
        add_up(totals, loss, error, hits, own)


@cuda.jit(device=True, forceinline=True)
def add_up(totals, loss, error, hits, own):
    """A block's sums of loss and error into ``sums``, its hits to all hits."""
    thread = int32(cuda.threadIdx.x)
    loss, error, hits = row.total(loss, 32), row.total(error, 32), row.total(hits, 32)
    if remainder(thread, 32) == 0:
        warp = quotient(thread, 32)
        totals[warp], totals[uint32(WARPS + warp)], totals[uint32(2 * WARPS + warp)] = loss, error, T(hits)
    cuda.syncthreads()
    if thread == 0:
        loss, error, right = T(0), T(0), T(0)
        for warp in range(WARPS):
            loss += totals[warp]
            error += totals[WARPS + warp]
            right += totals[2 * WARPS + warp]
        own.sums[uint32(2 * cuda.blockIdx.x)], own.sums[uint32(2 * cuda.blockIdx.x + 1)] = loss, error
        if HITS != "":
            cuda.atomic.add(own.hits, 0, uint32(right))


@cuda.jit(device=True, forceinline=True)
def report(work, rows, step):
    """The first warp of the first block tells the mean loss and error of the batch."""
    data, _, own = work
    if int32(cuda.blockIdx.x) == 0 and int32(cuda.threadIdx.x) < 32:
        loss, error = T(0), T(0)
        for block in range(int32(cuda.threadIdx.x), int32(cuda.gridDim.x), int32(32)):
            loss += own.sums[uint32(2 * block)]
            error += own.sums[uint32(2 * block + 1)]
        loss, error = row.total(loss, 32), row.total(error, 32)
        if int32(cuda.threadIdx.x) == 0:
            data.losses[step] = loss if WEIGHTED else loss / T(rows)
            data.errors[step] = error if WEIGHTED else error / (T(rows) * T(OUTPUTS))


@cuda.jit(device=True, forceinline=True)
def backpropagation(layer, pool, work, place):
    """δ of a layer's inputs, in the place of their slopes."""
    (_, _, own), (batch, _, rows) = work, place
    width = int32(WIDTHS[layer])
    first = types.int64(batch) * BEFORE[layer]
    across = up(width, DELTA_COLUMNS)
    for tile in range(int32(cuda.blockIdx.x), int32(up(rows, DELTA_ROWS) * across), int32(cuda.gridDim.x)):
        sample, unit = int32(quotient(tile, across) * DELTA_ROWS), int32(remainder(tile, across) * DELTA_COLUMNS)
        above = own_numbers(own.deltas, work, layer + 1, batch, rows, -1)
        span = int32(0), int32(SIZES[layer + 1])
        delta_product(pool, (above, weights_of(work, layer)), sample, unit, span)
        for e in range(int32(cuda.threadIdx.x), int32(DELTA_SUMS), int32(THREADS)):
            down, right = quotient(e, DELTA_COLUMNS), remainder(e, DELTA_COLUMNS)
            s, u = int32(sample + down), int32(unit + right)
            if s < rows and u < int32(SIZES[layer]):
                at = int32(down * DELTA_LINE + right)
                own.deltas[first + s * width + u] *= added(pool, at, DELTA_ROWS * DELTA_LINE, DELTA_WAYS)


@cuda.jit(device=True, forceinline=True)
def finish_gradient(work, p, g, decay, h, is_weight):
    """The sum of a parameter's gradient is known: take the rule's step, or keep it."""
    data, _, own = work
    if PENALTY and is_weight:
        g += decay * data.parameters[p]
    if JOB == "train":
        step_of(data.parameters, p, data.slots, p, SIZE, g, h)
    else:
        own.results[p] = g


@cuda.jit(device=True, forceinline=True)
def gradients(layer, pool, work, place, decay, h):
    """The gradient of a layer's weights and biases, or each part of it."""
    (_, _, own), (batch, at, rows) = work, place
    n_in, n_out, one = int32(SIZES[layer]), int32(SIZES[layer + 1]), int32(SIZES[layer] if BIAS else -1)
    across = up(int32(n_in + BIAS), GRADIENT_COLUMNS)
    tiles = int32(across * up(n_out, GRADIENT_ROWS))
    part = int32(up(rows, SPLITS * GRADIENT_DEPTH) * GRADIENT_DEPTH)
    for item in range(int32(cuda.blockIdx.x), int32(tiles * SPLITS), int32(cuda.gridDim.x)):
        tile, split = remainder(item, tiles), quotient(item, tiles)
        unit, first = int32(quotient(tile, across) * GRADIENT_ROWS), int32(remainder(tile, across) * GRADIENT_COLUMNS)
        span = int32(min(int32(split * part), rows)), int32(min(int32((split + 1) * part), rows))
        deltas = own_numbers(own.deltas, work, layer + 1, batch, span[1], -1)
        if layer == 0:
            gradient_samples(pool, (deltas, samples_of(work, at, span[1], one)), unit, first, span)
        else:
            below = own_numbers(own.values, work, layer, batch, span[1], one)
            gradient_values(pool, (deltas, below), unit, first, span)
        for e in range(int32(cuda.threadIdx.x), int32(GRADIENT_SUMS), int32(THREADS)):
            down, right = quotient(e, GRADIENT_COLUMNS), remainder(e, GRADIENT_COLUMNS)
            u, i = int32(unit + down), int32(first + right)
            if u < n_out and i < int32(n_in + BIAS):
                p = int32(FIRSTS[layer] + u * STRIDES[layer] + (i if i < n_in else -1))
                g = added(pool, int32(down * GRADIENT_LINE + right), GRADIENT_ROWS * GRADIENT_LINE, GRADIENT_WAYS)
                if SPLITS > 1:
                    own.parts[split * SIZE + p] = g
                else:
                    finish_gradient(work, p, g, decay, h, i < n_in)


@cuda.jit(device=True, forceinline=True)
def add_parts(layer, work, decay, h):
    """Add up the parts of a layer's gradient."""
    _, _, own = work
    length = int32(SIZES[layer] + BIAS)
    begin = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    for e in range(begin, int32(SIZES[layer + 1] * length), int32(cuda.gridDim.x * THREADS)):
        u, i = quotient(e, length), int32(remainder(e, length) - BIAS)
        p, g = int32(FIRSTS[layer] + u * STRIDES[layer] + i), T(0)
        for split in range(SPLITS):
            g += own.parts[split * SIZE + p]
        finish_gradient(work, p, g, decay, h, i >= 0)


@cuda.jit(device=True, forceinline=True)
def hyperparameters(work, step):
    """The rule's hyperparameters in a step."""
    data, n, _ = work
    first, second = T(1), T(1)
    if RULE == "adam":
        first, second = data.corrections[2 * step], data.corrections[2 * step + 1]
    return Hyperparameters(n.learning_rate, n.momentum, n.beta1, n.beta2, n.epsilon, first, second)


def epoch(data, numbers, own, batch):
    """All steps of a job: one for each ``batch`` samples of the order.

    ``data`` are `fastmlp.kernels.cuda.records.Arrays`, ``numbers`` its `Numbers`, ``own`` its `Scratch`. Shared memory
    given at the launch: `POOL` numbers.
    """
    pool, totals = cuda.shared.array(0, T), cuda.shared.array(BLOCK_SUMS, T)
    count, met, work = int32(data.order.size), int32(0), (data, numbers, own)
    for step in range(up(count, batch)):
        at = int32(step * batch)
        rows = int32(min(batch, int32(count - at)))
        place = batch, at, rows
        for layer in range(LAYERS):
            feedforward(layer, pool, work, place)
            met = int32(met + 1)
            meet(own.counter, met)
        output(work, place, totals)
        met = int32(met + 1)
        meet(own.counter, met)
        if TARGETS:
            report(work, rows, step)
        if LEARNS:
            for back in range(1, LAYERS):
                backpropagation(LAYERS - back, pool, work, place)
                met = int32(met + 1)
                meet(own.counter, met)
            h, decay = hyperparameters(work, step), T(0)
            if PENALTY:
                decay = data.decays[step] if WEIGHTED else numbers.l2 / T(rows)
            for layer in range(LAYERS):
                gradients(layer, pool, work, place, decay, h)
            met = int32(met + 1)
            meet(own.counter, met)
            if SPLITS > 1:
                for layer in range(LAYERS):
                    add_parts(layer, work, decay, h)
                met = int32(met + 1)
                meet(own.counter, met)
