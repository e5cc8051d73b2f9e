"""Kernels chosen, compiled and launched. All arrays are on the device, and flat; results go into given arrays."""

from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastmlp.kernels.contract import Shares, counts_sides
from fastmlp.kernels.cuda import memory, plans
from fastmlp.kernels.cuda.config import ELEMENT_BLOCKS, ELEMENT_THREADS
from fastmlp.kernels.cuda.device import Device, Queue
from fastmlp.kernels.cuda.plans import Given, Gpu
from fastmlp.kernels.cuda.records import Arrays, Hyperparameters, Numbers, Scratch
from fastmlp.kernels.cuda.specialise import is_cacheable, specialised
from fastmlp.kernels.cuda.toolkit import cuda
from fastmlp.kernels.network import Network
from fastmlp.kernels.updates import Rule

NO_RULE = Rule("plain")


class Kernel(NamedTuple):
    """A kernel for exact sizes: its module, and what `numba.cuda.jit` gives."""

    module: ModuleType
    compiled: Any


@lru_cache(maxsize=256)
def kernel(name: str, function: str, constants: tuple[tuple[str, Any], ...], threads: int) -> Kernel:
    """A function of a kernel's file with these constants, for blocks of so many threads."""
    module = specialised(name, **dict(constants))
    return Kernel(module, cuda.jit(cache=is_cacheable(module), launch_bounds=(threads, 1))(getattr(module, function)))


def persistent_kernel(constants: dict[str, Any]) -> Kernel:
    """The persistent kernel with these constants."""
    return kernel("persistent", "epoch", tuple(constants.items()), constants["GROUPS"] * constants["SPAN"])


def tiled_kernel(constants: dict[str, Any]) -> Kernel:
    """The tiled kernel with these constants."""
    return kernel("tiled", "epoch", tuple(constants.items()), constants["THREADS"])


def gpu_of(device: Device) -> Gpu:
    """What plans depend on of a device."""
    return Gpu(device.multiprocessors, device.shared_memory)


def numbers_of(network: Network, rule: Rule) -> Numbers:
    """The numbers of a launch, in the network's dtype."""
    T = np.dtype(network.dtype).type
    of_rule = [T(getattr(rule, name)) for name in Numbers._fields[:5]]
    return Numbers._make([*of_rule, T(network.input_scale), T(network.input_shift), T(network.l2)])


def plan(network: Network, given: Given, device: Device) -> tuple[str, dict[str, Any]]:
    """The kernel that trains, by name, and its constants: the persistent one wherever it is for this work."""
    constants = plans.persistent(network, given, gpu_of(device))
    if constants is not None:
        return "persistent", constants
    return "tiled", plans.tiled(network, "train", given, gpu_of(device))


def train(network: Network, rule: Rule, arrays: Arrays, batch: int, queue: Queue, weighted: bool = False) -> None:
    """An epoch: one step of the rule for each batch of the order, in place; with the arrays' shares if weighted."""
    labels = np.dtype(arrays.Y.dtype) == np.int32
    given = Given(rule.kind, rule.slots, batch, np.dtype(arrays.X.dtype).name, labels, weighted)
    name, constants = plan(network, given, queue.device)
    if name == "persistent":
        launch_persistent(persistent_kernel(constants), network, rule, arrays, queue)
    else:
        launch_tiled(tiled_kernel(constants), network, rule, arrays, batch, queue)


def launch_persistent(kernel: Kernel, network: Network, rule: Rule, arrays: Arrays, queue: Queue) -> None:
    """Launch the persistent kernel."""
    device, stream = queue
    k = kernel.module
    words = memory.scratch(device, stream, "words", 2 * k.BLOCKS * k.LOGITS * k.WORDS, np.uint64)
    memory.clear(words, stream)
    shared = 2 * k.SAMPLES_SIZE * k.ITEMSIZE
    given = arrays, numbers_of(network, rule), words
    device.launch(kernel.compiled, k.BLOCKS, k.THREADS, given, stream, shared=shared, together=True)


def launch_tiled(
    kernel: Kernel, network: Network, rule: Rule, arrays: Arrays, batch: int, queue: Queue, **results: Any
) -> None:
    """Launch the tiled kernel; ``results`` are arrays that the caller wants filled in place of the `Scratch`'s own."""
    device, stream = queue
    k, T = kernel.module, np.dtype(network.dtype)
    between = batch * (k.BEFORE[-1] + k.WIDTHS[-1])

    def scratch(name: str, size: int, dtype: Any = T) -> Any:
        return results[name] if name in results else memory.scratch(device, stream, (name, k.JOB), max(size, 1), dtype)

    own = Scratch(
        values=scratch("values", between),
        deltas=scratch("deltas", between if k.LEARNS else 1),
        parts=scratch("parts", k.SPLITS * k.SIZE if k.SPLITS > 1 else 1),
        sums=scratch("sums", 2 * device.multiprocessors),
        counter=scratch("counter", 1, np.uint32),
        results=scratch("results", 1),
        hits=scratch("hits", 1, np.uint32),
    )
    memory.clear(own.counter, stream)
    memory.clear(own.hits, stream)
    given = arrays, numbers_of(network, rule), own, np.int32(batch)
    shared = k.POOL * T.itemsize
    device.launch(kernel.compiled, device.multiprocessors, k.THREADS, given, stream, shared=shared, together=True)


