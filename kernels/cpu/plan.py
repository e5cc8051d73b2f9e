"""Where everything lies while a job runs: the integers that `fastmlp.kernels.cpu.entries` reads, and its scratch."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from ctypes import addressof, c_char
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastmlp.kernels.cpu import entries as d
from fastmlp.kernels.cpu.config import (
    BY_INPUT_LANES,
    BY_INPUT_VECTORS,
    CHUNK_BYTES,
    CHUNK_SAMPLES,
    COLUMNS,
    FEW_INPUTS,
    FEWEST_INPUTS,
    FEWEST_INPUTS_BATCH,
    INPUT_BLOCK,
    MEMORY,
    MEMORY_IN_NETWORKS,
    NARROW_INPUTS,
    NARROW_VECTORS,
    PACKED_ROWS,
    SAMPLES_EACH,
    SMALL_BATCH,
    SMALL_RESTING,
    SMALL_SPARSE,
    SPARSE_DENSITY,
    SPARSE_SAMPLES,
    WIDE_BYTES,
    WORK_PER_LARGE_STEP,
)
from fastmlp.kernels.cpu.lists import MOST_SAMPLES
from fastmlp.kernels.cpu.resting import AHEAD, LONGEST_REST
from fastmlp.kernels.cpu.rows import INPUT_CODES
from fastmlp.kernels.cpu.target import vector_bits
from fastmlp.kernels.cpu.team import STOP, new_team
from fastmlp.kernels.network import ALIGNMENT, N_OUT, STRIDE, Network, aligned_zeros, row_stride
from fastmlp.kernels.updates import HYPERPARAMETERS, UPDATES, Rule

T = TypeVar("T")


class _Plans(threading.local):
    """Plans kept for the next call, a few for each thread.

    A plan holds scratch, so no two calls may use it at once, and a thread may be in two calls: a signal handler, a
    finalizer or a weak reference's callback can begin one in the middle of another. So whoever gets a plan is the only
    one to have it until he gives it back with `keep`; a call that fails does not.
    """

    MOST = 4

    def __init__(self) -> None:
        self.kept: deque[Plan] = deque(maxlen=self.MOST - 1)
        self.last: list[Plan] = []
        self.ones: list[tuple[Network, Plan, np.ndarray]] = []

    def get(self, make: "Callable[[Network, int, int], Plan]", network: Network, rows: int, members: int) -> "Plan":
        """The plan that ``make`` gives for these arguments, new or kept."""
        key = (make, network, rows, members)
        plan = taken(self.last)
        if plan is None or plan.key != key:  # mostly it is the one that was used last
            other, plan = plan, self._found(key)
            if other is not None:
                self.kept.append(other)
            if plan is None:
                plan = make(network, rows, members)
                plan.key = key
        plan.team.fill(0)
        return plan

    def keep(self, plan: "Plan") -> None:
        """Take back a plan of `get` that is no longer used."""
        if other := taken(self.last):
            self.kept.append(other)
        self.last.append(plan)

    def _found(self, key: tuple) -> "Plan | None":
        """The kept plan of that key, kept no longer. To compare networks runs Python code, and so signal handlers."""
        for plan in tuple(self.kept):
            if plan.key == key:
                with suppress(ValueError):  # a handler has taken it
                    self.kept.remove(plan)
                    return plan
        return None

    def for_one(self, network: Network) -> "tuple[Network, Plan, np.ndarray]":
        """The plan for predicting one sample, all but where it lies and its dtype; and where its outputs go.

        To be appended to ``ones`` again after its use.
        """
        one = taken(self.ones)
        if one is None or one[0] is not network:
            plan, out = by_samples(network, 1, 1), np.zeros((1, network.sizes[-1]), network.dtype)
            results(plan.table, 1, every_layer=False)
            plan.plan[[d.SAMPLES, d.BATCH]] = 1
            plan.find({d.OUT_ARRAY: out})
            one = network, plan, out
        return one


def taken(kept: list[T]) -> T | None:
    """What a list of one held until now; None if it is empty, in a single step either way."""
    try:
        return kept.pop()
    except IndexError:
        return None


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


@dataclass(eq=False)
class Plan:
    """A network's job, ready to run but for its arrays.

    Attributes
    ----------
    plan, table : ndarray of int64
        As laid out in `fastmlp.kernels.cpu.entries`.
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
    partial : ndarray of float64, [8 * members]
        Where the members leave what they found; good until the plan is used again.
    key : tuple
        By which `_Plans` knows it.
    """

    plan: np.ndarray
    table: np.ndarray
    scratch: np.ndarray
    members: int
    lists: np.ndarray
    settings: np.ndarray
    team: np.ndarray = field(init=False)
    partial: np.ndarray = field(init=False)
    key: tuple = field(init=False, default=())

    def __post_init__(self) -> None:
        self.team, self.partial = new_team(self.members), np.zeros(8 * self.members)
        kept = {
            d.TABLE_ARRAY: self.table,
            d.SETTINGS_ARRAY: self.settings,
            d.SCRATCH_ARRAY: self.scratch,
            d.LISTS_ARRAY: self.lists,
            d.PARTIAL_ARRAY: self.partial,
            d.TEAM_ARRAY: self.team,
        }
        for entry, array in kept.items():
            if array.size:
                self.plan[entry], self.plan[entry + 1] = address(array), array.size

    def find(self, arrays: dict[int, np.ndarray]) -> None:
        """Say in the plan where a job's arrays are, by their entries; who calls keeps them until the job is done."""
        self.plan[d.HYPERPARAMETERS_ARRAY : d.AFTER_ARRAYS] = 0
        for entry, array in arrays.items():
            if array.size:
                place = aligned(MUST_BE_ALIGNED[entry], array) if entry in MUST_BE_ALIGNED else address(array)
                self.plan[entry], self.plan[entry + 1] = place, array.size

    def stop(self) -> None:
        """Tell all members to leave at the next place where they look."""
        self.team[STOP] = 1


