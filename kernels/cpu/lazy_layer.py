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

from fastmlp.kernels.cpu.entries import (
    ACTIVE,
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
    LISTS,
    MEMBERS,
    MOMENTUM,
    OUT_STRIDE,
    PRIVATE,
    REGION,
    REST,
    ROWS,
    SLOTS,
    STARTS,
    UPDATED,
    VALUES,
    WORDS,
)
from fastmlp.kernels.cpu.sparse import (
    HALF,
    WIDEST,
    add_products,
    by_input,
    by_unit,
    list_marked,
    list_values,
    mark,
    rest_tile,
    row_sum,
    step_tile,
    sum_rows,
    word_of,
)
from fastmlp.kernels.cpu.tiles import compiled
from fastmlp.kernels.network import N_IN, N_OUT, OFFSET, STRIDE

#: Steps of rest that one step of catching up covers: the length of the table of μᵏ and η (μ + … + μᵏ).
LONGEST_REST = 256


@compiled
def own_units(t, plan, units):
    """The units of a layer that member t owns where they are shared out by whole vectors: from, and to before."""
    lanes = plan[LANES]
    vectors = (units + lanes - 1) // lanes
    return vectors * t // plan[MEMBERS] * lanes, min(units, vectors * (t + 1) // plan[MEMBERS] * lanes)


@compiled
def enter_lazy_rows(t, plan, table, parameters, slots, H, scratch, lists):
    """Member t's rows, and the table for rest."""
    n_in, offset, stride = table[0, N_IN], table[0, OFFSET], table[0, STRIDE]
    first, end = own_units(t, plan, table[0, N_OUT])
    own, apart = plan[PRIVATE] + t * plan[REGION], plan[APART]
    w0, sw, start = own + plan[ROWS], 2 * plan[APART], offset + first * stride
    scratch[w0 : w0 + (n_in + 3) * sw] = 0
    by_input(parameters, start, stride, 0, n_in + 1, n_in, end - first, apart, plan[BIAS], scratch, w0, sw)
    if plan[SLOTS]:
        by_input(slots, start, stride, 0, n_in + 1, n_in, end - first, apart, plan[BIAS], scratch, w0 + apart, sw)
    sum_rows(scratch, w0, sw, n_in, sw, scratch, w0 + (n_in + 2) * sw)
    updated = t * plan[LISTS] + plan[UPDATED]
    lists[updated : updated + n_in] = 0
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
    w0, sw, start, updated = own + plan[ROWS], 2 * plan[APART], offset + first * stride, t * plan[LISTS] + plan[UPDATED]
    everywhere = w0 + (n_in + 1) * sw
    for k in range(n_in):
        wake(plan, own, scratch, w0 + k * sw, end - first, steps - lists[updated + k], H)
        for j in range(sw):
            scratch[w0 + k * sw + j] += scratch[everywhere + j]
    by_unit(scratch, w0, sw, 0, n_in + 1, n_in, end - first, plan[BIAS], parameters, start, stride)
    if plan[SLOTS]:
        by_unit(scratch, w0 + apart, sw, 0, n_in + 1, n_in, end - first, plan[BIAS], slots, start, stride)


@compiled
def wake(plan, own, scratch, row, units, rested, H):
    """Bring a row of so many units up to date that has rested so many steps."""
    if H[MOMENTUM] == 0:
        return
    lanes = plan[LANES]
    vectors = (units + lanes - 1) // lanes
    while rested > 0:
        steps = min(rested, LONGEST_REST - 1)
        decay, way = scratch[own + plan[REST] + 2 * steps], scratch[own + plan[REST] + 2 * steps + 1]
        for v in range(0, vectors, WIDEST):
            rest_tile(min(WIDEST, vectors - v), scratch, row + v * lanes, plan[APART], decay, way)
        rested -= steps


