"""The contract on the GPU: arrays are checked and brought there, a kernel is chosen and launched, results are fetched.

Every function takes NumPy arrays and device arrays alike. What is a NumPy array is copied to the GPU for the call, and
back if the call changes it; a device array is used, and changed, where it is.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastmlp.kernels.contract import Shares, check_weights, composed, shares_of
from fastmlp.kernels.cuda import arguments, launch, memory
from fastmlp.kernels.cuda.device import Queue, current, rehearsal
from fastmlp.kernels.cuda.records import Arrays
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import Rule, State

_building = threading.Lock()


@contextmanager
def at_work() -> Iterator[Queue]:
    """The calling thread's queue, its GPU made the thread's own."""
    queue = current()
    with queue.device.active():
        yield queue


def _bring_back(on_host: Any, on_device: Any, stream: Any) -> None:
    """Update a NumPy array from its copy on the GPU; a device array was changed where it is."""
    if isinstance(on_host, np.ndarray):
        memory.fetch(on_device, stream, on_host)


def _slots(rule: Rule, state: State) -> Any:
    """The state's arrays on the GPU; a rule that has none gets an entry that no kernel reads."""
    if rule.slots:
        return arguments.on_device(state.slots, "the optimizer's state")
    return memory.scratch(*current(), "no state", 1, state.slots.dtype)


def _samples(parameters: Any, X: Any) -> tuple[Any, Any]:
    """Parameters and samples on the GPU, flat."""
    return arguments.on_device(parameters, "the parameters"), arguments.on_device(X, "X")


def feedforward(network: Network, parameters: Any, X: Any) -> list[np.ndarray]:
    """Activations T [n, units] of every layer after the input."""
    n, sizes = arguments.inputs(network, parameters, X), network.sizes[1:]
    with at_work() as queue:
        outputs = memory.empty(n * sizes[-1], network.dtype, "the outputs")
        done = launch.all_samples(network, "feedforward", *_samples(parameters, X), None, queue, results=outputs)
        values = memory.fetch(done.values, queue.stream)
        ends = np.cumsum([n * width for width in done.widths])
        hidden = [
            part.reshape(n, -1)[:, :units].copy()
            for part, units in zip(np.split(values, ends[:-1])[:-1], sizes[:-1], strict=True)
        ]
        return [*hidden, memory.fetch(outputs, queue.stream).reshape(n, -1)]


def predict(network: Network, parameters: Any, X: Any) -> np.ndarray:
    """Outputs T [n, n_out]."""
    n = arguments.inputs(network, parameters, X)
    with at_work() as queue:
        outputs = memory.empty(n * network.sizes[-1], network.dtype, "the outputs")
        launch.all_samples(network, "predict", *_samples(parameters, X), None, queue, results=outputs)
        return memory.fetch(outputs, queue.stream).reshape(n, -1)


def _shares(network: Network, weights: np.ndarray | None) -> Shares | None:
    """The weights of all samples as one batch of those that have weight; None without weights."""
    if weights is None:
        return None
    return shares_of(network, weights, np.flatnonzero(weights), len(weights))


