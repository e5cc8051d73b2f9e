"""Many networks at once: `fit_many` trains them side by side, and the other functions are thin on it.

scikit-learn's own GridSearchCV, cross_val_score and BaggingClassifier train `fastmlp.estimators` side by side as well,
in threads, for kernels hold no interpreter lock::

    with joblib.parallel_config(backend="threading", n_jobs=-1):
        GridSearchCV(MLPClassifier(), {"alpha": [1e-5, 1e-3, 0.1]}).fit(X, y)
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastmlp import checks
from fastmlp.callbacks import Callback, CallbackLike, callback_list
from fastmlp.history import History
from fastmlp.mlp import Mlp
from fastmlp.optimizers import Optimizer
from fastmlp.side_by_side import ManyBar, runs_of, train, train_in_jobs

__all__ = ["CrossValidation", "Ensemble", "Search", "bag", "cross_validate", "fit_many", "search"]

#: What of a setting of `search` goes to `fit_many`.
OF_FIT = frozenset({"optimizer", "batch_size", "shuffle"})


def fit_many(
    networks: Sequence[Mlp],
    X: ArrayLike,
    y: ArrayLike,
    *,
    samples: Sequence[ArrayLike | None] | None = None,
    sample_weight: ArrayLike | None = None,
    epochs: int | list[int] = 5,
    batch_size: int | list[int | None] | None = 32,
    optimizer: str | Optimizer | list[str | Optimizer] = "sgd",
    validation: tuple[ArrayLike, ArrayLike] | list[tuple[ArrayLike, ArrayLike] | None] | None = None,
    shuffle: bool | list[bool] = True,
    callbacks: CallbackLike | list[CallbackLike | Iterable[CallbackLike]] | None = None,
    progress: bool | None = None,
    threads: int | None = None,
    n_jobs: int | None = None,
) -> list[History]:
    """Train many networks on the same data, side by side: each in a thread of its own, as many at a time as threads.

    Each network becomes, to the bit, what `Mlp.fit` with the same arguments makes of it with ``threads=1``. They may
    differ in everything, also in the optimizers and the like: **a list gives each network its own**, one entry a
    network; anything else is for all.

    Parameters
    ----------
    networks : sequence of Mlp
        Each goes on from its present weights, as with `Mlp.fit`. Those of the backend "cpu" are trained side by side;
        others, and those with overridden methods, one after another.
    X : array-like, [n, n_in]
        As for `Mlp.fit`. Converted, where needed, once for all networks of a kind; never copied otherwise.
    y : array-like
        As for `Mlp.fit`.
    samples : sequence of array-like of int, optional
        For each network the indices of the samples that it is trained on, as for `Mlp.fit`, or None for all.
    sample_weight : array-like, [n], optional
        As for `Mlp.fit`, the same for all networks.
    epochs, batch_size, optimizer, validation, shuffle
        As for `Mlp.fit`, or a list with an entry for each network.
    callbacks : Callback, function or list, optional
        One that is told of the epochs of every network, or a list with what `Mlp.fit` takes for each network. They
        are called in the threads that train, one at a time. One that returns True ends that network's training; an
        error in one ends all and propagates.
    progress : bool, optional
        A progress bar over all networks: None for one on a terminal or in a notebook, True always, False never.
    threads : int, optional
        At most; by default as many as there are cores, and one in each job of ``n_jobs``.
    n_jobs : int, optional
        Share the networks out to so many jobs of joblib, -1 for as many as it has workers; each trains its part in this
        way. By default everything happens in this process. Within ``joblib.parallel_config(backend="dask")`` the
        workers are those of a Dask cluster (``pip install 'fastmlp[dask]'``), with "ray" those of Ray. Callbacks get
        copies of the networks then, in the workers; Ctrl-C raises KeyboardInterrupt and leaves all networks as they
        were.

    Returns
    -------
    list of History
        Of this call, one a network and in their order.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, before anything has changed.

    Warns
    -----
    RuntimeWarning
        As `Mlp.fit`, after all have ended. A network that diverges does not stop the others.

    Notes
    -----
    Ctrl-C ends all of them: finished epochs are kept, and the histories are returned with ``interrupted`` True. Epochs
    that take no more than some milliseconds and have neither callbacks nor a validation are trained several at a time,
    of which Ctrl-C undoes the ones under way.

    Networks wait for their turn as they are, and take no memory but their own. When fewer are left than there are
    threads, the other threads have nothing to do: shared out among them, a network's sums would be rounded otherwise.

    Examples
    --------
    >>> from fastmlp import Adam, Mlp
    >>> from fastmlp.many import fit_many
    >>> X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> networks = [Mlp([2, 8, 2], activation="tanh", output="softmax", seed=seed) for seed in range(10)]
    >>> histories = fit_many(networks, X, y, epochs=500, optimizer=Adam(0.02))
    >>> networks[0].classify(X).tolist()
    [0, 1, 1, 0]
    """
    networks = checked_networks(networks)
    options = {
        "samples": checked_samples(samples),
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "validation": validation,
        "shuffle": shuffle,
        "callbacks": callbacks,
    }
    each_own = zip(*(each(name, value, len(networks)) for name, value in options.items()), strict=True)
    own = [dict(zip(options, values, strict=True)) for values in each_own]
    threads, n_jobs, shown = checks.threads(threads), checked_jobs(n_jobs), is_shown(progress)
    runs = runs_of(networks, (X, y, sample_weight), own)
    bar = ManyBar(runs) if shown else None
    if n_jobs is None:
        train(runs, threads, bar)
    else:
        train_in_jobs(runs, (X, y, sample_weight), own, threads or 1, bar, n_jobs)
    for i, run in enumerate(runs):
        run.note_inputs(stacklevel=3)
        if run.trouble:
            warnings.warn(f"networks[{i}]: {run.trouble}", RuntimeWarning, stacklevel=2)
    return [run.history for run in runs]


class CrossValidation(NamedTuple):
    """What `cross_validate` returns.

    Attributes
    ----------
    losses, accuracies : ndarray of float64, [folds]
        Of each network on the samples that it was not trained on; accuracies are nan where it does not classify.
    networks : list of Mlp
    histories : list of History
    tests : list of ndarray of int64
        The indices of the samples that each was evaluated on.
    """

    losses: np.ndarray
    accuracies: np.ndarray
    networks: list[Mlp]
    histories: list[History]
    tests: list[np.ndarray]


def cross_validate(
    make: Callable[[int], Mlp],
    X: ArrayLike,
    y: ArrayLike,
    *,
    folds: int = 5,
    seed: int | None = None,
    **options: Any,
) -> CrossValidation:
    """Train a network for each fold of the data on all the other folds, all side by side, and evaluate it on that one.

    Folds are drawn at random; where the targets stand for classes, each has its share of every class.

    Parameters
    ----------
    make : callable
        Given the fold's number, from 0, it returns a new `Mlp`.
    X, y : array-like
        As for `Mlp.fit`.
    folds : int, default 5
        2 or more.
    seed : int, optional
        For the folds.
    **options
        Of `fit_many`: epochs, optimizer and so on.

    Returns
    -------
    CrossValidation
        (losses, accuracies, networks, histories, tests).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import Mlp
    >>> from fastmlp.many import cross_validate
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> found = cross_validate(lambda fold: Mlp([1, 8, 1], seed=fold), X, X[:, 0] > 0, epochs=200, optimizer="adam")
    >>> bool(found.accuracies.mean() > 0.9)
    True
    """
    folds, seed = checks.whole("folds", folds, 2), checks.seed(seed)
    networks = made(make, folds)
    X, y = checks.numeric("X", X), checks.numeric("y", y)
    parts = split("folds", networks[0], X, y, folds, seed)
    histories = fit_many(networks, X, y, samples=[train for train, _ in parts], **options)
    tests = [test for _, test in parts]
    found = [mlp.evaluate(X[test], y[test]) for mlp, test in zip(networks, tests, strict=True)]
    losses, accuracies = np.array(found).T
    return CrossValidation(losses, accuracies, networks, histories, tests)


class Ensemble:
    """Networks that answer together: their outputs' mean.

    Parameters
    ----------
    networks : sequence of Mlp
        Of the same numbers of inputs and outputs.

    Attributes
    ----------
    networks : list of Mlp
    histories : list of History
        Of their training by `bag`; otherwise empty.

    Raises
    ------
    TypeError, ValueError
        If they are something else.
    """

    def __init__(self, networks: Sequence[Mlp], histories: Sequence[History] = ()) -> None:
        self.networks, self.histories = checked_networks(networks), list(histories)
        ends = {(mlp.size_layers[0], mlp.size_layers[-1]) for mlp in self.networks}
        if len(ends) > 1:
            raise ValueError(f"networks have (inputs, outputs) of {sorted(ends)}; expected the same of all")

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The mean of the networks' outputs, [n, n_out]: of probabilities after softmax or sigmoid.

        Parameters
        ----------
        X : array-like, [n, n_in]
            As for `Mlp.predict`, with its warnings.
        """
        total = self.networks[0].predict(X).astype(np.float64)
        for mlp in self.networks[1:]:
            total += mlp.predict(X)
        return total / len(self.networks)

    def classify(self, X: ArrayLike) -> np.ndarray:
        """Labels, int64 [n]: the largest mean output's index; with one output, 1 where it is above ½.

        Parameters
        ----------
        X : array-like, [n, n_in]

        Raises
        ------
        ValueError
            If a network does not classify.
        """
        for mlp in self.networks:
            mlp._check_classifies("classify")
        outputs = self.predict(checks.inputs(X, self.networks[0].network))
        return (outputs[:, 0] > 0.5).astype(np.int64) if outputs.shape[1] == 1 else outputs.argmax(1)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The share of samples classified rightly, 0 to 1.

        Parameters
        ----------
        X : array-like, [n, n_in]
        y : array-like of int, [n]
            Class labels.
        """
        labels, answers = checks.numeric("y", y), self.classify(X)
        if labels.shape != answers.shape:
            raise ValueError(f"y has shape {list(labels.shape)}; expected labels [{len(answers)}]")
        return float((labels == answers).mean())


def bag(
    make: Callable[[int], Mlp],
    X: ArrayLike,
    y: ArrayLike,
    *,
    size: int = 20,
    share: float = 1.0,
    replace: bool = True,
    seed: int | None = None,
    **options: Any,
) -> Ensemble:
    """Train networks side by side, each on random samples of its own, and have them answer together.

    Parameters
    ----------
    make : callable
        Given the network's number, from 0, it returns a new `Mlp`.
    X, y : array-like
        As for `Mlp.fit`.
    size : int, default 20
        How many networks.
    share : float, default 1.0
        How many samples each draws, as a share of all; above 0, and 1 at most.
    replace : bool, default True
        Whether a sample may be drawn more than once (a bootstrap sample).
    seed : int, optional
        For the draws.
    **options
        Of `fit_many`: epochs, optimizer and so on.

    Returns
    -------
    Ensemble

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """
    size, replace = checks.whole("size", size), checks.flag("replace", replace)
    if not 0 < checks.number("share", share) <= 1:
        raise ValueError(f"share={share}; expected a number above 0, and 1 at most")
    rng = np.random.default_rng(checks.seed(seed))
    X = checks.numeric("X", X)
    n = len(X) if X.ndim else 0
    drawn = max(round(share * n), 1)
    small = np.min_scalar_type(n)  # they wait for their networks' turns
    samples = [rng.choice(n, drawn, replace).astype(small) for _ in range(size)] if n else None
    networks = made(make, size)
    return Ensemble(networks, fit_many(networks, X, y, samples=samples, **options))


class Search(NamedTuple):
    """What `search` returns.

    Attributes
    ----------
    parameters : dict
        The best setting.
    network : Mlp
        Trained with it.
    trials : list of dict
        All settings, from the best of the last round to the worst of the first: "parameters", "epochs" (how many it
        got), "loss" and "accuracy" on the samples held out, "history".
    """

    parameters: dict[str, Any]
    network: Mlp
    trials: list[dict[str, Any]]


def search(
    make: Callable[..., Mlp],
    parameters: Mapping[str, Any],
    X: ArrayLike,
    y: ArrayLike,
    *,
    draws: int | None = None,
    epochs: int = 27,
    factor: int = 3,
    folds: int = 5,
    seed: int | None = None,
    **options: Any,
) -> Search:
    """Find the best of many settings by successive halving: all are trained a little, the better ones go on.

    The networks of the last round are trained for ``epochs`` epochs, those that leave a round before for a
    ``factor``-th of them, and so on, one epoch at least. Each round keeps one in ``factor``, by the loss on samples
    held out.

    Parameters
    ----------
    make : callable
        Given a setting as keywords, it returns a new `Mlp`.
    parameters : mapping
        From names to lists of values: all combinations are tried. "optimizer", "batch_size" and "shuffle" go to
        `fit_many`, all others to ``make``. With ``draws``, distributions of scipy.stats may stand for lists.
    X, y : array-like
        As for `Mlp.fit`.
    draws : int, optional
        Try so many random settings instead of all.
    epochs : int, default 27
        Of the networks that get most.
    factor : int, default 3
        2 or more.
    folds : int, default 5
        One in so many samples is held out, of each class where there are classes.
    seed : int, optional
        For the draws and the samples held out.
    **options
        Of `fit_many`.

    Returns
    -------
    Search
        (parameters, network, trials).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """
    epochs, factor = checks.whole("epochs", epochs), checks.whole("factor", factor, 2)
    settings = all_settings(parameters, draws, checks.seed(seed))
    networks = made(lambda i: make(**{k: v for k, v in settings[i].items() if k not in OF_FIT}), len(settings))
    X, y = checks.numeric("X", X), checks.numeric("y", y)
    train, test = split("folds", networks[0], X, y, checks.whole("folds", folds, 2), seed)[0]
    held_out, trained = (X[test], y[test]), 0
    trials: list[dict[str, Any]] = [{"parameters": setting} for setting in settings]
    left = list(zip(trials, networks, strict=True))
    gone: list[tuple[dict[str, Any], Mlp]] = []
    for level in reversed(range(1 + int(math.log(len(settings) + 0.5, factor)))):
        goal = max(epochs // factor**level, 1)
        if goal > trained:
            names = {name for trial, _ in left for name in trial["parameters"]} & OF_FIT
            own = {name: [trial["parameters"][name] for trial, _ in left] for name in names}
            going = [mlp for _, mlp in left]
            histories = fit_many(going, X, y, samples=[train] * len(left), epochs=goal - trained, **{**options, **own})
            trained = goal
            for trial, mlp in left:
                loss, accuracy = mlp.evaluate(*held_out)
                trial.update(epochs=len(mlp.history or ()), loss=loss, accuracy=accuracy, history=mlp.history)
            left.sort(key=lambda one: (math.isnan(one[0]["loss"]), one[0]["loss"]))
            if any(history.interrupted for history in histories):
                break
        kept = max(len(left) // factor, 1) if level else len(left)
        left, gone = left[:kept], left[kept:] + gone
    best, network = left[0]
    return Search(best["parameters"], network, [trial for trial, _ in left + gone])


# ------------------------------------------------------------------------------------------------------------- checks
def checked_networks(networks: Sequence[Mlp]) -> list[Mlp]:
    """The networks as a list of their own: one at least, and none of them twice."""
    expected = "expected a sequence of Mlp"
    found = list(checks.entries(networks, f"networks is a {type(networks).__name__}; {expected}"))
    if not found:
        raise ValueError(f"networks is empty; {expected}, one at least")
    places: dict[int, int] = {}
    for i, mlp in enumerate(found):
        if not isinstance(mlp, Mlp):
            raise TypeError(f"networks[{i}] is a {type(mlp).__name__}; {expected}")
        if (first := places.setdefault(id(mlp), i)) != i:
            raise ValueError(f"networks[{first}] and networks[{i}] are the same Mlp; expected different ones")
    return found


def each(name: str, value: Any, count: int) -> list:
    """What each of so many networks is given: a list holds an entry for each, anything else is for all."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries; expected {count}, one a network")
    return value


