"""Inputs that can't be answered rightly are refused or warned of, and never answered quietly."""

import copy
import importlib.util
import math
import pickle
import re
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastmlp import Adam, Mlp, Sgd, cli

DIGITS = load_digits()


def classifier(backend="numpy", sizes=(3, 8, 4), **options):
    return Mlp(list(sizes), **{"activation": "relu", "loss": "cross_entropy", "dtype": "float32", **options})


def calls_on(mlp, X, y):
    """Every method that takes samples and looks at them, by name."""
    return {
        "classify": lambda: mlp.classify(X),
        "evaluate": lambda: mlp.evaluate(X, y),
        "score": lambda: mlp.score(X, y),
        "feedforward": lambda: mlp.feedforward(X),
        "backpropagation": lambda: mlp.backpropagation(X, y),
        "train": lambda: mlp.train(X, y, 1),
        "fit": lambda: mlp.fit(X, y, epochs=1),
        "validation": lambda: mlp.fit(np.zeros((2, 3)), [0, 1], epochs=1, validation=(X, y)),
    }


def assert_unchanged(mlp, before):
    assert np.array_equal(mlp.parameters, before)
    assert mlp.history is None


# ---- nan and infinity ----


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("n_out", [1, 4])
def test_classify_refuses_what_is_no_number(backend, value, activation, n_out):
    loss = "binary_cross_entropy" if n_out == 1 else "cross_entropy"
    mlp = Mlp([3, 8, n_out], activation=activation, loss=loss, dtype="float32", seed=1, backend=backend)
    X = np.ones((5, 3), np.float32)
    assert mlp.classify(X).shape == (5,)
    X[3, 1] = value
    with pytest.raises(ValueError, match=rf"X holds {value} at \[3, 1\]"):
        mlp.classify(X)
    with pytest.raises(ValueError, match=rf"X holds {value} at \[0, 1\]"):
        mlp.classify(X[3:4].tolist())


def test_outputs_that_are_no_numbers_have_no_class(backend):
    X, y = np.ones((4, 3), np.float32), np.zeros(4, int)
    X[2] = 3e38  # finite, as are the weights; the products are not
    mlp = classifier(backend=backend, seed=1)
    mlp.weights = [np.full(w.shape, (-1e10, 1e10)[i % 2]) for i, w in enumerate(mlp.weights)]
    mlp.weights[1][:, 1::2] *= -1
    with pytest.raises(ValueError, match=r"the outputs for X\[2\] are \[nan"):
        mlp.classify(np.where(X == 1, 0, -X))
    mlp.weights[0][:] = math.nan
    for call in (lambda: mlp.classify(X), lambda: mlp.score(X, y)):
        with pytest.raises(ValueError, match=r"the outputs for X.* nan"):
            call()
    assert all(map(math.isnan, mlp.evaluate(X, y)))


# ---- numbers beyond the network's dtype ----


BEYOND = {
    "float64": (np.float64, 1e300, "1e[+]300"),
    "just beyond": (np.float64, -3.5e38, "-3.5e[+]38"),
    "longdouble": (np.longdouble, np.longdouble("1e300"), "1e[+]300"),
}


