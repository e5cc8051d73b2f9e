"""The trainer: what `Mlp` takes and refuses, and what `fit` does around the kernels."""

import copy
import math
import pickle
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from fastmlp import Adam, History, Mlp, Sgd
from fastmlp.kernels import Rule, reference

CLASSES = 4


@pytest.fixture
def data():
    """Four clusters on a circle: X float64 [120, 2], labels [120]."""
    rng = np.random.default_rng(3)
    y = np.arange(120) % CLASSES
    angle = y * np.pi / 2
    X = 3 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.5, (120, 2))
    return X, y


def classifier(backend="numpy", **options):
    return Mlp(
        [2, 16, CLASSES],
        **{
            "activation": "relu",
            "loss": "cross_entropy",
            "init": "torch",
            "dtype": "float32",
            "seed": 1,
            "backend": backend,
            **options,
        },
    )


def regressor(backend="numpy", n_out=1, **options):
    return Mlp(
        [2, 8, n_out],
        **{
            "activation": "tanh",
            "loss": "mean_squared_error",
            "init": "torch",
            "dtype": "float32",
            "seed": 1,
            "backend": backend,
            **options,
        },
    )


# ---- construction ----


def test_the_lab_calls_it_by_name():
    mlp = Mlp(size_layers=[784, 100, 10], backend="numpy")
    assert mlp.size_layers == [784, 100, 10]
    assert mlp.n_layers == 3
    mlp.size_layers.pop(0)  # as the lab does with a copy
    assert mlp.size_layers == [784, 100, 10]


LAB = {
    "activations": ("sigmoid", "sigmoid"),
    "loss": "binary_cross_entropy",
    "dtype": "float64",
    "bias": True,
    "init": "lab",
    "l2": 0,
    "input_scale": 1,
    "input_shift": 0,
}


@pytest.mark.parametrize(
    ("choice", "changes"),
    [
        ({}, {}),
        ({"seed": 1}, {}),
        ({"threads": 1}, {}),
        ({"activation": "relu"}, {"activations": ("relu", "sigmoid"), "init": "he_uniform"}),
        ({"activation": "leaky_relu"}, {"activations": ("leaky_relu", "sigmoid"), "init": "he_uniform"}),
        ({"activation": "tanh"}, {"activations": ("tanh", "sigmoid"), "init": "glorot_uniform"}),
        ({"activation": ["identity"]}, {"activations": ("identity", "sigmoid"), "init": "glorot_uniform"}),
        ({"loss": "binary_cross_entropy"}, {}),
        ({"loss": "cross_entropy"}, {"activations": ("sigmoid", "softmax"), "loss": "cross_entropy"}),
        ({"loss": "mean_squared_error"}, {"activations": ("sigmoid", "identity"), "loss": "mean_squared_error"}),
        ({"output": "sigmoid"}, {}),
        ({"output": "softmax"}, {"activations": ("sigmoid", "softmax"), "loss": "cross_entropy"}),
        ({"output": "identity"}, {"activations": ("sigmoid", "identity"), "loss": "mean_squared_error"}),
        ({"output": "relu"}, {"activations": ("sigmoid", "relu"), "loss": "mean_squared_error"}),
        ({"output": "tanh"}, {"activations": ("sigmoid", "tanh"), "loss": "mean_squared_error"}),
        ({"output": "sigmoid", "loss": "mean_squared_error"}, {"loss": "mean_squared_error"}),
        ({"init": "torch"}, {"init": "torch"}),
        ({"activation": "relu", "init": "lab"}, {"activations": ("relu", "sigmoid")}),
        ({"dtype": "float32"}, {"dtype": "float32"}),
        ({"bias": False}, {"bias": False}),
        ({"bias_flag": False}, {"bias": False}),
        ({"reg_lambda": 1.0}, {"l2": 1.0}),
        ({"input_scale": 0.5}, {"input_scale": 0.5}),
        ({"input_shift": 0.5}, {"input_shift": 0.5}),
    ],
    ids=str,
)
def test_a_keyword_changes_itself_and_what_follows_from_it(choice, changes):
    mlp = Mlp([4, 3, 2], backend="numpy", **choice)
    found = {name: getattr(mlp if name == "init" else mlp.network, name) for name in LAB}
    assert found == {**LAB, **changes}


def test_without_a_hidden_layer_the_initializer_follows_the_keyword():
    assert Mlp([4, 2], backend="numpy").init == "lab"
    assert Mlp([4, 2], activation="relu", backend="numpy").init == "he_uniform"
    assert Mlp([4, 2], activation=[], output="identity", backend="numpy").init == "lab"


def test_the_description_is_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        Mlp([4, 3, 2], "relu")
    with pytest.raises(TypeError, match="sizes"):
        Mlp(sizes=[4, 3, 2])


