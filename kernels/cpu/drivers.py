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
from numba import carray, njit
from numba.core import types
from numba.extending import intrinsic

from fastmlp.kernels.activations import CODES as ACTIVATION_CODES
from fastmlp.kernels.cpu.cache import cached
from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.config import AHEAD_BYTES, COLUMNS, FUSED_SAMPLES, ROWS, SAMPLE_BYTES
from fastmlp.kernels.cpu.entries import (
    ADDRESS,
    BATCH,
    BETA1,
    BETA2,
    BIAS,
    BY_INPUT,
    CHUNK,
    CORRECTION1,
    CORRECTION2,
    DECAY,
    DECAYS_ARRAY,
    DELTA,
    DENSE_ARRAY,
    ERRORS_ARRAY,
    EVALUATE,
    GRADIENT,
    GRADIENT_BY_INPUT,
    GRADIENTS_ARRAY,
    H_LENGTH,
    HYPERPARAMETERS_ARRAY,
    INPUT,
    INPUT_CODE,
    L2,
    LABELS_ARRAY,
    LANES,
    LAYERS,
    LISTED,
    LISTS_ARRAY,
    LOSS,
    LOSSES_ARRAY,
    MATRIX,
    MEMBERS,
    ORDER_ARRAY,
    OUT_ARRAY,
    OUT_STRIDE,
    OUTPUT,
    OUTPUT_SLOPES,
    PACKED,
    PARTIAL,
    PARTIAL_ARRAY,
    PREDICT,
    PRIVATE,
    PROBABILITIES,
    REGION,
    RESULT,
    ROW_BYTES,
    RULE,
    SAMPLES,
    SCALE,
    SCRATCH_ARRAY,
    SETTINGS_ARRAY,
    SHARES_ARRAY,
    SHIFT,
    SIDES,
    SIZE,
    SLOPES,
    SLOTS,
    SLOTS_ARRAY,
    STEP,
    SUMS,
    TABLE_ARRAY,
    TABLE_COLUMNS,
    TARGETS,
    TEAM_ARRAY,
    TRAIN_LARGE,
    TRAIN_SMALL,
    UPDATE,
    WIDE,
)
from fastmlp.kernels.cpu.first_layer import (
    enter_rows_by_input,
    first_backward,
    first_forward,
    first_gradient_by_unit,
    first_start,
    first_update,
    leave_rows_by_input,
)
from fastmlp.kernels.cpu.lazy_layer import (
    enter_lazy_rows,
    lazy_sweep,
    leave_lazy_rows,
    list_batch,
    own_units,
)
from fastmlp.kernels.cpu.packing import packed_delta, packed_gradient
from fastmlp.kernels.cpu.prefetch import ask_for_bytes
from fastmlp.kernels.cpu.rows import activate, elementwise_loss, gather, one_hot, softmax, weighted_loss
from fastmlp.kernels.cpu.sparse import fill, sum_rows
from fastmlp.kernels.cpu.team import STOP, atomic_load, barrier, flush_subnormals, restore_subnormals
from fastmlp.kernels.cpu.tiles import (
    apply_rule,
    delta,
    dot1,
    dot2,
    dot4,
    outer,
    rule1,
    rule2,
    rule4,
)
from fastmlp.kernels.losses import CODES as LOSS_CODES
from fastmlp.kernels.losses import CROSS_ENTROPY
from fastmlp.kernels.network import ACTIVATION, N_IN, N_OUT, OFFSET, STRIDE

IDENTITY = ACTIVATION_CODES["identity"]
SOFTMAX_LOSS = LOSS_CODES[CROSS_ENTROPY]
#: Samples of one output each from which on they are put side by side; with so many, five numbers of each fit into as
#: many rows, which have 16 at least with their padding.
SIDE_BY_SIDE = 16
#: Samples whose losses share one logarithm, which takes 20 ns: of the product of their sums of exponentials, each
#: between 1 and the number of outputs, so that float64 has room for it.
SHARE_LOGARITHM = 16


