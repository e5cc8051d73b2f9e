"""How the kernels of `fastmlp.kernels.cuda.phases` are laid out on a device: tiles, bands and splits, and what lies where.

The shapes of tiles are found by trying all that fit and taking the quickest by a model of a multiprocessor: what its
four schedulers issue and what its shared memory delivers, a depth at a time. The model counts cycles from the number of
instructions; nothing in it has been measured on a GPU.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np

from fastmlp.kernels.activations import CODES
from fastmlp.kernels.cuda import config
from fastmlp.kernels.cuda.phases import COLUMNS, Spec
from fastmlp.kernels.cuda.sums import ITEMSIZE, SHAPES, WARP, Tile, padding
from fastmlp.kernels.cuda.tile_ops import VECTOR
from fastmlp.kernels.cuda.tiles import finish_stride
from fastmlp.kernels.network import ALIGNMENT, N_IN, N_OUT, OFFSET, STRIDE, Network

#: The environment variable that says how exact products are in float32, and what it may say: "float32", or "tf32x3" for
#: three products on the tensor cores in place of one, whose errors are about as large (`fastmlp.kernels.cuda.mma`).
PRECISION_VARIABLE = "FASTMLP_CUDA_PRECISION"
PRECISIONS = {"float32": "fma", "tf32x3": "tf32x3"}

#: Indices in kernels are unsigned numbers of 32 bits.
MOST_ELEMENTS = 2**32 - 1


@dataclass(frozen=True)
class Shape:
    """What tiles are chosen for: how they are summed, the threads of a block, and the blocks of the grid."""

    method: str
    threads: int
    blocks: int


@dataclass(frozen=True)
class Plan:
    """A kernel and what a launch of it needs.

    Parameters
    ----------
    spec : Spec
    blocks : int
        Of the grid.
    table : tuple of tuple of int
        As `fastmlp.kernels.cuda.phases.COLUMNS` says.
    values, deltas, parts : int
        Elements of those arrays.
    """

    spec: Spec
    blocks: int
    table: tuple[tuple[int, ...], ...]
    values: int
    deltas: int
    parts: int


# ------------------------------------------------------------------------------------------------------------ tiles
def cycles(tile: Tile, dtype: str) -> float:
    """Cycles of a multiprocessor for one depth of a tile, by the model."""
    warps = -(-tile.threads // WARP)
    products = tile.micro_rows * tile.micro_columns
    if tile.method == "fma":
        vector = VECTOR[dtype]
        multiplying = products * ITEMSIZE[dtype] / 4  # float64 at half the rate (of the GPUs made for it)
        issued = multiplying + (tile.micro_rows + tile.micro_columns) / vector
        down = -(-WARP // (8 * tile.across))  # rounds of a load from shared memory, of 8 vectors each
        across = min(4, -(-tile.across // 8))
        lines = (tile.micro_rows * down + tile.micro_columns * across) / vector
    else:
        rows, columns, _ = SHAPES[tile.method]
        fragments = tile.micro_rows / rows + tile.micro_columns / columns
        loads = tile.micro_rows / 8 + tile.micro_columns / 8  # each of a warp, a 32-bit or 64-bit number a lane
        multiplying = products * config.MMA_CYCLES[tile.method]
        lines = loads / 4 * 2 * (ITEMSIZE[dtype] / 4)
        issued = max(multiplying, lines + fragments * (3 if tile.method == "tf32x3" else 0))
    return max(-(-warps // 4) * issued, warps * lines) + config.TILE_MEETING / tile.depth


def candidates(rows: int | None, columns: int, dtype: str, by_columns: bool, shape: Shape) -> Iterator[Tile]:
    """Tiles for products with so many columns; of so many rows, or of any number (None)."""
    vector, workers = VECTOR[dtype], shape.threads
    if shape.method == "fma":
        micros = [(4, 4), (4, 8), (8, 4), (8, 8)]
        if dtype == "float64":
            micros = [(2, 2), (2, 4), (4, 2), (4, 4), (8, 4), (4, 8)]
    else:
        unit_rows, unit_columns, _ = SHAPES[shape.method]
        micros = [(unit_rows * i, unit_columns * j) for i in (1, 2, 4) for j in range(1, 9)]
        workers //= WARP
    for micro_rows, micro_columns in micros:
        held = micro_rows * micro_columns // (1 if shape.method == "fma" else WARP)
        if held * ITEMSIZE[dtype] > config.TILE_SUM_BYTES or (rows and rows % micro_rows):
            continue
        widest = -(-columns // micro_columns)
        for across in sorted({min(widest, n) for n in (*range(1, 33), widest) if n <= workers}):
            for down in range(1, workers // across + 1) if rows is None else (rows // micro_rows,):
                if down * across > workers:
                    continue
                depth = config.TILE_DEPTH[dtype]
                tile = Tile(
                    down * micro_rows, across * micro_columns, depth, micro_rows, micro_columns, shape.method
                )
                vectors = tile.columns % vector == 0 and (not by_columns or tile.rows % vector == 0)
                if vectors and fits(tile, dtype):
                    yield tile


def fits(tile: Tile, dtype: str) -> bool:
    """Whether a tile's operands, and its sums, fit in the shared memory of a block."""
    along = (tile.rows + tile.columns) * (tile.depth + padding(tile.method, dtype, True, tile.depth))
    over = tile.depth * sum(n + padding(tile.method, dtype, False, n) for n in (tile.rows, tile.columns))
    return max(2 * max(along, over), tile.rows * finish_stride(tile, dtype)) * ITEMSIZE[dtype] <= config.TILE_SHARED