@pytest.mark.parametrize(
    ("option", "function", "name"),
    [
        ("activation", np.tanh, "tanh"),
        ("activation", Mlp.sigmoid, "sigmoid"),
        ("activation", [np.tanh], "tanh"),
        ("activation", type("LeakyReLU", (), {})(), "leaky_relu"),
        ("output", np.tanh, "tanh"),
        ("output", type("Softmax", (), {}), "softmax"),
        ("loss", type("CrossEntropyLoss", (), {})(), "cross_entropy"),
    ],
    ids=str,
)
def test_a_function_in_the_place_of_a_name_is_refused_with_the_nearest_name(option, function, name):
    with pytest.raises(TypeError, match=f"{option}=.*; expected a name, one of .*did you mean '{name}'"):
        Mlp([4, 3, 2], backend="numpy", **{option: function})


@pytest.mark.parametrize("option", ["activation", "output", "loss"])
@pytest.mark.parametrize("value", [5, lambda z: z, [5], {"a": 1}], ids=str)
def test_what_is_no_name_is_refused_in_words(option, value):
    with pytest.raises((TypeError, ValueError), match=f"{option}=.*expected"):
        Mlp([4, 3, 2], backend="numpy", **{option: value})


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("f8"), float])
def test_dtypes_may_be_numpy_s(dtype):
    assert Mlp([4, 2], dtype=dtype, backend="numpy").parameters.dtype == np.float64


def test_an_activation_for_each_hidden_layer():
    mlp = Mlp(np.array([4, 3, 3, 2]), activation=["tanh", "leaky_relu"], backend="numpy")
    assert mlp.network.activations == ("tanh", "leaky_relu", "sigmoid")
    assert mlp.network.sizes == (4, 3, 3, 2)


@pytest.mark.parametrize(
    ("sizes", "options", "error", "message"),
    [
        (784, {}, TypeError, "size_layers=784; expected a sequence"),
        ("784", {}, TypeError, "size_layers='784'"),
        ({784, 10}, {}, TypeError, "size_layers={.*expected a sequence"),
        ([784], {}, ValueError, "size_layers=.*1 entries"),
        ([784, 0, 10], {}, ValueError, "size_layers=.*holds 0; expected positive"),
        ([784, -5, 10], {}, ValueError, "size_layers=.*holds -5"),
        ([784, 100.0, 10], {}, TypeError, "size_layers=.*holds 100.0"),
        ([4, 3, 2], {"activation": "rleu"}, ValueError, "activation='rleu'.*did you mean 'relu'"),
        ([4, 3, 2], {"activation": ["relu", "relu"]}, ValueError, "2 entries.*1 hidden"),
        ([4, 3, 2], {"loss": "cross_entrop"}, ValueError, "loss=.*did you mean"),
        ([4, 3, 2], {"output": "sigmod"}, ValueError, "output=.*did you mean 'sigmoid'"),
        ([4, 3, 2], {"loss": "cross_entropy", "output": "relu"}, ValueError, "output='relu' does not go with"),
        ([4, 3, 1], {"output": "softmax"}, ValueError, "size_layers=.*one output.*binary_cross_entropy"),
        ([4, 3, 2], {"init": "glorot"}, ValueError, "init='glorot'.*did you mean"),
        ([4, 3, 2], {"dtype": "float16"}, ValueError, "dtype='float16'"),
        ([4, 3, 2], {"dtype": "flaot32"}, ValueError, "dtype='flaot32'.*did you mean 'float32'"),
        ([4, 3, 2], {"seed": -1}, ValueError, "seed=-1; expected 0 or more"),
        ([4, 3, 2], {"seed": 2**32}, ValueError, "seed=4294967296"),
        ([4, 3, 2], {"seed": "1"}, TypeError, "seed='1' is a str"),
        ([4, 3, 2], {"threads": 0}, ValueError, "threads=0; expected 1 or more"),
        ([4, 3, 2], {"threads": 1.5}, TypeError, "threads=1.5"),
        ([4, 3, 2], {"threads": True}, TypeError, "threads=True"),
        ([4, 3, 2], {"backend": "cpuu"}, ValueError, "backend='cpuu'.*did you mean 'cpu'"),
        ([4, 3, 2], {"bias": 1}, TypeError, "bias=1; expected True or False"),
        ([4, 3, 2], {"bias_flag": "no"}, TypeError, "bias_flag='no'"),
        ([4, 3, 2], {"reg_lambda": -1}, ValueError, "reg_lambda=-1; expected 0 or more"),
        ([4, 3, 2], {"reg_lambda": "1"}, TypeError, "reg_lambda='1'"),
        ([4, 3, 2], {"input_scale": math.inf}, ValueError, "input_scale=inf"),
        ([4, 3, 2], {"input_shift": None}, TypeError, "input_shift=None"),
    ],
)
def test_bad_descriptions_are_refused(sizes, options, error, message):
    with pytest.raises(error, match=message):
        Mlp(sizes, **{"backend": "numpy", **options})


def test_the_backend_is_named(backend):
    mlp = classifier(backend)
    assert mlp.backend_name == backend
    assert f"backend='{backend}'" in repr(mlp)
    assert "[2, 16, 4]" in repr(mlp)


