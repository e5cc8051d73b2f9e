"""A tile of a matrix product, worked out by a block: sums over k of A[row, k] B[column, k].

An operand lies in lines of memory. Either its tile's rows are lines and k runs along them (an operand *of rows*), or k
is the line and the tile's rows run along it (*of columns*). Lines may be gathered: samples in the order of their use,
which are converted on their way. Whatever is beyond an operand's limits counts as zero.

Why it is fast: a thread keeps ``down`` x ``across`` sums in registers, so that a number from shared memory serves
several products; loads and stores are 16 bytes wide; and while a chunk of ``depth`` is multiplied out of one half of
the staging memory, the next one travels from global memory to registers, to be put into the other half. Of a warp's
threads most read the same number of B, which one access serves.
"""

from typing import Any, NamedTuple

from fastmlp.kernels.cuda.instructions import afresh, load_global, load_shared, quotient, remainder, store_shared
from fastmlp.kernels.cuda.plans import PAD, Tile
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types

__all__ = ["Operand", "own_lines", "product_of", "sample_lines"]


class Operand(NamedTuple):
    """Where an operand is. Element (line, position) is source[first + line * stride + position], if it is inside."""

    source: Any
    order: Any  #: int32; of gathered lines: line is sample order[first + line]
    first: Any
    stride: Any
    lines: Any  #: limits of both indices
    length: Any


def vector_functions(dtype: str) -> tuple[int, Any, Any, Any]:
    """Numbers of a vector; device functions that load one from global or shared memory into v, and put one of v there."""
    if dtype == "float32":

        @cuda.jit(device=True, forceinline=True)
        def from_global(v, k, source, at):
            v[k], v[k + 1], v[k + 2], v[k + 3] = load_global(source, at)

        @cuda.jit(device=True, forceinline=True)
        def from_shared(v, k, pool, at):
            v[k], v[k + 1], v[k + 2], v[k + 3] = load_shared(pool, at)

        @cuda.jit(device=True, forceinline=True)
        def to_shared(v, k, pool, at):
            store_shared(pool, at, (v[k], v[k + 1], v[k + 2], v[k + 3]))

        return 4, from_global, from_shared, to_shared

    @cuda.jit(device=True, forceinline=True)
    def from_global(v, k, source, at):
        v[k], v[k + 1] = load_global(source, at)

    @cuda.jit(device=True, forceinline=True)
    def from_shared(v, k, pool, at):
        v[k], v[k + 1] = load_shared(pool, at)

    @cuda.jit(device=True, forceinline=True)
    def to_shared(v, k, pool, at):
        store_shared(pool, at, (v[k], v[k + 1]))

    return 2, from_global, from_shared, to_shared


class Lines(NamedTuple):
    """How an operand's lines are found and read; see `own_lines` and `sample_lines`."""

    begin: Any  #: (operand, line) → where a line begins in the source, or -1 beyond the last
    read: Any  #: (v, k, operand, begin, position, numbers): a vector of a line into v[k], v[k + 1], ...


def own_lines(dtype: str) -> Lines:
    """Lines of the kernel's own numbers, which are padded with zeros to whole vectors."""
    T = float32 if dtype == "float32" else float64
    V, from_global, _, _ = vector_functions(dtype)

    @cuda.jit(device=True, forceinline=True)
    def begin(operand, line):
        return operand.first + types.int64(line) * operand.stride if line < operand.lines else types.int64(-1)

    @cuda.jit(device=True, forceinline=True)
    def read(v, k, operand, begin, position, numbers):
        if begin >= 0 and position < operand.length:
            from_global(v, k, operand.source, begin + position)
        else:
            for q in range(V):
                v[k + q] = T(0)

    return Lines(begin, read)


