"""Tiled products as text: sums of products in registers, fed from shared memory, finished in a loop.

    sums[r, c] = Σₖ first[r, k] second[c, k]        r < tile.rows, c < tile.columns

is the one shape of all products of a network, and the text of it is written by `product`:

forward     r samples, c units, k inputs      first: activations below     second: weights
delta       r samples, c inputs, k units      first: delta above           second: weights, by columns
gradient    r units, c inputs, k samples      first: delta, by columns     second: activations below, by columns

An operand is a matrix in memory whose rows are contiguous. Either its rows are the tile's rows (or columns) and k runs
along them, or k runs over its rows. It comes by whole vectors into registers while the block works on the vectors that
came before, and then into the other half of its place in shared memory: along k, as it lies in memory, in either case,
so that nothing is transposed.

The sums of a tile then go through shared memory once more, so that what is done with them (bias, activation, slope,
storing) is one rolled loop over vectors that lie side by side, whatever the way they were summed: `finish`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastmlp.kernels.cuda import generate
from fastmlp.kernels.cuda.tile_ops import VECTOR

ITEMSIZE = {"float32": 4, "float64": 8}
WARP = 32


class Text(generate.Text):
    """Lines of a kernel, with loops over unsigned numbers."""

    def each(self, name: str, first: str, stop: str, step: str):
        """A loop over unsigned numbers from ``first``."""
        self(f"{name} = uint32({first})")
        return self._loop(f"while {name} < {stop}:", f"{name} = uint32({name} + {step})")

    def counting_down(self, name: str, least: str):
        """A loop over unsigned numbers from one below the name's value down to ``least``."""
        return self._loop(f"while {name} > {least}:", None, f"{name} = uint32({name} - uint32(1))")

    @contextmanager
    def _loop(self, head: str, last: str | None, begins: str | None = None) -> Iterator[None]:
        with self.block(head):
            if begins:
                self(begins)
            yield
            if last:
                self(last)


