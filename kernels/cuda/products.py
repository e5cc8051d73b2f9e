"""A tile of a matrix product, worked out by a block: sums over k of A[row, k] B[column, k].

An operand lies in lines of memory. Either its tile's rows are lines and k runs along them (an operand *of rows*), or k
is the line and the tile's rows run along it (*of columns*). Lines may be gathered: samples in the order of their use.
Whatever is beyond an operand's limits counts as zero.

Why it is fast: a thread keeps ``down`` x ``across`` sums in registers, so that a number from shared memory serves
several products. Both operands are copied to shared memory as they lie, 16 bytes at a time, ``depth`` products in a
*chunk*; while one chunk is multiplied out, the next two are on their way, and no register waits for them. A thread
reads 16 bytes at a time there, too: of an operand of rows four k of a row, of one of columns four rows at a k.
Neighbouring threads have neighbouring rows, which lie in different banks.
"""

from typing import Any, NamedTuple

from fastmlp.kernels.cuda.instructions import (
    afresh,
    commit_copies,
    copy_async,
    load_shared,
    quotient,
    remainder,
    wait_older_copies,
)
from fastmlp.kernels.cuda.shapes import PAD, STAGES, Tile
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types, uint32

__all__ = ["Lines", "Operand", "own_lines", "product_of", "sample_lines"]


class Operand(NamedTuple):
    """Where an operand is. Element (line, position) is source[first + line * stride + position], if it is inside."""

    source: Any
    order: Any  #: int32; of gathered lines: line is sample order[first + line]
    first: Any
    stride: Any
    lines: Any  #: limits of both indices
    length: Any
    one: Any  #: a position that counts as 1 in every line, which gives biases their gradient; -1 for none
    numbers: Any  #: `fastmlp.kernels.cuda.records.Numbers`, of which samples may need scale and shift


class Lines(NamedTuple):
    """How an operand's lines are found and copied; see `own_lines` and `sample_lines`."""

    find: Any  #: (operand, line) → the number that `copy` finds a line by, or -1 beyond the last
    copy: Any  #: (pool, at, operand, found, position): start copying a vector of a line to pool[at]


@cuda.jit(device=True, forceinline=True)
def has_one(operand, position, vector):
    """Whether a vector of a line has the position that counts as 1."""
    return position <= operand.one and operand.one < int32(position + vector)


def own_lines(dtype: str) -> Lines:
    """Lines of the kernel's own numbers, which are padded with zeros to whole vectors."""
    T, V = (float32, 4) if dtype == "float32" else (float64, 2)

    @cuda.jit(device=True, forceinline=True)
    def find(operand, line):
        return int32(line) if line < operand.lines else int32(-1)

    @cuda.jit(device=True, forceinline=True)
    def copy(pool, at, operand, found, position):
        begin = operand.first + types.int64(found) * operand.stride
        if found >= 0 and position < operand.length and not has_one(operand, position, V):
            copy_async(pool, at, operand.source, begin + position)
        else:
            for q in range(V):
                number = T(0)
                if found >= 0 and int32(position + q) == operand.one:
                    number = T(1)
                elif found >= 0 and int32(position + q) < operand.length:
                    number = operand.source[begin + int32(position + q)]
                pool[uint32(at + q)] = number

    return Lines(find, copy)


def sample_lines(dtype: str, inputs: str, width: int, scaled: bool) -> Lines:
    """Lines that are samples, gathered in the order of their use.

    Parameters
    ----------
    dtype, inputs : str
        Of the numbers that are multiplied, and of the samples.
    width : int
        Numbers of a sample.
    scaled : bool
        Whether samples get `input_scale` and `input_shift`.
    """
    T, V = (float32, 4) if dtype == "float32" else (float64, 2)
    WHOLE = inputs == dtype and not scaled and width % V == 0

    @cuda.jit(device=True, forceinline=True)
    def find(operand, line):
        return operand.order[uint32(operand.first + line)] if line < operand.lines else int32(-1)

    @cuda.jit(device=True, forceinline=True)
    def copy(pool, at, operand, found, position):
        begin = types.int64(found) * width
        if WHOLE and found >= 0 and position < operand.length:
            copy_async(pool, at, operand.source, begin + position)
        else:  # converted on its way, or beyond the last
            for q in range(V):
                number = T(0)
                if found >= 0 and int32(position + q) == operand.one:
                    number = T(1)
                elif not WHOLE and found >= 0 and int32(position + q) < operand.length:
                    number = T(operand.source[begin + int32(position + q)])
                    if scaled:
                        number = number * operand.numbers.input_scale + operand.numbers.input_shift
                pool[uint32(at + q)] = number

    return Lines(find, copy)


