"""Where everything lies while a job runs: the integers that `fastmlp.kernels.cpu.drivers` reads, and its scratch."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fastmlp.kernels.cpu import drivers as d
from fastmlp.kernels.cpu.config import (
    CHUNK_BYTES,
    CHUNK_SAMPLES,
    INPUT_BLOCK,
    SMALL_BATCH,
    SPARSE_CHUNK,
    SPARSE_DENSITY,
    SPARSE_SAMPLES,
)
from fastmlp.kernels.cpu.rows import INPUT_CODES
from fastmlp.kernels.cpu.target import vector_bits
from fastmlp.kernels.cpu.team import WORDS
from fastmlp.kernels.network import ALIGNMENT, N_OUT, STRIDE, Network, aligned_zeros, row_stride
from fastmlp.kernels.updates import HYPERPARAMETERS, Rule


class _Plans(threading.local):
    """Plans kept for the next call, a few for each thread: a plan holds scratch, so no two calls may share it."""

    MOST = 4

    def __init__(self) -> None:
        self.kept: dict[tuple, Plan] = {}

    def get(self, make: "Callable[[Network, int, int], Plan]", network: Network, rows: int, members: int) -> "Plan":
        """The plan that ``make`` gives for these arguments, new or kept."""
        key = (make, network, rows, members)
        plan = self.kept.pop(key, None) or make(network, rows, members)
        self.kept[key] = plan
        while len(self.kept) > self.MOST:
            del self.kept[next(iter(self.kept))]
        plan.team[:] = 0
        return plan


class _Space:
    """Offsets of arrays laid one after another."""

    def __init__(self, network: Network, length: int = 0) -> None:
        self.block = ALIGNMENT // np.dtype(network.dtype).itemsize
        self.length = length
        self.ones: list[tuple[int, int, int]] = []  # (first place, rows, stride) of ones in the bias' place

    def rows(self, count: int, stride: int, ones: bool = False) -> int:
        """Room for so many rows; returns the offset of the first value of the first."""
        start = self.length + self.block
        self.length += -(-(count * stride) // self.block) * self.block + self.block
        if ones:
            self.ones.append((start - 1, count, stride))
        return start


@dataclass
class Plan:
    """A network's job, ready to run but for its arrays.

    Attributes
    ----------
    plan, table : ndarray of int64
        As laid out in `fastmlp.kernels.cpu.drivers`.
    scratch : ndarray
        In the network's dtype; zeros, with ones in the place of the biases.
    members : int
        Threads.
    lists : ndarray of int32
        For sparse inputs.
    settings : ndarray of float64
        Likewise; what depends on the rule is set for each job.
    team : ndarray of int64
        What the members share (`fastmlp.kernels.cpu.team`).
    """

    plan: np.ndarray
    table: np.ndarray
    scratch: np.ndarray
    members: int
    lists: np.ndarray
    settings: np.ndarray
    team: np.ndarray = field(default_factory=lambda: np.zeros(WORDS, np.int64))


@lru_cache
def chunk_samples(network: Network) -> int:
    """How many samples a member takes at a time."""
    row = sum(row_stride(size, network.dtype) for size in network.sizes) * np.dtype(network.dtype).itemsize
    low, high = CHUNK_SAMPLES
    return max(low, min(CHUNK_BYTES // row // 4 * 4, high))


def members_for(network: Network, samples: int, threads: int, least: int) -> int:
    """How many threads so many samples at a time are worth, if each is to have ``least`` multiply-adds of them."""
    return max(1, min(threads, network.multiply_adds * samples // least))


def is_sparse(network: Network, X: np.ndarray, samples: int) -> bool:
    """Whether so many samples for each member are taken as lists of what is not zero.

    Two hundred rows, evenly spread, tell how much is zero. A shift of the inputs leaves nothing zero.
    """
    if samples < SPARSE_SAMPLES or network.input_shift:
        return False
    rows = X[:: max(len(X) // 200, 1)]
    return bool(np.count_nonzero(rows) <= SPARSE_DENSITY * rows.size)


def is_small(batch_size: int, members: int) -> bool:
    """Whether batches of this size are split by units rather than by samples."""
    return batch_size <= SMALL_BATCH * members


def new_plan(network: Network, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Plan and table with what does not depend on the job."""
    plan = np.zeros(d.PLAN_LENGTH, np.int64)
    plan[[d.MEMBERS, d.LAYERS, d.BIAS, d.LOSS]] = members, network.layers, network.bias, network.loss_code
    plan[d.SIZE] = network.size
    plan[d.LANES] = vector_bits() // 8 // np.dtype(network.dtype).itemsize
    table = np.zeros((network.layers, d.TABLE_COLUMNS), np.int64)
    table[:, : network.table.shape[1]] = network.table
    table[:, d.OUT_STRIDE] = [row_stride(size, network.dtype) for size in network.sizes[1:]]
    return plan, table


def set_batch(plan: np.ndarray, address: int, X: np.ndarray, samples: int, batch: int, step: int = 0) -> None:
    """What the plan says of the samples."""
    plan[d.ADDRESS], plan[d.INPUT_CODE], plan[d.ROW_BYTES] = address, INPUT_CODES[X.dtype], X.strides[0]
    plan[d.SAMPLES], plan[d.BATCH], plan[d.STEP] = samples, batch, step


