"""Plain NumPy as a contender: the lab's program."""

import numpy as np

from fastmlp.bench.contender import Contender, Missing, Settings, lab_loss, limit_blas
from fastmlp.bench.work import Work


class NumpyLab(Contender):
    """The lab's program in plain NumPy, as its exercise has students write it."""

    label = "NumPy, lab's program"
    family = "NumPy"
    package = "numpy"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        if work.job != "lab" or work.activation != "sigmoid":
            raise Missing("does the lab's job alone, with sigmoids")
        limit_blas(settings["threads"])
        self.X, self.Y = work.load()
        self.weights = work.matrices()

    @staticmethod
    def sigmoid(z: np.ndarray) -> np.ndarray:
        """Logistic sigmoid; e^-z may overflow to infinity, which is right."""
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-z))

    def feedforward(self, X: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Activations, all but the outputs behind a column of ones; and the pre-activations of the layers after."""
        ones = np.ones((len(X), 1))
        A, Z = [np.hstack([ones, X])], []
        for layer, W in enumerate(self.weights):
            Z.append(A[-1] @ W.T)
            a = self.sigmoid(Z[-1])
            A.append(a if layer == len(self.weights) - 1 else np.hstack([ones, a]))
        return A, Z

    def backpropagation(self, X: np.ndarray, Y: np.ndarray) -> list[np.ndarray]:
        """Gradients of all weights."""
        A, Z = self.feedforward(X)
        delta = A[-1] - Y
        gradients = [delta.T @ A[-2] / len(X)]
        for layer in reversed(range(1, len(self.weights))):
            s = self.sigmoid(Z[layer - 1])
            delta = (delta @ self.weights[layer][:, 1:]) * (s * (1 - s))
            gradients.insert(0, delta.T @ A[layer - 1] / len(X))
        return gradients

    def run(self, steps: int) -> list[float]:
        """An iteration, a prediction, its loss."""
        losses = []
        for _ in range(steps):
            for W, gradient in zip(self.weights, self.backpropagation(self.X, self.Y), strict=True):
                W -= gradient
            losses.append(lab_loss(self.feedforward(self.X)[0][-1], self.Y))
        return losses
