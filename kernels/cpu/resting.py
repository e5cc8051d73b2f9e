"""Rows of weights by input, each with its velocities, that take a step only when a batch has a value for them.

`fastmlp.kernels.cpu.lazy_layer` tells why. The loops over lists of inputs are written here in vector instructions, so
that all that stays the same from row to row stays in registers.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.lists import HALF
from fastmlp.kernels.cpu.prefetch import ask_for_vectors
from fastmlp.kernels.cpu.sparse import add_samples, for_width, word_of
from fastmlp.kernels.cpu.vectors import INTP, VectorMath, cases, int_constant, loop, loop_while, pointer
from fastmlp.kernels.updates import HYPERPARAMETERS

#: How many rows ahead a row's lines are asked for: two take longer than the second-level cache.
AHEAD = 2
#: Samples of which two vectors of deltas each fit 16 registers, beside as much of a row and one value.
FEW_SAMPLES = 5

#: Steps of rest that one turn of catching up covers: the length of the table of μᵏ and η (μ + … + μᵏ).
LONGEST_REST = 256

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


def _row(m: VectorMath, V: int, w0, apart) -> tuple[list[ir.Value], list[ir.Value]]:
    """Offsets of V vectors of weights and of their velocities, ``apart`` elements on."""
    b = m.builder
    weights = [b.add(w0, int_constant(v * m.lanes)) for v in range(V)]
    return weights, [b.add(weight, apart) for weight in weights]


def _ask_for_row(m: VectorMath, V: int, W, w0, apart) -> None:
    """Ask for a row's lines before they are wanted: which row comes next, no hardware could guess."""
    for places in _row(m, V, w0, apart):
        ask_for_vectors(m, W, places)


def _emit_step(m: VectorMath, V: int, word, X, x0, sx, D, d0, sd, W, w0, apart, rate, momentum) -> None:
    """V vectors of a row's step, v ← μ v + Σ x[i] · row i of D over the samples whose bit is set; w ← w - η v."""
    b = m.builder
    weights, velocities = _row(m, V, w0, apart)
    start = [b.fmul(momentum, m.load(W, velocity)) for velocity in velocities]
    sums = add_samples(m, word, X, x0, sx, D, d0, sd, start)
    for total, weight, velocity in zip(sums, weights, velocities, strict=True):
        m.store(total, W, velocity)
        m.store(m.fma(b.fneg(rate), total, m.load(W, weight)), W, weight)


def _inputs(b: ir.IRBuilder, lists, first, last, body) -> None:
    """Run ``body(k, k of the row to ask for)`` for the inputs k listed from ``first`` to before ``last``."""

    def turn(j, _):
        k, later = (b.sext(b.load(b.gep(lists, [at])), INTP) for at in (j, b.add(j, int_constant(AHEAD))))
        body(k, later)
        return []

    loop(b, first, last, 1, [], turn)


@intrinsic
def step_rows(
    typing, vectors, n, word, lists, first, last, low, half, X, x0, sx, D, d0, sd, W, w0, sw, apart, H
):  # fmt: skip
    """The step (`_emit_step`) of V vectors of each row listed from ``first`` to before ``last``, from n samples.

    All rows take the samples of ``word``; if it is 0, each those of its own word, whose halves are at ``low`` and
    ``half`` further on. Two entries after the list are read.
    """
    signature = types.void(I, I, types.int64, lists, I, I, I, I, X, I, I, D, I, I, W, I, I, I, H)

    def generate(context, builder, signature, arguments):
        vectors, n, given, lists, first, last, low, half, X, x0, sx, D, d0, sd, W, w0, sw, apart, H = arguments
        kinds, b = signature.args, builder
        m = VectorMath(builder, context.get_data_type(kinds[8].dtype))
        lists, X, D, W, H = (
            pointer(context, builder, kinds[i], a) for i, a in ((3, lists), (8, X), (11, D), (14, W), (18, H))
        )
        rate, momentum = (
            m.spread(b.load(b.gep(H, [int_constant(HYPERPARAMETERS.index(name))])))
            for name in ("learning_rate", "momentum")
        )
        all_alike = b.icmp_signed("!=", given, int_constant(0))
        both = b.icmp_signed(">", n, int_constant(HALF))

        def emit(V):
            def row(k, later):
                _ask_for_row(m, V, W, b.add(w0, b.mul(later, sw)), apart)
                at = b.select(all_alike, low, b.add(low, k))  # rows that are all alike have no words
                word = b.select(all_alike, given, word_of(b, lists, at, b.add(at, half), both))
                place = b.add(w0, b.mul(k, sw))
                _emit_step(m, V, word, X, b.add(x0, k), sx, D, d0, sd, W, place, apart, rate, momentum)

            _inputs(b, lists, first, last, row)

        for_width(builder, vectors, emit)
        return context.get_dummy_value()

    return signature, generate