def checked_samples(samples: Sequence[ArrayLike | None] | None) -> list | None:
    """What each network is given for its samples, as a list; None for all."""
    if samples is None:
        return None
    expected = "expected a sequence with the indices for each network"
    return list(checks.entries(samples, f"samples is a {type(samples).__name__}; {expected}"))


def is_shown(progress: bool | None) -> bool:
    """Whether there is to be a progress bar."""
    if isinstance(progress, Callback):
        raise TypeError(f"progress={progress!r}; expected None, True or False")
    return bool(callback_list((), progress).members)


def checked_jobs(n_jobs: int | None) -> int | None:
    """None, or a number of jobs as joblib takes it: not 0."""
    if n_jobs is not None and checks.whole("n_jobs", n_jobs, -(10**6)) == 0:
        raise ValueError("n_jobs=0; expected 1 or more, or -1 for as many as there are workers")
    return n_jobs


def made(make: Callable[..., Mlp], count: int) -> list[Mlp]:
    """So many networks, made by the user's function."""
    if isinstance(make, Mlp) or not callable(make):
        raise TypeError(f"make is a {type(make).__name__}; expected a function of a number that returns an Mlp")
    networks = [make(i) for i in range(count)]
    for i, mlp in enumerate(networks):
        if not isinstance(mlp, Mlp):
            raise TypeError(f"make({i}) returns a {type(mlp).__name__}; expected an Mlp")
    return checked_networks(networks)


