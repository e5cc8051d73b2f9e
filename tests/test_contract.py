"""The contract, on every compiled backend: each function against its NumPy twin, and the epoch against the sentence
that it equals backpropagation and update_weights taken in turn over the batches.
"""

import platform
import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from problems import (
    COMPILED,
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    SHAPES,
    Course,
    NearKinks,
    Problem,
    assert_close,
    compilations,
    copied,
    course,
    forced,
    option_product,
    padding,
    pixels,
    random_parameters,
    random_problem,
    rounding,
    run_course,
    run_python,
)
from sklearn.datasets import load_digits

from fastmlp import kernels
from fastmlp.kernels import Network, Rule, State, reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.contract import counts_sides
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.network import aligned_zeros

HIDDEN = list(ACTIVATIONS)
INPUTS = ("uint8", *DTYPES)
LAB = (784, 100, 10)


@pytest.fixture(scope="module", params=COMPILED)
def compiled(request):
    """Each compiled backend's module, compiled."""
    kernels.warmup()
    return kernels.backend(request.param)


# ------------------------------------------------------------------------------------------- one pass, both ways
def unsure_hits(problem: Problem, output: np.ndarray, error: np.ndarray) -> int:
    """The number of samples whose two largest outputs (or an output and ½, if sides count) rounding may swap."""
    if counts_sides(problem.network, labels=problem.Y.ndim == 1):
        return int((abs(output - 0.5) < error).any(1).sum())
    top = np.argsort(output, 1)[:, -2:]
    gaps = np.diff(np.take_along_axis(output, top, 1), axis=1)[:, 0]
    return int((gaps < np.take_along_axis(error, top, 1).sum(1)).sum())


