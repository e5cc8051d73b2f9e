"""The lab's own composition in NumPy: how an `Mlp` computes once somebody has overridden a part of it.

feedforward calls sigmoid, backpropagation calls feedforward and sigmoid_derivative, train calls backpropagation, and
predict is what feedforward gives last. The compiled kernels know nothing of methods, so none of them is used then.

An overridden sigmoid is that of every layer, the output's too, whatever activations the network was given. Its
derivative is σ(z) (1 - σ(z)) unless that is overridden as well.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastmlp.kernels import Network, Rule, State, reference
from fastmlp.kernels.contract import composed, counts_sides, quiet

if TYPE_CHECKING:
    from fastmlp.mlp import Mlp

#: The methods whose overriding calls for this module. (What `initialize_weights` does is done once it has returned.)
METHODS = ("sigmoid", "sigmoid_derivative", "feedforward", "backpropagation")


class on_class_too:
    """A method that is called with None in place of the instance when it is called on the class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.__doc__ = function, function.__doc__
        self.on_class = partial(function, None)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self.on_class if instance is None else partial(self.function, instance)


def elementwise(mlp: "Mlp", name: str) -> Callable[[Any], Any]:
    """The network's sigmoid or sigmoid_derivative as a function of z, whether it was written f(self, z) or f(z)."""
    method = getattr(mlp, name)
    if not inspect.ismethod(method):
        return method
    wanted = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    return method if wanted else method.__func__  # Mlp.sigmoid = f, with f(z)


def activate(mlp: "Mlp", layer: int, z: np.ndarray) -> np.ndarray:
    """What a layer makes of its pre-activation."""
    if "sigmoid" in mlp._overridden:
        return np.asarray(elementwise(mlp, "sigmoid")(z), z.dtype)
    return reference.activate(mlp.network.activations[layer], z)[0]


def slope(mlp: "Mlp", layer: int, z: Any) -> np.ndarray:
    """The derivative of that."""
    if {"sigmoid", "sigmoid_derivative"} & set(mlp._overridden):
        return np.asarray(elementwise(mlp, "sigmoid_derivative")(z), z.dtype)
    value = reference.activate(mlp.network.activations[layer], z)[1]
    assert value is not None  # softmax has no slope; it goes with a loss that needs none
    return value


