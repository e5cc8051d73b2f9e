"""The fits of the suite "sklearn": scikit-learn's classifier and ours on the same data, for as many epochs."""

import time
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = ["EPOCHS", "fit"]

EPOCHS = {"mnist": 5, "mnist64": 5, "table": 10, "digits": 100, "iris": 200, "start": 5}


def fit(job: str, program: str, seed: int) -> dict[str, Any]:
    """Fit a classifier with its default settings, and score it on samples that it has not seen.

    Parameters
    ----------
    job : str
        Of `EPOCHS`.
    program : {"fastmlp", "scikit-learn", "scikit-learn, 1 thread"}
    seed : int

    Returns
    -------
    dict
        Seconds of the fit, the score, and the library's version.
    """
    home = import_module("fastmlp.estimators" if program == "fastmlp" else "sklearn.neural_network")
    threads = 1 if program.endswith("1 thread") else None
    train, test = data(job)

    def model(epochs: int) -> Any:
        return home.MLPClassifier(max_iter=epochs, tol=0.0, n_iter_no_change=epochs + 1, random_state=seed)

    with warnings.catch_warnings(), threadpool_limits(threads):  # of NumPy's library of matrix products
        warnings.simplefilter("ignore")  # that it has not converged
        if job != "start":
            model(1).fit(*(array[:500] for array in train))
        begin = time.perf_counter()
        fitted = model(EPOCHS[job]).fit(*train)
        seconds = time.perf_counter() - begin
    assert fitted.n_iter_ == EPOCHS[job], fitted.n_iter_
    package = "fastmlp" if program == "fastmlp" else "scikit-learn"
    return {"seconds": seconds, "score": float(fitted.score(*test)), "version": version(package)}


def data(job: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Samples to train with and to test with, scaled: float64, as most tables come, but of "mnist" float32.

    Raises
    ------
    FileNotFoundError
        If a job needs MNIST and that is not here.
    """
    if job in ("mnist", "mnist64"):
        from fastmlp.data import mnist

        found, dtype = mnist(download=False), "float32" if job == "mnist" else "float64"
        scaled = [images.astype(dtype) / 255 for images in (found.train_images, found.test_images)]
        return (scaled[0], found.train_labels), (scaled[1], found.test_labels)
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    if job == "table":
        X, y = datasets.make_classification(50_000, 30, n_informative=15, random_state=0)
    else:
        X, y = getattr(datasets, "load_digits" if job == "digits" else "load_iris")(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)
    mean, deviation = X_train.mean(0), X_train.std(0) + 1e-9
    return ((X_train - mean) / deviation, y_train), ((X_test - mean) / deviation, y_test)
