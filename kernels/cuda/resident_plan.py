"""How a persistent epoch is laid out: which blocks own which units, what lies where in shared memory, what fits.

The first layer's units are dealt out to *groups*, each a block; a block keeps its units' incoming weights in
registers, and their outgoing weights (its columns of the second layer) in shared memory. All further layers, if any,
are in every block's shared memory. A batch may be cut into *slices*, each with blocks of its own.

Within a block a unit's row is cut into vectors of 16 bytes. A thread has ``vectors`` vectors, ``pieces`` vectors apart,
of each of ``rows`` units; what it loads of a sample serves all of these. Neighbouring lanes have other units of the
block, the lanes beyond them other pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from fastmlp.kernels.cuda import config
from fastmlp.kernels.network import N_OUT, OFFSET, STRIDE, Network
from fastmlp.kernels.updates import UPDATES

WARP = 32
MOST_KEPT, MOST_SUMS = 48, 32  #: registers of a thread for samples that it keeps, and for sums
PLACES = 4  #: steps, the present one included, whose samples' indices are known
IN_FLIGHT = 20  #: words at most that a thread asks for at once before it looks at them
MOST_REGISTERS = 255  #: of a thread
OTHER_REGISTERS = 20  #: of a thread, for addresses and what is passing; and 3½ more for each of up to 8 samples
LOCAL, CLUSTER, GRID = "local", "cluster", "grid"  #: how blocks exchange: not at all (one block), in a cluster, in L2


class Limits(NamedTuple):
    """What a device has.

    Parameters
    ----------
    compute_capability : tuple of int
    multiprocessors : int
    shared_memory : int
        Bytes that a block may have.
    registers : int
        Of a multiprocessor.
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_memory: int
    registers: int = 65_536


