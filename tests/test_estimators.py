"""fastmlp.estimators in scikit-learn's world."""

import _thread
import contextlib
import copy
import doctest
import os
import pickle
import runpy
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import sklearn
import sklearn.neural_network
from joblib import Parallel, delayed, parallel_config
from packaging.version import Version
from scipy import sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import Mlp, estimators
from fastmlp.estimators import MLPClassifier, MLPRegressor

ESTIMATORS = [MLPClassifier, MLPRegressor]
QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CHECKED = [
    estimator(**parameters)
    for estimator in ESTIMATORS
    for parameters in (
        {"max_iter": 100},
        {"max_iter": 100, "solver": "lbfgs"},
        {"max_iter": 100, "solver": "sgd", "learning_rate": "adaptive", "dtype": "float64"},
    )
]


CHECKS = parametrize_with_checks(CHECKED).mark


@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)  # an older one has a generator there
@QUIET
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.fixture
def iris() -> tuple[np.ndarray, np.ndarray]:
    X, y = datasets.load_iris(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(X))
    return X[order], y[order]


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    X, Y = datasets.make_regression(120, 6, n_targets=3, random_state=1)
    return X, Y / 50


# ---- the same as scikit-learn's ----


def difference(ours, theirs) -> float:
    """The largest, of all weights and biases."""
    pairs = zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True)
    return max(float(abs(one - other).max()) for one, other in pairs)


@QUIET
@pytest.mark.filterwarnings("ignore:scipy.optimize")  # of an older scikit-learn
@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "sgd"},
        {"solver": "sgd", "hidden_layer_sizes": (5, 4), "activation": "logistic", "batch_size": 32},
        {"solver": "sgd", "hidden_layer_sizes": 7, "activation": "tanh", "momentum": 0, "alpha": 1.0},
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "identity"},
        {"solver": "sgd", "hidden_layer_sizes": ()},
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1, "power_t": 0.3},
        {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "max_iter": 300, "tol": 1e-3},
        {"solver": "sgd", "early_stopping": True, "learning_rate_init": 0.01, "n_iter_no_change": 3},
        {"solver": "sgd", "momentum": 1.0, "max_iter": 5},
        {"solver": "lbfgs", "max_iter": 20},
        {"solver": "lbfgs", "max_iter": 20, "max_fun": 7, "alpha": 0.5},
        {"solver": "adam", "epsilon": 1e-20},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "MLPRegressor", "one output"])
def test_without_shuffling_it_computes_what_scikit_learn_does(kind, parameters, iris, table):
    X, y = iris
    if kind == "binary":
        y = y == 1
    elif kind == "multilabel":
        y = np.stack([y > 0, y < 2], 1).astype(int)
    elif kind not in ("multiclass", "binary"):
        X, y = table
        y = y if kind == "MLPRegressor" else y[:, 0]
    name = "MLPRegressor" if kind in ("MLPRegressor", "one output") else "MLPClassifier"
    settings = {"shuffle": False, "random_state": 3, "max_iter": 60, **parameters}
    theirs = getattr(sklearn.neural_network, name)(**settings).fit(X, y)
    ours = globals()[name](**settings, dtype="float64").fit(X, y)
    for attribute in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    # Of several outputs, scikit-learn's "lbfgs" minimises another loss than it takes the gradient of.
    if kind != "MLPRegressor" or settings["solver"] != "lbfgs":
        assert difference(ours, theirs) < 1e-6
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4, atol=1e-6)
    if settings["solver"] != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-3)
        if settings.get("early_stopping"):
            np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_)
            assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
        else:
            assert ours.best_loss_ == pytest.approx(theirs.best_loss_, rel=1e-4)


