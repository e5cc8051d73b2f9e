"""The kernels of large batches and of inference, as text: phases over tiles, one launch for all of them.

A step of training has three phases, with a barrier of the whole grid after each:

rows        activations of all layers, loss, and deltas of all layers. Where there are rows for all blocks, a block
            takes a band of samples through all layers by itself: what it needs of the layer below it has written
            itself, so that a barrier of the block is enough. Otherwise ("spread") a layer's tiles are dealt out to all
            blocks, and the whole grid meets after each layer.
gradients   of the weights: tiles of units x inputs, each for a part of the batch (a *split*), so that there are tiles
            for all blocks; the parts are stored side by side.
update      the parts of each gradient are added up, always in the same order, and the rule is applied.

Inference is the first phase alone, `backpropagation` all three with the gradient stored in place of the update.
Nothing is added up in an order that depends on which block is quicker: two runs agree in every bit.

Where everything lies is in a table (`COLUMNS`), a row for each layer of weights, so that a kernel serves networks of
any sizes; what the text depends on is in `Spec`.

Arrays
    values      T, activations of the hidden layers, layer after layer; rows of samples, padded to whole vectors
    deltas      T, likewise, with the output layer: first slopes (outputs: pre-activations), then deltas, in place
    parts       T [splits, parameters]: the gradients of each part of the batch
    sums        T [blocks, 2]: loss and error of the samples that a block had

What is in such memory before does not matter: the rest of a row's last vector is set to zero with the row.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from fastmlp.kernels.activations import CODES, SOFTMAX
from fastmlp.kernels.cuda import formulas
from fastmlp.kernels.cuda.sums import ITEMSIZE, Tile
from fastmlp.kernels.cuda.tile_ops import VECTOR
from fastmlp.kernels.cuda.tiles import Matrix, Samples, Text, finish, product, shared_size
from fastmlp.kernels.losses import CROSS_ENTROPY
from fastmlp.kernels.network import ALIGNMENT
from fastmlp.kernels.updates import UPDATES

#: Columns of the table, uint32. Places are indices of a layer's first element; strides are from row to row.
COLUMNS = (
    "n_in",
    "n_out",
    "weights",  # in parameters
    "weights_stride",
    "below",  # in values: the activations that the layer takes (not for the first layer)
    "below_stride",
    "above",  # in values: those that it gives (not for the last layer)
    "above_stride",
    "delta",  # in deltas
    "delta_stride",
    "delta_below",  # in deltas, of the layer below (not for the first layer)
    "delta_below_stride",
    "code",  # of the activation
    "splits",  # of the batch, for the gradient
    "result",  # in the array of activations that feedforward gives
)

#: What a kernel may be for.
JOBS = ("train", "gradient", "evaluate", "predict", "feedforward")


@dataclass(frozen=True)
class Spec:
    """All that the text of a kernel depends on.

    Parameters
    ----------
    job : str
        In `JOBS`.
    dtype, inputs : str
        Of the arithmetic and of the samples.
    layers : int
        Layers of weights; 3 stands for any number from 3 on.
    hidden : tuple of str
        The activations that hidden layers have, each once.
    output, loss : str
        The output's activation, and the loss.
    bias, l2, scaled : bool
        Whether there are biases, a penalty, and a scale or shift of the inputs.
    whole : bool
        Whether rows of samples are whole aligned vectors.
    labels, errors : bool
        Whether targets are labels, and whether errors are wanted (training).
    rule : str
        The kind of update rule; "" but for training.
    bands : bool
        Whether a block takes bands of samples through all layers.
    one_tile : bool
        Whether a tile is as wide as the outputs.
    lanes : int
        Threads that share a row of outputs; a power of two up to 32.
    threads, blocks : int
        Of a block, and blocks that are to fit on a multiprocessor.
    first, inner, last, delta, gradient_first, gradient : Tile
        Of the forward products with the inputs, the hidden layers' and the output's weights, of the deltas, and of the
        gradients of the first layer and of the others. Those of the first five have the same number of rows if
        ``bands``. The output's tile is ``last`` even where it is the only layer.
    """

    job: str
    dtype: str
    inputs: str
    layers: int
    hidden: tuple[str, ...]
    output: str
    loss: str
    bias: bool
    l2: bool
    scaled: bool
    whole: bool
    labels: bool
    errors: bool
    rule: str
    bands: bool
    one_tile: bool
    lanes: int
    threads: int
    blocks: int
    first: Tile
    inner: Tile
    last: Tile
    delta: Tile
    gradient_first: Tile
    gradient: Tile

    @property
    def vector(self) -> int:
        """Elements of a vector."""
        return VECTOR[self.dtype]

    @property
    def learns(self) -> bool:
        """Whether deltas and gradients are wanted."""
        return self.job in ("train", "gradient")

    @property
    def gathers(self) -> bool:
        """Whether samples are taken in a given order."""
        return self.job == "train"


def hyperparameters(rule: str) -> tuple[str, ...]:
    """Those that a rule reads and that stay the same over an epoch."""
    return tuple(name for name in formulas.uses(rule) if not name.startswith("correction")) if rule else ()


def corrects(rule: str) -> bool:
    """Whether a rule corrects its moments for the steps made."""
    return any(name.startswith("correction") for name in formulas.uses(rule)) if rule else False


def arguments(spec: Spec) -> list[tuple[str, str]]:
    """Names and kinds of a kernel's arguments, in their order; a kind is a dtype, with "[]" for an array of it."""
    T = spec.dtype
    have: list[tuple[str, str, bool]] = [
        ("table", "uint32[]", True),
        ("X", f"{spec.inputs}[]", True),
        ("Y", "int32[]" if spec.labels else f"{T}[]", spec.learns or spec.job == "evaluate"),
        ("order", "int32[]", spec.gathers),
        ("parameters", f"{T}[]", True),
        ("slots", f"{T}[]", bool(spec.rule) and UPDATES[spec.rule][1] > 0),
        ("corrections", f"{T}[]", corrects(spec.rule)),
        ("values", f"{T}[]", spec.layers > 1),
        ("deltas", f"{T}[]", True),
        ("parts", f"{T}[]", spec.learns),
        ("sums", f"{T}[]", spec.learns or spec.job == "evaluate"),
        ("gradients", f"{T}[]", spec.job == "gradient"),
        ("out", f"{T}[]", spec.job in ("predict", "feedforward")),
        ("losses", f"{T}[]", spec.learns or spec.job == "evaluate"),
        ("errors", f"{T}[]", spec.errors),
        ("hits", "uint32[]", spec.job == "evaluate"),
        ("barrier", "uint32[]", needs_barrier(spec)),
        ("layers", "uint32", True),
        ("size", "uint32", spec.learns),
        ("samples", "uint32", True),
        ("batch", "uint32", True),
        ("input_scale", T, spec.scaled),
        ("input_shift", T, spec.scaled),
        ("l2", T, spec.l2 and spec.learns),
        *((name, T, True) for name in hyperparameters(spec.rule)),
    ]
    return [(name, kind) for name, kind, wanted in have if wanted]


