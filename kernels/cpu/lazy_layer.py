"""The first layer in small batches of samples of which most values are one same background: rows that rest.

A small batch has a value off the background in few inputs: one image of handwriting in a fifth of them, five in two
fifths. The rows (by input) of all others get no gradient of their own, and nothing reads them: they rest, and are
brought up to date when a batch next wants them. After k steps without a gradient, momentum has done

    v ← μᵏ v        w ← w - η (μ + μ² + … + μᵏ) v        (v before)

What the background β adds to the gradient, β Σᵢ δ[i, :], is the same for every input, so that one row u, with its
velocity, holds what it has added to all weights: W = W′ + u. The pre-activations want Σₖ W′[k, :] too, whose velocity
gets Σᵢ δ[i, :] Σₖ ξ[i, k]; it is kept in a row as well:

    z[i, :] = Σₖ ξ[i, k] W′[k, :] + u Σₖ x[i, k] + β Σₖ W′[k, :]

All this equals the steps one by one in exact arithmetic, and within rounding in floating point. A member keeps the rows
of its own units, each weight row with its velocities beside it, in its own region for as long as the job runs.
"""

import numpy as np

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.entries import (
    ACTIVE,
    ALWAYS,
    APART,
    BACKGROUND,
    BATCH,
    BIAS,
    BLOCK,
    BLOCKS,
    CAPACITY,
    COEFFICIENTS,
    INPUT,
    LANES,
    LEARNING_RATE,
    LENGTH,
    LISTS,
    MEMBERS,
    MOMENTUM,
    OUT_STRIDE,
    PRIVATE,
    REGION,
    REST,
    RESTED,
    ROWS_BY_INPUT,
    SLOTS,
    STARTS,
    UPDATED,
    VALUES,
    WOKEN,
    WORDS,
)
from fastmlp.kernels.cpu.lists import HALF, MOST_SAMPLES, list_inputs, list_values, mark, row_sum
from fastmlp.kernels.cpu.resting import AHEAD, FEW_SAMPLES, LONGEST_REST, rest_rows, step, step_rows_few
from fastmlp.kernels.cpu.sparse import block_products, by_input, by_unit, fill, mix_rows, parts_of, sum_rows
from fastmlp.kernels.network import N_IN, N_OUT, OFFSET, STRIDE


@compiled
def own_units(t, plan, units):
    """The units of a layer that member t owns where they are shared out by whole vectors: from, and to before."""
    lanes = plan[LANES]
    vectors = (units + lanes - 1) // lanes
    return vectors * t // plan[MEMBERS] * lanes, min(units, vectors * (t + 1) // plan[MEMBERS] * lanes)


@compiled
def all_bits(n):
    """The word of an input that is off the background in all of n samples."""
    return (1 << n) - 1 if n < MOST_SAMPLES else -1


@compiled
def enter_lazy_rows(t, plan, table, parameters, slots, H, scratch, lists):
    """Member t's rows, and the table for rest."""
    n_in, offset, stride = table[0, N_IN], table[0, OFFSET], table[0, STRIDE]
    first, end = own_units(t, plan, table[0, N_OUT])
    own, apart, all_inputs = plan[PRIVATE] + t * plan[REGION], plan[APART], n_in + 1
    w0, sw, start = own + plan[ROWS_BY_INPUT], 2 * plan[APART], offset + first * stride
    units, bias, none = end - first, plan[BIAS], np.int64(0)
    fill(scratch, w0, (n_in + 3) * sw, none)
    by_input(parameters, start, stride, none, all_inputs, n_in, units, apart, bias, scratch, w0, sw)
    if plan[SLOTS]:
        by_input(slots, start, stride, none, all_inputs, n_in, units, apart, bias, scratch, w0 + apart, sw)
    sum_rows(scratch, w0, sw, n_in, sw, scratch, w0 + (n_in + 2) * sw)
    updated = t * plan[LISTS] + plan[UPDATED]
    fill(lists, updated, n_in, none)
    decay, way, rest = 1.0, 0.0, own + plan[REST]
    for k in range(LONGEST_REST):
        scratch[rest + 2 * k], scratch[rest + 2 * k + 1] = decay, way
        decay *= H[MOMENTUM]
        way += H[LEARNING_RATE] * decay