def classes_of(mlp: Mlp, Y: np.ndarray) -> np.ndarray | None:
    """The class of each sample, for targets as the kernels take them; None where they stand for no classes."""
    if not mlp.classifies:
        return None
    if Y.ndim == 1:
        return Y
    return Y[:, 0] if Y.shape[1] == 1 and np.isin(Y, (0, 1)).all() else None


def split(splits: str, mlp: Mlp, X: np.ndarray, y: np.ndarray, folds: int, seed: int | None) -> list[tuple]:
    """The samples of each fold, in random order and with the classes' shares where there are classes: (train, test).

    ``splits`` is what the user calls the number of folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    _, Y = mlp._data(X, y)
    classes = classes_of(mlp, Y)
    most = len(X) if classes is None else int(np.unique(classes, return_counts=True)[1].max())
    if folds > most:
        of = "samples" if classes is None else "samples that the largest class has"
        raise ValueError(f"{splits}={folds}; expected at most {most}, the number of {of}")
    if classes is None:
        return list(KFold(folds, shuffle=True, random_state=seed).split(X))
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, classes))


def all_settings(parameters: Mapping[str, Any], draws: int | None, seed: int | None) -> list[dict[str, Any]]:
    """All combinations of the values, or so many that are drawn."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    if not isinstance(parameters, Mapping) or not parameters:
        raise TypeError(f"parameters={parameters!r}; expected a mapping from names to lists of values")
    try:
        if draws is None:
            return list(ParameterGrid(dict(parameters)))
        draws = checks.whole("draws", draws)
        if not any(hasattr(values, "rvs") for values in parameters.values()):
            draws = min(draws, len(ParameterGrid(dict(parameters))))
        return list(ParameterSampler(dict(parameters), draws, random_state=seed))
    except (TypeError, ValueError) as error:
        error.add_note(f"The settings are from parameters={parameters!r}.")
        raise
