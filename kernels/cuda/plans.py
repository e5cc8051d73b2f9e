"""Which kernel trains a network, and with which constants: how the work is shared out among blocks and threads.

What is chosen here decides speed, never results beyond rounding. Pure Python: nothing of CUDA is imported.
"""

from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from fastmlp.kernels.cuda.shapes import Tile, lanes, sample_row, samples_together
from fastmlp.kernels.network import N_IN, N_OUT, OFFSET, STRIDE, Network

__all__ = ["Given", "Gpu", "persistent", "tiled"]

#: Bytes of shared memory that all arrays of a kernel but the samples' may have: what needs no asking.
STATIC_SHARED = 46 * 1024

#: Registers that a thread needs besides its weights, their state and sums, and has at most; those of a multiprocessor.
OTHER_REGISTERS, REGISTERS, ALL_REGISTERS = 60, 250, 65_536

#: Threads of a block of the persistent kernel at most.
MOST_THREADS = 512

#: The largest batch that is trained by the persistent kernel; above, tiles use the GPU better.
PERSISTENT_BATCH = 64


class Gpu(NamedTuple):
    """What plans depend on of a device."""

    multiprocessors: int = 132
    shared_memory: int = 232_448  #: bytes that a block may have


class Given(NamedTuple):
    """What kernels depend on besides the network and the device."""

    rule: str  #: the kind of update rule; any where nothing is trained
    slots: int
    batch: int
    inputs: str  #: dtype of the samples
    labels: bool
    weighted: bool = False  #: whether samples have weights


def common_constants(network: Network, given: Given) -> dict[str, Any]:
    """The constants that both kernels have."""
    return {
        "DTYPE": network.dtype,
        "INPUT_DTYPE": given.inputs,
        "OUTPUT": network.activations[-1],
        "LOSS": network.loss,
        "RULE": given.rule,
        "SLOTS": given.slots,
        "BIAS": network.bias,
        "LABELS": given.labels,
        "WEIGHTED": given.weighted,
        "SCALED": (network.input_scale, network.input_shift) != (1.0, 0.0),
        "PENALTY": network.l2 > 0,
        "SIZE": network.size,
    }


# ------------------------------------------------------------------------------------------------------- persistent
def best_layouts(network: Network, given: Given, gpu: Gpu) -> list[dict[str, int]]:
    """Ways to share out the units; what takes the least time first."""
    return [layout for _, layout in sorted(layouts(network, given, gpu), key=itemgetter(0))]