@quiet
def feedforward(mlp: "Mlp", X: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """See `Mlp.feedforward`."""
    network, dtype = mlp.network, np.dtype(mlp.network.dtype).type
    A: list[np.ndarray] = [X.astype(dtype) * dtype(network.input_scale) + dtype(network.input_shift)]
    Z: list[np.ndarray | None] = [None]
    for layer, weights in enumerate(mlp.weights):
        if network.bias:
            A[-1] = np.hstack([np.ones((len(X), 1), dtype), A[-1]])
        z = A[-1] @ weights.T
        Z.append(z)
        A.append(activate(mlp, layer, z))
    return A, Z


def output_delta(mlp: "Mlp", A: list[np.ndarray], Z: list, Y: np.ndarray) -> np.ndarray:
    """A - Y, and for the squared error its product with the slope of the output."""
    delta = A[-1] - Y
    return delta * slope(mlp, -1, Z[-1]) if mlp.network.loss == "mean_squared_error" else delta


@quiet
def mean_loss(network: Network, outputs: np.ndarray, Y: np.ndarray) -> float:
    """The loss from outputs that may come from anywhere: logarithms end at -100, as in PyTorch's BCELoss."""
    if network.loss == "mean_squared_error":
        return float(((outputs - Y) ** 2).sum(dtype=np.float64) / (2 * len(Y)))
    entries = Y * np.fmax(np.log(outputs), -100)
    if network.loss == "binary_cross_entropy":
        entries = entries + (1 - Y) * np.fmax(np.log(1 - outputs), -100)
    return float(-entries.sum(dtype=np.float64) / len(Y))


def packed(network: Network, gradients: Sequence[ArrayLike]) -> np.ndarray:
    """What an overridden backpropagation returned, as a flat array.

    Raises
    ------
    ValueError
        If it is not shaped like the weights.
    """
    flat = network.zeros()
    rows = network.rows(flat)
    is_list = isinstance(gradients, (list, tuple))
    given = [list(np.shape(gradient)) for gradient in gradients] if is_list else type(gradients).__name__
    expected = [list(row.shape) for row in rows]
    if given != expected:
        raise ValueError(f"backpropagation returned {given}; expected a list of arrays of shapes {expected}")
    for row, gradient in zip(rows, gradients, strict=True):
        row[...] = gradient
    return flat


@quiet
def train(mlp: "Mlp", X: np.ndarray, Y: np.ndarray, iterations: int, errors: list[float] | None) -> None:
    """See `Mlp.train`; Y are rows."""
    by_hand(mlp)
    gradients = mlp.network.zeros()
    for _ in range(iterations):
        gradients = packed(mlp.network, mlp.backpropagation(X, Y))
        parameters = mlp.parameters - gradients
        if not np.isfinite(parameters).all():
            warnings.warn("training stopped: a weight became nan or infinite", RuntimeWarning, stacklevel=3)
            return
        mlp.parameters[:] = parameters
        if errors is not None:
            errors.append(float(np.mean((mlp.predict(X) - Y) ** 2) / 2))
    mlp._note_step(gradients)


def by_hand(mlp: "Mlp") -> "ByHand":
    """What stands in for the backend of an `Mlp`; tells once that it is slow.

    Warns
    -----
    RuntimeWarning
        The first time for an `Mlp`.
    """
    if not mlp._told_slow:
        names = f"{type(mlp).__name__} overrides {', '.join(mlp._overridden)}"
        message = f"{names}: all is computed by these methods and NumPy, as in the lab, which is the slow way"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        mlp._told_slow = True
    return ByHand(mlp)


def refuse_overridden(mlp: "Mlp", what: str) -> None:
    """Refuse to describe a network by its activations if it does not compute by them.

    Raises
    ------
    ValueError
        If its sigmoid or feedforward is overridden.
    """
    names = [name for name in ("sigmoid", "feedforward") if name in mlp._overridden]
    if names:
        raise ValueError(f"{what} can't express {' and '.join(names)} as {type(mlp).__name__} overrides it")


class ByHand:
    """The functions of a backend (`fastmlp.kernels.contract`) that training and evaluation need, by those of an `Mlp`.

    Parameters
    ----------
    mlp : Mlp
    """

    def __init__(self, mlp: "Mlp") -> None:
        self.mlp = mlp

    def predict(self, network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None) -> np.ndarray:
        """Outputs [n, n_out]."""
        return np.asarray(self.mlp.feedforward(X)[0][-1])

    def evaluate(
        self, network: Network, parameters: np.ndarray, X: np.ndarray, Y: np.ndarray, **options: Any
    ) -> tuple[float, int]:
        """Mean loss, and the number of samples that are right."""
        sides = counts_sides(network, labels=Y.ndim == 1)
        outputs, Y = self.predict(network, parameters, X, threads=None), reference.targets(network, Y)
        return mean_loss(network, outputs, Y), int(reference.are_right(outputs, Y, sides).sum())

    def backpropagation(
        self, network: Network, parameters: np.ndarray, X: np.ndarray, Y: np.ndarray, *, threads: int | None
    ) -> tuple[np.ndarray, float]:
        """Flat gradients and the mean loss."""
        Y, first = reference.targets(network, Y), int(network.bias)
        A, Z = self.mlp.feedforward(X)
        delta = output_delta(self.mlp, A, Z, Y)
        weights, gradients = network.rows(parameters), network.zeros()
        for layer in reversed(range(network.layers)):
            gradient = network.rows(gradients)[layer]
            gradient[:] = delta.T @ A[layer] / len(X)
            gradient[:, first:] += parameters.dtype.type(network.l2 / len(X)) * weights[layer][:, first:]
            if layer:
                delta = (delta @ weights[layer][:, first:]) * slope(self.mlp, layer - 1, Z[layer])
        return gradients, mean_loss(network, A[-1], Y)

    def train_epoch(
        self,
        network: Network,
        rule: Rule,
        parameters: np.ndarray,
        state: State,
        X: np.ndarray,
        Y: np.ndarray,
        order: np.ndarray,
        batch_size: int,
        *,
        samples: np.ndarray | None = None,
        **options: Any,
    ) -> np.ndarray:
        """One step for each batch, in place; the mean loss of each, from a prediction of its own."""
        losses, order = [], composed(order, samples, len(X), batch_size)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            x, y = X[batch], reference.targets(network, Y[batch])
            losses.append(mean_loss(network, self.mlp.feedforward(x)[0][-1], y))
            gradients = packed(network, self.mlp.backpropagation(x, y))
            reference.update_weights(rule, parameters, gradients, state)
        return np.array(losses)
