"""scikit-learn as a contender."""

import warnings
from itertools import pairwise

import numpy as np

from fastmlp.bench.contender import Contender, Missing, Settings, expect_training, limit_blas
from fastmlp.bench.work import Work


class ScikitLearn(Contender):
    """scikit-learn's MLPClassifier or MLPRegressor: `partial_fit` over all steps of a call at once."""

    label = "scikit-learn"
    family = "scikit-learn"
    package = "scikit-learn"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_training(work)
        limit_blas(settings["threads"])
        self.X, self.Y = work.load(shuffled=True)
        if work.loss == "mean_squared_error":
            self.Y = self.Y[:, 0] if self.Y.shape[1] == 1 else self.Y
        elif work.loss == "binary_cross_entropy":
            if work.sizes[-1] != 1:
                raise Missing("has no binary cross-entropy over several outputs that exclude one another")
            self.Y = self.Y[:, 0].astype(np.int32)
        self.model = self._model()
        self._set_weights()

    def _model(self):
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        work, rule = self.work, self.work.rule
        activations = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}
        if work.activation not in activations:
            raise Missing(f"has no activation {work.activation!r}")
        common: Settings = {
            "hidden_layer_sizes": work.sizes[1:-1],
            "activation": activations[work.activation],
            "batch_size": work.batch_size,
            "learning_rate_init": rule.learning_rate,
            "alpha": 0.0,
            "shuffle": False,
        }
        if rule.kind == "adam":
            raise Missing("adds Adam's epsilon before the bias correction, where fastmlp and PyTorch add it after")
        common |= {"solver": "sgd", "nesterovs_momentum": rule.kind == "nesterov"}
        common |= {"momentum": 0.0 if rule.kind == "plain" else rule.momentum}
        if work.loss == "mean_squared_error":
            if work.sizes[-1] != 1:
                raise Missing("takes the mean over outputs where fastmlp takes the sum")
            return MLPRegressor(**common)
        return MLPClassifier(**common)

    def _set_weights(self) -> None:
        """Have it make its arrays by one step, then put the initial weights and a fresh optimiser in their place."""
        first = self.X[: self.work.batch_size], self.Y[: self.work.batch_size]
        if self.work.loss == "mean_squared_error":
            self.model.partial_fit(*first)
        else:
            self.model.partial_fit(*first, classes=np.arange(max(self.work.sizes[-1], 2)))
        for own, bias, W in zip(self.model.coefs_, self.model.intercepts_, self.work.matrices(), strict=True):
            if own.dtype != W.dtype:
                raise Missing(f"computes in {own.dtype}")
            own[:], bias[:] = W[:, 1:].T, W[:, 0]
        for velocity in self.model._optimizer.velocities:
            velocity[:] = 0

    def prepare(self, steps: int) -> None:
        """Choose the samples: contiguous stretches of whole batches."""
        B = self.work.batch_size
        numbers = self.next_batches(steps)
        starts = [0, *(i for i in range(1, steps) if numbers[i] == 0), steps]
        self.stretches = [slice(numbers[i] * B, (numbers[i] + j - i) * B) for i, j in pairwise(starts)]

    def run(self, steps: int) -> list[float]:
        """One call for each stretch; it tells only the mean loss."""
        total = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stretch in self.stretches:
                self.model.partial_fit(self.X[stretch], self.Y[stretch])
                total += self.model.loss_ * (stretch.stop - stretch.start)
        return [total / (steps * self.work.batch_size)]