def needs_barrier(spec: Spec) -> bool:
    """Whether blocks wait for one another, so that all must be there at once."""
    return spec.learns or spec.job == "evaluate" or not spec.bands


#: What each thread adds up over the rows of a batch.
SUMMED = ("loss_sum", "error_sum", "hit_sum")


def shared_bytes(spec: Spec) -> int:
    """Bytes of (dynamic) shared memory that a block needs."""
    wanted = [(spec.last, True, True)]
    if spec.layers > 1:
        wanted.append((spec.first, True, True))
    if spec.layers > 2:
        wanted.append((spec.inner, True, True))
    if spec.learns:
        wanted.append((spec.gradient_first, False, False))
        if spec.layers > 1:
            wanted += [(spec.delta, True, False), (spec.gradient, False, False)]
    elements = max(shared_size(tile, spec.dtype, first, second) for tile, first, second in wanted)
    return max(elements, spec.threads) * ITEMSIZE[spec.dtype]


# ------------------------------------------------------------------------------------------------------ small parts
def layer_names(w: Text, layer: str, *names: str) -> None:
    """Lines that read what the table has on a layer."""
    w(f"entry = uint32({layer} * uint32({len(COLUMNS)}))")
    for name in names:
        w(f"{name} = table[uint32(entry + uint32({COLUMNS.index(name)}))]")


def meet(w: Text) -> None:
    """Lines of a barrier of the whole grid; what blocks wrote before it all can read after it."""
    w("cuda.syncthreads()", "awaited = uint32(awaited + blocks)")
    with w.block("if t == uint32(0):"):
        w("arrive(barrier, uint32(0), uint32(1))")
        with w.block("while uint32(acquire(barrier, uint32(0)) - awaited) >= uint32(0x80000000):"):
            w("pass")
    w("cuda.syncthreads()")


