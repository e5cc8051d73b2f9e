"""How the kernels of `fastmlp.kernels.cuda.phases` are laid out on a device: tiles, bands and splits, and what lies where.

The shapes of tiles are found by trying all that fit and taking the quickest by a model of a multiprocessor: what its
four schedulers issue and what its shared memory delivers, a depth at a time. The model counts cycles from the number of
instructions; nothing in it has been measured on a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fastmlp.kernels.activations import CODES
from fastmlp.kernels.cuda import config
from fastmlp.kernels.cuda.phases import COLUMNS, Spec
from fastmlp.kernels.cuda.tile_ops import VECTOR
from fastmlp.kernels.cuda.tiles import ITEMSIZE, Tile
from fastmlp.kernels.network import ALIGNMENT, N_IN, N_OUT, OFFSET, STRIDE, Network

#: Indices in kernels are unsigned numbers of 32 bits.
MOST_ELEMENTS = 2**32 - 1


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
    vector, warps = VECTOR[dtype], -(-tile.threads // 32)
    products = tile.micro_rows * tile.micro_columns
    loads = (tile.micro_rows + tile.micro_columns) / vector
    rate = 1 if dtype == "float32" else 2  # float64 is issued at half the rate (of the GPUs made for it)
    issued = -(-warps // 4) * (rate * products + loads)
    lines = tile.micro_rows / vector * -(-32 // (8 * tile.across)) + tile.micro_columns / vector * min(
        4, -(-tile.across // 8)
    )
    meeting = config.TILE_MEETING / tile.depth
    return max(issued, warps * lines) + meeting


def candidates(rows: int | None, columns: int, dtype: str, by_columns: bool, threads: int) -> Iterator[Tile]:
    """Tiles for products with so many columns; of so many rows, or of any number (None)."""
    vector = VECTOR[dtype]
    micros = (4, 8) if dtype == "float32" else (2, 4, 8)
    for micro_rows in micros:
        for micro_columns in micros:
            if micro_rows * micro_columns * ITEMSIZE[dtype] > config.TILE_SUM_BYTES:
                continue
            widest = -(-columns // micro_columns)
            for across in sorted({min(widest, n) for n in (*range(1, 33), widest)}):
                for down in range(1, threads // across + 1) if rows is None else (rows // micro_rows,):
                    if not down or down * across > threads or (rows and rows % micro_rows):
                        continue
                    tile = Tile(
                        down * micro_rows, across * micro_columns, config.TILE_DEPTH[dtype], micro_rows, micro_columns
                    )
                    if tile.columns % vector == 0 and tile.rows % (vector if by_columns else 1) == 0 and fits(tile, dtype):
                        yield tile


def fits(tile: Tile, dtype: str) -> bool:
    """Whether a tile's operands, and its sums, fit in the shared memory of a block."""
    vector = VECTOR[dtype]
    operands = 2 * (tile.rows + tile.columns) * (tile.depth + vector)
    return max(operands, tile.rows * (tile.columns + vector)) * ITEMSIZE[dtype] <= config.TILE_SHARED


