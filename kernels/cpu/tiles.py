"""Register tiles: the products of a step, and what happens to a product while it is still in registers.

A tile keeps R x C sums in vector registers while one loop runs over k, so that each value loaded serves several
products. Two kinds do all the work, because a unit's weights and a sample are both contiguous rows:

dot     z[c, r] = Σₖ W[r, k] X[c, k]: k runs along the rows, each sum is a whole vector, folded to one number at the
        end. It gives pre-activations, and nothing has to be packed or transposed.
outer   g[r, :] = Σₖ D[r, k] B[k, :]: k runs over rows of B, a number of D is spread over a vector. It gives the delta
        of the layer below (B are weights) and the gradient of the weights (B are samples).

Sizes: dot wants R·C sums + C samples + 1 row in registers, outer R·V sums + V rows + 1 number (or R numbers + 1 row,
if these are fewer): 4 x 3 with 16 registers, 4 x 6 with 32 (`fastmlp.kernels.cpu.config`). What is left over at the
edges is done by smaller tiles, and in outer by tiles of one row less and one vector more, which want no more registers.
"""

from types import SimpleNamespace

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.config import COLUMNS, ROWS
from fastmlp.kernels.cpu.prefetch import ask_for_vectors
from fastmlp.kernels.cpu.vectors import Vec, VectorMath, cases, fold, int_constant, loop, pointer
from fastmlp.kernels.updates import HYPERPARAMETERS, UPDATES

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


# ---------------------------------------------------------------------------------------------------------------- dot
def dot_tile(R: int, C: int):
    """An intrinsic: z[c, r] = Σ W[r, k] X[c, k] for R units and C samples, k from ``start`` to ``stop`` by vectors."""

    @intrinsic
    def tile(typing, W, w0, sw, X, x0, sx, start, stop, Z, z0, sz):
        signature = types.void(W, I, I, X, I, I, I, I, Z, I, I)

        def generate(context, builder, signature, arguments):
            W, w0, sw, X, x0, sx, start, stop, Z, z0, sz = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[0].dtype))
            W, X, Z = (pointer(context, builder, kinds[i], a) for i, a in ((0, W), (3, X), (8, Z)))
            units = [builder.add(w0, builder.mul(int_constant(r), sw)) for r in range(R)]
            samples = [builder.add(x0, builder.mul(int_constant(c), sx)) for c in range(C)]

            def body(k, sums):
                x = [m.load(X, builder.add(sample, k)) for sample in samples]
                new = list(sums)
                for r in range(R):
                    w = m.load(W, builder.add(units[r], k))
                    for c in range(C):
                        new[c * R + r] = m.fma(w, x[c], sums[c * R + r])
                return new

            sums = loop(builder, start, stop, m.lanes, [m.constant(0)] * (R * C), body)
            for c in range(C):
                row = builder.add(z0, builder.mul(int_constant(c), sz))
                store_sums(m, sums[c * R : (c + 1) * R], Z, row)
            return context.get_dummy_value()

        return signature, generate

    return tile


def store_sums(m: VectorMath, vectors: list[ir.Value], Z: ir.Value, offset: ir.Value) -> None:
    """Store the sum of each vector, side by side, folding as many at once as a vector has lanes."""
    group = min(len(vectors), m.lanes)
    for first in range(0, len(vectors), group):
        folded = fold(m, vectors[first : first + group])
        place = m.builder.add(offset, int_constant(first))
        VectorMath(m.builder, m.element, group).store(folded, Z, place, aligned=False)


# -------------------------------------------------------------------------------------------------------------- outer
def outer_sums(m: VectorMath, R: int, V: int, count, D, d0, dr, dk, B, b0, sb) -> list[ir.Value]:
    """R x V vectors of Σₖ D[d0 + r·dr + k·dk] B[b0 + k·sb + v·lanes], row by row."""
    b = m.builder
    rows = [b.add(d0, b.mul(int_constant(r), dr)) for r in range(R)]

    def body(k, sums):
        at, step, new = b.add(b0, b.mul(k, sb)), b.mul(k, dk), list(sums)

        def number(r):
            return m.spread(b.load(b.gep(D, [b.add(rows[r], step)])))

        def vector(v):
            return m.load(B, b.add(at, int_constant(v * m.lanes)))

        # Whatever there are fewer of is held in registers, while the others come one after the other.
        if V > R:
            held = [number(r) for r in range(R)]
            pairs = ((r, v, held[r], x) for v in range(V) for x in [vector(v)] for r in range(R))
        else:
            held = [vector(v) for v in range(V)]
            pairs = ((r, v, d, held[v]) for r in range(R) for d in [number(r)] for v in range(V))
        for r, v, d, x in pairs:
            new[r * V + v] = m.fma(d, x, sums[r * V + v])
        return new

    return loop(b, int_constant(0), count, 1, [m.constant(0)] * (R * V), body)


