"""Products with inputs that are mostly zero, such as the pixels of handwriting.

The first layer's products skip the zeros. A sample becomes a list of its values and their places (the bias is one more
value, a 1 at place n_in), and the weights are copied, once a step, into rows by input: then each value wants one
contiguous row of weights, spread over the units, and gives to one contiguous row of the gradient.

    z[i, :] += x[i, k] Wᵀ[k, :]        Gᵀ[k, :] += x[i, k] δ[i, :]

The lists are cut into blocks of inputs, whose rows of Wᵀ or Gᵀ stay in the first-level cache while all samples of a
chunk pass over them. Up to `WIDEST` vectors of units are in registers at a time: eight or nine keep both multipliers
busy, and the fewer they are, the more inputs a block may have, and the longer its lists are.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.config import INPUT_BLOCK
from fastmlp.kernels.cpu.tiles import compiled
from fastmlp.kernels.cpu.vectors import INT32, INTP, VectorMath, cases, int_constant, loop, loop_while, pointer

#: Vectors of units in registers.
WIDEST = 9

#: Inputs that are compared with zero at once: a divisor of `INPUT_BLOCK`, whole vectors, at most the bits of a word.
COMPARED = INPUT_BLOCK // 2

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


@intrinsic
def compress(typing, X, x0, n, base, values, v0, places, p0):
    """List the non-zero among n ≤ 64 values at x0 (padded to whole vectors): values at v0, ``base`` + place at p0.

    Returns how many there are. Comparing a vector gives a bit for each lane; the bits of all are put side by side and
    then taken one by one from the right, so that the processor mispredicts one loop's end rather than one a vector.
    """
    signature = types.intp(X, I, I, I, X, I, places, I)

    def generate(context, builder, signature, arguments):
        X, x0, n, base, values, v0, places, p0 = arguments
        kinds = signature.args
        X, values, places = (pointer(context, builder, kinds[i], a) for i, a in ((0, X), (4, values), (6, places)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        kind = ir.FunctionType(INTP, [INTP, ir.IntType(1)])
        trailing_zeros = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i64")

        def compare(k, bits):
            mask = builder.fcmp_unordered("!=", m.load(X, builder.add(x0, k)), m.constant(0))
            lanes = builder.zext(builder.bitcast(mask, ir.IntType(m.lanes)), INTP)
            return [builder.or_(bits[0], builder.shl(lanes, k))]

        def take(values_so_far):
            left, count = values_so_far
            k = builder.call(trailing_zeros, [left, ir.Constant(ir.IntType(1), 1)])
            value = builder.load(builder.gep(X, [builder.add(x0, k)]))
            builder.store(value, builder.gep(values, [builder.add(v0, count)]))
            place = builder.trunc(builder.add(base, k), INT32)
            builder.store(place, builder.gep(places, [builder.add(p0, count)]))
            return [builder.and_(left, builder.sub(left, int_constant(1))), builder.add(count, int_constant(1))]

        (bits,) = loop(builder, int_constant(0), n, m.lanes, [int_constant(0)], compare)
        zero = int_constant(0)
        _, count = loop_while(builder, [bits, zero], lambda x: builder.icmp_signed("!=", x[0], zero), take)
        return count

    return signature, generate


def _emit_products(m: VectorMath, V: int, values, v0, places, p0, B, b0, sb, Z, z0) -> None:
    """V vectors of z += Σ value · row of B, over a list."""
    b = m.builder
    targets = [b.add(z0, int_constant(v * m.lanes)) for v in range(V)]

    def entry(x, row, sums):
        rows = [m.load(B, b.add(row, int_constant(v * m.lanes))) for v in range(V)]
        return [m.fma(x, vector, total) for vector, total in zip(rows, sums, strict=True)]

    start = [m.load(Z, target) for target in targets]
    sums = _for_each(m, values, v0, places, p0, b0, sb, start, entry)
    for total, target in zip(sums, targets, strict=True):
        m.store(total, Z, target)


def _emit_gradients(m: VectorMath, V: int, values, v0, places, p0, G, g0, sg, D, d0) -> None:
    """Row of G += value · V vectors of δ, over a list."""
    b = m.builder
    deltas = [m.load(D, b.add(d0, int_constant(v * m.lanes))) for v in range(V)]

    def entry(x, row, _):
        for v in range(V):
            target = b.add(row, int_constant(v * m.lanes))
            m.store(m.fma(x, deltas[v], m.load(G, target)), G, target)
        return []

    _for_each(m, values, v0, places, p0, g0, sg, [], entry)


def _for_each(m: VectorMath, values, v0, places, p0, r0, stride, initial, entry) -> list[ir.Value]:
    """Call ``entry(value in all lanes, offset of its row, accumulators)`` for a list, which ends with place -1."""
    b = m.builder

    def place(j):
        return b.sext(b.load(b.gep(places, [b.add(p0, j)])), INTP)

    def turn(state):
        j, at, *sums = state
        x = m.spread(b.load(b.gep(values, [b.add(v0, j)])))
        following = b.add(j, int_constant(1))
        return [following, place(following), *entry(x, b.add(r0, b.mul(at, stride)), sums)]

    start = [int_constant(0), place(int_constant(0)), *initial]
    return loop_while(b, start, lambda state: b.icmp_signed(">=", state[1], int_constant(0)), turn)[2:]


def tile_of(emit):
    """An intrinsic that chooses among the tiles of 1 to `WIDEST` vectors."""

    @intrinsic
    def tile(typing, vectors, values, v0, places, p0, B, b0, sb, Z, z0):
        signature = types.void(I, values, I, places, I, B, I, I, Z, I)

        def generate(context, builder, signature, arguments):
            vectors, values, v0, places, p0, B, b0, sb, Z, z0 = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
            values, places, B, Z = (
                pointer(context, builder, kinds[i], a) for i, a in ((1, values), (3, places), (5, B), (8, Z))
            )

            def body(V):
                return lambda: emit(m, V, values, v0, places, p0, B, b0, sb, Z, z0)

            fewer = builder.sub(vectors, int_constant(1))
            cases(builder, fewer, [body(V) for V in range(1, WIDEST + 1)])
            return context.get_dummy_value()

        return signature, generate

    return tile


def make_pass(tile):
    """Compiled: a tile for all units (in about equal parts), all blocks of inputs and all samples of a chunk."""

    @compiled
    def run(n, n_out, blocks, lanes, scratch, v0, lists, p0, starts, capacity, b0, sb, a0, sa):
        vectors, at = (n_out + lanes - 1) // lanes, 0
        parts = (vectors + WIDEST - 1) // WIDEST
        for part in range(parts):
            width = vectors * (part + 1) // parts - vectors * part // parts
            for block in range(blocks):
                for i in range(n):
                    first = np.int64(lists[starts + i * blocks + block])
                    value, place = v0 + i * capacity + first, p0 + i * capacity + first
                    tile(width, scratch, value, lists, place, scratch, b0 + at, sb, scratch, a0 + i * sa + at)
            at += width * lanes

    return run


add_products = make_pass(tile_of(_emit_products))
add_gradients = make_pass(tile_of(_emit_gradients))


@compiled
def list_values(x0, n_in, bias, scratch, v0, lists, p0, starts):
    """One sample's lists, from its row at x0: values at v0, places at p0, and where each block begins at ``starts``."""
    count, block, k = 0, 0, 0
    while k < n_in:
        lists[starts + block] = count
        stop = min(k + INPUT_BLOCK, n_in)
        while k < stop:
            count += compress(scratch, x0 + k, min(COMPARED, stop - k), k, scratch, v0 + count, lists, p0 + count)
            k += COMPARED
        if bias and stop == n_in:
            scratch[v0 + count] = 1
            lists[p0 + count] = n_in
            count += 1
        lists[p0 + count] = -1
        count += 1
        block += 1


@compiled
def transpose_weights(parameters, offset, stride, n_in, n_out, bias, scratch, w0, sw):
    """Rows by unit to rows by input; the bias becomes row n_in. Eight rows at a time, so that lines are used whole."""
    for j0 in range(0, n_out, 8):
        for k in range(n_in):
            for j in range(j0, min(j0 + 8, n_out)):
                scratch[w0 + k * sw + j] = parameters[offset + j * stride + k]
    if bias:
        for j in range(n_out):
            scratch[w0 + n_in * sw + j] = parameters[offset + j * stride - 1]


@compiled
def transpose_gradient(scratch, w0, sw, n_in, n_out, bias, gradients, offset, stride):
    """And back: rows by input to rows by unit."""
    for j0 in range(0, n_out, 8):
        for k in range(n_in):
            for j in range(j0, min(j0 + 8, n_out)):
                gradients[offset + j * stride + k] = scratch[w0 + k * sw + j]
    if bias:
        for j in range(n_out):
            gradients[offset + j * stride - 1] = scratch[w0 + n_in * sw + j]
