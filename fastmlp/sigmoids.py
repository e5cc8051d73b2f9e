"""Sigmoids: S-shaped functions with their derivatives, as one would draw them on a blackboard.

Each is odd but the logistic one, rises from one limit to the other, and is steepest at 0. Those that `Mlp` trains with
stand in `fastmlp.kernels.activations`; these are for looking at, and for checking derivatives by.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sigmoid:
    """One of the family.

    Parameters
    ----------
    formula : str
        The function, for people to read.
    value, derivative : function
        float64 array to float64 array of the same shape.
    limit : float
        The value far to the right.
    low : float, optional
        The value far to the left; -limit if it is left out.
    """

    formula: str
    value: Function
    derivative: Function
    limit: float = 1.0
    low: float | None = None

    def normalised(self, x: np.ndarray) -> np.ndarray:
        """The function moved and stretched so that its limits are -1 and 1, and its slope at 0 is 1."""
        low = -self.limit if self.low is None else self.low
        middle, half = (self.limit + low) / 2, (self.limit - low) / 2
        steepest = float(self.derivative(np.zeros(1))[0])
        return (self.value(x * half / steepest) - middle) / half


def logistic(x: np.ndarray) -> np.ndarray:
    """σ(x) = 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def logistic_derivative(x: np.ndarray) -> np.ndarray:
    """σ (1 - σ)."""
    return logistic(x) * (1 - logistic(x))


def smoothstep(x: np.ndarray) -> np.ndarray:
    """The cubic x (3 - x²) / 2 between -1 and 1, and constant beyond: its slope is 0 at both ends."""
    t = np.clip(x, -1, 1)
    return t * (3 - t**2) / 2


def smootherstep(x: np.ndarray) -> np.ndarray:
    """The quintic x (15 - 10 x² + 3 x⁴) / 8 between -1 and 1, constant beyond: smooth to the second derivative."""
    t = np.clip(x, -1, 1)
    return t * (15 - 10 * t**2 + 3 * t**4) / 8


#: name -> sigmoid; to add one, enter it here: the lab draws it and checks its derivative.
SIGMOIDS = {
    "logistic": Sigmoid("1 / (1 + e⁻ˣ)", logistic, logistic_derivative, low=0.0),
    "tanh": Sigmoid("tanh x", np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "arctan": Sigmoid("arctan x", np.arctan, lambda x: 1 / (1 + x**2), limit=math.pi / 2),
    "erf": Sigmoid("erf x", np.vectorize(math.erf), lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2))),
    "Gudermannian": Sigmoid(
        "2 arctan(tanh(x/2))", lambda x: 2 * np.arctan(np.tanh(x / 2)), lambda x: 1 / np.cosh(x), limit=math.pi / 2
    ),
    "algebraic": Sigmoid("x / √(1 + x²)", lambda x: x / np.sqrt(1 + x**2), lambda x: (1 + x**2) ** -1.5),
    "softsign": Sigmoid("x / (1 + |x|)", lambda x: x / (1 + abs(x)), lambda x: (1 + abs(x)) ** -2.0),
    "smoothstep": Sigmoid("x (3 − x²) / 2", smoothstep, lambda x: 1.5 * (1 - np.clip(x, -1, 1) ** 2)),
    "smootherstep": Sigmoid(
        "x (15 − 10x² + 3x⁴) / 8", smootherstep, lambda x: 15 / 8 * (1 - np.clip(x, -1, 1) ** 2) ** 2
    ),
}


def numerical_derivative(function: Function, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """The central difference (f(x + h) - f(x - h)) / 2h.

    Its error is about h² f‴/6 by the formula and ε f/h by rounding: around 1e-10 together for the default h in float64,
    where f is three times differentiable. Where f″ jumps, as softsign's does at 0, it is of the order of h.

    Parameters
    ----------
    function : callable
        Of an array, elementwise.
    x : ndarray of float64
    h : float, default 1e-5

    Returns
    -------
    ndarray, shaped like x
    """
    return (function(x + h) - function(x - h)) / (2 * h)
