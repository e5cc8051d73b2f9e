"""Products with inputs of which most have one same value, such as the pixels of handwriting.

The value that most inputs have is the background β. A sample x is β everywhere but in a few places; with ξ = x - β,
zero in all others, the first layer's products are exact sums over those places alone, and two more numbers a unit:

    z[i, :] = Σₖ ξ[i, k] Wᵀ[k, :] + β Σₖ Wᵀ[k, :]        Gᵀ[k, :] = Σᵢ ξ[i, k] δ[i, :] + β Σᵢ δ[i, :]

For this the layer's weights lie in rows by input while an epoch runs: then a value wants one contiguous row of weights
and gives to one contiguous row of the gradient, spread over the units, and up to `WIDEST` vectors of units stay in
registers meanwhile.

Forward, a sample is a list of its values ξ and their places, cut into blocks of inputs whose rows of Wᵀ stay in the
first-level cache while all samples of a chunk pass over them; the bias is one more value, a 1 at place n_in. Backward,
an input is a word of bits that tell which samples of the chunk (64 at most) have a value there, so that a row of Gᵀ
is loaded and stored once a chunk.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.target import vector_bits, vector_registers
from fastmlp.kernels.cpu.team import X86
from fastmlp.kernels.cpu.tiles import compiled
from fastmlp.kernels.cpu.vectors import INT32, INTP, VectorMath, cases, int_constant, loop, loop_while, pointer
from fastmlp.kernels.updates import HYPERPARAMETERS

#: Vectors of units in registers, beside one value in all lanes; what else a product needs comes from memory.
WIDEST = vector_registers() - 3 if vector_registers() == 16 else 16

#: Samples of a chunk at most: the bits of a word.
MOST_SAMPLES = 64
#: Of those, the ones whose bits fill a lane of integers.
HALF = 32

#: Whether lanes can be brought to the front by a permutation from a table.
HAS_TABLE = X86 and vector_bits() == 256

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


# ------------------------------------------------------------------------------------------------- lists of a sample
@intrinsic
def compress(typing, X, x0, n, base, values, v0, places, p0):
    """List the non-zero among n values at x0: values at v0, ``base`` + place at p0.

    X is aligned and padded with zeros to whole vectors; the lists may be written one vector beyond their ends. Returns
    how many there are.
    """
    signature = types.intp(X, I, I, I, X, I, places, I)

    def generate(context, builder, signature, arguments):
        X, x0, n, base, values, v0, places, p0 = arguments
        kinds = signature.args
        X, values, places = (pointer(context, builder, kinds[i], a) for i, a in ((0, X), (4, values), (6, places)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        pack = _pack_by_table if HAS_TABLE else _pack_by_scalars

        def turn(k, counts):
            x = m.load(X, builder.add(x0, k))
            bits = _bits(m, x)
            pack(m, x, bits, X, builder.add(x0, k), builder.add(base, k), values, places, v0, p0, counts[0])
            return [builder.add(counts[0], _population(builder, bits))]

        return loop(builder, int_constant(0), n, m.lanes, [int_constant(0)], turn)[0]

    return signature, generate


def trailing_zeros(builder: ir.IRBuilder, word: ir.Value) -> ir.Value:
    """The number of the rightmost bit of a word that is not zero."""
    kind = ir.FunctionType(INTP, [INTP, ir.IntType(1)])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.cttz.i64")
    return builder.call(function, [word, ir.Constant(ir.IntType(1), 1)])


def _bits(m: VectorMath, x: ir.Value) -> ir.Value:
    """A bit for each lane that is not zero, as an integer."""
    mask = m.builder.fcmp_unordered("!=", x, m.constant(0))
    return m.builder.zext(m.builder.bitcast(mask, ir.IntType(m.lanes)), INTP)


def _population(builder: ir.IRBuilder, word: ir.Value) -> ir.Value:
    """How many bits of a word are set."""
    kind = ir.FunctionType(INTP, [INTP])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.i64"), [word])


def _pack_by_table(m: VectorMath, x, bits, X, at, first, values, places, v0, p0, count) -> None:
    """AVX2: a table gives for each pattern of bits the permutation that brings its lanes to the front.

    No branch depends on the values, and so none is mispredicted: 5 cycles a vector, where taking the bits one by one
    takes 15 to 20.
    """
    b, lanes = m.builder, m.lanes
    index, wide = ir.VectorType(INT32, 8), _front(b, lanes, bits)
    if lanes == 8:
        permutation = wide
    else:  # doubles move as pairs of 32-bit lanes
        twice = b.shuffle_vector(wide, wide, ir.Constant(index, [i // 2 for i in range(8)]))
        permutation = b.add(b.add(twice, twice), ir.Constant(index, [0, 1] * 4))
    floats = ir.VectorType(ir.FloatType(), 8)
    kind = ir.FunctionType(floats, [floats, index])
    permute = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.permps")
    packed = b.bitcast(b.call(permute, [b.bitcast(x, floats), permutation]), m.type)
    m.store(packed, values, b.add(v0, count), aligned=False)
    _store_places(b, wide, first, places, b.add(p0, count))


def _front(b: ir.IRBuilder, lanes: int, bits: ir.Value) -> ir.Value:
    """The lanes whose bits are set, in order, as a vector of 32-bit numbers; zeros follow."""
    order = [[i for i in range(lanes) if pattern >> i & 1] for pattern in range(1 << lanes)]
    rows = [on + [0] * (lanes - len(on)) for on in order]
    table = _table(b.module, f"places_of_{lanes}_bits", [place for row in rows for place in row])
    row = b.gep(table, [b.mul(bits, int_constant(lanes))])
    narrow = b.load(b.bitcast(row, ir.VectorType(ir.IntType(8), lanes).as_pointer()))
    narrow.align = lanes
    return b.zext(narrow, ir.VectorType(INT32, lanes))


def _store_places(b: ir.IRBuilder, places: ir.Value, first: ir.Value, target: ir.Value, offset: ir.Value) -> None:
    """Store ``first`` + places."""
    kind = places.type
    start = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(first, INT32), ir.Constant(INT32, 0))
    start = b.shuffle_vector(start, ir.Constant(kind, ir.Undefined), ir.Constant(kind, [0] * kind.count))
    b.store(b.add(places, start), b.bitcast(b.gep(target, [offset]), kind.as_pointer())).align = 4


def _table(module: ir.Module, name: str, numbers: list[int]) -> ir.Value:
    """The address of constant bytes."""
    kind = ir.ArrayType(ir.IntType(8), len(numbers))
    if name not in module.globals:
        table = ir.GlobalVariable(module, kind, name)
        table.initializer = ir.Constant(kind, bytearray(numbers))
        table.linkage, table.global_constant, table.align = "internal", True, 64
    return module.globals[name].bitcast(ir.IntType(8).as_pointer())


def _pack_by_scalars(m: VectorMath, x, bits, X, at, first, values, places, v0, p0, count) -> None:
    """Anywhere: the bits are taken one by one from the right."""
    b = m.builder

    def take(state):
        left, j = state
        k = trailing_zeros(b, left)
        b.store(b.load(b.gep(X, [b.add(at, k)])), b.gep(values, [b.add(v0, j)]))
        b.store(b.trunc(b.add(first, k), INT32), b.gep(places, [b.add(p0, j)]))
        return [b.and_(left, b.sub(left, int_constant(1))), b.add(j, int_constant(1))]

    loop_while(b, [bits, count], lambda state: b.icmp_signed("!=", state[0], int_constant(0)), take)


@compiled
def list_values(x0, n_in, inputs, bias, scratch, v0, lists, p0, starts):
    """One sample's lists, from its row at x0: values at v0, places at p0, and where each block begins at ``starts``.

    A block has so many ``inputs``, a multiple of 16.
    """
    count, block, k = 0, 0, 0
    while k < n_in:
        lists[starts + block] = count
        stop = min(k + inputs, n_in)
        count += compress(scratch, x0 + k, stop - k, k, scratch, v0 + count, lists, p0 + count)
        if bias and stop == n_in:
            scratch[v0 + count] = 1
            lists[p0 + count] = n_in
            count += 1
        lists[p0 + count] = -1
        count += 1
        block += 1
        k = stop


# ---------------------------------------------------------------------------------------------------- bits of an input
@intrinsic
def mark(typing, X, x0, sx, samples, n_in, words, w0):
    """For each input, a 32-bit word with bit i set where it is not zero in sample i of ≤ 32."""
    signature = types.void(X, I, I, I, I, words, I)

    def generate(context, builder, signature, arguments):
        X, x0, sx, samples, n_in, words, w0 = arguments
        kinds = signature.args
        X, words = (pointer(context, builder, kinds[i], a) for i, a in ((0, X), (5, words)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        kind = ir.VectorType(INT32, m.lanes)
        zero, one = (ir.Constant(kind, [number] * m.lanes) for number in (0, 1))

        def column(k, _):
            def sample(i, state):
                word, bit = state
                x = m.load(X, builder.add(builder.add(x0, k), builder.mul(i, sx)))
                mask = builder.fcmp_unordered("!=", x, m.constant(0))
                return [builder.or_(word, builder.select(mask, bit, zero)), builder.add(bit, bit)]

            word, _ = loop(builder, int_constant(0), samples, 1, [zero, one], sample)
            target = builder.bitcast(builder.gep(words, [builder.add(w0, k)]), kind.as_pointer())
            builder.store(word, target).align = 4
            return []

        loop(builder, int_constant(0), n_in, m.lanes, [], column)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def list_marked(typing, words, low, high, n_in, places, p0):
    """The places of words of which either half is not zero, at p0, in order; returns how many there are."""
    signature = types.intp(words, I, I, I, places, I)
    lanes = 8

    def generate(context, builder, signature, arguments):
        words, low, high, n_in, places, p0 = arguments
        kinds = signature.args
        words, places = (pointer(context, builder, kinds[i], a) for i, a in ((0, words), (4, places)))
        kind = ir.VectorType(INT32, lanes)

        def eight(k, counts):
            halves = []
            for half in (low, high):
                word = builder.load(builder.bitcast(builder.gep(words, [builder.add(half, k)]), kind.as_pointer()))
                word.align = 4
                halves.append(word)
            mask = builder.icmp_signed("!=", builder.or_(*halves), ir.Constant(kind, [0] * lanes))
            bits = builder.zext(builder.bitcast(mask, ir.IntType(lanes)), INTP)
            _store_places(builder, _front(builder, lanes, bits), k, places, builder.add(p0, counts[0]))
            return [builder.add(counts[0], _population(builder, bits))]

        return loop(builder, int_constant(0), n_in, lanes, [int_constant(0)], eight)[0]

    return signature, generate


@intrinsic
def row_sum(typing, X, x0, n):
    """The sum of n values of a row, padded with zeros to whole vectors."""

    def generate(context, builder, signature, arguments):
        X, x0, n = arguments
        m = VectorMath(builder, context.get_data_type(signature.args[0].dtype))
        X = pointer(context, builder, signature.args[0], X)

        def add(k, sums):
            return [builder.fadd(sums[0], m.load(X, builder.add(x0, k)))]

        return m.sum(loop(builder, int_constant(0), n, m.lanes, [m.constant(0)], add)[0])

    return X.dtype(X, I, I), generate


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
def product_tile(typing, vectors, values, v0, places, p0, B, b0, sb, Z, z0):
    """`_emit_products` for 1 to `WIDEST` vectors."""
    signature = types.void(I, values, I, places, I, B, I, I, Z, I)

    def generate(context, builder, signature, arguments):
        vectors, values, v0, places, p0, B, b0, sb, Z, z0 = arguments
        kinds = signature.args
        m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
        values, places, B, Z = (
            pointer(context, builder, kinds[i], a) for i, a in ((1, values), (3, places), (5, B), (8, Z))
        )

        def body(V):
            return lambda: _emit_products(m, V, values, v0, places, p0, B, b0, sb, Z, z0)

        cases(builder, builder.sub(vectors, int_constant(1)), [body(V) for V in range(1, WIDEST + 1)])
        return context.get_dummy_value()

    return signature, generate


def _add_samples(m: VectorMath, word, X, x0, sx, D, d0, sd, start: list[ir.Value]) -> list[ir.Value]:
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
    sums = _add_samples(m, word, X, x0, sx, D, d0, sd, start)
    for total, target in zip(sums, targets, strict=True):
        m.store(total, G, target)


@intrinsic
def gradient_tile(typing, vectors, word, X, x0, sx, D, d0, sd, base, G, g0, more):
    """`_emit_gradient` for 1 to `WIDEST` vectors; ``base`` is an offset in D, ``more`` not 0 where g is added."""
    signature = types.void(I, types.int64, X, I, I, D, I, I, I, G, I, I)

    def generate(context, builder, signature, arguments):
        vectors, word, X, x0, sx, D, d0, sd, base, G, g0, more = arguments
        kinds = signature.args
        m = VectorMath(builder, context.get_data_type(kinds[2].dtype))
        X, D, G = (pointer(context, builder, kinds[i], a) for i, a in ((2, X), (5, D), (9, G)))
        add = builder.icmp_signed("!=", more, int_constant(0))

        def body(V):
            return lambda: _emit_gradient(m, V, word, X, x0, sx, D, d0, sd, base, G, g0, add)

        cases(builder, builder.sub(vectors, int_constant(1)), [body(V) for V in range(1, WIDEST + 1)])
        return context.get_dummy_value()

    return signature, generate


@compiled
def add_products(n, n_out, blocks, lanes, scratch, v0, lists, p0, starts, capacity, b0, sb, z0, sz):
    """Add the products of n listed samples with the weights by input at b0 to the rows at z0."""
    vectors, at = (n_out + lanes - 1) // lanes, 0
    parts = (vectors + WIDEST - 1) // WIDEST
    for part in range(parts):
        width = vectors * (part + 1) // parts - vectors * part // parts
        for block in range(blocks):
            for i in range(n):
                first = np.int64(lists[starts + i * blocks + block])
                value, place = v0 + i * capacity + first, p0 + i * capacity + first
                product_tile(width, scratch, value, lists, place, scratch, b0 + at, sb, scratch, z0 + i * sz + at)
        at += width * lanes


@compiled
def word_of(n, lists, low, high):
    """The word of an input from its halves: the bits of up to 32 samples, and of up to 32 more."""
    word = np.int64(lists[low]) & 0xFFFFFFFF
    return word | np.int64(lists[high]) << 32 if n > HALF else word


@compiled
def add_gradients(n, n_in, n_out, lanes, scratch, x0, sx, lists, low, high, d0, sd, base, shifted, g0, sg, more):
    """The gradient by input at g0 from n ≤ 64 samples at x0 with deltas at d0, stored or added.

    Words of bits stand at ``low`` for the first 32 samples and at ``high`` for the rest. The row at ``base`` is added
    to each input's gradient; it is all zero unless ``shifted``.
    """
    vectors, at = (n_out + lanes - 1) // lanes, 0
    parts = (vectors + WIDEST - 1) // WIDEST
    for part in range(parts):
        width = vectors * (part + 1) // parts - vectors * part // parts
        for k in range(n_in):
            word = word_of(n, lists, low + k, high + k)
            if word != 0 or shifted or not more:
                gradient_tile(
                    width, word, scratch, x0 + k, sx, scratch, d0 + at, sd, base + at, scratch, g0 + k * sg + at, more
                )
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


@compiled
def by_input(flat, offset, stride, first, last, n_in, n_out, width, bias, scratch, w0, sw):
    """Inputs first … last - 1 of rows by unit to rows by input; the bias is input n_in.

    A row has ``width`` values with its padding, which becomes zero.
    Eight units at a time, so that lines of the cache are used whole.
    """
    for k in range(first, last):
        scratch[w0 + k * sw + n_out : w0 + k * sw + width] = 0
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


# -------------------------------------------------------------------------------------------------- rows that rest
def _row(m: VectorMath, V: int, W, w0, apart) -> tuple[list[ir.Value], list[ir.Value]]:
    """Offsets of V vectors of weights and of their velocities, ``apart`` elements on."""
    b = m.builder
    weights = [b.add(w0, int_constant(v * m.lanes)) for v in range(V)]
    return weights, [b.add(weight, apart) for weight in weights]


def _emit_step(m: VectorMath, V: int, word, X, x0, sx, D, d0, sd, W, w0, apart, H) -> None:
    """V vectors of a row's step, v ← μ v + Σ x[i] · row i of D over the samples whose bit is set; w ← w - η v."""
    b = m.builder
    rate, momentum = (
        m.spread(b.load(b.gep(H, [int_constant(HYPERPARAMETERS.index(name))])))
        for name in ("learning_rate", "momentum")
    )
    weights, velocities = _row(m, V, W, w0, apart)
    start = [b.fmul(momentum, m.load(W, velocity)) for velocity in velocities]
    sums = _add_samples(m, word, X, x0, sx, D, d0, sd, start)
    for total, weight, velocity in zip(sums, weights, velocities, strict=True):
        m.store(total, W, velocity)
        m.store(m.fma(b.fneg(rate), total, m.load(W, weight)), W, weight)


