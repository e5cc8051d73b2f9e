"""The formulas as the CUDA kernels compile them: their very instructions, run on the CPU, against NumPy's answers.

All that they need of a GPU are libdevice's elementwise functions, in whose place NumPy's are called.
"""

import ctypes
import importlib.util

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit
from numba.extending import intrinsic
from problems import DTYPES, assert_close

from fastmlp.kernels import Rule, reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import LOSSES, OUTPUTS
from fastmlp.kernels.updates import UPDATES

if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("pip install '.[test]' brings numba-cuda", allow_module_level=True)

from fastmlp.kernels.cuda import functions

#: On both sides of every kink, and beyond where e^z ends in float32 and in float64.
Z = np.array([-np.inf, -800, -104, -20, -3, -0.7, -1e-8, -0.0, 0, 1e-30, 0.2, 1, 5, 30, 88.5, 710, np.inf, np.nan])


def standing_in(name: str, number: type, kind: type):
    """NumPy's function of that name as one of C's, over C's ``number``."""

    def call(x: float) -> float:
        with np.errstate(all="ignore"):
            return float(getattr(np, name)(kind(x)))

    return ctypes.CFUNCTYPE(number, number)(call)


@pytest.fixture(scope="module", autouse=True)
def libdevice() -> list:
    """Its functions, under the names by which they are called, for as long as the tests run."""
    kept = []
    for suffix, number, kind in (("", ctypes.c_double, np.float64), ("f", ctypes.c_float, np.float32)):
        for name in ("exp", "tanh", "log1p", "sqrt", "fabs"):
            kept.append(standing_in(name, number, kind))
            llvm.add_symbol(f"__nv_{name}{suffix}", ctypes.cast(kept[-1], ctypes.c_void_p).value)
    return kept


def on_cpu(function):
    """A device function that Numba's compiler for the CPU takes."""
    return intrinsic(function._defn)


def assert_same(actual, expected, what: str, size=1.0) -> None:
    """The same to a few ulps of numbers of this size, and the same where it is no finite number."""
    expected = np.broadcast_to(expected, actual.shape).astype(actual.dtype)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, actual), np.where(finite, 0, expected), what)
    eps = np.finfo(actual.dtype)
    tolerance = 8 * eps.eps * np.maximum(size, abs(expected)) + 4 * eps.tiny
    assert_close(actual[finite], expected[finite], tolerance[finite], what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, dtype):
    function = on_cpu(functions.activation(name))

    @njit
    def run(z, value, slope):
        for i in range(len(z)):
            value[i], slope[i] = function(z[i])

    z = Z.astype(dtype)
    value, slope = np.empty_like(z), np.empty_like(z)
    run(z, value, slope)
    expected = reference.activate(name, z)
    assert_same(value, expected[0], f"value of {name}", size=0)
    assert_same(slope, expected[1], f"slope of {name}")  # may be 1 less a product, rounded once or twice


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "output"), [(name, output) for name in LOSSES for output in OUTPUTS[name]])
def test_loss(name, output, dtype):
    value, delta = on_cpu(functions.loss(name)), on_cpu(functions.loss_delta(name))

    @njit
    def run(z, a, slope, y, values, deltas):
        for i in range(len(z)):
            values[i], deltas[i] = value(z[i], a[i], y[i]), delta(a[i], slope[i], y[i])

    z = np.tile(Z[1:-2], 2).astype(dtype)
    y = np.linspace(0, 1, len(z)).astype(dtype)
    a, slope = reference.activate(output, z)
    found = np.empty((2, len(z)), dtype)
    run(z, a, slope, y, *found)
    with np.errstate(all="ignore"):
        expected = [LOSSES[name][0](z, a, y, np), LOSSES[name][1](a, slope, y, np)]
    for what, got, wanted in zip(("value", "delta"), found, expected, strict=True):
        # both are differences of numbers of this size
        size = np.maximum(1, abs(z)) ** (2 if name == "mean_squared_error" else 1)
        assert_same(got, wanted, f"{what} of {name} after {output}", size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", UPDATES)
def test_update(kind, dtype):
    """Every other parameter steps, with its state in the same place of each state array; the rest is left alone."""
    function, (formula, slots) = on_cpu(functions.update(kind)), UPDATES[kind]

    @njit
    def run(w, g, state, h):
        for k in range(0, len(w), 2):
            function(w, k, state, k, len(w), g[k], h)

    rng = np.random.default_rng(1)
    w, g, *state = (rng.normal(0, 1, 20).astype(dtype) for _ in range(2 + slots))
    state = np.array([abs(slot) for slot in state], dtype).reshape(slots, 20)
    rule = Rule(kind, 0.1, momentum=0.9, beta1=0.8, beta2=0.95, epsilon=1e-3)
    h = reference.Hyperparameters(rule, 7, np.dtype(dtype))
    wanted, new = formula(w, g, tuple(state), h, np)
    stepped = np.arange(20) % 2 == 0
    expected = [np.where(stepped, a, b) for a, b in zip((wanted, *new), (w, *state), strict=True)]
    flat = state.ravel()
    run(w, g, flat, functions.Hyperparameters(*(getattr(h, name) for name in functions.Hyperparameters._fields)))
    for got, array in zip((w, *flat.reshape(slots, 20)), expected, strict=True):
        assert_same(got, array, kind)