def by_units(network: Network, batch: int, members: int) -> Plan:
    """Scratch for `drivers.train_small`: activations between layers, and their deltas, are shared; the rest is not."""
    plan, table = new_plan(network, members)
    last = network.layers - 1
    shared, own = _Space(network), _Space(network)
    for layer, row in enumerate(table):
        inputs = shared if layer else own
        row[d.INPUT] = inputs.rows(2 * batch, row[STRIDE], ones=network.bias)
        if layer:
            table[layer - 1, d.OUTPUT] = row[d.INPUT]
        row[d.SLOPES] = 0 if layer == last else shared.rows(batch, row[d.OUT_STRIDE])
        private = layer in (0, last)
        row[d.DELTA] = (own if private else shared).rows(batch, row[d.OUT_STRIDE])
    outputs = table[last, d.OUT_STRIDE]
    table[last, d.OUTPUT] = shared.rows(2 * batch, outputs)
    plan[d.TARGETS] = own.rows(2 * batch, outputs)
    plan[d.SUMS] = own.rows(batch, table[:, d.OUT_STRIDE].max())
    plan[d.PROBABILITIES], plan[d.OUTPUT_SLOPES] = own.rows(batch, outputs), own.rows(batch, outputs)
    plan[d.CHUNK] = batch
    return finish(network, plan, table, shared, own, members)


def by_samples_sparse(network: Network, chunk: int, members: int) -> Plan:
    """As `by_samples`, for inputs that are mostly zero."""
    return by_samples(network, min(chunk, SPARSE_CHUNK), members, sparse=True)


def by_samples(network: Network, chunk: int, members: int, sparse: bool = False) -> Plan:
    """Scratch for `drivers.train_large` and inference: a region of its own for each member."""
    plan, table = new_plan(network, members)
    own = _Space(network)
    for layer, row in enumerate(table):
        rows = 1 if sparse and layer == 0 else chunk
        row[d.INPUT] = own.rows(rows, row[STRIDE], ones=network.bias)
        if layer:
            table[layer - 1, d.OUTPUT] = row[d.INPUT]
        row[d.SLOPES], row[d.DELTA] = own.rows(chunk, row[d.OUT_STRIDE]), own.rows(chunk, row[d.OUT_STRIDE])
    outputs = table[-1, d.OUT_STRIDE]
    table[-1, d.OUTPUT], plan[d.TARGETS] = own.rows(chunk, outputs), own.rows(chunk, outputs)
    plan[d.PROBABILITIES], plan[d.OUTPUT_SLOPES] = own.rows(chunk, outputs), own.rows(chunk, outputs)
    plan[d.CHUNK] = chunk
    if sparse:
        n_in, units = network.sizes[0], table[0, d.OUT_STRIDE]
        plan[d.SPARSE], plan[d.BLOCKS] = 1, -(-n_in // INPUT_BLOCK)
        plan[d.BY_INPUT], plan[d.GRADIENT_BY_INPUT] = own.rows(n_in + 1, units), own.rows(n_in + 1, units)
        plan[d.CAPACITY] = n_in + 1 + plan[d.BLOCKS]  # a bias, and an end for each block
        plan[d.VALUES] = own.rows(chunk, plan[d.CAPACITY])
        plan[d.STARTS] = chunk * plan[d.CAPACITY]
        plan[d.LISTS] = plan[d.STARTS] + chunk * plan[d.BLOCKS]
    return finish(network, plan, table, _Space(network), own, members)


def finish(network: Network, plan: np.ndarray, table: np.ndarray, shared: _Space, own: _Space, members: int) -> Plan:
    """Allocate the scratch and write the ones."""
    plan[d.PRIVATE], plan[d.REGION] = shared.length, own.length
    scratch = aligned_zeros(shared.length + members * own.length, network.dtype)
    regions = [shared.length + member * own.length for member in range(members)]
    for base, ones in [(0, shared.ones), *((region, own.ones) for region in regions)]:
        for start, rows, stride in ones:
            scratch[base + start :: stride][:rows] = 1
    settings = np.zeros(d.SETTINGS_LENGTH)
    settings[[d.SCALE, d.SHIFT, d.L2]] = network.input_scale, network.input_shift, network.l2
    lists = np.zeros(members * int(plan[d.LISTS]), np.int32)
    return Plan(plan, table, scratch, members, lists, settings)


def results(table: np.ndarray, samples: int, every_layer: bool) -> int:
    """Say in the table where all activations, or the outputs alone, go in one flat array; returns its length."""
    offset = 0
    for row in table if every_layer else table[-1:]:
        row[d.RESULT] = offset
        offset += samples * int(row[N_OUT])
    return offset


def hyperparameters(rule: Rule, dtype: str, members: int) -> np.ndarray:
    """A set of hyperparameters for each member; those that change with the step are set by the drivers."""
    H = np.zeros((members, d.H_LENGTH), dtype)
    H[:, : len(HYPERPARAMETERS)] = [getattr(rule, name, 0.0) for name in HYPERPARAMETERS]
    return H.reshape(-1)


plans = _Plans()
