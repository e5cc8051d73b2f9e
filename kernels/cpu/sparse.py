"""Products with inputs of which most have one same value, such as the pixels of handwriting.

The value that most inputs have is the background β. A sample x is β everywhere but in a few places; with ξ = x - β,
zero in all others, the first layer's products are exact sums over those places alone, and two more numbers a unit:

    z[i, :] = Σₖ ξ[i, k] Wᵀ[k, :] + β Σₖ Wᵀ[k, :]        Gᵀ[k, :] = Σᵢ ξ[i, k] δ[i, :] + β Σᵢ δ[i, :]

For this the layer's weights lie in rows by input while an epoch runs: then a value wants one contiguous row of weights
and gives to one contiguous row of the gradient, spread over the units, and up to 13 vectors of units stay in
registers meanwhile.

Forward, a sample is a list of its values ξ and their places, cut into blocks of inputs whose rows of Wᵀ stay in the
first-level cache while all samples of a chunk pass over them; the bias is one more value, a 1 at place n_in. Backward,
an input is a word of bits that tell which samples of the chunk (64 at most) have a value there, so that a row of Gᵀ
is loaded and stored once a chunk.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.lists import HALF, trailing_zeros
from fastmlp.kernels.cpu.vectors import INTP, VectorMath, int_constant, loop, loop_while, pointer

#: Numbers of vectors of units that are in registers together, beside one value in all lanes; what else a product needs
#: comes from memory. Each number is code of its own, so those that others can stand for are left out (`parts_of`).
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13)

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


def for_width(b: ir.IRBuilder, vectors: ir.Value, emit) -> None:
    """Write ``emit(V)`` for every V of `WIDTHS`, and run that of ``vectors``."""
    after = b.append_basic_block("any_width")
    switch = b.switch(vectors, after)
    for V in WIDTHS:
        block = b.append_basic_block(f"width{V}")
        switch.add_case(int_constant(V), block)
        b.position_at_end(block)
        emit(V)
        b.branch(after)
    b.position_at_end(after)


@compiled
def parts_of(vectors):
    """Into how many parts so many vectors are split, about equal and each one of `WIDTHS`."""
    parts = (vectors + 12) // 13
    smallest, largest = vectors // parts, (vectors + parts - 1) // parts
    return parts if largest <= 8 or smallest >= 12 else (vectors + 7) // 8


# ------------------------------------------------------------------------------------------------------------- products
def _emit_products(m: VectorMath, V: int, values, v0, places, p0, B, b0, sb, Z, z0) -> None:
    """V vectors of z += Σ value · row of B, over a list, which ends with place -1."""
    b = m.builder
    targets = [b.add(z0, int_constant(v * m.lanes)) for v in range(V)]

    def place(j):
        return b.sext(b.load(b.gep(places, [b.add(p0, j)])), INTP)

    def turn(state):
        j, at, *sums = state
        x = m.spread(b.load(b.gep(values, [b.add(v0, j)])))
        row, following = b.add(b0, b.mul(at, sb)), b.add(j, int_constant(1))
        rows = [m.load(B, b.add(row, int_constant(v * m.lanes))) for v in range(V)]
        new = [m.fma(x, vector, total) for vector, total in zip(rows, sums, strict=True)]
        return [following, place(following), *new]

    start = [int_constant(0), place(int_constant(0)), *(m.load(Z, target) for target in targets)]
    sums = loop_while(b, start, lambda state: b.icmp_signed(">=", state[1], int_constant(0)), turn)[2:]
    for total, target in zip(sums, targets, strict=True):
        m.store(total, Z, target)


@intrinsic
def product_rows(typing, vectors, n, values, v0, lists, p0, capacity, starts, blocks, B, b0, sb, Z, z0, sz):
    """V vectors of each of n rows of Z += the products of its list, in one block of inputs, with rows of B.

    The list of sample i starts at v0, and its places at p0, + i capacity + the number at ``starts`` + i blocks.
    """
    signature = types.void(I, I, values, I, lists, I, I, I, I, B, I, I, Z, I, I)

    def generate(context, builder, signature, arguments):
        vectors, n, values, v0, lists, p0, capacity, starts, blocks, B, b0, sb, Z, z0, sz = arguments
        kinds, b = signature.args, builder
        m = VectorMath(builder, context.get_data_type(kinds[2].dtype))
        values, lists, B, Z = (
            pointer(context, builder, kinds[i], a) for i, a in ((2, values), (4, lists), (9, B), (12, Z))
        )

        def emit(V):
            def sample(i, _):
                start = b.sext(b.load(b.gep(lists, [b.add(starts, b.mul(i, blocks))])), INTP)
                at = b.add(b.mul(i, capacity), start)
                row = b.add(z0, b.mul(i, sz))
                _emit_products(m, V, values, b.add(v0, at), lists, b.add(p0, at), B, b0, sb, Z, row)
                return []

            loop(b, int_constant(0), n, 1, [], sample)

        for_width(builder, vectors, emit)
        return context.get_dummy_value()

    return signature, generate


def add_samples(m: VectorMath, word, X, x0, sx, D, d0, sd, start: list[ir.Value]) -> list[ir.Value]:
    """Vectors + Σ x[i] · row i of D over the samples i whose bit is set."""
    b = m.builder

    def turn(state):
        left, *sums = state
        i = trailing_zeros(b, left)
        x = m.spread(b.load(b.gep(X, [b.add(x0, b.mul(i, sx))])))
        row = b.add(d0, b.mul(i, sd))
        deltas = [m.load(D, b.add(row, int_constant(v * m.lanes))) for v in range(len(sums))]
        new = [m.fma(x, delta, total) for delta, total in zip(deltas, sums, strict=True)]
        return [b.and_(left, b.sub(left, int_constant(1))), *new]

    return loop_while(b, [word, *start], lambda state: b.icmp_signed("!=", state[0], int_constant(0)), turn)[1:]


def _emit_gradient(m: VectorMath, V: int, word, X, x0, sx, D, d0, sd, base, G, g0, more) -> None:
    """V vectors of g = base + Σ x[i] · row i of D over the samples i whose bit is set, stored or added."""
    b = m.builder
    targets = [b.add(g0, int_constant(v * m.lanes)) for v in range(V)]
    start = []
    for v, target in enumerate(targets):
        # A select, so that what lies in memory does not matter where it is not added (it may be NaN).
        before = b.select(more, m.load(G, target), m.constant(0))
        start.append(b.fadd(before, m.load(D, b.add(base, int_constant(v * m.lanes)))))
    sums = add_samples(m, word, X, x0, sx, D, d0, sd, start)
    for total, target in zip(sums, targets, strict=True):
        m.store(total, G, target)


def word_of(b: ir.IRBuilder, lists, low, high, both: ir.Value) -> ir.Value:
    """The word of an input from its halves; of the first alone unless ``both``."""
    first, second = (b.zext(b.load(b.gep(lists, [at])), INTP) for at in (low, high))
    return b.or_(first, b.select(both, b.shl(second, int_constant(HALF)), int_constant(0)))


@intrinsic
def gradient_rows(typing, vectors, n, n_in, X, x0, sx, lists, low, high, D, d0, sd, base, shifted, G, g0, sg, more):
    """V vectors of each of n_in rows of G, stored or (more) added: base + Σ x[i, k] · row i of D over n samples.

    The words of the inputs are at ``low`` and ``high``. ``base`` is an offset in D of a row that is all zero unless
    ``shifted``.
    """
    signature = types.void(I, I, I, X, I, I, lists, I, I, D, I, I, I, I, G, I, I, I)

    def generate(context, builder, signature, arguments):
        vectors, n, n_in, X, x0, sx, lists, low, high, D, d0, sd, base, shifted, G, g0, sg, more = arguments
        kinds, b, zero = signature.args, builder, int_constant(0)
        m = VectorMath(builder, context.get_data_type(kinds[3].dtype))
        X, lists, D, G = (pointer(context, builder, kinds[i], a) for i, a in ((3, X), (6, lists), (9, D), (14, G)))
        add = b.icmp_signed("!=", more, zero)
        both = b.icmp_signed(">", n, int_constant(HALF))
        always = b.or_(b.icmp_signed("!=", shifted, zero), b.not_(add))

        def emit(V):
            def one_input(k, _):
                word = word_of(b, lists, b.add(low, k), b.add(high, k), both)
                with b.if_then(b.or_(always, b.icmp_signed("!=", word, zero))):
                    row = b.add(g0, b.mul(k, sg))
                    _emit_gradient(m, V, word, X, b.add(x0, k), sx, D, d0, sd, base, G, row, add)
                return []

            loop(b, zero, n_in, 1, [], one_input)

        for_width(builder, vectors, emit)
        return context.get_dummy_value()

    return signature, generate


@compiled
def block_products(vectors, n, scratch, v0, lists, p0, capacity, starts, blocks, b0, sb, z0, sz):
    """`product_rows`, compiled once for all its callers."""
    product_rows(vectors, n, scratch, v0, lists, p0, capacity, starts, blocks, scratch, b0, sb, scratch, z0, sz)


@compiled
def add_products(n, n_out, blocks, lanes, scratch, v0, lists, p0, starts, capacity, b0, sb, z0, sz):
    """Add the products of n listed samples with the weights by input at b0 to the rows at z0."""
    vectors, at = (n_out + lanes - 1) // lanes, 0
    parts = parts_of(vectors)
    for part in range(parts):
        width = vectors * (part + 1) // parts - vectors * part // parts
        for block in range(blocks):
            block_products(width, n, scratch, v0, lists, p0, capacity, starts + block, blocks, b0 + at, sb, z0 + at, sz)
        at += width * lanes


@compiled
def add_gradients(n, n_in, n_out, lanes, scratch, x0, sx, lists, low, high, d0, sd, base, shifted, g0, sg, more):
    """`gradient_rows` for all units."""
    vectors, at = (n_out + lanes - 1) // lanes, 0
    parts = parts_of(vectors)
    for part in range(parts):
        width = vectors * (part + 1) // parts - vectors * part // parts
        gradient_rows(
            width, n, n_in, scratch, x0, sx, lists, low, high, scratch, d0 + at, sd, base + at, np.intp(shifted),
            scratch, g0 + at, sg, more,
        )  # fmt: skip
        at += width * lanes


# ----------------------------------------------------------------------------------------------------- rows by input
@intrinsic
def sum_rows(typing, A, a0, stride, rows, n, total, t0):
    """total[t0:t0 + n] = the sum of so many rows of n values, whole vectors each."""
    signature = types.void(A, I, I, I, I, A, I)

    def generate(context, builder, signature, arguments):
        A, a0, stride, rows, n, total, t0 = arguments
        kinds = signature.args
        A, total = (pointer(context, builder, kinds[i], a) for i, a in ((0, A), (5, total)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))

        def column(k, _):
            def row(r, sums):
                at = builder.add(builder.add(a0, k), builder.mul(r, stride))
                return [builder.fadd(sums[0], m.load(A, at))]

            (value,) = loop(builder, int_constant(0), rows, 1, [m.constant(0)], row)
            m.store(value, total, builder.add(t0, k))
            return []

        loop(builder, int_constant(0), n, m.lanes, [], column)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def mix_rows(typing, x, a0, y, b0, A, n, total, t0):
    """total[t0:t0 + n] = x · the row at a0 of A + y · the row at b0, whole vectors each."""
    signature = types.void(A.dtype, I, A.dtype, I, A, I, total, I)

    def generate(context, builder, signature, arguments):
        x, a0, y, b0, A, n, total, t0 = arguments
        kinds = signature.args
        A, total = (pointer(context, builder, kinds[i], a) for i, a in ((4, A), (6, total)))
        m = VectorMath(builder, context.get_data_type(kinds[4].dtype))
        x, y = m.spread(x), m.spread(y)

        def column(k, _):
            first, second = (m.load(A, builder.add(start, k)) for start in (a0, b0))
            m.store(m.fma(x, first, builder.fmul(y, second)), total, builder.add(t0, k))
            return []

        loop(builder, int_constant(0), n, m.lanes, [], column)
        return context.get_dummy_value()

    return signature, generate


@compiled
def fill(array, start, n, value):
    """Set n values from ``start`` on. (Assigning to a slice would compile checks and messages with it.)"""
    for k in range(start, start + n):
        array[k] = value


@compiled
def by_input(flat, offset, stride, first, last, n_in, n_out, width, bias, scratch, w0, sw):
    """Inputs first … last - 1 of rows by unit to rows by input; the bias is input n_in.

    A row has ``width`` values with its padding, which becomes zero.
    Eight units at a time, so that lines of the cache are used whole.
    """
    for k in range(first, last):
        fill(scratch, w0 + k * sw + n_out, width - n_out, np.int64(0))
    for j0 in range(0, n_out, 8):
        for k in range(first, min(last, n_in)):
            for j in range(j0, min(j0 + 8, n_out)):
                scratch[w0 + k * sw + j] = flat[offset + j * stride + k]
    if last > n_in:
        for j in range(n_out):
            scratch[w0 + n_in * sw + j] = flat[offset + j * stride - 1] if bias else 0


@compiled
def by_unit(scratch, w0, sw, first, last, n_in, n_out, bias, flat, offset, stride):
    """And back: inputs first … last - 1 of rows by input to rows by unit."""
    for j0 in range(0, n_out, 8):
        for k in range(first, min(last, n_in)):
            for j in range(j0, min(j0 + 8, n_out)):
                flat[offset + j * stride + k] = scratch[w0 + k * sw + j]
    if bias and last > n_in:
        for j in range(n_out):
            flat[offset + j * stride - 1] = scratch[w0 + n_in * sw + j]