@dataclass(frozen=True)
class Tile:
    """A block's tile of rows x columns sums, taken ``depth`` products at a time.

    Parameters
    ----------
    rows, columns, depth : int
        ``columns`` and ``depth`` are whole vectors; so is ``rows`` where the first operand goes by columns.
    micro_rows, micro_columns : int
        What one thread holds ("fma"), or one warp ("tf32x3", "mma").
    method : {"fma", "tf32x3", "mma"}
        How products are summed: by the ordinary units; in float32 by three products of TF32 numbers on the tensor
        cores; in float64 on the tensor cores.
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


@dataclass(frozen=True)
class Matrix:
    """Rows of a flat array that are padded with zeros to whole vectors.

    All attributes but ``dtype`` are texts: the array's name, the index of its first element, elements from row to row,
    and how many rows and columns there are.
    """

    array: str
    first: str
    stride: str
    rows: str
    columns: str
    dtype: str

    def place(self, w: Text, name: str, row: str, column: str) -> None:
        """Lines that set ``name`` to the index of an element."""
        w(f"{name} = uint32({self.first} + uint32({row}) * {self.stride} + {column})")

    def load(self, w: Text, names: list[str], at: str, valid: str, column: str) -> None:
        """Lines that load the vector at an index, or zeros."""
        w(f"{', '.join(names)} = load_if({self.array}, {at}, {valid})")

    def by_rows(self) -> str:
        """Elements from a vector to the same one in the next row."""
        return self.stride


@dataclass(frozen=True)
class Samples:
    """The samples of a batch, as the user gave them: converted, scaled and shifted while they are loaded.

    Parameters
    ----------
    dtype, inputs : str
        Of the arithmetic, and of the samples.
    rows, columns : str
        Texts: how many samples the batch has, and inputs a sample.
    order : str
        The text of a sample's index in X from that of its number in the batch, ``{}``.
    whole : bool
        Whether rows are whole aligned vectors. Otherwise each element is loaded for itself.
    scaled : bool
        Whether there is anything to scale or shift.
    """

    dtype: str
    inputs: str
    rows: str
    columns: str
    order: str
    whole: bool
    scaled: bool

    def place(self, w: Text, name: str, row: str, column: str) -> None:
        """Lines that set ``name`` to the index of an element of a sample; ``row`` must be one of the batch."""
        w(f"{name} = uint64(uint64({self.order.format(row)}) * uint64({self.columns}) + uint64({column}))")

    def load(self, w: Text, names: list[str], at: str, valid: str, column: str) -> None:
        """Lines that load the vector at an index; where it is not valid, some finite numbers or zeros."""
        if self.whole:
            w(f"{', '.join(names)} = load_if(X, {at}, {valid})")
        else:
            w(f"near = {valid}")
            for i, name in enumerate(names):
                inside = f"near and uint32({column} + uint32({i})) < {self.columns}"
                value = f"{self.dtype}(X[uint64({at} + uint64({i}))])"
                w(f"{name} = {value} if {inside} else {self.dtype}(0)")
        for name in names:
            value = name if self.inputs == self.dtype or not self.whole else f"{self.dtype}({name})"
            if self.scaled:
                w(f"{name} = {value} * input_scale + input_shift")
            elif value != name:
                w(f"{name} = {value}")

    def by_rows(self) -> str:
        """There is no step from a sample to the next: they come in any order."""
        raise TypeError("samples are gathered")


class Panel:
    """An operand's part of a tile on its way into shared memory.

    Parameters
    ----------
    name : str
        What its variables begin with.
    source : Matrix or Samples
        Where it comes from.
    along : bool
        Whether the depth runs along its rows in memory (otherwise over them).
    outer : int
        Rows, or columns, of the tile: how many there are across the depth.
    start : str
        The text of the first of them.
    tile : Tile
    threads : int
        Of the block, all of which load.
    at : int
        Where it begins in shared memory, in elements.
    """

    def __init__(self, name, source, along: bool, outer: int, start: str, tile: Tile, threads: int, at: int) -> None:
        self.name, self.source, self.along, self.start, self.at = name, source, along, start, at
        self.vector = VECTOR[source.dtype]
        self.outer, self.depth = outer, tile.depth
        long = tile.depth if along else outer
        self.short = outer if along else tile.depth
        self.in_row = long // self.vector
        if self.in_row * self.vector != long:
            raise ValueError(f"{tile}: {long} is no whole number of vectors of {self.vector}")
        self.stride = long + padding(tile.method, source.dtype, along, long)
        self.size = self.short * self.stride
        self.vectors = self.in_row * self.short
        self.threads = threads
        self.slots = -(-self.vectors // threads)
        self.gathers = isinstance(source, Samples) and not along

    def _values(self, slot: int) -> list[str]:
        return [f"{self.name}{slot}_{i}" for i in range(self.vector)]

    def begin(self, w: Text, first: str, stop: str) -> None:
        """Lines that find, for each vector that this thread will load, where it is, and up to which depth."""
        n, source = self.name, self.source
        bound = source.rows if self.along else source.columns
        for i in range(self.slots):
            w(f"e = uint32(t + uint32({i * self.threads}))")
            short, long = f"e // uint32({self.in_row})", f"e % uint32({self.in_row}) * uint32({self.vector})"
            w(f"{n}{i}_short = uint32({short})", f"{n}{i}_long = uint32({long})")
            depth, outer = ("long", "short") if self.along else ("short", "long")
            w(f"{n}{i}_depth = {n}{i}_{depth}", f"{n}{i}_outer = uint32({self.start} + {n}{i}_{outer})")
            w(f"{n}{i}_put = uint32({n}{i}_short * uint32({self.stride}) + {n}{i}_long)")
            inside = f"{n}{i}_outer < {bound}"
            if (i + 1) * self.threads > self.vectors:
                inside += f" and e < uint32({self.vectors})"
            w(f"{n}{i}_stop = {stop} if {inside} else uint32(0)")
            self._place(w, i, first)

    def _place(self, w: Text, i: int, first: str) -> None:
        n = self.name
        deep = f"uint32({first} + {n}{i}_depth)"
        if self.gathers:  # which sample it is must be known a round before it is loaded
            w(f"{n}{i}_at = uint64(0)")
            self._look_up(w, i, deep)
            return
        row, column = (f"{n}{i}_outer", deep) if self.along else (deep, f"{n}{i}_outer")
        if isinstance(self.source, Samples):
            row = f"min({row}, uint32({self.source.rows} - uint32(1)))"
        self.source.place(w, f"{n}{i}_at", row, column)

    def _look_up(self, w: Text, i: int, deep: str) -> None:
        n = self.name
        with w.block(f"if {deep} < {n}{i}_stop:"):
            self.source.place(w, f"{n}{i}_at", deep, f"{n}{i}_outer")

    def load(self, w: Text, base: str) -> None:
        """Lines that load this thread's vectors of the depth that begins at ``base``."""
        n = self.name
        for i in range(self.slots):
            deep = f"uint32({base} + {n}{i}_depth)"
            column = deep if self.along else f"{n}{i}_outer"
            self.source.load(w, self._values(i), f"{n}{i}_at", f"{deep} < {n}{i}_stop", column)
            if self.gathers:
                self._look_up(w, i, f"uint32({base} + {n}{i}_depth + uint32({self.depth}))")
            else:
                step = f"uint32({self.depth})" if self.along else f"uint32({self.depth}) * {self.source.by_rows()}"
                kind = "uint64" if isinstance(self.source, Samples) else "uint32"
                w(f"{n}{i}_at = {kind}({n}{i}_at + {step})")

    def put(self, w: Text, side: str) -> None:
        """Lines that store the loaded vectors into the half of shared memory that begins ``side`` elements on."""
        for i in range(self.slots):
            index = f"uint32({side} + {self.name}{i}_put + uint32({self.at}))"
            line = f"store_shared(pool, {index}, ({', '.join(self._values(i))}))"
            if (i + 1) * self.threads > self.vectors:
                with w.block(f"if uint32(t + uint32({i * self.threads})) < uint32({self.vectors}):"):
                    w(line)
            else:
                w(line)

    def add_up(self, w: Text, first: bool = False) -> None:
        """Lines that add what was loaded to this thread's sums over the depth (its gradient of the bias, say)."""
        for i in range(self.slots):
            for value in self._values(i):
                w(f"{value}_sum = {value}" if first else f"{value}_sum += {value}")

    def put_sums(self, w: Text) -> None:
        """Lines that lay out those sums in shared memory: [depth, outer]."""
        for i in range(self.slots):
            with w.block(f"if uint32(t + uint32({i * self.threads})) < uint32({self.vectors}):"):
                for j, value in enumerate(self._values(i)):
                    w(f"pool[uint32({self.name}{i}_short * uint32({self.outer}) + {self.name}{i}_long + uint32({j}))] "
                      f"= {value}_sum")  # fmt: skip