def _emit_few(m: VectorMath, n: int, width: int, lists, first, last, X, x0, sx, D, d0, sd, W, w0, sw, apart, H) -> None:
    """The step of ``width`` vectors of each listed row from n samples, whose deltas stay in registers meanwhile."""
    b = m.builder
    rate, momentum = H
    starts = [b.add(d0, b.mul(int_constant(i), sd)) for i in range(n)]
    deltas = [[m.load(D, b.add(at, int_constant(v * m.lanes))) for v in range(width)] for at in starts]
    samples = [b.add(x0, b.mul(int_constant(i), sx)) for i in range(n)]

    def row(k, later):
        _ask_for_row(m, width, W, b.add(w0, b.mul(later, sw)), apart)
        weights, velocities = _row(m, width, b.add(w0, b.mul(k, sw)), apart)
        sums = [b.fmul(momentum, m.load(W, velocity)) for velocity in velocities]
        for sample, delta in zip(samples, deltas, strict=True):
            x = m.spread(b.load(b.gep(X, [b.add(sample, k)])))
            sums = [m.fma(x, d, total) for d, total in zip(delta, sums, strict=True)]
        for total, weight, velocity in zip(sums, weights, velocities, strict=True):
            m.store(total, W, velocity)
            m.store(m.fma(b.fneg(rate), total, m.load(W, weight)), W, weight)

    _inputs(b, lists, first, last, row)


@intrinsic
def step_rows_few(typing, vectors, n, lists, first, last, X, x0, sx, D, d0, sd, W, w0, sw, apart, H):
    """`step_rows` from all of n ≤ `FEW_SAMPLES` samples, whether or not they are off the background.

    How many samples have a value in an input is hard to predict; to take all of a few costs less than to guess wrong.
    Two vectors of a row at a time; their deltas stay in registers.
    """
    signature = types.void(I, I, lists, I, I, X, I, I, D, I, I, W, I, I, I, H)

    def generate(context, builder, signature, arguments):
        vectors, n, lists, first, last, X, x0, sx, D, d0, sd, W, w0, sw, apart, H = arguments
        kinds, b = signature.args, builder
        m = VectorMath(builder, context.get_data_type(kinds[5].dtype))
        lists, X, D, W, H = (
            pointer(context, builder, kinds[i], a) for i, a in ((2, lists), (5, X), (8, D), (11, W), (15, H))
        )
        factors = [
            m.spread(b.load(b.gep(H, [int_constant(HYPERPARAMETERS.index(name))])))
            for name in ("learning_rate", "momentum")
        ]

        def body(samples: int):
            def columns(width: int):
                def run(v, _):
                    at = b.mul(v, int_constant(m.lanes))
                    _emit_few(
                        m, samples, width, lists, first, last, X, x0, sx,
                        D, b.add(d0, at), sd, W, b.add(w0, at), sw, apart, factors,
                    )  # fmt: skip
                    return []

                return run

            def run():
                pairs = b.and_(vectors, int_constant(-2))
                loop(b, int_constant(0), pairs, 2, [], columns(2))
                loop(b, pairs, vectors, 1, [], columns(1))

            return run

        cases(b, b.sub(n, int_constant(1)), [body(samples) for samples in range(1, FEW_SAMPLES + 1)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def rest_rows(typing, vectors, lists, first, last, rested, table, W, w0, sw, apart):
    """Bring the rows listed from ``first`` to before ``last`` up to date: w ← w - way · v; v ← decay · v.

    Row k has rested as many steps as is written at ``rested`` + k. The table at ``table`` in W gives the decay μᵏ
    and the way η (μ + … + μᵏ) for k below `LONGEST_REST`. Two entries after the list are read.
    """
    signature = types.void(I, lists, I, I, I, I, W, I, I, I)

    def generate(context, builder, signature, arguments):
        vectors, lists, first, last, rested, table, W, w0, sw, apart = arguments
        kinds, b, most = signature.args, builder, int_constant(LONGEST_REST - 1)
        m = VectorMath(builder, context.get_data_type(kinds[6].dtype))
        lists, W = (pointer(context, builder, kinds[i], a) for i, a in ((1, lists), (6, W)))

        width = b.mul(vectors, int_constant(m.lanes))

        def row(k, later):
            place, next_place = (b.add(w0, b.mul(at, sw)) for at in (k, later))

            def turn(state):
                steps = b.select(b.icmp_signed("<", state[0], most), state[0], most)
                entry = b.add(table, b.add(steps, steps))
                decay, way = (m.spread(b.load(b.gep(W, [at]))) for at in (entry, b.add(entry, int_constant(1))))

                def one_vector(j, _):
                    _ask_for_row(m, 1, W, b.add(next_place, j), apart)
                    (weight,), (velocity,) = _row(m, 1, b.add(place, j), apart)
                    v = m.load(W, velocity)
                    m.store(m.fma(b.fneg(way), v, m.load(W, weight)), W, weight)
                    m.store(b.fmul(decay, v), W, velocity)
                    return []

                loop(b, int_constant(0), width, m.lanes, [], one_vector)
                return [b.sub(state[0], steps)]

            steps = b.sext(b.load(b.gep(lists, [b.add(rested, k)])), INTP)
            loop_while(b, [steps], lambda state: b.icmp_signed(">", state[0], int_constant(0)), turn)

        _inputs(b, lists, first, last, row)
        return context.get_dummy_value()

    return signature, generate


@compiled
def step(
    vectors, n, word, lists, first, last, low, half, scratch, x0, sx, d0, sd, w0, sw, apart, H
):  # fmt: skip
    """`step_rows`, compiled once for all its callers."""
    step_rows(
        vectors, n, word, lists, first, last, low, half, scratch, x0, sx, scratch, d0, sd, scratch, w0, sw, apart, H
    )
