"""The first layer in rows by input: for samples that are mostly one background (`sparse`), and for few inputs.

`enter_rows_by_input` copies its weights and their state into scratch, by shares of the inputs; while the job runs they
are kept there alone, and `leave_rows_by_input` brings them back. In between every member reads all rows, and updates
those of its share.
"""

import numpy as np

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.config import INPUT_BLOCK
from fastmlp.kernels.cpu.entries import (
    ADDRESS,
    BACKGROUND,
    BASE,
    BIAS,
    BLOCKS,
    CAPACITY,
    DELTA,
    DELTA_SUM,
    GRADIENT_BY_INPUT,
    INPUT,
    LANES,
    LISTED,
    LISTS,
    MATRIX,
    MEMBERS,
    OUT_STRIDE,
    OUTPUT,
    PRIVATE,
    REGION,
    ROW_BYTES,
    RULE,
    SHIFTED,
    SIZE,
    SLOTS,
    STARTS,
    UNIT_SUMS,
    UNITS_STRIDE,
    VALUES,
    WEIGHTS_BY_INPUT,
    WORDS,
)
from fastmlp.kernels.cpu.lists import HALF, list_values, mark
from fastmlp.kernels.cpu.prefetch import ask_for_bytes
from fastmlp.kernels.cpu.sparse import add_gradients, add_products, by_input, by_unit, sum_rows
from fastmlp.kernels.cpu.tiles import apply_rule, outer
from fastmlp.kernels.network import N_IN, N_OUT, OFFSET, STRIDE


@compiled
def share(t, plan, table):
    """The inputs, the bias among them, whose rows are member t's to update: from, and to before."""
    rows = table[0, N_IN] + 1
    return rows * t // plan[MEMBERS], rows * (t + 1) // plan[MEMBERS]


@compiled
def enter_rows_by_input(t, plan, table, settings, parameters, slots, scratch):
    """Member t's share of the weights and of the rule's state arrays; a barrier must follow."""
    first, last = share(t, plan, table)
    n_in, n_out, offset, stride = table[0, N_IN], table[0, N_OUT], table[0, OFFSET], table[0, STRIDE]
    w0, sw, size = plan[WEIGHTS_BY_INPUT], plan[UNITS_STRIDE], plan[SIZE]
    by_input(parameters, offset, stride, first, last, n_in, n_out, sw, plan[BIAS], scratch, w0, sw)
    for slot in range(plan[SLOTS]):
        w0 += plan[MATRIX]
        by_input(slots, slot * size + offset, stride, first, last, n_in, n_out, sw, plan[BIAS], scratch, w0, sw)
    sum_units(t, plan, table, settings, scratch)


@compiled
def leave_rows_by_input(t, plan, table, parameters, slots, scratch):
    """Member t's share back to where they came from."""
    first, last = share(t, plan, table)
    n_in, n_out, offset, stride = table[0, N_IN], table[0, N_OUT], table[0, OFFSET], table[0, STRIDE]
    w0, sw, size = plan[WEIGHTS_BY_INPUT], plan[UNITS_STRIDE], plan[SIZE]
    by_unit(scratch, w0, sw, first, last, n_in, n_out, plan[BIAS], parameters, offset, stride)
    for slot in range(plan[SLOTS]):
        w0 += plan[MATRIX]
        by_unit(scratch, w0, sw, first, last, n_in, n_out, plan[BIAS], slots, slot * size + offset, stride)


@compiled
def sum_units(t, plan, table, settings, scratch):
    """The sums of member t's share of the weights, unit by unit, where a background will want them."""
    if settings[BACKGROUND] == 0:
        return
    first, last = share(t, plan, table)
    rows = min(last, table[0, N_IN]) - first
    own, sw = plan[PRIVATE] + t * plan[REGION], plan[UNITS_STRIDE]
    sum_rows(scratch, plan[WEIGHTS_BY_INPUT] + first * sw, sw, rows, sw, scratch, own + plan[UNIT_SUMS])


@compiled
def first_start(t, plan, settings, scratch):
    """Member t's row of what the background adds to every sample's pre-activations: β Σₖ Wᵀ[k, :]."""
    background, width = scratch.dtype.type(settings[BACKGROUND]), plan[UNITS_STRIDE]
    base = plan[PRIVATE] + t * plan[REGION] + plan[BASE]
    for j in range(width):
        scratch[base + j] = 0
    if background == 0:
        return
    for member in range(plan[MEMBERS]):
        sums = plan[PRIVATE] + member * plan[REGION] + plan[UNIT_SUMS]
        for j in range(width):
            scratch[base + j] += scratch[sums + j]
    for j in range(width):
        scratch[base + j] *= background


@compiled
def first_forward(t, plan, table, order, scratch, lists, n, place, stop):
    """Pre-activations of n samples, from their rows; ``place`` and ``stop`` as in `listed_forward`."""
    if plan[LISTED]:
        listed_forward(t, plan, table, order, scratch, lists, n, place, stop)
        return
    own, n_in, n_out, sz = plan[PRIVATE] + t * plan[REGION], table[0, N_IN], table[0, N_OUT], table[0, OUT_STRIDE]
    outer(
        n, n_in + 1, scratch, own + table[0, INPUT], table[0, STRIDE], np.int64(1), scratch, plan[WEIGHTS_BY_INPUT],
        plan[UNITS_STRIDE], scratch, own + table[0, OUTPUT], sz, np.int64(0), n_out, plan[LANES], np.int64(0),
    )  # fmt: skip