def padding(method: str, dtype: str, along: bool, long: int) -> int:
    """Elements after each row of a panel, so that lanes which read at once meet no bank twice.

    A thread's vectors lie a row apart along the depth: an odd number of vectors from row to row does it. Fragments of
    the tensor cores take four neighbours of eight rows (along the depth: 4 or 12 elements more than whole turns of the
    banks), or eight neighbours of four rows (8 more in float32, 4 in float64, whose lanes read in two halves).
    """
    if method == "fma":
        vector = VECTOR[dtype]
        return vector if along and long // vector % 2 == 0 else 0
    turn = 32 if dtype == "float32" else 16
    wanted = (4, 12, 20, 28) if along or dtype == "float64" else (8, 24)
    return next(p for p in range(0, turn + 1, VECTOR[dtype]) if (long + p) % turn in wanted)


@dataclass(frozen=True)
class Group:
    """Neighbouring sums that a thread holds: texts of their row and first column in the tile, and their names."""

    row: str
    column: str
    names: tuple[str, ...]


class Fma:
    """Sums in the registers of single threads: each loads vectors of both operands and multiplies all with all."""

    def __init__(self, tile: Tile, first: Panel, second: Panel) -> None:
        self.tile, self.first, self.second = tile, first, second

    def begin(self, w: Text) -> None:
        """Lines that find this thread's place in the tile, and set its sums to zero."""
        tile = self.tile
        w(f"tx = uint32(t % uint32({tile.across}))", f"ty = uint32(t // uint32({tile.across}))")
        w(f"holds = ty < uint32({tile.down})")
        with w.block("if not holds:"):  # threads beyond the tile repeat another's work
            w("ty = uint32(0)")
        self._origin(w, "first_at", self.first, "ty")
        self._origin(w, "second_at", self.second, "tx")
        for i in range(tile.micro_rows):
            w("; ".join(f"s{i}_{j} = zero" for j in range(tile.micro_columns)))

    def _origin(self, w: Text, name: str, panel: Panel, place: str) -> None:
        itemsize = ITEMSIZE[panel.source.dtype]
        step = panel.stride if panel.along else panel.vector
        w(f"{name} = uint32(pool_at + {place} * uint32({step * itemsize}))")

    def multiply(self, w: Text, side: str) -> None:
        """Lines that add the products of one depth; ``side`` as for `Panel.put`."""
        tile, vector = self.tile, self.first.vector
        moved = f"{side} * uint32({ITEMSIZE[self.first.source.dtype]})"
        w(f"first_now = uint32(first_at + {moved})", f"second_now = uint32(second_at + {moved})")
        for k in range(0, tile.depth, vector):
            self._load(w, "f", "first_now", self.first, tile.micro_rows, tile.down, k)
            self._load(w, "g", "second_now", self.second, tile.micro_columns, tile.across, k)
            for q in range(vector):
                for i in range(tile.micro_rows):
                    w("; ".join(f"s{i}_{j} += f{i}_{q} * g{j}_{q}" for j in range(tile.micro_columns)))

    def _load(self, w: Text, name: str, at: str, panel: Panel, micro: int, threads: int, k: int) -> None:
        """Lines that load the numbers of ``micro`` rows (or columns) and a vector's worth of depths: name{i}_{q}."""
        vector, itemsize = panel.vector, ITEMSIZE[panel.source.dtype]
        for i in range(vector if not panel.along else micro):
            if panel.along:
                offset = i * threads * panel.stride + k
                names = ", ".join(f"{name}{i}_{q}" for q in range(vector))
                w(f"{names} = load_at(pool, {at}, {(panel.at + offset) * itemsize})")
                continue
            for group in range(micro // vector):
                offset = (k + i) * panel.stride + group * vector * threads
                names = ", ".join(f"{name}{group * vector + q}_{i}" for q in range(vector))
                w(f"{names} = load_at(pool, {at}, {(panel.at + offset) * itemsize})")

    def _position(self, panel: Panel, place: str, threads: int, i: int) -> str:
        if panel.along:
            return f"uint32({place} + uint32({i * threads}))"
        vector = panel.vector
        return f"uint32({place} * uint32({vector}) + uint32({i // vector * vector * threads + i % vector}))"

    def groups(self) -> Iterator[Group]:
        """The sums that this thread holds."""
        tile, vector = self.tile, self.second.vector
        side_by_side = 1 if self.second.along else vector
        for i in range(tile.micro_rows):
            row = self._position(self.first, "ty", tile.down, i)
            for j in range(0, tile.micro_columns, side_by_side):
                column = self._position(self.second, "tx", tile.across, j)
                yield Group(row, column, tuple(f"s{i}_{j + q}" for q in range(side_by_side)))


def product(
    w: Text,
    tile: Tile,
    threads: int,
    first: tuple[Matrix | Samples, bool],
    second: tuple[Matrix | Samples, bool],
    depth: tuple[str, str],
    add_up: bool = False,
    tail: Callable[[Panel], None] | None = None,
) -> int:
    """Write the sums of one tile, left in shared memory: [rows, columns + a vector], `finish` reads them.

    The text uses ``t``, the thread's number; ``row0`` and ``column0``, the tile's place; ``pool`` and ``pool_at``, the
    block's shared memory and its address; ``zero``. It begins and ends with the block together: nobody reads the pool
    any more when it begins, and all may read the sums when it ends.

    Parameters
    ----------
    w : Text
    tile : Tile
    threads : int
        Of the block.
    first, second : (source, bool)
        The operands, and for each whether the depth runs along its rows.
    depth : (str, str)
        Texts of the first depth and of the one where it stops; names or constants.
    add_up : bool, default False
        Whether each thread also adds up what it loads of the first operand.
    tail : callable, optional
        Writes lines that use those sums; called with the first operand's panel.

    Returns
    -------
    int
        Elements of shared memory that it needs.
    """
    dtype = first[0].dtype
    a = Panel(_name("a", first[0]), *first, tile.rows, "row0", tile, threads, 0)
    b = Panel(_name("b", second[0]), *second, tile.columns, "column0", tile, threads, a.size)
    half = a.size + b.size
    summing = METHODS[tile.method](tile, a, b)
    start, stop = depth
    for panel in (a, b):
        panel.begin(w, start, stop)
    summing.begin(w)
    for panel in (a, b):
        panel.load(w, start)
    if add_up:
        a.add_up(w, first=True)
    w("side = uint32(0)")
    for panel in (a, b):
        panel.put(w, "side")
    w("cuda.syncthreads()")
    with w.each("k", start, stop, f"uint32({tile.depth})"):
        w(f"ahead = uint32(k + uint32({tile.depth}))")
        for panel in (a, b):
            panel.load(w, "ahead")
        summing.multiply(w, "side")
        if add_up:
            a.add_up(w)
        w(f"side = uint32(uint32({half}) - side)")
        for panel in (a, b):
            panel.put(w, "side")
        w("cuda.syncthreads()")
    if tail is not None:
        tail(a)
    _lay_out(w, tile, dtype, summing.groups())
    return max(2 * half, tile.rows * finish_stride(tile, dtype), tile.rows * tile.depth if add_up else 0)


def _name(name: str, source: Matrix | Samples) -> str:
    """What a panel's variables begin with; those of samples have other types, so they get another name."""
    return "x" if isinstance(source, Samples) else name


def finish_stride(tile: Tile, dtype: str) -> int:
    """Elements from one row of finished sums in shared memory to the next."""
    return tile.columns + VECTOR[dtype]


def _lay_out(w: Text, tile: Tile, dtype: str, groups: Iterator[Group]) -> None:
    """Lines that store the sums of each thread to shared memory, as rows."""
    stride = finish_stride(tile, dtype)
    with w.block("if holds:"):
        for group in groups:
            w(f"at = uint32({group.row} * uint32({stride}) + {group.column})")
            if len(group.names) == VECTOR[dtype]:
                w(f"store_shared(pool, at, ({', '.join(group.names)}))")
                continue
            for i, name in enumerate(group.names):
                w(f"pool[uint32(at + uint32({i}))] = {name}")
    w("cuda.syncthreads()")


def finish(
    w: Text, tile: Tile, dtype: str, threads: int, rows: str, columns: str, lines: Callable[[list[str]], None]
) -> None:
    """Write the loop over the vectors of a tile's sums.

    ``lines`` is called with the names of a vector's sums and writes what is done with it, at ``row`` and from
    ``column`` on; rows and columns beyond the bounds (texts) are left out, but for the rest of a vector. Afterwards
    the pool may be used again.
    """
    vector = VECTOR[dtype]
    in_row = tile.columns // vector
    names = [f"z{q}" for q in range(vector)]
    with w.each("e", "t", f"uint32({tile.rows * in_row})", f"uint32({threads})"):
        w(f"down = uint32(e // uint32({in_row}))", f"across = uint32(e % uint32({in_row}) * uint32({vector}))")
        w("row = uint32(row0 + down)", "column = uint32(column0 + across)")
        with w.block(f"if row < {rows} and column < {columns}:"):
            place = f"uint32(down * uint32({finish_stride(tile, dtype)}) + across)"
            w(f"{', '.join(names)} = load_shared(pool, {place})")
            lines(names)
    w("cuda.syncthreads()")


#: method -> class that writes the sums; `fastmlp.kernels.cuda.mma` enters those of the tensor cores.
METHODS: dict[str, type] = {"fma": Fma}