@compiled
def leave_lazy_rows(t, plan, table, parameters, slots, H, scratch, lists, steps):
    """Member t's rows, all brought up to date, back to where they came from."""
    n_in, offset, stride = table[0, N_IN], table[0, OFFSET], table[0, STRIDE]
    first, end = own_units(t, plan, table[0, N_OUT])
    own, apart = plan[PRIVATE] + t * plan[REGION], plan[APART]
    w0, sw, start = own + plan[ROWS_BY_INPUT], 2 * plan[APART], offset + first * stride
    updated = t * plan[LISTS] + plan[UPDATED]
    everywhere, lanes, sx = w0 + (n_in + 1) * sw, plan[LANES], table[0, STRIDE]
    last = t * plan[LISTS] + plan[WORDS] + 2 * ((steps - 1) % 2) * sx  # its step has just been taken
    listed, rested, count = t * plan[LISTS] + plan[WOKEN], t * plan[LISTS] + plan[RESTED], 0
    for k in range(n_in):
        if lists[last + k] == 0 and lists[last + sx + k] == 0:
            lists[listed + count], lists[rested + k] = k, steps - lists[updated + k]
            count += 1
    fill(lists, listed + count, np.int64(AHEAD), np.int64(0))
    if plan[SLOTS]:
        vectors = (end - first + lanes - 1) // lanes
        rest_rows(vectors, lists, listed, listed + count, rested, own + plan[REST], scratch, w0, sw, apart)
    for k in range(n_in):
        for j in range(sw):
            scratch[w0 + k * sw + j] += scratch[everywhere + j]
    by_unit(scratch, w0, sw, np.int64(0), n_in + 1, n_in, end - first, plan[BIAS], parameters, start, stride)
    if plan[SLOTS]:
        by_unit(scratch, w0 + apart, sw, np.int64(0), n_in + 1, n_in, end - first, plan[BIAS], slots, start, stride)


@compiled
def list_batch(t, plan, table, settings, scratch, lists, buffer, n, steps):
    """Lists of n samples whose rows are in that buffer: the batch that is taken after so many steps.

    Of each sample, what is off the background; of the inputs, which are active in any sample, and which of them have to
    be woken: those that were not active in the batch before, whose rows take part in its step.
    """
    own, mine = plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, sx, batch, block, blocks = table[0, N_IN], table[0, STRIDE], plan[BATCH], plan[BLOCK], plan[BLOCKS]
    x0 = own + table[0, INPUT] + buffer * batch * sx
    words, updated = mine + plan[WORDS], mine + plan[UPDATED]
    low, before = words + 2 * buffer * sx, words + 2 * (1 - buffer) * sx
    mark(scratch, x0, sx, min(n, HALF), n_in, lists, low)
    mark(scratch, x0 + HALF * sx, sx, max(n - HALF, 0), n_in, lists, low + sx)
    active, woken, rested = mine + plan[ACTIVE] + buffer * plan[LENGTH], mine + plan[WOKEN], mine + plan[RESTED]
    list_inputs(lists, low, before, sx, n_in, block, active, woken, updated, rested, steps)
    for i in range(n):
        list_values(
            x0 + i * sx, n_in, block, plan[BIAS], scratch, own + plan[VALUES] + i * plan[CAPACITY],
            lists, mine + i * plan[CAPACITY], mine + plan[STARTS] + i * blocks,
        )  # fmt: skip
        if settings[BACKGROUND] != 0:
            scratch[own + plan[COEFFICIENTS] + buffer * batch + i] = row_sum(scratch, x0 + i * sx, n_in)
            scratch[own + plan[COEFFICIENTS] + 2 * batch + i] = settings[BACKGROUND]


