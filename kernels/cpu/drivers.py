"""The epoch, from its first step to its last, as one member of a team of threads runs it.

Two ways to split a step over the team, and one for inference:

small batches   by units. A member owns some rows of every layer. One sweep over its rows applies the update of the
                step before and, while the rows are in the first-level cache, takes their dot products with the next
                batch: weights and velocities are read once a step. After each layer's sweep the members meet at a
                barrier and see each other's activations. The output's delta is worked out by each for itself.
large batches   by samples. A member takes its samples in chunks that stay in the second-level cache, forward and
                backward, and adds up a gradient of its own; at a barrier the gradients meet, and each member updates
                the rows that it owns.

Numba compiles a function anew for an argument that is a literal number; hence np.int64(0) and the like below.

Legend: rows are aligned and padded (`fastmlp.kernels.network`); t is the member's number; offsets and strides count
elements of ``scratch``; l is a layer of weights from 0, D its delta, S its slopes.
"""

import math

import numpy as np

from fastmlp.kernels.activations import CODES as ACTIVATION_CODES
from fastmlp.kernels.cpu.cache import cached
from fastmlp.kernels.cpu.config import COLUMNS, FUSED_SAMPLES, ROWS, SAMPLE_BYTES
from fastmlp.kernels.cpu.rows import activate, elementwise_loss, gather, softmax, subtract_targets
from fastmlp.kernels.cpu.sparse import add_gradients, add_products, list_values, transpose_gradient, transpose_weights
from fastmlp.kernels.cpu.team import barrier, flush_subnormals, restore_subnormals
from fastmlp.kernels.cpu.tiles import (
    apply_rule,
    compiled,
    delta1,
    delta2,
    delta4,
    dot1,
    dot2,
    dot4,
    gradient1,
    gradient2,
    gradient4,
    rule1,
    rule2,
    rule4,
)
from fastmlp.kernels.losses import CODES as LOSS_CODES
from fastmlp.kernels.losses import CROSS_ENTROPY
from fastmlp.kernels.network import ACTIVATION, N_IN, N_OUT, OFFSET, STRIDE

#: What `run` is asked to do.
TRAIN_SMALL, TRAIN_LARGE, GRADIENT, UPDATE, PREDICT, FEEDFORWARD, EVALUATE = range(7)

#: Columns of the plan's table, after the five of `Network.table`: where the layer's input rows, output rows, slopes and
#: deltas lie in scratch, the stride of its output rows, and where its activations go in the result of `FEEDFORWARD`.
INPUT, OUTPUT, SLOPES, DELTA, OUT_STRIDE, RESULT = range(5, 11)
TABLE_COLUMNS = 11

#: Entries of the plan.
(
    MEMBERS,
    LAYERS,
    BIAS,
    LOSS,
    RULE,
    SIZE,  # parameters, and the distance between state arrays
    SAMPLES,  # entries of the order
    BATCH,
    CHUNK,  # rows that a member's scratch holds
    ADDRESS,  # of the samples
    INPUT_CODE,
    ROW_BYTES,  # of a sample
    TARGETS,  # scratch offset of the target rows
    PRIVATE,  # scratch offset of member 0's own region
    REGION,  # length of a member's own region
    SUMS,  # offset of pre-activations in a member's region
    PROBABILITIES,  # offset of outputs in a member's region
    OUTPUT_SLOPES,  # offset of the output's slopes in a member's region
    STEP,  # steps taken before
    LANES,
    SPARSE,  # whether the inputs are taken as lists of what is not zero
    VALUES,  # offset of the lists' values in a member's region
    BY_INPUT,  # offset there of the weights in rows by input, and
    GRADIENT_BY_INPUT,  # of their gradient
    BLOCKS,  # of inputs
    CAPACITY,  # of a sample's list
    LISTS,  # length of a member's part of the array of places, and
    STARTS,  # where in it the blocks' beginnings are
    PLAN_LENGTH,
) = range(29)

#: Entries of the settings, float64.
SCALE, SHIFT, L2, BETA1, BETA2, SETTINGS_LENGTH = range(6)

#: Elements of a member's hyperparameters: those of `HYPERPARAMETERS`, then λ/B.
H_LENGTH = 16
CORRECTION1, CORRECTION2, DECAY = 5, 6, 7