@pytest.mark.parametrize(("dtype", "value", "shown"), BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("call", list(calls_on(None, None, None)))
def test_samples_beyond_the_dtype_are_refused(call, dtype, value, shown):
    mlp = classifier(backend="numpy", seed=1)
    before = mlp.parameters.copy()
    X = np.zeros((2, 3), dtype)
    X[1, 2] = value
    name = "validation X" if call == "validation" else "X"
    with pytest.raises(ValueError, match=rf"^{name} holds {shown} at \[1, 2\], beyond the network's float32.*3.4e\+38"):
        calls_on(mlp, X, [0, 1])[call]()
    assert_unchanged(mlp, before)


@pytest.mark.parametrize(
    ("scale", "shift", "X"),
    [
        (1e30, 0.0, np.full((2, 3), 1e10, np.float32)),
        (1e37, 0.0, np.full((2, 3), 255, np.uint8)),
        (1.0, 3e38, np.full((2, 3), 1e38, np.float32)),
        (-1e30, 0.0, np.full((2, 3), 10**10)),
    ],
)
def test_samples_that_the_scale_carries_beyond_the_dtype_are_refused(backend, scale, shift, X):
    mlp = classifier(backend=backend, input_scale=scale, input_shift=shift, init="zeros")
    with pytest.raises(ValueError, match=r"^X holds .* at \[0, 0\], beyond the network's float32 after input_scale="):
        mlp.classify(X)
    assert mlp.classify(np.zeros_like(X)).shape == (2,)


def test_the_largest_numbers_that_fit_are_taken(backend):
    large = float(np.finfo(np.float32).max)
    mlp = classifier(backend=backend, init="zeros")
    for dtype in (np.float32, np.float64):
        assert mlp.classify(np.full((2, 3), large, dtype)).tolist() == [0, 0]
    wide = classifier(backend=backend, init="zeros", dtype="float64")
    assert wide.classify(np.full((2, 3), 1e300)).tolist() == [0, 0]


@pytest.mark.parametrize("value", [1e300, -1e39, 10**300])
def test_targets_beyond_the_dtype_are_refused(value):
    mlp = Mlp([3, 1], loss="mean_squared_error", activation="relu", dtype="float32", backend="numpy")
    before = mlp.parameters.copy()
    X = np.zeros((2, 3))
    for call in (mlp.fit, mlp.evaluate):
        with pytest.raises(ValueError, match=r"^y holds .*1e\+?\d+ at \[1\], beyond the network's float32"):
            call(X, [0, value])
    with pytest.raises(ValueError, match=r"^validation y holds .* at \[1, 0\], beyond the network's float32"):
        mlp.fit(X, [0, 1], validation=(X, [[0], [value]]))
    assert_unchanged(mlp, before)


def test_weights_beyond_the_dtype_are_refused():
    mlp = classifier(backend="numpy", seed=1)
    before = mlp.parameters.copy()
    bad = [w.astype(np.float64) for w in mlp.weights]
    bad[1][2, 3] = 1e300
    with pytest.raises(ValueError, match=r"^weights\[1\] holds 1e\+300 at \[2, 3\], beyond the network's float32"):
        mlp.weights = bad
    with pytest.raises(ValueError, match=r"^weights\[1\] holds 1e\+300 at \[2, 3\]"):
        mlp.weights[1] = bad[1]
    assert np.array_equal(mlp.parameters, before)
    with pytest.raises(ValueError, match=r"holds 1e\+300 at \[0, 0\], beyond the network's float32"):
        classifier(init=lambda rng, n_out, n_in, bias: np.full((n_out, n_in + bias), 1e300))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Sgd(1e39), r"learning_rate=1e\+39 is inf in float32"),
        (Sgd(1e-60), r"learning_rate=1e-60 is 0.0 in float32"),
        (Adam(1e300), r"learning_rate=1e\+300 is inf in float32"),
        (Adam(beta2=1 - 1e-12), "beta2=.* is 1 in float32"),
    ],
)
def test_hyperparameters_beyond_the_dtype_are_refused(optimizer, message):
    mlp = classifier(backend="numpy", seed=1)
    before = mlp.parameters.copy()
    with pytest.raises(ValueError, match=message):
        mlp.fit(np.zeros((2, 3)), [0, 1], optimizer=optimizer)
    assert_unchanged(mlp, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_scale": 1e39}, r"input_scale=1e\+39 is inf in float32"),
        ({"input_scale": 1e-60}, "input_scale=1e-60 is 0.0 in float32"),
        ({"input_shift": -1e300}, r"input_shift=-1e\+300 is -inf in float32"),
        ({"reg_lambda": 1e39}, r"1e\+39 is inf in float32"),
    ],
)
def test_options_beyond_the_dtype_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options)
    assert classifier(**options, dtype="float64").network.dtype == "float64"


