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

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastmlp.kernels.cuda import generate
from fastmlp.kernels.cuda.sums import ITEMSIZE, WARP, Place, Tile, padding
from fastmlp.kernels.cuda.tile_ops import LOAD_IF, VECTOR


class Text(generate.Text):
    """Lines of a kernel, with loops over unsigned numbers, and the lines that its module has before it."""

    def __init__(self, imports: str = "") -> None:
        super().__init__()
        self.imports = imports
        self.before: dict[str, list[str]] = {}
        self.functions: list[list[str]] = []

    def _known(self) -> set[str]:
        """Names that every function of the module knows."""
        imported = [name.name for node in ast.parse(self.imports).body for name in getattr(node, "names", [])]
        return {"min", *imported, *(name for names in self.before.values() for name in names)}

    def outside(self, expression: str, *names: str) -> list[str]:
        """Names, numbered, for what an expression gives; it is evaluated once, in the module."""
        number = len(self.before)
        return self.before.setdefault(expression, [f"{name}_{number}" for name in names])

    @contextmanager
    def function(self, name: str, *changed: str) -> Iterator[None]:
        """Lines that become a function of their own, called where they would stand.

        It takes what they use from the kernel, and gives back, of the names given, those that they assign; whatever
        else they assign is theirs alone. Numba reads a kernel of many short functions much quicker than one of many
        lines. They are inlined.
        """
        first, kept = len(self.lines), self._depth
        self._depth = 0
        yield
        self._depth, inside = kept, self.lines[first:]
        del self.lines[first:]
        assigned, taken = names_in("\n".join(inside))
        given = [one for one in changed if one in assigned]
        parameters = ", ".join(sorted({*(taken - assigned - self._known()), *(set(given) & taken)}))
        full = f"{name}_{len(self.functions)}"
        text = ["@device", f"def {full}({parameters}):", *("    " + line for line in inside)]
        self.functions.append([*text, f"    return {', '.join(given)}"] if given else text)
        self(f"{', '.join(given)} = {full}({parameters})" if given else f"{full}({parameters})")

    def module(self) -> str:
        """The whole text: imports, what is made outside, whole numbers by names, functions, and the lines."""
        constants: dict[str, str] = {}

        def named(match: re.Match) -> str:
            return constants.setdefault(match[0], f"U{match[1]}")

        parts = [
            [re.sub(r"\buint32\((0x[0-9a-f]+|\d+)\)", named, line) for line in part]
            for part in (*self.functions, self.lines)
        ]
        made = [f"{', '.join(names)} = {expression}" for expression, names in self.before.items()]
        numbers = [f"{name} = {text}" for text, name in constants.items()]
        return "\n".join([self.imports, *made, *numbers, *(line for part in parts for line in ("", "", *part))]) + "\n"

    def each(self, name: str, first: str, stop: str, step: str):
        """A loop over unsigned numbers from ``first``."""
        self(f"{name} = uint32({first})")
        return self._loop(f"while {name} < {stop}:", f"{name} = uint32({name} + {step})")

    def counting_down(self, name: str, above: str, least: str):
        """A loop over unsigned numbers from one below ``above`` down to ``least``."""
        self(f"{name} = uint32({above})")
        return self._loop(f"while {name} > {least}:", None, f"{name} = uint32({name} - uint32(1))")

    @contextmanager
    def _loop(self, head: str, last: str | None, begins: str | None = None) -> Iterator[None]:
        with self.block(head):
            if begins:
                self(begins)
            yield
            if last:
                self(last)


def names_in(text: str) -> tuple[set[str], set[str]]:
    """The names that a text assigns, and those that it reads."""
    assigned: set[str] = set()
    taken: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            taken.add(node.target.id)
        if isinstance(node, ast.Name):
            (taken if isinstance(node.ctx, ast.Load) else assigned).add(node.id)
    return assigned, taken


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
        w(f"{', '.join(names)} = {LOAD_IF[self.dtype]}({self.array}, {at}, {valid})")

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
            w(f"{', '.join(names)} = {LOAD_IF[self.dtype]}(X, {at}, {valid})")
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
        self.stride, self.size = (
            panel_stride(tile, source.dtype, along, outer),
            panel_size(tile, source.dtype, along, outer),
        )
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


def panel_stride(tile: Tile, dtype: str, along: bool, outer: int) -> int:
    """Elements from row to row of an operand in shared memory."""
    long = tile.depth if along else outer
    return long + padding(tile.method, dtype, along, long)


