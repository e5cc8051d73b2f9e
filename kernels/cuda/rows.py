"""Rows of outputs: softmax, loss, delta and hits of samples, each shared by neighbouring threads of a warp.

Both kernels call these device functions. A row's outputs are dealt out to `lanes` threads, a power of two up to 32:
thread ``own`` has those of numbers own, own + lanes, ... All threads of a warp take part, with or without a real row.
"""

import math
from typing import Any, NamedTuple

from fastmlp.kernels.cuda.functions import activation, loss, loss_delta
from fastmlp.kernels.cuda.shapes import lanes
from fastmlp.kernels.cuda.toolkit import cuda, float32, float64, int32, types

__all__ = ["RowFunctions", "row_functions"]

ALL_LANES = 0xFFFFFFFF


class RowFunctions(NamedTuple):
    """The device functions of `row_functions`."""

    total: Any  #: (z, many) → the sum of z over so many neighbouring lanes, in each of them
    target: Any  #: (Y, sample, o) → what output o of a sample should be
    finish: Any  #: (z, y, real, own, scale, told) → (loss, squared error, right); see there


def row_functions(dtype: str, outputs: int, kind: tuple[str, str], labels: bool, hits: str = "") -> RowFunctions:
    """The functions for rows of so many outputs.

    Parameters
    ----------
    dtype : str
    outputs : int
    kind : tuple of str
        The output's activation, and the loss.
    labels : bool
        Whether targets are labels rather than rows.
    hits : {"", "sides", "largest"}, default ""
        Whether a row is told to be right, and by what: see `fastmlp.kernels.contract.counts_sides`.
    """
    T = float32 if dtype == "float32" else float64
    LANES = lanes(outputs)
    SHARE = -(-outputs // LANES)
    SOFTMAX = kind[1] == "cross_entropy"
    activate, value_of, delta_of = activation(kind[0]), loss(kind[1]), loss_delta(kind[1])

    @cuda.jit(device=True, forceinline=True)
    def total(z, many):
        for bit in (16, 8, 4, 2, 1):
            if bit < many:
                z += cuda.shfl_xor_sync(ALL_LANES, z, bit)
        return z

    @cuda.jit(device=True, forceinline=True)
    def target(Y, sample, o):
        if labels:
            label = Y[sample]
            return T(label) if outputs == 1 else (T(1) if label == o else T(0))
        return T(Y[types.int64(sample) * outputs + o])

    @cuda.jit(device=True, forceinline=True)
    def softmax(z, p, real, own):
        """The softmax of a row into p, and ln Σ e^z; nan where one is."""
        top, sum_ = T(-math.inf), T(0)
        for k in range(SHARE):
            if real and int32(own + k * LANES) < outputs:
                top = z[k] if not z[k] <= top else top
        for bit in (16, 8, 4, 2, 1):
            if bit < LANES:
                other = cuda.shfl_xor_sync(ALL_LANES, top, bit)
                top = other if not other <= top else top
        for k in range(SHARE):
            if real and int32(own + k * LANES) < outputs:
                p[k] = T(math.exp(z[k] - top))
                sum_ += p[k]
        sum_ = total(sum_, LANES)
        part = T(1) / sum_  # once; numbers below 1e-38 would be divided by a slow way, and whole warps with them
        for k in range(SHARE):
            p[k] *= part
        return T(math.log(sum_)) + top if sum_ > T(0) else sum_

    @cuda.jit(device=True, forceinline=True)
    def beats(z, o, top, at):
        """Whether z at o comes before the largest so far, as in NumPy's argmax: nan first, then the lower number."""
        if z != z or top != top:
            return z != z and (top == top or o < at)
        return z > top or (z == top and o < at)

    @cuda.jit(device=True, forceinline=True)
    def largest(z, real, own):
        """Where the largest of a row is."""
        top, at = T(-math.inf), int32(outputs)
        for k in range(SHARE):
            o = int32(own + k * LANES)
            if real and o < outputs and beats(z[k], o, top, at):
                top, at = z[k], o
        for bit in (16, 8, 4, 2, 1):
            if bit < LANES:
                other, there = cuda.shfl_xor_sync(ALL_LANES, top, bit), cuda.shfl_xor_sync(ALL_LANES, at, bit)
                if beats(other, there, top, at):
                    top, at = other, there
        return at

    @cuda.jit(device=True, forceinline=True)
    def is_right(z, y, real, own):
        if hits == "largest":
            return largest(z, real, own) == largest(y, real, own)
        wrong = T(0)
        for k in range(SHARE):
            if real and int32(own + k * LANES) < outputs and (z[k] > T(0.5)) != (y[k] > T(0.5)):
                wrong = T(1)
        return total(wrong, LANES) == T(0)

    @cuda.jit(device=True, forceinline=True)
    def finish(z, y, real, own, scale, told):
        """From pre-activations ``z`` and targets ``y``: outputs in z, ``scale`` times ∂loss/∂z in y.

        This thread's part of loss and error, and whether the row is right, are worked out only where they are to be
        ``told``, alike in a warp.
        """
        value, error, right, log_sum = T(0), T(0), False, T(0)
        result, slope = cuda.local.array(SHARE, T), cuda.local.array(SHARE, T)
        if SOFTMAX:
            log_sum = softmax(z, result, real, own)
        for k in range(SHARE):
            if SOFTMAX:
                slope[k] = T(1)
            else:
                result[k], slope[k] = activate(z[k])
        if told:
            for k in range(SHARE):
                if real and int32(own + k * LANES) < outputs:
                    value += y[k] * (log_sum - z[k]) if SOFTMAX else value_of(z[k], result[k], y[k])
                    error += T(0.5) * (result[k] - y[k]) * (result[k] - y[k])
            if hits != "":
                right = is_right(result, y, real, own)
        for k in range(SHARE):
            z[k], y[k] = result[k], delta_of(result[k], slope[k], y[k]) * scale
        return value, error, right

    return RowFunctions(total, target, finish)