# ---- inputs ----


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64, ">f4"]
)
def test_predict_takes_any_real_dtype(backend, dtype):
    X = np.array([[0, 1], [1, 1], [1, 0]])
    mlp = classifier(backend)
    expected = mlp.predict(X.astype(np.float32))
    assert expected.shape == (3, CLASSES)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(mlp.predict(X.astype(dtype)), expected, rtol=1e-6)


def test_predict_takes_lists_and_views(backend):
    X = np.arange(24.0).reshape(6, 4) / 10
    mlp = classifier(backend)
    expected = mlp.predict(np.ascontiguousarray(X[::2, 1:3]))
    np.testing.assert_array_equal(mlp.predict(X[::2, 1:3]), expected)
    np.testing.assert_array_equal(mlp.predict(np.asfortranarray(X[::2, 1:3])), expected)
    np.testing.assert_allclose(mlp.predict(X[::2, 1:3].tolist()), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_what_the_kernels_read_is_not_copied(monkeypatch, dtype):
    seen = []
    answers = {"predict": None, "evaluate": (0.0, 0), "train_epoch": np.zeros(1)}
    for name, answer in answers.items():
        monkeypatch.setattr(reference, name, lambda *given, _answer=answer, **options: seen.append(given) or _answer)
    X, y = np.ones((6, 2), dtype), np.zeros(6, np.int32)
    mlp = classifier()
    mlp.predict(X)
    mlp.evaluate(X, y)
    mlp.train(X, y, 1)
    mlp.fit(X, y, epochs=1, validation=(X, y))
    assert len(seen) == 5
    assert all(any(argument is X for argument in given) for given in seen)


BAD_INPUTS = [
    (np.zeros(2), r"X has shape \[2\].*for a single sample: X\[None\]"),
    (np.zeros((3, 5)), r"X has shape \[3, 5\]; expected \[n, 2\]"),
    (np.zeros((3, 1, 2)), r"X.reshape\(len\(X\), -1\)"),
    (np.zeros(()), r"X has shape \[\]"),
    (np.zeros((0, 2)), r"X is empty: \[0, 2\]"),
    ([], r"X has shape \[0\]"),
    ([[1, 2], [3]], "X is no array of numbers"),
    ([["a", "b"]], "X is <U1"),
    (np.zeros((3, 2), complex), "X is complex128"),
    (None, "X is object"),
]


@pytest.mark.parametrize(("dtype", "batch_size"), [("uint8", 5), ("uint8", 512), ("float32", 512)])
def test_training_holds_the_data_once(dtype, batch_size):
    """Beside them: the order, labels, parameters and their state, and scratch, which does not grow with the data."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (20_000, 784), np.uint8) * (rng.random((20_000, 784)) < 0.2)
    X, y = X.astype(dtype), rng.integers(0, 10, len(X)).astype(np.int32)
    mlp = Mlp(
        [784, 100, 10],
        activation="relu",
        loss="cross_entropy",
        dtype="float32",
        seed=0,
        backend="cpu",
        input_scale=1 / 255,
    )
    options = {"batch_size": batch_size, "optimizer": Sgd(0.01, momentum=0.9), "progress": False}
    mlp.fit(X[:1000], y[:1000], **options)  # what is compiled or loaded is not counted
    tracemalloc.start()
    try:
        mlp.fit(X, y, **options)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000 + 16 * len(X) + 20 * mlp.parameters.nbytes, f"{most:,} bytes; the data have {X.nbytes:,}"


@pytest.mark.parametrize(("X", "message"), BAD_INPUTS)
def test_bad_inputs_are_refused_everywhere(X, message):
    mlp = classifier()
    before = mlp.parameters.copy()
    y = [0, 1, 2]
    for call in (
        lambda: mlp.predict(X),
        lambda: mlp.classify(X),
        lambda: mlp.feedforward(X),
        lambda: mlp.score(X, y),
        lambda: mlp.evaluate(X, y),
        lambda: mlp.backpropagation(X, y),
        lambda: mlp.train(X, y),
        lambda: mlp.fit(X, y),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="validation X"):
        mlp.fit(np.zeros((3, 2)), y, validation=(X, y))
    assert np.array_equal(mlp.parameters, before)
    assert mlp.history is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_refused(value, dtype):
    X = np.ones((5, 2), dtype)
    X[3, 1] = value
    mlp = classifier()
    for call in (mlp.fit, mlp.train, mlp.score, mlp.evaluate, mlp.backpropagation):
        with pytest.raises(ValueError, match=rf"X holds {value} at \[3, 1\]"):
            call(X, np.zeros(5, int))
    with pytest.raises(ValueError, match=r"validation X holds .* at \[3, 1\]"):
        mlp.fit(np.ones((5, 2)), np.zeros(5, int), validation=(X, np.zeros(5, int)))
    assert mlp.history is None


def test_large_finite_numbers_are_not_taken_for_infinity():
    X = np.full((5, 2), 3e38, np.float32)
    assert math.isfinite(classifier(input_scale=1e-38).evaluate(X, np.zeros(5, int)).loss)


def test_one_number_a_sample_is_told_how():
    with pytest.raises(ValueError, match=r"X\[:, None\]"):
        Mlp([1, 1], loss="mean_squared_error", backend="numpy").predict(np.arange(5.0))


# ---- targets ----


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_dtype_and_one_hot_rows_are_the_same(backend, data, dtype):
    X, y = data
    runs = []
    one_hot = np.eye(CLASSES)[y]
    for targets in (
        y.astype(dtype),
        y.tolist(),
        one_hot,
        one_hot.astype(dtype),
        one_hot.astype(bool),
        one_hot.tolist(),
    ):
        mlp = classifier(backend)
        mlp.fit(X, targets, epochs=2, batch_size=7, optimizer=Sgd(0.1, 0.9))
        runs.append(mlp.parameters)
    for parameters in runs[1:]:
        assert np.array_equal(parameters, runs[0])


def test_probability_rows(backend, data):
    X, y = data
    smooth = 0.9 * np.eye(CLASSES)[y] + 0.1 / CLASSES
    mlp = classifier(backend)
    mlp.fit(X, smooth, epochs=10, batch_size=10, optimizer=Sgd(0.1, 0.9))
    floor = -(0.925 * math.log(0.925) + 3 * 0.025 * math.log(0.025))
    loss, accuracy = mlp.evaluate(X, smooth)
    assert floor < loss < floor + 0.1
    assert accuracy > 0.95


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1], r"y has shape \[2\], X has 3 samples"),
        (1, r"y has shape \[\]"),
        ([0, 1, 4], "y holds labels 0 to 4; expected 0 to 3"),
        ([-1, 1, 2], "y holds labels -1 to 2"),
        ([0.0, 1.0, 2.0], "y holds float64 labels; expected an integer dtype"),
        ([[0], [1], [2]], r"y has shape \[3, 1\]; expected labels \[3\] or rows \[3, 4\]"),
        (np.ones((3, 4)), r"y\[0\] sums to 4"),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], r"y\[2\] sums to 0"),
        ([[2, -1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], "y holds -1"),
        (np.full((3, 4), np.nan), r"y holds nan at \[0, 0\]"),
        (["a", "b", "c"], "y is <U1"),
        (np.zeros((3, 2, 2)), r"y has shape \[3, 2, 2\]"),
        (np.array([2**64 - 1, 0, 1], np.uint64), "y holds labels 0 to 18446744073709551615"),
    ],
)
def test_bad_class_targets_are_refused(y, message):
    mlp = classifier()
    before = mlp.parameters.copy()
    for call in (mlp.fit, mlp.score, mlp.evaluate):
        with pytest.raises(ValueError, match=message):
            call(np.ones((3, 2)), y)
    for call in (mlp.train, mlp.backpropagation):
        with pytest.raises(ValueError, match=message.replace("y", "Y", 1)):
            call(np.ones((3, 2)), y)
    assert np.array_equal(mlp.parameters, before)


@pytest.mark.parametrize("targets", [[0, 1, 1], [[0], [1], [1]], [False, True, True], [0.0, 1.0, 1.0]])
def test_binary_targets(backend, targets):
    mlp = Mlp([2, 1], loss="binary_cross_entropy", dtype="float64", seed=1, backend=backend)
    X = np.array([[-1.0, 0], [1, 0], [2, 1]])
    p = mlp.predict(X)[:, 0]
    expected = -np.mean([np.log(1 - p[0]), np.log(p[1]), np.log(p[2])])
    loss, accuracy = mlp.evaluate(X, targets)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert accuracy == np.mean([p[0] <= 0.5, p[1] > 0.5, p[2] > 0.5])
    assert mlp.classify(X).tolist() == (p > 0.5).astype(int).tolist()
    assert mlp.classify(X).dtype == np.int64


def test_binary_targets_within_0_and_1():
    mlp = Mlp([2, 1], loss="binary_cross_entropy", backend="numpy")
    X = np.ones((2, 2))
    mlp.fit(X, [0.25, 0.75], epochs=1)
    for y in ([0, 2], [-0.1, 1]):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            mlp.fit(X, y)
    with pytest.raises(ValueError, match=r"y has shape \[2, 2\]; expected \[2\] or \[2, 1\]"):
        mlp.fit(X, np.eye(2))


def test_several_sigmoid_outputs_take_rows_or_labels(backend):
    mlp = Mlp([2, 3], loss="binary_cross_entropy", seed=1, backend=backend)
    X = np.array([[1.0, 2], [0, 1]])
    assert mlp.evaluate(X, [2, 0]) == pytest.approx(mlp.evaluate(X, [[0, 0, 1], [1, 0, 0]]))
    mlp.fit(X, [[1, 1, 0.5], [0, 0, 0]], epochs=1)


@pytest.mark.parametrize("y", [[3.5, -2], [[3.5], [-2]]])
def test_regression_targets(backend, y):
    mlp = regressor(backend, dtype="float64")
    X = np.array([[1.0, 2], [0, 1]])
    error = mlp.predict(X)[:, 0] - [3.5, -2]
    loss, accuracy = mlp.evaluate(X, y)
    assert loss == pytest.approx(0.5 * np.mean(error**2), rel=1e-12)
    assert math.isnan(accuracy)


def test_regression_with_several_outputs(backend):
    mlp = regressor(backend, n_out=3)
    X = np.ones((2, 2))
    mlp.fit(X, [[5, -5, 0.5], [5, -5, 0.5]], epochs=300, batch_size=2, optimizer=Sgd(0.1))
    np.testing.assert_allclose(mlp.predict(X), [[5, -5, 0.5]] * 2, atol=0.05)
    with pytest.raises(ValueError, match="y holds inf"):
        mlp.fit(X, [[5, np.inf, 0.5], [5, -5, 0.5]])


def test_a_regression_does_not_classify(backend):
    mlp = regressor(backend)
    X, y = np.ones((4, 2)), np.ones(4)
    assert not mlp.classifies
    with pytest.raises(ValueError, match=r"classify needs .*output='identity'"):
        mlp.classify(X)
    with pytest.raises(ValueError, match="score needs"):
        mlp.score(X, y)
    history = mlp.fit(X, y, epochs=2, validation=(X, y))
    assert all(map(math.isnan, history.val_accuracy))
    assert all(map(math.isfinite, history.val_loss))


def test_squared_error_on_sigmoids_classifies(backend, data):
    X, y = data
    mlp = classifier(backend, loss="mean_squared_error", output="sigmoid")
    history = mlp.fit(X, np.eye(CLASSES)[y], epochs=30, batch_size=8, optimizer=Sgd(0.5, 0.9), validation=(X, y))
    assert mlp.score(X, y) > 0.95
    assert history.val_accuracy[-1] == mlp.score(X, y)


# ---- fit ----


def test_fit_learns(backend, data):
    X, y = data
    mlp = classifier(backend)
    history = mlp.fit(X, y, epochs=20, batch_size=8, optimizer=Sgd(0.1, momentum=0.9), validation=(X, y))
    assert isinstance(history, History)
    assert len(history) == 20
    assert not history.interrupted
    assert history.loss[-1] < 0.2 * history.loss[0]
    assert mlp.score(X, y) > 0.97
    assert np.mean(mlp.classify(X) == y) == pytest.approx(mlp.score(X, y))
    assert history.val_accuracy[-1] == mlp.score(X, y)
    assert history.val_loss[-1] == mlp.evaluate(X, y).loss


def test_fit_is_the_contract_s_loop(data):
    """Weights, losses and optimizer state, step by step with the oracle's functions."""
    X, y = data
    optimizer = Sgd(0.05, momentum=0.9, nesterov=True)
    mlp, plain = classifier(dtype="float64"), classifier(dtype="float64")
    history = mlp.fit(X, y, epochs=3, batch_size=50, optimizer=optimizer)
    network, parameters = plain.network, plain.parameters
    state = network.state(optimizer.rule)
    shuffles = np.random.default_rng(1)
    for epoch in range(3):
        order = shuffles.permutation(120)
        weighted = 0.0
        for start in range(0, 120, 50):
            batch = order[start : start + 50]
            gradients, loss = reference.backpropagation(network, parameters, X[batch], y[batch].astype(np.int32))
            reference.update_weights(optimizer.rule, parameters, gradients, state)
            weighted += loss * len(batch) / 120
        assert history.loss[epoch] == pytest.approx(weighted, rel=1e-12)
    np.testing.assert_allclose(mlp.parameters, parameters, rtol=1e-12)


def test_without_shuffling_the_order_is_the_data_s(backend, data):
    X, y = data
    a, b = classifier(backend), classifier(backend)
    a.fit(X, y, epochs=2, batch_size=7, shuffle=False)
    for _ in range(2):
        b.fit(X, y, epochs=1, batch_size=7, shuffle=False)
    assert np.array_equal(a.parameters, b.parameters)
    shuffled = classifier(backend)
    shuffled.fit(X, y, epochs=2, batch_size=7)
    assert not np.array_equal(a.parameters, shuffled.parameters)


def test_a_seed_repeats_to_the_bit(backend, data):
    X, y = data
    a, b, c = (classifier(backend, seed=s, threads=1) for s in (4, 4, 5))
    for mlp in (a, b, c):
        mlp.fit(X, y, epochs=3, batch_size=9, optimizer=Adam(0.01))
    assert np.array_equal(a.parameters, b.parameters)
    assert not np.array_equal(a.parameters, c.parameters)


@pytest.mark.parametrize("batch_size", [None, 120, 1000])
def test_full_batches(backend, data, batch_size):
    X, y = data
    a, b = classifier(backend), classifier(backend)
    a.fit(X, y, epochs=3, batch_size=batch_size, optimizer=Sgd(1.0), shuffle=False)
    b.train(X, y, 3)
    np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [Sgd(0.1, 0.9), Sgd(0.1, 0.9, nesterov=True), Adam(0.01)])
