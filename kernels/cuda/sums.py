"""How a block sums a tile of products: what each thread, or warp, holds in its registers, and how it multiplies.

Each way is written once, as a function over a *machine* that loads, multiplies and stores. On the device the machine
writes LLVM instructions, so that a kernel calls a tile's thousand multiplications by one name; in the simulator it
does them.

Both operands lie in shared memory, each as `Place` says. A tile's methods:

fma     each thread holds micro_rows x micro_columns sums, loads vectors of both operands and multiplies all with all.
        Its rows (and columns) lie a row of threads apart, so that neighbouring threads read neighbouring places.
mma     float64 on the tensor cores, which multiply and add as the ordinary units do. Each warp holds the sums.
tf32x3  float32 on the tensor cores, nearly as accurate: each number is split into two of TF32, x = big + small + what
        is below 2⁻²² of it, and  x y ≈ small big' + big small' + big big'.  The tensor cores add with fewer bits and
        towards zero, so they add up no more than one depth of a tile; from depth to depth the sums go on in float32,
        rounded to nearest. What float32 can't hold comes out differently: infinity times anything is NaN, as its
        small part is. Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while
        surpassing the FP32 theoretical peak performance", 2022.

What the tensor cores multiply at once, and what of it the lane 4 g + q holds (PTX ISA, "Matrix multiply-accumulate
operation using mma instruction"):

======= ================ ================================ =================== =================================
method  product          first operand: row, depth        second: depth, col. sums
======= ================ ================================ =================== =================================
tf32x3  16 x 8, depth 8  g, q; g+8, q; g, q+4; g+8, q+4   q, g; q+4, g        g, 2q; g, 2q+1; g+8, 2q; g+8, 2q+1
mma     8 x 8, depth 4   g, q                             q, g                g, 2q; g, 2q+1
======= ================ ================================ =================== =================================
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from fastmlp.kernels.cuda.elementwise import SIMULATED
from fastmlp.kernels.cuda.tile_ops import VECTOR

__all__ = ["ITEMSIZE", "SHAPES", "WARP", "Place", "Tile", "padding", "summing"]

ITEMSIZE = {"float32": 4, "float64": 8}
WARP = 32

#: method -> rows, columns and depth of what the tensor cores multiply at once.
SHAPES = {"tf32x3": (16, 8, 8), "mma": (8, 8, 4)}


@dataclass(frozen=True)
class Tile:
    """A block's tile of rows x columns sums, taken ``depth`` products at a time.

    Parameters
    ----------
    rows, columns, depth : int
        ``columns`` and ``depth`` are whole vectors; so is ``rows`` where the first operand goes by columns.
    micro_rows, micro_columns : int
        What one thread holds ("fma"), or one warp (the others).
    method : {"fma", "tf32x3", "mma"}, default "fma"
    """

    rows: int
    columns: int
    depth: int
    micro_rows: int
    micro_columns: int
    method: str = "fma"

    def __post_init__(self) -> None:
        if self.rows % self.micro_rows or self.columns % self.micro_columns:
            raise ValueError(f"{self}: expected whole numbers of what a thread or a warp holds")
        if self.method == "fma":
            return
        rows, columns, depth = SHAPES[self.method]
        if self.micro_rows % rows or self.micro_columns % columns or self.depth % depth:
            raise ValueError(f"{self}: expected whole products of {rows} x {columns}, depth {depth}")

    @property
    def across(self) -> int:
        """Threads (or warps) side by side."""
        return self.columns // self.micro_columns

    @property
    def down(self) -> int:
        """Threads (or warps) one below another."""
        return self.rows // self.micro_rows

    @property
    def threads(self) -> int:
        """Threads that sum; a block may have more, which help with loading."""
        return self.across * self.down * (1 if self.method == "fma" else WARP)

    @property
    def held(self) -> int:
        """Sums in a thread's registers."""
        return self.micro_rows * self.micro_columns // (1 if self.method == "fma" else WARP)


@dataclass(frozen=True)
class Place:
    """How an operand lies in shared memory.

    Parameters
    ----------
    along : bool
        Whether the depth runs along its rows there.
    at, stride : int
        Its first element, and elements from row to row.
    """

    along: bool
    at: int
    stride: int

    def element(self, outer: int, depth: int) -> int:
        """Where an element lies."""
        return self.at + (outer * self.stride + depth if self.along else depth * self.stride + outer)