@QUIET
@pytest.mark.filterwarnings("ignore:scipy.optimize")  # of an older scikit-learn
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_poisson_loss_is_scikit_learns(solver, outputs, weighted):
    if Version(sklearn.__version__) < Version("1.7"):
        pytest.skip("scikit-learn has it from 1.7 on")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = rng.poisson(np.exp(X[:, :outputs] + 0.5)).squeeze()
    weights = rng.integers(1, 4, len(X)) if weighted else None
    settings = {"loss": "poisson", "solver": solver, "shuffle": False, "random_state": 3, "max_iter": 30}
    theirs = sklearn.neural_network.MLPRegressor(batch_size=25, **settings).fit(X, y, weights)
    ours = MLPRegressor(batch_size=25, dtype="float64", **settings).fit(X, y, weights)
    assert difference(ours, theirs) < 1e-6
    assert ours.out_activation_ == "exp"
    # Of an epoch's batches scikit-learn tells the plain mean, whatever they weigh.
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-2 if weighted and solver == "sgd" else 1e-4)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4)
    single = MLPRegressor(batch_size=25, early_stopping=True, **settings).fit(X, y, weights)
    assert single.predict(X).dtype == np.float32
    with pytest.raises(ValueError, match="out of the valid range"):
        ours.fit(X, y - 1)
    with pytest.raises(ValueError, match="the loss there was"):
        ours.set_params(warm_start=True, loss="squared_error").fit(X, y)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_and_defaults_are_those_of_scikit_learn(name):
    theirs = getattr(sklearn.neural_network, name)().get_params()
    ours = globals()[name]().get_params()
    assert {key: ours.get(key, "lacking") for key in theirs} == theirs


def test_a_model_as_good_as_scikit_learns(iris):
    X, y = iris
    scores = {}
    for module, cls in (("ours", MLPClassifier), ("theirs", sklearn.neural_network.MLPClassifier)):
        model = cls(max_iter=2000, learning_rate_init=0.01, random_state=0)
        scores[module] = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=5).mean()
    assert scores["ours"] > scores["theirs"] - 0.02


# ---- targets and inputs of any kind ----