def _emit_rest(m: VectorMath, V: int, W, w0, apart, decay, way) -> None:
    """V vectors of a row after some steps without a gradient: w ← w - way · v; v ← decay · v."""
    b = m.builder
    decay, way = m.spread(decay), m.spread(way)
    for weight, velocity in zip(*_row(m, V, W, w0, apart), strict=True):
        v = m.load(W, velocity)
        m.store(m.fma(b.fneg(way), v, m.load(W, weight)), W, weight)
        m.store(b.fmul(decay, v), W, velocity)


@intrinsic
def step_tile(typing, vectors, word, X, x0, sx, D, d0, sd, W, w0, apart, H):
    """`_emit_step` for 1 to `WIDEST` vectors."""
    signature = types.void(I, types.int64, X, I, I, D, I, I, W, I, I, H)

    def generate(context, builder, signature, arguments):
        vectors, word, X, x0, sx, D, d0, sd, W, w0, apart, H = arguments
        kinds = signature.args
        m = VectorMath(builder, context.get_data_type(kinds[2].dtype))
        X, D, W, H = (pointer(context, builder, kinds[i], a) for i, a in ((2, X), (5, D), (8, W), (11, H)))

        def body(V):
            return lambda: _emit_step(m, V, word, X, x0, sx, D, d0, sd, W, w0, apart, H)

        cases(builder, builder.sub(vectors, int_constant(1)), [body(V) for V in range(1, WIDEST + 1)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def rest_tile(typing, vectors, W, w0, apart, decay, way):
    """`_emit_rest` for 1 to `WIDEST` vectors."""
    signature = types.void(I, W, I, I, W.dtype, W.dtype)

    def generate(context, builder, signature, arguments):
        vectors, W, w0, apart, decay, way = arguments
        m = VectorMath(builder, context.get_data_type(signature.args[1].dtype))
        W = pointer(context, builder, signature.args[1], W)

        def body(V):
            return lambda: _emit_rest(m, V, W, w0, apart, decay, way)

        cases(builder, builder.sub(vectors, int_constant(1)), [body(V) for V in range(1, WIDEST + 1)])
        return context.get_dummy_value()

    return signature, generate