def share_out(w: Text, name: str, spec: Spec) -> None:
    """Lines that give thread 0 the sum of a variable of all threads of the block; always in the same order."""
    w("cuda.syncthreads()", f"pool[t] = {name}", "cuda.syncthreads()")
    if spec.threads > 32:
        with w.block("if t < uint32(32):"):
            w(f"{name} = zero")
            with w.each("e", "t", f"uint32({spec.threads})", "uint32(32)"):
                w(f"{name} += pool[e]")
        w("cuda.syncthreads()")
        with w.block("if t < uint32(32):"):
            w(f"pool[t] = {name}")
        w("cuda.syncthreads()")
    with w.block("if t == uint32(0):"):
        w(f"{name} = zero")
        with w.each("e", "uint32(0)", f"uint32({min(32, spec.threads)})", "uint32(1)"):
            w(f"{name} += pool[e]")
    w("cuda.syncthreads()")


def masked(name: str, position: str, bound: str) -> str:
    """A line that sets to zero what lies in the padding, even where it is no number."""
    return f"{name} = {name} if {position} < {bound} else zero"


def vector_of(names: list[str]) -> str:
    """A tuple, as vectors are stored."""
    return f"({', '.join(names)})"


# ---------------------------------------------------------------------------------------------------- forward pass
def sources(spec: Spec) -> Samples:
    """The samples of the batch."""
    order = "order[uint32(begin + {})]" if spec.gathers else "uint32(begin + {})"
    return Samples(spec.dtype, spec.inputs, "count", "n_in", order, spec.whole, spec.scaled)


def forward_tile(w: Text, spec: Spec, samples: bool, output: bool) -> None:
    """Write a tile of a layer's forward product: bias, activation and slope, or the output's pre-activation."""
    with w.function("forward"):
        tile = spec.last if output else spec.first if samples else spec.inner
        below = sources(spec) if samples else Matrix("values", "below", "below_stride", "count", "n_in", spec.dtype)
        weights = Matrix("parameters", "weights", "weights_stride", "n_out", "n_in", spec.dtype)
        product(w, tile, spec.threads, (below, True), (weights, True), ("uint32(0)", "n_in"))

        def lines(z: list[str]) -> None:
            if spec.bias:
                for q, name in enumerate(z):
                    unit = f"min(uint32(column + uint32({q})), uint32(n_out - uint32(1)))"
                    w(f"{name} += parameters[uint32(weights - uint32(1) + {unit} * weights_stride)]")
            if output:
                for q, name in enumerate(z):
                    w(masked(name, f"uint32(column + uint32({q}))", "n_out"))
                w(f"store_global(deltas, uint32(delta + row * delta_stride + column), {vector_of(z)})")
            else:
                hidden_activation(w, spec, z)

        finish(w, tile, spec.dtype, spec.threads, "count", "n_out", lines)


def hidden_activation(w: Text, spec: Spec, z: list[str]) -> None:
    """Lines that store the values and slopes of a vector of pre-activations."""
    values, slopes = [f"a{q}" for q in range(len(z))], [f"d{q}" for q in range(len(z))]
    for i, name in enumerate(spec.hidden):
        head = f"{'el' if i else ''}if code == uint32({CODES[name]}):" if i + 1 < len(spec.hidden) else "else:"
        with w.block(head) if len(spec.hidden) > 1 else nullcontext():
            for q in range(len(z)):
                written = formulas.activation(name, z[q], spec.dtype, f"t{q}_")
                w(*written.lines, f"{values[q]} = {written.results[0]}")
                if spec.learns:
                    w(f"{slopes[q]} = {written.results[1]}")
    for q in range(len(z)):
        w(masked(values[q], f"uint32(column + uint32({q}))", "n_out"))
    w(f"store_global(values, uint32(above + row * above_stride + column), {vector_of(values)})")
    if spec.learns:
        for q in range(len(z)):
            w(masked(slopes[q], f"uint32(column + uint32({q}))", "n_out"))
        w(f"store_global(deltas, uint32(delta + row * delta_stride + column), {vector_of(slopes)})")
    if spec.job == "feedforward":
        result_row(w, values, "uint32(begin + row)")


def result_row(w: Text, names: list[str], row: str) -> None:
    """Lines that store a vector's values among a layer's results, whose rows are not padded."""
    w(f"at = uint64(uint64(result) + uint64({row}) * uint64(n_out) + uint64(column))")
    for q, name in enumerate(names):
        with w.block(f"if uint32(column + uint32({q})) < n_out:"):
            w(f"out[uint64(at + uint64({q}))] = {name}")


