# ruff: noqa: NPY002 (the lab draws from NumPy's global generator)
"""The lab's class, against formulas and a plain NumPy program written here from the lab's description alone."""

from itertools import pairwise

import numpy as np
import pytest
from problems import Problem, rounding
from sklearn.datasets import load_digits

from fastmlp import Mlp


def sigmoid(z):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def lab_weights(sizes):
    """The lab's formula, from NumPy's global generator."""
    weights = []
    for current, following in pairwise(sizes):
        epsilon = 4 * np.sqrt(6) / np.sqrt(current + following)
        weights.append(epsilon * (2 * np.random.rand(following, current + 1) - 1))
    return weights


def ones_and(values):
    return np.column_stack([np.ones(len(values)), values])


def plain_feedforward(weights, X):
    A, Z = [ones_and(X)], [None]
    for w in weights:
        Z.append(A[-1] @ w.T)
        A.append(ones_and(sigmoid(Z[-1])))
    A[-1] = A[-1][:, 1:]
    return A, Z


def plain_gradients(weights, X, Y):
    A, Z = plain_feedforward(weights, X)
    delta = A[-1] - Y
    gradients = [delta.T @ A[-2] / len(X)]
    for layer in range(len(weights) - 1, 0, -1):
        s = sigmoid(Z[layer])
        delta = (delta @ weights[layer][:, 1:]) * s * (1 - s)
        gradients.insert(0, delta.T @ A[layer - 1] / len(X))
    return gradients


def plain_train(weights, X, Y, iterations):
    for _ in range(iterations):
        weights = [w - g for w, g in zip(weights, plain_gradients(weights, X, Y), strict=True)]
    return weights


def problem(dtype, n=60, n_in=30, n_out=4, seed=8, levels=256):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, levels, (n, n_in)).astype(np.uint8)
    if dtype != np.uint8:
        X = (X / 255 - 0.5).astype(dtype)
    return X, np.eye(n_out)[rng.integers(0, n_out, n)]


@pytest.mark.parametrize("sizes", [[784, 100, 10], [3, 1], [6, 5, 4, 3]])
def test_the_same_seed_gives_the_same_weights_to_the_last_bit(sizes):
    np.random.seed(123)
    expected = lab_weights(sizes)
    following = np.random.rand()
    np.random.seed(123)
    mlp = Mlp(sizes, backend="numpy")
    assert np.random.rand() == following  # nothing more was drawn
    assert len(mlp.weights) == len(expected)
    for weights, value in zip(mlp.weights, expected, strict=True):
        assert weights.dtype == np.float64
        assert np.array_equal(weights, value)


def test_initialize_weights_goes_on_with_the_global_generator():
    np.random.seed(123)
    lab_weights([4, 3, 2])
    second = lab_weights([4, 3, 2])
    np.random.seed(123)
    mlp = Mlp([4, 3, 2], backend="numpy")
    returned = mlp.initialize_weights()
    assert all(map(np.array_equal, returned, second))
    assert all(map(np.array_equal, mlp.weights, second))


def test_a_seed_of_its_own_draws_the_same_and_leaves_the_global_generator_alone():
    np.random.seed(123)
    expected = lab_weights([4, 3, 2])
    np.random.seed(5)
    mlp = Mlp([4, 3, 2], seed=123, backend="numpy")
    following = np.random.rand()
    np.random.seed(5)
    assert following == np.random.rand()
    assert all(map(np.array_equal, mlp.weights, expected))