def sample_lines(dtype: str, inputs: str, width: int, scaled: bool) -> Lines:
    """Lines that are samples, gathered in the order of their use.

    Parameters
    ----------
    dtype, inputs : str
        Of the numbers that are given, and of the samples.
    width : int
        Numbers of a sample.
    scaled : bool
        Whether samples get `input_scale` and `input_shift`.
    """
    T = float32 if dtype == "float32" else float64
    V, from_global, _, _ = vector_functions(dtype)
    WHOLE = inputs == dtype and not scaled and width % V == 0

    @cuda.jit(device=True, forceinline=True)
    def begin(operand, line):
        if line < operand.lines:
            return types.int64(operand.order[int32(operand.first + line)]) * width
        return types.int64(-1)

    @cuda.jit(device=True, forceinline=True)
    def read(v, k, operand, begin, position, numbers):
        if WHOLE:
            if begin >= 0 and position < operand.length:
                from_global(v, k, operand.source, begin + position)
            else:
                for q in range(V):
                    v[k + q] = T(0)
        else:
            for q in range(V):
                v[k + q] = T(0)
                if begin >= 0 and int32(position + q) < operand.length:
                    number = T(operand.source[begin + int32(position + q)])
                    v[k + q] = number * numbers.input_scale + numbers.input_shift if scaled else number

    return Lines(begin, read)


class Staging(NamedTuple):
    """How a block brings an operand's chunks into the pool; see `staging`."""

    vectors: int  #: of a thread
    numbers: int  #: in them
    begin: Any  #: (thread, begins, operand, first, k0): where the lines of a thread's vectors begin
    fetch: Any  #: (thread, v, begins, operand, first, k0, numbers): the vectors, out of global memory
    put: Any  #: (thread, v, pool, base): the vectors into the pool, [depth, rows]