@dataclass(frozen=True)
class Plan:
    """Everything that the text of a resident kernel depends on.

    Parameters
    ----------
    network : Network
    kind : str
        Of the update rule.
    batch : int
        Samples of a whole batch.
    inputs : str
        Dtype of the samples.
    labels, errors : bool
        Whether targets are labels; whether errors are wanted.
    rows : int
        Units of a thread, in the first layer.
    lanes : int
        Lanes with other units: a power of two, at most 32.
    vectors : int
        Of a thread, of each of its units.
    groups : int
        Blocks that the first layer's units are dealt out to.
    slices : int, default 1
        Parts of a batch.
    exchange : {"local", "cluster", "grid"}, default "grid"
        Where the groups' partial sums meet.
    scattered : bool, default False
        Whether each group sums a part of them for all others, instead of each group all of them.
    aligned : bool, default False
        Whether samples begin on 16 bytes, so that they can be copied in vectors.
    """

    network: Network
    kind: str
    batch: int
    inputs: str
    labels: bool
    errors: bool
    rows: int
    lanes: int
    vectors: int
    groups: int
    slices: int = 1
    exchange: str = GRID
    scattered: bool = False
    aligned: bool = False

    @property
    def dtype(self) -> str:
        """Of the arithmetic."""
        return self.network.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return np.dtype(self.dtype).itemsize

    @property
    def vector(self) -> int:
        """Numbers in 16 bytes."""
        return 16 // self.itemsize

    @property
    def slots(self) -> int:
        """Of the update rule."""
        return UPDATES[self.kind][1]

    @property
    def samples(self) -> int:
        """Of a slice of the batch."""
        return -(-self.batch // self.slices)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer, the inputs first."""
        return self.network.sizes

    @property
    def layers(self) -> int:
        """Of weights."""
        return self.network.layers

    @cached_property
    def row_vectors(self) -> int:
        """Vectors of a row of samples."""
        return -(-self.sizes[0] // self.vector)

    @cached_property
    def pieces(self) -> int:
        """Threads that share a unit."""
        return -(-self.row_vectors // self.vectors)

    @property
    def units(self) -> int:
        """Of a block, in the first layer."""
        return self.rows * self.lanes

    @property
    def pieces_per_warp(self) -> int:
        """Of a unit."""
        return WARP // self.lanes

    @cached_property
    def warps(self) -> int:
        """Of a block."""
        return -(-self.pieces // self.pieces_per_warp)

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    @property
    def blocks(self) -> int:
        """Of the grid."""
        return self.groups * self.slices

    @cached_property
    def sample_stride(self) -> int:
        """Numbers from one sample to the next in shared memory: every thread finds its vectors inside."""
        return self.pieces * self.vectors * self.vector

    @property
    def exchanged(self) -> int:
        """Numbers that are exchanged in a step: pre-activations of the second layer, or of the only one."""
        return self.samples * self.sizes[min(self.layers, 2)]

    @property
    def addends(self) -> int:
        """Blocks that add to each of them."""
        return self.groups if self.layers > 1 else 1

    @cached_property
    def readers(self) -> int:
        """Threads among which the addends of one number are shared out."""
        most = max(1, min(self.addends, self.threads // self.exchanged))
        return 1 if self.exchange == LOCAL or self.scattered else most

    @property
    def scattered_share(self) -> int:
        """Numbers that a group sums for all, if they are scattered."""
        return -(-self.exchanged // self.groups)

    @property
    def scattered_lanes(self) -> int:
        """Lanes that share each of these sums."""
        lanes = 1
        while lanes < WARP and lanes < self.addends and 2 * lanes * self.scattered_share <= self.threads:
            lanes *= 2
        return lanes

    @property
    def words(self) -> int:
        """64-bit words of a number with its tag."""
        return self.itemsize // 4

    @property
    def converts(self) -> bool:
        """Whether samples are anything else than what the arithmetic needs."""
        return self.inputs != self.dtype or self.scales

    @property
    def scales(self) -> bool:
        """Whether samples are scaled or shifted."""
        return (self.network.input_scale, self.network.input_shift) != (1.0, 0.0)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each part of shared memory begins, in bytes; "end" is what a block needs."""
        part, itemsize = {}, self.itemsize
        b, own, kept = self.samples, self.units, 1 + self.slots
        part["x"] = 2 * b * self.sample_stride * itemsize
        if self.aligned and self.converts:
            part["raw"] = b * self.sizes[0] * np.dtype(self.inputs).itemsize
        part["places"] = PLACES * b * 4
        part["y"] = 2 * b * (4 if self.labels else self.sizes[-1] * itemsize)
        part["corrections"] = 4 * itemsize
        part["sums"] = self.warps * b * own * itemsize
        part["bias1"] = kept * own * itemsize
        for name in ("a1", "slope1"):
            part[name] = b * own * itemsize
        if self.exchange == CLUSTER:
            part["words"] = 2 * self.addends * self.exchanged * self.words * 8
        part["partial"] = self.readers * self.exchanged * itemsize
        if self.layers > 1:
            part["weights2"] = kept * own * self.sizes[2] * itemsize
            part["bias2"] = kept * self.sizes[2] * itemsize
        for layer in range(3, self.layers + 1):
            n_in, n_out = self.sizes[layer - 1], self.sizes[layer]
            part[f"weights{layer}"] = kept * n_out * self.tail_stride(layer) * itemsize
            part[f"bias{layer}"] = kept * n_out * itemsize
            part[f"slope{layer - 1}"] = b * n_in * itemsize
            if not (layer == 3 and self.readers == 1):  # else activations take the place of what they are made from
                part[f"a{layer - 1}"] = b * n_in * itemsize
            if layer == self.layers:
                part["logits"] = b * n_out * itemsize
        part["delta"] = b * self.sizes[-1] * itemsize
        part["losses"] = b * self.sizes[-1] * itemsize
        if self.errors:
            part["errors"] = b * self.sizes[-1] * itemsize
        offsets, at = {}, 0
        for name, size in part.items():
            offsets[name] = at
            at += -(-size // 16) * 16
        offsets.setdefault("a2", offsets["partial"])
        for layer in range(1, self.layers):
            offsets[f"delta{layer}"] = offsets[f"slope{layer}"]  # a number's delta takes its slope's place
        offsets["end"] = at
        return offsets

    def tail_stride(self, layer: int) -> int:
        """Numbers from row to row of a layer that every block has whole: odd, so that rows spread over the banks."""
        return self.sizes[layer - 1] | 1

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        return self.offsets["end"]

    @property
    def exchange_words(self) -> int:
        """64-bit words of global memory for exchanges."""
        if self.exchange != GRID:
            return 1
        kinds = self.addends + (1 if self.scattered else 0)
        return self.slices * 2 * kinds * self.exchanged * self.words

    @cached_property
    def gradient_offsets(self) -> dict[str, int]:
        """Where each part of a block's gradients begins, in numbers, when slices exchange them; "end" is how many."""
        if self.slices == 1:
            return {"end": 1}
        parts = {"first": self.threads * self.rows * self.vectors * self.vector, "losses": 2, "bias1": self.units}
        if self.layers > 1:
            parts["weights2"] = self.units * self.sizes[2]
        for layer in range(2, self.layers + 1):
            parts[f"bias{layer}"] = self.sizes[layer]
            if layer > 2:
                parts[f"weights{layer}"] = self.sizes[layer] * self.sizes[layer - 1]
        offsets, at = {}, 0
        for name, size in parts.items():
            offsets[name] = at
            at += -(-size // self.vector) * self.vector
        offsets["end"] = at
        return offsets

    @property
    def gradient_numbers(self) -> int:
        """Numbers of global memory in which slices exchange gradients."""
        return 1 if self.slices == 1 else 2 * self.blocks * self.gradient_offsets["end"]

    @property
    def keeps_samples(self) -> bool:
        """Whether a thread has room for what it loads of a batch's samples until it updates."""
        return self.samples * self.vectors * self.vector * self.words <= MOST_KEPT

    @property
    def together(self) -> int:
        """Samples whose sums a thread holds at once."""
        most = max(1, MOST_SUMS // (self.rows * self.words))
        return min(8, 1 << (most.bit_length() - 1))

    @property
    def registers(self) -> int:
        """Of a thread, about: weights and state, sums or gradients, samples that are kept, addresses and the rest."""
        weights = self.rows * self.vectors * self.vector
        sums = max(self.together * self.rows, weights)
        kept = self.samples * self.vectors * self.vector if self.keeps_samples else self.vector
        others = OTHER_REGISTERS + 7 * min(8, self.samples) // 2
        others_gradients = weights if self.slices > 1 else 0
        return self.words * (weights * (1 + self.slots) + sums + kept + others_gradients) + others

    def place(self, layer: int) -> tuple[int, int, int]:
        """Units, first weight and stride of a layer in the flat array, layers counted from 1."""
        row = self.network.table[layer - 1]
        return int(row[N_OUT]), int(row[OFFSET]), int(row[STRIDE])


# ------------------------------------------------------------------------------------------------------- choosing
def fits(plan: Plan, limits: Limits) -> bool:
    """Whether all blocks of a plan can be on the device at the same time, one on a multiprocessor."""
    granted = -(-plan.warps // 4) * 4 * WARP  # registers are given out to four warps at a time, 8 to each thread
    a_thread = min(MOST_REGISTERS, limits.registers // granted // 8 * 8)
    return (
        plan.blocks <= limits.multiprocessors
        and plan.threads <= config.RESIDENT_THREADS
        and plan.shared_bytes <= limits.shared_memory
        and plan.registers + config.RESIDENT_SPARE <= a_thread
        and plan.exchange_words < 2**31
        and plan.gradient_numbers < 2**31
    )


def cycles(plan: Plan) -> float:
    """Cycles of a step, by a model: what the schedulers of a multiprocessor issue, what its shared memory delivers, and
    what barriers and exchanges cost. None of it has been measured on a GPU.
    """
    s, n2 = plan.samples, plan.sizes[min(plan.layers, 2)]
    slow = plan.words  # float64 is issued at half the rate (of the GPUs made for it)
    rounds = -(-plan.warps // 4)  # warps that a scheduler has
    weights = plan.rows * plan.vectors * plan.vector
    products = 2 * slow * rounds * s * weights
    loads = (1 if plan.keeps_samples else 2) * 4 * plan.warps * s * plan.vectors
    first = max(products, loads) + config.FOLD_CYCLES * slow * rounds * s * plan.rows
    updates = rounds * slow * weights * config.UPDATE_CYCLES[plan.kind]
    parts = 0.0
    if plan.layers > 1:
        own = plan.units * s * n2 * 3 + config.UPDATE_CYCLES[plan.kind] * plan.units * n2
        parts = config.LOOSE_CYCLES * slow * own / plan.threads
    above = sum(a * b for a, b in zip(plan.sizes[2:], plan.sizes[3:], strict=False))
    parts += config.LOOSE_CYCLES * slow * above * (3 * s + config.UPDATE_CYCLES[plan.kind]) / plan.threads
    conversion = config.LOOSE_CYCLES * s * plan.sizes[0] / plan.threads if not plan.aligned or plan.converts else 0
    rows_at_once = plan.warps * max(1, WARP // plan.sizes[-1])
    parts += config.ROW_CYCLES * -(-s // rows_at_once)
    meetings = config.MEETING_CYCLES * (6 + 3 * max(0, plan.layers - 2))
    return first + updates + parts + meetings + max(conversion, exchange_cycles(plan)) + slice_cycles(plan)


def exchange_cycles(plan: Plan) -> float:
    """Cycles until every block has what all blocks have sent."""
    if plan.exchange == LOCAL:
        return 0
    volume = 8 * plan.words * plan.exchanged
    readers = plan.scattered_lanes if plan.scattered else plan.readers
    rounds = -(-plan.addends // (readers * IN_FLIGHT)) - 1  # of waiting for words that are there already
    if plan.exchange == CLUSTER:
        return config.CLUSTER_TRIP + volume * plan.groups / config.CLUSTER_BYTES
    if plan.scattered:
        return 2 * config.GRID_TRIP + rounds * config.L2_CYCLES + 3 * volume / config.L2_BYTES
    return config.GRID_TRIP + rounds * config.L2_CYCLES + volume * plan.addends / config.L2_BYTES


def slice_cycles(plan: Plan) -> float:
    """Cycles until the gradients of all slices are added up."""
    if plan.slices == 1:
        return 0
    volume = plan.gradient_offsets["end"] * plan.itemsize * (1 + plan.slices)
    return 2 * config.GRID_TRIP + volume / config.L2_BYTES


def tiled_cycles(limits: Limits, network: Network, batch: int) -> float:
    """Cycles of a step by tiled products, by a model as rough: phases with a barrier of the grid after each, and the
    products of all three passes at a share of what the multiprocessors can do.
    """
    phases = 3 * network.layers
    rate = 4 * WARP * limits.multiprocessors * config.TILED_RATE / (np.dtype(network.dtype).itemsize // 4)
    return phases * config.PHASE_CYCLES + 3 * batch * network.multiply_adds / rate


def candidates(base: Plan, limits: Limits) -> Iterator[Plan]:
    """All ways to lay out a network, batch and rule that are worth a look."""
    hidden = base.sizes[1]
    for rows, lanes in product(config.RESIDENT_ROWS, (1, 2, 4, 8, 16, 32)):
        units = rows * lanes
        groups = -(-hidden // units)
        if groups > limits.multiprocessors or (units > hidden and units >= 2 * hidden and lanes > 1):
            continue
        for vectors in range(1, min(base.row_vectors, config.RESIDENT_VECTORS) + 1):
            p = replace(base, rows=rows, lanes=lanes, vectors=vectors, groups=groups, slices=1, exchange=GRID)
            if p.pieces * p.rows * p.lanes < WARP and vectors > 1:
                break  # fewer pieces than lanes: more vectors only leave lanes idle
            if p.threads > config.RESIDENT_THREADS or p.registers + config.RESIDENT_SPARE > MOST_REGISTERS:
                continue
            yield from exchanges(p, limits)


def exchanges(p: Plan, limits: Limits) -> Iterator[Plan]:
    """A layout of units with each kind of exchange and number of slices that the device has room for."""
    if p.groups == 1:
        yield replace(p, exchange=LOCAL)
    else:
        yield p
        if p.layers > 1:
            yield replace(p, scattered=True)
        cluster = 1 << (p.groups - 1).bit_length()
        if limits.compute_capability >= (9, 0) and cluster <= config.CLUSTER_BLOCKS:
            yield replace(p, exchange=CLUSTER, groups=cluster)
    most = min(limits.multiprocessors // p.groups, -(-p.batch // config.LEAST_SLICE))
    for slices in range(2, most + 1):
        q = replace(p, slices=slices, exchange=LOCAL if p.groups == 1 else GRID)
        if (slices - 1) * q.samples < p.batch:  # no slice without samples
            yield q


@lru_cache(maxsize=256)
def choose(
    limits: Limits, network: Network, kind: str, batch: int, inputs: str, labels: bool, errors: bool, aligned: bool
) -> Plan | None:
    """The quickest plan by the model; None where no plan fits: the network is then too wide to stay resident.

    Parameters
    ----------
    limits : Limits
    network : Network
        Its loss, scales and the like count: kernels are written for them.
    kind : str
        Of the update rule.
    batch : int
        Samples of a batch.
    inputs : str
        Dtype of the samples.
    labels, errors : bool
        Whether targets are labels; whether errors are wanted.
    aligned : bool
        Whether every sample begins on 16 bytes.
    """
    base = Plan(network, kind, batch, inputs, labels, errors, 1, 1, 1, 1, aligned=aligned)
    fitting = (p for p in candidates(base, limits) if fits(p, limits))
    return min(fitting, key=cycles, default=None)


def is_aligned(network: Network, inputs: np.dtype, start: int = 0) -> bool:
    """Whether all samples of an array that begins at an address begin on 16 bytes."""
    return start % 16 == 0 and network.sizes[0] * inputs.itemsize % 16 == 0
