"""The kernel of a persistent epoch as text: the weights stay in registers and shared memory from first step to last.

`text` writes the kernel of a `Plan`. A step of it, for a network with one hidden layer:

1. A block multiplies the batch with its own units' weights, in registers; the pieces of a sum meet in shared memory.
2. It activates them, and multiplies them with its columns of the second layer: its part of every output's sum.
3. It sends the parts to all other blocks as tagged words (`fastmlp.kernels.cuda.ptx`), which are the only thing that
   crosses between blocks, and while they travel brings in the next batch and reports the loss of the last.
4. It adds up the parts of all blocks: now every block has all outputs, and computes loss and delta for itself.
5. It takes the delta back through its columns, and updates its columns and its own units' weights.

With more hidden layers, every block goes through the layers above the second one for itself, between 4 and 5. With
none, what is sent are the outputs of the block's units, and there are no columns. Every sum is taken in one fixed
order, so results don't depend on the schedule.

A batch that is short has its last sample repeated, with a delta of zero. Padding is zero and stays so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import formulas
from fastmlp.kernels.cuda.generate import Text
from fastmlp.kernels.cuda.resident_plan import CLUSTER, IN_FLIGHT, LOCAL, PLACES, WARP, Plan
from fastmlp.kernels.losses import CROSS_ENTROPY, LOSSES

HEADER = '''"""A persistent epoch, written by fastmlp.kernels.cuda.resident."""

from math import inf

from numba import cuda
from numba.cuda.types import float32, float64, int32, int64, uint8, uint32, uint64

from fastmlp.kernels.cuda.elementwise import exp, fabs, log, log1p, sqrt, tanh
from fastmlp.kernels.cuda.ptx import (
    acquire, arrive, cluster_of, cluster_rank, cluster_sync, commit_copies, copy_async, load_global, load_shared,
    receive, receive_double, receive_double_here, receive_here, send, send_double, send_double_to, send_to,
    store_global, store_shared, wait_copies,
)
from fastmlp.kernels.cuda.vectors import add, add_scaled, afresh, dot, fold, select

'''

#: Parameters of every resident kernel.
PARAMETERS = (
    "parameters, slots, X, Y, order, losses, errors, corrections, words, counters, gradients, samples, steps, "
    "learning_rate, momentum, beta1, beta2, epsilon, input_scale, input_shift, l2"
)

#: Above how many samples a loop replaces straight code.
UNROLLED = 16


def u(n: int) -> str:
    """A constant index."""
    return f"uint32({n})"


class Writer:
    """Writes the kernel of a plan; a method a phase."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.text = plan, Text()
        self.dtype, network = plan.dtype, plan.network
        self.bias, self.activations = network.bias, network.activations
        self.hidden = plan.sizes[1]  # units of the first layer
        self.outputs = plan.sizes[-1]
        self.double = self.dtype == "float64"

    # ---------------------------------------------------------------------------------------------- small helpers
    def number(self, x: float) -> str:
        """A constant of the arithmetic's dtype."""
        return f"{self.dtype}({x!r})"

    def at(self, name: str) -> int:
        """Where a part of shared memory begins, in numbers."""
        return self.plan.offsets[name] // self.plan.itemsize

    def real(self, name: str, index: str, more: int = 0) -> str:
        """A number in a part of shared memory."""
        return f"real[{u(self.at(name) + more)} + {index}]"

    def sync(self) -> None:
        """A barrier of the block."""
        self.text("cuda.syncthreads()")

    @contextmanager
    def share(self, count: int, name: str = "e", last_first: bool = False) -> Iterator[None]:
        """What follows is done for each number below ``count``, each by one thread.

        ``last_first`` begins with the last thread, so that what comes side by side falls to different threads.
        """
        threads = self.plan.threads
        mine = f"uint32({u(threads - 1)} - afresh(thread))" if last_first else "afresh(thread)"
        with self.stepping(name, mine, u(count), threads, count <= threads):
            yield

    @contextmanager
    def stepping(self, name: str, start: str, stop: str, step: int, once: bool = False) -> Iterator[None]:
        """A loop over indices, of one turn at most if ``once``.

        In Python's range Numba counts with 64 bits, and computes beforehand how many turns there will be.
        """
        self.text(f"{name} = uint32({start})")
        with self.text.block(f"{'if' if once else 'while'} {name} < {stop}:"):
            yield
            if not once:
                self.text(f"{name} = uint32({name} + {u(step)})")

    def lanes_for(self, count: int, terms: int) -> int:
        """Lanes that share each of ``count`` sums of so many terms: as many as there are threads for."""
        lanes = 1
        while lanes < WARP and 2 * lanes * count <= self.plan.threads and terms >= 8 * lanes:
            lanes *= 2
        return lanes

    @contextmanager
    def sums(self, count: int, terms: int, term: Callable[[str], str]) -> Iterator[None]:
        """For each ``e`` below count: ``z`` is the sum of ``term(i)`` for i below ``terms``; what follows uses both.

        ``term`` may use ``e``. Where there are threads to spare, several lanes share a sum and the first of them goes
        on with it.
        """
        lanes = self.lanes_for(count, terms)
        if lanes == 1:
            with self.share(count):
                self.add_up(terms, term)
                yield
            return
        whole = -(-count * lanes // WARP) * WARP  # all lanes of a warp take part in its shuffles
        with self.share(whole, "f"):
            self.text(f"e = uint32(f // {u(lanes)})", f"lane_of_sum = uint32(f % {u(lanes)})")
            self.text(f"wanted = e < {u(count)}", f"e = select(wanted, e, {u(0)})")
            self.add_up(terms, term, lanes)
            self.fold("z", lanes // 2)
            with self.text.block(f"if wanted and lane_of_sum == {u(0)}:"):
                yield

    def add_up(self, terms: int, term: Callable[[str], str], lanes: int = 1) -> None:
        """``z`` becomes this lane's part of a sum."""
        if terms <= 32 and lanes == 1:
            self.text("z = " + " + ".join(term(u(i)) for i in range(terms)))
            return
        self.text(f"z = {self.number(0)}")
        with self.stepping("i", "lane_of_sum" if lanes > 1 else u(0), u(terms), lanes):
            self.text(f"z += {term('i')}")

    def fold(self, name: str, start: int, end: int = 1, what: str = "+") -> None:
        """Each lane gets the sum, or the largest, over the lanes that differ in the bits from ``start`` to ``end``."""
        while start >= end:
            other = f"cuda.shfl_xor_sync({u(0xFFFFFFFF)}, {name}, {start})"
            if what == "+":
                self.text(f"{name} += {other}")
            else:
                self.text(f"rival = {other}", f"{name} = select(rival > {name}, rival, {name})")
            start //= 2

    def written(self, result: formulas.Written) -> tuple[str, ...]:
        """Add the lines of a formula; the texts of its results."""
        self.text(*result.lines)
        return result.results

    # ------------------------------------------------------------------------------------- formulas as functions
    def functions(self) -> None:
        """The formulas that the kernel calls, each as a function of its own."""
        for name in dict.fromkeys(self.activations):
            if name in ACTIVATIONS:
                self.activation_function(name)
        if self.plan.network.loss in LOSSES:
            self.loss_function()
        self.step_function()
        self.vector_step_function()

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """A function that becomes part of its callers."""
        self.text("@cuda.jit(device=True, forceinline=True)")
        with self.text.block(f"def {head}:"):
            yield
        self.text("", "")

    def activation_function(self, name: str) -> None:
        """Value and slope of a unit."""
        with self.function(f"activate_{name}(z)"):
            results = self.written(formulas.activation(name, "z", self.dtype))
            self.text(f"return {', '.join(results)}")

    def loss_function(self) -> None:
        """Loss and delta of an output."""
        with self.function("output_loss(z, a, slope, y)"):
            results = self.written(formulas.loss(self.plan.network.loss, "z", "a", "slope", "y", self.dtype))
            self.text(f"return {', '.join(results)}")

    @property
    def slot_names(self) -> list[str]:
        """Of one number."""
        return [f"slot{k}" for k in range(self.plan.slots)]

    @property
    def rates(self) -> list[str]:
        """What the rule reads, besides the penalty's rate, which is 0 for biases."""
        return ["penalty", *formulas.uses(self.plan.kind)]

    def step_function(self) -> None:
        """The rule's step of one number."""
        with self.function(f"step_of({', '.join(['w', 'g', *self.slot_names, *self.rates])})"):
            if self.plan.network.l2:
                self.text("g = g + penalty * w")
            results = self.written(formulas.update(self.plan.kind, "w", "g", self.slot_names, self.dtype))
            self.text(f"return {', '.join(results)},")

    def vector_step_function(self) -> None:
        """The rule's step of a vector."""
        kept, numbers = ["w", *self.slot_names], range(self.plan.vector)
        with self.function(f"vector_step_of({', '.join(['w', 'g', *self.slot_names, *self.rates])})"):
            for q in numbers:
                given = [f"{name}[{q}]" for name in ("w", "g", *self.slot_names)]
                results = ", ".join(f"{name}_{q}" for name in kept)
                self.text(f"{results}, = step_of({', '.join([*given, *self.rates])})")
            vectors = (", ".join(f"{name}_{q}" for q in numbers) for name in kept)
            self.text(f"return {', '.join(f'({vector})' for vector in vectors)},")

    def activate(self, layer: int, z: str) -> tuple[str, str]:
        """Value and slope of a layer's units."""
        self.text(f"a, slope = activate_{self.activations[layer - 1]}({z})")
        return "a", "slope"

    def update_shared(self, name: str, size: int) -> None:
        """One step of the rule on element ``place`` of a part of shared memory, whose gradient is ``z``.

        The rule's slots follow the part, each as long as it: ``size``.
        """
        kept = ", ".join(self.real(name, "place", k * size) for k in range(1 + self.plan.slots))
        weight, *slots = (self.real(name, "place", k * size) for k in range(1 + self.plan.slots))
        rates = self.rates if name.startswith("weights") else [self.number(0), *self.rates[1:]]
        self.text(f"{kept}, = step_of({', '.join([weight, 'z', *slots, *rates])})")

    # ------------------------------------------------------------------------------------------------ the kernel
    def kernel(self) -> str:
        """The whole text."""
        self.functions()
        with self.text.block(f"def epoch({PARAMETERS}):"):
            self.names()
            self.take_weights()
            self.first_batch()
            with self.text.block("while step < steps:"):
                self.count_samples()
                self.first_layer()
                self.sync()
                self.first_activations()
                self.send_parts()
                self.meanwhile()
                self.receive_parts()
                self.further_layers()
                self.outputs_and_deltas()
                self.sync()
                self.deltas_back()
                self.update_all()
                if self.copies_directly:
                    self.text("wait_copies()")
                    self.sync()
                self.text(f"step = uint32(step + {u(1)})")
                self.text("now, other = other, now")
            self.text("wait_copies()")
            self.sync()
            if self.plan.slices == 1:
                self.report_losses()
            self.give_weights()
            if self.plan.exchange == CLUSTER:
                self.text("cluster_sync()  # nobody leaves while others may still write into its memory")
        return HEADER + str(self.text)

    def names(self) -> None:
        """What every phase refers to: memory, who this thread is, what it owns."""
        plan, t = self.plan, self.text
        if plan.exchange == CLUSTER:
            t(f"cluster_of({plan.groups})")
        t(f"real = cuda.shared.array(0, {self.dtype}, 16)", "places = cuda.shared.array(0, int32, 16)")
        if plan.labels:
            t("labels = cuda.shared.array(0, int32, 16)")
        if "raw" in plan.offsets:
            raw = "uint32" if plan.inputs == "uint8" else plan.inputs
            t(f"raw = cuda.shared.array(0, {plan.inputs}, 16)")
            t(f"raw_vectors = cuda.shared.array(0, {raw}, 16)")
        if plan.exchange == CLUSTER:
            t("here = cuda.shared.array(0, uint64, 16)")
        t("thread = uint32(cuda.threadIdx.x)")
        t(f"lane = uint32(thread & {u(31)})", f"warp = uint32(thread >> {u(5)})")
        t("block = uint32(cuda.blockIdx.x)")
        t(f"group = uint32(block % {u(plan.groups)})", f"slice_ = uint32(block // {u(plan.groups)})")
        t(f"unit = uint32(lane % {u(plan.lanes)} * {u(plan.rows)})  # of this block: the first of this thread")
        t(f"piece = uint32(warp * {u(plan.pieces_per_warp)} + lane // {u(plan.lanes)})  # of the units' rows")
        t(f"first = uint32(group * {u(plan.units)})")
        t(f"owned = uint32(min(max(int32({self.hidden}) - int32(first), int32(0)), int32({plan.units})))")
        t(f"working = piece < {u(plan.pieces)}", f"piece = select(working, piece, {u(0)})")
        t(*(f"live{m} = working and unit + {u(m)} < owned" for m in range(plan.rows)))
        t(f"step, now, other = {u(0)}, {u(0)}, {u(1)}")

    # --------------------------------------------------------------------------------- weights in, weights out
    def first_row(self) -> str:
        """Where this thread's first vector lies in the flat array."""
        _, offset, stride = self.plan.place(1)
        return f"{u(offset)} + (first + unit) * {u(stride)} + piece * {u(self.plan.vector)}"

    def each_vector(self) -> Iterator[tuple[int, int]]:
        """The rows and vectors of a thread."""
        return ((m, j) for m in range(self.plan.rows) for j in range(self.plan.vectors))

    @contextmanager
    def if_vector(self, m: int, j: int) -> Iterator[None]:
        """What follows is done where this thread's vector ``j`` of its row ``m`` exists."""
        plan = self.plan
        inside = (j + 1) * plan.pieces <= plan.row_vectors
        more = "" if inside else f" and piece + {u(j * plan.pieces)} < {u(plan.row_vectors)}"
        with self.text.block(f"if live{m}{more}:"):
            yield

    def vector_place(self, m: int, j: int, more: int) -> str:
        """Where a vector lies in an array of parameters or slots."""
        _, _, stride = self.plan.place(1)
        return f"start + {u(m * stride + j * self.plan.pieces * self.plan.vector + more)}"

    def take_weights(self) -> None:
        """Parameters and state into registers and shared memory; everything else there zero."""
        plan, t = self.plan, self.text
        t(f"zeros = ({', '.join([self.number(0)] * plan.vector)})", f"start = uint32({self.first_row()})")
        for m, j in self.each_vector():
            t(*(f"{letter}{m}_{j} = zeros" for letter, _, _ in self.kept_arrays()))
            with self.if_vector(m, j):
                for letter, array, more in self.kept_arrays():
                    t(f"{letter}{m}_{j} = load_global({array}, {self.vector_place(m, j, more)})")
        with self.share(2 * plan.samples * plan.sample_stride):
            t(f"{self.real('x', 'e')} = {self.number(0)}")
        for move in self.moves():
            move(False)
        if plan.exchange == CLUSTER:
            with self.share(2 * plan.addends * plan.exchanged * plan.words):
                t(f"here[{u(plan.offsets['words'] // 8)} + e] = uint64(0)")
        self.sync()
        if plan.exchange == CLUSTER:
            t("cluster_sync()  # all words are empty before any is sent")
        elif plan.blocks > 1:
            self.meet(u(0), u(plan.blocks))  # all have read the parameters before any is written back

    def meet(self, counter: str, arrivals: str) -> None:
        """A barrier of the blocks that count on a counter, zero when the kernel starts, until it has so many."""
        self.sync()
        with self.text.block(f"if thread == {u(0)}:"):
            self.text(f"arrive(counters, {counter}, {u(1)})")
            with self.text.block(f"while acquire(counters, {counter}) < {arrivals}:"):
                self.text("pass")
        self.sync()

    def kept_arrays(self) -> list[tuple[str, str, int]]:
        """Parameters and slots: the letter of their names, their array, and where they begin in it."""
        size = self.plan.network.size
        return [("w", "parameters", 0), *((f"s{k}w", "slots", k * size) for k in range(self.plan.slots))]

    def moves(self) -> list[Callable[[bool], None]]:
        """The parts of parameters and state that lie in shared memory, each as a function that writes the move."""
        moves: list[Callable[[bool], None]] = []
        if self.bias:
            moves.append(self.move_first_bias)
        if self.plan.layers > 1:
            moves.append(self.move_columns)
            for layer in range(2, self.plan.layers + 1):
                if self.bias:
                    moves.append(partial(self.move_bias, layer))
                if layer > 2:
                    moves.append(partial(self.move_layer, layer))
        return moves

    def move(self, name: str, size: int, index: str, place: str, back: bool) -> None:
        """An element and its slots between memories."""
        for k, (_, array, more) in enumerate(self.kept_arrays()):
            inside, outside = self.real(name, index, k * size), f"{array}[{u(more)} + {place}]"
            self.text(f"{outside} = {inside}" if back else f"{inside} = {outside}")

    def move_or_zero(self, name: str, size: int, condition: str, place: str, back: bool) -> None:
        """An element that this block may not own, for index ``e``."""
        with self.text.block(f"if {condition}:"):
            self.move(name, size, "e", place, back)
        if not back:
            with self.text.block("else:"):
                for k in range(1 + self.plan.slots):
                    self.text(f"{self.real(name, 'e', k * size)} = {self.number(0)}")

    def move_first_bias(self, back: bool) -> None:
        """The biases of this block's units."""
        _, offset, stride = self.plan.place(1)
        with self.share(self.plan.units):
            place = f"{u(offset - 1)} + (first + e) * {u(stride)}"
            self.move_or_zero("bias1", self.plan.units, "e < owned", place, back)

    def move_columns(self, back: bool) -> None:
        """The second layer's weights from this block's units."""
        n, offset, stride = self.plan.place(2)
        with self.share(self.plan.units * n):
            place = f"{u(offset)} + e % {u(n)} * {u(stride)} + first + e // {u(n)}"
            self.move_or_zero("weights2", self.plan.units * n, f"e // {u(n)} < owned", place, back)

    def move_bias(self, layer: int, back: bool) -> None:
        """The biases of a layer that every block has whole; the first block gives them back."""
        n, offset, stride = self.plan.place(layer)
        with self.by_first_block(back), self.share(n):
            self.move(f"bias{layer}", n, "e", f"{u(offset - 1)} + e * {u(stride)}", back)

    def move_layer(self, layer: int, back: bool) -> None:
        """The weights of a layer that every block has whole; the first block gives them back."""
        n, offset, stride = self.plan.place(layer)
        n_in, row = self.plan.sizes[layer - 1], self.plan.tail_stride(layer)
        with self.by_first_block(back), self.share(n * n_in):
            inside = f"e // {u(n_in)} * {u(row)} + e % {u(n_in)}"
            outside = f"{u(offset)} + e // {u(n_in)} * {u(stride)} + e % {u(n_in)}"
            self.move(f"weights{layer}", n * row, inside, outside, back)

    @contextmanager
    def by_first_block(self, only: bool) -> Iterator[None]:
        """What follows is done by one block, if ``only`` that."""
        with self.text.block(f"if block == {u(0)}:") if only else nullcontext():
            yield

    def give_weights(self) -> None:
        """Parameters and state back to global memory; of several slices, which have the same, the first does it."""
        t = self.text
        with t.block(f"if slice_ == {u(0)}:"):
            for m, j in self.each_vector():
                with self.if_vector(m, j):
                    for letter, array, more in self.kept_arrays():
                        t(f"store_global({array}, {self.vector_place(m, j, more)}, {letter}{m}_{j})")
            for move in self.moves():
                move(True)

    # -------------------------------------------------------------------------------------------------- batches
    def first_batch(self) -> None:
        """The first batch's samples and targets, and where those of the next are."""
        for ahead in range(PLACES - 1):
            self.place_samples(ahead)
        self.sync()
        self.start_copies(0, "now")
        self.take_targets(0, "now")
        self.take_samples(0, "now")
        self.sync()

    def ahead(self, steps: int) -> str:
        """A later step."""
        return f"uint32(step + {u(steps)})"

    def places_of(self, steps: int) -> str:
        """Where the indices of a later step's samples begin in shared memory."""
        plan = self.plan
        return f"{u(plan.offsets['places'] // 4)} + {self.ahead(steps)} % {u(PLACES)} * {u(plan.samples)}"

    def place_samples(self, steps: int) -> None:
        """Look up which samples a later step takes; those that it lacks are the last one again."""
        plan, t = self.plan, self.text
        with self.share(plan.samples, last_first=True):
            t(f"p = {self.ahead(steps)} * {u(plan.batch)} + slice_ * {u(plan.samples)} + e")
            t(f"places[{self.places_of(steps)} + e] = order[uint32(min(p, samples - {u(1)}))]")

    def place_of(self, sample: str, steps: int) -> str:
        """The index in X of a sample of a later step."""
        return f"uint64(places[{self.places_of(steps)} + {sample}])"

    def start_copies(self, steps: int, buffer: str) -> None:
        """Set off a later step's rows, if they can be copied in vectors: to where they are used, or converted."""
        plan, t = self.plan, self.text
        if not plan.aligned:
            return
        per_row, numbers = self.copies()
        with self.each_piece(per_row):
            if plan.converts:
                raw = plan.offsets["raw"] * numbers // 16
                target = f"raw, {u(raw)} + (b * {u(per_row)} + v) * {u(numbers)}"
            else:
                target = f"real, {self.sample_at('b', buffer)} + v * {u(numbers)}"
            source = f"{self.place_of('b', steps)} * uint64({plan.sizes[0]}) + v * {u(numbers)}"
            t(f"copy_async({target}, X, {source})")
        t("commit_copies()")

    def copies(self) -> tuple[int, int]:
        """Copies of 16 bytes a row, and numbers in each."""
        numbers = {"uint8": 16, "float32": 4, "float64": 2}[self.plan.inputs]
        return self.plan.sizes[0] // numbers, numbers

    def sample_at(self, sample: str, buffer: str) -> str:
        """Where a sample begins in shared memory."""
        plan = self.plan
        stride = plan.sample_stride
        return f"{u(self.at('x'))} + {buffer} * {u(plan.samples * stride)} + {sample} * {u(stride)}"

    @contextmanager
    def each_piece(self, per_row: int) -> Iterator[None]:
        """What follows is done for each piece ``v`` of each row ``b`` of samples, always by the same thread.

        Rows are taken several at once where they are short: what a piece needs of its row is looked up once a row.
        """
        threads, t = self.plan.threads, self.text
        width = min(threads, 1 << (per_row - 1).bit_length())
        rows = threads // width
        t("p = afresh(thread)")
        with t.block(f"if p < {u(rows * width)}:") if rows * width < threads else nullcontext():
            start, first = (f"p // {u(width)}", f"p % {u(width)}") if rows > 1 else (u(0), "p")
            with (
                self.stepping("b", start, u(self.plan.samples), rows),
                self.stepping("v", first, u(per_row), width, per_row <= width),
            ):
                yield

    def take_samples(self, steps: int, buffer: str) -> None:
        """Samples of a later step in the arithmetic's dtype, scaled and shifted.

        What is to be converted was set off a step before, and the next follows it.
        """
        if not self.plan.aligned:
            self.take_numbers(steps, buffer)
            return
        self.text("wait_copies()")
        if self.plan.converts:
            self.convert_copies(buffer)
            self.start_copies(steps + 1, buffer)

    def take_targets(self, steps: int, buffer: str) -> None:
        """Labels or rows of targets of a later step, and what else depends on the step."""
        plan, t = self.plan, self.text
        if plan.kind == "adam":
            self.take_corrections(steps, buffer)
        if plan.labels:
            with self.share(plan.samples, last_first=True):
                label = f"labels[{u(plan.offsets['y'] // 4)} + {buffer} * {u(plan.samples)} + e]"
                t(f"{label} = Y[{self.place_of('e', steps)}]")
            return
        n, count = u(self.outputs), plan.samples * self.outputs
        with self.share(count, last_first=True):
            place = f"{self.place_of(f'e // {n}', steps)} * uint64({self.outputs}) + e % {n}"
            t(f"{self.real('y', f'{buffer} * {u(count)} + e')} = Y[{place}]")

    def take_corrections(self, steps: int, buffer: str) -> None:
        """Adam's two corrections of a step, from a table made outside."""
        with self.share(2):
            last = f"uint32(min({self.ahead(steps)}, steps - {u(1)}))"
            self.text(f"{self.real('corrections', f'{buffer} * {u(2)} + e')} = corrections[{last} * {u(2)} + e]")

    def converted(self, x: str) -> str:
        """A sample's number as the network takes it."""
        x = f"{self.dtype}({x})"
        return f"{x} * input_scale + input_shift" if self.plan.scales else x

    def take_numbers(self, steps: int, buffer: str) -> None:
        """Samples number by number, whatever their alignment."""
        plan, t = self.plan, self.text
        n = plan.sizes[0]
        with self.each_piece(n):
            x = f"X[{self.place_of('b', steps)} * uint64({n}) + v]"
            t(f"real[{self.sample_at('b', buffer)} + v] = {self.converted(x)}")

    def convert_copies(self, buffer: str) -> None:
        """Each thread converts what it copied, so nobody waits for others."""
        plan, t = self.plan, self.text
        per_row, numbers = self.copies()
        with self.each_piece(per_row):
            t(f"target = {self.sample_at('b', buffer)} + v * {u(numbers)}")
            words = 4 if plan.inputs == "uint8" else numbers
            piece = f"{u(plan.offsets['raw'] * words // 16)} + (b * {u(per_row)} + v) * {u(words)}"
            t(f"{', '.join(f'r{i}' for i in range(words))} = load_shared(raw_vectors, {piece})")
            if plan.inputs == "uint8":
                given = [f"uint32(r{i // 4} >> {u(8 * (i % 4))} & {u(255)})" for i in range(16)]
            else:
                given = [f"r{i}" for i in range(words)]
            if numbers < plan.vector:  # float64 samples of a float32 network
                for i, x in enumerate(given):
                    t(f"real[target + {u(i)}] = {self.converted(x)}")
                return
            for i in range(0, numbers, plan.vector):
                values = ", ".join(map(self.converted, given[i : i + plan.vector]))
                t(f"store_shared(real, target + {u(i)}, ({values},))")

    def count_samples(self) -> None:
        """How many samples this step has, and what depends on it."""
        plan, t = self.plan, self.text
        t(f"begin = uint32(step * {u(plan.batch)})", f"whole = uint32(min(samples - begin, {u(plan.batch)}))")
        if plan.slices > 1:
            t(f"before = uint32(slice_ * {u(plan.samples)})")
            t(f"present = uint32(min(max(int32(whole) - int32(before), int32(0)), int32({plan.samples})))")
        else:
            t("present = whole")
        t(f"count = {self.dtype}(whole)", f"tag = uint32(step + {u(1)})")
        t("penalty = l2 / count")
        if plan.kind == "adam":
            for k in (0, 1):
                t(f"correction{k + 1} = {self.real('corrections', f'now * {u(2)}', k)}")

    # -------------------------------------------------------------------------------------------------- forward
    def each_sample(self, body: Callable[[str, int, int], None]) -> None:
        """``body(base, first, count)`` for all samples, as many together as a thread has room for.

        A sample is ``base`` plus a number from ``first`` on; ``base`` is the variable of a loop where there are many.
        """
        samples, together = self.plan.samples, self.plan.together
        start = samples // together * together if samples > UNROLLED else 0
        if start:
            with self.stepping("b", u(0), u(start), together):
                body("b", 0, together)
        while start < samples:
            count = min(together, samples - start)
            body(u(0), start, count)
            start += count

    @property
    def keeps_samples(self) -> bool:
        """Whether what is loaded of the samples stays in registers between the two passes."""
        return self.plan.keeps_samples and self.plan.samples <= UNROLLED

    def take_x(self, base: str, k: int, j: int, again: bool) -> str:
        """The name of a vector of sample ``base + k``, loaded unless it is kept from before."""
        plan = self.plan
        name = f"x{k}_{j}" if self.keeps_samples else f"x{j}"
        if not (again and self.keeps_samples):
            jump = k * plan.sample_stride + j * plan.pieces * plan.vector
            self.text(f"{name} = load_shared(real, x_now + {base} * {u(plan.sample_stride)} + {u(jump)})")
        return name

    def first_layer(self) -> None:
        """Each thread's part of its units' sums, for every sample; parts in a warp are added by shuffles."""
        self.text(f"x_now = uint32({self.sample_at(u(0), 'now')} + piece * {u(self.plan.vector)})")
        self.each_sample(self.first_layer_of)

    def first_layer_of(self, base: str, start: int, count: int) -> None:
        """The sums of some samples: ``v0``, ``v1``, ..., one for each row of each sample."""
        plan, t = self.plan, self.text
        sums = count * plan.rows
        t(*(f"v{i} = {self.number(0)}" for i in range(sums)))
        for j in range(plan.vectors):
            for k in range(count):
                x = self.take_x(base, start + k, j, False)
                for m in range(plan.rows):
                    t(f"v{k * plan.rows + m} = dot({x}, w{m}_{j}, v{k * plan.rows + m})")
        if plan.pieces % plan.pieces_per_warp:
            t(*(f"v{i} = select(working, v{i}, {self.number(0)})" for i in range(sums)))
        left, first, idle = self.fold_pieces(sums)
        t(f"i = uint32({first})")
        for i in range(left):
            bound = f" and side & {u(idle)} == {u(0)}" if idle else ""
            with t.block(f"if {u(i)} < have{bound}:"):
                number = f"(i + {u(i)})"
                sample = f"(warp * {u(plan.samples)} + {base} + {u(start)} + {number} // {u(plan.rows)})"
                place = f"{sample} * {u(plan.units)} + unit + {number} % {u(plan.rows)}"
                t(f"{self.real('sums', place)} = v{i}")

    def fold_pieces(self, count: int) -> tuple[int, str, int]:
        """Add the parts of a warp's pieces: where a lane has several sums, it gives half of them away and gets its
        partner's share of the other half, so that every step halves the sums as well as the pieces.

        Of an odd number the upper lanes get one less, and in its place something that is no sum: ``have`` says how many
        are. Returns how many places each lane is left with, which of all sums is its first, and the bits of the lanes
        that have only copies.
        """
        t, bit, idle, firsts = self.text, WARP // 2, 0, []
        t("side = afresh(lane)", f"have = {u(count)}")

        while bit >= self.plan.lanes:
            half = (count + 1) // 2
            if count == 1:
                idle |= bit
            else:
                firsts.append(f"(side & {u(bit)}) // {u(bit)} * {u(half)}")
                t(f"upper = side & {u(bit)} != {u(0)}")
                t(f"more = select(have > {u(half)}, uint32(have - {u(half)}), {u(0)})")
                t(f"have = select(upper, more, uint32(min(have, {u(half)})))")
            for i in range(half):
                if i + half < count:
                    t(f"v{i} = fold(v{i}, v{i + half}, upper, {bit})")
                else:
                    t(f"v{i} += cuda.shfl_xor_sync({u(0xFFFFFFFF)}, v{i}, {bit})")
            count, bit = half, bit // 2
        return count, " + ".join(firsts) or u(0), idle

    def first_activations(self) -> None:
        """Sums over the warps, with the bias; activated, or sent where they are the outputs already."""
        plan, t = self.plan, self.text
        count = plan.samples * plan.units
        with self.share(count):
            t(f"c = uint32(e % {u(plan.units)})")
            terms = [self.real("sums", "e", k * count) for k in range(plan.warps)]
            t("z = " + " + ".join([self.real("bias1", "c"), *terms] if self.bias else terms))
            if plan.layers == 1:
                self.send_output()
                return
            value, slope = self.activate(1, "z")
            t(f"{self.real('a1', 'e')} = select(c < owned, {value}, {self.number(0)})")
            t(f"{self.real('slope1', 'e')} = {slope}")
        self.sync()

    def send_output(self) -> None:
        """Of a network without hidden layers: ``z`` is an output's pre-activation."""
        plan = self.plan
        with self.text.block("if c < owned:"):
            self.text(f"n = uint32(e // {u(plan.units)} * {u(self.outputs)} + first + c)")
            if plan.exchange == CLUSTER:
                for rank in range(plan.groups):
                    self.send("n", u(0), "z", u(rank))
            else:
                self.send("n", u(0), "z")

    def word(self, e: str, addend: str) -> str:
        """Where the word of an exchanged number lies."""
        plan = self.plan
        kinds = plan.addends + (1 if plan.scattered else 0)
        part = "now" if plan.slices == 1 or plan.exchange == CLUSTER else f"(slice_ * {u(2)} + now)"
        index = f"(({part} * {u(kinds)} + {addend}) * {u(plan.exchanged)} + {e})"
        index = f"{index} * {u(2)}" if plan.words == 2 else index
        return f"{u(plan.offsets['words'] // 8)} + {index}" if plan.exchange == CLUSTER else index

    def send(self, e: str, addend: str, value: str, rank: str = "") -> None:
        """Send a number, to a block of the cluster or to all."""
        double = "_double" if self.double else ""
        if self.plan.exchange == LOCAL:
            self.text(f"{self.real('partial', e)} = {value}")
        elif self.plan.exchange == CLUSTER:
            self.text(f"send{double}_to(here, {self.word(e, addend)}, {value}, tag, {rank})")
        else:
            self.text(f"send{double}(words, {self.word(e, addend)}, {value}, tag)")

    def send_parts(self) -> None:
        """What this block has of every pre-activation of the second layer, to all blocks."""
        plan, t = self.plan, self.text
        if plan.layers == 1:
            return
        n, own = plan.sizes[2], plan.units
        many = plan.groups if plan.exchange == CLUSTER else 1
        with self.share(plan.exchanged * many, "f"):
            t(f"e = uint32(f % {u(plan.exchanged)})" if many > 1 else "e = f")
            t(f"b = uint32(e // {u(n)} * {u(own)})", f"o = uint32(e % {u(n)})")
            terms = (f"{self.real('a1', 'b', c)} * {self.real('weights2', 'o', c * n)}" for c in range(own))
            t(f"z = {' + '.join(terms)}")
            self.send("e", "group", "z", f"uint32(f // {u(plan.exchanged)})")

    def meanwhile(self) -> None:
        """While words travel: the next batch, where later ones are, and the loss of the one before."""
        if not self.copies_directly:
            self.take_samples(1, "other")
        else:
            self.start_copies(1, "other")
        self.take_targets(1, "other")
        self.place_samples(PLACES - 1)
        if self.plan.slices == 1:
            with self.text.block(f"if step > {u(0)}:"):
                self.report_losses()

    @property
    def copies_directly(self) -> bool:
        """Whether samples are copied to where they are used: they then have until the step's end to arrive."""
        return self.plan.aligned and not self.plan.converts

    def report_losses(self) -> None:
        """The means of the last step's losses and errors, by the last warp of the first block."""
        plan, t = self.plan, self.text
        with t.block(f"if block == {u(0)} and warp == {u(plan.warps - 1)}:"):
            t(f"last = uint32(step - {u(1)})")
            t(f"size = {self.dtype}(min(samples - last * {u(plan.batch)}, {u(plan.batch)}))")
            for name in self.reports():
                self.total_of(name)
                with t.block(f"if lane == {u(0)}:"):
                    t(f"{name}[last] = {self.mean(name, 'total', 'size')}")

    def reports(self) -> list[str]:
        """What is reported of a step."""
        return ["losses", "errors"] if self.plan.errors else ["losses"]

    def total_of(self, name: str) -> None:
        """``total`` becomes the sum of a part of shared memory with an entry for each output, in every lane."""
        t = self.text
        t(f"total = {self.number(0)}")
        with self.stepping("i", "lane", u(self.plan.samples * self.outputs), WARP):
            t(f"total += {self.real(name, 'i')}")
        self.fold("total", WARP // 2)

    def mean(self, name: str, total: str, size: str) -> str:
        """The loss, or half the mean squared error, of a batch of that size."""
        return f"{total} / {size}" if name == "losses" else f"{total} / ({size} * {self.number(2 * self.outputs)})"

    def receive_parts(self) -> None:
        """All blocks' parts of each number, added up by one thread or shared out among several."""
        plan, t = self.plan, self.text
        if plan.scattered:
            self.gather_scattered()
        elif plan.exchange != LOCAL:
            with self.share(plan.exchanged * plan.readers, "f"):
                t(f"e = uint32(f % {u(plan.exchanged)})", f"reader = uint32(f // {u(plan.exchanged)})")
                self.add_words("e", "reader", plan.readers, plan.addends)
                t(f"{self.real('partial', 'f')} = z")
        self.sync()

    def add_words(self, e: str, first: str, stride: int, addends: int) -> None:
        """``z`` becomes the sum of words ``first``, ``first + stride``, ..., asked for many at a time."""
        turns = -(-addends // stride)
        self.text(f"z = {self.number(0)}")
        some = -(-turns // -(-turns // IN_FLIGHT))
        for start in range(0, turns, some):
            self.add_some_words(e, first, stride, addends, range(start, min(turns, start + some)))

    def add_some_words(self, e: str, first: str, stride: int, addends: int, turns: range) -> None:
        """Ask until every word has this step's tag."""
        t, plan = self.text, self.plan
        function = ("receive_double" if self.double else "receive") + ("_here" if plan.exchange == CLUSTER else "")
        array = "here" if plan.exchange == CLUSTER else "words"
        sure = [(i + 1) * stride <= addends for i in turns]
        for i, always in zip(turns, sure, strict=True):
            k = f"{first} + {u(i * stride)}"
            t(f"k{i} = uint32({k})" if always else f"k{i} = uint32(min({k}, {u(addends - 1)}))")
        t("missing = True")
        with t.block("while missing:"):
            for i in turns:
                t(f"v{i}, tag{i} = {function}({array}, {self.word(e, f'k{i}')})")
            t("missing = " + " | ".join(f"(tag{i} != tag)" for i in turns))
        for i, always in zip(turns, sure, strict=True):
            inside = f"{first} + {u(i * stride)} < {u(addends)}"
            mine = f"v{i}" if always else f"select({inside}, v{i}, {self.number(0)})"
            t(f"z += {mine}")

    def gather_scattered(self) -> None:
        """Sum this group's share of the numbers for all, several lanes each, then take all sums."""
        plan, t = self.plan, self.text
        share, lanes = plan.scattered_share, plan.scattered_lanes
        with self.share(-(-share * lanes // WARP) * WARP, "f"):
            t(f"n = uint32(group * {u(share)} + f // {u(lanes)})", f"wanted = f < {u(share * lanes)}")
            t(f"wanted = wanted & (n < {u(plan.exchanged)})", f"e = uint32(min(n, {u(plan.exchanged - 1)}))")
            t(f"reader = uint32(f % {u(lanes)})")
            self.add_words("e", "reader", lanes, plan.addends)
            self.fold("z", lanes // 2)
            with t.block(f"if wanted and reader == {u(0)}:"):
                self.send("e", u(plan.addends), "z")
        with self.share(plan.exchanged):
            t(f"z = {self.number(0)}")
            self.add_some_words("e", u(plan.addends), 1, 1, range(1))
            t(f"{self.real('partial', 'e')} = z")

    def second_sum(self, e: str, o: str) -> str:
        """A pre-activation of the second layer, or of the only one, from what was received."""
        plan = self.plan
        terms = [self.real("partial", e, r * plan.exchanged) for r in range(plan.readers)]
        if plan.layers > 1 and self.bias:
            terms.insert(0, self.real("bias2", o))
        return " + ".join(terms)

    def further_layers(self) -> None:
        """Everything above the second layer, up to the outputs' pre-activations."""
        plan, t = self.plan, self.text
        if plan.layers < 3:
            return
        n = plan.sizes[2]
        with self.share(plan.samples * n):
            t(f"z = {self.second_sum('e', f'e % {u(n)}')}")
            value, slope = self.activate(2, "z")
            t(f"{self.real('a2', 'e')} = {value}", f"{self.real('slope2', 'e')} = {slope}")
        self.sync()
        for layer in range(3, plan.layers + 1):
            self.further_layer(layer)
            self.sync()

    def further_layer(self, layer: int) -> None:
        """Forward through a layer that every block has whole."""
        plan, t = self.plan, self.text
        n_in, n, row = plan.sizes[layer - 1], plan.sizes[layer], plan.tail_stride(layer)

        def term(i: str) -> str:
            a = self.real(f"a{layer - 1}", f"e // {u(n)} * {u(n_in)} + {i}")
            return f"{a} * {self.real(f'weights{layer}', f'e % {u(n)} * {u(row)} + {i}')}"

        with self.sums(plan.samples * n, n_in, term):
            if self.bias:
                t(f"z += {self.real(f'bias{layer}', f'e % {u(n)}')}")
            if layer == plan.layers:
                t(f"{self.real('logits', 'e')} = z")
            else:
                value, slope = self.activate(layer, "z")
                t(f"{self.real(f'a{layer}', 'e')} = {value}", f"{self.real(f'slope{layer}', 'e')} = {slope}")

    # --------------------------------------------------------------------------------------------------- output
    def outputs_and_deltas(self) -> None:
        """Each row of outputs by a warp, or as many lanes as it needs: losses, deltas divided by the number of samples.

        Lanes without a row take part in the shuffles.
        """
        t, samples = self.text, self.plan.samples
        rows = WARP // self.row_lanes
        turns = -(-samples // rows)
        with self.stepping("rows", "warp", u(turns), self.plan.warps, turns <= self.plan.warps):
            t(f"row = uint32(rows * {u(rows)} + lane // {u(self.row_lanes)})", "counted = row < present")
            t(f"columns = select(row < {u(samples)}, {u(self.outputs)}, {u(0)})")
            if self.plan.network.loss == CROSS_ENTROPY:
                self.softmax_row()
            else:
                self.elementwise_row()

    @property
    def row_lanes(self) -> int:
        """Lanes that share a row of outputs."""
        return min(WARP, 1 << (self.outputs - 1).bit_length())

    @contextmanager
    def each_output(self) -> Iterator[None]:
        """What follows is done for this lane's outputs ``o`` of the row, number ``e`` of all."""
        lanes = self.row_lanes
        with self.stepping("o", f"lane % {u(lanes)}", "columns", lanes, self.outputs <= lanes):
            self.text(f"e = uint32(row * {u(self.outputs)} + o)")
            yield

    def logit(self) -> str:
        """The pre-activation of output ``e``."""
        return self.real("logits", "e") if self.plan.layers > 2 else self.second_sum("e", "o")

    def take_target(self) -> None:
        """``y`` becomes the target of output ``e``."""
        plan = self.plan
        if not plan.labels:
            self.text(f"y = {self.real('y', f'now * {u(plan.samples * self.outputs)} + e')}")
            return
        label = f"labels[{u(plan.offsets['y'] // 4)} + now * {u(plan.samples)} + row]"
        if self.outputs == 1:
            self.text(f"y = {self.dtype}({label})")
        else:
            self.text(f"y = select({label} == int32(o), {self.number(1)}, {self.number(0)})")

    def softmax_row(self) -> None:
        """Softmax and cross-entropy: Σ y (ln Σ e^z - z), delta a - y."""
        t = self.text
        delta = self.real("delta", "e")
        t(f"top = -{self.dtype}(inf)")
        with self.each_output():
            t(f"z = {self.logit()}", f"{self.real('losses', 'e')} = z", "top = select(z > top, z, top)")
        self.fold("top", self.row_lanes // 2, what="largest")
        t(f"total = {self.number(0)}")
        with self.each_output():
            t(f"power = exp({self.real('losses', 'e')} - top)", f"{delta} = power", "total += power")
        self.fold("total", self.row_lanes // 2)
        t("log_total = top + log(total)")
        with self.each_output():
            self.take_target()
            t(f"a = {delta} / total", f"loss = y * (log_total - {self.real('losses', 'e')})")
            self.keep_output("a - y", "loss")

    def elementwise_row(self) -> None:
        """Outputs that don't depend on one another."""
        t = self.text
        with self.each_output():
            t(f"z = {self.logit()}")
            self.take_target()
            value, slope = self.activate(self.plan.layers, "z")
            t(f"loss, delta = output_loss(z, {value}, {slope}, y)")
            self.keep_output("delta", "loss")

    def keep_output(self, delta: str, loss: str) -> None:
        """Delta, loss and error of output ``e``: zero for a sample that is only a repetition."""
        zero = self.number(0)
        self.text(f"{self.real('delta', 'e')} = select(counted, ({delta}) / count, {zero})")
        self.text(f"{self.real('losses', 'e')} = select(counted, {loss}, {zero})")
        if self.plan.errors:
            self.text(f"{self.real('errors', 'e')} = select(counted, (a - y) * (a - y), {zero})")

    # ------------------------------------------------------------------------------------------------- backward
    def delta(self, layer: int) -> str:
        """The part of shared memory with a layer's deltas."""
        return "delta" if layer == self.plan.layers else f"delta{layer}"

    def deltas_back(self) -> None:
        """From the outputs' deltas to those of this block's units."""
        plan = self.plan
        for layer in range(plan.layers, 2, -1):
            self.delta_below(layer)
            self.sync()
        if plan.layers > 1:
            self.first_deltas()
            self.sync()

    def delta_below(self, layer: int) -> None:
        """Back through a layer that every block has whole."""
        plan = self.plan
        n_in, n, row = plan.sizes[layer - 1], plan.sizes[layer], plan.tail_stride(layer)

        def term(i: str) -> str:
            delta = self.real(self.delta(layer), f"e // {u(n_in)} * {u(n)} + {i}")
            return f"{delta} * {self.real(f'weights{layer}', f'{i} * {u(row)} + e % {u(n_in)}')}"

        with self.sums(plan.samples * n_in, n, term):
            self.text(f"{self.real(f'delta{layer - 1}', 'e')} = z * {self.real(f'slope{layer - 1}', 'e')}")

    def first_deltas(self) -> None:
        """Back through this block's columns."""
        plan = self.plan
        n, own = plan.sizes[2], plan.units

        def term(i: str) -> str:
            delta = self.real(self.delta(2), f"e // {u(own)} * {u(n)} + {i}")
            return f"{delta} * {self.real('weights2', f'e % {u(own)} * {u(n)} + {i}')}"

        with self.sums(plan.samples * own, n, term):
            self.text(f"{self.real('delta1', 'e')} = z * {self.real('slope1', 'e')}")

    # -------------------------------------------------------------------------------------------------- updates
    def update_all(self) -> None:
        """Every gradient, and the rule's step with it; with several slices, all of them add theirs in between."""
        if self.plan.slices == 1:
            self.first_gradients()
            self.update_first_layer()
            for name, size, parts in self.shared_gradients():
                with parts():
                    self.update_shared(name, size)
            return
        self.text(f"ours = uint32({self.gradients_of('slice_')})")
        self.first_gradients()
        self.publish_first_gradients()
        for name, _, parts in self.shared_gradients():
            with parts():
                self.text(f"gradients[ours + {u(self.plan.gradient_offsets[name])} + e] = z")
        self.publish_losses()
        self.meet(f"{u(1)} + group", f"tag * {u(self.plan.slices)}")
        self.collect_first_gradients()
        self.update_first_layer()
        for name, size, parts in self.shared_gradients(False):
            with parts():
                self.collect(self.plan.gradient_offsets[name], "e", "z")
                self.update_shared(name, size)
        self.collect_losses()

    def gradients_of(self, slice_: str) -> str:
        """Where the gradients of this step lie that this group has from a slice."""
        plan = self.plan
        return f"((now * {u(plan.slices)} + {slice_}) * {u(plan.groups)} + group) * {u(plan.gradient_offsets['end'])}"

    def collect(self, offset: int, index: str, name: str) -> None:
        """The sum of a number over the slices."""
        t = self.text
        t(f"{name} = {self.number(0)}")
        for k in range(self.plan.slices):
            t(f"{name} += gradients[{self.gradients_of(u(k))} + {u(offset)} + {index}]")

    def first_vector(self, m: int, j: int) -> str:
        """Where a vector of the first layer's gradients lies: threads side by side."""
        plan = self.plan
        return f"({u((m * plan.vectors + j) * plan.threads)} + thread) * {u(plan.vector)}"

    def publish_first_gradients(self) -> None:
        """The gradients of the weights in registers, for the other slices."""
        for m, j in self.each_vector():
            self.text(f"store_global(gradients, ours + {self.first_vector(m, j)}, g{m}_{j})")

    def collect_first_gradients(self) -> None:
        """The sums over the slices of the gradients of the weights in registers."""
        for m, j in self.each_vector():
            self.text(f"g{m}_{j} = zeros")
            for k in range(self.plan.slices):
                theirs = f"load_global(gradients, {self.gradients_of(u(k))} + {self.first_vector(m, j)})"
                self.text(f"g{m}_{j} = add(g{m}_{j}, {theirs})")

    def publish_losses(self) -> None:
        """The sums of losses and errors of this slice, for the first."""
        plan, t = self.plan, self.text
        with t.block(f"if group == {u(0)} and warp == {u(plan.warps - 1)}:"):
            for k, name in enumerate(self.reports()):
                self.total_of(name)
                with t.block(f"if lane == {u(0)}:"):
                    t(f"gradients[ours + {u(plan.gradient_offsets['losses'] + k)}] = total")

    def collect_losses(self) -> None:
        """The means over all slices."""
        t = self.text
        with t.block(f"if block == {u(0)} and thread == {u(0)}:"):
            for k, name in enumerate(self.reports()):
                self.collect(self.plan.gradient_offsets["losses"], u(k), "total")
                t(f"{name}[step] = {self.mean(name, 'total', 'count')}")

    def first_delta(self, sample: str, more: int, unit: str) -> str:
        """The delta of one of this block's units; counted over all blocks where the units are the outputs."""
        plan = self.plan
        if plan.layers == 1:
            return self.real("delta", f"{sample} * {u(self.outputs)} + {unit}", more * self.outputs)
        return self.real("delta1", f"{sample} * {u(plan.units)} + {unit}", more * plan.units)

    def first_gradients(self) -> None:
        """The gradients of the weights in registers."""
        self.text(*(f"g{m}_{j} = zeros" for m, j in self.each_vector()), "mine = afresh(unit)")
        for m in range(self.plan.rows):
            base = "first + mine" if self.plan.layers == 1 else "mine"
            self.text(f"unit{m} = select(live{m}, uint32({base} + {u(m)}), {u(0)})")
        self.each_sample(self.first_gradients_of)

    def first_gradients_of(self, base: str, start: int, count: int) -> None:
        """Add the products of some samples."""
        plan, t = self.plan, self.text
        for k in range(start, start + count):
            for m in range(plan.rows):
                t(f"d{m} = select(live{m}, {self.first_delta(base, k, f'unit{m}')}, {self.number(0)})")
            for j in range(plan.vectors):
                x = self.take_x(base, k, j, True)
                for m in range(plan.rows):
                    t(f"g{m}_{j} = add_scaled(g{m}_{j}, {x}, d{m})")

    def update_first_layer(self) -> None:
        """The weights in registers."""
        for m, j in self.each_vector():
            kept = [f"{letter}{m}_{j}" for letter, _, _ in self.kept_arrays()]
            given = [kept[0], f"g{m}_{j}", *kept[1:], *self.rates]
            self.text(f"{', '.join(kept)}, = vector_step_of({', '.join(given)})")

    def shared_gradients(self, sums: bool = True) -> Iterator[tuple[str, int, Callable]]:
        """The parts of parameters in shared memory: name, size and a context in which ``z`` is the gradient of
        element ``e``, or only ``e`` is known, and ``place`` is where it lies.
        """
        plan = self.plan
        if self.bias:
            yield "bias1", plan.units, partial(self.first_bias_gradients, sums)
        if plan.layers > 1:
            yield "weights2", plan.units * plan.sizes[2], partial(self.column_gradients, sums)
        for layer in range(2, plan.layers + 1):
            n = plan.sizes[layer]
            if self.bias:
                yield f"bias{layer}", n, partial(self.bias_gradients, layer, sums)
            if layer > 2:
                size = n * plan.tail_stride(layer)
                yield f"weights{layer}", size, partial(self.layer_gradients, layer, sums)

    @contextmanager
    def first_bias_gradients(self, sums: bool) -> Iterator[None]:
        """Of the biases of this block's units."""
        plan, unit = self.plan, "first + e" if self.plan.layers == 1 else "e"
        with self.share(plan.units, last_first=True), self.text.block("if e < owned:"):
            self.text("place = e")
            if sums:
                self.add_up(plan.samples, lambda i: self.first_delta(i, 0, unit))
            yield

    @contextmanager
    def column_gradients(self, sums: bool) -> Iterator[None]:
        """Of this block's columns of the second layer."""
        plan, t = self.plan, self.text
        n, own = plan.sizes[2], plan.units

        def term(i: str) -> str:
            return f"{self.real('a1', f'{i} * {u(own)} + c')} * {self.real(self.delta(2), f'{i} * {u(n)} + o')}"

        with self.share(own * n):
            t(f"c = uint32(e // {u(n)})", f"o = uint32(e % {u(n)})")
            with t.block("if c < owned:"):
                t("place = e")
                if sums:
                    self.add_up(plan.samples, term)
                yield

    @contextmanager
    def bias_gradients(self, layer: int, sums: bool) -> Iterator[None]:
        """Of the biases of a layer above, in every block alike."""
        n = self.plan.sizes[layer]
        with self.share(n, last_first=True):
            self.text("place = e")
            if sums:
                self.add_up(self.plan.samples, lambda i: self.real(self.delta(layer), f"{i} * {u(n)} + e"))
            yield

    @contextmanager
    def layer_gradients(self, layer: int, sums: bool) -> Iterator[None]:
        """Of the weights of a layer above the second, in every block alike."""
        plan, t = self.plan, self.text
        n_in, n, row = plan.sizes[layer - 1], plan.sizes[layer], plan.tail_stride(layer)

        def term(i: str) -> str:
            delta = self.real(self.delta(layer), f"{i} * {u(n)} + o")
            return f"{delta} * {self.real(f'a{layer - 1}', f'{i} * {u(n_in)} + c')}"

        with self.share(n * n_in):
            t(f"o = uint32(e // {u(n_in)})", f"c = uint32(e % {u(n_in)})", f"place = uint32(o * {u(row)} + c)")
            if sums:
                self.add_up(plan.samples, term)
            yield


def text(plan: Plan) -> str:
    """The source of a plan's kernel, a function ``epoch`` of `PARAMETERS`."""
    return Writer(plan).kernel()
