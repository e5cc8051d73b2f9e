# ruff: noqa: NPY002 (the lab draws from NumPy's global generator)
"""The lab's class as students use it: its attributes, weights as a list, and methods that they override."""

import copy
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
from test_lab_mlp import ones_and, plain_gradients, plain_train

from fastmlp import Mlp, Sgd

SIZES = [6, 5, 4, 3]


def problem(n=20):
    rng = np.random.default_rng(2)
    return rng.normal(size=(n, 6)), np.eye(3)[rng.integers(0, 3, n)]


# ---- what train leaves ----


@pytest.mark.parametrize("iterations", [1, 2, 7])
@pytest.mark.parametrize("pixels", [False, True])
def test_train_leaves_the_last_step(backend, iterations, pixels):
    """Sparse pixels in small batches as well, whose training has ways of its own."""
    X, Y = problem()
    if pixels:
        X = (np.random.default_rng(0).random((20, 6)) < 0.2).astype(np.uint8) * 3
    mlp = Mlp(SIZES, seed=1, backend=backend)
    assert (mlp.gradients, mlp.gradients_vector, mlp.weight_vector) == (None, None, None)
    before = plain_train([w.copy() for w in mlp.weights], X.astype(float), Y, iterations - 1)
    expected = plain_gradients(before, X.astype(float), Y)
    mlp.train(X, Y, iterations=iterations)
    assert isinstance(mlp.gradients, list)
    for got, gradient, weights, w in zip(mlp.gradients, expected, mlp.weights, before, strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(weights, w - got, rtol=1e-9, atol=1e-12)
    assert np.array_equal(mlp.gradients_vector, mlp.unroll_weights(rolled_data=mlp.gradients))
    assert np.array_equal(mlp.weight_vector, mlp.unroll_weights(mlp.weights))
    assert all(map(np.array_equal, mlp.roll_weights(unrolled_data=mlp.weight_vector), mlp.weights))


def test_gradients_are_exact_where_they_are_tiny(backend):
    """A difference of weights would lose them."""
    X, nothing = problem()[0], np.zeros((20, 3))
    mlp = Mlp(SIZES, seed=1, backend=backend)
    mlp.weights[-1][:, 0] -= 60  # the output is saturated, and right
    expected = mlp.backpropagation(X, nothing)
    mlp.train(X, nothing, 1)
    assert 0 < abs(expected[0]).max() < 1e-20
    for got, gradient in zip(mlp.gradients, expected, strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-9)


def test_the_last_step_has_the_penalty_and_no_bias(backend):
    X, Y = problem()
    mlp = Mlp(SIZES, seed=1, backend=backend, reg_lambda=3.0, bias=False)
    expected = mlp.backpropagation(X, Y)
    mlp.train(X, Y, 1)
    for got, gradient in zip(mlp.gradients, expected, strict=True):
        np.testing.assert_allclose(got, gradient, rtol=1e-10, atol=1e-15)


def test_errors_are_noted_whatever_the_cut(backend):
    X, Y = problem()
    at_once, one_by_one = (Mlp(SIZES, seed=1, backend=backend) for _ in range(2))
    several: list[float] = []
    at_once.train(X, Y, 5, errors=several)
    errors: list[float] = []
    for _ in range(5):
        one_by_one.train(X, Y, 1, errors=errors)
    assert several == pytest.approx(errors, rel=1e-10)
    assert errors[-1] == pytest.approx(np.mean((one_by_one.predict(X) - Y) ** 2) / 2, rel=1e-12)


def test_what_forgets_the_last_step(backend):
    X, Y = problem()
    mlp = Mlp([6, 3], output="identity", seed=1, backend=backend)
    mlp.train(X, Y, 2)
    kept = mlp.gradients_vector
    mlp.train(X, Y, 0)
    assert np.array_equal(mlp.gradients_vector, kept)
    with pytest.warns(RuntimeWarning, match="training stopped"):
        mlp.train(1e10 * X, Y, 50)
    assert mlp.gradients is None
    mlp.initialize_weights()
    mlp.train(X, Y, 1)
    assert mlp.gradients is not None
    mlp.initialize_weights()
    assert mlp.weight_vector is None


# ---- weights as a list ----


class AsInTheLab(Mlp):
    """The lab's way to make the weights."""

    def initialize_weights(self):
        self.weights = []
        sizes = self.size_layers.copy()
        sizes.pop(0)
        for size, following in zip(self.size_layers, sizes, strict=False):
            epsilon = 4 * np.sqrt(6) / np.sqrt(size + following)
            self.weights.append(epsilon * (2 * np.random.rand(following, size + 1) - 1))
        return self.weights


class KeepsTheListAtHand(Mlp):
    def initialize_weights(self):
        weights = self.weights = []
        for size, following in zip(self.size_layers, self.size_layers[1:], strict=False):
            weights.append(np.random.rand(following, size + 1))
        return weights


class ReturnsThem(Mlp):
    def initialize_weights(self):
        return [np.random.rand(following, size + 1) for size, following in pairwise(SIZES)]


class Scales(Mlp):
    def initialize_weights(self):
        super().initialize_weights()
        for weights in self.weights:
            weights *= 0.5
        return self.weights


@pytest.mark.parametrize("kind", [AsInTheLab, KeepsTheListAtHand, ReturnsThem, Scales])
def test_a_subclass_makes_its_own_weights_and_keeps_the_kernels(backend, kind):
    np.random.seed(5)
    drawn = np.random.rand(5, 7)
    factor = {AsInTheLab: 4 * np.sqrt(6) / np.sqrt(11), Scales: 2 * np.sqrt(6) / np.sqrt(11)}.get(kind)
    first = drawn if factor is None else factor * (2 * drawn - 1)
    np.random.seed(5)
    mlp = kind(SIZES, backend=backend)
    np.testing.assert_allclose(mlp.weights[0], first, rtol=1e-15)
    X, Y = problem()
    expected = plain_train([w.copy() for w in mlp.weights], X, Y, 3)
    mlp.train(X, Y, 3)  # warns of nothing
    for got, weights in zip(mlp.weights, expected, strict=True):
        np.testing.assert_allclose(got, weights, rtol=1e-9, atol=1e-12)


def test_the_lab_s_way_draws_what_the_class_draws():
    np.random.seed(5)
    expected = Mlp(SIZES, backend="numpy")
    np.random.seed(5)
    assert np.array_equal(AsInTheLab(SIZES, backend="numpy").parameters, expected.parameters)


CHANGES = {
    "append": lambda w: w.append(np.zeros((3, 5))),
    "pop": lambda w: w.pop(),
    "pop first": lambda w: w.pop(0),
    "insert": lambda w: w.insert(0, np.zeros((5, 7))),
    "remove": lambda w: w.remove(w[0]),
    "reverse": lambda w: w.reverse(),
    "clear": lambda w: w.clear(),
    "extend": lambda w: w.extend([np.zeros((3, 5))]),
    "del": lambda w: w.__delitem__(slice(1, None)),
    "slice": lambda w: w.__setitem__(slice(0, 2), []),
    "times": lambda w: w.__imul__(2),
    "sort": lambda w: w.sort(key=lambda m: m.size),
    "shape": lambda w: w.__setitem__(1, np.zeros((4, 4))),
    "nan": lambda w: w.__setitem__(slice(1, 2), [np.full((4, 6), np.nan)]),
    "ragged": lambda w: w.__setitem__(1, [[1, 2], [3]]),
    "text": lambda w: w.__setitem__(1, "abc"),
    "none": lambda w: w.__setitem__(1, None),
}

USES = {
    "predict": lambda mlp, X, Y: mlp.predict(X),
    "feedforward": lambda mlp, X, Y: mlp.feedforward(X),
    "backpropagation": lambda mlp, X, Y: mlp.backpropagation(X, Y),
    "train": lambda mlp, X, Y: mlp.train(X, Y, 2),
    "fit": lambda mlp, X, Y: mlp.fit(X, Y, epochs=1, progress=False),
    "evaluate": lambda mlp, X, Y: mlp.evaluate(X, Y),
    "classify": lambda mlp, X, Y: mlp.classify(X),
    "parameters": lambda mlp, X, Y: mlp.parameters,
    "pickle": lambda mlp, X, Y: pickle.dumps(mlp),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_list_that_does_not_fit_is_refused_when_it_is_used(backend, change, tmp_path):
    X, Y = problem()
    mlp = Mlp(SIZES, seed=1, backend=backend)
    weights, expected, held = [w.copy() for w in mlp.weights], mlp.predict(X), mlp.parameters
    CHANGES[change](mlp.weights)
    for use in [*USES.values(), lambda mlp, X, Y: mlp.save(tmp_path / "model")]:
        with pytest.raises(ValueError, match=r"^weights(\[\d\])? (has|is|holds) .*; expected"):
            use(mlp, X, Y)
    mlp.weights = weights
    assert np.array_equal(mlp.predict(X), expected)
    assert np.array_equal(held, mlp.parameters)


def test_the_refusal_says_what_is_expected():
    mlp = Mlp([4, 3, 2], backend="numpy")
    mlp.weights = [np.zeros((3, 5))]
    with pytest.raises(ValueError, match=r"weights has 1 entries; expected 2, one a layer: \[3, 5\], \[2, 4\]"):
        mlp.predict(np.zeros((1, 4)))
    with pytest.raises(TypeError, match="weights is a int; expected a list of matrices"):
        mlp.weights = 5


def test_a_list_that_fits_again_is_taken(backend):
    X, Y = problem()
    mlp, other = (Mlp([6, 6, 6, 3], seed=seed, backend=backend) for seed in (1, 2))
    w = mlp.weights
    w.append(w.pop())
    w.reverse()
    w.reverse()
    w[0], w[1] = w[1], w[0]  # of one shape: exchanged
    plain = Mlp([6, 6, 6, 3], seed=1, backend=backend)
    plain.weights = [plain.weights[1], plain.weights[0], plain.weights[2]]
    assert np.array_equal(mlp.predict(X), plain.predict(X))
    w[:2] = [w[0] * 2, w[1].tolist()]
    w += []
    mlp.weights += []
    plain.weights[0] *= 2
    mlp.train(X, Y, 2)
    plain.train(X, Y, 2)
    assert np.array_equal(mlp.predict(X), plain.predict(X))
    mlp.weights = other.weights
    mlp.weights[0][...] = 0
    assert other.weights[0].any()
    assert w is mlp.weights
    w[0][:, 0] = 3  # kept references are live
    assert (mlp.parameters[: len(mlp.parameters) // 2] == 3).sum() >= 6


def test_an_array_that_was_assigned_stays_its_owner_s():
    mlp = Mlp([2, 2, 2], backend="numpy")
    buffer = np.ones((2, 3))
    mlp.weights[0] = buffer
    buffer[:] = 2
    mlp.weights[1] = buffer
    buffer[:] = 3
    assert (mlp.weights[0] == 1).all()
    assert (mlp.weights[1] == 2).all()
    mlp.predict([[1, 2]])
    assert (buffer == 3).all()


# ---- overriding ----


def gaussian(z):
    return np.exp(-(z**2))


def gaussian_slope(z):
    return -2 * z * np.exp(-(z**2))


class Both(Mlp):
    def sigmoid(self, z):
        return gaussian(z)

    def sigmoid_derivative(self, z):
        return gaussian_slope(z)


class Static(Mlp):
    @staticmethod
    def sigmoid(z):
        return gaussian(z)

    @staticmethod
    def sigmoid_derivative(z):
        return gaussian_slope(z)


class ShortForms(Mlp):
    sigmoid = lambda z: gaussian(z)  # noqa: E731 (without self)
    sigmoid_derivative = lambda z: gaussian_slope(z)  # noqa: E731


def instance(sizes, **options):
    mlp = Mlp(sizes, **options)
    mlp.sigmoid, mlp.sigmoid_derivative = gaussian, gaussian_slope
    return mlp


def plain(mlp, X, Y, sigmoid, slope):
    """Outputs and gradients of the lab's program with another activation."""
    A, Z = [ones_and(X)], [None]
    for w in mlp.weights:
        Z.append(A[-1] @ w.T)
        A.append(ones_and(sigmoid(Z[-1])))
    A[-1] = A[-1][:, 1:]
    delta, gradients = A[-1] - Y, []
    for layer in reversed(range(len(mlp.weights))):
        gradients.insert(0, delta.T @ A[layer] / len(X))
        if layer:
            delta = (delta @ mlp.weights[layer][:, 1:]) * slope(Z[layer])
    return A[-1], gradients


def check(mlp, sigmoid, slope):
    X, Y = problem()
    outputs, gradients = plain(mlp, X, Y, sigmoid, slope)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        np.testing.assert_allclose(mlp.predict(X), outputs, rtol=1e-12)
        np.testing.assert_allclose(mlp.feedforward(X)[0][-1], outputs, rtol=1e-12)
        for got, expected in zip(mlp.backpropagation(X, Y), gradients, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-13)
        assert mlp.score(X, Y) == np.mean(outputs.argmax(1) == Y.argmax(1))
        assert mlp.evaluate(X, Y).accuracy == mlp.score(X, Y)
        errors: list[float] = []
        expected = [w.copy() for w in mlp.weights]
        for _ in range(3):
            last = plain(mlp, X, Y, sigmoid, slope)[1]
            expected = [w - g for w, g in zip(expected, last, strict=True)]
            mlp.train(X, Y, 1, errors=errors)
            for got, weights, gradient, value in zip(mlp.weights, expected, mlp.gradients, last, strict=True):
                np.testing.assert_allclose(got, weights, rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(gradient, value, rtol=1e-9, atol=1e-12)
        outputs, gradients = plain(mlp, X, Y, sigmoid, slope)
        assert errors[-1] == pytest.approx(np.mean((outputs - Y) ** 2) / 2)
        before = [w.copy() for w in mlp.weights]
        mlp.fit(X, Y, epochs=1, batch_size=None, optimizer=Sgd(0.5), shuffle=False, progress=False)
        for got, weights, gradient in zip(mlp.weights, before, gradients, strict=True):
            np.testing.assert_allclose(got, weights - 0.5 * gradient, rtol=1e-9, atol=1e-12)
    assert [(warning.category, "the slow way" in str(warning.message)) for warning in told] == [(RuntimeWarning, True)]


@pytest.mark.parametrize("make", [Both, Static, ShortForms, instance])
@pytest.mark.parametrize("options", [{}, {"activation": "tanh"}, {"output": "softmax"}], ids=str)
def test_an_own_sigmoid_is_that_of_every_layer(backend, make, options):
    check(make(SIZES, seed=1, backend=backend, **options), gaussian, gaussian_slope)


def test_a_class_that_is_changed_afterwards(backend, monkeypatch):
    mlp = Mlp(SIZES, seed=1, backend=backend)
    mlp.predict(problem()[0])
    monkeypatch.setattr(Mlp, "sigmoid", gaussian)
    monkeypatch.setattr(Mlp, "sigmoid_derivative", lambda self, z: gaussian_slope(z))
    check(mlp, gaussian, gaussian_slope)
    monkeypatch.undo()
    assert np.array_equal(mlp.predict(problem()[0]), mlp.predict(problem()[0]))


def test_a_sigmoid_alone_has_the_lab_s_derivative(backend):
    class Steep(Mlp):
        def sigmoid(self, z):
            return 1 / (1 + np.exp(-3 * z))

    def steep(z):
        return 1 / (1 + np.exp(-3 * z))

    mlp = Steep(SIZES, seed=1, backend=backend)
    z = np.linspace(-2, 2, 5)
    np.testing.assert_allclose(mlp.sigmoid_derivative(z), steep(z) * (1 - steep(z)))
    check(mlp, steep, lambda z: steep(z) * (1 - steep(z)))
    np.testing.assert_allclose(Mlp.sigmoid_derivative(0), 0.25)


def test_a_derivative_alone_leaves_the_activation(backend):
    class Straight(Mlp):
        def sigmoid_derivative(self, z):
            return np.ones_like(z)

    check(Straight(SIZES, seed=1, backend=backend), Mlp.sigmoid, np.ones_like)


def test_an_own_feedforward_is_used_by_all(backend):
    class Doubled(Mlp):
        def feedforward(self, X):
            return super().feedforward(2 * np.asarray(X))

    X, Y = problem()
    mlp, usual = Doubled(SIZES, seed=1, backend=backend), Mlp(SIZES, seed=1, backend=backend)
    with pytest.warns(RuntimeWarning, match="Doubled overrides feedforward: .* slow way"):
        outputs = mlp.predict(X)
    np.testing.assert_allclose(outputs, usual.predict(2 * X), rtol=1e-12)
    for got, expected in zip(mlp.backpropagation(X, Y), usual.backpropagation(2 * X, Y), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-13)
    mlp.train(X, Y, 5)
    usual.train(2 * X, Y, 5)
    np.testing.assert_allclose(mlp.parameters, usual.parameters, rtol=1e-9, atol=1e-12)
    assert mlp.evaluate(X, Y) == pytest.approx(usual.evaluate(2 * X, Y))


def test_an_own_backpropagation_is_what_train_calls(backend):
    class Signs(Mlp):
        calls = 0

        def backpropagation(self, X, Y):
            self.calls += 1
            return [np.sign(gradient) / 64 for gradient in super().backpropagation(X, Y)]

    X, Y = problem()
    mlp = Signs(SIZES, seed=1, backend=backend)
    with pytest.warns(RuntimeWarning, match="Signs overrides backpropagation"):
        mlp.train(X, Y, 4)
    assert mlp.calls == 4
    start = Mlp(SIZES, seed=1, backend="numpy").weights
    for weights, before in zip(mlp.weights, start, strict=True):
        steps = 64 * (weights - before)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert set(np.unique(abs(mlp.gradients_vector))) <= {0, 1 / 64}
    mlp.fit(X, Y, epochs=2, batch_size=5, progress=False)
    assert mlp.calls == 12


def test_an_own_feedforward_is_asked_once_a_step():
    """So that random numbers that it draws are the same as in the lab's program."""

    class Counts(Mlp):
        calls = 0

        def feedforward(self, X):
            self.calls += 1
            return super().feedforward(X)

    mlp = Counts(SIZES, seed=1, backend="numpy")
    with pytest.warns(RuntimeWarning, match="slow way"):
        mlp.train(*problem(), 4)
    assert mlp.calls == 4


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda gradients: None, "backpropagation returned NoneType; expected a list"),
        (lambda gradients: gradients[:-1], r"backpropagation returned \[\[5, 7\], \[4, 6\]\]; expected"),
    ],
)
def test_a_wrong_backpropagation_is_told(made, message):
    class Wrong(Mlp):
        def backpropagation(self, X, Y):
            return made(super().backpropagation(X, Y))

    mlp = Wrong(SIZES, seed=1, backend="numpy")
    before = mlp.parameters.copy()
    with pytest.warns(RuntimeWarning, match="slow way"):
        mlp.predict(problem()[0])
    for use in (USES["train"], USES["fit"]):
        with pytest.raises(ValueError, match=message):
            use(mlp, *problem())
        assert np.array_equal(mlp.parameters, before)


def test_overriding_steps_that_diverge_are_undone():
    class Huge(Mlp):
        def backpropagation(self, X, Y):
            return [np.full(w.shape, 1.5e308) for w in self.weights]

    mlp = Huge(SIZES, seed=1, backend="numpy")
    with pytest.warns(RuntimeWarning) as told:
        mlp.train(*problem(), 5)
    assert any("a weight became nan or infinite" in str(warning.message) for warning in told)
    assert np.isfinite(mlp.parameters).all()


def test_labels_reach_an_own_backpropagation_as_rows():
    class Asks(Mlp):
        def backpropagation(self, X, Y):
            assert Y.shape == (len(X), 3)
            return super().backpropagation(X, Y)

    X, Y = problem()
    by_label, by_row = (Asks(SIZES, seed=1, backend="numpy") for _ in range(2))
    with pytest.warns(RuntimeWarning, match="slow way"):
        by_label.train(X, Y.argmax(1), 3)
    with pytest.warns(RuntimeWarning, match="slow way"):
        by_row.train(X, Y, 3)
    assert np.array_equal(by_label.parameters, by_row.parameters)
    by_label.fit(X, Y.argmax(1), epochs=1, progress=False)


@pytest.mark.parametrize(
    "options",
    [
        {"bias": False},
        {"reg_lambda": 2.0},
        {"dtype": "float32"},
        {"input_scale": 0.5, "input_shift": 0.25},
        {"output": "softmax", "activation": "relu"},
        {"output": "identity", "activation": ["tanh", "leaky_relu"]},
        {"output": "sigmoid", "loss": "mean_squared_error"},
    ],
    ids=str,
)
def test_the_slow_way_is_that_of_every_network(options):
    """Overriding something by itself changes nothing but the speed."""

    class Same(Mlp):
        def feedforward(self, X):
            return super().feedforward(X)

    X, Y = problem()
    mlp, usual = (kind(SIZES, seed=1, backend="numpy", **options) for kind in (Same, Mlp))
    tolerance = 1e-4 if mlp.network.dtype == "float32" else 1e-9
    with pytest.warns(RuntimeWarning, match="slow way"):
        mlp.train(X, Y, 3)
    usual.train(X, Y, 3)
    fitted = [one.fit(X, Y, epochs=2, batch_size=6, optimizer="adam", progress=False) for one in (mlp, usual)]
    np.testing.assert_allclose(fitted[0].loss, fitted[1].loss, rtol=tolerance)
    np.testing.assert_allclose(mlp.parameters, usual.parameters, rtol=tolerance, atol=tolerance)
    assert mlp.evaluate(X, Y) == pytest.approx(usual.evaluate(X, Y), rel=tolerance, nan_ok=True)


def test_copies_override_as_well():
    mlp = Both(SIZES, seed=1, backend="numpy")
    X, _ = problem()
    with pytest.warns(RuntimeWarning, match="slow way"):
        expected = mlp.predict(X)
    for twin in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        assert np.array_equal(twin.predict(X), expected)
        twin.weights[0][...] = 0
    assert np.array_equal(mlp.predict(X), expected)
    own = instance(SIZES, seed=1, backend="numpy")
    with pytest.warns(RuntimeWarning, match="slow way"):
        assert np.array_equal(copy.deepcopy(own).predict(X), expected)


def test_what_describes_a_network_by_its_activations_refuses(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="a PyTorch module can't express sigmoid as Both overrides it"):
        Both(SIZES, backend="numpy").to_torch()
    with pytest.raises(ValueError, match="can't express sigmoid"):
        Both(SIZES, backend="numpy").to_onnx(tmp_path / "model.onnx")


def test_a_file_is_loaded_by_the_class_that_overrides(tmp_path):
    X, _ = problem()
    mlp = Both(SIZES, seed=1, backend="numpy")
    mlp.save(tmp_path / "model")
    with pytest.warns(RuntimeWarning, match="slow way"):
        expected = mlp.predict(X)
    with pytest.warns(RuntimeWarning, match="slow way"):
        assert np.array_equal(Both.load(tmp_path / "model", backend="numpy").predict(X), expected)


def test_a_sigmoid_with_options_is_given_z(monkeypatch):
    """Assigned to the class as f(z, k=...), it is called with z alone, not with the network in its place."""
    monkeypatch.setattr(Mlp, "sigmoid", lambda z, k=1.0: np.tanh(k * z))
    mlp, (X, _) = Mlp(SIZES, seed=1, backend="numpy"), problem()
    with pytest.warns(RuntimeWarning, match="slow way"):
        A, Z = mlp.feedforward(X)
    np.testing.assert_array_equal(A[-1], np.tanh(Z[-1]))


def test_no_gradients_are_left_of_a_training_that_was_interrupted():
    class Interrupted(Mlp):
        calls = 0

        def backpropagation(self, X, Y):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().backpropagation(X, Y)

    mlp, (X, Y) = Interrupted(SIZES, seed=1, backend="numpy"), problem()
    with pytest.warns(RuntimeWarning, match="slow way"), pytest.raises(KeyboardInterrupt):
        mlp.train(X, Y, 5)
    assert mlp.gradients is None
    mlp.train(X, Y, 1)
    assert mlp.gradients is not None