def check_one_pass(module, problem: Problem, what: str, threads: int | None = None) -> None:
    """Feedforward, predict, evaluate and backpropagation, within rounding of the oracle's."""
    network, parameters, X, _ = problem.arrays
    bounds = rounding(problem)
    expected = reference.feedforward(network, parameters, X)
    values = module.feedforward(network, parameters, X, threads=threads)
    assert len(values) == network.layers, what
    for layer, (a, b, tolerance) in enumerate(zip(values, expected, bounds.activations, strict=True)):
        assert a.dtype == network.dtype, what
        assert_close(a, b, tolerance, f"activations {layer} of {what}")
    outputs = module.predict(network, parameters, X, threads=threads)
    assert outputs.dtype == network.dtype, what
    assert_close(outputs, expected[-1], bounds.activations[-1], f"predict of {what}")
    loss, hits = module.evaluate(*problem.arrays, threads=threads)
    expected_loss, expected_hits = reference.evaluate(*problem.arrays)
    assert_close(loss, expected_loss, bounds.loss, f"evaluate's loss of {what}")
    assert isinstance(loss, float), what
    assert isinstance(hits, int), what
    unsure = unsure_hits(problem, expected[-1], bounds.activations[-1])
    assert abs(hits - expected_hits) <= unsure, f"{hits} hits, expected {expected_hits}, {unsure} unsure: {what}"
    gradients, loss = module.backpropagation(*problem.arrays, threads=threads)
    expected_gradients, _ = reference.backpropagation(*problem.arrays)
    assert_close(loss, expected_loss, bounds.loss, f"backpropagation's loss of {what}")
    check_gradients(network, gradients, expected_gradients, bounds, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("n_out", [2, 3, 9, 40])
def test_rows_for_sigmoid_outputs_want_every_output_right(compiled, n_out, loss, dtype):
    """Counted here, from the outputs: rows by the sides of ½ of all outputs, labels by the largest output."""
    network = Network.build([6, 5, n_out], "tanh", "sigmoid", loss, dtype=dtype)
    problem = random_problem(network, 50, seed=n_out)
    outputs = compiled.predict(network, problem.parameters, problem.X)
    rng = np.random.default_rng(n_out)
    flipped = rng.random(outputs.shape) < np.where(rng.random((50, 1)) < 0.5, 0, 2 / n_out)
    Y = np.where((outputs > 0.5) ^ flipped, rng.uniform(0.6, 1, outputs.shape), rng.uniform(0, 0.5, outputs.shape))
    right = int((~flipped).all(1).sum())
    assert 0 < right < 50
    for threads in (1, 2):
        _, hits = compiled.evaluate(network, problem.parameters, problem.X, Y.astype(dtype), threads=threads)
        assert hits == right
    labels = np.where(rng.random(50) < 0.5, outputs.argmax(1), 0).astype(np.int32)
    _, hits = compiled.evaluate(network, problem.parameters, problem.X, labels)
    assert hits == (outputs.argmax(1) == labels).sum()


def check_gradients(network, gradients, expected, bounds, what):
    assert gradients.dtype == network.dtype, what
    assert gradients.shape == (network.size,), what
    assert not padding(network, gradients).any(), f"padding of {what}"
    rows = zip(network.rows(gradients), network.rows(expected), bounds.gradients, strict=True)
    for layer, (a, b, tolerance) in enumerate(rows):
        assert_close(a, b, tolerance, f"gradients {layer} of {what}")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_one_pass_for_the_whole_product_of_options(compiled, hidden):
    for what, problem in option_product(hidden):
        check_one_pass(compiled, problem, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", OUTPUTS)
def test_one_pass_of_the_labs_network(compiled, loss, dtype):
    for inputs, n, labels in (("uint8", 5, True), (dtype, 70, False)):
        network = Network.build(LAB, loss=loss, dtype=dtype, **pixels(inputs))
        check_one_pass(compiled, random_problem(network, n, 1, inputs, labels), f"{network}, n={n}", threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_autograds(compiled, dtype):
    """PyTorch directly, not by way of the oracle."""
    Twin = pytest.importorskip("torch_twin", reason="PyTorch is not installed").Twin
    for i, (hidden, (output, loss), bias, l2) in enumerate(product(HIDDEN, OUTPUT_LOSSES, (True, False), (0.0, 0.3))):
        sizes = LAB if i == 0 else SHAPES[i % len(SHAPES)]
        network = Network.build(sizes, hidden, output, loss, bias=bias, l2=l2, dtype=dtype)
        problem, what = random_problem(network, 7, i, labels=bool(i % 2)), str(network)
        twin, bounds = Twin(network, problem.parameters), rounding(problem)
        gradients, loss_value = compiled.backpropagation(*problem.arrays)
        assert_close(loss_value, twin.backward(problem.X, problem.Y), bounds.loss, f"loss of {what}")
        check_gradients(network, gradients, twin.flat(gradients=True), bounds, what)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_samples_go_through_in_chunks(compiled, dtype):
    """More samples than a chunk holds, over several threads: every row comes out where it belongs."""
    for sizes, n in (((30, 7, 3), 700), ((3, 2), 1001)):
        network = Network.build(sizes, "tanh", dtype=dtype)
        for threads in (1, 2, 3):
            check_one_pass(compiled, random_problem(network, n, labels=True), f"{network} threads={threads}", threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values_pass_as_in_the_oracle(compiled, dtype):
    """Logits of ±10⁴: outputs are 0 and 1, losses thousands, nothing is NaN. (Exact: the products are.)"""
    for loss, dense in product(("binary_cross_entropy", "cross_entropy"), (True, False)):
        network = Network.build([1, 3], loss=loss, bias=False, dtype=dtype)
        parameters = network.zeros()
        network.rows(parameters)[0][:, 0] = [1e4, -1e4, 0]
        X = np.array([[1], [-1], [0]], dtype)
        Y = np.eye(3, dtype=dtype) if dense else np.array([0, 0, 2], np.int32)
        problem = Problem(network, parameters, X, Y)
        assert np.isfinite(compiled.evaluate(*problem.arrays)[0])
        check_one_pass(compiled, problem, str(network))


def test_what_is_no_number_is_not_hidden(compiled):
    """A NaN among the samples comes out in its own sample's outputs and in the loss; the others' are untouched."""
    for hidden, (output, loss) in product(HIDDEN, OUTPUT_LOSSES):
        network = Network.build((9, 5, 3), hidden, output, loss)
        problem = random_problem(network, 6)
        whole = compiled.predict(network, problem.parameters, problem.X)
        problem.X[2, 4] = np.nan
        outputs, what = compiled.predict(network, problem.parameters, problem.X), str(network)
        assert np.isnan(outputs[2]).all(), what
        np.testing.assert_array_equal(np.delete(outputs, 2, 0), np.delete(whole, 2, 0), what)
        assert np.isnan(compiled.evaluate(*problem.arrays)[0]), what
        assert np.isnan(compiled.backpropagation(*problem.arrays)[0]).any(), what


def test_nothing_that_is_given_is_changed(compiled):
    network, rule = Network.build((9, 5, 3), l2=0.1), RULES[3]
    for labels in (True, False):
        problem, order = random_problem(network, 6, labels=labels), np.arange(6)[::-1].copy()
        before = [array.copy() for array in (problem.parameters, problem.X, problem.Y, order)]
        compiled.feedforward(network, problem.parameters, problem.X)
        compiled.evaluate(*problem.arrays)
        gradients, _ = compiled.backpropagation(*problem.arrays)
        kept = gradients.copy()
        parameters, state = copied(problem.parameters), network.state(rule)
        compiled.update_weights(rule, parameters, gradients, state)
        compiled.train_epoch(network, rule, parameters, state, problem.X, problem.Y, order, 4)
        for array, copy in zip((problem.parameters, problem.X, problem.Y, order), before, strict=True):
            np.testing.assert_array_equal(array, copy)
        np.testing.assert_array_equal(gradients, kept)


# -------------------------------------------------------------------------------------------------------- updates
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_update_weights(compiled, rule, dtype):
    """Twenty steps from the same gradients; a few eps of the largest number a step."""
    for sizes, bias in product([*SHAPES, LAB], (True, False)):
        network = Network.build(sizes, loss="mean_squared_error", dtype=dtype, bias=bias)
        ours, state = random_parameters(network), network.state(rule)
        theirs, oracle_state = copied(ours), network.state(rule)
        for step in range(1, 21):
            gradients = random_parameters(network, seed=step)
            compiled.update_weights(rule, ours, gradients, state)
            reference.update_weights(rule, theirs, gradients, oracle_state)
        tolerance = 20 * 4 * np.finfo(dtype).eps * max(1, abs(theirs).max())
        assert_close(ours, theirs, tolerance, f"{network} {rule}")
        slots = max(1, abs(oracle_state.slots).max(initial=0))
        assert_close(
            state.slots, oracle_state.slots, 20 * 4 * np.finfo(dtype).eps * slots, f"state of {network} {rule}"
        )
        assert state.step[0] == 20
        assert not padding(network, ours).any()


# ---------------------------------------------------------------------------------------------------------- epochs
def compose(module, problem: Problem, rule: Rule, orders, batch_size: int, threads: int | None = None) -> Course:
    """`run_course` by backpropagation and update_weights in turn."""
    network, _, X, Y = problem.arrays
    parameters, state, losses, errors = copied(problem.parameters), network.state(rule), [], []
    Y_dense = reference.targets(network, Y)
    for order in orders:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            outputs = module.predict(network, parameters, X[batch], threads=threads)
            errors.append(np.mean((outputs - Y_dense[batch]) ** 2, dtype=np.float64) / 2)
            gradients, loss = module.backpropagation(network, parameters, X[batch], Y[batch], threads=threads)
            module.update_weights(rule, parameters, gradients, state, threads=threads)
            losses.append(loss)
    return Course(parameters, state.slots, np.array(losses), np.array(errors))


def check_course(ours: Course, expected: Course, tolerances: Course, what: str) -> None:
    for kind, a, b, tolerance in zip(Course._fields, ours, expected, tolerances, strict=True):
        assert_close(a, b, tolerance, f"{kind} of {what}")


def check_epochs(
    module, problem: Problem, rule: Rule, batch_size: int, what: str, *, epochs=2, threads=None, composition=True
) -> None:
    """Epochs in shuffled orders, against the oracle and against the composition of the backend's own functions."""
    network, n = problem.network, len(problem.X)
    orders = [np.random.default_rng([n, epoch]).permutation(n) for epoch in range(epochs)]
    what = f"{what}, n={n}, batch_size={batch_size}, {rule}"
    problem, tolerances = course(problem, rule, orders, batch_size)
    ours = run_course(module, problem, rule, orders, batch_size, threads)
    expected = run_course(reference, problem, rule, orders, batch_size)
    check_course(ours, expected, tolerances, f"{what}, against the oracle")
    if composition:
        expected = compose(module, problem, rule, orders, batch_size, threads)
        check_course(ours, expected, tolerances, f"{what}, against the composition")
    assert ours.losses.dtype == np.float64, what
    assert not padding(network, ours.parameters).any(), f"padding after {what}"
    for slot in ours.slots.reshape(rule.slots, network.size):
        assert not padding(network, slot).any(), f"padding of the state after {what}"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_epochs_for_the_whole_product_of_options(compiled, hidden):
    """Output and loss, bias, dtype, penalty and rule; shapes, batch sizes and samples' dtypes in turn.

    Against the oracle all, and every third against the composition too: that takes longest.
    """
    choices = product(OUTPUT_LOSSES, (True, False), DTYPES, (0.0, 0.2), RULES)
    for i, ((output, loss), bias, dtype, l2, rule) in enumerate(choices):
        inputs, batch_size = INPUTS[i % 3], (3, 5, 7, 12)[i % 7 % 4]
        network = Network.build(
            SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **pixels(inputs)
        )
        problem = random_problem(network, 11, i, inputs, labels=bool(i // 3 % 2))
        check_epochs(compiled, problem, rule, batch_size, f"{network} X {inputs}", composition=i % 3 == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_batch_sizes(compiled, rule, dtype):
    """One by one, the last one short, all at once, and more than there are."""
    n = 19
    for sizes, bias, batch_size in product(SHAPES, (True, False), (1, 5, 7, n - 1, n, n + 30)):
        network = Network.build(sizes, "tanh", bias=bias, dtype=dtype)
        problem = random_problem(network, n, labels=bias)
        check_epochs(compiled, problem, rule, batch_size, str(network), epochs=1, composition=batch_size != 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_epochs_of_the_labs_network(compiled, rule, dtype):
    for batch_size, n in ((5, 33), (100, 230)):
        network = Network.build(LAB, dtype=dtype, l2=0.1, **pixels("uint8"))
        problem = random_problem(network, n, 0, "uint8", labels=True)
        check_epochs(compiled, problem, rule, batch_size, str(network), epochs=1, threads=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_twenty_steps_are_torch_optims(compiled, dtype):
    """PyTorch directly, not by way of the oracle."""
    Twin = pytest.importorskip("torch_twin", reason="PyTorch is not installed").Twin
    for i, (rule, hidden, (output, loss), bias) in enumerate(product(RULES, HIDDEN, OUTPUT_LOSSES, (True, False))):
        if i % 5:  # a fifth of the product: test_reference has all of it, and the tests above lead there
            continue
        network = Network.build(SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, dtype=dtype, l2=0.1)
        problem = random_problem(network, 10, i)
        orders = [np.random.default_rng([i, epoch]).permutation(10) for epoch in range(4)]
        problem, tolerances = course(problem, rule, orders, 2)
        ours = run_course(compiled, problem, rule, orders, 2)
        twin = Twin(network, problem.parameters, rule)
        batches = [batch for order in orders for batch in order.reshape(5, 2)]
        expected = [twin.step(problem.X[batch], problem.Y[batch]) for batch in batches]
        assert_close(ours.losses, expected, tolerances.losses, f"losses of {network} {rule}")
        assert_close(ours.parameters, twin.flat(), tolerances.parameters, f"parameters of {network} {rule}")


@pytest.mark.parametrize("sizes", [(64, 25, 10), (64, 10)], ids=str)
def test_the_labs_course(compiled, sizes):
    """60 full-batch iterations at step size 1, float64, sigmoids throughout: within 1e-9 of the oracle.

    The digits' pixels are scaled to 0 … 1. From the raw ones a step of 1 overshoots, and two courses of the oracle
    itself that start 1e-15 apart are 4e-7 apart at the end: such a run says nothing about a kernel.
    """
    network = Network.build(sizes, "sigmoid", loss="binary_cross_entropy", dtype="float64", input_scale=1 / 16)
    digits, parameters, rule = load_digits(), network.zeros(), Rule("plain")
    rng = np.random.default_rng(6)
    for rows in network.rows(parameters):  # the lab's initialiser
        rows[:] = 4 * np.sqrt(6 / (sum(rows.shape) - 1)) * rng.uniform(-1, 1, rows.shape)
    n = 500
    X, Y = digits.data[:n].astype(np.uint8), np.eye(10)[digits.target[:n]]
    problem = Problem(network, parameters, X, Y)
    ours = run_course(compiled, problem, rule, [np.arange(n)] * 60, n)
    expected = run_course(reference, problem, rule, [np.arange(n)] * 60, n)
    check_course(ours, expected, Course(1e-9, 0, 1e-9, 1e-9), str(network))
    assert ours.losses[-1] < ours.losses[0] / 5


def test_an_order_may_repeat_and_leave_out(compiled):
    network, rule = Network.build((9, 5, 3), dtype="float64"), RULES[2]
    orders = {
        "one sample": [5],
        "a few": [7, 2, 4],
        "one sample again and again": [3] * 10,
        "two epochs at once": [*range(8), *range(7, -1, -1)],
    }
    for (name, order), batch_size in product(orders.items(), (1, 3, 8, 50)):
        given = [np.array(order, np.int64)]
        problem, tolerances = course(random_problem(network, 8, labels=True), rule, given, batch_size)
        ours, expected = (run_course(module, problem, rule, given, batch_size) for module in (compiled, reference))
        check_course(ours, expected, tolerances, f"{name}, batch_size {batch_size}")


def test_epochs_go_on_from_the_state(compiled):
    """Two epochs in a row are one of both orders, where the batches are the same."""
    network = Network.build((9, 5, 3))
    problem = random_problem(network, 12)
    first, second = np.random.default_rng(7).permuted([range(12)] * 2, axis=1)
    for rule in RULES:
        apart = run_course(compiled, problem, rule, [first, second], 4)
        at_once = run_course(compiled, problem, rule, [np.concatenate([first, second])], 4)
        check_course(apart, at_once, Course(0, 0, 0, 0), str(rule))


def test_state_of_another_backend_can_be_taken_over(compiled):
    """An epoch here and one on the oracle, in either order."""
    network = Network.build((9, 5, 3), dtype="float64")
    for rule in RULES:
        results, order = [], np.arange(12)
        problem, tolerances = course(random_problem(network, 12), rule, [order] * 2, 5)
        for modules in ((compiled, reference), (reference, compiled)):
            parameters, state = copied(problem.parameters), network.state(rule)
            for module in modules:
                module.train_epoch(network, rule, parameters, state, problem.X, problem.Y, order, 5)
            results.append(parameters)
        assert_close(*results, tolerances.parameters, str(rule))


# -------------------------------------------------------------------------------------------------- thread counts
@pytest.mark.parametrize("dtype", DTYPES)
def test_thread_counts_agree_to_rounding_and_each_repeats_to_the_bit(compiled, dtype):
    for batch_size, n in ((5, 60), (200, 450)):
        network = Network.build((100, 70, 10), dtype=dtype)
        rule, orders = RULES[1], [np.arange(n)]
        problem, tolerances = course(random_problem(network, n, labels=True), rule, orders, batch_size)
        runs = {threads: run_course(compiled, problem, rule, orders, batch_size, threads) for threads in (1, 2, 3)}
        for threads, ours in runs.items():
            what = f"{threads} threads, batch_size {batch_size}"
            check_course(ours, runs[1], tolerances, what)
            again = run_course(compiled, problem, rule, orders, batch_size, threads)
            check_course(again, ours, Course(0, 0, 0, 0), f"{what}, again")


# ------------------------------------------------------------------------------------------- the CPU's two ways
WAYS = ("units", "samples")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_both_ways_of_splitting(way, threads):
    """By units and by samples, in chunks of 4, whatever the batch; a member or two may have no unit or no sample."""
    cpu = kernels.backend("cpu")
    choices = product(SHAPES, (True, False), DTYPES)
    with forced(way, always_threads=True, chunk=4):
        for i, (sizes, bias, dtype) in enumerate(choices):
            hidden, (output, loss) = HIDDEN[i % len(HIDDEN)], OUTPUT_LOSSES[i % len(OUTPUT_LOSSES)]
            network = Network.build(sizes, hidden, output, loss, bias=bias, dtype=dtype, l2=0.1 * (i % 2))
            rule, batch_size = RULES[i % 4], (5, 1, 11, 7)[i // 4 % 4]
            problem, what = random_problem(network, 11, i, labels=bool(i // 2 % 2)), f"{network} {way} {threads}"
            check_epochs(cpu, problem, rule, batch_size, what, epochs=1, threads=threads, composition=False)
            check_one_pass(cpu, problem, what, threads)


@pytest.mark.parametrize("way", WAYS)
def test_a_single_output(way):
    """With labels of 0 and 1, and with dense targets."""
    cpu = kernels.backend("cpu")
    with forced(way, always_threads=True, chunk=4):
        pairs = [pair for pair in OUTPUT_LOSSES if pair[1] != "cross_entropy"]
        choices = product(pairs, ((9, 5, 1), (3, 1), (17, 1, 1)), DTYPES, (True, False))
        for i, ((output, loss), sizes, dtype, labels) in enumerate(choices):
            network = Network.build(sizes, "tanh", output, loss, dtype=dtype, bias=bool(i % 3))
            problem, what = random_problem(network, 11, i, labels=labels), f"{network} {way}"
            check_one_pass(cpu, problem, what, 1 + i % 3)
            check_epochs(cpu, problem, RULES[i % 4], 4, what, epochs=1, threads=1 + i % 3, composition=False)


@pytest.mark.parametrize("way", WAYS)
def test_single_outputs_side_by_side(way):
    """So many samples at a time that their outputs share vectors; numbers of them on either side of whole vectors."""
    cpu = kernels.backend("cpu")
    pairs = [pair for pair in OUTPUT_LOSSES if pair[1] != "cross_entropy"]
    with forced(way, always_threads=True):
        for i, ((output, loss), dtype) in enumerate(product(pairs, DTYPES)):
            n, batch_size = ((150, 150), (64, 33), (35, 16), (40, 17))[i % 4]
            network = Network.build(((9, 5, 1), (3, 1))[i % 2], "tanh", output, loss, dtype=dtype)
            problem, what = random_problem(network, n, i, labels=bool(i % 3)), f"{network} {way}"
            check_one_pass(cpu, problem, what, 1 + i % 2)
            check_epochs(cpu, problem, RULES[i % 4], batch_size, what, threads=1 + i % 2, composition=False)


@pytest.mark.parametrize("way", WAYS)
def test_two_callers_at_once_do_not_disturb_each_other(way):
    """Each thread has plans and scratch of its own, for the same network too."""
    cpu, network = kernels.backend("cpu"), Network.build((20, 11, 4))
    problem, orders, results = random_problem(network, 40, labels=True), [np.arange(40)] * 20, []
    with forced(way, always_threads=True):
        expected = run_course(cpu, problem, RULES[1], orders, 9, 2)
        callers = [
            threading.Thread(target=lambda: results.append(run_course(cpu, problem, RULES[1], orders, 9, 2)))
            for _ in range(3)
        ]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(60)
    assert len(results) == 3
    for result in results:
        check_course(result, expected, Course(0, 0, 0, 0), way)


@pytest.mark.parametrize("way", WAYS)
def test_more_threads_than_units_or_samples(way):
    cpu = kernels.backend("cpu")
    with forced(way, always_threads=True):
        for sizes, batch_size, threads in (((3, 1, 2), 2, 4), ((2, 2), 3, 5), ((4, 2, 1, 3), 1, 4)):
            network = Network.build(sizes, "tanh", dtype="float64")
            problem = random_problem(network, 5)
            check_epochs(cpu, problem, RULES[1], batch_size, f"{network} {way}", threads=threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_softmax_of_every_width(way, dtype):
    """Rows of logits that fit registers, and longer ones; as many samples as share a logarithm, fewer and more."""
    cpu = kernels.backend("cpu")
    for i, n_out in enumerate((2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 24, 25, 33, 49, 70)):
        network = Network.build((3, n_out), dtype=dtype, bias=i % 3 != 0)
        problem = random_problem(network, (15, 16, 17, 33)[i % 4], i, labels=i % 2 == 0)
        with forced(way, always_threads=True):
            check_one_pass(cpu, problem, f"{network} {way}", threads=1)
            check_epochs(cpu, problem, RULES[1], len(problem.X), f"{network} {way}", threads=1 + i % 2)


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_repeat_to_the_bit(way):
    cpu = kernels.backend("cpu")
    with forced(way, always_threads=True, chunk=4):
        network = Network.build((20, 11, 6, 4))
        problem, orders = random_problem(network, 40, labels=True), [np.arange(40)] * 2
        for threads in (1, 2, 3):
            first = run_course(cpu, problem, RULES[3], orders, 9, threads)
            for _ in range(3):
                again = run_course(cpu, problem, RULES[3], orders, 9, threads)
                check_course(again, first, Course(0, 0, 0, 0), f"{threads} threads, again")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_wide_layers(threads, dtype):
    """Blocks of rows, tiles and columns that are left over, in layers wide enough without being forced."""
    from fastmlp.kernels.cpu import entries, plan

    cpu = kernels.backend("cpu")
    for i, sizes in enumerate([(300, 231, 5), (40, 301, 230, 3)]):
        network = Network.build(sizes, "tanh", dtype=dtype, bias=i == 0)
        wide = [False, True, False] if len(sizes) == 4 else [True, False]
        assert plan.by_samples(network, 64, threads).table[:, entries.WIDE].astype(bool).tolist() == wide
        problem, what = random_problem(network, 150, i, labels=True), f"{network} threads={threads}"
        check_one_pass(cpu, problem, what, threads)
        gentle = replace(RULES[1], learning_rate=1e-3)
        check_epochs(cpu, problem, gentle, 140, what, epochs=1, threads=threads, composition=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_copied_for_the_smallest_layers_too(dtype):
    from fastmlp.kernels.cpu import entries, plan

    cpu = kernels.backend("cpu")
    for i, (sizes, chunk, bias) in enumerate(product(SHAPES, (1, 5, 11), (True, False))):
        network = Network.build(sizes, "tanh", loss="mean_squared_error", dtype=dtype, bias=bias)
        problem, what, threads = random_problem(network, 11, i), f"{network} chunk={chunk}", 1 + i % 2
        with forced("samples", always_threads=True, chunk=chunk, wide=True):
            assert plan.by_samples(network, chunk, threads).table[:, entries.WIDE].all()
            check_one_pass(cpu, problem, what, threads)
            check_epochs(cpu, problem, RULES[i % 4], 7, what, threads=threads, composition=False)


def test_plans_choose_the_way_by_the_batch():
    """So that the tests above, which force the choice, force something that is used."""
    from fastmlp.kernels.cpu import config, plan

    assert plan.is_small(config.SMALL_BATCH, 1)
    assert not plan.is_small(config.SMALL_BATCH + 1, 1)
    assert plan.is_small(config.SMALL_RESTING, 2, sparse=True, resting=True)
    assert not plan.is_small(config.SMALL_RESTING + 1, 2, sparse=True, resting=True)
    assert plan.is_small(config.SMALL_SPARSE, 2, sparse=True)
    assert not plan.is_small(config.SMALL_SPARSE + 1, 2, sparse=True)
    assert plan.is_small(config.FEWEST_INPUTS_BATCH - 1, 1, fewest_inputs=True)
    assert not plan.is_small(config.FEWEST_INPUTS_BATCH, 1, fewest_inputs=True)
    assert plan.is_small(config.FEWEST_INPUTS_BATCH, 2, fewest_inputs=True)
    assert plan.is_small(config.FEWEST_INPUTS_BATCH, 1, resting=True, fewest_inputs=True)
    assert not plan.is_small(config.SMALL_SPARSE + 1, 1, sparse=True, fewest_inputs=True)
    lab, tiny = Network.build(LAB), Network.build((2, 2))
    assert plan.members_for(tiny, 1, 8, config.WORK_PER_STEP) == 1
    assert plan.members_for(lab, 5, 8, config.WORK_PER_STEP) == 8
    assert plan.members_for(lab, 10_000, 8, config.WORK_PER_THREAD) == 8
    unit, each = Network.build((100, 1), loss="binary_cross_entropy"), config.SAMPLES_EACH
    assert [plan.members_by_samples(unit, n, 8) for n in (2 * each - 1, 2 * each, 100 * each)] == [1, 2, 8]
    assert plan.members_by_samples(tiny, 10 * each, 8) == 1


@pytest.mark.parametrize("way", WAYS)
def test_forcing_a_way_forces_it(way):
    from fastmlp.kernels.cpu import drivers, team

    jobs = []
    network, cpu = Network.build((3, 2)), kernels.backend("cpu")
    problem, run = random_problem(network, 9), team.run
    with forced(way, always_threads=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "run", lambda members, work, *rest: jobs.append(members) or run(members, work, *rest))
        patch.setattr(drivers, "run", lambda t, job, *rest, run=drivers.run: jobs.append(job) or run(t, job, *rest))
        run_course(cpu, problem, RULES[0], [np.arange(9)], 4, threads=3)
    job = {"units": drivers.TRAIN_SMALL, "samples": drivers.TRAIN_LARGE}[way]
    assert jobs == [3, job, job, job]


# -------------------------------------------------------------------------------------------------- any shape at all
@st.composite
def any_problem(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 40), min_size=2, max_size=5)))
    losses = [pair for pair in OUTPUT_LOSSES if sizes[-1] > 1 or pair[1] != "cross_entropy"]
    output, loss = draw(st.sampled_from(losses))
    inputs = draw(st.sampled_from(INPUTS))
    network = Network.build(
        sizes,
        [draw(st.sampled_from(HIDDEN)) for _ in sizes[2:]],
        output,
        loss,
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
        l2=draw(st.sampled_from([0.0, 0.1])),
        **pixels(inputs),
    )
    return random_problem(network, draw(st.integers(1, 20)), draw(st.integers(0, 99)), inputs, draw(st.booleans()))


@settings(max_examples=200)
@given(
    problem=any_problem(),
    rule=st.sampled_from(RULES),
    batch_size=st.integers(1, 25),
    threads=st.integers(1, 3),
    way=st.sampled_from([None, *WAYS]),
    chunk=st.sampled_from([None, 1, 4, 6]),
    sparse=st.booleans(),
    wide=st.booleans(),
)
def test_any_shape(problem, rule, batch_size, threads, way, chunk, sparse, wide):
    cpu = kernels.backend("cpu")
    with forced(way, always_threads=way is not None, chunk=chunk, sparse=sparse, wide=wide):
        what = f"{problem.network} {way} threads={threads} chunk={chunk} sparse={sparse} wide={wide}"
        check_one_pass(cpu, problem, what, threads)
        # Slopes sum over inputs, units and outputs: with forty, a step that suits one makes the course chaotic.
        gentle = replace(rule, learning_rate=rule.learning_rate / max(problem.network.sizes))
        try:
            check_epochs(cpu, problem, gentle, batch_size, what, epochs=1, threads=threads, composition=False)
        except NearKinks:
            reject()  # Hypothesis draws another, and complains if it has to do so often


# -------------------------------------------------------------------------------------------------- sparse samples
def sparse_problem(network: Network, n: int, seed: int, inputs: str, density=0.15) -> Problem:
    """Samples that are mostly zero, a whole one and a whole input among them."""
    problem, rng = random_problem(network, n, seed, inputs, labels=True), np.random.default_rng(seed)
    problem.X[rng.uniform(size=problem.X.shape) > density] = 0
    problem.X[n // 2] = 0
    problem.X[:, network.sizes[0] // 2] = 0
    return problem


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_samples(dtype):
    """Inputs on either side of a block's, units on either side of what registers hold; chunks and threads in turn."""
    cpu = kernels.backend("cpu")
    widths, units = (1, 47, 48, 49, 95, 96, 97, 200, 784), (1, 7, 8, 17, 72, 73, 100, 145, 300)
    for i, (n_in, bias) in enumerate(product(widths, (True, False))):
        sizes = (n_in, units[(2 * i) % 9], 3) if i % 3 else (n_in, units[i % 9] + 1)
        inputs, threads, chunk = INPUTS[i % 3], 1 + i % 3, (None, 5, 1, 8)[i % 4]
        scale = 1 / 128 if inputs == "uint8" else 0.5
        network = Network.build(sizes, HIDDEN[i % 5], bias=bias, dtype=dtype, l2=0.1 * (i % 2), input_scale=scale)
        problem, what = (
            sparse_problem(network, 13, i, inputs),
            f"{network} X {inputs}, {threads} threads, chunk {chunk}",
        )
        with forced("samples", always_threads=True, chunk=chunk, sparse=True):
            check_one_pass(cpu, problem, what, threads)
            check_epochs(cpu, problem, RULES[i % 4], (13, 6)[i % 2], what, threads=threads, composition=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_samples_are_noticed(dtype):
    """The lab's own kind of job, unforced: so many pixels that are mostly zero, all in one batch."""
    from fastmlp.kernels.cpu import plan

    cpu = kernels.backend("cpu")
    network = Network.build(LAB, "sigmoid", loss="binary_cross_entropy", dtype=dtype, input_scale=1 / 255)
    problem = sparse_problem(network, 450, 0, "uint8")
    assert plan.background(network, problem.X, 450).value == 0
    assert plan.background(network, problem.X, 20) is None, "too few samples to pay for the copies"
    assert plan.background(network, problem.X + 1, 450) is None, "x / 255 - 1 / 255 would be rounded"
    unscaled = Network.build(LAB, input_shift=0.5)
    assert plan.background(unscaled, problem.X + 1, 450).value == 1
    assert plan.background(unscaled, np.random.default_rng(0).random((450, 784)), 450) is None
    assert plan.background(unscaled, np.full((450, 784), np.nan), 450) is None
    for threads in (1, 2):
        check_one_pass(cpu, problem, str(network), threads)
        check_epochs(cpu, problem, RULES[0], 450, str(network), threads=threads, composition=False)


def test_what_is_no_number_leaves_nothing_behind():
    """Scratch is kept from call to call; a NaN in one must not be found by the next."""
    cpu = kernels.backend("cpu")
    for way, sparse, bias in product(WAYS, (True, False), (True, False)):
        with forced(way, sparse=sparse, chunk=4):
            network = Network.build((9, 5, 3, 3), "tanh", bias=bias)
            problem = random_problem(network, 6)
            before, what = one_of_each(cpu, problem), f"{way} sparse={sparse} bias={bias}"
            spoilt = Problem(network, problem.parameters, problem.X.copy(), problem.Y)
            spoilt.X[::2, 4] = np.nan
            one_of_each(cpu, spoilt)
            for a, b in zip(one_of_each(cpu, problem), before, strict=True):
                np.testing.assert_array_equal(a, b, f"after a NaN: {what}")


def one_of_each(module, problem: Problem):
    """What each function answers."""
    course = run_course(module, problem, RULES[1], [np.arange(len(problem.X))], 4)
    evaluation, gradients = module.evaluate(*problem.arrays), module.backpropagation(*problem.arrays)
    return [*module.feedforward(*problem.arrays[:3]), *evaluation, *gradients, *course]


def test_calls_of_all_kinds_in_any_order_do_not_disturb_each_other():
    """Plans are kept: what one kind of call has left in them is not for the next."""
    network = Network.build((9, 5, 3), "tanh", dtype="float64")
    problem, cpu = random_problem(network, 6, labels=True), kernels.backend("cpu")
    calls = {
        "feedforward": lambda: cpu.feedforward(*problem.arrays[:3])[0],
        "predict": lambda: cpu.predict(*problem.arrays[:3]),
        "evaluate": lambda: np.array(cpu.evaluate(*problem.arrays)),
        "backpropagation": lambda: cpu.backpropagation(*problem.arrays)[0],
        "train_epoch": lambda: run_course(cpu, problem, RULES[3], [np.arange(6)], 6).parameters,
    }
    for way in WAYS:
        with forced(way, sparse=False):
            expected = {name: call().copy() for name, call in calls.items()}
            for first, second in product(calls, calls):
                calls[first]()
                np.testing.assert_array_equal(calls[second](), expected[second], f"{second} after {first}, {way}")


def test_results_are_the_callers(compiled):
    """What a call has returned stays as it is, and what becomes of it changes no later answer."""
    problem = random_problem(Network.build((9, 5, 3), "tanh"), 6)
    network, parameters, X, Y = problem.arrays
    for n in (1, 6):
        calls = {
            "predict": lambda samples: [compiled.predict(network, parameters, samples)],
            "feedforward": lambda samples: compiled.feedforward(network, parameters, samples),
            "backpropagation": lambda samples: [
                compiled.backpropagation(network, parameters, samples, Y[: len(samples)])[0]
            ],
        }
        for name, call in calls.items():
            results = call(X[:n])
            expected = [result.copy() for result in results]
            call(-X[:n])
            for result, copy in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, copy, f"a later {name} of {n} has changed it")
                result[:] = np.nan
            for result, copy in zip(call(X[:n]), expected, strict=True):
                np.testing.assert_array_equal(result, copy, f"{name} of {n} after its result was overwritten")


def test_networks_that_differ_in_one_thing_may_take_turns(compiled):
    """The plan of the call before is used again for an equal network alone, be it the same object or not."""
    network = Network.build((9, 5, 3), "tanh", input_scale=0.5)
    others = [
        replace(network, input_scale=0.25),
        replace(network, input_shift=1.0),
        replace(network, activations=("sigmoid", "softmax")),
        replace(network, bias=False),
        replace(network),
    ]
    turns = [network, *(one for other in others for one in (other, network))]
    for n, (i, each) in product((1, 3), enumerate(turns)):
        problem = random_problem(each, n, i)
        outputs, expected = (module.predict(*problem.arrays[:3]) for module in (compiled, reference))
        np.testing.assert_allclose(outputs, expected, 1e-5, 1e-5, err_msg=f"{each}, n={n}, turn {i}")


def test_single_samples_from_several_threads_at_once(compiled):
    """A plan is kept from call to call, but for its own thread."""
    network = Network.build((50, 30, 4))
    parameters, wrong, meeting = random_parameters(network), [], threading.Barrier(4, timeout=60)

    def caller(seed: int) -> None:
        X = random_problem(network, 1, seed).X
        expected = reference.predict(network, parameters, X)
        meeting.wait()
        for _ in range(500):
            if not np.allclose(compiled.predict(network, parameters, X), expected, 1e-4, 1e-5):
                wrong.append(seed)
                return

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not any(thread.is_alive() for thread in callers)
    assert not wrong


def test_errors_are_optional(compiled):
    """Asking for them changes nothing else."""
    network, rule = Network.build((9, 5, 3)), RULES[1]
    for way in WAYS:
        with forced(way):
            problem = random_problem(network, 8)
            with_errors = run_course(compiled, problem, rule, [np.arange(8)], 3)
            parameters, state = copied(problem.parameters), network.state(rule)
            losses = compiled.train_epoch(network, rule, parameters, state, problem.X, problem.Y, np.arange(8), 3)
            np.testing.assert_array_equal(parameters, with_errors.parameters)
            np.testing.assert_array_equal(losses, with_errors.losses)


@pytest.mark.parametrize("errors", [np.zeros(1), np.zeros(2, np.float32), np.zeros(4)[::2], np.zeros((2, 1))])
def test_errors_of_the_wrong_kind_are_refused(backend, errors):
    arguments = right_arguments()
    before = arguments["parameters"].copy()
    with pytest.raises(ValueError, match=r"errors is float\d\d \[.*\]; expected contiguous float64 \[2\]"):
        kernels.backend(backend).train_epoch(*[arguments[key] for key in TAKES["train_epoch"]], errors=errors)
    np.testing.assert_array_equal(arguments["parameters"], before)


# ------------------------------------------------------------------------------------- the floating-point unit
def subnormals_live(dtype) -> bool:
    """Whether NumPy, in this thread, still computes with numbers below the normal range."""
    tiny = np.full(64, np.finfo(dtype).tiny)
    return bool((tiny * tiny.dtype.type(0.25) != 0).all() and ((tiny / 4) * 4 != 0).all())


HAS_FLUSH = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "aarch64", "arm64")


@pytest.mark.parametrize("own_threads", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_are_flushed_inside_and_live_on_outside(compiled, dtype, own_threads):
    """Idle units' velocities below the normal range become zero; the caller's arithmetic stays as it was.

    A job as brief as these runs in the calling thread, unless it is forced into its own.
    """
    if compiled is not kernels.backend("cpu"):
        pytest.skip("a GPU computes with subnormals as fast as with any number, so they are left to live")
    if not HAS_FLUSH:
        pytest.skip(f"no way to flush subnormals is known on {platform.machine()}")
    assert subnormals_live(dtype), "some other test has changed this thread's floating-point state"
    network, rule = Network.build((20, 9, 3), dtype=dtype), Rule("momentum", 0.1, momentum=0.9)
    tiny = np.finfo(dtype).tiny / 2
    with forced(always_threads=own_threads):
        for way in ("update", *WAYS):
            parameters, state = network.zeros(), network.state(rule)
            for rows in network.rows(state.slots):
                rows[:] = tiny
            if way == "update":
                compiled.update_weights(rule, parameters, network.zeros(), state)
            else:
                with forced(way):
                    X, Y = np.zeros((6, 20), dtype), np.full((6, 3), 1 / 3, dtype)  # softmax of zeros: no delta
                    order = np.arange(6)
                    compiled.train_epoch(network, rule, parameters, state, X, Y, order, 3, threads=3)
            hidden = network.rows(state.slots)[0]
            assert not hidden.any(), f"{way}: velocities of {hidden.max()} are left"
            assert subnormals_live(dtype), f"{way} has changed the caller's floating-point state"
    problem = random_problem(network, 6)
    for function in (compiled.feedforward, compiled.predict):
        function(*problem.arrays[:3])
    compiled.evaluate(*problem.arrays)
    compiled.backpropagation(*problem.arrays)
    assert subnormals_live(dtype)


# --------------------------------------------------------------------------------------------------- what is refused
def wrong_order(X):
    return np.asfortranarray(X)


def every_second(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


#: (argument, how it is spoilt, part of the message)
REFUSED = [
    ("parameters", lambda p: p[:-1], r"parameters is float32 \[\d+\]; expected contiguous float32 \[\d+\]"),
    ("parameters", lambda p: copied(np.append(p, p)), "parameters is float32"),
    (
        "parameters",
        lambda p: copied(p.astype(np.float64)),
        r"parameters is float64 \[\d+\]; expected contiguous float32",
    ),
    ("parameters", lambda p: p.reshape(1, -1), r"parameters is float32 \[1, \d+\]"),
    ("parameters", every_second, "parameters is float32"),
    ("X", lambda X: X[:, :-1].copy(), r"X is float32 \[6, 2\]; expected C-contiguous .* \[n, 3\]"),
    ("X", lambda X: X[0], r"X is float32 \[3\]"),
    ("X", lambda X: X.astype(np.int64), r"X is int64 \[6, 3\]; expected C-contiguous uint8, float32, float64"),
    ("X", lambda X: X.astype(np.float16), "X is float16"),
    ("X", lambda X: X.astype(">f4"), "X is >f4|X is float32"),
    ("X", lambda X: X > 0, "X is bool"),
    ("X", wrong_order, "X is float32"),
    ("X", every_second, "X is float32"),
    ("X", lambda X: X[:0], r"X is empty: \[0, 3\]"),
    ("X", lambda X: X[:-1], r"Y is int32 \[6\]; expected .*\[5, 2\] or int32 \[5\]"),
    ("Y", lambda Y: Y[:-1], r"Y is int32 \[5\]; expected .*\[6, 2\] or int32 \[6\]"),
    ("Y", lambda Y: Y.astype(np.int64), r"Y is int64 \[6\]; expected C-contiguous float32 \[6, 2\] or int32 \[6\]"),
    ("Y", lambda Y: Y.astype(np.float32), r"Y is float32 \[6\]"),
    ("Y", every_second, "Y is int32"),
    ("Y", lambda Y: Y - 1, r"Y holds labels -1 to 0; expected 0 to 1"),
    ("Y", lambda Y: Y + 1, r"Y holds labels 1 to 2; expected 0 to 1"),
    ("Y", lambda Y: np.eye(2)[Y], r"Y is float64 \[6, 2\]; expected C-contiguous float32"),
    ("Y", lambda Y: np.eye(3, dtype=np.float32)[Y], r"Y is float32 \[6, 3\]; expected .*\[6, 2\]"),
    ("Y", lambda Y: wrong_order(np.eye(2, dtype=np.float32)[Y]), r"Y is float32 \[6, 2\]; expected C-contiguous"),
    ("Y", lambda Y: Y[:, None], r"Y is int32 \[6, 1\]"),
    ("gradients", lambda g: g[:-1], r"(gradients|parameters) is float32 \[\d+\]; expected contiguous float32"),
    ("gradients", lambda g: copied(g.astype(np.float64)), "gradients is float64"),
    ("gradients", every_second, "gradients is float32"),
    ("state", lambda s: State(s.slots[:-1], s.step), r"state.slots is float32 \[\d+\]; expected contiguous float32"),
    ("state", lambda s: State(s.slots[:0], s.step), r"state.slots is float32 \[0\]"),
    ("state", lambda s: State(copied(s.slots.astype(np.float64)), s.step), "state.slots is float64"),
    ("state", lambda s: State(s.slots, np.zeros(2, np.int64)), r"state.step is int64 \[2\]; expected .*int64 \[1\]"),
    ("state", lambda s: State(s.slots, np.zeros(1, np.int32)), "state.step is int32"),
    ("order", lambda o: o.astype(np.int32), r"order is int32 \[6\]; expected contiguous int64"),
    ("order", lambda o: o.reshape(2, 3), r"order is int64 \[2, 3\]"),
    ("order", every_second, "order is int64"),
    ("order", lambda o: o[:0], "order is empty"),
    ("order", lambda o: o - 1, "order holds -1 to 4; expected 0 to 5"),
    ("order", lambda o: o + 1, "order holds 1 to 6; expected 0 to 5"),
    ("batch_size", lambda b: 0, "batch_size=0; expected 1 or more"),
    ("batch_size", lambda b: -3, "batch_size=-3; expected 1 or more"),
]

#: The functions and what they take.
TAKES = {
    "feedforward": ("network", "parameters", "X"),
    "predict": ("network", "parameters", "X"),
    "evaluate": ("network", "parameters", "X", "Y"),
    "backpropagation": ("network", "parameters", "X", "Y"),
    "update_weights": ("rule", "parameters", "gradients", "state"),
    "train_epoch": ("network", "rule", "parameters", "state", "X", "Y", "order", "batch_size"),
}


def right_arguments():
    network, rule = Network.build((3, 4, 2)), RULES[1]
    problem, state = random_problem(network, 6, labels=True), network.state(rule)
    state.slots[:] = random_parameters(network, 1)
    return {
        "network": network,
        "rule": rule,
        "parameters": problem.parameters,
        "gradients": random_parameters(network, 2),
        "state": state,
        "X": problem.X,
        "Y": (np.arange(6) % 2).astype(np.int32),
        "order": np.arange(6),
        "batch_size": 4,
    }


@pytest.mark.parametrize(("argument", "spoil", "message"), REFUSED)
def test_a_wrong_argument_is_named_before_anything_changes(backend, argument, spoil, message):
    """In every function that takes it (an X too short shows only where there is a Y)."""
    module = kernels.backend(backend)
    arguments = right_arguments()
    watched = [arguments["parameters"], arguments["state"].slots, arguments["state"].step]
    before = [array.copy() for array in watched]
    wrong = {**arguments, argument: spoil(arguments[argument])}
    for name, takes in TAKES.items():
        if argument not in takes or ("Y is" in message and "Y" not in takes):
            continue
        disagree = name == "update_weights" and argument == "parameters"  # without a network, that is all that shows
        with pytest.raises(ValueError, match="gradients is|parameters is" if disagree else message):
            getattr(module, name)(*[wrong[key] for key in takes])
        for array, copy in zip(watched, before, strict=True):
            np.testing.assert_array_equal(array, copy, f"{name} has changed something")


def test_a_label_of_a_single_output_is_0_or_1(backend):
    network = Network.build((3, 1), loss="binary_cross_entropy")
    problem = random_problem(network, 4)
    kernels.backend(backend).evaluate(network, problem.parameters, problem.X, np.array([0, 1, 1, 0], np.int32))
    with pytest.raises(ValueError, match="Y holds labels 0 to 2; expected 0 to 1"):
        kernels.backend(backend).evaluate(network, problem.parameters, problem.X, np.array([0, 1, 2, 0], np.int32))


MISALIGNED = """
import numpy as np
from fastmlp import kernels
from fastmlp.kernels import Network, Rule, State, reference
from problems import copied, random_parameters, random_problem

def beside(array):
    room = np.zeros(len(array) + 32, array.dtype)
    start = -room.ctypes.data % 64 // array.itemsize + 1
    room[start : start + len(array)] = array
    return room[start : start + len(array)]

network, rule = Network.build((9, 5, 3)), Rule("momentum", 0.1, momentum=0.9)
problem, cpu, order = random_problem(network, 6), kernels.backend("cpu"), np.arange(6)
for spoilt in ("parameters", "gradients", "state"):
    results = []
    for module in (reference, cpu):
        parameters, gradients, state = copied(problem.parameters), random_parameters(network, 1), network.state(rule)
        if spoilt == "parameters":
            parameters = beside(parameters)
        elif spoilt == "gradients":
            gradients = beside(gradients)
        else:
            state = State(beside(state.slots), state.step)
        try:
            module.predict(network, parameters, problem.X)
            module.update_weights(rule, parameters, gradients, state)
            module.train_epoch(network, rule, parameters, state, problem.X, problem.Y, order, 4)
        except ValueError as error:
            assert spoilt in str(error), error
        else:
            results.append(parameters)
    if len(results) == 2:
        np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
"""


def test_a_flat_array_off_the_boundary_does_not_crash():
    """A plain copy of the parameters need not start on a boundary: refused by name, or taken; not a dead process."""
    done = run_python(MISALIGNED)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"


def test_arrays_that_cannot_be_written_need_no_compilation_of_their_own(compiled):
    """Samples, targets, order and, where they are only read, parameters may be read-only."""
    network, rule = Network.build((9, 5, 3)), RULES[0]
    for labels in (True, False):
        problem, order = random_problem(network, 6, labels=labels), np.arange(6)
        expected = run_course(compiled, problem, rule, [order], 4)
        before = compilations()
        for array in (problem.parameters, problem.X, problem.Y, order):
            array.setflags(write=False)
        ours = run_course(compiled, problem, rule, [order], 4)
        check_course(ours, expected, Course(0, 0, 0, 0), f"labels={labels}")
        compiled.evaluate(*problem.arrays)
        compiled.backpropagation(*problem.arrays)
        assert compilations() == before, "compiled anew for an array that is read-only"


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_single_sample_may_be_read_only(compiled, inputs):
    problem = random_problem(Network.build((9, 5, 3), **pixels(inputs)), 1, inputs=inputs)
    expected = compiled.predict(*problem.arrays[:3])
    before = compilations()
    problem.parameters.setflags(write=False)
    problem.X.setflags(write=False)
    np.testing.assert_array_equal(compiled.predict(*problem.arrays[:3]), expected)
    assert compilations() == before, "compiled anew for an array that is read-only"


def test_parameters_off_the_boundary_are_refused_after_a_good_call_too():
    """In the same memory and for the same plan; read-only ones are copied on to a boundary, and pass."""
    cpu, problem = kernels.backend("cpu"), random_problem(Network.build((9, 5, 3)), 1)
    network, room = problem.network, aligned_zeros(problem.network.size + 1, "float32")
    for start in (0, 1, 0, 1):
        parameters = room[start : start + network.size]
        parameters[:] = problem.parameters
        if start:
            with pytest.raises(ValueError, match="parameters is off a 64-byte boundary"):
                cpu.predict(network, parameters, problem.X)
            parameters.setflags(write=False)
        expected = cpu.predict(*problem.arrays[:3])
        np.testing.assert_array_equal(cpu.predict(network, parameters, problem.X), expected)


@pytest.mark.parametrize("dtype", INPUTS)
def test_addresses(dtype):
    from fastmlp.kernels.cpu.plan import address

    array = np.zeros((4, 3), dtype)
    frozen = array[1:].view()
    frozen.setflags(write=False)
    for part in (array, array[2:], array[3, 1:], frozen):
        assert address(part) == part.ctypes.data


def test_parameters_that_cannot_be_written_are_not_trained(backend):
    network, rule = Network.build((9, 5, 3)), RULES[0]
    problem, module = random_problem(network, 6), kernels.backend(backend)
    before = problem.parameters.copy()
    problem.parameters.setflags(write=False)
    with pytest.raises(ValueError, match=r"read-only|writ"):
        module.train_epoch(
            network, rule, problem.parameters, network.state(rule), problem.X, problem.Y, np.arange(6), 4
        )
    with pytest.raises(ValueError, match=r"read-only|writ"):
        module.update_weights(rule, problem.parameters, network.zeros(), network.state(rule))
    np.testing.assert_array_equal(problem.parameters, before)