@compiled
def lazy_sweep(t, plan, table, settings, H, scratch, lists, d0, done, n, steps, z0):
    """Step number ``steps`` of member t's rows, then the pre-activations of n samples at z0.

    The step is from ``done`` samples with their deltas at d0. Either number may be 0. A block of inputs at a time, so
    that its rows are in the first-level cache when the samples' products want them.
    """
    own, mine = plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, sx, sd, batch, blocks = table[0, N_IN], table[0, STRIDE], table[0, OUT_STRIDE], plan[BATCH], plan[BLOCKS]
    first, end = own_units(t, plan, table[0, N_OUT])
    lanes, apart, old, new = plan[LANES], plan[APART], (steps + 1) % 2, steps % 2
    w0, sw, x0 = own + plan[ROWS_BY_INPUT], 2 * apart, own + table[0, INPUT] + old * batch * sx
    low, active = mine + plan[WORDS] + 2 * old * sx, mine + plan[ACTIVE] + old * plan[LENGTH]
    woken, rested, starts = mine + plan[WOKEN], mine + plan[RESTED], mine + plan[STARTS]
    if done:
        listed = mine + plan[ALWAYS]
        step_everywhere(plan, own, settings, H, scratch, lists, listed, x0, sx, d0, sd, w0, end - first, old, done)
    if n:
        start_sums(plan, own, settings, scratch, w0 + (n_in + 1) * sw, n_in, z0, sd, new, n)
    vectors, values, capacity = (end - first + lanes - 1) // lanes, own + plan[VALUES], plan[CAPACITY]
    parts = parts_of(vectors)
    for part in range(parts):
        v, next_v = vectors * part // parts, vectors * (part + 1) // parts
        width, d, w = next_v - v, d0 + v * lanes, w0 + v * lanes
        for block in range(blocks):
            begin, stop = active + lists[active + block], active + lists[active + block + 1]
            if 0 < done <= FEW_SAMPLES:
                step_rows_few(
                    width, done, lists, begin, stop, scratch, x0, sx, scratch, d, sd, scratch, w, sw, apart, H
                )
            elif done:
                step(width, done, np.int64(0), lists, begin, stop, low, sx, scratch, x0, sx, d, sd, w, sw, apart, H)
            if n and plan[SLOTS]:
                rest_rows(
                    width, lists, woken + lists[woken + block], woken + lists[woken + block + 1], rested,
                    own + plan[REST], scratch, w, sw, apart,
                )  # fmt: skip
            block_products(
                width, n, scratch, values, lists, mine, capacity, starts + block, blocks, w, sw, z0 + v * lanes, sd
            )


@compiled
def step_everywhere(plan, own, settings, H, scratch, lists, listed, x0, sx, d0, sd, w0, units, buffer, n):
    """The step of the rows that every sample has a part in: the bias, u, and the sum over all inputs."""
    lanes, apart, coefficients, batch = plan[LANES], plan[APART], own + plan[COEFFICIENTS], plan[BATCH]
    sw, bias, everywhere, total = 2 * apart, listed, listed + 1, listed + 2
    k = np.int64(lists[bias])  # the first of the three rows; x is counted from it
    vectors, word, none = (units + lanes - 1) // lanes, all_bits(n), np.int64(0)
    parts = parts_of(vectors)
    for part in range(parts):
        v, next_v = vectors * part // parts, vectors * (part + 1) // parts
        width, d, w = next_v - v, d0 + v * lanes, w0 + v * lanes
        if plan[BIAS]:
            x = x0 - 1 - k
            step(width, n, word, lists, bias, bias + 1, bias, none, scratch, x, sx, d, sd, w, sw, apart, H)
        if settings[BACKGROUND] != 0:
            x = coefficients + 2 * batch - (k + 1)
            step(width, n, word, lists, everywhere, total, bias, none, scratch, x, np.int64(1), d, sd, w, sw, apart, H)
            x = coefficients + buffer * batch - (k + 2)
            step(width, n, word, lists, total, total + 1, bias, none, scratch, x, np.int64(1), d, sd, w, sw, apart, H)


@compiled
def start_sums(plan, own, settings, scratch, everywhere, n_in, z0, sz, buffer, n):
    """What the background gives to the pre-activations of n samples; zero without one."""
    background, apart = scratch.dtype.type(settings[BACKGROUND]), plan[APART]
    for i in range(n):
        row = z0 + i * sz
        if background == 0:
            fill(scratch, row, apart, np.int64(0))
            continue
        x = scratch[own + plan[COEFFICIENTS] + buffer * plan[BATCH] + i] + background * scratch.dtype.type(n_in)
        mix_rows(x, everywhere, background, everywhere + 2 * apart, scratch, apart, scratch, row)