def test_a_second_fit_goes_on_with_the_optimizer_s_state(backend, data, optimizer):
    X, y = data
    at_once, in_parts = classifier(backend, threads=1), classifier(backend, threads=1)
    whole = at_once.fit(X, y, epochs=4, batch_size=16, optimizer=optimizer)
    first = in_parts.fit(X, y, epochs=1, batch_size=16, optimizer=optimizer)
    second = in_parts.fit(X, y, epochs=3, batch_size=16, optimizer=optimizer)
    assert np.array_equal(at_once.parameters, in_parts.parameters)
    assert first.loss + second.loss == whole.loss
    assert in_parts.history.loss == whole.loss


def test_another_kind_of_optimizer_and_new_weights_start_afresh(data):
    X, y = data
    mlp, fresh = classifier(), classifier()
    mlp.fit(X, y, epochs=1, optimizer=Adam())
    fresh.parameters[:] = mlp.parameters
    fresh._rng.bit_generator.state = mlp._rng.bit_generator.state
    for one in (mlp, fresh):
        one.fit(X, y, epochs=1, optimizer=Sgd(0.01, 0.9))
    assert np.array_equal(mlp.parameters, fresh.parameters)
    mlp.initialize_weights()
    assert mlp.history is None
    assert mlp._optimizer is None