# ---- several outputs, each a yes or no ----


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_rows_of_several_ones_are_right_only_as_a_whole(backend, loss):
    mlp = Mlp([3, 3], activation="relu", loss=loss, output="sigmoid", bias=False, dtype="float32", backend=backend)
    mlp.weights = [10 * np.eye(3)]
    X = np.array([[1, -1, -1], [1, 1, -1], [1, 1, 1], [-1, -1, -1]])
    on = (X > 0).astype(float)
    assert mlp.score(X, on) == 1
    assert mlp.score(X, np.ones((4, 3))) == 0.25  # one output on is not three
    assert mlp.evaluate(X, 0.2 + 0.6 * on).accuracy == 1
    wrong_in_one = on.copy()
    wrong_in_one[:2, 2] = 1
    assert mlp.score(X, wrong_in_one) == 0.5
    assert mlp.score(X, [[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]) == 0.5  # one-hot throughout: classes
    history = mlp.fit(X, on, epochs=1, validation=(X, wrong_in_one), optimizer=Sgd(1e-6))
    assert history.val_accuracy == [0.5]


def test_score_is_scikit_learns_subset_accuracy(backend):
    from sklearn.datasets import make_multilabel_classification
    from sklearn.metrics import accuracy_score

    X, Y = make_multilabel_classification(300, 10, n_classes=5, random_state=1)
    mlp = Mlp([10, 30, 5], activation="tanh", loss="binary_cross_entropy", seed=1, backend=backend, input_scale=0.1)
    history = mlp.fit(X, Y, epochs=30, optimizer=Adam(0.01), validation=(X, Y))
    expected = accuracy_score(Y, mlp.predict(X) > 0.5)
    assert 0.4 < expected < 1
    assert mlp.score(X, Y) == history.val_accuracy[-1] == expected


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_the_lab_s_one_hot_rows_are_classes(backend, loss):
    X, Y = DIGITS.data[:200] / 16, np.eye(10)[DIGITS.target[:200]]
    runs = []
    for y in (Y, DIGITS.target[:200]):
        mlp = Mlp([64, 20, 10], loss=loss, output="sigmoid", seed=1, backend=backend, threads=1)
        mlp.fit(X, y, epochs=3, batch_size=7, optimizer=Sgd(0.1, 0.9))
        mlp.train(X, y, 3)
        runs.append(mlp)
        assert mlp.score(X, y) == np.mean(mlp.predict(X).argmax(1) == DIGITS.target[:200])
    assert np.array_equal(runs[0].parameters, runs[1].parameters)


# ---- copies ----


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda mlp: pickle.loads(pickle.dumps(mlp))])
def test_copies_share_nothing(backend, copied):
    X, y = DIGITS.data[:100] / 16, DIGITS.target[:100]
    mlp = classifier(sizes=(64, 8, 10), backend=backend, seed=1, threads=1)
    mlp.metadata = {"notes": ["one"]}
    mlp.fit(X, y, epochs=2, optimizer="adam")
    twin, again = copied(mlp), copied(mlp)
    parameters, losses = mlp.parameters.copy(), list(mlp.history.loss)
    twin.fit(X, y, epochs=2, optimizer="adam")
    twin.metadata["notes"].append("two")
    assert np.array_equal(mlp.parameters, parameters)
    assert mlp.history.loss == losses
    assert mlp.metadata == {"notes": ["one"]}
    for other in (mlp, again):  # generator and optimizer's state are where they were
        other.fit(X, y, epochs=2, optimizer="adam")
        assert np.array_equal(other.parameters, twin.parameters)
        assert other.history.loss == twin.history.loss
    twin.initialize_weights()
    assert len(mlp.history) == 4


# ---- what is no table of numbers ----


class Column:
    """A column of a frame, as far as NumPy and the checks ask."""

    def __init__(self, values, name):
        self.values, self.name = values, name

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class PandasLike:
    """Works like a frame of pandas."""

    def __init__(self, **columns):
        self.table = {name: Column(values, name) for name, values in columns.items()}
        self.columns, self.dtypes = list(columns), [np.asarray(values).dtype for values in columns.values()]

    def __array__(self, dtype=None, copy=None):
        columns = [np.asarray(column) for column in self.table.values()]
        dtypes = {column.dtype for column in columns}
        return np.stack([c.astype(dtypes.pop() if len(dtypes) == 1 else object) for c in columns], 1)

    def items(self):
        return self.table.items()


