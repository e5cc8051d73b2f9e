"""The contract's tests over the simulated GPU.

A simulated epoch takes some tenths of a second, so of the products of options every so many-th is taken (the tests of
each path have more). What does not multiply out is taken as it is.
"""

from itertools import product

import numpy as np
import pytest
from paths import PATHS, laid_out
from problems import DTYPES, OUTPUT_LOSSES, RULES, SHAPES, option_product, pixels, random_parameters, random_problem
from test_contract import (  # noqa: F401  the tests among them are collected from here as well
    HIDDEN,
    INPUTS,
    check_epochs,
    check_one_pass,
    test_a_label_of_a_single_output_is_0_or_1,
    test_a_wrong_argument_is_named_before_anything_changes,
    test_arrays_that_cannot_be_written_need_no_compilation_of_their_own,
    test_epochs_go_on_from_the_state,
    test_errors_of_the_wrong_kind_are_refused,
    test_extreme_values_pass_as_in_the_oracle,
    test_networks_that_differ_in_one_thing_may_take_turns,
    test_nothing_that_is_given_is_changed,
    test_parameters_that_cannot_be_written_are_not_trained,
    test_results_are_the_callers,
    test_state_of_another_backend_can_be_taken_over,
)

from fastmlp import kernels
from fastmlp.kernels import Network, reference


@pytest.fixture(scope="module")
def compiled():
    return kernels.backend("cuda")


@pytest.fixture
def backend() -> str:
    return "cuda"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_one_pass(compiled, hidden):
    """Every 167th of the product, from another start for each activation."""
    chosen = list(option_product(hidden))[HIDDEN.index(hidden) * 23 :: 167]
    for what, problem in chosen:
        check_one_pass(compiled, problem, what)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_epochs(compiled, hidden, path):
    """Every 97th of the product: prime to the number of choices of each option."""
    choices = list(enumerate(product(OUTPUT_LOSSES, (True, False), DTYPES, (0.0, 0.2), RULES)))
    start = (11 * HIDDEN.index(hidden) + 31 * PATHS.index(path)) % 97
    for i, ((output, loss), bias, dtype, l2, rule) in choices[start::97]:
        inputs, batch_size = INPUTS[i % 3], (3, 4, 7, 9)[i % 7 % 4]
        network = Network.build(
            SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **pixels(inputs)
        )
        problem = random_problem(network, 7, i, inputs, labels=bool(i // 3 % 2))
        with laid_out(path):
            check_epochs(
                compiled, problem, rule, batch_size, f"{network} X {inputs} {path}", epochs=1, composition=i % 3 == 0
            )


@pytest.mark.parametrize("path", [None, *PATHS])
@pytest.mark.parametrize(("batch_size", "rule"), [(1, RULES[1]), (4, RULES[2]), (40, RULES[3])])
def test_batch_sizes(compiled, batch_size, rule, path):
    """One by one, the last one short, and more than there are."""
    network = Network.build((9, 5, 3), "tanh", dtype="float64")
    problem = random_problem(network, 9, labels=batch_size > 1)
    with laid_out(path):
        check_epochs(compiled, problem, rule, batch_size, f"{network} {path}", epochs=1, composition=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_update_weights(compiled, rule, dtype):
    network = Network.build((7, 5, 3), dtype=dtype)
    ours, state = random_parameters(network), network.state(rule)
    theirs, oracle_state = ours.copy(), network.state(rule)
    for step in range(1, 4):
        gradients = random_parameters(network, seed=step)
        compiled.update_weights(rule, ours, gradients, state)
        reference.update_weights(rule, theirs, gradients, oracle_state)
    tolerance = 12 * np.finfo(dtype).eps * max(1, abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(state.slots, oracle_state.slots, rtol=0, atol=tolerance)
    assert state.step[0] == 3


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_is_no_number_is_not_hidden(compiled, hidden):
    output, loss = OUTPUT_LOSSES[HIDDEN.index(hidden)]
    network = Network.build((9, 5, 3), hidden, output, loss)
    problem = random_problem(network, 6)
    whole = compiled.predict(network, problem.parameters, problem.X)
    problem.X[2, 4] = np.nan
    outputs = compiled.predict(network, problem.parameters, problem.X)
    assert np.isnan(outputs[2]).all()
    np.testing.assert_array_equal(np.delete(outputs, 2, 0), np.delete(whole, 2, 0))
    assert np.isnan(compiled.evaluate(*problem.arrays)[0])
    assert np.isnan(compiled.backpropagation(*problem.arrays)[0]).any()
