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

from fastmlp.kernels.cuda import arguments, finite, inference, large, memory, resident
from fastmlp.kernels.cuda.device import Queue, current, rehearsal
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
    device, stream = current()
    return memory.scratch(device, stream, ("no state", state.slots.dtype.str), 1, state.slots.dtype)


def feedforward(network: Network, parameters: Any, X: Any) -> list[np.ndarray]:
    """Activations T [n, units] of every layer after the input."""
    n, sizes = arguments.inputs(network, parameters, X), network.sizes[1:]
    with at_work() as (device, stream):
        out = memory.empty(n * sum(sizes), network.dtype, "the activations")
        inference.feedforward(device, network, *_samples(parameters, X), out, stream)
        flat = memory.fetch(out, stream)
    ends = np.cumsum([n * size for size in sizes])[:-1]
    return [part.reshape(n, size) for part, size in zip(np.split(flat, ends), sizes, strict=True)]


def predict(network: Network, parameters: Any, X: Any) -> np.ndarray:
    """Outputs T [n, n_out]."""
    n, n_out = arguments.inputs(network, parameters, X), network.sizes[-1]
    with at_work() as (device, stream):
        out = memory.empty(n * n_out, network.dtype, "the outputs")
        inference.predict(device, network, *_samples(parameters, X), out, stream)
        return memory.fetch(out, stream).reshape(n, n_out)


def evaluate(network: Network, parameters: Any, X: Any, Y: Any) -> tuple[float, int]:
    """Mean loss, and the number of samples that are right: see `fastmlp.kernels.contract.counts_sides`."""
    arguments.inputs(network, parameters, X, Y)
    with at_work() as (device, stream):
        loss = memory.zeros(1, network.dtype, stream)
        hits = memory.zeros(1, np.uint32, stream)
        inference.evaluate(device, network, *_samples(parameters, X), _targets(Y), loss, hits, stream)
        return float(memory.fetch(loss, stream)[0]), int(memory.fetch(hits, stream)[0])


def backpropagation(network: Network, parameters: Any, X: Any, Y: Any) -> tuple[np.ndarray, float]:
    """Gradients T [network.size] and the mean loss of X and Y as one batch."""
    arguments.inputs(network, parameters, X, Y)
    with at_work() as (device, stream):
        gradients = memory.zeros(network.size, network.dtype, stream, "the gradients")
        loss = memory.zeros(1, network.dtype, stream)
        inference.backpropagation(device, network, *_samples(parameters, X), _targets(Y), gradients, loss, stream)
        return memory.fetch(gradients, stream, network.zeros()), float(memory.fetch(loss, stream)[0])


def update_weights(rule: Rule, parameters: Any, gradients: Any, state: State) -> None:
    """One step of the rule, in place."""
    given = arguments.described(parameters)
    arguments.flat("parameters", parameters, given.size, str(given.dtype))
    arguments.flat("gradients", gradients, given.size, str(given.dtype))
    arguments.state(rule, state, parameters)
    arguments.writable(parameters=parameters)
    with at_work() as (device, stream):
        w = arguments.on_device(parameters, "the parameters")
        g = arguments.on_device(gradients, "the gradients")
        slots = _slots(rule, state)
        inference.update_weights(device, rule, w, g, slots, int(state.step[0]), stream)
        _bring_back(parameters, w, stream)
        if rule.slots:
            _bring_back(state.slots, slots, stream)
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
) -> np.ndarray:
    """One step for each batch of ``order``, in place; the mean loss of each, float64."""
    n = arguments.inputs(network, parameters, X, Y)
    arguments.state(rule, state, parameters)
    arguments.writable(parameters=parameters)
    arguments.order(order, n, batch_size)
    batches = -(-len(order) // batch_size)
    if errors is not None:
        arguments.flat("errors", errors, batches, "float64")
        arguments.writable(errors=errors)
    with at_work() as (device, stream):
        w, samples = _samples(parameters, X)
        slots, targets = _slots(rule, state), _targets(Y)
        figures = memory.empty((1 if errors is None else 2) * batches, network.dtype, "the losses")
        path = _path(network, rule, min(batch_size, len(order)), samples.dtype)
        path.train_epoch(
            device,
            network,
            rule,
            w,
            slots,
            int(state.step[0]),
            samples,
            targets,
            memory.staged(order, np.int32, "the order"),
            min(batch_size, len(order)),
            figures[:batches],
            None if errors is None else figures[batches:],
            stream,
        )
        found = memory.fetch(figures, stream).astype(np.float64)
        _bring_back(parameters, w, stream)
        if rule.slots:
            _bring_back(state.slots, slots, stream)
    if errors is not None:
        errors[:] = found[batches:]
    state.step += batches
    return found[:batches]


def _path(network: Network, rule: Rule, batch_size: int, samples: np.dtype) -> Any:
    """The module that trains: the one that keeps the weights in the multiprocessors, where they fit and it pays."""
    device, _ = current()
    return resident if resident.suits(device, network, rule, batch_size, samples) else large


def _samples(parameters: Any, X: Any) -> tuple[Any, Any]:
    """Parameters and samples on the GPU, flat."""
    return arguments.on_device(parameters, "the parameters"), arguments.on_device(X, "X")


def _targets(Y: Any) -> Any:
    return arguments.on_device(Y, "Y")


def is_finite(array: Any) -> bool:
    """Whether a device array holds neither nan nor infinity."""
    with at_work() as (device, stream):
        return finite.is_finite(device, arguments.on_device(array, "an array"), stream)


def prepare_for(network: Network, rule: Rule, X: Any, Y: Any, batch_size: int) -> None:
    """Compile, or load from the cache, what training this network on this data needs.

    Kernels are written for exact shapes, the samples' dtype and the batch size: a rehearsal of an epoch of one batch,
    on arrays of one sample, asks for what an epoch will ask for.
    """
    few = memory.empty((1, network.sizes[0]), arguments.described(X).dtype)
    labels = arguments.described(Y).ndim == 1
    with _building, rehearsal(), at_work() as (device, stream):
        size = 1 if labels else network.sizes[-1]
        _path(network, rule, batch_size, few.dtype).train_epoch(
            device,
            network,
            rule,
            memory.empty(network.size, network.dtype),
            memory.empty(max(rule.slots * network.size, 1), network.dtype),
            0,
            few.reshape(few.size),
            memory.empty(size, np.int32 if labels else network.dtype),
            memory.empty(batch_size, np.int32),
            batch_size,
            memory.empty(1, network.dtype),
            None,
            stream,
        )


def warmup(dtypes: tuple[str, ...] = DTYPES) -> float:
    """Start the GPU and try a kernel of each dtype on it; returns the seconds it took."""
    start = time.perf_counter()
    for dtype in dtypes:
        network = Network.build([1, 1], loss="mean_squared_error", dtype=dtype)
        predict(network, network.zeros(), np.zeros((1, 1), dtype))
    return time.perf_counter() - start
