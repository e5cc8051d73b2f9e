"""Inference, gradients and lone updates on the GPU, simulated, against the oracle."""

from itertools import islice

import numpy as np
import pytest
from problems import DTYPES, RULES, SHAPES, assert_close, copied, option_product, random_parameters, random_problem
from test_contract import check_one_pass
from test_large import laid_out

from fastmlp.kernels import Network, cuda, reference
from fastmlp.kernels.activations import ACTIVATIONS


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_one_pass_of_combinations_of_options(hidden, bands):
    """Every so many-th combination, another part of them for each activation."""
    first = list(ACTIVATIONS).index(hidden) + 5 * bands
    with laid_out(bands=bands, blocks=2):
        for what, problem in islice(option_product(hidden), first, None, 83):
            check_one_pass(cuda, problem, what)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bands_follow_one_another(dtype):
    """More bands than blocks: each block uses its scratch memory again."""
    with laid_out(bands=True, blocks=2):
        for sizes in ((6, 5, 4, 3), (5, 2)):
            network = Network.build(sizes, "tanh", dtype=dtype)
            check_one_pass(cuda, random_problem(network, 19, labels=True), str(network))


def test_hits_are_counted_as_numpy_counts_them():
    """The first of equal outputs counts, and what is no number is the largest."""
    network = Network.build([3, 3], output="relu", loss="mean_squared_error", bias=False)
    parameters = network.zeros()
    network.rows(parameters)[0][:] = np.eye(3)
    X = np.array([[1, 1, 0], [0, 0, 0], [0, 2, 2], [-1, 3, 1], [0, 1, 0], [1, 2, 3]], np.float32)
    for lanes in (1, 2):
        for Y in (np.array([0, 0, 1, 1, 0, 2], np.int32), np.array([1, 1, 2, 0, 1, 0], np.int32), X, X[::-1].copy()):
            with laid_out(bands=True, lanes=lanes):
                assert cuda.evaluate(network, parameters, X, Y)[1] == reference.evaluate(network, parameters, X, Y)[1]


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_rows_for_sigmoid_outputs_want_every_output_right(loss):
    for n_out, lanes in ((3, 1), (3, 2), (9, 4)):
        network = Network.build([4, n_out], output="sigmoid", loss=loss)
        problem = random_problem(network, 11)
        outputs = reference.predict(network, problem.parameters, problem.X)
        Y = (outputs > 0.5).astype(np.float32)
        Y[::3, -1] = 1 - Y[::3, -1]  # wrong in an output that need not be the largest
        labels = np.where(np.arange(11) % 2, outputs.argmax(1), 0).astype(np.int32)
        with laid_out(bands=True, lanes=lanes):
            assert cuda.evaluate(network, problem.parameters, problem.X, Y)[1] == 7
            hits = (outputs.argmax(1) == labels).sum()
            assert cuda.evaluate(network, problem.parameters, problem.X, labels)[1] == hits


def test_what_is_no_number_is_not_hidden():
    for hidden in ACTIVATIONS:
        network = Network.build((9, 5, 3), hidden)
        problem = random_problem(network, 6)
        with laid_out(bands=True):
            whole = cuda.predict(network, problem.parameters, problem.X)
            problem.X[2, 4] = np.nan
            outputs = cuda.predict(network, problem.parameters, problem.X)
            assert np.isnan(outputs[2]).all(), hidden
            np.testing.assert_array_equal(np.delete(outputs, 2, 0), np.delete(whole, 2, 0), hidden)
            assert np.isnan(cuda.evaluate(*problem.arrays)[0]), hidden
            assert np.isnan(cuda.backpropagation(*problem.arrays)[0]).any(), hidden


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_update_weights(rule, dtype):
    for sizes in SHAPES[:4]:
        network = Network.build(sizes, loss="mean_squared_error", dtype=dtype)
        ours, state = random_parameters(network), network.state(rule)
        theirs, oracle_state = copied(ours), network.state(rule)
        for step in range(1, 4):
            gradients = random_parameters(network, seed=step)
            cuda.update_weights(rule, ours, gradients, state)
            reference.update_weights(rule, theirs, gradients, oracle_state)
        tolerance = 12 * np.finfo(dtype).eps * max(1, abs(theirs).max())
        assert_close(ours, theirs, tolerance, f"{network} {rule}")
        assert state.step == oracle_state.step