# ---------------------------------------------------------------------------------------------------------- outputs
#: Reads an output's pre-activation; where a delta takes its place, nobody but the thread that puts it there looks.
PRE_ACTIVATION = "{} = deltas[uint32(at + {})] if here else zero"


def output_rows(w: Text, spec: Spec, first: str, stop: str, step: str) -> None:
    """Write what is done with whole rows of the output: normalising, loss and delta, hits, or results.

    Each row is shared by ``spec.lanes`` neighbouring threads, no more than outputs. All of a warp go round equally
    often, as they exchange what they have; those beyond the batch do it with zeros, and keep nothing.
    """
    with w.function("outputs", *SUMMED):
        width = spec.lanes
        w(f"lane = uint32(t % uint32({width}))", f"mine = uint32(t // uint32({width}))")
        with w.each("turn", first, stop, step):
            w(
                "row = uint32(turn + mine)",
                f"here = row < {stop}",
                f"row = uint32(min(row, uint32({stop} - uint32(1))))",
            )
            w("at = uint32(delta + row * delta_stride)")
            if spec.learns or spec.job == "evaluate":
                index = "order[uint32(begin + row)]" if spec.gathers else "uint32(begin + row)"
                w(f"sample = uint32({index})")
                if spec.labels:
                    w("label = uint32(Y[sample])")
            if spec.output == SOFTMAX:
                row_of_softmax(w, spec)
            if spec.job == "evaluate":
                w("best = zero", "best_at = uint32(0xffffffff)", "top_y = zero", "top_y_at = uint32(0xffffffff)")
                w("wrong = uint32(0)")
            with w.each("c", "lane", "n_out", f"uint32({width})"):
                output_element(w, spec)
            if spec.job == "evaluate":
                count_hit(w, spec)


def lanes_below(width: int) -> list[int]:
    """Distances over which lanes exchange, so that each has what all ``width`` have."""
    return [1 << i for i in range(width.bit_length() - 1)]


def row_of_softmax(w: Text, spec: Spec) -> None:
    """Lines that find a row's largest pre-activation and the sum of the exponentials, and its logarithm."""
    w(PRE_ACTIVATION.format("top", "lane"))
    with w.each("c", "lane", "n_out", f"uint32({spec.lanes})"):
        w(PRE_ACTIVATION.format("z", "c"), "top = z if z > top else top")
    for m in lanes_below(spec.lanes):
        w(f"other = cuda.shfl_xor_sync(uint32(0xffffffff), top, {m})", "top = other if other > top else top")
    w("total = zero")
    with w.each("c", "lane", "n_out", f"uint32({spec.lanes})"):
        w(PRE_ACTIVATION.format("z", "c"), "total += exp(z - top)")
    for m in lanes_below(spec.lanes):
        w(f"total += cuda.shfl_xor_sync(uint32(0xffffffff), total, {m})")
    w("log_sum = top + log(total)")


def output_element(w: Text, spec: Spec) -> None:
    """Lines for one output of a row: ``c`` is its number."""
    T = spec.dtype
    w(PRE_ACTIVATION.format("z", "c"))
    if spec.output == SOFTMAX:
        w("a = exp(z - top) / total")
    else:
        written = formulas.activation(spec.output, "z", T, "t")
        w(*written.lines, f"a = {written.results[0]}", f"slope = {written.results[1]}")
    if spec.job in ("predict", "feedforward"):
        with w.block("if here:"):
            first = "uint64(result)" if spec.job == "feedforward" else "uint64(0)"
            w(f"out[uint64({first} + uint64(begin + row) * uint64(n_out) + uint64(c))] = a")
        return
    if spec.labels:
        w(f"y = {T}(label) if n_out == uint32(1) else (one if c == label else zero)")
    else:
        w("y = Y[uint64(uint64(sample) * uint64(n_out) + uint64(c))]")
    if spec.loss == CROSS_ENTROPY:
        value = "(log_sum - z if c == label else zero)" if spec.labels else "y * (log_sum - z)"
        delta = "a - y"
    else:
        written = formulas.loss(spec.loss, "z", "a", "slope", "y", T, "u")
        w(*written.lines)
        value, delta = written.results
    w(f"value = {value}")
    if spec.job == "evaluate":
        best_so_far(w)
    with w.block("if here:"):
        w("loss_sum += value")
        if spec.errors:
            w("error_sum += (a - y) * (a - y)")
        if spec.learns:
            w(f"deltas[uint32(at + c)] = ({delta}) * share")