def padding(method: str, dtype: str, along: bool, long: int) -> int:
    """Elements after each row of an operand, so that lanes which read at once meet no bank twice.

    A thread's vectors lie a row apart along the depth: an odd number of vectors from row to row does it. Fragments of
    the tensor cores take four neighbours of eight rows (along the depth: 4 or 12 elements more than whole turns of the
    banks), or eight neighbours of four rows (8 more in float32; 4 in float64, whose lanes read in two halves).
    """
    if method == "fma":
        vector = VECTOR[dtype]
        return vector if along and long // vector % 2 == 0 else 0
    turn = 32 if dtype == "float32" else 16
    wanted = (4, 12, 20, 28) if along or dtype == "float64" else (8, 24)
    return next(p for p in range(0, turn + 1, VECTOR[dtype]) if (long + p) % turn in wanted)


# ------------------------------------------------------------------------------------------- multiplying, in each way
def multiply_fma(m: Any, tile: Tile, first: Place, second: Place, sums: list) -> list:
    """The sums with the products of one depth of the tile."""
    sums = list(sums)
    for k in range(0, tile.depth, m.vector):
        a = vectors(m, 0, first, tile.micro_rows, tile.down, k)
        b = vectors(m, 1, second, tile.micro_columns, tile.across, k)
        for q in range(m.vector):
            for i in range(tile.micro_rows):
                for j in range(tile.micro_columns):
                    n = i * tile.micro_columns + j
                    sums[n] = m.fma(a[i][q], b[j][q], sums[n])
    return sums


def vectors(m: Any, operand: int, place: Place, micro: int, workers: int, k: int) -> list:
    """A thread's numbers of an operand at a vector's worth of depths from k on: [micro][vector]."""
    if place.along:
        return [m.load(operand, place.element(i * workers, k)) for i in range(micro)]
    groups = range(0, micro * workers, m.vector * workers)
    depths = [[x for g in groups for x in m.load(operand, place.element(g, k + q))] for q in range(m.vector)]
    return [list(column) for column in zip(*depths, strict=True)]


def multiply_float64(m: Any, tile: Tile, first: Place, second: Place, sums: list) -> list:
    """The sums with the products of one depth of the tile."""
    rows, columns, depth = SHAPES["mma"]
    down, across = range(0, tile.micro_rows, rows), range(0, tile.micro_columns, columns)
    sums = list(sums)
    for k in range(0, tile.depth, depth):
        a = [m.load_one(0, first.element(i, k)) for i in down]
        b = [m.load_one(1, second.element(j, k)) for j in across]
        for n, (x, y) in enumerate((x, y) for x in a for y in b):
            sums[2 * n : 2 * n + 2] = m.mma("mma", [x], [y], sums[2 * n : 2 * n + 2])
    return sums


def multiply_tf32(m: Any, tile: Tile, first: Place, second: Place, sums: list) -> list:
    """The sums with the products of one depth of the tile, added up on the tensor cores."""
    rows, columns, depth = SHAPES["tf32x3"]
    down, across, steps = (
        range(0, *r) for r in ((tile.micro_rows, rows), (tile.micro_columns, columns), (tile.depth, depth))
    )

    def parts(operand: int, place: Place, places: Sequence[tuple[int, int]]) -> list[tuple[list, list]]:
        """For each step of depth the big and the small parts of a fragment."""
        pairs = [[m.split(m.load_one(operand, place.element(o, k + d))) for o, d in places] for k in steps]
        return [tuple(map(list, zip(*pair, strict=True))) for pair in pairs]  # type: ignore[misc]

    a = [parts(0, first, [(i, 0), (i + 8, 0), (i, 4), (i + 8, 4)]) for i in down]
    b = [parts(1, second, [(j, 0), (j, 4)]) for j in across]
    result = []
    for n, (x, y) in enumerate((x, y) for x in a for y in b):
        part = [m.zero] * 4
        for p, q in ((1, 0), (0, 1), (0, 0)):  # small times big, big times small, big times big
            for xs, ys in zip(x, y, strict=True):
                part = m.mma("tf32x3", xs[p], ys[q], part)
        result += [m.add(s, t) for s, t in zip(sums[4 * n : 4 * n + 4], part, strict=True)]
    return result


MULTIPLY = {"fma": multiply_fma, "mma": multiply_float64, "tf32x3": multiply_tf32}


def groups(tile: Tile, second: Place, vector: int) -> Iterator[tuple[int, int, list[int]]]:
    """Neighbouring sums that a thread holds: how far below and right of its first, and which they are."""
    if tile.method == "fma":
        side_by_side = 1 if second.along else vector
        for i in range(tile.micro_rows):
            for j in range(0, tile.micro_columns, side_by_side):
                n = i * tile.micro_columns + j
                yield i, j * tile.across, list(range(n, n + side_by_side))
        return
    rows, columns, _ = SHAPES[tile.method]
    n = 0
    for i in range(0, tile.micro_rows, rows):
        for j in range(0, tile.micro_columns, columns):
            for half in range(0, rows, 8):
                yield i + half, j, [n, n + 1]
                n += 2