class Pass(NamedTuple):
    """What a pass over all samples has found, on the device."""

    values: Any  #: T: activations of the layers, [n, width] each, of feedforward
    widths: tuple[int, ...]  #: numbers of a sample in each of them
    losses: Any  #: T: mean loss of each part of the samples
    rows: int  #: samples of a part
    wrong: Any  #: T: with weights, the share of all that the samples answered wrongly have, of each part


def all_samples(
    network: Network,
    job: str,
    parameters: Any,
    X: Any,
    Y: Any,
    queue: Queue,
    weighted: Shares | None = None,
    **results: Any,
) -> Pass:
    """A job that takes each sample once, in their order: "feedforward", "predict", "evaluate" or "gradient".

    With weights, those samples that have any.
    """
    n, T = X.size // network.sizes[0] if weighted is None else len(weighted.order), np.dtype(network.dtype)
    labels = Y is not None and np.dtype(Y.dtype) == np.int32
    whole = job in ("feedforward", "gradient")
    rows = n if whole else min(n, plans.MOST_ROWS)
    hits = ("sides" if counts_sides(network, labels) else "largest") if job == "evaluate" else ""
    batch = 1 << (rows - 1).bit_length()
    given = Given("plain", 0, batch, np.dtype(X.dtype).name, labels, weighted is not None)
    k = tiled_kernel(plans.tiled(network, job, given, gpu_of(queue.device), hits))
    none = memory.scratch(*queue, "nothing", 1, T)
    losses, errors = (memory.empty(-(-n // rows), T, "the losses") for _ in range(2))
    values = (
        memory.empty(n * (k.module.BEFORE[-1] + k.module.WIDTHS[-1]), T, "the activations")
        if job == "feedforward"
        else None
    )
    if values is not None:
        results["values"] = values
    shares = decays = none
    if weighted is None:
        order = memory.scratch(*queue, "all samples", n, np.int32)
        count_up(order, queue)
    else:
        order = memory.staged(weighted.order, np.int32, "the order")
        shares, decays = placed(weighted, T)
    arrays = Arrays(parameters, none, X, none if Y is None else Y, order, losses, errors, none, shares, decays)
    launch_tiled(k, network, NO_RULE, arrays, rows, queue, **results)
    return Pass(values, k.module.WIDTHS[1:], losses, rows, errors)


def placed(weighted: Shares, T: np.dtype) -> tuple[Any, Any]:
    """The shares and decays on the device."""
    return memory.place(weighted.shares, what="the weights"), memory.place(
        weighted.decays.astype(T), what="the weights"
    )


def element_kernel(function: str, rule: str = "plain") -> Any:
    """A function of `fastmlp.kernels.cuda.elements`."""
    return kernel("elements", function, (("RULE", rule),), ELEMENT_THREADS).compiled


def over_elements(function: Any, size: int, given: tuple, queue: Queue) -> None:
    """Launch a kernel over so many numbers."""
    blocks = min(-(-size // ELEMENT_THREADS), ELEMENT_BLOCKS * queue.device.multiprocessors)
    queue.device.launch(function, blocks, ELEMENT_THREADS, given, queue.stream)


def count_up(order: Any, queue: Queue) -> None:
    """Fill an array with 0, 1, 2, ..."""
    over_elements(element_kernel("count_up"), order.size, (order,), queue)


def update_weights(rule: Rule, parameters: Any, gradients: Any, slots: Any, step: int, queue: Queue) -> None:
    """One step of the rule, in place; ``step`` is the number of steps made before."""
    T = np.dtype(parameters.dtype)
    of_rule = (T.type(getattr(rule, name)) for name in Numbers._fields[:5])
    h = Hyperparameters(*of_rule, *memory.corrections(rule, step, 1, T))
    over_elements(
        element_kernel("update_weights", rule.kind), parameters.size, (parameters, gradients, slots, h), queue
    )


def is_finite(array: Any, queue: Queue) -> bool:
    """Whether a flat array holds neither nan nor infinity. Integers always do."""
    if np.dtype(array.dtype).kind != "f" or not array.size:
        return True
    found = memory.scratch(*queue, "finite", 1, np.uint32)
    memory.clear(found, queue.stream)
    over_elements(element_kernel("look"), array.size, (array, found), queue)
    return not memory.fetch(found, queue.stream)[0]