def layouts(network: Network, given: Given, gpu: Gpu) -> Iterator[tuple[float, dict[str, int]]]:
    """Ways to share out the units, each with the cycles that a step takes."""
    inputs, hidden, outputs = network.sizes
    words = np.dtype(network.dtype).itemsize // 4
    vector = 4 // words
    for span in range(32, MOST_THREADS + 1, 32):
        vectors = -(-inputs // (vector * span))
        for units in (1, 2, 4, 8):
            own = units * vector * vectors
            sums = units * samples_together(units, given.batch)
            registers = words * (own * (1 + given.slots) + max(own, sums)) + OTHER_REGISTERS
            for groups in range(1, min(MOST_THREADS // span, -(-hidden // units)) + 1):
                blocks, threads = -(-hidden // (groups * units)), groups * span
                constants = {"UNITS": units, "GROUPS": groups, "SPAN": span, "BLOCKS": blocks}
                if (
                    vectors <= 4
                    and registers <= min(REGISTERS, ALL_REGISTERS // threads)
                    and blocks <= gpu.multiprocessors
                    and threads >= given.batch
                    and fits(network, given, gpu, constants)
                ):
                    yield cycles(given.batch, outputs, vectors, constants), constants


def cycles(batch: int, outputs: int, vectors: int, c: dict[str, int]) -> float:
    """What a step takes, roughly: to choose among layouts, not to foretell a time.

    Instructions are counted from the kernel's code; a scheduler, of which a multiprocessor has four, issues one a
    cycle, and waits more often with a lone warp. What the exchange takes is a guess after meetings of blocks on an H200
    (bench/NOTES.md). No layout has been timed against another by these numbers yet.
    """
    threads, units, blocks = c["GROUPS"] * c["SPAN"], c["UNITS"], c["BLOCKS"]
    instructions = batch * (2 * vectors * (4 * units + 3) + 6 * units) + 12 * units * vectors + 250  # of a thread
    issued = 1.3 * instructions * max(2, -(-threads // 128))
    shared = 8 * batch * vectors * threads / 32  # 32 numbers a cycle, both ways
    rounds = -(-batch * lanes(outputs) // threads)  # of rows of outputs
    return max(issued, shared) + 900 + rounds * (300 + 20 * blocks) + 0.16 * blocks * batch * outputs


def fits(network: Network, given: Given, gpu: Gpu, c: dict[str, int]) -> bool:
    """Whether a block's arrays fit into shared memory."""
    outputs, itemsize, batch = network.sizes[-1], np.dtype(network.dtype).itemsize, given.batch
    together = samples_together(c["UNITS"], batch)
    units, held = c["GROUPS"] * c["UNITS"], -(-batch // together) * together
    small, telling = units * (outputs + 1) + outputs, min(c["GROUPS"] * c["SPAN"], batch * lanes(outputs) + 31)
    numbers = (c["SPAN"] // 32 + 3) * held * (units + 1) + batch * outputs + 4 * telling
    numbers += (1 + max(given.slots, 1)) * small
    static = numbers * itemsize + 8 * batch
    sample_size = np.dtype(given.inputs).itemsize
    samples = 2 * held * sample_row(network.sizes[0], 16 // itemsize, 16 // sample_size) * sample_size
    return static <= STATIC_SHARED and static + samples <= gpu.shared_memory


@lru_cache(maxsize=256)
def persistent(network: Network, given: Given, gpu: Gpu) -> dict[str, Any] | None:
    """The constants of `fastmlp.kernels.cuda.persistent`; None where it is not for this network and batch."""
    if network.layers != 2 or given.batch > PERSISTENT_BATCH or network.sizes[-1] > 256:
        return None
    found = best_layouts(network, given, gpu)
    if not found:
        return None
    first, second = network.table.tolist()
    assert (first[N_IN], first[N_OUT]) == network.sizes[:2]
    return {
        **common_constants(network, given),
        "INPUTS": network.sizes[0],
        "HIDDEN": network.sizes[1],
        "OUTPUTS": network.sizes[2],
        "BATCH": given.batch,
        "ACTIVATION": network.activations[0],
        "FIRST": first[OFFSET],
        "FIRST_STRIDE": first[STRIDE],
        "SECOND": second[OFFSET],
        "SECOND_STRIDE": second[STRIDE],
        **found[0],
    }


# ------------------------------------------------------------------------------------------------------------ tiled

#: Threads of a block; rows and columns of a tile that are tried, sums of a thread, and products staged at a time.
TILE_THREADS = 256
TILE_SIDES = (8, 16, 24, 32, 48, 64, 80, 104, 128)
SQUARES = {"float32": ((10, 8), (8, 8), (4, 8), (4, 4)), "float64": ((4, 4),)}
DEPTHS = (16, 32, 64, 128, 256)
STAGED = 32  #: numbers at most that a thread has on their way
SPLITS = (1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 26, 32, 44, 64)

#: Samples that are predicted or evaluated at once, at most.
MOST_ROWS = 1 << 17

#: Cycles: from global memory to registers; of a barrier of the grid. Bytes in a cycle that a multiprocessor gets.
LATENCY, MEETING, BYTES = 700, 1800, 20


def tile_cycles(tile: Tile, k: int, itemsize: int) -> float:
    """What a block takes for a tile of sums over k, roughly: to choose among tiles, not to foretell a time."""
    ways, square = tile.ways(TILE_THREADS), tile.down * tile.across
    warps = -(-ways * tile.squares // 32)
    # Four k of a square: its products, the loads for them, the loop. A scheduler's lone warp waits half of the time.
    work = (4 * square + tile.down + tile.across + 10) / 4 * max(2, -(-warps // 4))
    loads = (tile.down + 0.4 * tile.across) * warps
    vectors = -(-(tile.rows + tile.columns) * tile.depth * itemsize // 16 // TILE_THREADS)
    bytes_ = tile.depth * (tile.rows + tile.columns) * itemsize
    chunk = tile.depth / ways * max(work, loads) * itemsize / 4 + 300 + 200 * vectors
    finishing = 1000 + tile.rows * tile.columns / TILE_THREADS * (150 + 10 * ways)
    return -(-k // tile.depth) * max(chunk, bytes_ / BYTES) + 2 * LATENCY + finishing


@lru_cache(maxsize=8)
def tiles(dtype: str, shared: int) -> tuple[Tile, ...]:
    """All tiles that fit."""
    found = []
    for rows in TILE_SIDES:
        for columns in TILE_SIDES:
            for down, across in SQUARES[dtype]:
                for depth in DEPTHS:
                    tile = Tile(rows, columns, down, across, depth)
                    whole = rows % down == columns % across == 0
                    fits_threads = tile.squares <= TILE_THREADS and (rows + columns) * depth <= STAGED * TILE_THREADS
                    if (
                        whole
                        and fits_threads
                        and tile.numbers(TILE_THREADS) * np.dtype(dtype).itemsize <= shared - 2048
                    ):
                        found.append(tile)
    return tuple(found)


def best_tiles(
    products: list[tuple[int, int, int]], dtype: str, gpu: Gpu, splits: tuple[int, ...]
) -> list[tuple[Tile, int]]:
    """Tiles, and numbers of parts of k, for these products of rows, columns and k; what takes the least time first.

    With several numbers of parts to choose from, operands are of columns, whose rows come in whole vectors.
    """
    itemsize = np.dtype(dtype).itemsize

    def time(choice: tuple[Tile, int]) -> float:
        tile, parts = choice
        total = 0.0 if parts == 1 else MEETING + parts * sum(m * n for m, n, _ in products) * itemsize / BYTES / 100
        for m, n, k in products:
            count = -(-m // tile.rows) * -(-n // tile.columns) * parts
            total += -(-count // gpu.multiprocessors) * tile_cycles(tile, -(-k // parts), itemsize)
        return total

    found = [t for t in tiles(dtype, gpu.shared_memory) if len(splits) == 1 or t.down * itemsize % 16 == 0]
    choices = [(tile, parts) for tile in found for parts in splits]
    return sorted(choices, key=time)


@lru_cache(maxsize=256)
def tiled(network: Network, job: str, given: Given, gpu: Gpu, hits: str = "") -> dict[str, Any]:
    """The constants of `fastmlp.kernels.cuda.tiled` for a job; ``given.batch`` is what its tiles are chosen for."""
    pairs = list(zip(network.sizes, network.sizes[1:], strict=False))
    rows, dtype = given.batch, network.dtype
    forward, _ = best_tiles([(rows, n_out, n_in) for n_in, n_out in pairs], dtype, gpu, (1,))[0]
    delta, gradient, parts = forward, tiles(dtype, gpu.shared_memory)[0], 1
    if job in ("train", "gradient"):
        if len(pairs) > 1:
            delta, _ = best_tiles([(rows, n_in, n_out) for n_in, n_out in pairs[1:]], dtype, gpu, (1,))[0]
        products = [(n_out, n_in + network.bias, rows) for n_in, n_out in pairs]
        gradient, parts = best_tiles(products, dtype, gpu, SPLITS)[0]
    return {
        **common_constants(network, given),
        "JOB": job,
        "SIZES": network.sizes,
        "ACTIVATIONS": network.activations[:-1],
        "HITS": hits,
        "FIRSTS": tuple(network.table[:, OFFSET].tolist()),
        "STRIDES": tuple(network.table[:, STRIDE].tolist()),
        "FORWARD": tuple(forward),
        "DELTA": tuple(delta),
        "GRADIENT": tuple(gradient),
        "SPLITS": parts,
        "THREADS": TILE_THREADS,
    }