def staging(dtype: str, rows: int, depth: int, threads: int, columns: bool, lines: Lines) -> Staging:
    """The device functions that bring chunks of an operand, of columns or of rows, into the pool.

    Where lines begin is known ahead: a sample's number must be read before the sample can be asked for.
    """
    V, _, _, to_shared = vector_functions(dtype)
    ALONG = (rows if columns else depth) // V  # vectors of a line
    COUNT = rows * depth // V
    PER = -(-COUNT // threads)
    STRIDE = rows + PAD

    @cuda.jit(device=True, forceinline=True)
    def begin(thread, begins, operand, first, k0):
        for p in range(PER):
            line = quotient(int32(thread + p * threads), ALONG)
            begins[p] = lines.begin(operand, int32((k0 if columns else first) + line))

    @cuda.jit(device=True, forceinline=True)
    def fetch(thread, v, begins, operand, first, k0, numbers):
        for p in range(PER):
            e = int32(thread + p * threads)
            if e < COUNT:
                position = int32((first if columns else k0) + remainder(e, ALONG) * V)
                lines.read(v, p * V, operand, begins[p], position, numbers)

    @cuda.jit(device=True, forceinline=True)
    def put(thread, v, pool, base):
        for p in range(PER):
            e = int32(thread + p * threads)
            if e < COUNT:
                line, position = quotient(e, ALONG), remainder(e, ALONG)
                if columns:
                    to_shared(v, p * V, pool, int32(base + line * STRIDE + position * V))
                else:
                    for q in range(V):
                        pool[int32(base + (position * V + q) * STRIDE + line)] = v[p * V + q]

    return Staging(PER, PER * V, begin, fetch, put)


def product_of(dtype: str, tile: Tile, threads: int, a: tuple[bool, Lines], b: tuple[bool, Lines]) -> Any:
    """The device function (pool, operands, row, column, span, numbers) that works out a tile.

    It leaves in ``pool`` the sums of each way, [ways, rows, columns], after a barrier of the block. ``operands`` are A
    and B, ``span`` the first and the end of k.

    Parameters
    ----------
    dtype : str
    tile : Tile
    threads : int
        Of a block.
    a, b : tuple
        Whether the operand is of columns, and its lines.
    """
    T = float32 if dtype == "float32" else float64
    V, _, from_shared, _ = vector_functions(dtype)
    ROWS, COLUMNS, DOWN, ACROSS, DEPTH = tile
    WAYS, SQUARES = tile.ways(threads), tile.squares
    SHARE, HIGH = DEPTH // WAYS, ROWS // DOWN
    A_STRIDE, B_STRIDE = ROWS + PAD, COLUMNS + PAD
    B_FIRST = DEPTH * A_STRIDE
    HALF = B_FIRST + DEPTH * B_STRIDE
    SUMS = DOWN * ACROSS
    A, B = staging(dtype, ROWS, DEPTH, threads, *a), staging(dtype, COLUMNS, DEPTH, threads, *b)
    a_vectors, a_numbers, begin_a, fetch_a, put_a = A
    b_vectors, b_numbers, begin_b, fetch_b, put_b = B
    A_COLUMNS, B_COLUMNS = a[0], b[0]

    @cuda.jit(device=True, forceinline=True)
    def add_products(sums, pool, from_a, from_b):
        """Add the products of one k to this thread's square of sums."""
        x, y = cuda.local.array(DOWN, T), cuda.local.array(ACROSS, T)
        for i in range(0, DOWN, V):
            from_shared(x, i, pool, int32(from_a + i))
        for j in range(0, ACROSS, V):
            from_shared(y, j, pool, int32(from_b + j))
        for i in range(DOWN):
            for j in range(ACROSS):
                sums[i * ACROSS + j] += x[i] * y[j]

    @cuda.jit(device=True, forceinline=True)
    def multiply(thread, sums, pool, base, left):
        """Add a chunk's products; ``left`` of them at most are inside the operands.

        The loop is unrolled by hand, and its count not known: the compiler would unroll either nothing or all of it,
        which takes all registers.
        """
        way, square = quotient(thread, SQUARES), remainder(thread, SQUARES)
        if way < WAYS:
            x = int32(base + way * SHARE * A_STRIDE + remainder(square, HIGH) * DOWN)
            y = int32(base + B_FIRST + way * SHARE * B_STRIDE + quotient(square, HIGH) * ACROSS)
            for _ in range(int32(0), int32(min(SHARE, left)), int32(4)):
                add_products(sums, pool, x, y)
                add_products(sums, pool, int32(x + A_STRIDE), int32(y + B_STRIDE))
                add_products(sums, pool, int32(x + 2 * A_STRIDE), int32(y + 2 * B_STRIDE))
                add_products(sums, pool, int32(x + 3 * A_STRIDE), int32(y + 3 * B_STRIDE))
                x, y = int32(x + 4 * A_STRIDE), int32(y + 4 * B_STRIDE)

    @cuda.jit(device=True, forceinline=True)
    def store(thread, sums, pool):
        way, square = quotient(thread, SQUARES), remainder(thread, SQUARES)
        if way < WAYS:
            first = int32((way * ROWS + remainder(square, HIGH) * DOWN) * COLUMNS + quotient(square, HIGH) * ACROSS)
            for i in range(DOWN):
                for j in range(ACROSS):
                    pool[int32(first + i * COLUMNS + j)] = sums[i * ACROSS + j]

    @cuda.jit(device=True, forceinline=True)
    def product(pool, operands, row, column, span, numbers):
        a, b = operands
        k, end = span
        thread = afresh(int32(cuda.threadIdx.x))
        sums = cuda.local.array(SUMS, T)
        next_a, next_b = cuda.local.array(a_numbers, T), cuda.local.array(b_numbers, T)
        begins_a, begins_b = cuda.local.array(a_vectors, types.int64), cuda.local.array(b_vectors, types.int64)
        for n in range(SUMS):
            sums[n] = T(0)
        begin_a(thread, begins_a, a, row, k)
        begin_b(thread, begins_b, b, column, k)
        fetch_a(thread, next_a, begins_a, a, row, k, numbers)
        fetch_b(thread, next_b, begins_b, b, column, k, numbers)
        cuda.syncthreads()  # the pool may hold sums that are being read
        put_a(thread, next_a, pool, int32(0))
        put_b(thread, next_b, pool, int32(B_FIRST))
        if A_COLUMNS:
            begin_a(thread, begins_a, a, row, int32(k + DEPTH))
        if B_COLUMNS:
            begin_b(thread, begins_b, b, column, int32(k + DEPTH))
        cuda.syncthreads()
        base = int32(0)
        while k < end:
            left = int32(end - k)
            k = int32(k + DEPTH)
            if k < end:
                fetch_a(thread, next_a, begins_a, a, row, k, numbers)
                fetch_b(thread, next_b, begins_b, b, column, k, numbers)
                if A_COLUMNS:
                    begin_a(thread, begins_a, a, row, int32(k + DEPTH))
                if B_COLUMNS:
                    begin_b(thread, begins_b, b, column, int32(k + DEPTH))
            multiply(thread, sums, pool, base, left)
            base = int32(HALF - base)
            if k < end:
                put_a(thread, next_a, pool, base)
                put_b(thread, next_b, pool, int32(base + B_FIRST))
            cuda.syncthreads()
        store(thread, sums, pool)
        cuda.syncthreads()

    return product