def places(m: VectorMath, R: int, V: int, offset: ir.Value, stride: ir.Value) -> list[ir.Value]:
    """Offsets of a tile's R x V vectors in an array, row by row."""
    b = m.builder
    rows = [b.add(offset, b.mul(int_constant(r), stride)) for r in range(R)]
    return [b.add(row, int_constant(v * m.lanes)) for row in rows for v in range(V)]


def gradient_tile(R: int, V: int):
    """An intrinsic: E = Σ D B, or E += Σ D B where ``more`` is not 0. (S is there for `delta_tile` alone.)"""

    @intrinsic
    def tile(typing, count, D, d0, dr, dk, B, b0, sb, S, s0, E, e0, se, more):
        signature = types.void(I, D, I, I, I, B, I, I, S, I, E, I, I, I)

        def generate(context, builder, signature, arguments):
            count, D, d0, dr, dk, B, b0, sb, _, _, E, e0, se, more = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
            D, B, E = (pointer(context, builder, kinds[i], a) for i, a in ((1, D), (5, B), (10, E)))
            # The rows below are the next tile's. In a wide layer each is in another page, where no hardware expects it.
            for r in range(R, 2 * R if R > 2 else R):
                ask_for_vectors(m, E, places(m, 1, V, builder.add(e0, builder.mul(int_constant(r), se)), se))
            sums = outer_sums(m, R, V, count, D, d0, dr, dk, B, b0, sb)
            keep = m.all_bits(builder.icmp_signed("!=", more, int_constant(0)))
            for total, place in zip(sums, places(m, R, V, e0, se), strict=True):
                # By its bits, so that what lies in memory does not matter where it is not added (it may be NaN).
                before = builder.and_(builder.bitcast(m.load(E, place), m.int_type), keep)
                m.store(builder.fadd(total, builder.bitcast(before, m.type)), E, place)
            return context.get_dummy_value()

        return signature, generate

    return tile


def delta_tile(R: int, V: int):
    """An intrinsic: E = S · Σ D B, the delta of the layer below: S its slopes, B the weights. (``more`` is ignored.)"""

    @intrinsic
    def tile(typing, count, D, d0, dr, dk, B, b0, sb, S, s0, E, e0, se, more):
        signature = types.void(I, D, I, I, I, B, I, I, S, I, E, I, I, I)

        def generate(context, builder, signature, arguments):
            count, D, d0, dr, dk, B, b0, sb, S, s0, E, e0, se, _ = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
            D, B, S, E = (pointer(context, builder, kinds[i], a) for i, a in ((1, D), (5, B), (8, S), (10, E)))
            sums = outer_sums(m, R, V, count, D, d0, dr, dk, B, b0, sb)
            slopes, targets = places(m, R, V, s0, se), places(m, R, V, e0, se)
            for total, slope, target in zip(sums, slopes, targets, strict=True):
                m.store(builder.fmul(total, m.load(S, slope)), E, target)
            return context.get_dummy_value()

        return signature, generate

    return tile