@compiled
def listed_forward(t, plan, table, order, scratch, lists, n, place, stop):
    """Pre-activations of n samples, from their rows.

    Meanwhile the next samples, at ``place`` and before ``stop`` of the order, are fetched from memory, a row each time
    that a row is listed: memory is then busy while the products are made.
    """
    lanes, own, part = plan[LANES], plan[PRIVATE] + t * plan[REGION], t * plan[LISTS]
    n_in, n_out, sx, sz = table[0, N_IN], table[0, N_OUT], table[0, STRIDE], table[0, OUT_STRIDE]
    x0, z0, base, width = own + table[0, INPUT], own + table[0, OUTPUT], own + plan[BASE], plan[UNITS_STRIDE]
    values, starts, capacity, blocks = own + plan[VALUES], part + plan[STARTS], plan[CAPACITY], plan[BLOCKS]
    for i in range(n):
        if place + i < stop:
            sample = order[place + i] if len(order) else place + i
            ask_for_bytes(plan[ADDRESS] + sample * plan[ROW_BYTES], plan[ROW_BYTES])
        list_values(
            x0 + i * sx, n_in, INPUT_BLOCK, plan[BIAS], scratch, values + i * capacity, lists, part + i * capacity,
            starts + i * blocks,
        )  # fmt: skip
        sum_rows(scratch, base, width, np.int64(1), width, scratch, z0 + i * sz)  # of one row: its copy
    add_products(
        n, n_out, blocks, lanes, scratch, values, lists, part, starts, capacity, plan[WEIGHTS_BY_INPUT], width, z0, sz
    )


@compiled
def first_backward(t, plan, table, settings, scratch, lists, n, more):
    """The gradient by input of a chunk of n samples, stored or added to what is there."""
    lanes, own = plan[LANES], plan[PRIVATE] + t * plan[REGION]
    n_in, n_out, sx, sd = table[0, N_IN], table[0, N_OUT], table[0, STRIDE], table[0, OUT_STRIDE]
    x0, d0, g0, width = own + table[0, INPUT], own + table[0, DELTA], own + plan[GRADIENT_BY_INPUT], plan[UNITS_STRIDE]
    if not plan[LISTED]:
        outer(
            n_in + 1, n, scratch, x0, np.int64(1), sx, scratch, d0, sd, scratch, g0, width, np.int64(0), n_out, lanes,
            more,
        )  # fmt: skip
        return
    summed, shifted, bias = own + plan[DELTA_SUM], own + plan[SHIFTED], g0 + n_in * width
    background = scratch.dtype.type(settings[BACKGROUND])
    sum_rows(scratch, d0, sd, n, (n_out + lanes - 1) // lanes * lanes, scratch, summed)
    for j in range(n_out):
        scratch[shifted + j] = background * scratch[summed + j]
        scratch[bias + j] = scratch[summed + j] + (scratch[bias + j] if more else 0)
    low, high = t * plan[LISTS] + plan[WORDS], t * plan[LISTS] + plan[WORDS] + sx
    mark(scratch, x0, sx, min(n, HALF), n_in, lists, low)
    if n > HALF:
        mark(scratch, x0 + HALF * sx, sx, n - HALF, n_in, lists, high)
    add_gradients(
        n, n_in, n_out, lanes, scratch, x0, sx, lists, low, high, d0, sd, shifted, background != 0, g0, width, more
    )


@compiled
def first_gradient_by_unit(t, plan, table, scratch, gradients):
    """Member t's whole gradient from rows by input to rows by unit."""
    n_in, n_out, offset, stride = table[0, N_IN], table[0, N_OUT], table[0, OFFSET], table[0, STRIDE]
    summed = plan[PRIVATE] + t * plan[REGION] + plan[GRADIENT_BY_INPUT]
    by_unit(
        scratch, summed, plan[UNITS_STRIDE], np.int64(0), n_in + 1, n_in, n_out, plan[BIAS],
        gradients, t * plan[SIZE] + offset, stride,
    )  # fmt: skip


@compiled
def first_update(t, plan, table, settings, H, scratch):
    """The rule on member t's share, from the sum of all members' gradients."""
    first, last = share(t, plan, table)
    n_in, width, w0 = table[0, N_IN], plan[UNITS_STRIDE], plan[WEIGHTS_BY_INPUT]
    away = plan[PRIVATE] + plan[GRADIENT_BY_INPUT] - w0  # from a weight to its gradient
    state = scratch[plan[MATRIX] :]
    members, region, matrix, code = plan[MEMBERS], plan[REGION], plan[MATRIX], plan[RULE]
    end = min(last, n_in)
    apply_rule(code, H, scratch, away, members, region, scratch, state, matrix, w0 + first * width, w0 + end * width, 0)
    if plan[BIAS] and last > n_in:
        row = w0 + n_in * width
        apply_rule(code, H, scratch, away, members, region, scratch, state, matrix, row, row + width, 1)
    sum_units(t, plan, table, settings, scratch)