def test_lab_defaults():
    network = Mlp([784, 100, 10], backend="numpy").network
    assert network.activations == ("sigmoid", "sigmoid")
    assert (network.loss, network.dtype, network.bias, network.l2) == ("binary_cross_entropy", "float64", True, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_feedforward(dtype):
    X, _ = problem(dtype)
    mlp = Mlp([30, 20, 4], seed=1, backend="numpy")
    expected_a, expected_z = plain_feedforward([w / 20 for w in mlp.weights], X.astype(float))
    mlp.weights = [w / 20 for w in mlp.weights]
    A, Z = mlp.feedforward(X)
    assert [a.shape for a in A] == [(60, 31), (60, 21), (60, 4)]
    assert Z[0] is None
    for got, expected in [*zip(A, expected_a, strict=True), *zip(Z[1:], expected_z[1:], strict=True)]:
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


def test_predict_is_the_last_of_feedforward(backend):
    X, _ = problem(np.uint8)
    mlp = Mlp([30, 20, 4], seed=1, backend=backend)
    np.testing.assert_allclose(mlp.predict(X), mlp.feedforward(X)[0][-1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_backpropagation(backend, dtype):
    X, Y = problem(dtype)
    mlp = Mlp([30, 20, 12, 4], seed=1, backend=backend)
    mlp.weights = [w / 10 for w in mlp.weights]
    expected = plain_gradients([w.copy() for w in mlp.weights], X.astype(float), Y)
    gradients = mlp.backpropagation(X, Y)
    assert isinstance(gradients, list)
    for got, value, weights in zip(gradients, expected, mlp.weights, strict=True):
        assert got.shape == weights.shape
        np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-11)


def binary_cross_entropy(mlp, X, Y):
    p = mlp.predict(X)
    return -np.mean(np.sum(Y * np.log(p) + (1 - Y) * np.log(1 - p), axis=1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reg_lambda", [0.0, 3.0])
def test_gradients_are_the_slopes_of_the_loss(backend, bias, reg_lambda):
    X, Y = problem(np.float64)
    mlp = Mlp([30, 6, 4], seed=1, backend=backend, bias=bias, reg_lambda=reg_lambda)
    first = int(bias)

    def objective():
        penalty = reg_lambda / (2 * len(X)) * sum((w[:, first:] ** 2).sum() for w in mlp.weights)
        return binary_cross_entropy(mlp, X, Y) + penalty

    gradients = mlp.backpropagation(X, Y)
    h = 1e-6
    for layer, row, column in [(0, 0, 0), (0, 3, 17), (0, 5, 29), (1, 0, 0), (1, 3, 2), (1, 2, 5)]:
        weights = mlp.weights[layer]
        weights[row, column] += h
        above = objective()
        weights[row, column] -= 2 * h
        below = objective()
        weights[row, column] += h
        assert gradients[layer][row, column] == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("sizes", [[30, 20, 4], [30, 4], [30, 15, 10, 4]])
def test_60_iterations_agree_with_the_plain_program(backend, dtype, sizes):
    X, Y = problem(dtype, levels=2 if dtype == np.uint8 else 256)
    np.random.seed(123)
    mlp = Mlp(sizes, backend=backend)
    expected = plain_train([w.copy() for w in mlp.weights], X.astype(float), Y, 60)
    assert mlp.train(X, Y, 60) is None
    for got, value in zip(mlp.weights, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)


def test_iterations_on_raw_pixels_agree_with_the_plain_program(backend):
    """The lab's own job, smaller: raw pixels, which saturate most units.

    With inputs so large a step of size 1 is chaotic: rounding errors grow tenfold to a hundredfold an iteration, and
    the plain program with its pixels in another order is a stranger to itself after ten; of 40 orders one labels 40 %
    right after 100, another 82 %. So the first iterations are compared from the start, and each of all from where it
    begins: within the rounding of one step, as an analysis of its errors has it.
    """
    digits = load_digits()
    X, Y = (digits.data[:500] * 15).astype(np.uint8), np.eye(10)[digits.target[:500]]
    np.random.seed(123)
    mlp = Mlp([64, 50, 10], backend=backend)
    expected, before = [w.copy() for w in mlp.weights], mlp.score(X, Y)
    for iteration in range(100):
        start = [w.copy() for w in mlp.weights]
        gradients = rounding(Problem(mlp.network, mlp.parameters.copy(), X, Y)).gradients
        mlp.train(X, Y, 1)
        step = plain_train(start, X.astype(float), Y, 1)
        for got, value, old, gradient in zip(mlp.weights, step, start, gradients, strict=True):
            difference = 2 * np.finfo(float).eps * (abs(old) + abs(value))
            assert (abs(got - value) <= gradient + difference).all(), f"iteration {iteration}"
        if iteration < 3:
            expected = plain_train(expected, X.astype(float), Y, 1)
            for got, value in zip(mlp.weights, expected, strict=True):
                np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9)
    accuracy = np.mean(plain_feedforward(mlp.weights, X)[0][-1].argmax(1) == digits.target[:500])
    assert mlp.score(X, Y) == pytest.approx(accuracy, abs=0.01)  # saturated outputs are level but for their last bit
    assert accuracy > 3 * before


def test_train_goes_on_from_the_present_weights(backend):
    X, Y = problem(np.uint8)
    at_once, in_parts = (Mlp([30, 20, 4], seed=123, backend=backend) for _ in range(2))
    at_once.train(X, Y, iterations=12)
    for part in (1, 0, 4, 7):
        in_parts.train(X, Y, iterations=part)
    np.testing.assert_allclose(at_once.parameters, in_parts.parameters, rtol=1e-12, atol=1e-13)


def test_train_splits_long_runs(backend, monkeypatch):
    X, Y = problem(np.float64)
    expected, mlp = (Mlp([30, 4], seed=1, backend=backend) for _ in range(2))
    expected.train(X, Y, 11)
    monkeypatch.setattr("fastmlp.mlp.LONGEST_ORDER", 3 * len(X) + 1)
    calls = []
    steps = mlp._steps
    monkeypatch.setattr(mlp, "_steps", lambda *a: calls.append(len(a[3])) or steps(*a))
    mlp.train(X, Y, 11)
    assert calls == [180, 180, 180, 60, 60]  # the last step by itself, for its gradients
    np.testing.assert_allclose(mlp.parameters, expected.parameters, rtol=1e-12, atol=1e-13)


def test_train_defaults_to_100_iterations(backend):
    X, Y = problem(np.float64)
    a, b = (Mlp([30, 4], seed=1, backend=backend) for _ in range(2))
    a.train(X, Y)
    b.train(X, Y, iterations=100)
    assert np.array_equal(a.parameters, b.parameters)


@pytest.mark.parametrize(("iterations", "error"), [(-1, ValueError), (2.5, TypeError), ("3", TypeError)])
def test_train_refuses_other_iterations(iterations, error):
    X, Y = problem(np.float64)
    with pytest.raises(error, match="iterations="):
        Mlp([30, 4], backend="numpy").train(X, Y, iterations)


def test_weights_are_live(backend):
    X, _ = problem(np.float64)
    mlp = Mlp([30, 20, 4], seed=1, backend=backend)
    before = mlp.predict(X)
    mlp.weights[0][...] = 0
    mlp.weights[1][:] = 0
    np.testing.assert_array_equal(mlp.predict(X), 0.5)
    assert not (before == 0.5).all()
    mlp.weights[1][:, 0] = 2.0  # the biases
    np.testing.assert_allclose(mlp.predict(X), sigmoid(2.0), rtol=1e-12)


def test_weights_can_be_assigned_one_by_one():
    mlp = Mlp([3, 2, 1], seed=1, backend="numpy")
    new = np.arange(8.0).reshape(2, 4)
    mlp.weights[0] = new
    mlp.weights[1] -= mlp.weights[1]
    new[:] = -1  # it was copied
    assert np.array_equal(mlp.network.rows(mlp.parameters)[0], np.arange(8.0).reshape(2, 4))
    assert not mlp.network.rows(mlp.parameters)[1].any()
    mlp.weights[0] = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"weights\[0\] has shape \[4, 2\]; expected \[2, 4\]"):
        mlp.predict([[1, 2, 3]])
    mlp.weights[:] = [new, [[0, 1, 1]]]
    assert mlp.weights[0].tolist() == new.tolist()
    assert mlp.weights[1].tolist() == [[0, 1, 1]]


def test_weights_are_assigned_all_or_none():
    mlp = Mlp([3, 2, 1], seed=1, backend="numpy")
    held, before = mlp.parameters, mlp.parameters.copy()
    first = np.zeros((2, 4))
    for wrong, message in [
        ([first], "1 entries; expected 2"),
        ([first, np.zeros((3, 1))], r"weights\[1\] has shape \[3, 1\]; expected \[1, 3\]"),
    ]:
        mlp.weights = wrong  # it may be about to be completed
        with pytest.raises(ValueError, match=message):
            mlp.predict([[1, 2, 3]])
        assert np.array_equal(held, before)
    mlp.weights = [first, [[1, 2, 3]]]
    assert mlp.weights[1].tolist() == [[1, 2, 3]]
    for wrong, message in [
        ([first, [[1, np.nan, 2]]], r"weights\[1\] holds nan at \[0, 1\]"),
        ([first, [["a", "b", "c"]]], r"weights\[1\] is .*<U1"),
    ]:
        with pytest.raises(ValueError, match=message):
            mlp.weights = wrong
        with pytest.raises(ValueError, match=message):
            mlp.weights[1] = wrong[1]
        assert mlp.weights[1].tolist() == [[1, 2, 3]]


def test_unroll_and_roll_are_column_major():
    mlp = Mlp([2, 2, 1], backend="numpy")
    weights = [np.array([[1, 2, 3], [4, 5, 6]]), np.array([[7, 8, 9]])]
    vector = mlp.unroll_weights(weights)
    assert vector.tolist() == [1, 4, 2, 5, 3, 6, 7, 8, 9]
    assert [w.tolist() for w in mlp.roll_weights(vector)] == [w.tolist() for w in weights]
    mlp.weights = mlp.roll_weights(mlp.unroll_weights(mlp.weights) * 2)


def test_roll_refuses_another_length():
    with pytest.raises(ValueError, match=r"unrolled_data has shape \[8\]; expected \[9\]"):
        Mlp([2, 2, 1], backend="numpy").roll_weights(np.zeros(8))
    with pytest.raises(ValueError, match="rolled_data has 1 entries"):
        Mlp([2, 2, 1], backend="numpy").unroll_weights([np.zeros((2, 3))])


def test_sigmoid_and_its_derivative():
    mlp = Mlp([2, 1], backend="numpy")
    z = np.array([-1000.0, -2.0, 0.0, 3.0, 1000.0])
    s = sigmoid(z)
    np.testing.assert_allclose(mlp.sigmoid(z), s, rtol=1e-15)
    np.testing.assert_allclose(mlp.sigmoid_derivative(z), s * (1 - s), rtol=1e-15)
    assert mlp.sigmoid(0) == 0.5
    assert mlp.sigmoid_derivative([0, 0]).tolist() == [0.25, 0.25]
    assert mlp.sigmoid(np.float32([1])).dtype == np.float32


@pytest.mark.parametrize("option", [{"bias": False}, {"bias_flag": False}])
def test_without_bias(backend, option):
    np.random.seed(123)
    epsilon = 4 * np.sqrt(6) / np.sqrt(30 + 4)
    expected = epsilon * (2 * np.random.rand(4, 30) - 1)
    np.random.seed(123)
    mlp = Mlp([30, 4], backend=backend, **option)
    assert mlp.weights[0].shape == (4, 30)
    assert np.array_equal(mlp.weights[0], expected)
    X, Y = problem(np.float64)
    np.testing.assert_allclose(mlp.predict(X), sigmoid(X @ expected.T), rtol=1e-12)
    A, _ = mlp.feedforward(X)
    assert [a.shape for a in A] == [(60, 30), (60, 4)]
    gradient = (sigmoid(X @ expected.T) - Y).T @ X / len(X)
    np.testing.assert_allclose(mlp.backpropagation(X, Y)[0], gradient, rtol=1e-10, atol=1e-13)


def test_reg_lambda_shrinks_weights_and_spares_the_bias(backend):
    X, Y = problem(np.float64)
    plain, penalised = (Mlp([30, 4], seed=1, backend=backend, reg_lambda=r) for r in (0.0, 6.0))
    difference = penalised.backpropagation(X, Y)[0] - plain.backpropagation(X, Y)[0]
    np.testing.assert_allclose(difference[:, 1:], 6.0 / len(X) * plain.weights[0][:, 1:], rtol=1e-9)
    np.testing.assert_allclose(difference[:, 0], 0, atol=1e-15)


def test_the_lab_class_learns_two_classes_by_fit_as_well(backend):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(3, 1, (50, 2)), rng.normal(-1, 1, (50, 2))])
    y = np.repeat([1, 0], 50)
    mlp = Mlp([2, 1], seed=1, backend=backend)
    mlp.train(X, y, 300)
    assert mlp.score(X, y) > 0.95
