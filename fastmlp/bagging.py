"""`fastmlp.many.bag` as an estimator of scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fastmlp.many import bag
from fastmlp.mlp import Mlp
from fastmlp.optimizers import Optimizer

__all__ = ["BagClassifier"]


class BagClassifier(ClassifierMixin, BaseEstimator):
    """Networks trained side by side, each on random samples of its own, that answer with their mean probabilities.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default (100,)
        Units of each hidden layer.
    activation : str, default "relu"
        Of the hidden layers, as for `fastmlp.Mlp`.
    n_estimators : int, default 20
        How many networks.
    max_samples : float, default 1.0
        How many samples each draws, as a share of all.
    bootstrap : bool, default True
        Whether a sample may be drawn more than once.
    epochs, batch_size, optimizer
        As for `fastmlp.Mlp.fit`; defaults 50, 32 and "adam".
    dtype : {"float32", "float64"}, default "float32"
        Of weights and arithmetic.
    threads : int, optional
        At most; by default as many as there are cores.
    random_state : int, RandomState or None, default None
        For the draws, the initial weights and the orders of samples.

    Attributes
    ----------
    classes_ : ndarray, [n_classes]
    ensemble_ : fastmlp.many.Ensemble
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had column names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp.bagging import BagClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> bool(BagClassifier((20,), random_state=0).fit(X, y).score(X, y) > 0.9)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        activation: str = "relu",
        *,
        n_estimators: int = 20,
        max_samples: float = 1.0,
        bootstrap: bool = True,
        epochs: int = 50,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "adam",
        dtype: str = "float32",
        threads: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self.n_estimators, self.max_samples, self.bootstrap = n_estimators, max_samples, bootstrap
        self.epochs, self.batch_size, self.optimizer = epochs, batch_size, optimizer
        self.dtype, self.threads, self.random_state = dtype, threads, random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "BagClassifier":
        """Train all networks anew.

        Parameters
        ----------
        X : array-like, [n, n_features]
        y : array-like, [n]
            Classes of any kind.

        Returns
        -------
        BagClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or parameter is not as described.
        """
        samples, y = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}; expected two at least")
        sizes, rng = (
            [samples.shape[1], *self.hidden_layer_sizes, len(self.classes_)],
            check_random_state(self.random_state),
        )
        first = int(rng.randint(2**31 - 1))

        def make(i: int) -> Mlp:
            seed = (first + i) % 2**32
            return Mlp(sizes, activation=self.activation, output="softmax", dtype=self.dtype, seed=seed)

        self.ensemble_ = bag(
            make,
            samples,
            labels,
            size=self.n_estimators,
            share=self.max_samples,
            replace=self.bootstrap,
            seed=first,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            threads=self.threads,
            progress=False,
        )
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The mean of the networks' probabilities, [n, n_classes], in the order of `classes_`.

        Parameters
        ----------
        X : array-like, [n, n_features]
        """
        check_is_fitted(self)
        return self.ensemble_.predict(validate_data(self, X, dtype=(np.float32, np.float64), reset=False))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable classes, [n].

        Parameters
        ----------
        X : array-like, [n, n_features]
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]
