"""How the kernels of `fastmlp.kernels.cuda.phases` are laid out on a device: tiles, bands, splits, what lies where.

The shapes of tiles are found by trying all that fit and taking the quickest by a model of a multiprocessor: what its
four schedulers issue and what its shared memory delivers, a depth at a time. The model counts cycles from the number of
instructions; nothing in it has been measured on a GPU.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import ceil, inf

import numpy as np

from fastmlp.kernels.activations import CODES
from fastmlp.kernels.cuda import config
from fastmlp.kernels.cuda.phases import COLUMNS, Spec
from fastmlp.kernels.cuda.sums import ITEMSIZE, SHAPES, WARP, Tile
from fastmlp.kernels.cuda.tile_ops import VECTOR
from fastmlp.kernels.cuda.tiles import shared_size
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
def cycles(tile: Tile, dtype: str, depth: int) -> float:
    """Cycles of a multiprocessor for a tile of so many products a sum, by the model.

    A round (one depth of the tile) takes as long as the slowest of: what the schedulers issue, what shared memory
    delivers, what the second-level cache delivers, and one trip to that cache, since one round is loaded ahead.
    """
    warps, itemsize = -(-tile.threads // WARP), ITEMSIZE[dtype]
    products = tile.micro_rows * tile.micro_columns
    if tile.method == "fma":
        vector = VECTOR[dtype]
        multiplying = products * itemsize / 4  # float64 at half the rate (of the GPUs made for it)
        issued = multiplying + (tile.micro_rows + tile.micro_columns) / vector
        down = -(-WARP // (8 * tile.across))  # rounds of a load from shared memory, of 8 vectors each
        across = min(4, -(-tile.across // 8))
        lines = (tile.micro_rows * down + tile.micro_columns * across) / vector
    else:
        loads = (tile.micro_rows + tile.micro_columns) / 32 * itemsize / 4  # a number a lane, for each depth
        splitting = 4 * loads if tile.method == "tf32x3" else 0
        lines, issued = loads, max(products * config.MMA_CYCLES[tile.method], loads + splitting)
    loading = (tile.rows + tile.columns) * itemsize / config.CACHE_BYTES
    alone = config.ALONE if warps <= 4 else 1  # nobody goes on while a scheduler's only warp waits
    issued = alone * -(-warps // 4) * issued + (tile.rows + tile.columns) * config.LOAD_CYCLES
    one = max(tile.depth * max(issued, warps * lines, loading), config.CACHE_CYCLES) + config.TILE_MEETING
    return -(-depth // tile.depth) * one + tile.rows * tile.columns * config.FINISH_CYCLES


def candidates(
    rows: int, columns: int, dtype: str, shape: Shape, *, exactly: bool = False, by_columns: bool = False
) -> Iterator[Tile]:
    """Tiles for products of rows x columns: as many rows and columns as go into them a few times.

    Parameters
    ----------
    rows, columns : int
    dtype : str
    shape : Shape
    exactly : bool, default False
        Whether a tile has just so many rows.
    by_columns : bool, default False
        Whether the first operand goes by columns, so that rows must be whole vectors.
    """
    vector, workers = VECTOR[dtype], shape.threads // (1 if shape.method == "fma" else WARP)
    for micro_rows, micro_columns in micros(dtype, shape.method):
        if exactly and rows % micro_rows:
            continue
        for across in parts_of(-(-columns // micro_columns), workers):
            tall = workers // across
            downs = (rows // micro_rows,) if exactly else {tall, *parts_of(-(-rows // micro_rows), tall)}
            for down, depth in product(downs, config.TILE_DEPTHS[dtype]):
                if down > tall or (across * micro_columns) % vector or (by_columns and down * micro_rows % vector):
                    continue
                tile = Tile(down * micro_rows, across * micro_columns, depth, micro_rows, micro_columns, shape.method)
                if fits(tile, dtype, shape.threads):
                    yield tile


def parts_of(n: int, most: int) -> set[int]:
    """What n is cut into by a few cuts, as far as it is no more than ``most``; and a few smaller numbers."""
    least = -(-n // most)
    return {-(-n // parts) for parts in range(least, least + 8)} | {i for i in (4, 8, 16, 32) if i <= min(n, most)}


@lru_cache(maxsize=8)
def micros(dtype: str, method: str) -> list[tuple[int, int]]:
    """What a thread, or a warp, may hold."""
    if method == "fma":
        sides = (4, 8) if dtype == "float32" else (2, 4, 8)
        held, lanes = [(i, j) for i in sides for j in sides], 1
    else:
        rows, columns, _ = SHAPES[method]
        held, lanes = [(rows * i, columns * j) for i in (1, 2, 4) for j in range(1, 9)], WARP
    return [(i, j) for i, j in held if i * j * ITEMSIZE[dtype] <= config.TILE_SUM_BYTES * lanes]


def fits(tile: Tile, dtype: str, threads: int) -> bool:
    """Whether a block has shared memory, and a thread registers, for a tile, however its operands come."""
    most = max(shared_size(tile, dtype, first, second) for first in (True, False) for second in (True, False))
    vectors = [-(-n * tile.depth // (VECTOR[dtype] * threads)) for n in (tile.rows, tile.columns)]
    registers = tile.held * ITEMSIZE[dtype] // 4 + config.LOAD_REGISTERS * sum(vectors)
    return most * ITEMSIZE[dtype] <= config.TILE_SHARED and registers <= config.TILE_REGISTERS[dtype]


@lru_cache(maxsize=1024)
def best_columns(rows: int, columns: int, depth: int, dtype: str, shape: Shape) -> tuple[float, Tile | None]:
    """The tile of so many rows that is quickest through all columns, and the cycles for all of them."""
    found: list[tuple[float, Tile | None]] = [(inf, None)]
    found += [
        (-(-columns // tile.columns) * cycles(tile, dtype, depth), tile)
        for tile in candidates(rows, columns, dtype, shape, exactly=True)
    ]
    return min(found, key=lambda pair: pair[0])


@lru_cache(maxsize=256)
def best_spread(rows: int, columns: int, depth: int, dtype: str, shape: Shape) -> tuple[float, Tile]:
    """The tile that is quickest through rows x columns, its tiles dealt out to all blocks, and its cycles."""

    def cost(tile: Tile) -> float:
        tiles = -(-rows // tile.rows) * -(-columns // tile.columns)
        return -(-tiles // shape.blocks) * cycles(tile, dtype, depth)

    return min(((cost(tile), tile) for tile in candidates(rows, columns, dtype, shape)), key=lambda pair: pair[0])


@lru_cache(maxsize=256)
def best_gradient(n_out: int, n_in: int, batch: int, dtype: str, shape: Shape) -> Tile:
    """The tile that is quickest through the gradients of a layer, split so that there are tiles for all blocks."""

    def cost(tile: Tile) -> float:
        tiles = -(-n_out // tile.rows) * -(-n_in // tile.columns)
        splits = max(1, min(shape.blocks // tiles, most_splits(batch, tile)))
        return -(-tiles * splits // shape.blocks) * cycles(tile, dtype, -(-batch // splits))

    return min(candidates(n_out, n_in, dtype, shape, by_columns=True), key=cost)


def most_splits(batch: int, tile: Tile) -> int:
    """Parts of a batch that are not too short to be worth it."""
    return max(1, batch // (config.SPLIT_ROUNDS * tile.depth))


# ------------------------------------------------------------------------------------------------------------ plans
def best_bands(network: Network, batch: int, shape: Shape) -> tuple[float, int]:
    """Rows of a band with which the batch is quickest through all layers, and the cycles it takes."""

    def cost(rows: int) -> float:
        waves = ceil(ceil(batch / rows) / shape.blocks)
        return waves * sum(best_columns(rows, n, k, network.dtype, shape)[0] for k, n in products(network))

    least = 4 if shape.method == "fma" else SHAPES[shape.method][0]
    few = ceil(batch / (config.TILE_ROWS * shape.blocks))  # bands for each block, at least
    found = {ceil(batch / (shape.blocks * waves * least)) * least for waves in range(few, few + 6)}
    return min((cost(rows), rows) for rows in found)


def products(network: Network) -> list[tuple[int, int]]:
    """Depth and columns of each product with rows of samples: forward, then the deltas."""
    forward = list(pairwise(network.sizes))
    return forward + [(n_out, n_in) for n_in, n_out in forward[1:]]


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
    if tiles is None or bands is None:
        banded, rows = best_bands(network, batch, shape)
    if bands is None:
        spread = [best_spread(batch, n, k, network.dtype, shape)[0] + config.MEETING for k, n in products(network)]
        bands = banded <= sum(spread)
    shapes = tiles or choose_tiles(network, batch, rows if bands else None, shape)
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
    """Whether samples can be loaded by whole vectors: their rows are, and there is such a load for their dtype."""
    return inputs in (network.dtype, "uint8") and network.sizes[0] % VECTOR[network.dtype] == 0


def choose_tiles(network: Network, batch: int, rows: int | None, shape: Shape) -> dict[str, Tile]:
    """The tiles of each kind of product; with so many rows, where a block takes bands."""
    dtype, sizes = network.dtype, network.sizes
    pairs = list(pairwise(sizes))
    inner = max(pairs[1:-1], default=pairs[-1], key=lambda pair: pair[0] * pair[1])
    upper = max(pairs[1:], default=pairs[-1], key=lambda pair: pair[0] * pair[1])

    def forward(depth: int, columns: int) -> Tile:
        if rows is None:
            return best_spread(batch, columns, depth, dtype, shape)[1]
        tile = best_columns(rows, columns, depth, dtype, shape)[1]
        assert tile is not None
        return tile

    return {
        "first": forward(*pairs[0]),
        "inner": forward(*inner),
        "last": forward(*pairs[-1]),
        "delta": forward(upper[1], upper[0]) if len(pairs) > 1 else forward(*pairs[-1]),
        "gradient_first": best_gradient(pairs[0][1], pairs[0][0], batch, dtype, shape),
        "gradient": best_gradient(upper[1], upper[0], batch, dtype, shape),
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
    for what, size in (
        ("values", values),
        ("deltas", deltas),
        ("parts", parts),
        ("results", result if spec.job == "feedforward" else 0),
    ):
        if size > MOST_ELEMENTS:
            raise ValueError(
                f"{batch} samples at once of a network of sizes {list(network.sizes)}: {size} numbers ({what}); "
                f"the CUDA kernels count up to {MOST_ELEMENTS}; use smaller batches"
            )
    return Plan(spec, blocks, tuple(tuple(entry.values()) for entry in table), values, deltas, parts)


def splits_of(spec: Spec, network: Network, batch: int, blocks: int) -> list[int]:
    """Parts of the batch for the gradients of each layer: with which the last block is done soonest, by the model.

    The items of all layers are dealt out to the blocks in turn; a layer whose tiles are quick is split less.
    """
    layers = []
    for layer, (n_in, n_out) in enumerate(pairwise(network.sizes)):
        tile = spec.gradient if layer else spec.gradient_first
        layers.append((tile, -(-n_out // tile.rows) * -(-n_in // tile.columns)))
    longest = max(range(len(layers)), key=lambda i: layers[i][1] * cycles(layers[i][0], spec.dtype, batch))
    most = [min(most_splits(batch, tile), MOST_ELEMENTS // network.size) for tile, _ in layers]

    def split(first: int) -> tuple[float, list[int]]:
        wanted = cycles(layers[longest][0], spec.dtype, -(-batch // first))
        splits = [
            next((s for s in range(1, n) if cycles(tile, spec.dtype, -(-batch // s)) <= wanted), n)
            for (tile, _), n in zip(layers, most, strict=True)
        ]
        costs = np.concatenate(
            [
                np.full(tiles * s, cycles(tile, spec.dtype, -(-batch // s)))
                for (tile, tiles), s in zip(layers, splits, strict=True)
            ]
        )
        rounds = np.pad(costs, (0, -len(costs) % blocks)).reshape(-1, blocks)
        moved = 2 * sum(splits) / len(splits) * network.size * ITEMSIZE[spec.dtype]
        return rounds.sum(0).max() + moved / (blocks * config.CACHE_BYTES), splits

    tried = range(1, min(most[longest], 4 * blocks // layers[longest][1] + 2) + 1)
    return min(map(split, tried))[1]
