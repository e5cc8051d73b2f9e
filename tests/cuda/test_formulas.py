"""Formulas as lines of source: run in a kernel, against the same formulas called with NumPy."""

import re

import numpy as np
import pytest
from numba import cuda
from problems import DTYPES, assert_close

from fastmlp.kernels import reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import formulas, generate
from fastmlp.kernels.losses import LOSSES, OUTPUTS
from fastmlp.kernels.updates import UPDATES, Rule

HEADER = """
from numba import cuda
from numba.cuda.types import float32, float64
from fastmlp.kernels.cuda.elementwise import exp, fabs, log1p, sqrt, tanh

def kernel(given, found):
    i = cuda.grid(1)
    {names} = {values}
    {lines}
    {results} = {written},
"""

#: On both sides of every kink, and beyond where e^z ends in float32 and in float64.
Z = np.array([-np.inf, -800, -104, -20, -3, -0.7, -1e-8, 0, 1e-30, 0.2, 1, 5, 30, 88.5, 710, np.inf, np.nan])


def run(written: formulas.Written, given: dict[str, np.ndarray], dtype: str) -> list[np.ndarray]:
    """A kernel of these lines, each thread with its own numbers."""
    results = ", ".join(f"found[{k}, i]" for k in range(len(written.results))) + ","
    values = ", ".join(f"given[{k}, i]" for k in range(len(given))) + ","
    text = HEADER.format(
        names=", ".join(given) + ",",
        values=values,
        lines="\n    ".join(written.lines),
        results=results,
        written=", ".join(written.results),
    )
    numbers = np.stack([np.asarray(x, dtype) for x in given.values()])
    found = cuda.to_device(np.full((len(written.results), numbers.shape[1]), -1, dtype))
    cuda.jit(generate.module("formula", text).kernel)[1, numbers.shape[1]](cuda.to_device(numbers), found)
    return list(found.copy_to_host())


def assert_same(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
    """The same to a few ulps, and the same where it is no finite number."""
    assert actual.dtype == expected.dtype
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, actual), np.where(finite, 0, expected), what)
    eps = np.finfo(expected.dtype)
    assert_close(actual[finite], expected[finite], 4 * eps.eps * abs(expected[finite]) + 4 * eps.tiny, what)


def untyped(written: formulas.Written, dtype: str) -> list[str]:
    """Numbers in the lines that stand outside a constant of the dtype, as `math` of such would be float64."""
    text = " ".join([*written.lines, *written.results])
    return re.findall(r"(?<![\w.(])-?\d[\d.e+-]*", re.sub(rf"{dtype}\([^()]*\)", "", text))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, dtype):
    written = formulas.activation(name, "z", dtype)
    z = Z.astype(dtype)
    found = run(written, {"z": z}, dtype)
    with np.errstate(all="ignore"):
        expected = reference.activate(name, z)
    for what, a, b in zip(("value", "slope"), found, expected, strict=True):
        assert_same(a, b, f"{what} of {name}")
    assert not untyped(written, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, dtype):
    for output in OUTPUTS[name]:
        z = np.tile(Z[1:-2], 2).astype(dtype)
        y = np.linspace(0, 1, len(z)).astype(dtype)
        with np.errstate(all="ignore"):
            a, slope = reference.activate(output, z)
        written = formulas.loss(name, "z", "a", "slope", "y", dtype)
        found = run(written, {"z": z, "a": a, "slope": slope, "y": y}, dtype)
        value, delta = LOSSES[name]
        with np.errstate(all="ignore"):
            expected = value(z, a, y, np), delta(a, slope, y, np)
        eps = np.finfo(dtype).eps
        for what, got, wanted in zip(("value", "delta"), found, expected, strict=True):
            # both are differences of numbers of this size
            size = np.maximum(1, abs(z)) ** (2 if name == "mean_squared_error" else 1)
            assert_close(got, wanted, 8 * eps * size, f"{what} of {name} after {output}")
        assert not untyped(written, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", UPDATES)
def test_update(kind, dtype):
    rng = np.random.default_rng(1)
    rule = Rule(kind, 0.1, momentum=0.9, beta1=0.8, beta2=0.95, epsilon=1e-3)
    formula, slots = UPDATES[kind]
    names = [f"slot{k}" for k in range(slots)]
    w, g, *state = (rng.normal(0, 1, 20).astype(dtype) for _ in range(2 + slots))
    state = [abs(slot) for slot in state]
    h = reference.Hyperparameters(rule, 7, np.dtype(dtype))
    rates = {name: np.full(20, getattr(h, name)) for name in formulas.uses(kind)}
    written = formulas.update(kind, "w", "g", names, dtype)
    found = run(written, {"w": w, "g": g, **dict(zip(names, state, strict=True)), **rates}, dtype)
    parameter, new = formula(w, g, tuple(state), h, np)
    for got, wanted in zip(found, (parameter, *new), strict=True):
        assert_close(got, wanted, 8 * np.finfo(dtype).eps, kind)
    assert not untyped(written, dtype)


def test_a_factor_of_one_and_a_needless_choice_are_left_out():
    assert formulas.activation("identity", "z", "float32").results == ("z", "float32(1)")
    written = formulas.loss("mean_squared_error", "z", "a", "float32(1)", "y", "float32")
    assert written.results[1] == "(a - y)"


def test_what_is_used_twice_is_computed_once():
    written = formulas.activation("sigmoid", "z", "float32", "t")
    assert len(written.lines) == 1
    assert sum("exp" in text for text in [*written.lines, *written.results]) == 1


def test_rules_say_what_they_read():
    assert formulas.uses("plain") == ("learning_rate",)
    assert formulas.uses("momentum") == formulas.uses("nesterov") == ("learning_rate", "momentum")
    assert "correction2" in formulas.uses("adam")
    assert "momentum" not in formulas.uses("adam")