@QUIET
@pytest.mark.parametrize(
    "labels",
    [
        ["setosa", "versicolor", "virginica"],
        [10, 20, 30],
        [-1, 1, 1],
        [False, True, True],
        ["no", "yes", "yes"],
        np.array(["a", "b", "c"], object),
        [1.0, 2.0, 4.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_labels_of_any_kind(labels, solver, iris):
    X, y = iris
    labels = np.asarray(labels)
    y = labels[y]
    model = MLPClassifier((20,), solver=solver, random_state=0, learning_rate_init=0.01).fit(X, y)
    assert list(model.classes_) == sorted(set(labels.tolist()))
    assert model.score(X, y) > 0.9
    assert type(model.predict(X).tolist()[0]) is type(y.tolist()[0])
    probabilities = model.predict_proba(X)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert (model.classes_[probabilities.argmax(1)] == model.predict(X)).all()
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(probabilities))


@QUIET
def test_logarithms_of_probabilities_are_finite_where_a_network_is_sure():
    X = np.array([[-1.0], [1.0]])
    for y in ([0, 1], [[0, 1], [1, 0]]):
        model = MLPClassifier((4,), solver="lbfgs", alpha=0, random_state=0).fit(X, y)
        for view in model.coefs_:
            view *= 100
        assert np.isfinite(model.predict_log_proba(X)).all()


@QUIET
def test_frames_and_names_of_features(iris):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    X, y = iris
    names = ["a", "b", "c", "d"]
    expected = MLPClassifier(max_iter=5, random_state=0).fit(X, y).predict_proba(X)
    text = np.array(["x", "y", "z"])[y]
    for frame, series in (
        (pandas.DataFrame(X, columns=names), pandas.Series),
        (polars.DataFrame(X, names), polars.Series),
    ):
        for targets in (series(y), series(text)):
            model = MLPClassifier(max_iter=5, random_state=0).fit(frame, targets)
            if hasattr(StandardScaler().fit(frame), "feature_names_in_"):  # an older one knows fewer frames
                assert model.feature_names_in_.tolist() == names
            np.testing.assert_array_equal(model.predict_proba(frame), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(pandas.DataFrame(X, columns=names[::-1]))


@QUIET
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_sparse_inputs(container, monkeypatch, iris):
    X, y = iris
    X = np.where(X > 2, X, 0)
    model = MLPClassifier(max_iter=5, random_state=0)
    expected = model.fit(X, y).predict_proba(X)
    monkeypatch.setattr("fastmlp.estimators.ROW_BYTES", 300)  # predicted in several parts
    np.testing.assert_allclose(model.fit(container(X), y).predict_proba(container(X)), expected, rtol=1e-5)


def test_a_sparse_matrix_too_large_to_be_made_dense_is_refused():
    X = sparse.csr_array((1_000_000, 1000))
    with pytest.raises(ValueError, match=r"X is sparse.*3\.7 GiB.*partial_fit"):
        MLPRegressor().fit(X, np.zeros(1_000_000))


@pytest.mark.parametrize("given", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("dtype", ["float32", "float64", np.float64, np.dtype("float32")])
@QUIET
def test_dtype_says_what_is_computed_in(given, dtype, iris):
    X, y = iris
    for model in (MLPClassifier(max_iter=2, dtype=dtype), MLPRegressor(max_iter=2, dtype=dtype)):
        model.fit(X.astype(given), y)
        assert {one.dtype for one in model.coefs_ + model.intercepts_} == {np.dtype(dtype)}
    assert model.predict(X.astype(given)).dtype == np.dtype(dtype)


@QUIET
def test_coefs_are_the_weights_of_the_network_inside(iris):
    X, y = iris
    model = MLPClassifier((6,), max_iter=20, random_state=0).fit(X, y)
    assert isinstance(model.mlp_, Mlp)
    assert [one.shape for one in model.coefs_] == [(4, 6), (6, 3)]
    assert [one.shape for one in model.intercepts_] == [(6,), (3,)]
    np.testing.assert_allclose(model.mlp_.predict(X), model.predict_proba(X), rtol=1e-6)
    model.coefs_[1] = np.zeros((6, 3))
    model.intercepts_[1][:] = 0
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3, rtol=1e-6)
    model.coefs_ = [np.ones((4, 6)), np.ones((6, 3))]
    assert (model.mlp_.weights[1][:, 1:] == 1).all()


# ---- weights ----


@QUIET
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_a_weight_counts_as_so_many_samples(cls, solver, iris):
    X, y = iris[0][:60], iris[1][:60]
    weights = np.random.RandomState(0).randint(0, 4, len(X))
    settings = {"solver": solver, "random_state": 0, "max_iter": 30, "dtype": "float64", "learning_rate_init": 0.01}
    weighted = cls(**settings).fit(X, y, sample_weight=weights)
    repeated = cls(**settings).fit(np.repeat(X, weights, 0), np.repeat(y, weights))
    np.testing.assert_allclose(
        getattr(weighted, "predict_proba", weighted.predict)(X),
        getattr(repeated, "predict_proba", repeated.predict)(X),
        rtol=1e-4,
    )
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-4)
    expected = cls.score(repeated, np.repeat(X, weights, 0), np.repeat(y, weights))
    assert weighted.score(X, y, sample_weight=weights) == pytest.approx(expected, abs=1e-4)


@QUIET
def test_class_weights_multiply_the_samples(iris):
    X, y = iris[0], np.array(["a", "b", "c"])[iris[1]]
    of_samples = np.random.RandomState(0).uniform(0.5, 2, len(X))
    of_classes = {"a": 1.0, "b": 5.0, "c": 0.2}
    settings = {"random_state": 0, "max_iter": 20}
    one = MLPClassifier(class_weight=of_classes, **settings).fit(X, y, of_samples)
    other = MLPClassifier(**settings).fit(X, y, of_samples * np.vectorize(of_classes.get)(y))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    balanced = MLPClassifier(class_weight="balanced", **settings).fit(X[20:], y[20:])
    counts = {label: (y[20:] == label).sum() for label in of_classes}
    given = MLPClassifier(class_weight={label: 130 / (3 * count) for label, count in counts.items()}, **settings).fit(
        X[20:], y[20:]
    )
    np.testing.assert_allclose(balanced.predict_proba(X), given.predict_proba(X), rtol=1e-4)
    times = np.random.RandomState(1).randint(0, 3, len(X))
    weighted = MLPClassifier(class_weight="balanced", solver="lbfgs", **settings).fit(X, y, times)
    repeated = clone(weighted).fit(np.repeat(X, times, 0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-4)
    with pytest.raises(ValueError, match="balanced"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=list(of_classes))


@pytest.mark.parametrize("weights", [-np.ones(150), np.ones(149), np.full(150, np.nan), np.zeros(150)])
def test_weights_that_are_none_are_refused(weights, iris):
    with pytest.raises(ValueError, match=r"(?i)weight"):
        MLPClassifier().fit(*iris, sample_weight=weights)


# ---- how training goes on and ends ----


@QUIET
def test_validation_data_is_scored_after_each_epoch(iris):
    X, y = iris
    held_out = X[100:], y[100:]
    model = MLPClassifier(max_iter=30, random_state=0, validation_data=held_out).fit(X[:100], y[:100])
    assert len(model.validation_scores_) == 30 == len(model.loss_curve_)
    assert model.validation_scores_[-1] == pytest.approx(model.score(*held_out))
    assert model.best_validation_score_ == max(model.validation_scores_)
    plain = MLPClassifier(max_iter=30, random_state=0).fit(X[:100], y[:100])
    np.testing.assert_array_equal(plain.predict_proba(X), model.predict_proba(X))  # it decides nothing
    stopped = MLPRegressor(
        max_iter=500, random_state=0, validation_data=held_out, early_stopping=True, learning_rate_init=0.01
    ).fit(X[:100], y[:100])
    assert stopped.n_iter_ < 500
    assert stopped.score(*held_out) == pytest.approx(max(stopped.validation_scores_))
    weighted = MLPRegressor(max_iter=3, validation_data=(*held_out, np.arange(50))).fit(X[:100], y[:100])
    assert weighted.validation_scores_[-1] == pytest.approx(weighted.score(*held_out, np.arange(50)), rel=1e-4)
    assert "validation_data" in clone(model).get_params()


def test_a_training_cut_short_warns(iris):
    for model in (MLPClassifier(max_iter=2), MLPRegressor(max_iter=2), MLPClassifier(max_iter=2, solver="lbfgs")):
        with pytest.warns(ConvergenceWarning) as told:
            model.fit(*iris)
        assert told[0].filename == __file__


def test_what_validation_data_can_not_be(iris):
    for wrong, message in ((iris[:1], "1 entries"), ((iris[0][:, :2], iris[1]), "2 features"), (3, "must be")):
        with pytest.raises(ValueError, match=message):
            MLPClassifier(validation_data=wrong).fit(*iris)
    with pytest.raises(ValueError, match="lbfgs"):
        MLPClassifier(validation_data=iris, solver="lbfgs").fit(*iris)


@QUIET
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_equal_seeds_give_equal_models(cls, iris):
    X, y = iris
    seeds = (7, 7, 8, np.random.RandomState(7))
    models = [cls(max_iter=12, batch_size=20, random_state=seed).fit(X, y) for seed in seeds]
    assert difference(models[0], models[1]) == difference(models[0], models[3]) == 0
    assert models[0].loss_curve_ == models[1].loss_curve_
    assert difference(models[0], models[2]) > 0


@QUIET
def test_warm_starts_and_partial_fits_go_on(iris):
    X, y = iris
    settings = {"random_state": 0, "batch_size": 20, "learning_rate_init": 0.01}
    model = MLPClassifier(max_iter=5, warm_start=True, **settings).fit(X, y)
    first = model.loss_
    model.fit(X, y)
    assert model.n_iter_ == 5
    assert len(model.loss_curve_) == 10
    assert model.t_ == 10 * len(X)
    assert model.loss_ < first
    with pytest.raises(ValueError, match="warm_start and partial_fit go on"):
        model.set_params(hidden_layer_sizes=(3,)).fit(X, y)
    partial = MLPClassifier(**settings)
    for _ in range(30):
        for start in range(0, 150, 50):
            partial.partial_fit(X[start : start + 50], y[start : start + 50], classes=[0, 1, 2])
    assert partial.score(X, y) > 0.9
    assert len(partial.loss_curve_) == 90
    with pytest.raises(ValueError, match="has classes not in"):
        partial.partial_fit(X, y + 1)


@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}, {"solver": "lbfgs", "max_fun": 10**9}], ids=str)
def test_ctrl_c_keeps_the_model(parameters, iris):
    X, y = iris
    X = np.tile(X, (30, 1))
    y = np.random.RandomState(0).randint(0, 3, len(X))  # nothing to converge to
    model = MLPClassifier((100, 100), tol=0, n_iter_no_change=np.inf, max_iter=10**6, random_state=0, **parameters)
    timer = Timer(1.0, _thread.interrupt_main)
    timer.start()
    start = time.perf_counter()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    timer.join()
    assert time.perf_counter() - start < 20
    assert 0 < model.n_iter_ < 10**6
    assert np.isfinite(model.loss_)
    assert model.predict(X[:5]).shape == (5,)
    if not parameters:
        assert len(model.loss_curve_) == model.n_iter_ == len(model.mlp_.history)


