"""exp, tanh and log1p of the CPU's vector code, over whole arrays, against wider arithmetic; errors in ulps."""

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.vectors import Vec, VectorMath, int_constant, loop, pointer

#: The most lanes of a vector of any width; arrays are padded to a multiple.
LANES = 16

#: dtype -> where references are computed. (On machines whose long double is a double, they are off by an ulp.)
WIDER = {"float32": np.float64, "float64": np.longdouble}
SLACK = {"float32": 0.0, "float64": 0.0 if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps else 1.0}

#: Ulps allowed. exp: half from the last rounding, the rest from the polynomial and the reduction. tanh and log1p end in
#: a division or a product more. (With fused products the worst are 0.9, 2.7 and 2.7.)
MOST_ULPS = {"exp": 2, "tanh": 4, "log1p": 4}


def over_arrays(name):
    """A compiled function that applies `VectorMath`'s function of that name: Y = f(X)."""

    @intrinsic
    def apply(typing, X, Y, n):
        signature = types.void(X, Y, types.intp)

        def generate(context, builder, signature, arguments):
            X, Y, n = arguments
            X, Y = (pointer(context, builder, kind, a) for kind, a in zip(signature.args, (X, Y), strict=False))
            m = VectorMath(builder, context.get_data_type(signature.args[0].dtype))

            def body(k: ir.Value, _: list) -> list:
                result = getattr(m, name)(Vec(m, m.load(X, k, aligned=False)))
                m.store(result.value, Y, k, aligned=False)
                return []

            loop(builder, int_constant(0), n, m.lanes, [], body)
            return context.get_dummy_value()

        return signature, generate

    @njit
    def run(X, Y):
        apply(X, Y, len(X))

    return run


FUNCTIONS = {name: over_arrays(name) for name in MOST_ULPS}