# --------------------------------------------------------------------------------------------------------- small parts
@compiled
def take_in(plan, table, settings, order, labels, dense, scratch, x0, t0, first, last, ahead):
    """Samples and targets at places first … last - 1 of the order, into rows from x0 and t0 on.

    An empty order stands for 0, 1, 2, …; where there are neither labels nor dense targets, the rows stay as they are.
    Meanwhile samples so many places ``ahead`` in the order are asked for from memory.
    """
    n_in, n_out = table[0, N_IN], table[plan[LAYERS] - 1, N_OUT]
    sx, st = table[0, STRIDE], table[plan[LAYERS] - 1, OUT_STRIDE]
    scale, shift = scratch.dtype.type(settings[SCALE]), scratch.dtype.type(settings[SHIFT])
    for i in range(first, last):
        sample = order[i] if len(order) else i
        if ahead and i + ahead < len(order):
            ask_for_bytes(plan[ADDRESS] + order[i + ahead] * plan[ROW_BYTES], plan[ROW_BYTES])
        x, row = x0 + (i - first) * sx, t0 + (i - first) * st
        gather(plan[ADDRESS] + sample * plan[ROW_BYTES], plan[INPUT_CODE], n_in, scale, shift, scratch, x)
        if len(dense):
            for k in range(n_out):
                scratch[row + k] = dense[sample * n_out + k]
        elif len(labels) and n_out == 1:
            scratch[row] = labels[sample]
        elif len(labels):
            one_hot(labels[sample], n_out, scratch, row)


@compiled
def set_step(plan, settings, H, step, batch, decays, s):
    """The hyperparameters that change from step to step (the first is 1); s is the batch's number where it has decays.

    Samples with weights have what their penalty comes to in each batch in ``decays``.
    """
    if plan[SLOTS] == 2:  # Adam
        H[CORRECTION1] = 1 - settings[BETA1] ** step
        H[CORRECTION2] = 1 - settings[BETA2] ** step
    H[DECAY] = decays[s] if len(decays) else settings[L2] / batch


@compiled
def output_deltas(plan, table, scratch, shares, place, z0, t0, d0, p0, s0, n, total):
    """Outputs and deltas (divided by ``total``, the batch's samples) of n rows; returns the sum of their losses.

    Where there are shares, those from ``place`` on are of these rows: deltas and losses are then times their shares.
    """
    last = plan[LAYERS] - 1
    n_out, stride, code = table[last, N_OUT], table[last, OUT_STRIDE], table[last, ACTIVATION]
    loss, product = 0.0, 1.0
    factor = scratch.dtype.type(1) / scratch.dtype.type(total)
    if n_out == 1 and n >= SIDE_BY_SIDE:
        return lone_outputs(plan[LOSS], code, scratch, shares, place, z0, t0, d0, p0, s0, stride, n, factor)
    for i in range(n):
        row = i * stride
        z, t, d, p, s = z0 + row, t0 + row, d0 + row, p0 + row, s0 + row
        share = 1.0
        if len(shares):
            factor = shares[place + i]
            share = np.float64(factor)
        if plan[LOSS] == SOFTMAX_LOSS:
            exponentials, rest = softmax(scratch, z, n_out, scratch, t, factor, scratch, p, scratch, d)
            if len(shares):
                loss += share * (math.log(np.float64(exponentials)) + rest)
                continue
            product *= exponentials
            loss += rest
            if (i + 1) % SHARE_LOGARITHM == 0 or i == n - 1:
                loss += math.log(product)
                product = 1.0
        else:
            activate(code, scratch, z, n_out, scratch, p, scratch, s, np.int64(0))
            loss += share * elementwise_loss(
                plan[LOSS], scratch, z, n_out, scratch, p, scratch, s, scratch, t, factor, scratch, d
            )
    return loss