IDENTITY = ACTIVATION_CODES["identity"]
SOFTMAX_LOSS = LOSS_CODES[CROSS_ENTROPY]


# --------------------------------------------------------------------------------------------------------- small parts
@compiled
def take_in(t, plan, table, settings, order, labels, dense, scratch, lists, x0, t0, first, last):
    """Samples and targets at places first … last - 1 of the order, into rows from x0 and t0 on.

    An empty order stands for 0, 1, 2, …; where there are neither labels nor dense targets, the rows stay as they are.
    Sparse samples all use the one row at x0, from which member t's lists are made.
    """
    sparse = plan[SPARSE]
    v0, capacity = plan[PRIVATE] + t * plan[REGION] + plan[VALUES], plan[CAPACITY]
    n_in, n_out = table[0, N_IN], table[plan[LAYERS] - 1, N_OUT]
    sx, st = table[0, STRIDE], table[plan[LAYERS] - 1, OUT_STRIDE]
    scale, shift = scratch.dtype.type(settings[SCALE]), scratch.dtype.type(settings[SHIFT])
    for i in range(first, last):
        sample = order[i] if len(order) else i
        place, row = i - first, t0 + (i - first) * st
        x = x0 if sparse else x0 + place * sx
        gather(plan[ADDRESS] + sample * plan[ROW_BYTES], plan[INPUT_CODE], n_in, scale, shift, scratch, x)
        if sparse:
            p0, starts = t * plan[LISTS], t * plan[LISTS] + plan[STARTS]
            list_values(
                x, n_in, plan[BIAS], scratch, v0 + place * capacity, lists, p0 + place * capacity,
                starts + place * plan[BLOCKS],
            )  # fmt: skip
        if len(dense):
            for k in range(n_out):
                scratch[row + k] = dense[sample * n_out + k]
        elif len(labels) and n_out == 1:
            scratch[row] = labels[sample]
        elif len(labels):
            for k in range(n_out):
                scratch[row + k] = 0
            scratch[row + labels[sample]] = 1


@compiled
def set_step(plan, settings, H, step, batch):
    """The hyperparameters that change from step to step (the first is 1)."""
    H[CORRECTION1] = 1 - settings[BETA1] ** step
    H[CORRECTION2] = 1 - settings[BETA2] ** step
    H[DECAY] = settings[L2] / batch


@compiled
def output_deltas(plan, table, scratch, z0, t0, d0, p0, s0, n, total):
    """Outputs and deltas (divided by ``total``, the batch's samples) of n rows; returns the sum of their losses."""
    last = plan[LAYERS] - 1
    n_out, stride, code = table[last, N_OUT], table[last, OUT_STRIDE], table[last, ACTIVATION]
    loss = 0.0
    one = scratch.dtype.type(1)
    factor = one / scratch.dtype.type(total)
    for i in range(n):
        row = i * stride
        z, t, d, p, s = z0 + row, t0 + row, d0 + row, p0 + row, s0 + row
        if plan[LOSS] == SOFTMAX_LOSS:
            top, exponentials, chosen = softmax(scratch, z, n_out, scratch, p, scratch, t)
            scale = one / exponentials
            loss += math.log(exponentials) + top - chosen
            subtract_targets(scratch, p, n_out, scale, scratch, t, factor, scratch, d)
            for k in range(n_out):
                scratch[p + k] *= scale
        else:
            activate(code, scratch, z, n_out, scratch, p, scratch, s)
            loss += elementwise_loss(
                plan[LOSS], scratch, z, n_out, scratch, p, scratch, s, scratch, t, factor, scratch, d
            )
    return loss


@compiled
def squared_errors(plan, table, scratch, p0, t0, n):
    """The sum of (output - target)² over n rows."""
    last = plan[LAYERS] - 1
    n_out, stride = table[last, N_OUT], table[last, OUT_STRIDE]
    total = 0.0
    for i in range(n):
        for k in range(i * stride, i * stride + n_out):
            difference = scratch[p0 + k] - scratch[t0 + k]
            total += difference * difference
    return total


