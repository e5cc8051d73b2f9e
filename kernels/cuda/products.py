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

from fastmlp.kernels.cuda.instructions import afresh, load_global, load_shared, store_shared
from fastmlp.kernels.cuda.plans import PAD, Tile
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types

__all__ = ["Operand", "product_of", "reader"]


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


def reader(dtype: str, inputs: str = "", width: int = 0, scaled: bool = False) -> Any:
    """The device function (v, k, operand, line, position, numbers): a vector of an operand into v[k], v[k + 1], ...

    Parameters
    ----------
    dtype : str
        Of the numbers it gives.
    inputs : str, default ""
        The samples' dtype, where lines are gathered samples; without, lines are numbers of the kernel's own, padded
        with zeros to whole vectors.
    width : int
        Numbers of a sample.
    scaled : bool
        Whether samples get `input_scale` and `input_shift`.
    """
    T = float32 if dtype == "float32" else float64
    V, from_global, _, _ = vector_functions(dtype)
    WHOLE = inputs == dtype and not scaled and width % V == 0

    if not inputs:

        @cuda.jit(device=True, forceinline=True)
        def read(v, k, operand, line, position, numbers):
            if line < operand.lines and position < operand.length:
                from_global(v, k, operand.source, operand.first + types.int64(line) * operand.stride + position)
            else:
                for q in range(V):
                    v[k + q] = T(0)

    else:

        @cuda.jit(device=True, forceinline=True)
        def read(v, k, operand, line, position, numbers):
            if line < operand.lines and position < operand.length:
                at = types.int64(operand.order[operand.first + line]) * width + position
                if WHOLE:
                    from_global(v, k, operand.source, at)
                else:
                    for q in range(V):
                        v[k + q] = T(0)
                        if position + q < operand.length:
                            number = T(operand.source[at + q])
                            v[k + q] = number * numbers.input_scale + numbers.input_shift if scaled else number
            else:
                for q in range(V):
                    v[k + q] = T(0)

    return read


def staging(dtype: str, rows: int, depth: int, threads: int, columns: bool, read: Any) -> tuple[int, Any, Any]:
    """Vectors of a thread for a chunk of an operand; device functions that fetch them, and put them into the pool."""
    V, _, _, to_shared = vector_functions(dtype)
    LINE = (rows if columns else depth) // V
    COUNT = rows * depth // V
    PER = -(-COUNT // threads)
    STRIDE = rows + PAD

    @cuda.jit(device=True, forceinline=True)
    def fetch(thread, v, operand, first, k0, numbers):
        for p in range(PER):
            e = thread + int32(p * threads)
            if e < int32(COUNT):
                line, position = e // int32(LINE), e % int32(LINE) * int32(V)
                if columns:
                    read(v, p * V, operand, k0 + line, first + position, numbers)
                else:
                    read(v, p * V, operand, first + line, k0 + position, numbers)

    @cuda.jit(device=True, forceinline=True)
    def put(thread, v, pool, base):
        for p in range(PER):
            e = thread + int32(p * threads)
            if e < int32(COUNT):
                line, position = e // int32(LINE), e % int32(LINE) * int32(V)
                if columns:
                    to_shared(v, p * V, pool, base + line * int32(STRIDE) + position)
                else:
                    for q in range(V):
                        pool[base + (position + int32(q)) * int32(STRIDE) + line] = v[p * V + q]

    return PER * V, fetch, put


def product_of(dtype: str, tile: Tile, threads: int, a: tuple[bool, Any], b: tuple[bool, Any]) -> Any:
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
        Whether the operand is of columns, and its `reader`.
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
    a_size, fetch_a, put_a = staging(dtype, ROWS, DEPTH, threads, *a)
    b_size, fetch_b, put_b = staging(dtype, COLUMNS, DEPTH, threads, *b)

    @cuda.jit(device=True, forceinline=True)
    def add_products(sums, pool, from_a, from_b):
        """Add the products of one k to this thread's square of sums."""
        x, y = cuda.local.array(DOWN, T), cuda.local.array(ACROSS, T)
        for i in range(0, DOWN, V):
            from_shared(x, i, pool, from_a + int32(i))
        for j in range(0, ACROSS, V):
            from_shared(y, j, pool, from_b + int32(j))
        for i in range(DOWN):
            for j in range(ACROSS):
                sums[i * ACROSS + j] += x[i] * y[j]

    @cuda.jit(device=True, forceinline=True)
    def multiply(thread, sums, pool, base, left):
        """Add a chunk's products; ``left`` of them at most are inside the operands.

        The loop is unrolled by hand, and its count not known: the compiler would unroll either nothing or all of it,
        which takes all registers.
        """
        way, square = thread // int32(SQUARES), thread % int32(SQUARES)
        if way < int32(WAYS):
            from_a = base + way * int32(SHARE * A_STRIDE) + square % int32(HIGH) * int32(DOWN)
            from_b = base + int32(B_FIRST) + way * int32(SHARE * B_STRIDE) + square // int32(HIGH) * int32(ACROSS)
            for _ in range(0, min(int32(SHARE), left), int32(4)):
                add_products(sums, pool, from_a, from_b)
                add_products(sums, pool, from_a + int32(A_STRIDE), from_b + int32(B_STRIDE))
                add_products(sums, pool, from_a + int32(2 * A_STRIDE), from_b + int32(2 * B_STRIDE))
                add_products(sums, pool, from_a + int32(3 * A_STRIDE), from_b + int32(3 * B_STRIDE))
                from_a += int32(4 * A_STRIDE)
                from_b += int32(4 * B_STRIDE)

    @cuda.jit(device=True, forceinline=True)
    def store(thread, sums, pool):
        way, square = thread // int32(SQUARES), thread % int32(SQUARES)
        if way < int32(WAYS):
            first = (way * int32(ROWS) + square % int32(HIGH) * int32(DOWN)) * int32(COLUMNS)
            first += square // int32(HIGH) * int32(ACROSS)
            for i in range(DOWN):
                for j in range(ACROSS):
                    pool[first + int32(i * COLUMNS + j)] = sums[i * ACROSS + j]

    @cuda.jit(device=True, forceinline=True)
    def product(pool, operands, row, column, span, numbers):
        a, b = operands
        k, end = span
        thread = afresh(int32(cuda.threadIdx.x))
        sums = cuda.local.array(SUMS, T)
        next_a, next_b = cuda.local.array(a_size, T), cuda.local.array(b_size, T)
        for n in range(SUMS):
            sums[n] = T(0)
        fetch_a(thread, next_a, a, row, k, numbers)
        fetch_b(thread, next_b, b, column, k, numbers)
        cuda.syncthreads()  # the pool may hold sums that are being read
        put_a(thread, next_a, pool, int32(0))
        put_b(thread, next_b, pool, int32(B_FIRST))
        cuda.syncthreads()
        base = int32(0)
        while k < end:
            k += int32(DEPTH)
            if k < end:
                fetch_a(thread, next_a, a, row, k, numbers)
                fetch_b(thread, next_b, b, column, k, numbers)
            multiply(thread, sums, pool, base, end - k + int32(DEPTH))
            base = int32(HALF) - base
            if k < end:
                put_a(thread, next_a, pool, base)
                put_b(thread, next_b, pool, base + int32(B_FIRST))
            cuda.syncthreads()
        store(thread, sums, pool)
        cuda.syncthreads()

    return product