def test_numbers_too_large_are_refused_in_scikit_learns_words(iris):
    X, y = iris
    for model in (MLPClassifier(), MLPRegressor(), MLPRegressor(solver="lbfgs")):
        with pytest.raises(ValueError, match=r"Solver produced non-finite parameter weights.*preprocessed"):
            model.fit(X * 1e200, y)
    with pytest.raises(ValueError, match="non-finite"):
        MLPRegressor(solver="sgd", activation="identity", learning_rate_init=10.0).fit(X, y)
    with pytest.raises(ValueError, match="contains NaN"):
        MLPRegressor().fit(np.where(X > 5, np.nan, X), y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be > 0"),
        ({"activation": "softmax"}, "'activation' parameter of MLPRegressor must be a str among"),
        ({"dtype": "float16"}, "'dtype' parameter of MLPRegressor must be"),
        ({"threads": 0}, "'threads' parameter of MLPRegressor must be"),
        ({"backend": "abacus"}, "backend"),
        ({"loss": "absolute_error"}, "'loss' parameter"),
        ({"momentum": 1.1}, "'momentum' parameter"),
        ({"random_state": -1}, "'random_state' parameter|seed"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(parameters, message, iris):
    with pytest.raises(ValueError, match=message):
        MLPRegressor(**parameters).fit(*iris)


@QUIET
@pytest.mark.parametrize("activation", ["sigmoid", "leaky_relu"])
def test_fastmlps_own_activations(activation, iris):
    model = MLPClassifier(activation=activation, max_iter=3).fit(*iris)
    assert model.mlp_.network.activations[0] == activation


@QUIET
def test_the_backend_that_is_asked_for_computes(backend, iris):
    X, y = iris
    model = MLPClassifier(backend=backend, max_iter=20, shuffle=False, random_state=0).fit(X, y)
    assert model.mlp_.backend_name == backend
    reference = MLPClassifier(backend="numpy", max_iter=20, shuffle=False, random_state=0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), rtol=1e-3)


# ---- in scikit-learn's company ----


@QUIET
def test_copies_are_equal_and_share_nothing(iris):
    X, y = iris
    model = MLPClassifier((5,), max_iter=5, random_state=0, early_stopping=True).fit(X, y)
    expected = model.predict_proba(X)
    for made in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(made.predict_proba(X), expected)
        made.coefs_[0][:] = 0
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        made.set_params(early_stopping=False).partial_fit(X, y)
    fresh = clone(model)
    assert not hasattr(fresh, "coefs_")
    assert not hasattr(fresh, "mlp_")


@QUIET
def test_meta_estimators(iris):
    X, y = iris
    text = np.array(["a", "b", "c"])[y]
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=60, learning_rate_init=0.02, random_state=0))
    grid = {"mlpclassifier__alpha": [1e-4, 1e-2], "mlpclassifier__hidden_layer_sizes": [(4,), (8,)]}
    searches = [
        GridSearchCV(model, grid, cv=3),
        RandomizedSearchCV(model, grid, n_iter=2, cv=3, random_state=0),
        HalvingGridSearchCV(model, grid, cv=3, random_state=0),
        CalibratedClassifierCV(model, cv=3),
        VotingClassifier([("mlp", model), ("line", LogisticRegression())], voting="soft"),
        BaggingClassifier(model, n_estimators=3, random_state=0),
    ]
    for one in searches:
        assert one.fit(X, text).score(X, text) > 0.85, one
    assert cross_val_score(model, X, text, cv=3).mean() > 0.85
    importances = permutation_importance(searches[0], X, text, n_repeats=2, random_state=0).importances_mean
    assert importances.max() > 0.1


