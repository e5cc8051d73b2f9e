"""The contract in plain NumPy: short, obvious and slow. Every other backend is compared with it.

Shapes as in `fastmlp.kernels.contract`. ``threads`` is taken and left alone: NumPy's matrix library has its own.
"""

import numpy as np

from fastmlp.kernels.activations import ACTIVATIONS, SOFTMAX
from fastmlp.kernels.contract import (
    check_flat,
    check_inputs,
    check_state,
    check_weights,
    check_writable,
    composed,
    counts_sides,
    quiet,
)
from fastmlp.kernels.losses import CROSS_ENTROPY, LOSSES
from fastmlp.kernels.network import Network
from fastmlp.kernels.updates import UPDATES, Rule, State


@quiet
def forward(network: Network, parameters: np.ndarray, X: np.ndarray) -> tuple[list, list, list]:
    """Values with a leading column of ones (without bias: none), pre-activations and slopes, a list entry a layer.

    Entry 0 is the input's; the last values have no column of ones. The slope of softmax is None.
    """
    dtype = np.dtype(network.dtype).type
    values = [X.astype(dtype) * dtype(network.input_scale) + dtype(network.input_shift)]
    zs: list = [None]
    slopes: list = [None]
    for weights, activation in zip(network.rows(parameters), network.activations, strict=True):
        if network.bias:
            values[-1] = np.hstack([np.ones((len(X), 1), dtype), values[-1]])
        z = values[-1] @ weights.T
        value, slope = activate(activation, z)
        zs.append(z)
        values.append(value)
        slopes.append(slope)
    return values, zs, slopes