@compiled
def delta_below(plan, table, layer, parameters, scratch, d0, s0, e0, n, start, stop):
    """Delta of layer - 1 for n samples, columns start … stop - 1: the layer's delta times its weights times slopes."""
    n_out, offset, stride = table[layer, N_OUT], table[layer, OFFSET], table[layer, STRIDE]
    sd, se, lanes = table[layer, OUT_STRIDE], table[layer - 1, OUT_STRIDE], plan[LANES]
    i = 0
    while i < n:
        rest = n - i
        d, s, e = d0 + i * sd, s0 + i * se, e0 + i * se
        if rest >= ROWS:
            delta4(
                n_out, scratch, d, sd, 1, parameters, offset, stride,
                scratch, s, se, scratch, e, se, start, stop, lanes,
            )  # fmt: skip
            i += ROWS
        elif rest >= 2:
            delta2(
                n_out, scratch, d, sd, 1, parameters, offset, stride,
                scratch, s, se, scratch, e, se, start, stop, lanes,
            )  # fmt: skip
            i += 2
        else:
            delta1(
                n_out, scratch, d, sd, 1, parameters, offset, stride,
                scratch, s, se, scratch, e, se, start, stop, lanes,
            )  # fmt: skip
            i += 1


# -------------------------------------------------------------------------------------------------------- small batches
@compiled
def update_block(plan, table, layer, parameters, slots, H, scratch, first, last, d0, before, updates, start, stop):
    """Update columns start … stop - 1 of rows first … last - 1."""
    offset, stride, sd = table[layer, OFFSET], table[layer, STRIDE], table[layer, OUT_STRIDE]
    size, code, lanes = plan[SIZE], plan[RULE], plan[LANES]
    j = first
    while j < last:
        w, d, rest = offset + j * stride, d0 + j, last - j
        if rest >= ROWS:
            rule4(
                updates, scratch, d, 1, sd, scratch, before, stride, code, H,
                parameters, w, stride, slots, size, start, stop, lanes,
            )  # fmt: skip
            j += ROWS
        elif rest >= 2:
            rule2(
                updates, scratch, d, 1, sd, scratch, before, stride, code, H,
                parameters, w, stride, slots, size, start, stop, lanes,
            )  # fmt: skip
            j += 2
        else:
            rule1(
                updates, scratch, d, 1, sd, scratch, before, stride, code, H,
                parameters, w, stride, slots, size, start, stop, lanes,
            )  # fmt: skip
            j += 1


@compiled
def dot_block(table, layer, parameters, scratch, first, last, x0, samples, z0, start, stop):
    """Pre-activations of units first … last - 1 at z0, from columns start … stop - 1 of their rows."""
    offset, stride, sz = table[layer, OFFSET], table[layer, STRIDE], table[layer, OUT_STRIDE]
    j = first
    while j < last:
        w, z, rest = offset + j * stride, z0 + j - first, last - j
        if rest >= ROWS:
            dot4(parameters, w, stride, scratch, x0, stride, samples, start, stop, scratch, z, sz)
            j += ROWS
        elif rest >= 2:
            dot2(parameters, w, stride, scratch, x0, stride, samples, start, stop, scratch, z, sz)
            j += 2
        else:
            dot1(parameters, w, stride, scratch, x0, stride, samples, start, stop, scratch, z, sz)
            j += 1