@lru_cache(maxsize=256)
def best_columns(rows: int, columns: int, dtype: str, threads: int) -> tuple[Tile, float]:
    """The tile of so many rows that is quickest through all columns, and the cycles for one depth of all."""
    found = [
        (-(-columns // tile.columns) * cycles(tile, dtype), tile)
        for tile in candidates(rows, columns, dtype, False, threads)
    ]
    cost, tile = min(found, key=lambda pair: pair[0])
    return tile, cost


@lru_cache(maxsize=256)
def best_gradient(n_out: int, n_in: int, dtype: str, threads: int, blocks: int) -> Tile:
    """The tile that is quickest through the gradients of a layer, split so that there are tiles for all blocks."""

    def cost(tile: Tile) -> float:
        tiles = -(-n_out // tile.rows) * -(-n_in // tile.columns)
        splits = max(1, blocks // tiles)
        return -(-tiles * splits // blocks) * cycles(tile, dtype) / splits

    widest = [t for t in candidates(None, n_in, dtype, True, threads) if t.rows < n_out + t.micro_rows]
    return min(widest, key=cost)


# ------------------------------------------------------------------------------------------------------------ plans
def rows_of_bands(network: Network, batch: int, threads: int, blocks: int) -> int:
    """Rows of a band with which the batch is quickest through all layers."""
    micro = 4 if network.dtype == "float32" else 2

    def cost(rows: int) -> float:
        waves = -(--(-batch // rows) // blocks)
        layers = zip(network.sizes, network.sizes[1:], strict=False)
        return waves * sum(n_in * best_columns(rows, n_out, network.dtype, threads)[1] for n_in, n_out in layers)

    return min(range(micro, config.TILE_ROWS + 1, micro), key=cost)


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
    tiles: dict[str, Tile] | None = None,
    threads: int = config.TILE_THREADS,
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
    tiles, threads, bands, lanes : optional
        In place of the plan's own choice, for tests.

    Raises
    ------
    ValueError
        If the arrays would be too large for the kernels' indices.
    """
    blocks = multiprocessors * config.TILE_BLOCKS
    if bands is None:
        rows = rows_of_bands(network, batch, threads, blocks)
        bands = -(-batch // rows) * config.BANDS_SHARE >= blocks or batch <= micro_batch(network)
    else:
        rows = config.TILE_ROWS
    shapes = tiles or choose_tiles(network, batch, rows, bands, threads, blocks)
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
        lanes=lanes or lanes_for(network.sizes[-1]),
        threads=threads,
        blocks=config.TILE_BLOCKS,
        **shapes,
    )
    return arrange(spec, network, batch, blocks)


def micro_batch(network: Network) -> int:
    """Samples up to which a batch is one band, whatever the number of blocks."""
    return 4


def lanes_for(n_out: int) -> int:
    """Threads for each row of outputs: about one for each four outputs, a power of two."""
    return min(32, 1 << max(0, (-(-n_out // 4) - 1).bit_length()))


def whole_rows(network: Network, inputs: str) -> bool:
    """Whether samples can be loaded by whole vectors: rows of whole vectors, of a dtype for which there is such a load."""
    direct = inputs == network.dtype or (inputs == "uint8" and network.dtype == "float32")
    return direct and network.sizes[0] % VECTOR[inputs] == 0


def choose_tiles(network: Network, batch: int, rows: int, bands: bool, threads: int, blocks: int) -> dict[str, Tile]:
    """The tiles of each kind of product."""
    dtype, sizes = network.dtype, network.sizes
    pairs = list(zip(sizes, sizes[1:], strict=False))
    inner = max(pairs[1:-1], default=pairs[-1], key=lambda pair: pair[0] * pair[1])
    upper = max(pairs[1:], default=pairs[-1], key=lambda pair: pair[0] * pair[1])

    def forward(n_in: int, n_out: int) -> Tile:
        return best_columns(rows, n_out, dtype, threads)[0] if bands else best_spread(batch, n_out, dtype, threads, blocks)

    return {
        "first": forward(*pairs[0]),
        "inner": forward(*inner),
        "last": forward(*pairs[-1]),
        "delta": forward(upper[1], upper[0]),
        "gradient_first": best_gradient(pairs[0][1], pairs[0][0], dtype, threads, blocks),
        "gradient": best_gradient(upper[1], upper[0], dtype, threads, blocks),
    }


@lru_cache(maxsize=256)
def best_spread(rows: int, columns: int, dtype: str, threads: int, blocks: int) -> Tile:
    """The tile that is quickest through rows x columns, its tiles dealt out to all blocks."""

    def cost(tile: Tile) -> float:
        tiles = -(-rows // tile.rows) * -(-columns // tile.columns)
        return -(-tiles // blocks) * cycles(tile, dtype)

    return min(candidates(None, columns, dtype, False, threads), key=cost)


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


def with_method(tile: Tile, method: str) -> Tile:
    """The same tile, summed in another way."""
    return replace(tile, method=method)