def best_so_far(w: Text) -> None:
    """Lines that keep the largest output and the largest target of a row, the first of equals; NaN is the largest.

    And whether an output is on the wrong side of ½, where that is what counts
    (`fastmlp.kernels.contract.counts_sides`).
    """
    for best, x in (("best", "a"), ("top_y", "y")):
        with w.block(f"if {best}_at == uint32(0xffffffff) or {x} > {best} or ({x} != {x} and {best} == {best}):"):
            w(f"{best} = {x}", f"{best}_at = c")
    with w.block("if (a > half) != (y > half):"):
        w("wrong = uint32(1)")


def count_hit(w: Text, spec: Spec) -> None:
    """Lines that find, over all lanes of a row, whether it is right (`fastmlp.kernels.contract.counts_sides`)."""
    for m in lanes_below(spec.lanes):
        for best in ("best", "top_y"):
            w(f"other = cuda.shfl_xor_sync(uint32(0xffffffff), {best}, {m})")
            # Numba's shuffles take signed numbers alone.
            w(f"other_at = uint32(cuda.shfl_xor_sync(uint32(0xffffffff), int32({best}_at), {m}))")
            number = f"(other == other and {best} == {best})"
            larger = f"{number} and other > {best} or (other != other and {best} == {best})"
            equal = f"(other == {best} or (other != other and {best} != {best})) and other_at < {best}_at"
            known = "other_at != uint32(0xffffffff)"
            with w.block(f"if {known} and ({best}_at == uint32(0xffffffff) or ({larger}) or ({equal})):"):
                w(f"{best} = other", f"{best}_at = other_at")
        w(f"wrong |= uint32(cuda.shfl_xor_sync(uint32(0xffffffff), int32(wrong), {m}))")
    if spec.output == "sigmoid" and not spec.labels:
        w("right = uint32(wrong == uint32(0))")
    else:
        w("right = uint32(wrong == uint32(0)) if n_out == uint32(1) else uint32(best_at == top_y_at)")
    with w.block("if here and lane == uint32(0):"):
        w("hit_sum = uint32(hit_sum + right)")


# ----------------------------------------------------------------------------------------------------- rows' phase
FORWARD = ("n_in", "n_out", "weights", "weights_stride", "below", "below_stride", "above", "above_stride")
OUTPUT = (*FORWARD, "delta", "delta_stride", "code", "result")
BACK = ("n_in", "n_out", "weights", "weights_stride", "delta", "delta_stride", "delta_below", "delta_below_stride")


class Rows:
    """The phase over the rows of a batch, in either way of dealing it out."""

    def __init__(self, w: Text, spec: Spec) -> None:
        self.w, self.spec = w, spec

    def write(self) -> None:
        """Write the phase; the grid does not meet after it."""
        w, spec = self.w, self.spec
        if not spec.bands:
            self._layers()
            return
        rows = spec.last.rows
        with w.each("row0", f"block * uint32({rows})", "count", f"blocks * uint32({rows})"):
            if not spec.learns:  # a block uses the rows of scratch memory that are its own, band after band
                w(f"back = uint32(row0 - block * uint32({rows}))")
            self._layers()

    def _layers(self) -> None:
        w, spec = self.w, self.spec
        if spec.layers > 1:
            self._layer("uint32(0)", OUTPUT, lambda: forward_tile(w, spec, True, False), spec.first, "count", "n_out")
            if not spec.bands:
                meet(w)
        if spec.layers > 2:
            with w.each("layer", "uint32(1)", "uint32(layers - uint32(1))", "uint32(1)"):
                self._layer("layer", OUTPUT, lambda: forward_tile(w, spec, False, False), spec.inner, "count", "n_out")
                if not spec.bands:
                    meet(w)
        self._output()
        if spec.learns and spec.layers > 1:
            with w.counting_down("layer", "layers", "uint32(1)"):
                if not spec.bands:
                    meet(w)
                self._layer("layer", BACK, lambda: delta_tile(w, spec), spec.delta, "count", "n_in")

    def _output(self) -> None:
        w, spec = self.w, self.spec
        single = spec.layers == 1
        groups = spec.threads // spec.lanes
        one = spec.one_tile

        def tile() -> None:
            forward_tile(w, spec, single, True)
            if one:
                output_rows(
                    w, spec, "row0", f"min(uint32(row0 + uint32({spec.last.rows})), count)", f"uint32({groups})"
                )
                w("cuda.syncthreads()")

        self._layer("uint32(layers - uint32(1))", OUTPUT, tile, spec.last, "count", "n_out")
        if one:
            return
        if spec.bands:
            output_rows(w, spec, "row0", f"min(uint32(row0 + uint32({spec.last.rows})), count)", f"uint32({groups})")
            w("cuda.syncthreads()")
        else:
            meet(w)
            output_rows(w, spec, f"block * uint32({groups})", "count", f"blocks * uint32({groups})")

    def _layer(self, layer: str, names: tuple, tile: Callable[[], None], shape: Tile, rows: str, columns: str) -> None:
        """Write a layer's tiles: those of the band's rows, or this block's share of all."""
        w, spec = self.w, self.spec
        layer_names(w, layer, *names)
        if spec.bands:
            if not spec.learns:
                self._move_back(names)
            with w.each("column0", "uint32(0)", columns, f"uint32({shape.columns})"):
                tile()
            return
        w(f"across_tiles = uint32(({columns} + uint32({shape.columns - 1})) // uint32({shape.columns}))")
        w(f"tiles = uint32(({rows} + uint32({shape.rows - 1})) // uint32({shape.rows}) * across_tiles)")
        with w.each("item", "block", "tiles", "blocks"):
            w(f"row0 = uint32(item // across_tiles * uint32({shape.rows}))")
            w(f"column0 = uint32(item % across_tiles * uint32({shape.columns}))")
            tile()

    def _move_back(self, names: tuple) -> None:
        """Lines by which rows of scratch memory begin anew with each band (unsigned numbers wrap around)."""
        for place in ("below", "above", "delta"):
            if place in names:
                self.w(f"{place} = uint32({place} - back * {place}_stride)")