@compiled
def sweep(plan, table, layer, parameters, slots, H, scratch, first, last, d0, before, updates, x0, samples, z0):
    """Update rows first … last - 1 from ``updates`` samples, then take their dot products with ``samples`` samples.

    The update takes delta rows at d0 and input rows at ``before``; the pre-activations take input rows at x0 and go to
    z0. Either number of samples may be 0.

    Few samples stay in the first-level cache beside a group of rows, which is updated and multiplied at once. With
    more, the update goes by blocks of columns, narrow enough for the samples' part of a block to stay there while all
    rows pass over it, and the products get a pass of their own.
    """
    n_in, start = table[layer, N_IN], -plan[LANES] * plan[BIAS]
    if max(updates, samples) <= FUSED_SAMPLES:
        j = first
        while j < last:
            end, z = min(j + ROWS, last), z0 + j - first
            if updates:
                update_block(
                    plan, table, layer, parameters, slots, H, scratch, j, end, d0, before, updates, start, n_in
                )
            if samples:
                dot_block(table, layer, parameters, scratch, j, end, x0, samples, z, start, n_in)
            j = end
        return
    if updates:
        tile = COLUMNS * plan[LANES]
        width, column = max(1, SAMPLE_BYTES // (updates * scratch.itemsize) // tile) * tile, start
        while column < n_in:
            stop = min(column + width, n_in)
            update_block(
                plan, table, layer, parameters, slots, H, scratch, first, last, d0, before, updates, column, stop
            )
            column += width
    if samples:
        dot_block(table, layer, parameters, scratch, first, last, x0, samples, z0, start, n_in)


@compiled
def train_small(
    t, plan, table, settings, H, parameters, slots, order, labels, dense, losses, errors, scratch, lists, team
):
    """Member t's part of an epoch of small batches.

    In step s a layer's sweep applies the update of step s - 1, so a layer's inputs are kept for two steps, in two
    buffers used in turn. Samples are taken in by each member for itself, which is quicker than fetching rows from
    another core's cache; what only its own member reads (samples, targets, the deltas of the first layer and of the
    output) lies in that member's region. Hidden activations and their deltas, and the logits, are shared.
    """
    members, layers, batch, samples = plan[MEMBERS], plan[LAYERS], plan[BATCH], plan[SAMPLES]
    own = plan[PRIVATE] + t * plan[REGION]
    last, lanes = layers - 1, plan[LANES]
    steps = (samples + batch - 1) // batch
    sx, st = table[0, STRIDE], table[last, OUT_STRIDE]
    p0, s0 = own + plan[PROBABILITIES], own + plan[OUTPUT_SLOPES]

    x0, t0 = own + table[0, INPUT], own + plan[TARGETS]
    first = np.int64(0)
    take_in(t, plan, table, settings, order, labels, dense, scratch, lists, x0, t0, first, min(batch, samples))
    done = np.int64(0)  # samples of the step before
    for s in range(steps + 1):
        n = max(min(batch, samples - s * batch), 0)
        if s > 0:
            set_step(plan, settings, H, plan[STEP] + s, done)
        for layer in range(layers):
            n_out, stride, so = table[layer, N_OUT], table[layer, STRIDE], table[layer, OUT_STRIDE]
            base = table[layer, INPUT] + (own if layer == 0 else 0)
            now, before = base + s % 2 * batch * stride, base + (s + 1) % 2 * batch * stride
            first, end = n_out * t // members, n_out * (t + 1) // members
            d0 = table[layer, DELTA] + (own if layer == 0 or layer == last else 0)
            z0 = own + plan[SUMS]
            sweep(plan, table, layer, parameters, slots, H, scratch, first, end, d0, before, done, now, n, z0)
            code = IDENTITY if layer == last else table[layer, ACTIVATION]
            target = table[layer, OUTPUT] + s % 2 * batch * so
            slopes = s0 - first if layer == last else table[layer, SLOPES]
            for i in range(n):
                activate(
                    code, scratch, z0 + i * so, end - first,
                    scratch, target + i * so + first, scratch, slopes + i * so + first,
                )  # fmt: skip
            if layer == 0 and s + 1 < steps:
                other, place = (s + 1) % 2 * batch, (s + 1) * batch
                take_in(
                    t, plan, table, settings, order, labels, dense, scratch, lists,
                    x0 + other * sx, t0 + other * st, place, min(place + batch, samples),
                )  # fmt: skip
            if not barrier(team, members):
                return
        if s == steps:
            return
        d0 = own + table[last, DELTA]
        z0 = table[last, OUTPUT] + s % 2 * batch * st
        loss = output_deltas(plan, table, scratch, z0, t0 + s % 2 * batch * st, d0, p0, s0, n, n)
        if t == 0:
            losses[s] = loss / n
            if len(errors):
                squares = squared_errors(plan, table, scratch, p0, t0 + s % 2 * batch * st, n)
                errors[s] = squares / (2 * n * table[last, N_OUT])
        for layer in range(last, 0, -1):
            width = table[layer - 1, N_OUT]
            if layer == 1:  # the vectors that hold this member's own units
                first, end = width * t // members // lanes * lanes, width * (t + 1) // members
            else:  # whole vectors, shared out: all members will read all of them
                vectors = (width + lanes - 1) // lanes
                first, end = vectors * t // members * lanes, vectors * (t + 1) // members * lanes
            e0 = table[layer - 1, DELTA] + (own if layer == 1 else 0)
            delta_below(plan, table, layer, parameters, scratch, d0, table[layer - 1, SLOPES], e0, n, first, end)
            d0 = e0
            if layer > 1 and not barrier(team, members):
                return
        done = n


# -------------------------------------------------------------------------------------------------------- large batches
@compiled
def weights_by_input(t, plan, table, parameters, scratch):
    """Member t's copy of the first layer's weights for the sparse products."""
    w0 = plan[PRIVATE] + t * plan[REGION] + plan[BY_INPUT]
    transpose_weights(
        parameters, table[0, OFFSET], table[0, STRIDE], table[0, N_IN], table[0, N_OUT], plan[BIAS],
        scratch, w0, table[0, OUT_STRIDE],
    )  # fmt: skip


@compiled
def forward(t, plan, table, parameters, scratch, lists, n):
    """Pre-activations and activations of all layers for a chunk of n samples in member t's region."""
    lanes, own = plan[LANES], plan[PRIVATE] + t * plan[REGION]
    start = -lanes * plan[BIAS]
    for layer in range(plan[LAYERS]):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        x0, z0, so = own + table[layer, INPUT], own + table[layer, OUTPUT], table[layer, OUT_STRIDE]
        if layer == 0 and plan[SPARSE]:
            for i in range(n):
                # To the end of the last vector: an earlier chunk's NaN times padding's 0 is NaN.
                scratch[z0 + i * so : z0 + i * so + (n_out + lanes - 1) // lanes * lanes] = 0
            p0 = t * plan[LISTS]
            add_products(
                n, n_out, plan[BLOCKS], plan[LANES], scratch, own + plan[VALUES], lists, p0, p0 + plan[STARTS],
                plan[CAPACITY], own + plan[BY_INPUT], so, z0, so,
            )  # fmt: skip
        else:
            dot_block(table, layer, parameters, scratch, np.int64(0), n_out, x0, n, z0, start, n_in)
        if layer < plan[LAYERS] - 1:
            s0 = own + table[layer, SLOPES]
            for i in range(n):
                activate(
                    table[layer, ACTIVATION], scratch, z0 + i * so, n_out,
                    scratch, z0 + i * so, scratch, s0 + i * so,
                )  # fmt: skip


@compiled
def backward(t, plan, table, parameters, scratch, lists, n, gradients, more):
    """The chunk's gradient of all layers, stored or added to what is there; the output's delta is there already.

    A block of columns of the inputs stays in the first-level cache while all units pass over it. A sparse first layer's
    gradient gathers in rows by input, until the last chunk has been.
    """
    lanes, own, g0 = plan[LANES], plan[PRIVATE] + t * plan[REGION], t * plan[SIZE]
    for layer in range(plan[LAYERS] - 1, -1, -1):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        stride, sd = table[layer, STRIDE], table[layer, OUT_STRIDE]
        d0, x0, target = own + table[layer, DELTA], own + table[layer, INPUT], g0 + table[layer, OFFSET]
        start = -lanes * plan[BIAS]
        if layer == 0 and plan[SPARSE]:
            p0 = t * plan[LISTS]
            add_gradients(
                n, n_out, plan[BLOCKS], lanes, scratch, own + plan[VALUES], lists, p0, p0 + plan[STARTS],
                plan[CAPACITY], own + plan[GRADIENT_BY_INPUT], sd, d0, sd,
            )  # fmt: skip
            start = n_in
        while start < n_in:
            stop = min(start + COLUMNS * lanes, n_in)
            j = 0
            while j < n_out:
                rest, g = n_out - j, target + j * stride
                if rest >= ROWS:
                    gradient4(
                        n, scratch, d0 + j, 1, sd, scratch, x0, stride, gradients, g, stride, start, stop, lanes, more
                    )
                    j += ROWS
                elif rest >= 2:
                    gradient2(
                        n, scratch, d0 + j, 1, sd, scratch, x0, stride, gradients, g, stride, start, stop, lanes, more
                    )
                    j += 2
                else:
                    gradient1(
                        n, scratch, d0 + j, 1, sd, scratch, x0, stride, gradients, g, stride, start, stop, lanes, more
                    )
                    j += 1
            start = start + COLUMNS * lanes
        if layer > 0:
            s0, e0 = own + table[layer - 1, SLOPES], own + table[layer - 1, DELTA]
            delta_below(plan, table, layer, parameters, scratch, d0, s0, e0, n, np.int64(0), table[layer, N_IN])


@compiled
def batch_gradient(
    t, plan, table, settings, parameters, order, labels, dense, scratch, lists, gradients, place, n, measure
):  # fmt: skip
    """Member t's gradient for its share of the n samples from ``place`` on; returns its losses' and squares' sums."""
    members, last, g0 = plan[MEMBERS], plan[LAYERS] - 1, t * plan[SIZE]
    own = plan[PRIVATE] + t * plan[REGION]
    low, high = n * t // members, n * (t + 1) // members
    if low == high:
        gradients[g0 : g0 + plan[SIZE]] = 0
    n_in, n_out, rows = table[0, N_IN], table[0, N_OUT], table[0, OUT_STRIDE]
    summed = own + plan[GRADIENT_BY_INPUT]
    if plan[SPARSE] and low < high:
        weights_by_input(t, plan, table, parameters, scratch)
        scratch[summed : summed + (n_in + 1) * rows] = 0
    total, squares, i = 0.0, 0.0, low
    while i < high:
        chunk = min(plan[CHUNK], high - i)
        take_in(
            t, plan, table, settings, order, labels, dense, scratch, lists,
            own + table[0, INPUT], own + plan[TARGETS], place + i, place + i + chunk,
        )  # fmt: skip
        forward(t, plan, table, parameters, scratch, lists, chunk)
        total += output_deltas(
            plan, table, scratch, own + table[last, OUTPUT], own + plan[TARGETS], own + table[last, DELTA],
            own + plan[PROBABILITIES], own + plan[OUTPUT_SLOPES], chunk, n,
        )  # fmt: skip
        if measure:
            squares += squared_errors(plan, table, scratch, own + plan[PROBABILITIES], own + plan[TARGETS], chunk)
        backward(t, plan, table, parameters, scratch, lists, chunk, gradients, np.intp(i > low))
        i += chunk
    if plan[SPARSE] and low < high:
        transpose_gradient(
            scratch, summed, rows, n_in, n_out, plan[BIAS], gradients, g0 + table[0, OFFSET], table[0, STRIDE]
        )
    return total, squares


@compiled
def update_rows(t, plan, table, H, parameters, slots, gradients):
    """The rule on the rows that member t owns, from the sum of all members' gradients."""
    members, size, lanes, code = plan[MEMBERS], plan[SIZE], plan[LANES], plan[RULE]
    for layer in range(plan[LAYERS]):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        offset, stride = table[layer, OFFSET], table[layer, STRIDE]
        for j in range(n_out * t // members, n_out * (t + 1) // members):
            row = offset + j * stride
            if plan[BIAS]:
                apply_rule(code, H, gradients, members, size, parameters, slots, size, row - lanes, row, 1)
            apply_rule(code, H, gradients, members, size, parameters, slots, size, row, row + n_in, 0)


@compiled
def train_large(
    t, plan, table, settings, H, parameters, slots, order, labels, dense, losses, errors, scratch, lists,
    gradients, partial, team,
):  # fmt: skip
    """Member t's part of an epoch of large batches."""
    members, batch, samples = plan[MEMBERS], plan[BATCH], plan[SAMPLES]
    for s in range((samples + batch - 1) // batch):
        n = min(batch, samples - s * batch)
        partial[8 * t], partial[8 * t + 1] = batch_gradient(
            t, plan, table, settings, parameters, order, labels, dense, scratch, lists, gradients, s * batch, n,
            len(errors) > 0,
        )  # fmt: skip
        if not barrier(team, members):
            return
        if t == 0:
            total, squares = 0.0, 0.0
            for member in range(members):
                total += partial[8 * member]
                squares += partial[8 * member + 1]
            losses[s] = total / n
            if len(errors):
                errors[s] = squares / (2 * n * table[plan[LAYERS] - 1, N_OUT])
        set_step(plan, settings, H, plan[STEP] + s + 1, n)
        update_rows(t, plan, table, H, parameters, slots, gradients)
        if not barrier(team, members):
            return


# ------------------------------------------------------------------------------------------------------------ inference
@compiled
def count_hits(plan, table, scratch, p0, t0, n):
    """How many of n rows have their largest output where the target has (one output: are on the same side of ½)."""
    last = plan[LAYERS] - 1
    n_out, stride = table[last, N_OUT], table[last, OUT_STRIDE]
    hits = 0
    for i in range(n):
        p, t = p0 + i * stride, t0 + i * stride
        if n_out == 1:
            hits += (scratch[p] > 0.5) == (scratch[t] > 0.5)
            continue
        answer, truth = 0, 0
        for k in range(1, n_out):
            if scratch[p + k] > scratch[p + answer]:
                answer = k
            if scratch[t + k] > scratch[t + truth]:
                truth = k
        hits += answer == truth
    return hits


@compiled
def infer(t, job, plan, table, settings, parameters, order, labels, dense, scratch, lists, out, partial):
    """Member t's share of the samples through the network, chunk by chunk."""
    members, last, samples = plan[MEMBERS], plan[LAYERS] - 1, plan[SAMPLES]
    own = plan[PRIVATE] + t * plan[REGION]
    z0, p0 = own + table[last, OUTPUT], own + plan[PROBABILITIES]
    loss, hits = 0.0, 0
    if plan[SPARSE]:
        weights_by_input(t, plan, table, parameters, scratch)
    i, high = samples * t // members, samples * (t + 1) // members
    while i < high:
        chunk = min(plan[CHUNK], high - i)
        take_in(
            t, plan, table, settings, order, labels, dense, scratch, lists,
            own + table[0, INPUT], own + plan[TARGETS], i, i + chunk,
        )  # fmt: skip
        forward(t, plan, table, parameters, scratch, lists, chunk)
        loss += output_deltas(
            plan, table, scratch, z0, own + plan[TARGETS], own + table[last, DELTA],
            p0, own + plan[OUTPUT_SLOPES], chunk, np.int64(1),
        )  # fmt: skip
        if job == EVALUATE:
            hits += count_hits(plan, table, scratch, p0, own + plan[TARGETS], chunk)
        else:
            for layer in range(last if job == PREDICT else 0, last + 1):
                n_out, stride = table[layer, N_OUT], table[layer, OUT_STRIDE]
                source = p0 if layer == last else own + table[layer, OUTPUT]
                target = table[layer, RESULT] + i * n_out
                for row in range(chunk):
                    for k in range(n_out):
                        out[target + row * n_out + k] = scratch[source + row * stride + k]
        i += chunk
    partial[8 * t], partial[8 * t + 1] = loss, hits


# ----------------------------------------------------------------------------------------------------- the one function
@cached
def run(
    t, job, plan, table, settings, hyperparameters, parameters, slots, order, labels, dense, out,
    losses, errors, scratch, lists, gradients, partial, team,
):  # fmt: skip
    """What member t of a team does of a job.

    All jobs are one compiled function a dtype: compiled once, kept in one file of the cache, and the same for every
    network, loss and rule, which it reads from the plan.
    """
    unit = flush_subnormals()
    H = hyperparameters[t * H_LENGTH : (t + 1) * H_LENGTH]
    if job == TRAIN_SMALL:
        train_small(
            t, plan, table, settings, H, parameters, slots, order, labels, dense, losses, errors, scratch, lists, team
        )
    elif job == TRAIN_LARGE:
        train_large(
            t, plan, table, settings, H, parameters, slots, order, labels, dense, losses, errors, scratch, lists,
            gradients, partial, team,
        )  # fmt: skip
    elif job == GRADIENT:
        partial[8 * t], _ = batch_gradient(
            t, plan, table, settings, parameters, order, labels, dense, scratch, lists, gradients, np.int64(0),
            plan[SAMPLES], False,
        )  # fmt: skip
    elif job == UPDATE:
        set_step(plan, settings, H, plan[STEP] + 1, np.int64(1))
        apply_rule(plan[RULE], H, gradients, 1, 0, parameters, slots, plan[SIZE], 0, plan[SIZE], 1)
    else:
        infer(t, job, plan, table, settings, parameters, order, labels, dense, scratch, lists, out, partial)
    restore_subnormals(unit)
