"""Lists of what is off the background: of a sample its values and their places, of a batch its active inputs.

An input's word has a bit for each sample of a chunk or batch (64 at most) that is off the background there. Samples lie
in aligned rows, less the background, padded with zeros to whole lines of the cache; lists may be written one vector
beyond their ends.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.prefetch import LINE
from fastmlp.kernels.cpu.target import vector_bits
from fastmlp.kernels.cpu.team import X86
from fastmlp.kernels.cpu.vectors import INT32, INTP, VectorMath, int_constant, loop, loop_while, pointer

#: Samples at most: the bits of a word.
MOST_SAMPLES = 64
#: Of those, the ones whose bits fill a 32-bit lane; a word is kept in two halves.
HALF = 32
#: Whether lanes can be brought to the front by a permutation from a table, or by an instruction of their own.
HAS_TABLE = X86 and vector_bits() == 256
HAS_COMPRESS = X86 and vector_bits() == 512

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


# ------------------------------------------------------------------------------------------------- lists of a sample
@intrinsic
def compress(typing, X, x0, n, base, values, v0, places, p0):
    """List the non-zero among n values at x0: values at v0, ``base`` + place at p0.

    Returns how many there are.
    """
    signature = types.intp(X, I, I, I, X, I, places, I)

    def generate(context, builder, signature, arguments):
        X, x0, n, base, values, v0, places, p0 = arguments
        kinds = signature.args
        X, values, places = (pointer(context, builder, kinds[i], a) for i, a in ((0, X), (4, values), (6, places)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        pack = _pack_by_table if HAS_TABLE else _pack_by_compress if HAS_COMPRESS else _pack_by_scalars

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


def _not_zero(m: VectorMath, x: ir.Value) -> ir.Value:
    """Which lanes are not zero."""
    return m.builder.fcmp_unordered("!=", x, m.constant(0))


def _bits(m: VectorMath, x: ir.Value) -> ir.Value:
    """A bit for each lane that is not zero, as an integer."""
    return m.builder.zext(m.builder.bitcast(_not_zero(m, x), ir.IntType(m.lanes)), INTP)


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
    total = b.add(places, _spread_int(b, first, places.type.count))
    b.store(total, b.bitcast(b.gep(target, [offset]), places.type.as_pointer())).align = 4


def _spread_int(b: ir.IRBuilder, number: ir.Value, lanes: int) -> ir.Value:
    """An intp as 32 bits in all lanes."""
    kind = ir.VectorType(INT32, lanes)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), b.trunc(number, INT32), ir.Constant(INT32, 0))
    return b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(kind, [0] * lanes))


def _table(module: ir.Module, name: str, numbers: list[int]) -> ir.Value:
    """The address of constant bytes."""
    kind = ir.ArrayType(ir.IntType(8), len(numbers))
    if name not in module.globals:
        table = ir.GlobalVariable(module, kind, name)
        table.initializer = ir.Constant(kind, bytearray(numbers))
        table.linkage, table.global_constant, table.align = "internal", True, 64
    return module.globals[name].bitcast(ir.IntType(8).as_pointer())


def _pack_by_compress(m: VectorMath, x, bits, X, at, first, values, places, v0, p0, count) -> None:
    """AVX-512 has an instruction for it (LLVM writes one by one what other CPUs have none for)."""
    b, lanes, mask = m.builder, m.lanes, _not_zero(m, x)

    def front(vector: ir.Value) -> ir.Value:
        kind = ir.FunctionType(vector.type, [vector.type, mask.type, vector.type])
        name = f"llvm.experimental.vector.compress.v{lanes}{vector.type.element}"
        function = cgutils.get_or_insert_function(b.module, kind, name)
        return b.call(function, [vector, mask, ir.Constant(vector.type, [0] * lanes)])

    whole = ir.VectorType(ir.IntType(m.bits), lanes)  # LLVM 22 fails on floats where there is no instruction
    m.store(b.bitcast(front(b.bitcast(x, whole)), m.type), values, b.add(v0, count), aligned=False)
    numbers = ir.Constant(ir.VectorType(INT32, lanes), list(range(lanes)))
    _store_places(b, front(numbers), first, places, b.add(p0, count))


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


# ------------------------------------------------------------------------------------------------- lists of inputs
@intrinsic
def mark(typing, X, x0, sx, samples, n_in, words, w0):
    """For each input, a 32-bit word with bit i set where it is not zero in sample i of ≤ 32."""
    signature = types.void(X, I, I, I, I, words, I)

    def generate(context, builder, signature, arguments):
        X, x0, sx, samples, n_in, words, w0 = arguments
        kinds = signature.args
        X, words = (pointer(context, builder, kinds[i], a) for i, a in ((0, X), (5, words)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        # Bits are gathered in lanes as wide as the values': to narrow each comparison's result takes longer.
        kind, narrow = m.int_type, ir.VectorType(INT32, m.lanes)
        zero, one = (ir.Constant(kind, [number] * m.lanes) for number in (0, 1))

        # Of doubles a line's vectors at once: each sample's row is in another page. (Floats gain nothing by it.)
        together = max(LINE // (m.lanes * 8), 1) if m.double else 1

        def column(k, _):
            columns = [builder.add(k, int_constant(v * m.lanes)) for v in range(together)]

            def sample(i, state):
                *gathered, bit = state
                row = builder.add(x0, builder.mul(i, sx))
                masks = [builder.fcmp_unordered("!=", m.load(X, builder.add(row, at)), m.constant(0)) for at in columns]
                new = [builder.or_(w, builder.select(mask, bit, zero)) for w, mask in zip(gathered, masks, strict=True)]
                return [*new, builder.add(bit, bit)]

            *gathered, _ = loop(builder, int_constant(0), samples, 1, [zero] * together + [one], sample)
            for word, at in zip(gathered, columns, strict=True):
                target = builder.bitcast(builder.gep(words, [builder.add(w0, at)]), narrow.as_pointer())
                builder.store(word if kind == narrow else builder.trunc(word, narrow), target).align = 4
            return []

        loop(builder, int_constant(0), n_in, m.lanes * together, [], column)
        return context.get_dummy_value()

    return signature, generate


#: Words of bits that are looked at together.
EIGHT = 8


def _any_bit(b: ir.IRBuilder, words: ir.Value, at: ir.Value, half: ir.Value) -> ir.Value:
    """Which of eight inputs have a bit in either half of their word, the second ``half`` further on."""
    kind, parts = ir.VectorType(INT32, EIGHT), []
    for offset in (at, b.add(at, half)):
        part = b.load(b.bitcast(b.gep(words, [offset]), kind.as_pointer()))
        part.align = 4
        parts.append(part)
    return b.icmp_signed("!=", b.or_(*parts), ir.Constant(kind, [0] * EIGHT))


def _list_lanes(b: ir.IRBuilder, mask: ir.Value, first: ir.Value, places: ir.Value, at: ir.Value) -> ir.Value:
    """Store ``first`` + the lanes that are set, in order; returns how many. Eight numbers are written."""
    bits = b.zext(b.bitcast(mask, ir.IntType(EIGHT)), INTP)
    _store_places(b, _front(b, EIGHT, bits), first, places, at)
    return _population(b, bits)


@intrinsic
def list_inputs(typing, lists, low, before, half, n, block, active, woken, updated, rested, steps):
    """Lists of n inputs from their words at ``low`` and, of the batch before, at ``before``, by blocks of inputs.

    At ``active``: for each block, and after the last, where its list begins (counted from ``active``); then the inputs
    whose word is not zero. At ``woken`` the same of those that besides had a word of zero before. ``updated`` holds the
    steps that each input's row has taken: ``rested[k] = steps - updated[k]``, and where there is a word at ``low`` or
    ``before`` it becomes ``steps``.
    """
    signature = types.void(lists, I, I, I, I, I, I, I, I, I, I)

    def generate(context, builder, signature, arguments):
        lists, low, before, half, n, block, active, woken, updated, rested, steps = arguments
        b, zero = builder, int_constant(0)
        lists, kind = pointer(context, builder, signature.args[0], lists), ir.VectorType(INT32, EIGHT)
        number = _spread_int(b, steps, EIGHT)
        blocks = b.sdiv(b.add(n, b.sub(block, int_constant(1))), block)

        def place(offset):
            return b.bitcast(b.gep(lists, [offset]), kind.as_pointer())

        def eight(k, counts):
            now, then = (_any_bit(b, lists, b.add(words, k), half) for words in (low, before))
            old = b.load(place(b.add(updated, k)))
            old.align = 4
            b.store(b.sub(number, old), place(b.add(rested, k))).align = 4
            b.store(b.select(b.or_(now, then), number, old), place(b.add(updated, k))).align = 4
            return [
                b.add(count, _list_lanes(b, mask, k, lists, b.add(start, count)))
                for count, mask, start in zip(counts, (now, b.and_(now, b.not_(then))), (active, woken), strict=True)
            ]

        def one_block(i, counts):
            for count, start in zip(counts, (active, woken), strict=True):
                b.store(b.trunc(count, INT32), b.gep(lists, [b.add(start, i)]))
            first = b.mul(i, block)
            end = b.add(first, block)
            stop = b.select(b.icmp_signed("<", end, n), end, n)
            return loop(b, first, stop, EIGHT, counts, eight)

        first = b.add(blocks, int_constant(1))
        counts = loop(b, zero, blocks, 1, [first, first], one_block)
        for count, start in zip(counts, (active, woken), strict=True):
            b.store(b.trunc(count, INT32), b.gep(lists, [b.add(start, blocks)]))
        return context.get_dummy_value()

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