# ------------------------------------------------------------------------------------------------------- update rules
def emit_rule(m: VectorMath, code, H, sums, W, S, size, where, first) -> None:
    """Apply the rule of that code to vectors of gradients in registers, weights W and state S in memory.

    ``H`` holds the hyperparameters, then λ/B. ``first`` tells which vectors hold no weights but a bias, which the
    penalty spares: a mask a vector.
    """
    b = m.builder
    numbers = [m.spread(b.load(b.gep(H, [int_constant(i)]))) for i in range(len(HYPERPARAMETERS) + 1)]
    h = SimpleNamespace(**{name: Vec(m, x) for name, x in zip(HYPERPARAMETERS, numbers, strict=False)})

    def body(formula, slots):
        def run():
            for total, place, bias in zip(sums, where, first, strict=True):
                w = m.load(W, place)
                decay = b.select(bias, m.constant(0), numbers[-1]) if bias is not None else numbers[-1]
                g = m.fma(decay, w, total)
                state_places = [b.add(place, b.mul(int_constant(slot), size)) for slot in range(slots)]
                state = tuple(Vec(m, m.load(S, p)) for p in state_places)
                new, new_state = formula(Vec(m, w), Vec(m, g), state, h, m)
                m.store(new.value, W, place)
                for value, p in zip(new_state, state_places, strict=True):
                    m.store(value.value, S, p)

        return run

    cases(b, code, [body(formula, slots) for formula, slots in UPDATES.values()])


def rule_tile(R: int, V: int):
    """An intrinsic: the gradient Σ D B of R x V vectors of weights, and the update rule applied to them at once.

    The gradient is never stored. ``bias`` is not 0 where the tile's first column of vectors holds the bias.
    """

    @intrinsic
    def tile(typing, count, D, d0, dr, dk, B, b0, sb, code, H, W, w0, sw, S, size, bias):
        signature = types.void(I, D, I, I, I, B, I, I, I, H, W, I, I, S, I, I)

        def generate(context, builder, signature, arguments):
            count, D, d0, dr, dk, B, b0, sb, code, H, W, w0, sw, S, size, bias = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
            D, B, H, W, S = (
                pointer(context, builder, kinds[i], a) for i, a in ((1, D), (5, B), (9, H), (10, W), (13, S))
            )
            sums = outer_sums(m, R, V, count, D, d0, dr, dk, B, b0, sb)
            has_bias = builder.icmp_signed("!=", bias, int_constant(0))
            first = [has_bias if v == 0 else None for _ in range(R) for v in range(V)]
            emit_rule(m, code, H, sums, W, S, size, places(m, R, V, w0, sw), first)
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def apply_rule(typing, code, H, G, g0, copies, apart, W, S, size, start, stop, spare):
    """The rule on one run of parameters, from ``start`` to ``stop`` in W and S.

    The gradient is the sum of ``copies`` runs in G, ``apart`` elements apart, each ``g0`` elements further on than the
    parameters. ``spare`` is not 0 where the penalty is to be left out.
    """
    signature = types.void(I, H, G, I, I, I, W, S, I, I, I, I)

    def generate(context, builder, signature, arguments):
        code, H, G, g0, copies, apart, W, S, size, start, stop, spare = arguments
        kinds = signature.args
        m = VectorMath(builder, context.get_data_type(kinds[1].dtype))
        H, G, W, S = (pointer(context, builder, kinds[i], a) for i, a in ((1, H), (2, G), (6, W), (7, S)))

        spared = builder.icmp_signed("!=", spare, int_constant(0))

        def body(k, _):
            def add(c, sums):
                return [builder.fadd(sums[0], m.load(G, builder.add(builder.add(g0, k), builder.mul(c, apart))))]

            total = loop(builder, int_constant(0), copies, 1, [m.constant(0)], add)
            emit_rule(m, code, H, total, W, S, size, [k], [spared])
            return []

        loop(builder, start, stop, m.lanes, [], body)
        return context.get_dummy_value()

    return signature, generate


# ------------------------------------------------------------------------------------- loops over tiles, edges included
def make_dot(R: int):
    """Compiled: R units against n samples."""
    wide, two, one = dot_tile(R, COLUMNS), dot_tile(R, 2), dot_tile(R, 1)

    @compiled
    def dot(W, w0, sw, X, x0, sx, n, start, stop, Z, z0, sz):
        c = 0
        while c + COLUMNS <= n:
            wide(W, w0, sw, X, x0 + c * sx, sx, start, stop, Z, z0 + c * sz, sz)
            c += COLUMNS
        while c + 2 <= n:
            two(W, w0, sw, X, x0 + c * sx, sx, start, stop, Z, z0 + c * sz, sz)
            c += 2
        if c < n:
            one(W, w0, sw, X, x0 + c * sx, sx, start, stop, Z, z0 + c * sz, sz)

    return dot