def delta_tile(w: Text, spec: Spec) -> None:
    """Write a tile of the delta of the layer below: the product with the weights, times the slope."""
    with w.function("delta"):
        above = Matrix("deltas", "delta", "delta_stride", "count", "n_out", spec.dtype)
        weights = Matrix("parameters", "weights", "weights_stride", "n_out", "n_in", spec.dtype)
        product(w, spec.delta, spec.threads, (above, True), (weights, False), ("uint32(0)", "n_out"))
        slopes = [f"d{q}" for q in range(spec.vector)]

        def lines(sums: list[str]) -> None:
            w("at = uint32(delta_below + row * delta_below_stride + column)")
            w(f"{', '.join(slopes)} = load_global(deltas, at)")
            for q, (name, slope) in enumerate(zip(sums, slopes, strict=True)):
                w(f"{name} *= {slope}", masked(name, f"uint32(column + uint32({q}))", "n_in"))
            w(f"store_global(deltas, at, {vector_of(sums)})")

        finish(w, spec.delta, spec.dtype, spec.threads, "count", "n_in", lines)


# ------------------------------------------------------------------------------------------------------- gradients
GRADIENT = ("n_in", "n_out", "weights", "weights_stride", "below", "below_stride", "delta", "delta_stride", "splits")


def gradient_items(w: Text, spec: Spec, samples: bool) -> None:
    """Write this block's share of a layer's gradients: ``item`` goes on from layer to layer, from ``done`` on."""
    tile = spec.gradient_first if samples else spec.gradient
    w(f"across_tiles = uint32((n_in + uint32({tile.columns - 1})) // uint32({tile.columns}))")
    w(f"tiles = uint32((n_out + uint32({tile.rows - 1})) // uint32({tile.rows}) * across_tiles)")
    w("part = uint32((count + splits - uint32(1)) // splits)")
    w(f"part = uint32((part + uint32({tile.depth - 1})) // uint32({tile.depth}) * uint32({tile.depth}))")
    w("done = uint32(done + tiles * splits)")
    with w.block("while item < done:"):
        w("local = uint32(item + tiles * splits - done)", "split = uint32(local // tiles)")
        w("local = uint32(local % tiles)")
        w(f"row0 = uint32(local // across_tiles * uint32({tile.rows}))")
        w(f"column0 = uint32(local % across_tiles * uint32({tile.columns}))")
        w("from_row = uint32(split * part)", "to_row = min(uint32(from_row + part), count)")
        w("base = uint32(split * size)")
        gradient_tile(w, spec, tile, samples)
        w("item = uint32(item + blocks)")