class Staging(NamedTuple):
    """How a block brings an operand's chunks into the pool, and a thread takes its rows from there; see `staging`."""

    vectors: int  #: of a thread in a chunk
    find: Any  #: (thread, found, operand, first, k0): find the lines of a thread's vectors
    stage: Any  #: (thread, pool, base, found, operand, first, k0): start copying a chunk
    take: Any  #: (v, pool, base, row, k): the numbers at a few k of every ``apart``-th row from ``row``, [rows, V]


def staging(dtype: str, rows: int, depth: int, share: tuple[int, int], columns: bool, lines: Lines) -> Staging:
    """The device functions that bring an operand's chunks into the pool, as they lie, and take numbers from there.

    Lines are found a chunk ahead: a sample's number must be read before the sample can be asked for.

    Parameters
    ----------
    dtype : str
    rows, depth : int
        Of a chunk.
    share : tuple of int
        Threads of the block; rows of a thread.
    columns : bool
        Whether the operand is of columns.
    lines : Lines
    """
    V = 4 if dtype == "float32" else 2
    THREADS, OWN = share
    ALONG = (rows if columns else depth) // V  # vectors of a line
    COUNT = rows * depth // V
    PER = -(-COUNT // THREADS)
    STRIDE = (rows if columns else depth) + PAD
    GROUPS = rows // OWN  # threads that share the rows

    @cuda.jit(device=True, forceinline=True)
    def find(thread, found, operand, first, k0):
        for p in range(PER):
            line = quotient(int32(thread + p * THREADS), ALONG)
            found[p] = lines.find(operand, int32((k0 if columns else first) + line))

    @cuda.jit(device=True, forceinline=True)
    def stage(thread, pool, base, found, operand, first, k0):
        for p in range(PER):
            e = int32(thread + p * THREADS)
            if e < COUNT:
                line, position = quotient(e, ALONG), int32(remainder(e, ALONG) * V)
                at = int32(base + line * STRIDE + position)
                lines.copy(pool, at, operand, found[p], int32((first if columns else k0) + position))

    @cuda.jit(device=True, forceinline=True)
    def load(v, n, pool, at):
        if V == 4:
            v[n], v[n + 1], v[n + 2], v[n + 3] = load_shared(pool, at)
        else:
            v[n], v[n + 1] = load_shared(pool, at)

    @cuda.jit(device=True, forceinline=True)
    def take(v, pool, base, own, k):
        if columns:  # V k of OWN rows, V of them side by side
            for q in range(V):
                for i in range(OWN // V):
                    load(v, q * OWN + i * V, pool, int32(base + (k + q) * STRIDE + (own + i * GROUPS) * V))
        else:
            for i in range(OWN):
                load(v, i * V, pool, int32(base + (own + i * GROUPS) * STRIDE + k))

    return Staging(PER, find, stage, take)


def product_of(dtype: str, tile: Tile, threads: int, a: tuple[bool, Lines], b: tuple[bool, Lines]) -> Any:
    """The device function (pool, operands, row, column, span) that works out a tile.

    It leaves in ``pool`` the sums of each way, [ways, rows, tile.line], after a barrier of the block. ``operands`` are
    A and B, ``span`` the first and the end of k.

    Parameters
    ----------
    dtype : str
    tile : Tile
    threads : int
        Of a block.
    a, b : tuple
        Whether the operand is of columns, and its lines.
    """
    T, V = (float32, 4) if dtype == "float32" else (float64, 2)
    ROWS, COLUMNS, DOWN, ACROSS, DEPTH = tile
    WAYS, SQUARES, LINE = tile.ways(threads), tile.squares, tile.line
    SHARE, HIGH, WIDE = DEPTH // WAYS, ROWS // DOWN, COLUMNS // ACROSS
    A_COLUMNS, B_COLUMNS = a[0], b[0]
    A_SIZE = DEPTH * (ROWS + PAD) if A_COLUMNS else ROWS * (DEPTH + PAD)
    CHUNK = A_SIZE + (DEPTH * (COLUMNS + PAD) if B_COLUMNS else COLUMNS * (DEPTH + PAD))
    ALL_STAGES = STAGES * CHUNK
    SUMS, X_SIZE, Y_SIZE = DOWN * ACROSS, DOWN * V, ACROSS * V
    A_FIRST, B_FIRST = V if A_COLUMNS else 1, V if B_COLUMNS else 1  # from thread to thread, of their first rows
    X_ROW, X_K = (1, DOWN) if A_COLUMNS else (V, 1)  # from row to row, and from k to k, of what is taken at once
    Y_ROW, Y_K = (1, ACROSS) if B_COLUMNS else (V, 1)
    a_vectors, find_a, stage_a, take_a = staging(dtype, ROWS, DEPTH, (threads, DOWN), *a)
    b_vectors, find_b, stage_b, take_b = staging(dtype, COLUMNS, DEPTH, (threads, ACROSS), *b)

    @cuda.jit(device=True, forceinline=True)
    def add_products(sums, x, y, q):
        """Add the products of one k; called for each, as a loop over them leaves x and y in memory on sm_100."""
        for i in range(DOWN):
            for j in range(ACROSS):
                sums[i * ACROSS + j] += x[i * X_ROW + q * X_K] * y[j * Y_ROW + q * Y_K]

    @cuda.jit(device=True, forceinline=True)
    def multiply(thread, sums, pool, base, left):
        """Add a chunk's products; ``left`` of them at most are inside the operands."""
        way, square = quotient(thread, SQUARES), remainder(thread, SQUARES)
        x, y = cuda.local.array(X_SIZE, T), cuda.local.array(Y_SIZE, T)
        if way < WAYS:
            own_a, own_b, first = remainder(square, HIGH), quotient(square, HIGH), int32(way * SHARE)
            for k in range(first, int32(first + min(SHARE, left)), int32(V)):
                take_a(x, pool, base, own_a, k)
                take_b(y, pool, int32(base + A_SIZE), own_b, k)
                add_products(sums, x, y, 0)
                add_products(sums, x, y, 1)
                if V == 4:
                    add_products(sums, x, y, 2)
                    add_products(sums, x, y, 3)

    @cuda.jit(device=True, forceinline=True)
    def store(thread, sums, pool):
        way, square = quotient(thread, SQUARES), remainder(thread, SQUARES)
        if way < WAYS:
            own_a, own_b = remainder(square, HIGH), quotient(square, HIGH)
            at = int32((way * ROWS + own_a * A_FIRST) * LINE + own_b * B_FIRST)
            for i in range(DOWN):
                down = (i // V * HIGH * V + i % V if A_COLUMNS else i * HIGH) * LINE
                for j in range(ACROSS):
                    right = j // V * WIDE * V + j % V if B_COLUMNS else j * WIDE
                    pool[uint32(at + down + right)] = sums[i * ACROSS + j]

    @cuda.jit(device=True, forceinline=True)
    def product(pool, operands, row, column, span):
        a, b = operands
        k, end = span
        thread = afresh(int32(cuda.threadIdx.x))
        sums = cuda.local.array(SUMS, T)
        found_a, found_b = cuda.local.array(a_vectors, int32), cuda.local.array(b_vectors, int32)
        for n in range(SUMS):
            sums[n] = T(0)
        find_a(thread, found_a, a, row, k)
        find_b(thread, found_b, b, column, k)
        cuda.syncthreads()  # the pool may hold sums that are being read
        base, coming, ahead = int32(0), int32(0), k
        while k < end:
            if ahead >= int32(k + (STAGES - 1) * DEPTH):  # so many chunks are on their way
                wait_older_copies()
                cuda.syncthreads()
            if ahead < end:
                stage_a(thread, pool, coming, found_a, a, row, ahead)
                stage_b(thread, pool, int32(coming + A_SIZE), found_b, b, column, ahead)
                if A_COLUMNS:
                    find_a(thread, found_a, a, row, int32(ahead + DEPTH))
                if B_COLUMNS:
                    find_b(thread, found_b, b, column, int32(ahead + DEPTH))
            commit_copies()
            ahead, coming = int32(ahead + DEPTH), int32(coming + CHUNK)
            coming = int32(0) if coming == ALL_STAGES else coming
            if ahead > int32(k + (STAGES - 1) * DEPTH):
                multiply(thread, sums, pool, base, int32(end - k))
                k, base = int32(k + DEPTH), int32(base + CHUNK)
                base = int32(0) if base == ALL_STAGES else base
        cuda.syncthreads()
        store(thread, sums, pool)
        cuda.syncthreads()

    return product