def make_rule(R: int):
    """Compiled: gradient and update of R units' rows."""
    wide, one = rule_tile(R, COLUMNS), rule_tile(R, 1)

    @compiled
    def rule(count, D, d0, dr, dk, B, b0, sb, code, H, W, w0, sw, S, size, start, stop, lanes):
        k = start
        while k + COLUMNS * lanes <= stop:
            wide(count, D, d0, dr, dk, B, b0 + k, sb, code, H, W, w0 + k, sw, S, size, I(k < 0))
            k += COLUMNS * lanes
        while k < stop:
            one(count, D, d0, dr, dk, B, b0 + k, sb, code, H, W, w0 + k, sw, S, size, I(k < 0))
            k += lanes

    return rule


def make_block(tile, R: int, V: int, few: int = 1):
    """Compiled: V vectors of columns of all rows of E, R rows at a time, then ``few``, 1 or 2; of tiles by ``tile``."""
    most, some, one = tile(R, V), tile(few, V), tile(1, V)

    @compiled
    def block(rows, count, D, d0, dr, dk, B, b0, sb, S, s0, E, e0, se, more):
        r = 0
        while r + R <= rows:
            most(count, D, d0 + r * dr, dr, dk, B, b0, sb, S, s0 + r * se, E, e0 + r * se, se, more)
            r += R
        while r + few <= rows:
            some(count, D, d0 + r * dr, dr, dk, B, b0, sb, S, s0 + r * se, E, e0 + r * se, se, more)
            r += few
        if few > 1 and r < rows:
            one(count, D, d0 + r * dr, dr, dk, B, b0, sb, S, s0 + r * se, E, e0 + r * se, se, more)

    return block


def make_outer(tile, few: int = 1):
    """Compiled: so many rows of E, columns ``start`` … stop - 1, to the end of the last one's vector.

    A block of columns of B stays in the first-level cache while all rows pass over it. One vector alone takes more than
    half as long as three, for its sums, of which there are too few, wait for one another. So blocks are a vector wider
    for as long as what is left is no multiple of the usual width, but more.
    """
    usual = make_block(tile, ROWS, COLUMNS, few)
    wider, narrow = make_block(tile, ROWS - 1, COLUMNS + 1), make_block(tile, ROWS, 1)

    @compiled
    def outer(rows, count, D, d0, dr, dk, B, b0, sb, S, s0, E, e0, se, start, stop, lanes, more):
        left, k = (stop - start + lanes - 1) // lanes, start
        while left > 0:
            if left > COLUMNS and left % COLUMNS:
                wider(rows, count, D, d0, dr, dk, B, b0 + k, sb, S, s0 + k, E, e0 + k, se, more)
                width = COLUMNS + 1
            elif left >= COLUMNS:
                usual(rows, count, D, d0, dr, dk, B, b0 + k, sb, S, s0 + k, E, e0 + k, se, more)
                width = COLUMNS
            else:
                narrow(rows, count, D, d0, dr, dk, B, b0 + k, sb, S, s0 + k, E, e0 + k, se, more)
                width = 1
            left, k = left - width, k + width * lanes

    return outer


dot4, dot2, dot1 = (make_dot(R) for R in (ROWS, 2, 1))
rule4, rule2, rule1 = (make_rule(R) for R in (ROWS, 2, 1))
#: Ten units, in which many networks end, leave two rows of their gradient over; samples mostly come in fours.
outer_gradient, outer_delta = make_outer(gradient_tile, few=2), make_outer(delta_tile)


@compiled
def outer(rows, count, D, d0, dr, dk, B, b0, sb, G, g0, sg, start, stop, lanes, more):
    """So many rows of G = Σ D B, or (more) G += Σ D B, columns ``start`` … stop - 1."""
    outer_gradient(rows, count, D, d0, dr, dk, B, b0, sb, G, g0, G, g0, sg, start, stop, lanes, more)


@compiled
def delta(n, count, D, d0, sd, B, b0, sb, S, s0, E, e0, se, start, stop, lanes):
    """Delta E of the layer below for n samples, columns ``start`` … stop - 1; rows of slopes S lie as those of E."""
    outer_delta(n, count, D, d0, sd, np.int64(1), B, b0, sb, S, s0, E, e0, se, start, stop, lanes, np.int64(0))