class PolarsLike(PandasLike):
    """Works like a frame of polars."""

    items = None

    def __getattribute__(self, name):
        if name == "items":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def get_columns(self):
        return list(self.table.values())


#: Stand-ins, and the real ones where they are installed.
FRAMES = [PandasLike, PolarsLike] + [
    lambda _module=module, **columns: importlib.import_module(_module).DataFrame(columns)
    for module in ("pandas", "polars")
    if importlib.util.find_spec(module)
]


@pytest.mark.parametrize("Frame", FRAMES)
def test_frames_name_the_column(Frame):
    numbers = [1.0, 2.0, 3.0]
    mlp = classifier(backend="numpy", seed=1)
    cities = Frame(size=numbers, city=["Rome", "Oslo", "Bonn"], age=[1, 2, 3])
    with pytest.raises(ValueError, match=r"^X's column 'city' .* it holds 'Rome' \(str\) at \[0\]; encode text as num"):
        mlp.predict(cities)
    with pytest.raises(ValueError, match=r"^X's column 'city' .* holds '2.5' \(str\) at \[1\].* convert it to numbers"):
        mlp.fit(Frame(size=numbers, city=np.array([1.0, "2.5", 4], object), age=[1, 2, 3]), [0, 1, 2])
    dates = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ms]")
    with pytest.raises(ValueError, match=r"^X's column 'day' .* holds datetime64.*; turn dates into numbers"):
        mlp.predict(Frame(size=numbers, day=dates, age=[1, 2, 3]))
    with pytest.raises(ValueError, match=r"^validation X's column 'city' .* holds"):
        mlp.fit(np.ones((3, 3)), [0, 1, 2], validation=(cities, [0, 1, 2]))


@pytest.mark.parametrize("Frame", FRAMES)
def test_frames_of_several_kinds_of_numbers_are_taken(Frame):
    mlp = classifier(backend="numpy", seed=1)
    frame = Frame(a=[1.5, 2.0, 3.0], b=[True, False, True], c=[1, 2, 3])
    table = np.array([[1.5, 1, 1], [2, 0, 2], [3, 1, 3]])
    np.testing.assert_allclose(mlp.predict(frame), mlp.predict(table), rtol=1e-6)


def test_missing_values_of_a_frame_are_told():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2, 3], "b": pandas.array([1, None, 3], "Int64"), "c": [True, False, True]})
    mlp = classifier(backend="numpy")
    with pytest.raises(ValueError, match=r"^X holds nan at \[1, 1\]"):
        mlp.classify(frame)
    frame["c"] = ["x", None, "z"]
    with pytest.raises(ValueError, match=r"^X's column 'c' .* holds 'x' \(str\) at \[0\]"):
        mlp.classify(frame)
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": pandas.array([1, 2, 3], "Int64"), "c": [True, False, True]})
    np.testing.assert_array_equal(mlp.predict(frame), mlp.predict(frame.astype(float).to_numpy()))