def panel_size(tile: Tile, dtype: str, along: bool, outer: int) -> int:
    """Elements of an operand in shared memory."""
    return (outer if along else tile.depth) * panel_stride(tile, dtype, along, outer)


def shared_size(tile: Tile, dtype: str, first: bool, second: bool) -> int:
    """Elements of shared memory that a product needs; whether the depth runs along the rows of its operands is given.

    Both operands lie there twice; later the finished sums do, or what was added up of the first operand.
    """
    operands = panel_size(tile, dtype, first, tile.rows) + panel_size(tile, dtype, second, tile.columns)
    return max(2 * operands, tile.rows * finish_stride(tile, dtype), tile.rows * tile.depth)


def begin_sums(w: Text, tile: Tile, first: Panel, second: Panel, stride: int) -> None:
    """Lines that find this thread's place in the tile, the addresses of what it reads and writes, and set ``holds``.

    Threads (or warps) beyond the tile hold nothing, and only help with loading.
    """
    itemsize = ITEMSIZE[first.source.dtype]
    worker = "t" if tile.method == "fma" else f"t // uint32({WARP})"
    w(f"tx = uint32({worker} % uint32({tile.across}))", f"ty = uint32({worker} // uint32({tile.across}))")
    w(f"holds = ty < uint32({tile.down})", "ty = ty if holds else uint32(0)")
    if tile.method == "fma":
        rows = "ty" if first.along else f"ty * uint32({first.vector})"
        columns = "tx" if second.along else f"tx * uint32({second.vector})"
        depth, column = "uint32(0)", columns
    else:
        w(f"g = uint32(t % uint32({WARP}) // uint32(4))", "depth = uint32(t % uint32(4))")
        rows, columns = f"(ty * uint32({tile.micro_rows}) + g)", f"(tx * uint32({tile.micro_columns}) + g)"
        depth, column = "depth", f"tx * uint32({tile.micro_columns}) + depth * uint32(2)"
    for name, panel, outer in (("first_at", first, rows), ("second_at", second, columns)):
        short, long = (outer, depth) if panel.along else (depth, outer)
        w(f"{name} = uint32(pool_at + ({short} * uint32({panel.stride}) + {long}) * uint32({itemsize}))")
    w(f"sums_at = uint32(pool_at + ({rows} * uint32({stride}) + {column}) * uint32({itemsize}))")


def product(
    w: Text,
    tile: Tile,
    threads: int,
    first: tuple[Matrix | Samples, bool],
    second: tuple[Matrix | Samples, bool],
    depth: tuple[str, str],
    add_up: bool = False,
    tail: Callable[[Panel], None] | None = None,
) -> None:
    """Write the sums of one tile, left in shared memory: [rows, columns + a vector], `finish` reads them.

    The text uses ``thread``, the thread's number, and leaves it in ``t``; ``row0`` and ``column0``, the tile's place;
    ``pool`` and ``pool_at``, the block's shared memory and its address; ``zero``. It begins and ends with the block
    together: nobody reads the pool any more when it begins, and all may read the sums when it ends.

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
    """
    dtype = first[0].dtype
    a = Panel("a", *first, tile.rows, "row0", tile, threads, 0)
    b = Panel("b", *second, tile.columns, "column0", tile, threads, a.size)
    half, stride = a.size + b.size, finish_stride(tile, dtype)
    places = [Place(panel.along, panel.at, panel.stride) for panel in (a, b)]
    zeros, multiply, lay_out = w.outside(
        f"summing({tile}, {dtype!r}, {places[0]}, {places[1]}, {stride})", "zeros", "multiply", "lay_out"
    )
    start, stop = depth
    w("t = forget(thread)")
    for panel in (a, b):
        panel.begin(w, start, stop)
    begin_sums(w, tile, a, b, stride)
    w(f"held = {zeros}()")
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
        moved = f"side * uint32({ITEMSIZE[dtype]})"
        with w.block("if holds:"):
            w(f"held = {multiply}(pool, uint32(first_at + {moved}), uint32(second_at + {moved}), held)")
        if add_up:
            a.add_up(w)
        w(f"side = uint32(uint32({half}) - side)")
        for panel in (a, b):
            panel.put(w, "side")
        w("cuda.syncthreads()")
    if tail is not None:
        tail(a)
    with w.block("if holds:"):
        w(f"{lay_out}(pool, sums_at, held)")
    w("cuda.syncthreads()")


def finish_stride(tile: Tile, dtype: str) -> int:
    """Elements from one row of finished sums in shared memory to the next."""
    return tile.columns + VECTOR[dtype]


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