def test_history_without_validation_holds_nan(backend, data):
    history = classifier(backend).fit(*data, epochs=2)
    assert not history.validated
    assert [len(getattr(history, name)) for name in ("loss", "val_loss", "val_accuracy", "seconds")] == [2] * 4
    assert all(map(math.isnan, history.val_loss + history.val_accuracy))
    assert all(s > 0 for s in history.seconds)
    for seconds, rate in zip(history.seconds, history.samples_per_second, strict=True):
        assert rate == pytest.approx(120 / seconds)


def test_the_history_of_all_fits_is_kept(backend, data):
    mlp = classifier(backend)
    first, second = mlp.fit(*data, epochs=2), mlp.fit(*data, epochs=1, validation=data)
    assert mlp.history.loss == first.loss + second.loss
    assert mlp.history.validated


def test_seconds_are_of_training_alone(data, monkeypatch):
    def slow(function):
        return lambda *a, **k: time.sleep(0.05) or function(*a, **k)

    monkeypatch.setattr(reference, "evaluate", slow(reference.evaluate))
    monkeypatch.setattr(reference, "prepare", lambda network, rule: time.sleep(0.05), raising=False)
    mlp = classifier()
    history = mlp.fit(*data, epochs=1, batch_size=120, validation=data, callbacks=lambda mlp, history: time.sleep(0.05))
    assert history.seconds[0] < 0.05 <= mlp.compile_seconds