NO_TABLES = {
    "text": (np.array([["a", "b", "c"]]), r"it holds 'a' \(str\) at \[0, 0\]; encode text as numbers first"),
    "numbers as text": (np.array([["1", "2", "3"]]), "it is text; convert it to numbers first, such as by astype"),
    "bytes": (np.array([[b"a", b"b", b"c"]]), r"it holds .*b'a'.* encode text"),
    "text in a list": ([[1.0, 2.0, 3.0], [4.0, "five", 6.0]], r"it holds 'five' \(str\) at \[1, 1\]; encode text"),
    "no value": ([[1, 2, 3], [4, None, 6]], r"it holds None \(NoneType\) at \[1, 1\], so no value: fill it in"),
    "objects": (np.array([[1, 2, object]], object), r"it holds <class 'object'> \(type\) at \[0, 2\]; encode it"),
    "dates": (np.zeros((2, 3), "datetime64[D]"), r"it holds datetime64\[D\]; turn dates into numbers first"),
    "spans": (np.zeros((2, 3), "timedelta64[s]"), r"it holds timedelta64\[s\]; turn spans of time into numbers"),
    "complex": (np.zeros((2, 3), complex), "it holds complex128; give the real and the imaginary part"),
    "fields": (np.zeros(2, "f4,f4,f4"), "turn fields into columns"),
    "ragged": ([[1, 2, 3], [4, 5]], r"X\[0\] has 3 entries, X\[1\] has 2; expected rows of one length"),
    "ragged arrays": ([np.zeros(3), np.zeros(2)], r"X\[0\] has 3 entries, X\[1\] has 2"),
    "ragged objects": (np.array([[1, 2], [3]], object), r"it holds \[1, 2\] \(list\) at \[0\]; expected rows of one"),
    "masked": (np.ma.masked_equal([[1.0, 2, 3], [4, 5, -1]], -1), r"is masked at \[1, 2\]; .*X.filled"),
    "long integers": ([[10**400, 1, 2]], "it holds whole numbers that no float can hold"),
    "a dict": ({"a": 1}, "it is a dict"),
    "a set": ({1, 2}, "it is a set"),
    "a generator": ((x for x in ()), "it is a generator"),
}


@pytest.mark.parametrize(("X", "message"), NO_TABLES.values(), ids=NO_TABLES)
def test_what_is_no_table_of_numbers_is_told_with_a_remedy(X, message):
    mlp = classifier(backend="numpy", seed=1)
    before = mlp.parameters.copy()
    for call in (lambda: mlp.predict(X), lambda: mlp.classify(X), lambda: mlp.fit(X, [0, 1])):
        with pytest.raises(ValueError, match=f"(?s)^X .*{message}"):
            call()
    with pytest.raises(ValueError, match=f"(?s)^y .*{message.replace('X', 'y')}"):
        mlp.fit(np.ones((2, 3)), X)
    assert_unchanged(mlp, before)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_array", "lil_matrix"])
def test_sparse_matrices_are_told_to_become_dense(form):
    sparse = pytest.importorskip("scipy.sparse")
    X = getattr(sparse, form)(np.eye(3))
    mlp = classifier(backend="numpy", seed=1)
    for call in (lambda: mlp.predict(X), lambda: mlp.fit(X, [0, 1, 2])):
        with pytest.raises(ValueError, match=rf"^X is sparse, a {form}; give a dense array: X.toarray\(\)"):
            call()
    with pytest.raises(ValueError, match=r"^y is sparse.*y.toarray\(\)"):
        mlp.fit(np.eye(3), X)
    assert mlp.predict(X.toarray()).shape == (3, 4)


def test_tensors_that_want_gradients_are_refused_in_words():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"^X is no array of numbers: .*requires grad"):
        classifier(backend="numpy").predict(torch.zeros(2, 3, requires_grad=True))


def test_objects_that_are_numbers_are_taken():
    mlp = classifier(backend="numpy", seed=1)
    expected = mlp.predict([[1, 0.5, 0.25]])
    for X in (
        np.array([[1, 0.5, 0.25]], object),
        [[1, Fraction(1, 2), Decimal("0.25")]],
        np.ma.masked_array([[1, 0.5, 0.25]]),
    ):
        assert np.array_equal(mlp.predict(X), expected)
    assert mlp.classify(np.array([[10**30, 0, 0]], object)).shape == (1,)
    one, two = classifier(backend="numpy", seed=1), classifier(backend="numpy", seed=1)
    one.fit(np.eye(3), np.array([0, 3, 1], object), epochs=1)
    two.fit(np.eye(3), [0, 3, 1], epochs=1)
    assert np.array_equal(one.parameters, two.parameters)


def test_text_for_labels_is_told_how_to_become_numbers():
    with pytest.raises(ValueError, match=r"y is <U3 \[3\].* 'cat' .*numpy.unique\(y, return_inverse=True\)\[1\]"):
        classifier(backend="numpy").fit(np.eye(3), np.array(["cat", "dog", "cow"]))


# ---- whatever NumPy is told to do about errors ----


