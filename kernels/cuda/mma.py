"""Sums of tiles on the tensor cores: by warps, with the fragments that `fastmlp.kernels.cuda.tile_ops` describes.

Three-term TF32 ("tf32x3") gives float32 products nearly float32's accuracy. Each number is split into two of TF32,
x = big + small + what is below 2⁻²² of it, and

    x y ≈ small big' + big small' + big big'

The tensor cores add with fewer bits and towards zero, so they add up no more than one depth of a tile; from depth to
depth the sums go on in float32, rounded to nearest. What float32 can't hold does not come out as in float32: infinity
times anything is NaN, as its small part is. Source: Ootomo and Yokota, "Recovering single precision accuracy from
Tensor Cores while surpassing the FP32 theoretical peak performance", 2022.

In float64 ("mma") the tensor cores multiply and add as the ordinary units do.
"""

from collections.abc import Iterator

from fastmlp.kernels.cuda.tiles import ITEMSIZE, METHODS, WARP, Group, Panel, Text, Tile

#: method -> rows, columns and depth of what the tensor cores multiply at once.
SHAPES = {"tf32x3": (16, 8, 8), "mma": (8, 8, 4)}


class Mma:
    """Sums in the registers of warps; the fragments' parts are loaded one by one."""

    def __init__(self, tile: Tile, first: Panel, second: Panel) -> None:
        self.tile, self.first, self.second = tile, first, second
        self.rows, self.columns, self.depth = SHAPES[tile.method]
        if tile.micro_rows % self.rows or tile.micro_columns % self.columns or tile.depth % self.depth:
            raise ValueError(f"{tile}: expected whole products of {self.rows} x {self.columns}, depth {self.depth}")
        self.down, self.across = tile.micro_rows // self.rows, tile.micro_columns // self.columns

    def begin(self, w: Text) -> None:
        """Lines that find this warp's and lane's place in the tile, and set the sums to zero."""
        tile = self.tile
        w(f"wx = uint32(t // uint32({WARP}) % uint32({tile.across}))")
        w(f"wy = uint32(t // uint32({WARP * tile.across}))", f"holds = wy < uint32({tile.down})")
        with w.block("if not holds:"):  # warps beyond the tile repeat another's work
            w("wy = uint32(0)")
        w(f"g = uint32(t % uint32({WARP}) // uint32(4))", "q = uint32(t % uint32(4))")
        self._origin(w, "first_at", self.first, f"wy * uint32({tile.micro_rows}) + g")
        self._origin(w, "second_at", self.second, f"wx * uint32({tile.micro_columns}) + g")
        for i, j in self._products():
            w("; ".join(f"{name} = zero" for name in self._sums(i, j)))

    def _origin(self, w: Text, name: str, panel: Panel, outer: str) -> None:
        """Lines that find the element of the first fragment that is this lane's, at its first depth."""
        element = f"({outer}) * uint32({panel.stride}) + q" if panel.along else f"q * uint32({panel.stride}) + ({outer})"
        w(f"{name} = uint32(pool_at + ({element}) * uint32({ITEMSIZE[panel.source.dtype]}))")

    def _products(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for i in range(self.down) for j in range(self.across))

    def _sums(self, i: int, j: int) -> list[str]:
        return [f"s{i}_{j}_{n}" for n in range(self.rows * self.columns // WARP)]

    def _load(self, w: Text, name: str, at: str, panel: Panel, outer: int, depth: int) -> None:
        """A line that loads an element, so far from the first fragment's."""
        element = outer * panel.stride + depth if panel.along else depth * panel.stride + outer
        w(f"{name} = load_one_at(pool, {at}, {(panel.at + element) * ITEMSIZE[panel.source.dtype]})")

    def multiply(self, w: Text, side: str) -> None:
        """Lines that add the products of one depth of the tile."""
        moved = f"{side} * uint32({ITEMSIZE[self.first.source.dtype]})"
        w(f"first_now = uint32(first_at + {moved})", f"second_now = uint32(second_at + {moved})")
        (self._multiply_tf32 if self.tile.method == "tf32x3" else self._multiply_float64)(w)

    def _multiply_float64(self, w: Text) -> None:
        for k in range(0, self.tile.depth, self.depth):
            for i in range(self.down):
                self._load(w, f"f{i}", "first_now", self.first, i * self.rows, k)
            for j in range(self.across):
                self._load(w, f"h{j}", "second_now", self.second, j * self.columns, k)
            for i, j in self._products():
                sums = ", ".join(self._sums(i, j))
                w(f"{sums} = mma_float64(f{i}, h{j}, {sums})")

    def _multiply_tf32(self, w: Text) -> None:
        steps = range(0, self.tile.depth, self.depth)
        for k in steps:
            for i in range(self.down):
                for n, (row, depth) in enumerate(((0, 0), (8, 0), (0, 4), (8, 4))):
                    self._split(w, f"f{i}_{k}_{n}", "first_now", self.first, i * self.rows + row, k + depth)
            for j in range(self.across):
                for n, depth in enumerate((0, 4)):
                    self._split(w, f"h{j}_{k}_{n}", "second_now", self.second, j * self.columns, k + depth)
        for i, j in self._products():
            parts = [f"p{n}" for n in range(4)]
            w("; ".join(f"{name} = zero" for name in parts))
            for first, second in (("small", "big"), ("big", "small"), ("big", "big")):
                for k in steps:
                    a = ", ".join(f"f{i}_{k}_{n}_{first}" for n in range(4))
                    b = ", ".join(f"h{j}_{k}_{n}_{second}" for n in range(2))
                    w(f"{', '.join(parts)} = mma_tf32({a}, {b}, {', '.join(parts)})")
            w("; ".join(f"{name} += {part}" for name, part in zip(self._sums(i, j), parts, strict=True)))

    def _split(self, w: Text, name: str, at: str, panel: Panel, outer: int, depth: int) -> None:
        """Lines that load a number and split it into two of TF32."""
        self._load(w, "x", at, panel, outer, depth)
        w(f"{name}_big = tf32(x)", f"{name}_small = tf32(x - {name}_big)")

    def groups(self) -> Iterator[Group]:
        """The sums that this lane holds."""
        tile = self.tile
        for i, j in self._products():
            column = f"uint32(wx * uint32({tile.micro_columns}) + q * uint32(2) + uint32({j * self.columns}))"
            names = self._sums(i, j)
            for n in range(0, len(names), 2):
                down = i * self.rows + 4 * n
                row = f"uint32(wy * uint32({tile.micro_rows}) + g + uint32({down}))"
                yield Group(row, column, tuple(names[n : n + 2]))


METHODS.update({"tf32x3": Mma, "mma": Mma})