@lru_cache(maxsize=256)
def best_columns(rows: int, columns: int, dtype: str, shape: Shape) -> tuple[float, Tile | None]:
    """The tile of so many rows that is quickest through all columns, and the cycles for one depth of all."""
    found = [(inf, None)]
    found += [
        (-(-columns // tile.columns) * cycles(tile, dtype), tile)
        for tile in candidates(rows, columns, dtype, False, shape)
    ]
    return min(found, key=lambda pair: pair[0])


@lru_cache(maxsize=256)
def best_spread(rows: int, columns: int, dtype: str, shape: Shape) -> Tile:
    """The tile that is quickest through rows x columns, its tiles dealt out to all blocks."""

    def cost(tile: Tile) -> float:
        tiles = -(-rows // tile.rows) * -(-columns // tile.columns)
        return -(-tiles // shape.blocks) * cycles(tile, dtype)

    return min(candidates(None, columns, dtype, False, shape), key=cost)


@lru_cache(maxsize=256)
def best_gradient(n_out: int, n_in: int, dtype: str, shape: Shape) -> Tile:
    """The tile that is quickest through the gradients of a layer, split so that there are tiles for all blocks."""

    def cost(tile: Tile) -> float:
        tiles = -(-n_out // tile.rows) * -(-n_in // tile.columns)
        splits = max(1, shape.blocks // tiles)
        return -(-tiles * splits // shape.blocks) * cycles(tile, dtype) / splits

    return min(candidates(None, n_in, dtype, True, shape), key=cost)


# ------------------------------------------------------------------------------------------------------------ plans
def rows_of_bands(network: Network, batch: int, shape: Shape) -> int:
    """Rows of a band with which the batch is quickest through all layers."""

    def cost(rows: int) -> float:
        waves = -(--(-batch // rows) // shape.blocks)
        layers = zip(network.sizes, network.sizes[1:], strict=False)
        return waves * sum(n_in * best_columns(rows, n_out, network.dtype, shape)[0] for n_in, n_out in layers)

    least = 2 if shape.method == "fma" else SHAPES[shape.method][0]
    return min(range(least, config.TILE_ROWS + 1, least), key=cost)


def method_for(dtype: str) -> str:
    """How products are summed: in float32 as $FASTMLP_CUDA_PRECISION says.

    Raises
    ------
    ValueError
        If it says something unknown.
    """
    if dtype == "float64":
        return config.FLOAT64_METHOD
    asked = os.environ.get(PRECISION_VARIABLE, "float32")
    if asked not in PRECISIONS:
        raise ValueError(f"${PRECISION_VARIABLE}={asked!r}; expected {' or '.join(map(repr, PRECISIONS))}")
    return PRECISIONS[asked]


def plan(
    network: Network,
    job: str,
    batch: int,
    inputs: str,
    multiprocessors: int,
    *,
    rule: str = "",
    labels: bool = False,
    errors: bool = False,
    method: str = "fma",
    tiles: dict[str, Tile] | None = None,
    threads: int | None = None,
    bands: bool | None = None,
    lanes: int | None = None,
) -> Plan:
    """Lay out a job for a batch (for inference: all samples).

    Parameters
    ----------
    network : Network
    job, inputs, rule, labels, errors
        As for `fastmlp.kernels.cuda.phases.Spec`.
    batch : int
        Samples of the largest batch.
    multiprocessors : int
        Of the device.
    method : str, default "fma"
        As for `fastmlp.kernels.cuda.tiles.Tile`.
    tiles, threads, bands, lanes : optional
        In place of the plan's own choice, for tests.

    Raises
    ------
    ValueError
        If the arrays would be too large for the kernels' indices.
    """
    shape = Shape(method, threads or config.TILE_THREADS, multiprocessors * config.TILE_BLOCKS)
    rows = rows_of_bands(network, batch, shape)
    if bands is None:
        bands = -(-batch // rows) * config.BANDS_SHARE >= shape.blocks
    shapes = tiles or choose_tiles(network, batch, rows, bands, shape)
    spec = Spec(
        job=job,
        dtype=network.dtype,
        inputs=inputs,
        layers=min(network.layers, 3),
        hidden=tuple(sorted(set(network.activations[:-1]), key=lambda name: CODES[name])),
        output=network.activations[-1],
        loss=network.loss,
        bias=network.bias,
        l2=network.l2 > 0 and job in ("train", "gradient"),
        scaled=(network.input_scale, network.input_shift) != (1.0, 0.0),
        whole=whole_rows(network, inputs),
        labels=labels,
        errors=errors,
        rule=rule,
        bands=bands,
        one_tile=network.sizes[-1] <= shapes["last"].columns,
        lanes=lanes or lanes_for(network.sizes[-1], shape.threads),
        threads=shape.threads,
        blocks=config.TILE_BLOCKS,
        **shapes,
    )
    return arrange(spec, network, batch, shape.blocks)


def lanes_for(n_out: int, threads: int) -> int:
    """Threads for each row of outputs: about one for each four outputs, a power of two, no more than a warp."""
    return min(32, threads & -threads, 1 << (-(-n_out // 4) - 1).bit_length())


def whole_rows(network: Network, inputs: str) -> bool:
    """Whether samples can be loaded by whole vectors: rows of whole vectors, of a dtype for which there is such a load."""
    direct = inputs == network.dtype or (inputs == "uint8" and network.dtype == "float32")
    return direct and network.sizes[0] % VECTOR[inputs] == 0


def choose_tiles(network: Network, batch: int, rows: int, bands: bool, shape: Shape) -> dict[str, Tile]:
    """The tiles of each kind of product."""
    dtype, sizes = network.dtype, network.sizes
    pairs = list(zip(sizes, sizes[1:], strict=False))
    inner = max(pairs[1:-1], default=pairs[-1], key=lambda pair: pair[0] * pair[1])
    upper = max(pairs[1:], default=pairs[-1], key=lambda pair: pair[0] * pair[1])

    def forward(columns: int) -> Tile:
        if not bands:
            return best_spread(batch, columns, dtype, shape)
        tile = best_columns(rows, columns, dtype, shape)[1]
        assert tile is not None
        return tile

    return {
        "first": forward(pairs[0][1]),
        "inner": forward(inner[1]),
        "last": forward(pairs[-1][1]),
        "delta": forward(upper[0]),
        "gradient_first": best_gradient(pairs[0][1], pairs[0][0], dtype, shape),
        "gradient": best_gradient(upper[1], upper[0], dtype, shape),
    }


def arrange(spec: Spec, network: Network, batch: int, blocks: int) -> Plan:
    """Say where everything lies."""
    rows = batch if spec.learns or not spec.bands else min(blocks, -(-batch // spec.last.rows)) * spec.last.rows
    if spec.bands and not spec.learns:
        blocks = min(blocks, -(-batch // spec.last.rows))
    splits = splits_of(spec, network, batch, blocks) if spec.learns else [1] * network.layers
    block = ALIGNMENT // ITEMSIZE[spec.dtype]
    padded = [-(-size // block) * block for size in network.sizes]
    table = [dict.fromkeys(COLUMNS, 0) for _ in range(network.layers)]
    values = deltas = result = 0
    for layer, (entry, layout) in enumerate(zip(table, network.table.tolist(), strict=True)):
        entry.update(n_in=layout[N_IN], n_out=layout[N_OUT], weights=layout[OFFSET], weights_stride=layout[STRIDE])
        entry.update(code=CODES[network.activations[layer]], splits=splits[layer], result=result)
        result += batch * layout[N_OUT]
        if layer:
            before = table[layer - 1]
            entry.update(below=before["above"], below_stride=before["above_stride"])
            entry.update(delta_below=before["delta"], delta_below_stride=before["delta_stride"])
        width = padded[layer + 1]
        if layer < network.layers - 1:
            entry.update(above=values, above_stride=width)
            values += rows * width
        if spec.learns or layer == network.layers - 1:
            entry.update(delta=deltas, delta_stride=width)
            deltas += rows * width
    parts = max(splits) * network.size if spec.learns else 0
    for what, size in (("values", values), ("deltas", deltas), ("parts", parts), ("results", result)):
        if size > MOST_ELEMENTS:
            raise ValueError(
                f"{batch} samples at once of a network of sizes {list(network.sizes)}: {size} numbers ({what}); "
                f"the CUDA kernels count up to {MOST_ELEMENTS}; use smaller batches"
            )
    return Plan(spec, blocks, tuple(tuple(entry.values()) for entry in table), values, deltas, parts)


def splits_of(spec: Spec, network: Network, batch: int, blocks: int) -> list[int]:
    """Parts of the batch for the gradients of each layer: tiles for all blocks, dealt out by how long they take."""
    tiles, work = [], []
    for layer, (n_in, n_out) in enumerate(zip(network.sizes, network.sizes[1:], strict=False)):
        tile = spec.gradient if layer else spec.gradient_first
        tiles.append(-(-n_out // tile.rows) * -(-n_in // tile.columns))
        work.append(tiles[-1] * cycles(tile, spec.dtype))
    splits = []
    for n, cost in zip(tiles, work, strict=True):
        wanted = int(blocks * cost / sum(work) / n)
        most = -(-batch // (config.SPLIT_DEPTHS * spec.gradient.depth))
        splits.append(max(1, min(wanted, most, MOST_ELEMENTS // network.size)))
    return splits