SETTINGS = {
    "relu": {"activation": "relu", "loss": "cross_entropy", "dtype": "float32"},
    "lab": {},
    "tanh": {"activation": "tanh", "loss": "cross_entropy", "dtype": "float64", "init": "he_normal"},
    "squared": {"activation": "leaky_relu", "loss": "mean_squared_error", "output": "sigmoid", "dtype": "float32"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("optimizer", [Sgd(0.01, 0.9), Adam()], ids=["sgd", "adam"])
def test_numpys_error_handling_changes_nothing(backend, settings, optimizer):
    """Samples that saturate, down to the subnormal numbers, and up to the largest."""
    rng = np.random.default_rng(0)
    X = np.vstack([DIGITS.data[:60], DIGITS.data[:60] * 1e-42, 100 * rng.normal(size=(60, 64))])
    y = np.concatenate([DIGITS.target[:60]] * 3)

    def results():
        mlp = Mlp([64, 12, 10], **settings, seed=1, backend=backend, threads=1, reg_lambda=1e-30)
        history = mlp.fit(X, y, epochs=2, optimizer=optimizer, validation=(X, y))
        errors = []
        mlp.train(X[:60], np.eye(10)[y[:60]], 3, errors=errors)
        mlp.weights = [np.full(w.shape, 1e-60) if i else w for i, w in enumerate(mlp.weights)]
        mlp.weights[0] = np.full(mlp.weights[0].shape, 1e-50)
        values, zs = mlp.feedforward(X)
        found = [*values, *zs[1:], *mlp.backpropagation(X, y), mlp.predict(X), mlp.classify(X), mlp.parameters]
        found += [history.loss, history.val_loss, errors, mlp.evaluate(X, y), mlp.sigmoid(X), mlp.sigmoid_derivative(X)]
        found.append(mlp.predict(np.array([[1e300, 1e-300] * 32], np.longdouble)))
        return found

    expected = results()
    with np.errstate(all="raise"):
        found = results()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_divergence_is_still_told(backend):
    mlp = Mlp([3, 1], activation="relu", loss="mean_squared_error", dtype="float32", seed=1, backend=backend)
    with np.errstate(all="raise"), pytest.warns(RuntimeWarning, match="training stopped"):
        mlp.fit(np.eye(3), [1, 2, 3], epochs=50, optimizer=Sgd(1e20))


# ---- inputs of another scale ----


def pixels(n=600, seed=0):
    """Images of 12 × 12 pixels, 0 to 255, light on dark: a bright bar at one of 4 places, and noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    X = np.zeros((n, 12, 12))
    for row, place in enumerate(y):
        X[row, 3 * place : 3 * place + 2, rng.integers(0, 4) :] = rng.integers(180, 256)
    return np.clip(X + rng.normal(0, 8, X.shape), 0, 255).astype(np.uint8).reshape(n, 144), y


@pytest.mark.parametrize("options", [{}, {"loss": "binary_cross_entropy"}, {"activation": "sigmoid"}])
def test_raw_pixels_that_teach_nothing_are_told(backend, options):
    X, y = (DIGITS.data * 15.9).astype(np.uint8), DIGITS.target
    mlp = classifier(sizes=(64, 50, 10), backend=backend, seed=1, **options)
    with pytest.warns(RuntimeWarning, match=r"inputs are 0 to 254, far from unit scale: input_scale=1/255") as told:
        mlp.fit(X, y, epochs=5, optimizer=Sgd(0.1, 0.9))
    assert len(told) == 1
    assert told[0].filename == __file__
    assert mlp.score(X, y) < 0.3
    scaled = classifier(sizes=(64, 50, 10), backend=backend, seed=1, input_scale=1 / 255, **options)
    scaled.fit(X, y, epochs=5, optimizer=Sgd(0.1, 0.9))  # as advised, and no warning
    assert scaled.score(X, y) > 0.8


@pytest.mark.parametrize("factor", [1e6, 1e-9])
def test_other_inputs_far_from_unit_scale_are_told(factor):
    X = DIGITS.data / 16 * factor
    mlp = classifier(sizes=(64, 30, 10), backend="cpu", seed=1)
    with pytest.warns(RuntimeWarning, match=f"far from unit scale: input_scale={re.escape(f'{1 / factor:.2g}')}"):
        mlp.fit(X, DIGITS.target, epochs=3, optimizer=Sgd(0.1 if factor < 1 else 1e-20))


def test_many_calls_of_one_step_each_are_told_as_well():
    """As the lab trains, and no more than a few times."""
    rng = np.random.default_rng(0)
    X, labels = rng.integers(0, 256, (60, 50)).astype(np.uint8), rng.integers(0, 4, 60)
    mlp = Mlp([50, 30, 4], activation="relu", output="softmax", seed=0, backend="numpy")

    def train(times):
        for _ in range(times):
            mlp.train(X, labels, 1)

    with pytest.warns(RuntimeWarning, match="input_scale=1/255") as told:
        train(120)
    assert len(told) <= 2


@pytest.mark.parametrize(
    "values",
    [[[np.timedelta64(1, "D"), 1.5]], [[np.timedelta64(1, "D"), np.timedelta64(1, "h")]], [[Decimal("sNaN"), 1]]],
)
def test_objects_that_are_no_numbers_are_refused_by_name(values):
    mlp = Mlp([2, 2, 1], backend="numpy")
    with pytest.raises(ValueError, match="X"):
        mlp.classify(np.array(values, object))


def test_raw_pixels_that_teach_something_are_not_told():
    X, y = pixels()
    for options in ({}, {"activation": "sigmoid", "loss": "cross_entropy"}):
        mlp = Mlp([144, 30, 4], **options, seed=1, backend="cpu")
        mlp.fit(X, y, epochs=20, optimizer=Adam(0.01))
        assert mlp.score(X, y) > 0.6
    lab = Mlp([144, 30, 4], seed=1, backend="cpu")
    lab.train(X, np.eye(4)[y], 100)
    assert lab.score(X, y) > 0.6


def test_noise_of_unit_scale_is_not_told_of():
    rng = np.random.default_rng(0)
    mlp = classifier(backend="cpu", seed=1)
    mlp.fit(rng.normal(size=(500, 3)), rng.integers(0, 4, 500), epochs=10)


@pytest.fixture(scope="module")
def digits_0_to_255():
    X, y = pixels()
    mlp = classifier(sizes=(144, 30, 4), backend="cpu", seed=1, input_scale=1 / 255)
    mlp.fit(X, y, epochs=5, optimizer=Adam(0.01))
    return mlp


@pytest.mark.parametrize("name", ["classify", "predict", "evaluate", "score"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X / 255, "X holds 0 to 1, but the network was trained on inputs of 0 to 255"),
        (lambda X: (X / 255).astype(np.float32), "X holds 0 to 1, but"),
        (lambda X: X.astype(int) * 255, "X holds 0 to 6.502e[+]04, but"),
        (lambda X: 255 - X, r"X looks inverted.* 255 - X, or --invert at the command line"),
        (lambda X: 230 - 0.8 * X, r"X looks inverted"),
    ],
)
def test_other_scales_and_inverted_images_are_told(digits_0_to_255, name, spoil, message):
    X, y = pixels(50, seed=1)
    given = (y,) if name in ("evaluate", "score") else ()
    call = getattr(digits_0_to_255, name)
    with pytest.warns(RuntimeWarning, match=message) as told:
        call(spoil(X), *given)
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.fixture
def command(digits_0_to_255, tmp_path, capsys):
    """`fastmlp predict` for a network of pixels of 0 to so many levels; gives the labels and standard error."""

    def run(images, *options, levels=255):
        mlp = copy.copy(digits_0_to_255)
        mlp.metadata = {"levels": levels}
        mlp.save(tmp_path / "model.safetensors")
        np.save(tmp_path / "images.npy", images)
        with warnings.catch_warnings(action="always"):
            code = cli.main(["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "images.npy"), *options])
        output, errors = capsys.readouterr()
        assert code == 0, errors
        return [int(line[0]) for line in output.splitlines()], errors

    return run


@pytest.mark.parametrize("spoil", [lambda X: 255 - X, lambda X: 255.0 - X[:1]], ids=["all", "one"])
def test_the_command_names_invert_and_invert_helps(command, spoil):
    X, _ = pixels(20, seed=1)
    right, errors = command(X)
    assert errors == ""
    _, errors = command(spoil(X))
    (line,) = errors.splitlines()
    assert re.match(r"warning: \S+images\.npy looks inverted", line)
    assert line.endswith(", give --invert")
    labels, errors = command(spoil(X), "--invert")
    assert (labels, errors) == (right[: len(labels)], "")
    _, errors = command(X, "--invert")
    assert "images.npy looks inverted" in errors
    assert errors.endswith("; leave --invert out\n")


def test_the_command_names_the_scale(command):
    X, _ = pixels(20, seed=1)
    for images in (X / 255, (X > 128).astype(np.uint8)):
        _, errors = command(images)
        (line,) = errors.splitlines()
        assert "images.npy holds 0 to 1, but the network was trained on inputs of 0 to 255" in line


@pytest.mark.parametrize("levels", [200, 16, 200.5, 1000])
def test_invert_does_not_wrap(command, levels):
    """Pixels beyond the range, or a range beyond uint8: what comes out is what comes out for floats."""
    X, _ = pixels(20, seed=1)
    expected = command(X.astype(float), "--invert", levels=levels)
    assert command(X, "--invert", levels=levels) == expected
    assert command(X.astype(np.int16), "--invert", levels=levels) == expected


def test_a_single_image_is_looked_at_by_classify(digits_0_to_255):
    X, _ = pixels(50, seed=1)
    for spoiled in (X / 255, 255 - X):
        with pytest.warns(RuntimeWarning, match="X (holds|looks)"):
            digits_0_to_255.classify(spoiled[7:8])


def test_the_reverse_is_told_too():
    X, y = pixels()
    mlp = classifier(sizes=(144, 30, 4), backend="cpu", seed=1)
    mlp.fit(1 - X / 255, y, epochs=2)
    with pytest.warns(RuntimeWarning, match="X holds 0 to 255, but the network was trained on inputs of 0 to 1"):
        mlp.classify(X)
    with pytest.warns(RuntimeWarning, match="X looks inverted.* give 1 - X"):
        mlp.classify(X / 255)
    with pytest.warns(RuntimeWarning, match="validation X holds 0 to 255, but"):
        mlp.fit(1 - X / 255, y, epochs=1, validation=(X, y))


def test_ordinary_inputs_are_not_told_of(digits_0_to_255):
    X, y = pixels(400, seed=2)
    for image in X[:100]:
        digits_0_to_255.classify(image[None])
    digits_0_to_255.score(X, y)
    digits_0_to_255.predict(np.zeros((3, 144), np.uint8))  # blank
    digits_0_to_255.predict(X // 3)  # dim
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.exponential, rng.standard_cauchy, rng.random):
        for n_in in (1, 3, 50):
            mlp = classifier(sizes=(n_in, 8, 4), backend="numpy", seed=1)
            mlp.fit(draw(size=(200, n_in)), rng.integers(0, 4, 200), epochs=1, optimizer=Sgd(1e-9))
            mlp.classify(np.array([draw(size=n_in)]))


def test_a_handful_of_samples_tells_nothing():
    mlp = classifier(backend="numpy", seed=1)
    mlp.fit(np.eye(3), [0, 1, 2], epochs=1)
    mlp.classify(1000 * np.ones((2, 3)))


def test_what_was_seen_goes_with_copies_and_files_and_ends_with_new_weights(digits_0_to_255, tmp_path):
    X, _ = pixels(20, seed=1)
    digits_0_to_255.save(tmp_path / "model.safetensors")
    loaded = Mlp.load(tmp_path / "model.safetensors", backend="cpu")
    for mlp in (copy.copy(digits_0_to_255), loaded):
        with pytest.warns(RuntimeWarning, match="X looks inverted"):
            mlp.classify(255 - X)
        mlp.initialize_weights()
        mlp.classify(255 - X)
