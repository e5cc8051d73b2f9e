"""Sample weights and chosen samples on the simulated GPU: test_weights.py over fewer cases, for each kernel."""

from itertools import product

import numpy as np
import pytest
from paths import PATHS, laid_out
from problems import DTYPES, OUTPUT_LOSSES, RULES, SHAPES, option_product, pixels, random_problem
from test_contract import HIDDEN, INPUTS
from test_weights import (  # noqa: F401  the tests among them are collected from here as well
    check_epochs,
    check_one_pass,
    test_errors_with_weights_are_refused,
    test_hits_are_exact_where_all_or_none_are_right,
    test_no_weight_at_all,
    test_weights_of_any_size,
    test_wrong_samples_are_refused,
    test_wrong_weights_are_refused_before_anything_changes,
    weighted,
)

from fastmlp import Mlp, kernels
from fastmlp.kernels import Network
from fastmlp.kernels.cuda import memory, plans


@pytest.fixture(scope="module")
def compiled():
    return kernels.backend("cuda")


@pytest.fixture
def backend() -> str:
    return "cuda"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_one_pass(compiled, hidden):
    """Every 151st of the product."""
    for i, (what, problem) in list(enumerate(option_product(hidden)))[HIDDEN.index(hidden) * 19 :: 151]:
        check_one_pass(compiled, weighted(problem, i), what)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_epochs(compiled, hidden, path):
    """Every 97th of the product, and splits in every other."""
    choices = list(enumerate(product(OUTPUT_LOSSES, (True, False), DTYPES, (0.0, 0.2), RULES)))
    start = (23 * HIDDEN.index(hidden) + 47 * PATHS.index(path)) % 97
    for i, ((output, loss), bias, dtype, l2, rule) in choices[start::97]:
        inputs, batch_size = INPUTS[i % 3], (3, 4, 7, 9)[i % 7 % 4]
        network = Network.build(
            SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **pixels(inputs)
        )
        problem = weighted(random_problem(network, 7, i, inputs, labels=bool(i // 3 % 2)), i)
        with laid_out(path, splits=1 + i % 2):
            check_epochs(compiled, problem, rule, batch_size, f"{network} X {inputs} {path}")


@pytest.mark.parametrize("path", PATHS)
def test_the_penalty_goes_by_each_batchs_weight(compiled, path):
    """Batches of very different weights, one of none, the last one short."""
    network = Network.build((9, 5, 3), "tanh", dtype="float64", l2=0.3)
    for splits, rule in ((1, RULES[1]), (2, RULES[3])):
        problem = weighted(random_problem(network, 14))
        problem.weights[:] *= np.repeat([0.1, 3, 0, 20], 4)[:14]
        with laid_out(path, splits=splits):
            check_epochs(compiled, problem, rule, 4, f"{path} {splits}", epochs=2)


@pytest.mark.parametrize("path", PATHS)
def test_a_weight_of_zero_hides_what_is_no_number(compiled, path):
    network = Network.build((9, 5, 3), "relu", l2=0.1)
    problem = weighted(random_problem(network, 12), zeros=0.4)
    out = problem.weights == 0
    assert 1 < out.sum() < 10
    results = []
    for spoilt in (True, False):
        X, Y = problem.X.copy(), problem.Y.copy()
        if spoilt:
            X[out], Y[out] = np.nan, np.inf
        parameters, state = problem.parameters.copy(), network.state(RULES[1])
        with laid_out(path):
            losses = compiled.train_epoch(
                network, RULES[1], parameters, state, X, Y, np.arange(12), 4, weights=problem.weights
            )
            arrays = network, problem.parameters, X, Y
            figures = compiled.evaluate(*arrays, weights=problem.weights)
            gradients, _ = compiled.backpropagation(*arrays, weights=problem.weights)
        results.append((parameters, state.slots, losses, figures, gradients))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("with_weights", [True, False])
def test_chosen_samples_are_to_the_bit_what_they_are_alone(compiled, path, with_weights):
    network, samples, results = Network.build((9, 5, 3), "tanh"), np.array([11, 3, 3, 8, 0, 7, 5, 1]), []
    problem = weighted(random_problem(network, 12))
    order, weights = np.random.default_rng(0).permutation(8), problem.weights if with_weights else None
    alone = problem.X[samples], problem.Y[samples], None if weights is None else weights[samples], None
    for X, Y, w, chosen in ((problem.X, problem.Y, weights, samples), alone):
        parameters, state = problem.parameters.copy(), network.state(RULES[1])
        with laid_out(path):
            losses = compiled.train_epoch(
                network, RULES[1], parameters, state, X, Y, order, 3, samples=chosen, weights=w
            )
        results.append((parameters, losses))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_in_parts(compiled, monkeypatch):
    """More samples than are evaluated at once."""
    monkeypatch.setattr(plans, "MOST_ROWS", 4)
    problem = weighted(random_problem(Network.build((9, 5, 3), "tanh", dtype="float64"), 11))
    check_one_pass(compiled, problem, "in parts")


def test_an_mlp_takes_weights_and_samples_from_the_gpu_too():
    rng = np.random.default_rng(3)
    X, y, weights = rng.normal(size=(20, 6)), rng.integers(0, 3, 20), rng.uniform(0.5, 2, 20)
    samples = np.arange(0, 20, 2)
    fitted = []
    for backend, on_gpu in (("cuda", True), ("cuda", False), ("numpy", False)):
        mlp = Mlp([6, 5, 3], output="softmax", seed=1, backend=backend)
        place = memory.place if on_gpu else np.asarray
        history = mlp.fit(
            place(X), place(y), sample_weight=place(weights), samples=place(samples), epochs=2, batch_size=4,
            progress=False,
        )  # fmt: skip
        fitted.append((mlp.parameters, history.loss, mlp.evaluate(X, y, sample_weight=place(weights))))
    for a, b, c in zip(*fitted, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-8, atol=1e-10)