def row_below(tile: Tile, first: Place, vector: int, i: int) -> int:
    """How far below a thread's first row its row ``i`` is."""
    if tile.method != "fma":
        return i
    return i * tile.down if first.along else i // vector * vector * tile.down + i % vector


def lay_out_sums(m: Any, tile: Tile, first: Place, second: Place, stride: int, sums: list) -> None:
    """Store a thread's sums as rows of a tile, from its first on."""
    for row, column, which in groups(tile, second, m.vector):
        m.store(row_below(tile, first, m.vector, row) * stride + column, [sums[n] for n in which])


# ------------------------------------------------------------------------------------------------------- the machines
class Simulated:
    """Does what it is told to, with Python's numbers."""

    def __init__(self, pool: Any, addresses: Sequence[Any]) -> None:
        self.pool = pool
        self.name = pool.dtype.name
        self.vector, self.zero = VECTOR[self.name], pool.dtype.type(0)
        self.starts = [int(address) // pool.dtype.itemsize for address in addresses]

    def load(self, operand: int, element: int) -> list:
        """The vector at an element."""
        start = self.starts[operand] + element
        cuda.concurrent.check_aligned(self.pool, start, 16)
        return [self.pool[start + q] for q in range(self.vector)]

    def load_one(self, operand: int, element: int) -> Any:
        """An element."""
        return self.pool[self.starts[operand] + element]

    def store(self, element: int, values: list) -> None:
        """Store neighbours."""
        start = self.starts[0] + element
        cuda.concurrent.check_aligned(self.pool, start, len(values) * self.pool.dtype.itemsize)
        for q, value in enumerate(values):
            self.pool[start + q] = value

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """A sum with a product; rounded twice, where the device does it once."""
        return c + a * b

    def add(self, a: Any, b: Any) -> Any:
        """A sum."""
        return a + b

    def split(self, x: Any) -> tuple:
        """Two TF32 numbers, big and small, that add up to nearly x."""
        return split(x)

    def mma(self, method: str, a: list, b: list, c: list) -> list:
        """The warp's product and sum: exact, rounded once. The hardware's own sums of TF32 have fewer bits."""
        values = (a, b, c)
        lanes = cuda.concurrent.warp(values)
        lane = next(i for i, held in enumerate(lanes) if held is values)
        rows, columns, depth = SHAPES[method]
        A, B, C = (np.empty(shape) for shape in ((rows, depth), (depth, columns), (rows, columns)))
        for number, held in enumerate(lanes):
            for matrix, places, numbers in zip((A, B, C), fragments(method, number), held, strict=True):
                for place, x in zip(places, numbers, strict=True):
                    matrix[place] = x
        result = C + A @ B
        return [self.pool.dtype.type(result[place]) for place in fragments(method, lane)[2]]


def fragments(method: str, lane: int) -> tuple[list, list, list]:
    """What a lane holds of the first operand (row, depth), the second (depth, column), and the sums (row, column)."""
    g, q = divmod(lane, 4)
    if method == "mma":
        return [(g, q)], [(q, g)], [(g, 2 * q), (g, 2 * q + 1)]
    first = [(g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4)]
    return first, [(q, g), (q + 4, g)], [(g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1)]


#: The bits of a float32 that TF32 has: it lacks the last 13 of the fraction; and half of the last that it has.
TF32, HALF_TF32 = 0xFFFFE000, 0x1000


def split(x: np.float32) -> tuple[np.float32, np.float32]:
    """Two TF32 numbers, big and small, that add up to nearly x: big is rounded to nearest, small cut off.

    The instruction that rounds to TF32 costs a GPU more than these two operations on whole numbers.
    """
    big = masked(int(x.view(np.uint32)) + HALF_TF32)
    return big, masked(int((x - big).view(np.uint32)))


def masked(bits: int) -> np.float32:
    """The float32 of some bits, but for those that TF32 lacks."""
    return np.uint32(bits & TF32 & 0xFFFFFFFF).view(np.float32)


if not SIMULATED:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    INT, LONG = ir.IntType(32), ir.IntType(64)
    SHARED = 3  # LLVM's name for that memory on a GPU
    FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
    ASSEMBLY = {
        "tf32x3": (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
            "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        ),
        "mma": ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {$0,$1}, {$2}, {$3}, {$4,$5};", "=d,=d,d,d,d,d"),
    }

    class Device:
        """Writes the instructions."""

        def __init__(self, builder: ir.IRBuilder, dtype: str, addresses: Sequence[ir.Value]) -> None:
            self.builder, self.vector, self.itemsize = builder, VECTOR[dtype], ITEMSIZE[dtype]
            self.element = FLOATS[dtype]
            self.zero = ir.Constant(self.element, 0.0)
            byte = ir.IntType(8).as_pointer(SHARED)
            self.starts = [builder.inttoptr(builder.zext(address, LONG), byte) for address in addresses]

        def _pointer(self, operand: int, element: int, kind: ir.Type) -> ir.Value:
            place = self.builder.gep(self.starts[operand], [ir.Constant(LONG, element * self.itemsize)])
            return self.builder.bitcast(place, kind.as_pointer(SHARED))

        def load(self, operand: int, element: int) -> list:
            """The vector at an element."""
            kind = ir.VectorType(self.element, self.vector)
            vector = self.builder.load(self._pointer(operand, element, kind), align=16)
            return [self.builder.extract_element(vector, ir.Constant(INT, q)) for q in range(self.vector)]

        def load_one(self, operand: int, element: int) -> ir.Value:
            """An element."""
            return self.builder.load(self._pointer(operand, element, self.element), align=self.itemsize)

        def store(self, element: int, values: list) -> None:
            """Store neighbours."""
            kind = ir.VectorType(self.element, len(values))
            vector = ir.Constant(kind, ir.Undefined)
            for q, value in enumerate(values):
                vector = self.builder.insert_element(vector, value, ir.Constant(INT, q))
            self.builder.store(vector, self._pointer(0, element, kind), align=self.itemsize * len(values))

        def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
            """A sum with a product, rounded once."""
            return self.builder.fma(a, b, c)

        def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
            """A sum."""
            return self.builder.fadd(a, b)

        def split(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
            """Two TF32 numbers, big and small, that add up to nearly x."""
            b, mask = self.builder, ir.Constant(INT, TF32)
            big = b.and_(b.add(b.bitcast(x, INT), ir.Constant(INT, HALF_TF32)), mask)
            return big, b.and_(b.bitcast(b.fsub(x, b.bitcast(big, self.element)), INT), mask)

        def mma(self, method: str, a: list, b: list, c: list) -> list:
            """The warp's product and sum."""
            text, constraints = ASSEMBLY[method]
            kind = ir.FunctionType(ir.LiteralStructType([self.element] * len(c)), [x.type for x in (*a, *b, *c)])
            # To move such an instruction into a branch would leave lanes out of it: its side effect is the warp's.
            result = self.builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), [*a, *b, *c])
            return [self.builder.extract_value(result, n) for n in range(len(c))]

    def _on_device(tile: Tile, dtype: str, first: Place, second: Place, stride: int) -> tuple:
        number = getattr(types, dtype)
        held = types.UniTuple(number, tile.held)

        def unpack(builder, packed):
            return [builder.extract_value(packed, n) for n in range(tile.held)]

        @intrinsic
        def start(typingctx):
            def generate(context, builder, signature, arguments):
                zeros = [ir.Constant(FLOATS[dtype], 0.0)] * tile.held
                return context.make_tuple(builder, held, zeros)

            return held(), generate

        @intrinsic
        def multiply(typingctx, pool, a, b, sums):
            def generate(context, builder, signature, arguments):
                m = Device(builder, dtype, arguments[1:3])
                found = MULTIPLY[tile.method](m, tile, first, second, unpack(builder, arguments[3]))
                return context.make_tuple(builder, held, found)

            return held(pool, types.uint32, types.uint32, held), generate

        @intrinsic
        def lay_out(typingctx, pool, at, sums):
            def generate(context, builder, signature, arguments):
                m = Device(builder, dtype, arguments[1:2])
                lay_out_sums(m, tile, first, second, stride, unpack(builder, arguments[2]))
                return context.get_dummy_value()

            return types.void(pool, types.uint32, held), generate

        return start, multiply, lay_out


def _simulated(tile: Tile, dtype: str, first: Place, second: Place, stride: int) -> tuple:
    kind = np.dtype(dtype).type

    def start():
        return (kind(0),) * tile.held

    def multiply(pool, a, b, sums):
        return tuple(MULTIPLY[tile.method](Simulated(pool, (a, b)), tile, first, second, sums))

    def lay_out(pool, at, sums):
        lay_out_sums(Simulated(pool, (at,)), tile, first, second, stride, sums)

    return start, multiply, lay_out


@lru_cache(maxsize=1024)
def summing(tile: Tile, dtype: str, first: Place, second: Place, stride: int) -> tuple:
    """Functions for kernels that sum a tile.

    Parameters
    ----------
    tile : Tile
    dtype : str
    first, second : Place
        The operands.
    stride : int
        Elements from row to row of the finished tile in shared memory.

    Returns
    -------
    start()
        A thread's sums, zero: a tuple.
    multiply(pool, a, b, sums)
        The sums with the products of one depth; a and b are the addresses of a thread's first element of each operand,
        less where the operand begins, in bytes.
    lay_out(pool, at, sums)
        Stores them, from the address of a thread's first sum on.
    """
    return (_simulated if SIMULATED else _on_device)(tile, dtype, first, second, stride)