@compiled
def list_batch(t, plan, table, settings, scratch, lists, buffer, n):
    """Lists of n samples whose rows are in that buffer: of each sample, and of the inputs active in any."""
    own, part = plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, sx, batch = table[0, N_IN], table[0, STRIDE], plan[BATCH]
    x0 = own + table[0, INPUT] + buffer * batch * sx
    low = part + plan[WORDS] + 2 * buffer * sx
    mark(scratch, x0, sx, min(n, HALF), n_in, lists, low)
    mark(scratch, x0 + HALF * sx, sx, max(n - HALF, 0), n_in, lists, low + sx)
    active = part + plan[ACTIVE] + buffer * sx
    lists[active] = list_marked(lists, low, low + sx, n_in, lists, active + 1)
    for i in range(n):
        list_values(
            x0 + i * sx, n_in, plan[BLOCK], plan[BIAS], scratch, own + plan[VALUES] + i * plan[CAPACITY],
            lists, part + i * plan[CAPACITY], part + plan[STARTS] + i * plan[BLOCKS],
        )  # fmt: skip
        if settings[BACKGROUND] != 0:
            scratch[own + plan[COEFFICIENTS] + buffer * batch + i] = row_sum(scratch, x0 + i * sx, n_in)
            scratch[own + plan[COEFFICIENTS] + 2 * batch + i] = settings[BACKGROUND]


@compiled
def lazy_update(t, plan, table, settings, H, scratch, lists, d0, buffer, n, steps):
    """Step number ``steps`` of member t's rows, from n samples in that buffer with their deltas at d0."""
    own, part = plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, n_out, sx, sd, batch = table[0, N_IN], table[0, N_OUT], table[0, STRIDE], table[0, OUT_STRIDE], plan[BATCH]
    first, end = own_units(t, plan, n_out)
    lanes, apart = plan[LANES], plan[APART]
    w0, sw, x0 = own + plan[ROWS], 2 * apart, own + table[0, INPUT] + buffer * batch * sx
    low, active = part + plan[WORDS] + 2 * buffer * sx, part + plan[ACTIVE] + buffer * sx
    vectors, all_samples, shifts = (
        (end - first + lanes - 1) // lanes,
        (1 << n) - 1 if n < 64 else -1,
        own + plan[COEFFICIENTS],
    )
    for v in range(0, vectors, WIDEST):
        width, d, w = min(WIDEST, vectors - v), d0 + v * lanes, w0 + v * lanes
        for j in range(active + 1, active + 1 + lists[active]):
            k = lists[j]
            word = word_of(n, lists, low + k, low + sx + k)
            step_tile(width, word, scratch, x0 + k, sx, scratch, d, sd, scratch, w + k * sw, apart, H)
        if plan[BIAS]:
            step_tile(width, all_samples, scratch, x0 - 1, sx, scratch, d, sd, scratch, w + n_in * sw, apart, H)
        if settings[BACKGROUND] != 0:
            row = w + (n_in + 1) * sw
            step_tile(width, all_samples, scratch, shifts + 2 * batch, 1, scratch, d, sd, scratch, row, apart, H)
            x = shifts + buffer * batch
            step_tile(width, all_samples, scratch, x, 1, scratch, d, sd, scratch, row + sw, apart, H)
    for j in range(active + 1, active + 1 + lists[active]):
        lists[part + plan[UPDATED] + lists[j]] = steps


@compiled
def lazy_forward(t, plan, table, settings, H, scratch, lists, buffer, n, steps, z0):
    """Pre-activations, at z0, of member t's units for n samples in that buffer, after so many steps."""
    own, part = plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, sx, sz, batch = table[0, N_IN], table[0, STRIDE], table[0, OUT_STRIDE], plan[BATCH]
    first, end = own_units(t, plan, table[0, N_OUT])
    apart = plan[APART]
    w0, sw, active, updated = own + plan[ROWS], 2 * apart, part + plan[ACTIVE] + buffer * sx, part + plan[UPDATED]
    for j in range(active + 1, active + 1 + lists[active]):
        k = lists[j]
        if lists[updated + k] != steps:
            wake(plan, own, scratch, w0 + k * sw, end - first, steps - lists[updated + k], H)
            lists[updated + k] = steps
    background = scratch.dtype.type(settings[BACKGROUND])
    everywhere, total = w0 + (n_in + 1) * sw, w0 + (n_in + 2) * sw
    for i in range(n):
        row = z0 + i * sz
        if background == 0:
            scratch[row : row + apart] = 0
            continue
        x = scratch[own + plan[COEFFICIENTS] + buffer * batch + i] + background * scratch.dtype.type(n_in)
        for j in range(apart):
            scratch[row + j] = x * scratch[everywhere + j] + background * scratch[total + j]
    add_products(
        n, end - first, plan[BLOCKS], plan[LANES], scratch, own + plan[VALUES], lists, part, part + plan[STARTS],
        plan[CAPACITY], w0, sw, z0, sz,
    )  # fmt: skip
