"""How a persistent epoch is laid out: which blocks own which units, what lies where in shared memory, what fits.

The first layer's units are dealt out to *groups*, each a block; a block keeps its units' incoming weights in
registers, and their outgoing weights (its columns of the second layer) in shared memory. All further layers, if any,
are in every block's shared memory. A batch may be cut into *slices*, each with blocks of its own.

Within a block a unit's row is cut into vectors of 16 bytes. A thread has ``vectors`` vectors, ``pieces`` vectors apart,
of each of ``rows`` units; what it loads of a sample serves all of these. Neighbouring lanes have other units of the
block, the lanes beyond them other pieces.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastmlp.kernels.network import N_OUT, OFFSET, STRIDE, Network
from fastmlp.kernels.updates import UPDATES

WARP = 32
MOST_KEPT, MOST_SUMS = 48, 32  #: registers of a thread for samples that it keeps, and for sums
OTHER_REGISTERS = 48  #: of a thread, for addresses and what is passing
LOCAL, CLUSTER, GRID = "local", "cluster", "grid"  #: how blocks exchange: not at all (one block), in a cluster, in L2


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
        part["places"] = 2 * b * 4
        part["y"] = 2 * b * (4 if self.labels else self.sizes[-1] * itemsize)
        part["corrections"] = 4 * itemsize
        part["sums"] = self.warps * b * own * itemsize
        part["bias1"] = kept * own * itemsize
        for name in ("a1", "slope1", "delta1"):
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
            for name in ("a", "slope", "delta"):
                part[f"{name}{layer - 1}"] = b * n_in * itemsize
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
        return self.words * (weights * (1 + self.slots) + sums + kept) + OTHER_REGISTERS

    def place(self, layer: int) -> tuple[int, int, int]:
        """Units, first weight and stride of a layer in the flat array, layers counted from 1."""
        row = self.network.table[layer - 1]
        return int(row[N_OUT]), int(row[OFFSET]), int(row[STRIDE])