def gradient_tile(w: Text, spec: Spec, tile: Tile, samples: bool) -> None:
    """Write a tile of the gradients of one part of the batch, the biases' included."""
    with w.function("gradient"):
        delta = Matrix("deltas", "delta", "delta_stride", "count", "n_out", spec.dtype)
        below = sources(spec) if samples else Matrix("values", "below", "below_stride", "count", "n_in", spec.dtype)

        def biases(panel) -> None:
            with w.block("if column0 == uint32(0):"):
                panel.put_sums(w)
                w("cuda.syncthreads()")
                with w.each("e", "t", f"uint32({tile.rows})", f"uint32({spec.threads})"):
                    w("total = zero")
                    with w.each("d", "uint32(0)", f"uint32({tile.depth})", "uint32(1)"):
                        w(f"total += pool[uint32(d * uint32({tile.rows}) + e)]")
                    w("row = uint32(row0 + e)")
                    with w.block("if row < n_out:"):
                        w("parts[uint32(base + weights - uint32(1) + row * weights_stride)] = total")
                w("cuda.syncthreads()")

        product(
            w,
            tile,
            spec.threads,
            (delta, False),
            (below, False),
            ("from_row", "to_row"),
            add_up=spec.bias,
            tail=biases if spec.bias else None,
        )

        def lines(sums: list[str]) -> None:
            w(f"store_global(parts, uint32(base + weights + row * weights_stride + column), {vector_of(sums)})")

        finish(w, tile, spec.dtype, spec.threads, "n_out", "n_in", lines)


def gradients(w: Text, spec: Spec) -> None:
    """Write the phase of the gradients."""
    w("item = uint32(block)", "done = uint32(0)")
    layer_names(w, "uint32(0)", *GRADIENT)
    gradient_items(w, spec, True)
    if spec.layers > 1:
        with w.each("layer", "uint32(1)", "layers", "uint32(1)"):
            layer_names(w, "layer", *GRADIENT)
            gradient_items(w, spec, False)


# ---------------------------------------------------------------------------------------------------------- update
def update(w: Text, spec: Spec) -> None:
    """Write the phase of the update: vector by vector, each thread by itself."""
    with w.function("update"):
        ahead = ALIGNMENT // ITEMSIZE[spec.dtype]  # elements before a row's first weight, of which the last is the bias
        vector = spec.vector
        with w.each("layer", "uint32(0)", "layers", "uint32(1)"):
            layer_names(w, "layer", "n_in", "n_out", "weights", "weights_stride", "splits")
            w(f"in_row = uint32(weights_stride // uint32({vector}))", "all_vectors = uint32(n_out * in_row)")
            with w.each("e", f"block * uint32({spec.threads}) + t", "all_vectors", f"blocks * uint32({spec.threads})"):
                w(f"position = uint32(e % in_row * uint32({vector}))")
                least = ahead - vector if spec.bias else ahead
                with w.block(f"if position >= uint32({least}) and position < uint32(n_in + uint32({ahead})):"):
                    w(f"at = uint32(weights - uint32({ahead}) + e * uint32({vector}))")
                    update_vector(w, spec, ahead)


def update_vector(w: Text, spec: Spec, ahead: int) -> None:
    """Lines that add up the parts of a vector of gradients and apply them."""
    vector = spec.vector
    g, parameter = [f"g{q}" for q in range(vector)], [f"w{q}" for q in range(vector)]
    w(f"{', '.join(g)} = load_global(parts, at)", "place = uint32(at + size)")
    part = [f"h{q}" for q in range(vector)]
    with w.each("split", "uint32(1)", "splits", "uint32(1)"):
        w(f"{', '.join(part)} = load_global(parts, place)", "place = uint32(place + size)")
        w(*(f"{a} += {b}" for a, b in zip(g, part, strict=True)))
    if spec.l2 or spec.job == "train":
        w(f"{', '.join(parameter)} = load_global(parameters, at)")
    if spec.l2:
        with w.block(f"if position >= uint32({ahead}):"):  # biases are spared
            w(*(f"{a} += penalty * {b}" for a, b in zip(g, parameter, strict=True)))
    inside = []
    for q in range(vector):
        place = f"uint32(position + uint32({q}))"
        first = ahead - 1 if spec.bias else ahead
        inside.append(f"{place} >= uint32({first}) and {place} < uint32(n_in + uint32({ahead}))")
    if spec.job == "gradient":
        w(*(f"{name} = {name} if {there} else zero" for name, there in zip(g, inside, strict=True)))
        w(f"store_global(gradients, at, {vector_of(g)})")
        return
    slots = UPDATES[spec.rule][1]
    state = [[f"v{i}_{q}" for q in range(vector)] for i in range(slots)]
    for i, names in enumerate(state):
        w(f"{', '.join(names)} = load_global(slots, uint32(at + uint32({i}) * size))")
    for q in range(vector):
        written = formulas.update(spec.rule, parameter[q], g[q], [names[q] for names in state], spec.dtype, f"t{q}_")
        targets = [parameter[q], *(names[q] for names in state)]
        w(*written.lines)
        new = [f"n{i}" for i in range(len(targets))]
        w(*(f"{a} = {b}" for a, b in zip(new, written.results, strict=True)))
        w(*(f"{a} = {b} if {inside[q]} else zero" for a, b in zip(targets, new, strict=True)))
    w(f"store_global(parameters, at, {vector_of(parameter)})")
    for i, names in enumerate(state):
        w(f"store_global(slots, uint32(at + uint32({i}) * size), {vector_of(names)})")


