"""Tiles as large as real plans have: each thread multiplies what it should, and stores it where it should."""

import numpy as np
import pytest
from problems import DTYPES
from test_large import check_course, laid_out

from fastmlp.kernels import Network, Rule
from fastmlp.kernels.cuda import large_plan
from fastmlp.kernels.cuda.sums import ITEMSIZE, MULTIPLY, SHAPES, Place, Tile, fragments, lay_out_sums, split
from fastmlp.kernels.cuda.tile_ops import VECTOR
from fastmlp.kernels.cuda.tiles import Matrix, Panel, Text, begin_sums, finish_stride


class Traced:
    """A machine whose numbers are places. A sum is (row, column, which depths it has): digits, in base 8, how often."""

    zero = None

    def __init__(self, tile, dtype, panels, starts, lane):
        self.tile, self.vector, self.panels, self.starts, self.lane = tile, VECTOR[dtype], panels, starts, lane
        self.stored = {}

    def _place(self, operand, element):
        panel = self.panels[operand]
        short, long = divmod(self.starts[operand] + element - panel.at, panel.stride)
        outer, depth = (short, long) if panel.along else (long, short)
        assert 0 <= outer < panel.outer, "a row or column outside the tile"
        assert 0 <= depth < self.tile.depth, "a depth outside the tile"
        return outer, depth

    def load(self, operand, element):
        assert (self.starts[operand] + element) % self.vector == 0, "a vector off its boundary"
        return [self._place(operand, element + q) for q in range(self.vector)]

    def load_one(self, operand, element):
        return self._place(operand, element)

    def split(self, x):
        return (*x, "big"), (*x, "small")

    def fma(self, a, b, c):
        assert a[1] == b[1], "products of different depths"
        return self.add((a[0], b[0], 8 ** a[1]), c)

    def add(self, a, b):
        if a is None or b is None:
            return a or b
        assert a[:2] == b[:2], "products of different places"
        return a[0], a[1], a[2] + b[2]

    def mma(self, method, a, b, c):
        """What this lane brings must be its part of one product, at one place of the tile."""
        rows, columns, sums = fragments(method, self.lane)
        corners = {(x[0] - row, x[1] - depth) for x, (row, depth) in zip(a, rows, strict=True)}
        others = {(y[0] - column, y[1] - depth) for y, (depth, column) in zip(b, columns, strict=True)}
        ((row, k),), ((column, same),) = corners, others
        assert k == same, "products of different depths"
        assert {a[0][2:], b[0][2:]} != {("small",)}
        depths = sum(8 ** (k + d) for d in range(SHAPES[method][2]))
        return [self.add((row + i, column + j, depths), part) for part, (i, j) in zip(c, sums, strict=True)]

    def store(self, element, values):
        place = self.starts[2] + element
        assert place % len(values) == 0, "a vector off its boundary"
        for q, value in enumerate(values):
            assert place + q not in self.stored
            self.stored[place + q] = value


def operand(tile, dtype, name, along, outer, at):
    source = Matrix("A", "uint32(0)", "stride", "rows", "columns", dtype)
    return Panel(name, source, along, outer, "row0", tile, 256, at)


def check_tile(tile: Tile, dtype: str, first: bool, second: bool) -> None:
    a = operand(tile, dtype, "a", first, tile.rows, 0)
    b = operand(tile, dtype, "b", second, tile.columns, a.size)
    text, stride = Text(), finish_stride(tile, dtype)
    begin_sums(text, tile, a, b, stride)
    program = compile(str(text), "begin_sums", "exec")
    places = [Place(panel.along, panel.at, panel.stride) for panel in (a, b)]
    found = {}
    for thread in range(256):
        names = {"t": thread, "pool_at": 0, "uint32": int}
        exec(program, names)
        assert bool(names["holds"]) == (thread < tile.threads)
        if not names["holds"]:
            continue
        starts = [names[name] // ITEMSIZE[dtype] for name in ("first_at", "second_at", "sums_at")]
        m = Traced(tile, dtype, (a, b), starts, thread % 32)
        sums = MULTIPLY[tile.method](m, tile, *places, [None] * tile.held)
        m.stored.clear()
        lay_out_sums(m, tile, *places, stride, sums)
        assert not m.stored.keys() & found.keys()
        found.update(m.stored)
    assert len(found) == tile.rows * tile.columns
    times = 3 if tile.method == "tf32x3" else 1
    depths = times * sum(8**d for d in range(tile.depth))
    for place, held in found.items():
        assert held == (*divmod(place, stride), depths)


def tiles_of_plans(dtype: str, method: str) -> set[tuple[Tile, bool, bool]]:
    found = set()
    for sizes, batch in (((784, 100, 10), 10_000), ((784, 300, 120, 10), 3000), ((7, 33, 3), 300)):
        network = Network.build(sizes, dtype=dtype)
        spec = large_plan.plan(network, "train", batch, "uint8", 132, rule="plain", labels=True, method=method).spec
        found |= {(spec.first, True, True), (spec.inner, True, True), (spec.last, True, True)}
        found |= {(spec.delta, True, False), (spec.gradient_first, False, False), (spec.gradient, False, False)}
    return found


@pytest.mark.parametrize(
    ("dtype", "method"), [("float32", "fma"), ("float64", "fma"), ("float32", "tf32x3"), ("float64", "mma")]
)
def test_tiles_of_real_plans(dtype, method):
    """Each sum of the tile gets each of its products once, from whoever is its thread or warp."""
    for tile, first, second in tiles_of_plans(dtype, method):
        check_tile(tile, dtype, first, second)


def tensor_tiles(dtype: str) -> dict[str, Tile]:
    """Small tiles on the tensor cores; two warps side by side, or one below another."""
    if dtype == "float32":
        wide, tall = Tile(16, 16, 8, 16, 8, "tf32x3"), Tile(32, 8, 16, 16, 8, "tf32x3")
    else:
        wide, tall = Tile(8, 16, 8, 8, 8, "mma"), Tile(16, 8, 4, 8, 8, "mma")
    named = dict.fromkeys(("first", "inner", "last", "delta"), wide)
    return {**named, "gradient_first": tall, "gradient": wide}


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensor_cores(dtype):
    """Within the tolerance that the ordinary float32 or float64 has."""
    with laid_out(bands=True, blocks=2, tiles=tensor_tiles(dtype), threads=64):
        check_course(Network.build((10, 9, 3), "tanh", dtype=dtype), Rule("plain", 0.2), n=9, batch=9)


def test_two_numbers_of_tf32_are_nearly_a_float32():
    rng = np.random.default_rng(0)
    for x in (rng.standard_normal(1000) * 10.0 ** rng.integers(-20, 20, 1000)).astype(np.float32):
        big, small = split(x)
        assert abs(np.float64(x) - big - small) <= 2.0**-22 * abs(np.float64(x))
        assert not (big.view(np.uint32) | small.view(np.uint32)) & 0x1FFF


def test_the_precision_is_chosen_by_a_variable(monkeypatch):
    assert large_plan.method_for("float32") == "fma"
    monkeypatch.setenv("FASTMLP_CUDA_PRECISION", "tf32x3")
    assert large_plan.method_for("float32") == "tf32x3"
    monkeypatch.setenv("FASTMLP_CUDA_PRECISION", "tf32")
    with pytest.raises(ValueError, match="expected 'float32' or 'tf32x3'"):
        large_plan.method_for("float32")
