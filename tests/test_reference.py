"""The oracle, against cases worked by hand, finite differences, PyTorch's autograd and torch.optim."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    SHAPES,
    Problem,
    assert_close,
    copied,
    course,
    option_product,
    random_problem,
    rounding,
    run_course,
)
from torch_twin import Twin

from fastmlp.kernels import Network, Rule, reference
from fastmlp.kernels.activations import ACTIVATIONS

HIDDEN = list(ACTIVATIONS)


def parameters_of(network, *layers):
    """A flat array from the rows of each layer."""
    flat = network.zeros()
    for rows, values in zip(network.rows(flat), layers, strict=True):
        rows[:] = values
    return flat


def rows_of(network, flat):
    return [rows.tolist() for rows in network.rows(flat)]


# ------------------------------------------------------------------------------------------------ worked by hand
def test_a_sigmoid_unit_by_hand():
    """z = ½ + 2 - 1 = 1.5; σ(z) = 0.81757…; -ln σ(z) = 0.20141…; delta = σ(z) - 1; gradient = delta (1, 2, 1)."""
    network = Network.build([2, 1], loss="binary_cross_entropy", dtype="float64")
    parameters = parameters_of(network, [[0.5, 1.0, -1.0]])
    X, Y = np.array([[2.0, 1.0]]), np.array([[1.0]])
    gradients, loss = reference.backpropagation(network, parameters, X, Y)
    assert reference.predict(network, parameters, X)[0, 0] == pytest.approx(0.8175744761936437, rel=1e-15)
    assert loss == pytest.approx(0.2014132779827524, rel=1e-15)
    expected = [-0.18242552380635635, -0.3648510476127127, -0.18242552380635635]
    np.testing.assert_allclose(network.rows(gradients)[0], [expected], rtol=1e-15)
    assert reference.evaluate(network, parameters, X, Y) == (loss, 1)


def hand_network(**options):
    """Two ReLU units and a linear one; all numbers below are exact."""
    network = Network.build([1, 2, 1], loss="mean_squared_error", dtype="float64", **options)
    return network, parameters_of(network, [[1, 1], [-5, 1]], [[0.5, 2, 7]])


def test_a_relu_layer_by_hand():
    """For x = 2: hidden 3 and -3, so 3 and 0; output ½ + 6 = 6.5, target 4.5: loss ½ 2² = 2, delta 2. The first unit's
    delta is 2 · 2 = 4, the second is off."""
    network, parameters = hand_network()
    X, Y = np.array([[2.0]]), np.array([[4.5]])
    hidden, output = reference.feedforward(network, parameters, X)
    assert (hidden.tolist(), output.tolist()) == ([[3, 0]], [[6.5]])
    gradients, loss = reference.backpropagation(network, parameters, X, Y)
    assert loss == 2
    assert rows_of(network, gradients) == [[[4, 8], [0, 0]], [[2, 6, 0]]]


def test_the_mean_over_samples_by_hand():
    """A second sample x = 6: hidden 7 and 1, output ½ + 14 + 7 = 21.5, target 25.5: loss ½ 4² = 8, delta -4; the units'
    deltas are -8 and -28. All is halved, as there are two samples."""
    network, parameters = hand_network()
    X, Y = np.array([[2.0], [6.0]]), np.array([[4.5], [25.5]])
    gradients, loss = reference.backpropagation(network, parameters, X, Y)
    assert loss == (2 + 8) / 2
    first = [[(4 - 8) / 2, (8 - 48) / 2], [-28 / 2, -28 * 6 / 2]]
    assert rows_of(network, gradients) == [first, [[(2 - 4) / 2, (6 - 28) / 2, -4 / 2]]]


def test_the_penalty_by_hand():
    """λ/B w with λ = 3, B = 2, on the weights alone; the reported loss is without it."""
    X, Y = np.array([[2.0], [6.0]]), np.array([[4.5], [25.5]])
    plain, parameters = hand_network()
    network, _ = hand_network(l2=3.0)
    gradients, loss = reference.backpropagation(network, parameters, X, Y)
    without, same_loss = reference.backpropagation(plain, parameters, X, Y)
    assert loss == same_loss
    difference = rows_of(network, gradients - without)
    assert difference == [[[0, 1.5], [0, 1.5]], [[0, 3, 10.5]]]


def test_softmax_by_hand():
    """Logits ln 1, ln 2, ln 5 make 1/8, 2/8, 5/8; the label 1 costs ln 4; delta is (1/8, -6/8, 5/8)."""
    network = Network.build([1, 3], dtype="float64")
    parameters = parameters_of(network, np.log([[1, 1], [2, 1], [5, 1]]))
    X = np.array([[3.0]])
    labels, dense = np.array([1], np.int32), np.array([[0.0, 1, 0]])
    np.testing.assert_allclose(reference.predict(network, parameters, X), [[0.125, 0.25, 0.625]], rtol=1e-15)
    for Y in (labels, dense):
        gradients, loss = reference.backpropagation(network, parameters, X, Y)
        assert loss == pytest.approx(np.log(4), rel=1e-15)
        expected = [[0.125, 0.375], [-0.75, -2.25], [0.625, 1.875]]
        np.testing.assert_allclose(network.rows(gradients)[0], expected, rtol=1e-14)
        assert reference.evaluate(network, parameters, X, Y) == (loss, 0)


def test_the_sum_over_outputs_by_hand():
    """Two sigmoid outputs at z = 0 cost ln 2 each, whatever the target: 2 ln 2 a sample, not ln 2."""
    network = Network.build([1, 2], loss="binary_cross_entropy", dtype="float64")
    loss, _ = reference.evaluate(network, network.zeros(), np.zeros((3, 1)), np.array([[0.0, 1], [1, 1], [0.5, 0]]))
    assert loss == pytest.approx(2 * np.log(2), rel=1e-15)


def test_softmax_of_huge_logits_neither_overflows_nor_loses_the_loss():
    network = Network.build([1, 2], bias=False, dtype="float64")
    parameters = parameters_of(network, [[1000.0], [-1000.0]])
    loss, hits = reference.evaluate(network, parameters, np.ones((1, 1)), np.array([1], np.int32))
    assert (loss, hits) == (2000, 0)


def test_pixels_are_scaled_and_shifted():
    """255 · 2 + ½ and 0 · 2 + ½; not in uint8."""
    network = Network.build(
        [2, 1], loss="mean_squared_error", bias=False, dtype="float64", input_scale=2.0, input_shift=0.5
    )
    parameters = parameters_of(network, [[1.0, 1000.0]])
    X = np.array([[255, 0], [0, 255]], np.uint8)
    assert reference.predict(network, parameters, X).tolist() == [[1010.5], [510500.5]]


@pytest.mark.parametrize(
    ("outputs", "Y", "hits"),
    [
        ([[0.2], [0.6], [0.5]], [[0.0], [1.0], [1.0]], 2),  # one output: the side of ½, which itself counts as below
        ([[0.2], [0.6], [0.5]], [0, 0, 0], 2),
        ([[1, 2, 3], [3, 2, 1], [1, 3, 3]], [2, 1, 1], 2),  # several: the first of the largest
        ([[1, 2, 3], [3, 2, 1], [1, 3, 3]], [[0, 0, 1.0], [0.4, 0.3, 0.3], [0, 0, 1.0]], 2),
    ],
)
def test_hits_by_hand(outputs, Y, hits):
    """An identity network of one-hot inputs, whose outputs are what is given."""
    outputs = np.array(outputs, np.float64)
    n, n_out = outputs.shape
    network = Network.build([n, n_out], loss="mean_squared_error", bias=False, dtype="float64")
    parameters = parameters_of(network, outputs.T)
    Y = np.array(Y)
    Y = Y.astype(np.int32) if Y.ndim == 1 else Y
    assert reference.evaluate(network, parameters, np.eye(n), Y)[1] == hits


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize(
    ("outputs", "Y", "hits"),
    [
        ([[0.9, 0.2, 0.2]], [[1.0, 1.0, 1.0]], 0),  # one of three outputs that should all be on
        ([[0.9, 0.6, 0.7]], [[1.0, 1.0, 1.0]], 1),
        ([[0.6, 0.7, 0.1], [0.6, 0.4, 0.1]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], 1),  # the largest alone is not enough
        ([[0.1, 0.2, 0.3]], [[0.0, 0.0, 0.0]], 1),  # none on, though the largest is elsewhere than argmax's first
        ([[0.6, 0.7, 0.1], [0.6, 0.4, 0.1]], [1, 0], 2),  # labels: the largest output
    ],
)
def test_hits_of_sigmoid_outputs_by_hand(loss, outputs, Y, hits):
    """Rows are a yes or no for each output, all of which must be right; labels are classes."""
    logits = np.log(np.array(outputs) / (1 - np.array(outputs)))
    n, n_out = logits.shape
    network = Network.build([n, n_out], output="sigmoid", loss=loss, bias=False, dtype="float64")
    Y = np.array(Y)
    Y = Y.astype(np.int32) if Y.ndim == 1 else Y
    assert reference.evaluate(network, parameters_of(network, logits.T), np.eye(n), Y)[1] == hits


STEPS_BY_HAND = [
    # Gradients 2 then -1, η = ½. Plain: 1 - 1 = 0; 0 + ½.
    (Rule("plain", 0.5), [0.0, 0.5]),
    # μ = ½: v = 2, w = 0; v = 1 - 1 = 0, w = 0.
    (Rule("momentum", 0.5, momentum=0.5), [0.0, 0.0]),
    # v = 2, w = 1 - ½ (2 + 1) = -½; v = 0, w = -½ - ½ (-1 + 0) = 0.
    (Rule("nesterov", 0.5, momentum=0.5), [-0.5, 0.0]),
    # β₁ = β₂ = ½, ε = 1: m = 1, v = 2, corrected 2 and 4: w = 1 - ½ · 2 / (2 + 1) = ⅔.
    # m = 0, so nothing moves, whatever v is.
    (Rule("adam", 0.5, beta1=0.5, beta2=0.5, epsilon=1.0), [2 / 3, 2 / 3]),
]


@pytest.mark.parametrize(("rule", "expected"), STEPS_BY_HAND, ids=lambda x: getattr(x, "kind", None))
def test_rules_by_hand(rule, expected):
    network = Network.build([1, 1], loss="mean_squared_error", bias=False, dtype="float64")
    parameters, gradients, state = parameters_of(network, [[1.0]]), network.zeros(), network.state(rule)
    for step, (gradient, weight) in enumerate(zip((2.0, -1.0), expected, strict=True), 1):
        network.rows(gradients)[0][:] = gradient
        reference.update_weights(rule, parameters, gradients, state)
        assert network.rows(parameters)[0].item() == pytest.approx(weight, abs=1e-15)
        assert state.step[0] == step


def test_an_epoch_by_hand():
    """W = 0, η = 1, target 8, x = 1, 2, 4 in the order 2, 0, 1 with batches of two.

    First batch (x = 4 and 1): outputs 0, loss 32, gradient -(4 · 8 + 1 · 8)/2 = -20, w = 20. The ragged last (x = 2):
    output 40, loss ½ 32² = 512, gradient 2 · 32 = 64, w = -44.
    """
    network = Network.build([1, 1], loss="mean_squared_error", bias=False, dtype="float64")
    parameters, rule = network.zeros(), Rule("plain", 1.0)
    state = network.state(rule)
    X, Y = np.array([[1.0], [2.0], [4.0]]), np.full((3, 1), 8.0)
    losses = reference.train_epoch(network, rule, parameters, state, X, Y, np.array([2, 0, 1]), 2)
    assert losses.tolist() == [32, 512]
    assert losses.dtype == np.float64
    assert network.rows(parameters)[0].item() == -44
    assert state.step[0] == 2


def test_the_errors_of_batches_by_hand():
    """½ the mean over samples and outputs, whatever the loss: ½ against 1, 0 and ½, ½ is ½ (¼ + ¼ + 0 + 0) / 4."""
    network, rule = Network.build([1, 2], loss="binary_cross_entropy", dtype="float64"), Rule("plain", 0.0)
    Y, errors = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 1.0]]), np.full(2, np.nan)
    arrays = network.zeros(), network.state(rule), np.zeros((3, 1)), Y, np.arange(3)
    reference.train_epoch(network, rule, *arrays, 2, errors=errors)
    assert errors.tolist() == [0.0625, 0.125]


def test_a_linear_unit_learns_least_squares():
    rng = np.random.default_rng(4)
    network = Network.build([3, 2], loss="mean_squared_error", dtype="float64")
    X, Y, parameters, rule = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), network.zeros(), Rule("plain", 0.5)
    state = network.state(rule)
    for _ in range(300):
        reference.train_epoch(network, rule, parameters, state, X, Y, np.arange(40), 40)
    solution = np.linalg.lstsq(np.column_stack([np.ones(40), X]), Y, rcond=None)[0]
    np.testing.assert_allclose(network.rows(parameters)[0], solution.T, rtol=1e-10, atol=1e-12)


# -------------------------------------------------------------------------------------------- finite differences
def away_from_kinks(network: Network, distance: float, seed: int) -> Problem:
    """A problem whose pre-activations are that far from zero; moving a weight by h moves them by a few h at most."""
    for attempt in range(1000):
        problem = random_problem(network, 6, seed=1000 * seed + attempt)
        zs = reference.forward(network, problem.parameters, problem.X)[1][1:]
        if all(abs(z).min() > distance for z in zs):
            return problem
    raise AssertionError("no such problem")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_gradients_are_the_slopes_of_loss_and_penalty(hidden):
    """Central differences: with h = ∛eps, both h² and eps/h are 4e-11, times numbers of about 10 (losses up to 10,
    third derivatives) and some."""
    h, tolerance = 6e-6, 1e-8
    for i, ((output, loss), bias, l2) in enumerate(product(OUTPUT_LOSSES, (True, False), (0.0, 0.7))):
        network = Network.build((4, 5, 3, 2), hidden, output, loss, bias=bias, l2=l2, dtype="float64")
        problem = away_from_kinks(network, 50 * h, seed=i)
        gradients, _ = reference.backpropagation(*problem.arrays)

        def total(network=network, problem=problem):
            loss, _ = reference.evaluate(*problem.arrays)
            weights = [rows[:, int(network.bias) :] for rows in network.rows(problem.parameters)]
            return loss + network.l2 / (2 * 6) * sum((w**2).sum() for w in weights)

        for layer, (rows, expected) in enumerate(
            zip(network.rows(problem.parameters), network.rows(gradients), strict=True)
        ):
            for place in np.ndindex(rows.shape):
                kept = rows[place]
                rows[place] = kept + h
                above = total()
                rows[place] = kept - h
                below = total()
                rows[place] = kept
                assert_close(expected[place], (above - below) / (2 * h), tolerance, f"{network} layer {layer} {place}")


# -------------------------------------------------------------------------------------------------------- PyTorch
def assert_like_pytorch(problem: Problem, what: str) -> None:
    """Activations, loss and gradients within rounding of PyTorch's."""
    network, bounds, twin = problem.network, rounding(problem), Twin(problem.network, problem.parameters)
    values = reference.feedforward(network, problem.parameters, problem.X)
    expected, _ = twin.activations(problem.X)
    for layer, (a, b, tolerance) in enumerate(zip(values, expected, bounds.activations, strict=True)):
        assert a.dtype == network.dtype, what
        assert_close(a, b.detach().numpy(), tolerance, f"activations {layer} of {what}")
    gradients, loss = reference.backpropagation(*problem.arrays)
    assert_close(loss, twin.backward(problem.X, problem.Y), bounds.loss, f"loss of {what}")
    assert gradients.dtype == network.dtype, what
    for layer, (a, b, tolerance) in enumerate(
        zip(network.rows(gradients), network.rows(twin.flat(gradients=True)), bounds.gradients, strict=True)
    ):
        assert_close(a, b, tolerance, f"gradients {layer} of {what}")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_gradients_are_autograds(hidden):
    for what, problem in option_product(hidden):
        assert_like_pytorch(problem, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mean_squared_error"])
def test_gradients_of_the_labs_network_are_autograds(loss, dtype):
    network = Network.build((784, 100, 10), loss=loss, dtype=dtype, input_scale=1 / 255, input_shift=-0.5)
    assert_like_pytorch(random_problem(network, 5, inputs="uint8"), str(network))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_twenty_steps_are_torch_optims(hidden):
    """The product of output and loss, bias and rule; shapes, dtypes and penalties in turn."""
    for i, ((output, loss), bias, rule) in enumerate(product(OUTPUT_LOSSES, (True, False), RULES)):
        dtype, l2 = DTYPES[i // 4 % 2], (0.0, 0.2)[i // 3 % 2]
        network = Network.build(SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, l2=l2, dtype=dtype)
        problem, tolerances = course(random_problem(network, 6, seed=i), rule, [np.arange(6)] * 20, 6)
        parameters, state = copied(problem.parameters), network.state(rule)
        twin = Twin(network, parameters, rule)
        for step in range(1, 21):
            losses = reference.train_epoch(network, rule, parameters, state, problem.X, problem.Y, np.arange(6), 6)
            expected = twin.step(problem.X, problem.Y)
            what = f"{network} {rule} step {step}"
            assert_close(losses[0], expected, tolerances.losses, f"loss of {what}")
            if step in (1, 2, 20):
                assert_close(parameters, twin.flat(), tolerances.parameters, f"parameters of {what}")
        assert state.step[0] == 20


def test_an_epoch_of_batches_is_torch_optims():
    """Batches in a given order, the last one short."""
    network = Network.build((9, 6, 4), "tanh", dtype="float64")
    for rule, batch_size in product(RULES, (1, 4, 11, 30)):
        order = np.random.default_rng(5).permutation(11)
        problem, tolerances = course(random_problem(network, 11, labels=True), rule, [order], batch_size)
        ours, twin = run_course(reference, problem, rule, [order], batch_size), Twin(network, problem.parameters, rule)
        batches = [order[start : start + batch_size] for start in range(0, 11, batch_size)]
        expected, what = [twin.step(problem.X[batch], problem.Y[batch]) for batch in batches], f"{rule} {batch_size}"
        assert_close(ours.losses, expected, tolerances.losses, f"losses of {what}")
        assert_close(ours.parameters, twin.flat(), tolerances.parameters, f"parameters of {what}")


def test_the_dtype_is_kept():
    """Nothing is computed in float64 on the way: float32 differs from float64 by more than float64's rounding."""
    network = Network.build((7, 5, 3))
    problem = random_problem(network, 4)
    narrow, _ = reference.backpropagation(*problem.arrays)
    wide = problem.in_dtype("float64")
    exact, _ = reference.backpropagation(*wide.arrays)
    difference = max(abs(a - b).max() for a, b in zip(network.rows(narrow), wide.network.rows(exact), strict=True))
    assert 1e-9 < difference < 1e-6
    assert narrow.dtype == np.float32


def test_an_order_may_repeat_and_leave_out():
    network = Network.build((5, 4, 3), dtype="float64")
    problem, rule = random_problem(network, 6), Rule("plain", 0.1)
    order = np.array([3, 3, 0, 3])
    parameters, again = copied(problem.parameters), copied(problem.parameters)
    losses = reference.train_epoch(network, rule, parameters, network.state(rule), problem.X, problem.Y, order, 3)
    taken = replace(problem, X=problem.X[order], Y=problem.Y[order])
    expected = reference.train_epoch(network, rule, again, network.state(rule), taken.X, taken.Y, np.arange(4), 3)
    np.testing.assert_array_equal(losses, expected)
    np.testing.assert_array_equal(parameters, again)