# ---------------------------------------------------------------------------------------------------------- losses
def keep_sums(w: Text, spec: Spec) -> None:
    """Lines that store what this block's rows add to loss, error or hits."""
    for i, name in enumerate(["loss_sum", *(["error_sum"] if spec.errors else [])]):
        share_out(w, name, spec)
        with w.block("if t == uint32(0):"):
            w(f"sums[uint32(block * uint32(2) + uint32({i}))] = {name}")
    if spec.job == "evaluate":
        w("cuda.atomic.add(hits, 0, hit_sum)")


def report(w: Text, spec: Spec) -> None:
    """Lines by which the last block, which has least to do, adds up what all blocks found."""
    with w.block("if block == uint32(blocks - uint32(1)):"):
        for i, name in enumerate(["loss_sum", *(["error_sum"] if spec.errors else [])]):
            w(f"{name} = zero")
            with w.each("e", "t", "blocks", f"uint32({spec.threads})"):
                w(f"{name} += sums[uint32(e * uint32(2) + uint32({i}))]")
            share_out(w, name, spec)
            with w.block("if t == uint32(0):"):
                if name == "loss_sum":
                    w("losses[step] = loss_sum * share")
                else:
                    w("errors[step] = error_sum * share * half / outputs")


# ------------------------------------------------------------------------------------------------------- the kernel
def kernel(spec: Spec) -> str:
    """The text of a module with a function ``kernel``."""
    w = Text(IMPORTS)
    with w.block(f"def kernel({', '.join(name for name, _ in arguments(spec))}):"):
        w(f"pool = cuda.shared.array(0, {spec.dtype})", "pool_at = shared_address(pool)")
        w("thread = t = uint32(cuda.threadIdx.x)", "block = uint32(cuda.blockIdx.x)", "blocks = uint32(cuda.gridDim.x)")
        w(f"zero = {spec.dtype}(0)", f"one = {spec.dtype}(1)", f"half = {spec.dtype}(0.5)")
        epoch(w, spec)
    return w.module()


def epoch(w: Text, spec: Spec) -> None:
    """Write all steps of an epoch, or the one pass of inference."""
    if needs_barrier(spec):
        w("awaited = uint32(0)")
    w("step = uint32(0)")
    if spec.errors:
        w(f"outputs = {spec.dtype}(table[uint32((layers - uint32(1)) * uint32({len(COLUMNS)}) + uint32(1))])")
    with w.each("begin", "uint32(0)", "samples", "batch"):
        w("count = min(batch, uint32(samples - begin))", f"share = one / {spec.dtype}(count)")
        if spec.l2 and spec.learns:
            w("penalty = l2 * share")
        one_batch(w, spec)
        w("step = uint32(step + uint32(1))")


def one_batch(w: Text, spec: Spec) -> None:
    """Write the phases of a batch."""
    if spec.learns or spec.job == "evaluate":
        w("loss_sum = zero", "error_sum = zero", "hit_sum = uint32(0)")
    rows = Rows(w, spec)
    rows.write()
    if spec.job in ("predict", "feedforward"):
        return
    keep_sums(w, spec)
    meet(w)
    report(w, spec)
    if spec.job == "evaluate":
        return
    gradients(w, spec)
    meet(w)
    if corrects(spec.rule):
        w("correction1 = corrections[uint32(step * uint32(2))]")
        w("correction2 = corrections[uint32(step * uint32(2) + uint32(1))]")
    update(w, spec)
    meet(w)


#: What the text uses from outside.
IMPORTS = """\
from numba import cuda, float32, float64, int32, uint32, uint64

from fastmlp.kernels.cuda.elementwise import exp, fabs, log, log1p, sqrt, tanh
from fastmlp.kernels.cuda.ptx import acquire, arrive, load_global, load_shared, store_global, store_shared
from fastmlp.kernels.cuda.sums import Place, Tile, summing
from fastmlp.kernels.cuda.tile_ops import device, forget, load_four_if, load_two_if, shared_address
"""