def test_prepare_is_asked_once_for_each_rule(data, monkeypatch):
    asked = []
    monkeypatch.setattr(reference, "prepare", lambda network, rule: asked.append((network, rule)), raising=False)
    mlp = classifier()
    for optimizer in ("sgd", "sgd", Sgd(0.01), Adam()):
        mlp.fit(*data, epochs=1, optimizer=optimizer)
    assert asked == [(mlp.network, Sgd().rule), (mlp.network, Adam().rule)]


def test_input_scale_stands_for_scaled_data(backend, data):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 2)).astype(np.uint8)
    raw = classifier(backend, dtype="float64", input_scale=1 / 255, input_shift=-0.5)
    scaled = classifier(backend, dtype="float64")
    raw.fit(pixels, data[1], epochs=2, optimizer=Adam(0.01))
    scaled.fit(pixels / 255 - 0.5, data[1], epochs=2, optimizer=Adam(0.01))
    np.testing.assert_allclose(raw.parameters, scaled.parameters, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(raw.feedforward(pixels)[0][0][:, 1:], pixels / 255 - 0.5, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs=0; expected 1 or more"),
        ({"epochs": 1.5}, TypeError, "epochs=1.5 is a float"),
        ({"epochs": True}, TypeError, "epochs=True"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": -3}, ValueError, "batch_size=-3"),
        ({"batch_size": "auto"}, TypeError, "batch_size='auto'"),
        ({"optimizer": "sdg"}, ValueError, "optimizer='sdg'.*did you mean 'sgd'"),
        ({"optimizer": Sgd}, TypeError, "optimizer="),
        ({"validation": np.zeros((3, 2))}, TypeError, r"validation is a ndarray; expected a pair"),
        ({"validation": (np.zeros((3, 2)), [0, 1])}, ValueError, r"validation y has shape \[2\], validation X has 3"),
        ({"validation": (np.zeros((3, 2)), [0, 1, 9])}, ValueError, "validation y holds labels"),
        ({"shuffle": "yes"}, TypeError, "shuffle='yes'"),
        ({"callbacks": [3]}, TypeError, "callbacks holds 3"),
        ({"callbacks": 3}, TypeError, "callbacks=3"),
        ({"progress": "yes"}, TypeError, "progress='yes'"),
    ],
)
def test_bad_options_are_refused_before_anything_happens(data, options, error, message):
    mlp = classifier()
    before = mlp.parameters.copy()
    with pytest.raises(error, match=message):
        mlp.fit(*data, **options)
    assert np.array_equal(mlp.parameters, before)
    assert mlp.history is None


def test_everything_but_the_data_is_by_keyword(data):
    with pytest.raises(TypeError):
        classifier().fit(*data, 3)


# ---- runs that end early ----


class StopsIn:
    """Stands for a backend's train_epoch: raises in the middle of an epoch, after it has changed everything."""

    def __init__(self, error: BaseException, epoch: int) -> None:
        self.error, self.epoch, self.calls = error, epoch, 0
        self.original = reference.train_epoch

    def __call__(self, network, rule, parameters, state, X, Y, order, batch_size, **options):
        self.calls += 1
        if self.calls != self.epoch:
            return self.original(network, rule, parameters, state, X, Y, order, batch_size, **options)
        self.original(network, rule, parameters, state, X, Y, order[: len(order) // 2], batch_size, **options)
        raise self.error


@pytest.mark.parametrize("optimizer", [Sgd(0.1, 0.9), Adam(0.01)])
def test_ctrl_c_in_an_epoch_returns_the_finished_ones(data, monkeypatch, optimizer):
    straight, interrupted = classifier(), classifier()
    straight.fit(*data, epochs=2, batch_size=16, optimizer=optimizer)
    after_two = straight.parameters.copy()
    straight.fit(*data, epochs=3, batch_size=16, optimizer=optimizer)

    monkeypatch.setattr(reference, "train_epoch", StopsIn(KeyboardInterrupt(), 3))
    history = interrupted.fit(*data, epochs=5, batch_size=16, optimizer=optimizer)
    assert history.interrupted
    assert len(history) == 2
    assert interrupted.history.interrupted
    assert np.array_equal(interrupted.parameters, after_two)
    history = interrupted.fit(*data, epochs=3, batch_size=16, optimizer=optimizer)  # as if nothing had happened
    assert np.array_equal(interrupted.parameters, straight.parameters)
    assert not history.interrupted
    assert len(interrupted.history) == 5


def test_an_error_in_an_epoch_propagates_and_undoes_it(data, monkeypatch):
    straight, mlp = classifier(), classifier()
    straight.fit(*data, epochs=1, optimizer="adam")
    monkeypatch.setattr(reference, "train_epoch", StopsIn(MemoryError("no more"), 2))
    with pytest.raises(MemoryError, match="no more"):
        mlp.fit(*data, epochs=5, optimizer="adam")
    assert np.array_equal(mlp.parameters, straight.parameters)
    assert len(mlp.history) == 1
    assert not mlp.history.interrupted
    assert mlp._optimizer[1].step[0] == straight._optimizer[1].step[0]


def test_an_error_in_validation_undoes_the_epoch(data, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    mlp = classifier()
    before = mlp.parameters.copy()
    monkeypatch.setattr(reference, "evaluate", fail)
    history = mlp.fit(*data, validation=data)
    assert history.interrupted
    assert len(history) == 0
    assert np.array_equal(mlp.parameters, before)


def test_ctrl_c_in_a_callback_keeps_the_epoch(backend, data):
    def interrupt(mlp, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    straight, mlp = classifier(backend, threads=1), classifier(backend, threads=1)
    straight.fit(*data, epochs=2)
    history = mlp.fit(*data, epochs=5, callbacks=[interrupt])
    assert history.interrupted
    assert len(history) == len(mlp.history) == 2
    assert np.array_equal(mlp.parameters, straight.parameters)


def test_an_error_in_a_callback_propagates_and_keeps_the_epoch(backend, data):
    def fail(mlp, history):
        raise ZeroDivisionError

    straight, mlp = classifier(backend, threads=1), classifier(backend, threads=1)
    straight.fit(*data, epochs=1)
    with pytest.raises(ZeroDivisionError):
        mlp.fit(*data, epochs=5, callbacks=[fail])
    assert len(mlp.history) == 1
    assert np.array_equal(mlp.parameters, straight.parameters)


CTRL_C = """
import os, signal, threading
import numpy as np
from fastmlp import Mlp
X = np.random.default_rng(0).random((2000, 50))
y = np.arange(2000) % 10
mlp = Mlp([50, 50, 10], activation="relu", loss="cross_entropy", dtype="float32", seed=1, backend="{backend}")
started = threading.Event()
threading.Thread(target=lambda: (started.wait(60), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
def third(mlp, history):
    if len(history) == 3:
        started.set()
history = mlp.fit(X, y, epochs=100_000, callbacks=third)
again = Mlp([50, 50, 10], activation="relu", loss="cross_entropy", dtype="float32", seed=1, backend="{backend}")
again.fit(X, y, epochs=len(history))
print(history.interrupted, len(history) >= 3, np.array_equal(mlp.parameters, again.parameters))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_a_real_ctrl_c(backend):
    result = subprocess.run(
        [sys.executable, "-c", CTRL_C.format(backend=backend)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stderr == ""
    assert result.stdout.split() == ["True", "True", "True"]


def test_training_that_diverges_is_undone_and_said(backend, data):
    X, y = data
    mlp = regressor(backend)
    mlp.fit(X, y, epochs=1, optimizer=Sgd(0.001))
    before = mlp.parameters.copy()
    with pytest.warns(
        RuntimeWarning, match=r"stopped in epoch \d, which was undone.*smaller learning_rate than 1e\+20"
    ):
        history = mlp.fit(1000 * X, y, epochs=5, batch_size=8, optimizer=Sgd(1e20))
    assert np.isfinite(mlp.parameters).all()
    assert np.array_equal(mlp.parameters, before)
    assert len(history) == 0
    assert len(mlp.history) == 1
    assert not history.interrupted


def test_weights_that_overflow_in_the_last_step_are_noticed(backend, data):
    X, y = data
    mlp = Mlp([2, 1], loss="mean_squared_error", dtype="float32", seed=1, backend=backend)
    with pytest.warns(RuntimeWarning, match="a weight became nan or infinite"):
        mlp.fit(X * 1e3, y, epochs=1, batch_size=None, optimizer=Sgd(3e38))
    assert np.isfinite(mlp.parameters).all()


def test_train_that_diverges_is_undone_and_said(backend, data):
    mlp = Mlp([2, 1], loss="mean_squared_error", seed=1, backend=backend)
    before = mlp.parameters.copy()
    with pytest.warns(RuntimeWarning, match="training stopped: the loss became"):
        mlp.train(data[0] * 1e10, data[1], 50)
    assert np.array_equal(mlp.parameters, before)


def test_a_callback_may_stop_the_run(backend, data):
    history = classifier(backend).fit(*data, epochs=10, callbacks=[lambda mlp, history: len(history) == 3])
    assert len(history) == 3
    assert not history.interrupted


# ---- copies, threads, import ----


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda mlp: pickle.loads(pickle.dumps(mlp))])
def test_copies_are_independent_and_go_on_alike(backend, data, copied):
    mlp = classifier(backend, threads=1)
    mlp.fit(*data, epochs=1, optimizer="adam")
    other = copied(mlp)
    assert other.backend_name == backend
    assert other.parameters.ctypes.data % 64 == 0
    before = mlp.parameters.copy()
    other.weights[0][...] = 0
    assert np.array_equal(mlp.parameters, before)
    assert not other.network.rows(other.parameters)[0].any()
    other = copied(mlp)
    other_rng = copy.deepcopy(mlp._rng)
    mlp.fit(*data, epochs=1, optimizer="adam")
    other._rng = other_rng
    other.fit(*data, epochs=1, optimizer="adam")
    assert np.array_equal(mlp.parameters, other.parameters)


def test_threads_reach_the_backend(data, monkeypatch):
    seen = []
    for name in ("predict", "evaluate", "train_epoch", "backpropagation"):
        original = getattr(reference, name)
        monkeypatch.setattr(
            reference, name, lambda *a, threads=None, _f=original, **k: seen.append(threads) or _f(*a, **k)
        )
    X, y = data
    mlp = classifier(threads=2)
    mlp.predict(X)
    mlp.evaluate(X, y)
    mlp.fit(X, y, epochs=1)
    mlp.threads = 3
    mlp.train(X, y, 1)
    assert seen[:3] == [2, 2, 2]
    assert 3 in seen


def test_import_is_quick_and_light():
    heavy = "numba matplotlib sklearn rich safetensors torch typer pooch"
    code = f"import sys, fastmlp; print([m for m in {heavy.split()!r} if m in sys.modules])"
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
    assert time.perf_counter() - start < 5  # of which interpreter and NumPy take most; a loaded machine may be slow


def test_submodules_are_found_when_used():
    import fastmlp

    assert fastmlp.data.__name__ == "fastmlp.data"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastmlp.nothing


def test_a_small_predict_has_little_overhead():
    """Python's part of a call on one image: some microseconds, so that the kernel's show."""

    class Nothing:
        __name__ = "fastmlp.kernels.reference"

        def predict(self, network, parameters, X, *, threads):
            return X

    mlp = Mlp([784, 10], backend="numpy")
    mlp._backend = Nothing()
    X = np.zeros((1, 784), np.uint8)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(100):
            mlp.predict(X)
        best = min(best, (time.perf_counter() - start) / 100)
    assert best < 20e-6


def test_rules_are_plain_for_the_lab(data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        reference, "train_epoch", lambda n, rule, p, s, X, Y, order, b, **k: seen.append((rule, b)) or np.zeros(1)
    )
    classifier().train(*data, 5)
    # The last step tells its gradients: momentum 0 takes the same step, and its state is the gradients.
    assert seen == [(Rule("plain", learning_rate=1.0), 120), (Rule("momentum", learning_rate=1.0, momentum=0.0), 120)]