def busy_threads(repeats: int = 3) -> tuple[int, int]:
    """This process, and how many of its threads compute at a time while networks are fitted that are worth several."""
    X, y = datasets.make_classification(4000, 200, random_state=0)
    MLPClassifier((2,), max_iter=1).fit(X, y)  # compiled code is loaded
    counts, is_over = [], threading.Event()

    def watch():
        own = threading.get_native_id()
        while not is_over.wait(0.002):
            counts.append(len(running_threads() - {own}))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(repeats):
            MLPClassifier((400, 400), max_iter=2, batch_size=1000, random_state=0).fit(X, y).predict(X)
    finally:
        is_over.set()
        watcher.join()
    return os.getpid(), round(np.median([count for count in counts if count]))


def running_threads() -> set[int]:
    """The threads of this process that have or wait for a core."""
    found = set()
    for stat in Path("/proc/self/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if stat.read_text().rpartition(")")[2].split()[0] == "R":
                found.add(int(stat.parent.name))
    return found


ON_LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")


@ON_LINUX
def test_in_joblibs_processes_tasks_share_the_cores():
    found = Parallel(n_jobs=2)(delayed(run_quietly)(busy_threads) for _ in range(2))
    cores = len(os.sched_getaffinity(0))
    assert all(threads * 2 <= max(cores, 2) for _, threads in found), found
    assert os.getpid() not in dict(found)