def ours(name, x):
    """The vector code's answers for an array of any length."""
    padded = np.zeros(-(-len(x) // LANES) * LANES, x.dtype)
    padded[: len(x)] = x
    result = np.empty_like(padded)
    FUNCTIONS[name](padded, result)
    return result[: len(x)]


def near(points, dtype, steps=40):
    """The points and the numbers of the dtype next to them, so many on each side."""
    points = np.array(points, dtype)
    found = [points]
    for direction in (np.inf, -np.inf):
        x = points
        for _ in range(steps):
            x = np.nextafter(x, dtype(direction))
            found.append(x)
    return np.concatenate(found)


def magnitudes(dtype, low, high, count):
    """Numbers evenly spread over the exponents, both signs."""
    x = np.exp2(np.random.default_rng(1).uniform(np.log2(low), np.log2(high), count)).astype(dtype)
    return np.concatenate([x, -x])


def exp_arguments(dtype):
    end = np.log(float(np.finfo(dtype).max))
    least = np.log(float(np.finfo(dtype).smallest_subnormal)) - 1
    dense = np.random.default_rng(2).uniform(least, end + 1, 400_000).astype(dtype)
    # Where n of x = n ln 2 + r changes, and where results overflow, become subnormal and vanish.
    halves = (np.arange(-1080, 1030) + 0.5) * np.log(2)
    halves = halves[(halves > least) & (halves < end + 1)]
    edges = [end, np.log(float(np.finfo(dtype).tiny)), least, least + 1, least + 1 + np.log(0.5), 0, 1, -1]
    return np.concatenate([dense, magnitudes(dtype, 1e-30, 1, 20_000), near(edges, dtype, 300), near(halves, dtype, 2)])


def tanh_arguments(dtype):
    dense = np.random.default_rng(3).uniform(-25, 25, 400_000).astype(dtype)
    edges = [0, 0.5, 1, 9, 10, 19, 22, np.log(2) / 4, np.log(2) * 0.75]
    tiny = float(np.finfo(dtype).tiny)
    return np.concatenate([dense, magnitudes(dtype, tiny, 25, 100_000), near(edges, dtype), -near(edges, dtype)])


def log1p_arguments(dtype):
    dense = np.random.default_rng(4).uniform(0, 1, 400_000).astype(dtype)
    edges = near([0.25, 0.5, 1], dtype)
    tiny = abs(magnitudes(dtype, float(np.finfo(dtype).tiny), 1, 100_000))
    return np.concatenate([dense, tiny, edges[edges <= 1], [dtype(0)]])


ARGUMENTS = {"exp": exp_arguments, "tanh": tanh_arguments, "log1p": log1p_arguments}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MOST_ULPS)
def test_within_few_ulps_over_the_whole_range(name, dtype):
    """An ulp is the distance of two neighbours at the exact result, subnormal results included.

    A result that rounds to infinity may also be the largest number, if the exact one is within the ulps of it.
    """
    x = ARGUMENTS[name](np.dtype(dtype).type)
    exact = getattr(np, name)(x.astype(WIDER[dtype]))
    result, info = ours(name, x), np.finfo(dtype)
    beyond = exact > info.max
    with np.errstate(over="ignore"):
        rounded = abs(exact).astype(dtype)
    in_range = np.minimum(rounded, np.nextafter(info.max, info.dtype.type(0)))
    ulp = np.spacing(in_range).astype(WIDER[dtype])
    value = np.where(np.isposinf(result), WIDER[dtype](info.max) + ulp, result.astype(WIDER[dtype]))
    target = np.where(beyond & np.isposinf(result), value, exact)
    errors = np.where(np.isnan(result), np.inf, abs(value - target) / ulp)
    worst = errors.argmax()
    assert errors[worst] <= MOST_ULPS[name] + SLACK[dtype], (
        f"{name}({x[worst]!r}) is {result[worst]!r}, exactly {exact[worst]!r}: off by {float(errors[worst]):.2f} ulps"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_of_exp(dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, info.max, info.min, info.tiny, info.smallest_subnormal], dtype)
    expected = np.array([1, 1, np.inf, 0, np.nan, np.inf, 0, 1, 1], dtype)
    np.testing.assert_array_equal(ours("exp", x), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_of_tanh(dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, info.max, info.min, 30, -30], dtype)
    np.testing.assert_array_equal(ours("tanh", x), np.array([0, 0, 1, -1, np.nan, 1, -1, 1, -1], dtype))
    x = tanh_arguments(np.dtype(dtype).type)
    np.testing.assert_array_equal(ours("tanh", x), -ours("tanh", -x), "tanh is odd")
    assert (abs(ours("tanh", x)) <= 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_of_log1p(dtype):
    result = ours("log1p", np.array([0, np.nan], dtype))
    assert result[0] == 0
    assert np.isnan(result[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exp_never_falls_where_its_argument_rises(dtype):
    """To the ulps allowed: what the softmax and the sigmoid of close logits rest on."""
    x = np.sort(exp_arguments(np.dtype(dtype).type))
    result = ours("exp", x)
    finite = result[np.isfinite(result)]
    fall = -np.diff(finite) / np.spacing(finite[1:])
    assert fall.max() <= 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_larger_of_two_in_place(dtype):
    """Special values; and no masked store, for which LLVM takes a choice between a constant and what was there.

    (On x86, where it is an instruction of AVX by that name or has a mask in braces.)
    """

    @intrinsic
    def rectify(typing, X, n):
        signature = types.void(X, types.intp)

        def generate(context, builder, signature, arguments):
            X, n = arguments
            X = pointer(context, builder, signature.args[0], X)
            m = VectorMath(builder, context.get_data_type(signature.args[0].dtype))

            def body(k: ir.Value, _: list) -> list:
                m.store(m.maximum(Vec(m, m.load(X, k, aligned=False)), 0).value, X, k, aligned=False)
                return []

            loop(builder, int_constant(0), n, m.lanes, [], body)
            return context.get_dummy_value()

        return signature, generate

    @njit
    def run(X):
        rectify(X, len(X))

    info = np.finfo(dtype)
    x = np.array([-1, 2, np.inf, -np.inf, np.nan, info.max, info.min, info.smallest_subnormal], dtype)
    padded = np.resize(x, 2 * LANES)
    expected = np.maximum(padded, 0)
    run(padded)
    np.testing.assert_array_equal(padded, expected)
    (code,) = run.inspect_asm().values()
    assert "maskmov" not in code
    assert "{%k" not in code