@quiet
def activate(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Value and slope of an activation by name, in the dtype of ``z``."""
    if name == SOFTMAX:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True), None
    value, slope = ACTIVATIONS[name](z, np)
    return value.astype(z.dtype), slope.astype(z.dtype)


def targets(network: Network, Y: np.ndarray) -> np.ndarray:
    """Y as targets T [n, n_out]: labels become rows with a one at their place."""
    n_out = network.sizes[-1]
    if Y.ndim == 2:
        return Y
    if n_out == 1:
        return Y[:, None].astype(network.dtype)
    return np.eye(n_out, dtype=network.dtype)[Y]


@quiet
def output_loss(
    network: Network,
    z: np.ndarray,
    a: np.ndarray,
    slope: np.ndarray | None,
    Y: np.ndarray,
    weights: np.ndarray | None = None,
):
    """Mean loss, and delta = ∂loss/∂z at the output."""
    n = len(z)
    if network.loss == CROSS_ENTROPY:
        top = z.max(1, keepdims=True)
        log_sum = top + np.log(np.exp(z - top).sum(1, keepdims=True))
        losses, deltas = Y * (log_sum - z), a - Y
    else:
        value, delta = LOSSES[network.loss]
        losses, deltas = value(z, a, Y, np), delta(a, slope, Y, np)
    if weights is None:
        return float(np.sum(losses, dtype=np.float64) / n), deltas / a.dtype.type(n)
    shares = weights / weights.sum()
    return float(shares @ losses.sum(1, dtype=np.float64)), deltas * shares[:, None].astype(a.dtype)


def feedforward(
    network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None
) -> list[np.ndarray]:
    """Activations T [n, units] of every layer after the input."""
    check_inputs(network, parameters, X)
    values, _, _ = forward(network, parameters, X)
    return [v[:, 1:] if network.bias else v for v in values[1:-1]] + [values[-1]]


def predict(network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Outputs T [n, n_out]."""
    return feedforward(network, parameters, X)[-1]


@quiet
def evaluate(
    network: Network,
    parameters: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    *,
    threads: int | None = None,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Mean loss, and how many of the samples are right: see `fastmlp.kernels.contract.counts_sides`."""
    check_inputs(network, parameters, X, Y)
    check_weights(weights, len(X))
    n = len(X)
    if weights is not None:
        X, Y, weights = with_weight(X, Y, weights)
        if not len(weights):
            return 0.0, 0.0
    values, zs, slopes = forward(network, parameters, X)
    sides = counts_sides(network, labels=Y.ndim == 1)
    Y = targets(network, Y)
    loss, _ = output_loss(network, zs[-1], values[-1], slopes[-1], Y, weights)
    right = are_right(values[-1], Y, sides)
    return loss, int(right.sum()) if weights is None else float(n * weights[right].sum() / weights.sum())


def with_weight(X: np.ndarray, Y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those samples, targets and weights whose weight is not 0."""
    kept = weights > 0
    return X[kept], Y[kept], weights[kept]


def are_right(outputs: np.ndarray, Y: np.ndarray, sides: bool) -> np.ndarray:
    """Which samples are right, bool [n]: by the side of ½ of every output, or by where the largest output is."""
    if sides:
        return ((outputs > 0.5) == (Y > 0.5)).all(1)
    return outputs.argmax(1) == Y.argmax(1)


@quiet
def backpropagation(
    network: Network,
    parameters: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    *,
    threads: int | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Gradients T [network.size] and the mean loss of X and Y as one batch."""
    check_inputs(network, parameters, X, Y)
    check_weights(weights, len(X))
    if weights is not None:
        X, Y, weights = with_weight(X, Y, weights)
        if not len(weights):
            return network.zeros(), 0.0
    values, zs, slopes = forward(network, parameters, X)
    loss, delta = output_loss(network, zs[-1], values[-1], slopes[-1], targets(network, Y), weights)
    matrices, gradients = network.rows(parameters), network.zeros()
    penalty = parameters.dtype.type(network.l2 / (len(X) if weights is None else weights.sum()))
    first = int(network.bias)  # the column where the weights begin
    for layer in reversed(range(network.layers)):
        gradient = network.rows(gradients)[layer]
        gradient[:] = delta.T @ values[layer]
        gradient[:, first:] += penalty * matrices[layer][:, first:]
        if layer:
            delta = (delta @ matrices[layer][:, first:]) * slopes[layer]
    return gradients, loss


class Hyperparameters:
    """The hyperparameters of a rule at a step, in a dtype, as `fastmlp.kernels.updates` reads them."""

    def __init__(self, rule: Rule, step: int, dtype: np.dtype) -> None:
        for name in ("learning_rate", "momentum", "beta1", "beta2", "epsilon"):
            setattr(self, name, dtype.type(getattr(rule, name)))
        self.correction1 = dtype.type(1 - rule.beta1**step)
        self.correction2 = dtype.type(1 - rule.beta2**step)


@quiet
def update_weights(
    rule: Rule, parameters: np.ndarray, gradients: np.ndarray, state: State, *, threads: int | None = None
) -> None:
    """One step of the rule, in place."""
    check_flat("parameters", parameters, parameters.size, str(parameters.dtype))
    check_flat("gradients", gradients, len(parameters), str(parameters.dtype))
    check_state(rule, state, parameters)
    check_writable(parameters=parameters)
    state.step += 1
    formula, _ = UPDATES[rule.kind]
    slots = state.slots.reshape(rule.slots, len(parameters))
    h = Hyperparameters(rule, int(state.step[0]), parameters.dtype)
    parameters[:], new = formula(parameters, gradients, tuple(slots), h, np)
    for slot, value in zip(slots, new, strict=True):
        slot[:] = value


@quiet
def train_epoch(
    network: Network,
    rule: Rule,
    parameters: np.ndarray,
    state: State,
    X: np.ndarray,
    Y: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    *,
    threads: int | None = None,
    errors: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """One step for each batch of ``order``, in place; the mean loss of each, float64."""
    check_inputs(network, parameters, X, Y)
    check_state(rule, state, parameters)
    check_writable(parameters=parameters)
    check_weights(weights, len(X), errors)
    order = composed(order, samples, len(X), batch_size)
    losses = np.zeros(-(-len(order) // batch_size))
    if errors is not None:
        check_flat("errors", errors, len(losses), "float64")
    for step, start in enumerate(range(0, len(order), batch_size)):
        batch = order[start : start + batch_size]
        if errors is not None:
            difference = predict(network, parameters, X[batch]) - targets(network, Y[batch])
            errors[step] = np.mean(difference * difference, dtype=np.float64) / 2
        own = None if weights is None else weights[batch]
        gradients, losses[step] = backpropagation(network, parameters, X[batch], Y[batch], weights=own)
        update_weights(rule, parameters, gradients, state)
    return losses