@ON_LINUX
@QUIET
def test_in_joblibs_threads_tasks_compute_with_one_thread_each():
    with parallel_config(backend="threading", n_jobs=2):
        found = Parallel()(delayed(busy_threads)() for _ in range(2))
    assert all(threads <= 2 for _, threads in found), found  # both tasks' together


@ON_LINUX
def test_omp_num_threads_is_a_limit():
    code = "import test_estimators as t; print(t.run_quietly(t.busy_threads)[1])"
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300, capture_output=True)
    assert int(done.stdout) == 1


def run_quietly(function):
    """Call a function in another process, where pytest's filters don't reach."""
    import warnings

    warnings.simplefilter("ignore")
    return function()


@QUIET
def test_fits_in_threads_are_those_alone(iris):
    X, y = iris
    models = [MLPClassifier(max_iter=20, batch_size=30, random_state=seed, threads=1) for seed in range(4)]
    alone = [clone(model).fit(X, y).predict_proba(X) for model in models]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda model: model.fit(X, y).predict_proba(X), models))
    np.testing.assert_array_equal(alone, together)


def test_importing_fastmlp_does_not_import_scikit_learn():
    code = "import sys, fastmlp; assert 'sklearn' not in sys.modules; fastmlp.estimators.MLPClassifier"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_docstrings_examples():
    done = doctest.testmod(estimators)
    assert done.attempted > 0 == done.failed


@pytest.mark.parametrize("name", ["import_swap", "calibrated_pipeline"])
def test_examples(name, capsys):
    pytest.importorskip("pandas")
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / f"{name}.py"), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out
