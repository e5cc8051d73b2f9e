"""What is done to rows outside the products: taking samples in, activations, the output and its loss.

Rows lie in scratch, aligned and padded with zeros to whole vectors (`fastmlp.kernels.network`), so a row of n values is
handled as ceil(n / lanes) vectors; where a row has a neighbour beyond its n values, the last vector is masked.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.contract import INPUT_DTYPES
from fastmlp.kernels.cpu.vectors import INT32, Vec, VectorMath, cases, fold, int_constant, loop, pointer
from fastmlp.kernels.losses import LOSSES

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)

#: dtype of the samples -> the integer by which `gather` knows it
INPUT_CODES = {np.dtype(name): code for code, name in enumerate(INPUT_DTYPES)}
_INPUT_TYPES = (ir.IntType(8), ir.FloatType(), ir.DoubleType())


@intrinsic
def gather(typing, address, code, n, scale, shift, X, x0):
    """Take one sample of n values in: X[x0:x0 + n] = sample * scale + shift.

    ``address`` is where the sample lies and ``code`` its dtype (`INPUT_CODES`), so that one compiled function takes
    any. What is left after whole vectors is done by one more that ends where the sample does, and so does a part again;
    of a sample shorter than a vector value by value. Padding stays zero, and nothing is read past the sample's end.
    """
    signature = types.void(I, I, I, X.dtype, X.dtype, X, I)

    def generate(context, builder, signature, arguments):
        address, code, n, scale, shift, X, x0 = arguments
        X = pointer(context, builder, signature.args[5], X)
        element = context.get_data_type(signature.args[3])
        whole = VectorMath(builder, element)
        full = builder.and_(n, int_constant(-whole.lanes))

        def convert(m: VectorMath, sample: ir.Value, k: ir.Value, source: ir.Type) -> list[ir.Value]:
            kind = ir.VectorType(source, m.lanes)
            place = builder.bitcast(builder.gep(sample, [k]), kind.as_pointer())
            raw = builder.load(place)
            raw.align = 1 if isinstance(source, ir.IntType) else (8 if isinstance(source, ir.DoubleType) else 4)
            if isinstance(source, ir.IntType):
                value = builder.uitofp(raw, m.type)
            elif source == element:
                value = raw
            else:
                value = builder.fpext(raw, m.type) if m.double else builder.fptrunc(raw, m.type)
            m.store(m.fma(value, m.spread(scale), m.spread(shift)), X, builder.add(x0, k), aligned=False)
            return []

        def body(source: ir.Type):
            def run():
                sample = builder.inttoptr(address, source.as_pointer())
                single = VectorMath(builder, element, 1)
                loop(
                    builder,
                    int_constant(0),
                    full,
                    whole.lanes,
                    [],
                    lambda k, _: convert(whole, sample, k, source),
                )
                short = builder.icmp_signed("==", full, int_constant(0))
                with builder.if_then(builder.icmp_signed("<", full, n)), builder.if_else(short) as (then, otherwise):
                    with then:
                        loop(builder, int_constant(0), n, 1, [], lambda k, _: convert(single, sample, k, source))
                    with otherwise:
                        convert(whole, sample, builder.sub(n, int_constant(whole.lanes)), source)

            return run

        cases(builder, code, [body(source) for source in _INPUT_TYPES])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def activate(typing, code, Z, z0, n, A, a0, S, s0, shared):
    """A = σ(Z) and S = σ'(Z) over n values. Softmax and identity leave Z as it is; Z may be A.

    Where ``shared`` is not 0, the n values alone are written: their neighbours belong to other threads. Elsewhere the
    last vector is written whole, with zeros as padding, for processors can be slow to write a part of one.
    """
    signature = types.void(I, Z, I, I, A, I, S, I, I)

    def generate(context, builder, signature, arguments):
        code, Z, z0, n, A, a0, S, s0, shared = arguments
        kinds = signature.args
        Z, A, S = (pointer(context, builder, kinds[i], a) for i, a in ((1, Z), (4, A), (6, S)))
        m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
        full = builder.and_(n, int_constant(-m.lanes))

        def body(formula):
            def vectors(k):
                value, slope = formula(Vec(m, m.load(Z, builder.add(z0, k), aligned=False)), m)
                return (value.value, A, builder.add(a0, k)), (slope.value, S, builder.add(s0, k))

            def write(k, _):
                for vector, target, place in vectors(k):
                    m.store(vector, target, place, aligned=False)
                return []

            def write_rest():
                rest, alone = m.first_lanes(builder.sub(n, full)), builder.icmp_signed("==", shared, int_constant(0))
                written = vectors(full)
                with builder.if_else(alone) as (then, otherwise):
                    with then:
                        for vector, target, place in written:
                            m.store(builder.select(rest, vector, m.constant(0)), target, place, aligned=False)
                    with otherwise:
                        for vector, target, place in written:
                            m.store_first(vector, target, place, rest)

            def run():
                loop(builder, int_constant(0), full, m.lanes, [], write)
                with builder.if_then(builder.icmp_signed("<", full, n)):
                    write_rest()

            return run

        formulas = [*ACTIVATIONS.values(), ACTIVATIONS["identity"]]  # the last: softmax, whose logits are kept
        cases(builder, code, [body(formula) for formula in formulas])
        return context.get_dummy_value()

    return signature, generate


#: Vectors of a row of logits that stay in registers from the first to the last; longer rows are gone over three times.
MOST_VECTORS = 3


@intrinsic
def softmax(typing, Z, z0, n, T, t0, factor, P, p0, D, d0):
    """P = softmax(Z) and D = (P - T) * factor over a row of n logits; returns (Σ e^(Z - max Z), max Z - Σ T Z).

    With the two, the cross-entropy with targets T is the logarithm of the first plus the second.
    """
    signature = types.UniTuple(Z.dtype, 2)(Z, I, I, T, I, Z.dtype, P, I, D, I)

    def generate(context, builder, signature, arguments):
        Z, z0, n, T, t0, factor, P, p0, D, d0 = arguments
        kinds = signature.args
        Z, T, P, D = (pointer(context, builder, kinds[i], a) for i, a in ((0, Z), (3, T), (6, P), (8, D)))
        m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
        factor, low, zero = m.spread(factor), m.constant(float("-inf")), m.constant(0)
        results = [cgutils.alloca_once(builder, m.element) for _ in range(2)]

        def inside(k):
            return m.first_lanes(builder.sub(n, k))

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def masked(mask, vector, other):
            return vector if mask is None else builder.select(mask, vector, other)

        def exponentials(z, mask, top):
            return masked(mask, m.exp(Vec(m, z) - top).value, zero)

        def finish(k, e, scale):
            p = builder.fmul(e, scale)
            m.store(p, P, builder.add(p0, k))
            m.store(builder.fmul(builder.fsub(p, m.load(T, builder.add(t0, k))), factor), D, builder.add(d0, k))

        def give(top, total, chosen):
            """Store the results, and return 1 / Σ."""
            sums = fold(m, [total, chosen])
            total, chosen = (builder.extract_element(sums, ir.Constant(INT32, lane)) for lane in range(2))
            builder.store(total, results[0])
            builder.store(builder.fsub(top, chosen), results[1])
            return m.spread(builder.fdiv(ir.Constant(m.element, 1.0), total))

        def in_registers(vectors: int):
            def run():
                places = [int_constant(v * m.lanes) for v in range(vectors)]
                masks = [None] * (vectors - 1) + [inside(places[-1])]
                logits = [m.load(Z, builder.add(z0, k)) for k in places]
                top = low
                for z, mask in zip(logits, masks, strict=True):
                    top = larger(top, masked(mask, z, low))
                top = m.largest(top)
                total, chosen, powers = zero, zero, []
                for k, z, mask in zip(places, logits, masks, strict=True):
                    powers.append(exponentials(z, mask, Vec(m, m.spread(top))))
                    total = builder.fadd(total, powers[-1])
                    chosen = m.fma(m.load(T, builder.add(t0, k)), z, chosen)
                scale = give(top, total, chosen)
                for k, e in zip(places, powers, strict=True):
                    finish(k, e, scale)

            return run

        def from_memory():
            def find(k, largest):
                return [larger(largest[0], masked(inside(k), m.load(Z, builder.add(z0, k)), low))]

            top = m.largest(loop(builder, int_constant(0), n, m.lanes, [low], find)[0])
            spread_top = Vec(m, m.spread(top))

            def add(k, sums):
                z = m.load(Z, builder.add(z0, k))
                e = exponentials(z, inside(k), spread_top)
                m.store(e, P, builder.add(p0, k))
                return [builder.fadd(sums[0], e), m.fma(m.load(T, builder.add(t0, k)), z, sums[1])]

            scale = give(top, *loop(builder, int_constant(0), n, m.lanes, [zero, zero], add))

            def last(k, _):
                finish(k, m.load(P, builder.add(p0, k)), scale)
                return []

            loop(builder, int_constant(0), n, m.lanes, [], last)

        vectors = builder.sdiv(builder.add(n, int_constant(m.lanes - 1)), int_constant(m.lanes))
        fits = builder.icmp_signed("<=", vectors, int_constant(MOST_VECTORS))
        bodies = [from_memory, *(in_registers(v) for v in range(1, MOST_VECTORS + 1))]
        cases(builder, builder.select(fits, vectors, int_constant(0)), bodies)
        return context.make_tuple(builder, signature.return_type, [builder.load(result) for result in results])

    return signature, generate


@intrinsic
def one_hot(typing, label, n, T, t0):
    """T = 1 at place ``label`` of a row of n, 0 elsewhere, padding included."""
    signature = types.void(I, I, T, I)

    def generate(context, builder, signature, arguments):
        label, n, T, t0 = arguments
        T = pointer(context, builder, signature.args[2], T)
        m = VectorMath(builder, context.get_data_type(signature.args[2].dtype))

        def body(k, _):
            here = m.lane(builder.sub(label, k))
            m.store(builder.select(here, m.constant(1), m.constant(0)), T, builder.add(t0, k))
            return []

        loop(builder, int_constant(0), n, m.lanes, [], body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def elementwise_loss(typing, code, Z, z0, n, A, a0, S, s0, T, t0, factor, D, d0):
    """D = delta * factor over a row of n outputs A with pre-activations Z, slopes S and targets T; returns Σ loss."""
    signature = Z.dtype(I, Z, I, I, A, I, S, I, T, I, Z.dtype, D, I)

    def generate(context, builder, signature, arguments):
        *row, factor, D, d0 = arguments
        return _losses(context, builder, signature.args, [*row, D, d0], lambda m, k: m.spread(factor), of_value=False)

    return signature, generate


@intrinsic
def weighted_loss(typing, code, Z, z0, n, A, a0, S, s0, T, t0, F, f0, D, d0):
    """As `elementwise_loss` with a factor F for each number, of its loss as well; returns Σ loss * F."""
    signature = Z.dtype(I, Z, I, I, A, I, S, I, T, I, F, I, D, I)

    def generate(context, builder, signature, arguments):
        *row, F, f0, D, d0 = arguments
        F = pointer(context, builder, signature.args[10], F)

        def factor(m: VectorMath, k: ir.Value) -> ir.Value:
            return m.load(F, builder.add(f0, k))

        return _losses(context, builder, signature.args, [*row, D, d0], factor, of_value=True)

    return signature, generate


def _losses(context, builder, kinds, arguments, factor, of_value: bool) -> ir.Value:
    """The instructions of both; ``factor(m, k)`` is the vector at place k, for the losses, too, if ``of_value``."""
    code, Z, z0, n, A, a0, S, s0, T, t0, D, d0 = arguments
    places = ((1, Z), (4, A), (6, S), (8, T), (len(kinds) - 2, D))
    Z, A, S, T, D = (pointer(context, builder, kinds[i], a) for i, a in places)
    m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
    result = cgutils.alloca_once(builder, m.element)
    builder.store(ir.Constant(m.element, 0.0), result)

    def body(value, delta):
        def turn(k, sums):
            z, a, s, t = (
                Vec(m, m.load(array, builder.add(start, k))) for array, start in ((Z, z0), (A, a0), (S, s0), (T, t0))
            )
            inside, zero, f = m.first_lanes(builder.sub(n, k)), m.constant(0), Vec(m, factor(m, k))
            d = (delta(a, s, t, m) * f).value
            m.store(builder.select(inside, d, zero), D, builder.add(d0, k))
            v = value(z, a, t, m)
            v = (v * f if of_value else v).value
            return [builder.fadd(sums[0], builder.select(inside, v, zero))]

        def run():
            (total,) = loop(builder, int_constant(0), n, m.lanes, [m.constant(0)], turn)
            builder.store(m.sum(total), result)

        return run

    cases(builder, code, [body(*formulas) for formulas in LOSSES.values()])
    return builder.load(result)