@lru_cache
def chunk_samples(network: Network) -> int:
    """How many samples a member takes at a time."""
    low, high = CHUNK_SAMPLES
    return max(low, min(CHUNK_BYTES // row_bytes(network) // 4 * 4, high))


def members_for(network: Network, samples: int, threads: int, least: float) -> int:
    """How many threads so many samples at a time are worth, if each is to have ``least`` multiply-adds of them."""
    return max(1, min(threads, int(network.multiply_adds * samples / least)))


def has_room(network: Network, batch: int, members: int) -> bool:
    """Whether so many threads may each take in all samples of a batch, as they do where it is split by units."""
    return members == 1 or members * 4 * batch * row_bytes(network) <= most_bytes(network)


def most_by_samples(network: Network, members: int) -> int:
    """So many threads, or as many as have room for a chunk of samples and a gradient each."""
    each = parameter_bytes(network) + 4 * chunk_samples(network) * row_bytes(network)
    return max(1, min(members, most_bytes(network) // each))


def most_bytes(network: Network) -> int:
    """What the threads of a team may have in scratch and gradients together."""
    return max(MEMORY, MEMORY_IN_NETWORKS * parameter_bytes(network))


def parameter_bytes(network: Network) -> int:
    """Size of the flat array of parameters."""
    return network.size * np.dtype(network.dtype).itemsize


@lru_cache
def row_bytes(network: Network) -> int:
    """Size of one sample's rows in all layers."""
    return sum(row_stride(size, network.dtype) for size in network.sizes) * np.dtype(network.dtype).itemsize


def members_by_samples(network: Network, batch: int, threads: int) -> int:
    """How many threads a step is worth that is split by samples."""
    return members_for(network, batch, min(threads, batch // SAMPLES_EACH), WORK_PER_LARGE_STEP)


class Background(NamedTuple):
    """What most inputs are: the value, and the share of the inputs that are something else."""

    value: float
    share: float


#: What has its first layer in rows by input take all samples as they are.
NO_BACKGROUND = Background(0.0, 1.0)


def background(network: Network, X: np.ndarray, used: int, samples: np.ndarray | None = None) -> Background | None:
    """The value that most inputs have, if so many samples are to be used and taken as what differs from it.

    Some thousand inputs, evenly spread, tell which value it could be (their median is one that more than half have),
    and a hundred rows how many have it. With samples scaled by some factor, it can only be zero: elsewhere the
    difference from it, x s - c s, would be rounded and not be zero. With ``samples`` it is as for X[samples].
    """
    if used < SPARSE_SAMPLES:
        return None
    n, n_in = X.shape if samples is None else (len(samples), X.shape[1])
    step = max(n * n_in // 1000, 1) | 1
    if samples is None:
        some = X.reshape(-1)[::step]
    else:
        rows, columns = np.divmod(np.arange(0, n * n_in, step), n_in)
        some = X[samples[rows], columns]
    middle = float(np.partition(some, len(some) // 2)[len(some) // 2])
    if not np.isfinite(middle) or (middle and network.input_scale != 1):
        return None
    spread = slice(None, None, max(n // 100, 1))
    rows = X[spread] if samples is None else X[samples[spread]]
    share = int(np.count_nonzero(rows != middle)) / rows.size
    return Background(middle, share) if share <= SPARSE_DENSITY else None


def can_rest(network: Network, rule: Rule, batch: int) -> bool:
    """Whether rows of the first layer may rest: without a gradient, nothing but momentum must move them."""
    return batch <= MOST_SAMPLES and rule.kind in ("plain", "momentum") and not network.l2


def is_narrow(network: Network, batch: int, samples: int) -> bool:
    """Whether few inputs meet so many units that rows by input serve any samples better, no input's ever resting.

    A row by unit of so few inputs is a vector or two, with a sum over its lanes for each sample and unit.
    """
    n_in, units = network.sizes[:2]
    wide = units * np.dtype(network.dtype).itemsize * 8 >= NARROW_VECTORS * vector_bits()
    return samples >= SPARSE_SAMPLES and wide and batch * n_in <= NARROW_INPUTS * units


def has_few_inputs(network: Network, samples: int) -> bool:
    """Whether the first layer's products of many samples are quicker in rows by input.

    Rows by unit end each product with a sum over lanes, and begin it with a whole vector for the bias.
    """
    lanes = vector_bits() // 8 // np.dtype(network.dtype).itemsize
    wide = lanes >= BY_INPUT_LANES and -(-network.sizes[1] // lanes) >= BY_INPUT_VECTORS
    return samples >= SPARSE_SAMPLES and wide and network.sizes[0] <= FEW_INPUTS


def has_fewest_inputs(network: Network, samples: int) -> bool:
    """Whether the first layer has so few inputs that a lone member is quicker by samples with smaller batches, too."""
    return network.sizes[0] <= FEWEST_INPUTS and has_few_inputs(network, samples)


def is_wide(network: Network, layer: int) -> bool:
    """Whether a layer has so many weights that its products have operands copied (`fastmlp.kernels.cpu.packing`)."""
    return network.table[layer, N_OUT] * network.table[layer, STRIDE] * np.dtype(network.dtype).itemsize >= WIDE_BYTES


def is_small(
    batch: int, members: int, sparse: bool = False, resting: bool = False, fewest_inputs: bool = False
) -> bool:
    """Whether batches of this size are split by units rather than by samples."""
    if resting:
        return members == 1 or batch <= SMALL_RESTING
    if fewest_inputs and not sparse and members == 1:
        return batch < FEWEST_INPUTS_BATCH
    return batch <= (SMALL_SPARSE if sparse else SMALL_BATCH * members)


def new_plan(network: Network, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Plan and table with what does not depend on the job."""
    plan = np.zeros(d.AFTER_ARRAYS, np.int64)
    plan[[d.MEMBERS, d.LAYERS, d.BIAS, d.LOSS]] = members, network.layers, network.bias, network.loss_code
    plan[d.SIZE] = network.size
    plan[d.LANES] = vector_bits() // 8 // np.dtype(network.dtype).itemsize
    table = np.zeros((network.layers, d.TABLE_COLUMNS), np.int64)
    table[:, : network.table.shape[1]] = network.table
    table[:, d.OUT_STRIDE] = [row_stride(size, network.dtype) for size in network.sizes[1:]]
    return plan, table


def set_background(settings: np.ndarray, network: Network, value: float) -> None:
    """Have samples taken in less the background ``value``, which then adds what it adds to all."""
    settings[d.SHIFT] = -value * network.input_scale
    settings[d.BACKGROUND] = value * network.input_scale + network.input_shift


_byte_at: Callable[[Any], c_char] = c_char.from_buffer  # arrays count as buffers to type checkers from 3.12 on


def address(array: np.ndarray) -> int:
    """Where a contiguous array that is not empty starts in memory.

    As ``array.ctypes.data``, which takes 1.4 µs; where the array can be written there is a way of 0.4.
    """
    if array.flags.writeable:
        return addressof(_byte_at(array))
    return array.__array_interface__["data"][0]


#: Of the arrays that are given, those that vector instructions read and write; and what to call them.
MUST_BE_ALIGNED = {d.SLOTS_ARRAY: "state.slots", d.GRADIENTS_ARRAY: "gradients"}


def aligned(name: str, array: np.ndarray) -> int:
    """The address, if it is on the boundary that vector instructions want; they would end the process otherwise."""
    place = address(array)
    if place % ALIGNMENT:
        raise ValueError(f"{name} is off a {ALIGNMENT}-byte boundary; expected an array as Network.zeros gives")
    return place


def set_batch(plan: np.ndarray, X: np.ndarray, samples: int, batch: int, step: int = 0) -> None:
    """What the plan says of the samples."""
    plan[d.ADDRESS], plan[d.INPUT_CODE], plan[d.ROW_BYTES] = address(X), INPUT_CODES[X.dtype], X.strides[0]
    plan[d.SAMPLES], plan[d.BATCH], plan[d.STEP] = samples, batch, step


def by_units_lazy(network: Network, batch: int, members: int) -> Plan:
    """As `by_units`, for inputs of which most are one background."""
    return by_units(network, batch, members, lazy=True)


def by_units(network: Network, batch: int, members: int, lazy: bool = False) -> Plan:
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
    if lazy:
        lazy_rows(network, plan, table, own, batch, members)
        plan[d.PARTIAL] = shared.rows(2 * members * batch, outputs)
    return finish(network, plan, table, shared, own, members)


def lazy_rows(network: Network, plan: np.ndarray, table: np.ndarray, own: _Space, batch: int, members: int) -> None:
    """Scratch for `lazy_layer`: a member's rows with their velocities, and its lists."""
    n_in, lanes, stride = network.sizes[0], int(plan[d.LANES]), int(table[0, STRIDE])
    vectors = -(-network.sizes[1] // lanes)
    plan[d.APART] = -(-vectors // members) * lanes
    plan[d.BY_INPUT], plan[d.ROWS_BY_INPUT] = 1, own.rows(n_in + 3, 2 * plan[d.APART])
    plan[d.REST] = own.rows(LONGEST_REST, 2)
    plan[d.COEFFICIENTS] = own.rows(3, batch)
    sample_lists(network, plan, own, batch, INPUT_BLOCK)
    plan[d.WORDS] = plan[d.LISTS]
    plan[d.ACTIVE] = plan[d.WORDS] + 4 * stride
    plan[d.LENGTH] = plan[d.BLOCKS] + 1 + stride + 16
    plan[d.WOKEN] = plan[d.ACTIVE] + 2 * plan[d.LENGTH]
    plan[d.RESTED] = plan[d.WOKEN] + plan[d.LENGTH]
    plan[d.UPDATED] = plan[d.RESTED] + stride
    plan[d.ALWAYS] = plan[d.UPDATED] + stride
    plan[d.LISTS] = plan[d.ALWAYS] + 3 + AHEAD


def sample_lists(network: Network, plan: np.ndarray, own: _Space, samples: int, block: int) -> None:
    """Room for the lists of so many samples, in blocks of so many inputs."""
    n_in = network.sizes[0]
    plan[d.LISTED], plan[d.BLOCK], plan[d.BLOCKS] = 1, block, -(-n_in // block)
    plan[d.CAPACITY] = n_in + 1 + plan[d.BLOCKS] + plan[d.LANES]  # a bias, an end for each block, what is overwritten
    plan[d.VALUES] = own.rows(samples, plan[d.CAPACITY])
    plan[d.STARTS] = samples * plan[d.CAPACITY]
    plan[d.LISTS] = plan[d.STARTS] + samples * plan[d.BLOCKS]


def by_samples_sparse(network: Network, chunk: int, members: int) -> Plan:
    """As `by_samples`, for inputs of which most are one background."""
    return by_samples(network, min(chunk, MOST_SAMPLES), members, by_input=True, listed=True)


def by_samples_narrow(network: Network, chunk: int, members: int) -> Plan:
    """As `by_samples`, for few inputs of many units."""
    return by_samples(network, chunk, members, by_input=True)


def by_samples(network: Network, chunk: int, members: int, by_input: bool = False, listed: bool = False) -> Plan:
    """Scratch for `drivers.train_large` and inference: a region of its own for each member."""
    plan, table = new_plan(network, members)
    shared, own = _Space(network), _Space(network)
    for layer, row in enumerate(table):
        row[d.INPUT] = own.rows(chunk, row[STRIDE], ones=network.bias)
        if layer:
            table[layer - 1, d.OUTPUT] = row[d.INPUT]
        row[d.SLOPES], row[d.DELTA] = own.rows(chunk, row[d.OUT_STRIDE]), own.rows(chunk, row[d.OUT_STRIDE])
    outputs = table[-1, d.OUT_STRIDE]
    table[-1, d.OUTPUT], plan[d.TARGETS] = own.rows(chunk, outputs), own.rows(chunk, outputs)
    plan[d.PROBABILITIES], plan[d.OUTPUT_SLOPES] = own.rows(chunk, outputs), own.rows(chunk, outputs)
    plan[d.CHUNK] = chunk
    table[:, d.WIDE] = [is_wide(network, layer) and not (by_input and layer == 0) for layer in range(network.layers)]
    if table[:, d.WIDE].any():  # for a block of deltas, or a tile's columns of all weights
        most = max(PACKED_ROWS * chunk, COLUMNS * int(plan[d.LANES]) * max(network.sizes[1:]))
        plan[d.PACKED] = own.rows(1, most)
    if by_input:
        rows_by_input(network, plan, shared, own)
    if listed:
        sample_lists(network, plan, own, chunk, INPUT_BLOCK)
        plan[d.WORDS] = plan[d.LISTS]
        plan[d.LISTS] += 2 * table[0, STRIDE]
    elif by_input and network.bias:  # the bias is the last of the rows by input: a 1 after a sample's last value
        own.ones.append((table[0, d.INPUT] + network.sizes[0], chunk, table[0, STRIDE]))
    return finish(network, plan, table, shared, own, members)


def rows_by_input(network: Network, plan: np.ndarray, shared: _Space, own: _Space) -> None:
    """Scratch for `first_layer`: weights and as many state arrays as any rule has, and gradients."""
    n_in, units = network.sizes[0], -(-network.sizes[1] // own.block) * own.block
    plan[d.BY_INPUT], plan[d.UNITS_STRIDE], plan[d.MATRIX] = 1, units, (n_in + 1) * units
    plan[d.WEIGHTS_BY_INPUT] = shared.rows((1 + max(slots for _, slots in UPDATES.values())) * (n_in + 1), units)
    plan[d.GRADIENT_BY_INPUT] = own.rows(n_in + 1, units)
    plan[[d.UNIT_SUMS, d.BASE, d.DELTA_SUM, d.SHIFTED]] = [own.rows(1, units) for _ in range(4)]


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
    if plan[d.ALWAYS]:
        for start in range(int(plan[d.ALWAYS]), len(lists), int(plan[d.LISTS])):
            lists[start : start + 3] = network.sizes[0] + np.arange(3)
    return Plan(plan, table, scratch, members, lists, settings)


def results(table: np.ndarray, samples: int, every_layer: bool) -> int:
    """Say in the table where all activations, or the outputs alone, go in one flat array; returns its length."""
    if not every_layer:
        table[-1, d.RESULT] = 0
        return samples * table.item(-1, N_OUT)
    ends = np.cumsum(samples * table[:, N_OUT])
    table[0, d.RESULT], table[1:, d.RESULT] = 0, ends[:-1]
    return int(ends[-1])


def hyperparameters(rule: Rule, dtype: str, members: int) -> np.ndarray:
    """A set of hyperparameters for each member; those that change with the step are set by the drivers."""
    H = np.zeros((members, d.H_LENGTH), dtype)
    H[:, : len(HYPERPARAMETERS)] = [getattr(rule, name, 0.0) for name in HYPERPARAMETERS]
    if rule.kind == "plain":
        H[:, d.MOMENTUM] = 0  # for the rows that rest, plain descent is momentum 0
    return H.reshape(-1)


plans = _Plans()