@compiled
def lone_outputs(loss_code, code, scratch, shares, place, z0, t0, d0, p0, s0, stride, n, factor):
    """`output_deltas` for samples with one output each: side by side they fill vectors, one a row would fill a lane.

    The rows of slopes, which nobody else reads, have room for six numbers a sample. Losses are summed in float64 after
    every 64, as they are after every row elsewhere.
    """
    width = (n + 15) // 16 * 16
    z, t, p, s, d, f = s0, s0 + width, s0 + 2 * width, s0 + 3 * width, s0 + 4 * width, s0 + 5 * width
    for i in range(n):
        scratch[z + i], scratch[t + i] = scratch[z0 + i * stride], scratch[t0 + i * stride]
    for i in range(n if len(shares) else 0):
        scratch[f + i] = shares[place + i]
    activate(code, scratch, z, n, scratch, p, scratch, s, np.int64(0))
    loss = 0.0
    for k in range(0, n, 64):
        if len(shares):
            loss += weighted_loss(
                loss_code, scratch, z + k, min(n - k, 64), scratch, p + k, scratch, s + k, scratch, t + k,
                scratch, f + k, scratch, d + k,
            )  # fmt: skip
        else:
            loss += elementwise_loss(
                loss_code, scratch, z + k, min(n - k, 64), scratch, p + k, scratch, s + k, scratch, t + k, factor,
                scratch, d + k,
            )  # fmt: skip
    for i in range(n):
        scratch[p0 + i * stride], scratch[d0 + i * stride] = scratch[p + i], scratch[d + i]
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
    delta(
        n, table[layer, N_OUT], scratch, d0, table[layer, OUT_STRIDE], parameters, table[layer, OFFSET],
        table[layer, STRIDE], scratch, s0, scratch, e0, table[layer - 1, OUT_STRIDE], start, stop, plan[LANES],
    )  # fmt: skip


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
def sweep(
    plan, table, layer, parameters, slots, H, scratch, first, last, start, n_in, d0, before, updates, x0, samples, z0
):
    """Update rows first … last - 1 from ``updates`` samples, then take their dot products with ``samples`` samples.

    Of the rows, columns ``start`` … n_in - 1 (the bias before the first among them if start is below 0).

    The update takes delta rows at d0 and input rows at ``before``; the pre-activations take input rows at x0 and go to
    z0. Either number of samples may be 0.

    Few samples stay in the first-level cache beside a group of rows, which is updated and multiplied at once. With
    more, the update goes by blocks of columns, narrow enough for the samples' part of a block to stay there while all
    rows pass over it, and the products get a pass of their own.
    """
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
    t, plan, table, settings, H, parameters, slots, order, labels, dense, shares, decays, losses, errors, scratch,
    lists, team,
):  # fmt: skip
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
    take_in(plan, table, settings, order, labels, dense, scratch, x0, t0, first, min(batch, samples), np.int64(0))
    if plan[BY_INPUT]:
        enter_lazy_rows(t, plan, table, parameters, slots, H, scratch, lists)
        list_batch(t, plan, table, settings, scratch, lists, first, min(batch, samples), first)
    done = np.int64(0)  # samples of the step before
    by_columns = plan[BY_INPUT] and layers > 1
    shared = np.int64(members > 1 and not plan[BY_INPUT])  # whether units are shared out other than by whole vectors
    for s in range(steps + 1):
        n = max(min(batch, samples - s * batch), 0)
        if s > 0:
            set_step(plan, settings, H, plan[STEP] + s, done, decays, s - 1)
        for layer in range(layers):
            n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
            stride, so = table[layer, STRIDE], table[layer, OUT_STRIDE]
            base = table[layer, INPUT] + (own if layer == 0 else 0)
            now, before = base + s % 2 * batch * stride, base + (s + 1) % 2 * batch * stride
            first, end = (
                own_units(t, plan, n_out) if plan[BY_INPUT] else (n_out * t // members, n_out * (t + 1) // members)
            )
            d0 = table[layer, DELTA] + (own if layer == 0 or layer == last else 0)
            z0 = own + plan[SUMS]
            left, right = -lanes * plan[BIAS], n_in
            if layer == last and by_columns:
                left, right = own_units(t, plan, n_in)
                left -= lanes * plan[BIAS] * (t == 0)
                first, end, z0 = np.int64(0), n_out, plan[PARTIAL] + (s % 2 * members + t) * batch * so
            target = table[layer, OUTPUT] + s % 2 * batch * so
            alone = layer == last and members == 1 and not plan[BY_INPUT]
            if alone:  # its logits need not be brought to the others
                z0 = target
            if layer == 0 and plan[BY_INPUT]:
                lazy_sweep(t, plan, table, settings, H, scratch, lists, d0 + first, done, n, s, z0)
            else:
                sweep(
                    plan, table, layer, parameters, slots, H, scratch, first, end, left, right, d0, before, done,
                    now, n, z0,
                )  # fmt: skip
            if layer < last or not (by_columns or alone):
                code = IDENTITY if layer == last else table[layer, ACTIVATION]
                slopes = s0 - first if layer == last else table[layer, SLOPES]
                for i in range(n):
                    activate(
                        code, scratch, z0 + i * so, end - first,
                        scratch, target + i * so + first, scratch, slopes + i * so + first, shared,
                    )  # fmt: skip
            if layer == 0 and s + 1 < steps:
                other, place = (s + 1) % 2 * batch, (s + 1) * batch
                take_in(
                    plan, table, settings, order, labels, dense, scratch,
                    x0 + other * sx, t0 + other * st, place, min(place + batch, samples), batch,
                )  # fmt: skip
                if plan[BY_INPUT]:
                    n_next = min(batch, samples - place)
                    list_batch(t, plan, table, settings, scratch, lists, (s + 1) % 2, n_next, s + 1)
            if (layer != last - 1 or not by_columns) and not barrier(t, team, members):
                return
        if s == steps:
            if plan[BY_INPUT]:
                leave_lazy_rows(t, plan, table, parameters, slots, H, scratch, lists, s)
            return
        d0 = own + table[last, DELTA]
        z0 = table[last, OUTPUT] + s % 2 * batch * st
        if by_columns:
            z0 = plan[PARTIAL] + s % 2 * members * batch * st
        if by_columns and members > 1:
            sum_rows(scratch, z0, batch * st, members, n * st, scratch, own + plan[SUMS])
            z0 = own + plan[SUMS]
        loss = output_deltas(
            plan, table, scratch, shares, s * batch, z0, t0 + s % 2 * batch * st, d0, p0, s0, n, n
        )  # fmt: skip
        if t == 0:
            losses[s] = loss if len(shares) else loss / n
            if len(errors):
                squares = squared_errors(plan, table, scratch, p0, t0 + s % 2 * batch * st, n)
                errors[s] = squares / (2 * n * table[last, N_OUT])
        for layer in range(last, 0, -1):
            width = table[layer - 1, N_OUT]
            if layer == 1 and not plan[BY_INPUT]:  # the vectors that hold this member's own units
                first, end = width * t // members // lanes * lanes, width * (t + 1) // members
            else:  # whole vectors, shared out
                first, end = own_units(t, plan, width)
            e0 = table[layer - 1, DELTA] + (own if layer == 1 else 0)
            delta_below(plan, table, layer, parameters, scratch, d0, table[layer - 1, SLOPES], e0, n, first, end)
            d0 = e0
            if layer > 1 and not barrier(t, team, members):
                return
        done = n


# -------------------------------------------------------------------------------------------------------- large batches
@compiled
def forward(t, plan, table, parameters, order, scratch, lists, n, place, stop):
    """Pre-activations and activations of all layers for a chunk of n samples in member t's region.

    The next samples are those from ``place`` to before ``stop`` of the order.
    """
    lanes, own = plan[LANES], plan[PRIVATE] + t * plan[REGION]
    start = -lanes * plan[BIAS]
    for layer in range(plan[LAYERS]):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        x0, z0, so = own + table[layer, INPUT], own + table[layer, OUTPUT], table[layer, OUT_STRIDE]
        if layer == 0 and plan[BY_INPUT]:
            first_forward(t, plan, table, order, scratch, lists, n, place, stop)
        else:
            dot_block(table, layer, parameters, scratch, np.int64(0), n_out, x0, n, z0, start, n_in)
        if layer < plan[LAYERS] - 1:
            s0 = own + table[layer, SLOPES]
            for i in range(n):
                activate(
                    table[layer, ACTIVATION], scratch, z0 + i * so, n_out,
                    scratch, z0 + i * so, scratch, s0 + i * so, np.int64(0),
                )  # fmt: skip


@compiled
def backward(t, plan, table, settings, parameters, scratch, lists, n, gradients, more):
    """The chunk's gradient of all layers, stored or added to what is there; the output's delta is there already.

    The gradient of a first layer in rows by input gathers there, until the last chunk has been.
    """
    lanes, own, g0 = plan[LANES], plan[PRIVATE] + t * plan[REGION], t * plan[SIZE]
    p0 = own + plan[PACKED]
    for layer in range(plan[LAYERS] - 1, -1, -1):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        stride, sd = table[layer, STRIDE], table[layer, OUT_STRIDE]
        d0, x0, target = own + table[layer, DELTA], own + table[layer, INPUT], g0 + table[layer, OFFSET]
        if layer == 0 and plan[BY_INPUT]:
            first_backward(t, plan, table, settings, scratch, lists, n, more)
        elif table[layer, WIDE]:
            packed_gradient(
                n_out, n, scratch, d0, sd, scratch, x0, stride, gradients, target, stride,
                -lanes * plan[BIAS], n_in, lanes, more, scratch, p0,
            )  # fmt: skip
        else:
            outer(
                n_out, n, scratch, d0, np.int64(1), sd, scratch, x0, stride, gradients, target, stride,
                -lanes * plan[BIAS], n_in, lanes, more,
            )  # fmt: skip
        if layer > 0:
            s0, e0 = own + table[layer - 1, SLOPES], own + table[layer - 1, DELTA]
            if table[layer, WIDE]:
                packed_delta(
                    n, n_out, scratch, d0, sd, parameters, table[layer, OFFSET], stride, scratch, s0,
                    scratch, e0, table[layer - 1, OUT_STRIDE], np.int64(0), n_in, lanes, scratch, p0,
                )  # fmt: skip
            else:
                delta_below(plan, table, layer, parameters, scratch, d0, s0, e0, n, np.int64(0), n_in)


@compiled
def batch_gradient(
    t, plan, table, settings, parameters, order, labels, dense, shares, scratch, lists, gradients, team, place, n,
    measure,
):  # fmt: skip
    """Member t's gradient for its share of the n samples from ``place`` on; returns its losses' and squares' sums.

    A team that is told to stop leaves it half done.
    """
    members, last, g0 = plan[MEMBERS], plan[LAYERS] - 1, t * plan[SIZE]
    own = plan[PRIVATE] + t * plan[REGION]
    low, high = n * t // members, n * (t + 1) // members
    if low == high:
        fill(gradients, g0, plan[SIZE], np.int64(0))
    if low == high and plan[BY_INPUT]:
        summed = own + plan[GRADIENT_BY_INPUT]
        fill(scratch, summed, plan[MATRIX], np.int64(0))
    if plan[BY_INPUT]:
        first_start(t, plan, settings, scratch)
    ahead = 0 if plan[LISTED] else AHEAD_BYTES // plan[ROW_BYTES] + 1  # lists ask for the next chunk's samples
    total, squares, i = 0.0, 0.0, low
    while i < high and atomic_load(team, STOP) == 0:
        chunk = min(plan[CHUNK], high - i)
        take_in(
            plan, table, settings, order, labels, dense, scratch,
            own + table[0, INPUT], own + plan[TARGETS], place + i, place + i + chunk, ahead,
        )  # fmt: skip
        forward(
            t, plan, table, parameters, order, scratch, lists, chunk, place + i + chunk, place + high
        )  # fmt: skip
        total += output_deltas(
            plan, table, scratch, shares, place + i, own + table[last, OUTPUT], own + plan[TARGETS],
            own + table[last, DELTA], own + plan[PROBABILITIES], own + plan[OUTPUT_SLOPES], chunk, n,
        )  # fmt: skip
        if measure:
            squares += squared_errors(plan, table, scratch, own + plan[PROBABILITIES], own + plan[TARGETS], chunk)
        backward(t, plan, table, settings, parameters, scratch, lists, chunk, gradients, np.intp(i > low))
        i += chunk
    return total, squares


@compiled
def find_gradient(
    t, plan, table, settings, parameters, slots, order, labels, dense, shares, scratch, lists, gradients, partial, team
):
    """Member t's part of the gradient of all samples as one batch."""
    if plan[BY_INPUT]:
        enter_rows_by_input(t, plan, table, settings, parameters, slots, scratch)
        if not barrier(t, team, plan[MEMBERS]):
            return
    partial[8 * t], _ = batch_gradient(
        t, plan, table, settings, parameters, order, labels, dense, shares, scratch, lists, gradients, team,
        np.int64(0), plan[SAMPLES], len(partial) == 0,
    )  # fmt: skip
    if plan[BY_INPUT]:
        first_gradient_by_unit(t, plan, table, scratch, gradients)


@compiled
def update_rows(t, plan, table, H, parameters, slots, gradients):
    """The rule on the rows that member t owns, from the sum of all members' gradients."""
    members, size, lanes, code = plan[MEMBERS], plan[SIZE], plan[LANES], plan[RULE]
    for layer in range(plan[BY_INPUT], plan[LAYERS]):
        n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
        offset, stride = table[layer, OFFSET], table[layer, STRIDE]
        for j in range(n_out * t // members, n_out * (t + 1) // members):
            row = offset + j * stride
            if plan[BIAS]:
                apply_rule(code, H, gradients, 0, members, size, parameters, slots, size, row - lanes, row, 1)
            apply_rule(code, H, gradients, 0, members, size, parameters, slots, size, row, row + n_in, 0)


@compiled
def train_large(
    t, plan, table, settings, H, parameters, slots, order, labels, dense, shares, decays, losses, errors, scratch,
    lists, gradients, partial, team,
):  # fmt: skip
    """Member t's part of an epoch of large batches."""
    members, batch, samples = plan[MEMBERS], plan[BATCH], plan[SAMPLES]
    if plan[BY_INPUT]:
        enter_rows_by_input(t, plan, table, settings, parameters, slots, scratch)
        if not barrier(t, team, members):
            return
    for s in range((samples + batch - 1) // batch):
        n = min(batch, samples - s * batch)
        partial[8 * t], partial[8 * t + 1] = batch_gradient(
            t, plan, table, settings, parameters, order, labels, dense, shares, scratch, lists, gradients, team,
            s * batch, n, len(errors) > 0,
        )  # fmt: skip
        if not barrier(t, team, members):
            return
        if t == 0:
            total, squares = 0.0, 0.0
            for member in range(members):
                total += partial[8 * member]
                squares += partial[8 * member + 1]
            losses[s] = total if len(shares) else total / n
            if len(errors):
                errors[s] = squares / (2 * n * table[plan[LAYERS] - 1, N_OUT])
        set_step(plan, settings, H, plan[STEP] + s + 1, n, decays, s)
        update_rows(t, plan, table, H, parameters, slots, gradients)
        if plan[BY_INPUT]:
            first_update(t, plan, table, settings, H, scratch)
        if not barrier(t, team, members):
            return
    if plan[BY_INPUT]:
        leave_rows_by_input(t, plan, table, parameters, slots, scratch)


# ------------------------------------------------------------------------------------------------------------ inference
@compiled
def count_hits(plan, table, scratch, shares, place, p0, t0, n):
    """How many of n rows are right: in all outputs or the largest, as `fastmlp.kernels.contract.counts_sides` says.

    Where there are shares, those from ``place`` on: the sum of those of the rows that are right. And the sum of all, in
    the same order, so that it is the same to the bit where all rows are right.
    """
    last = plan[LAYERS] - 1
    n_out, stride = table[last, N_OUT], table[last, OUT_STRIDE]
    hits, total = 0.0, 0.0
    for i in range(n):
        p, t = p0 + i * stride, t0 + i * stride
        share = np.float64(shares[place + i]) if len(shares) else 1.0
        total += share
        if plan[SIDES]:
            right = True
            for k in range(n_out):
                right &= (scratch[p + k] > 0.5) == (scratch[t + k] > 0.5)
            hits += share if right else 0.0
            continue
        answer, truth = 0, 0
        for k in range(1, n_out):
            if scratch[p + k] > scratch[p + answer]:
                answer = k
            if scratch[t + k] > scratch[t + truth]:
                truth = k
        hits += share if answer == truth else 0.0
    return hits, total


@compiled
def infer(
    t, job, plan, table, settings, parameters, slots, order, labels, dense, shares, scratch, lists, out, partial, team
):
    """Member t's share of the samples through the network, chunk by chunk."""
    members, last, samples = plan[MEMBERS], plan[LAYERS] - 1, plan[SAMPLES]
    own = plan[PRIVATE] + t * plan[REGION]
    z0, p0 = own + table[last, OUTPUT], own + plan[PROBABILITIES]
    loss, hits, total = 0.0, 0.0, 0.0
    if plan[BY_INPUT]:
        enter_rows_by_input(t, plan, table, settings, parameters, slots, scratch)
        if not barrier(t, team, members):
            return
        first_start(t, plan, settings, scratch)
    i, high = samples * t // members, samples * (t + 1) // members
    while i < high and atomic_load(team, STOP) == 0:
        chunk = min(plan[CHUNK], high - i)
        take_in(
            plan, table, settings, order, labels, dense, scratch,
            own + table[0, INPUT], own + plan[TARGETS], i, i + chunk, np.int64(0),
        )  # fmt: skip
        forward(t, plan, table, parameters, order, scratch, lists, chunk, i + chunk, high)
        loss += output_deltas(
            plan, table, scratch, shares, i, z0, own + plan[TARGETS], own + table[last, DELTA],
            p0, own + plan[OUTPUT_SLOPES], chunk, np.int64(1),
        )  # fmt: skip
        if job == EVALUATE:
            right, counted = count_hits(plan, table, scratch, shares, i, p0, own + plan[TARGETS], chunk)
            hits, total = hits + right, total + counted
        else:
            for layer in range(last if job == PREDICT else 0, last + 1):
                n_out, stride = table[layer, N_OUT], table[layer, OUT_STRIDE]
                source = p0 if layer == last else own + table[layer, OUTPUT]
                target = table[layer, RESULT] + i * n_out
                for row in range(chunk):
                    for k in range(n_out):
                        out[target + row * n_out + k] = scratch[source + row * stride + k]
        i += chunk
    partial[8 * t], partial[8 * t + 1], partial[8 * t + 2] = loss, hits, total


# ----------------------------------------------------------------------------------------------------- the one function
@intrinsic
def pointer_at(typing, address, kind):
    """An address as a pointer to numbers of that kind."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(types.intp, kind), generate


@njit(inline="always")
def array_of(plan, entry, kind):
    """The array of which the plan has address and length. Written where it is called, for no piece returns an array."""
    return carray(pointer_at(plan[entry], kind), (plan[entry + 1],))


@cached
def run(t, job, plan, parameters):
    """What member t of a team does of a job.

    All jobs are one compiled function a dtype: compiled once, kept in one file of the cache, and the same for every
    network, loss and rule, which it reads from the plan. So it finds all arrays but the parameters, for to hand an
    array over from Python takes a good part of the time of a prediction.
    """
    table = carray(pointer_at(plan[TABLE_ARRAY], np.int64), (plan[LAYERS], TABLE_COLUMNS))
    order, team = array_of(plan, ORDER_ARRAY, np.int64), array_of(plan, TEAM_ARRAY, np.int64)
    labels, lists = array_of(plan, LABELS_ARRAY, np.int32), array_of(plan, LISTS_ARRAY, np.int32)
    settings, partial = array_of(plan, SETTINGS_ARRAY, np.float64), array_of(plan, PARTIAL_ARRAY, np.float64)
    losses, errors = array_of(plan, LOSSES_ARRAY, np.float64), array_of(plan, ERRORS_ARRAY, np.float64)
    scratch, slots = array_of(plan, SCRATCH_ARRAY, parameters.dtype), array_of(plan, SLOTS_ARRAY, parameters.dtype)
    dense, out = array_of(plan, DENSE_ARRAY, parameters.dtype), array_of(plan, OUT_ARRAY, parameters.dtype)
    gradients, shares = (
        array_of(plan, GRADIENTS_ARRAY, parameters.dtype),
        array_of(plan, SHARES_ARRAY, parameters.dtype),
    )
    decays = array_of(plan, DECAYS_ARRAY, np.float64)
    H = array_of(plan, HYPERPARAMETERS_ARRAY, parameters.dtype)[t * H_LENGTH : (t + 1) * H_LENGTH]
    unit = flush_subnormals()
    if job in (TRAIN_SMALL, TRAIN_LARGE):
        samples, steps = plan[SAMPLES], (plan[SAMPLES] + plan[BATCH] - 1) // plan[BATCH]
        for epoch in range(len(order) // samples):  # an order may be that of several epochs
            epoch_order = order[epoch * samples : (epoch + 1) * samples]
            epoch_losses, epoch_errors = losses[epoch * steps :], errors[epoch * steps :]
            epoch_shares, epoch_decays = shares[epoch * samples :], decays[epoch * steps :]
            if job == TRAIN_SMALL:
                train_small(
                    t, plan, table, settings, H, parameters, slots, epoch_order, labels, dense, epoch_shares,
                    epoch_decays, epoch_losses, epoch_errors, scratch, lists, team,
                )  # fmt: skip
            else:
                train_large(
                    t, plan, table, settings, H, parameters, slots, epoch_order, labels, dense, epoch_shares,
                    epoch_decays, epoch_losses, epoch_errors, scratch, lists, gradients, partial, team,
                )  # fmt: skip
            if not barrier(t, team, plan[MEMBERS]):
                break
            if t == 0:
                plan[STEP] += steps
            if not barrier(t, team, plan[MEMBERS]):
                break
    elif job == GRADIENT:
        find_gradient(
            t, plan, table, settings, parameters, slots, order, labels, dense, shares, scratch, lists, gradients,
            partial, team,
        )  # fmt: skip
    elif job == UPDATE:
        set_step(plan, settings, H, plan[STEP] + 1, np.int64(1), decays, np.int64(0))
        apply_rule(plan[RULE], H, gradients, 0, 1, 0, parameters, slots, plan[SIZE], 0, plan[SIZE], 1)
    else:
        infer(
            t, job, plan, table, settings, parameters, slots, order, labels, dense, shares, scratch, lists, out,
            partial, team,
        )  # fmt: skip
    restore_subnormals(unit)
