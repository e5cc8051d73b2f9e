"""Products of wide layers, their operands copied so that a tile reads them one after the other.

A tile of `fastmlp.kernels.cpu.tiles` takes a few columns of many rows. Where the rows are some kilobytes long, each
turn of its loop reads from another page: the first-level table of pages has 64 of them, the tile turns a hundred times
and more, and no hardware foresees what comes next. A copy costs one pass over the operand, and serves as many tiles as
the product has rows or columns of the other one (Goto & van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", 2008).
"""

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.compiling import compiled
from fastmlp.kernels.cpu.config import COLUMNS, PACKED_ROWS, ROWS
from fastmlp.kernels.cpu.tiles import delta, gradient_tile, outer
from fastmlp.kernels.cpu.vectors import VectorMath, int_constant, loop, pointer

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)


def copy_of(vectors: int, lanes: int | None = None):
    """An intrinsic: P[p0 + i·w + j] = A[a0 + i·stride + j] for ``count`` runs i of w numbers: so many vectors.

    Vectors with lanes of their own may lie anywhere.
    """

    @intrinsic
    def copy(typing, A, a0, stride, count, P, p0):
        signature = types.void(A, I, I, I, P, I)

        def generate(context, builder, signature, arguments):
            A, a0, stride, count, P, p0 = arguments
            kinds = signature.args
            m = VectorMath(builder, context.get_data_type(kinds[0].dtype), lanes)
            A, P = pointer(context, builder, kinds[0], A), pointer(context, builder, kinds[4], P)

            def body(i, _):
                source = builder.add(a0, builder.mul(i, stride))
                target = builder.add(p0, builder.mul(i, int_constant(vectors * m.lanes)))
                places = [int_constant(v * m.lanes) for v in range(vectors)]
                read = [m.load(A, builder.add(source, place), aligned=lanes is None) for place in places]
                for vector, place in zip(read, places, strict=True):
                    m.store(vector, P, builder.add(target, place), aligned=lanes is None)
                return []

            loop(builder, int_constant(0), count, 1, [], body)
            return context.get_dummy_value()

        return signature, generate

    return copy


copy_rows, copy_columns, tile = copy_of(1, lanes=ROWS), copy_of(COLUMNS), gradient_tile(ROWS, COLUMNS)


@compiled
def packed_gradient(rows, count, D, d0, dk, B, b0, sb, G, g0, sg, start, stop, lanes, more, P, p0):
    """G = Σₖ Dᵀ[:, k] B[k, :], or G += …, as `tiles.outer`; ``dk`` is the distance from row to row of D.

    The rows of the gradient are done in blocks, whose columns of D are copied to P, a tile's beside each other: while
    the block is passed over by all columns of B it stays in the second-level cache.
    """
    first, whole = 0, rows - rows % ROWS
    while first < whole:
        end = min(first + PACKED_ROWS, whole)
        for r in range(first, end, ROWS):
            copy_rows(D, d0 + r, dk, count, P, p0 + (r - first) * count)
        column = start
        while column + COLUMNS * lanes <= stop:
            for r in range(first, end, ROWS):
                tile(
                    count, P, p0 + (r - first) * count, np.int64(1), np.int64(ROWS), B, b0 + column, sb,
                    G, g0, G, g0 + r * sg + column, sg, more,
                )  # fmt: skip
            column += COLUMNS * lanes
        for r in range(first, end, ROWS):
            outer(
                np.int64(ROWS), count, P, p0 + (r - first) * count, np.int64(1), np.int64(ROWS), B, b0, sb,
                G, g0 + r * sg, sg, column, stop, lanes, more,
            )  # fmt: skip
        first = end
    if whole < rows:
        outer(
            rows - whole, count, D, d0 + whole, np.int64(1), dk, B, b0, sb, G, g0 + whole * sg, sg,
            start, stop, lanes, more,
        )  # fmt: skip


@compiled
def packed_delta(n, count, D, d0, sd, W, w0, sw, S, s0, E, e0, se, start, stop, lanes, P, p0):
    """E = S · Σₖ D[:, k] W[k, :] for n samples, columns ``start`` … stop - 1, as `tiles.delta`.

    A tile's columns of W are copied to P, where all samples find them.
    """
    width, column = COLUMNS * lanes, start
    while column + width <= stop:
        copy_columns(W, w0 + column, sw, count, P, p0)
        delta(n, count, D, d0, sd, P, p0 - column, width, S, s0, E, e0, se, column, column + width, lanes)
        column += width
    if column < stop:
        delta(n, count, D, d0, sd, W, w0, sw, S, s0, E, e0, se, column, stop, lanes)