def evaluate(
    network: Network, parameters: Any, X: Any, Y: Any, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Mean loss, and how many of the samples are right: see `fastmlp.kernels.contract.counts_sides`."""
    n = arguments.inputs(network, parameters, X, Y)
    check_weights(weights, n)
    if weights is not None and not weights.any():
        return 0.0, 0.0
    with at_work() as queue:
        hits = memory.zeros(1, np.uint32, queue.stream)
        Y, shares = arguments.on_device(Y, "Y"), _shares(network, weights)
        done = launch.all_samples(network, "evaluate", *_samples(parameters, X), Y, queue, shares, hits=hits)
        losses = memory.fetch(done.losses, queue.stream).astype(np.float64)
        if weights is not None:
            wrong = float(memory.fetch(done.wrong, queue.stream).sum(dtype=np.float64))
            return float(losses.sum()), n * max(1 - wrong, 0.0)
        counts = np.minimum(done.rows, n - done.rows * np.arange(len(losses)))
        return float(losses @ counts / n), int(memory.fetch(hits, queue.stream)[0])


def backpropagation(
    network: Network, parameters: Any, X: Any, Y: Any, weights: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Gradients T [network.size] and the mean loss of X and Y as one batch."""
    check_weights(weights, arguments.inputs(network, parameters, X, Y))
    if weights is not None and not weights.any():
        return network.zeros(), 0.0
    with at_work() as queue:
        gradients = memory.zeros(network.size, network.dtype, queue.stream, "the gradients")
        Y, shares = arguments.on_device(Y, "Y"), _shares(network, weights)
        done = launch.all_samples(network, "gradient", *_samples(parameters, X), Y, queue, shares, results=gradients)
        loss = float(memory.fetch(done.losses, queue.stream)[0])
        return memory.fetch(gradients, queue.stream, network.zeros()), loss


def update_weights(rule: Rule, parameters: Any, gradients: Any, state: State) -> None:
    """One step of the rule, in place."""
    given = arguments.described(parameters)
    arguments.flat("parameters", parameters, given.size, str(given.dtype))
    arguments.flat("gradients", gradients, given.size, str(given.dtype))
    arguments.state(rule, state, parameters)
    arguments.writable(parameters=parameters)
    with at_work() as queue:
        w = arguments.on_device(parameters, "the parameters")
        g = arguments.on_device(gradients, "the gradients")
        slots = _slots(rule, state)
        launch.update_weights(rule, w, g, slots, int(state.step[0]), queue)
        _bring_back(parameters, w, queue.stream)
        if rule.slots:
            _bring_back(state.slots, slots, queue.stream)
    state.step += 1


def train_epoch(
    network: Network,
    rule: Rule,
    parameters: Any,
    state: State,
    X: Any,
    Y: Any,
    order: np.ndarray,
    batch_size: int,
    errors: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """One step for each batch of ``order``, in place; the mean loss of each, float64."""
    n = arguments.inputs(network, parameters, X, Y)
    arguments.state(rule, state, parameters)
    arguments.writable(parameters=parameters)
    check_weights(weights, n, errors)
    order = composed(order, samples, n, batch_size)
    batch = min(batch_size, len(order))
    steps = -(-len(order) // batch)
    weighted = None if weights is None else shares_of(network, weights, order, batch)
    if errors is not None:
        arguments.flat("errors", errors, steps, "float64")
        arguments.writable(errors=errors)
    with at_work() as queue:
        w, inputs = _samples(parameters, X)
        slots, targets = _slots(rule, state), arguments.on_device(Y, "Y")
        figures = memory.empty(2 * steps, network.dtype, "the losses")
        adam = memory.corrections(rule, int(state.step[0]), steps, network.dtype) if rule.kind == "adam" else None
        arrays = Arrays(
            w,
            slots,
            inputs,
            targets,
            memory.staged(order if weighted is None else weighted.order, np.int32, "the order"),
            figures[:steps],
            figures[steps:],
            figures if adam is None else memory.place(adam, queue.stream, "corrections"),
            *((figures, figures) if weighted is None else launch.placed(weighted, np.dtype(network.dtype))),
        )
        launch.train(network, rule, arrays, batch, queue, weighted is not None)
        found = memory.fetch(figures, queue.stream).astype(np.float64)
        _bring_back(parameters, w, queue.stream)
        if rule.slots:
            _bring_back(state.slots, slots, queue.stream)
    if errors is not None:
        errors[:] = found[steps:]
    state.step += steps
    return found[:steps]


def is_finite(array: Any) -> bool:
    """Whether a device array holds neither nan nor infinity."""
    with at_work() as queue:
        return launch.is_finite(arguments.on_device(array, "an array"), queue)


def prepare_for(network: Network, rule: Rule, X: Any, Y: Any, batch_size: int, weighted: bool = False) -> None:
    """Compile, or load from the cache, what training this network on this data needs, with weights or without.

    Kernels are made for exact sizes, the samples' dtype and the batch size: a rehearsal of an epoch of one batch, on
    arrays of one sample, asks for what an epoch will ask for.
    """
    T, labels = np.dtype(network.dtype), arguments.described(Y).ndim == 1
    with _building, rehearsal(), at_work() as queue:
        one = memory.empty(1, T)
        X = memory.empty(network.sizes[0], arguments.described(X).dtype)
        Y = memory.empty(1 if labels else network.sizes[-1], np.int32 if labels else T)
        order = memory.empty(batch_size, np.int32)
        arrays = Arrays(memory.empty(network.size, T), one, X, Y, order, one, one, one, one, one)
        launch.train(network, rule, arrays, batch_size, queue, weighted)


def warmup(dtypes: tuple[str, ...] = DTYPES) -> float:
    """Start the GPU and try a kernel of each dtype on it; returns the seconds it took."""
    start = time.perf_counter()
    for dtype in dtypes:
        network = Network.build([1, 1], loss="mean_squared_error", dtype=dtype)
        predict(network, network.zeros(), np.zeros((1, 1), dtype))
    return time.perf_counter() - start
