"""All samples at once: activations, outputs, loss and hits, gradients; and a lone update. One launch each.

All arrays are on the device, and flat; results go into arrays that are given.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types

from fastmlp.kernels.cuda import formulas, generate, memory, phases
from fastmlp.kernels.cuda.config import UPDATE_BLOCKS, UPDATE_THREADS
from fastmlp.kernels.cuda.device import Device
from fastmlp.kernels.cuda.large import DEVICES, SIZES, launch, options_in_turn, plan_for, variant
from fastmlp.kernels.cuda.large_plan import method_for
from fastmlp.kernels.cuda.tiles import Text
from fastmlp.kernels.cuda.variants import Variant
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import UPDATES, Rule


def _pass(device: Device, network: Network, job: str, X: Any, Y: Any, stream: Any, **given: Any) -> None:
    """Launch a job that takes each sample once."""
    n = X.size // network.sizes[0]
    labels = Y is not None and np.dtype(Y.dtype) == np.int32
    p = plan_for(
        network, job, n, np.dtype(X.dtype).name, device.multiprocessors, labels=labels, method=method_for(network.dtype)
    )
    launch(device, network, p, n, n, stream, {"X": X, "Y": Y, **given})


def feedforward(device: Device, network: Network, parameters: Any, X: Any, out: Any, stream: Any) -> None:
    """Activations of every layer after the input: ``out`` T, layer after layer, each [n, units]."""
    _pass(device, network, "feedforward", X, None, stream, parameters=parameters, out=out)


def predict(device: Device, network: Network, parameters: Any, X: Any, out: Any, stream: Any) -> None:
    """Outputs: ``out`` T [n * n_out]."""
    _pass(device, network, "predict", X, None, stream, parameters=parameters, out=out)


def evaluate(
    device: Device, network: Network, parameters: Any, X: Any, Y: Any, loss: Any, hits: Any, stream: Any
) -> None:
    """Mean loss: ``loss`` T [1]; and how many samples are right: ``hits`` uint32 [1]."""
    memory.clear(hits, stream)
    _pass(device, network, "evaluate", X, Y, stream, parameters=parameters, losses=loss, hits=hits)


def backpropagation(
    device: Device, network: Network, parameters: Any, X: Any, Y: Any, gradients: Any, loss: Any, stream: Any
) -> None:
    """Gradients of loss and penalty: ``gradients`` T [network.size], but for its padding; mean loss: ``loss`` T [1]."""
    _pass(device, network, "gradient", X, Y, stream, parameters=parameters, gradients=gradients, losses=loss)


# ------------------------------------------------------------------------------------------------------- the update
def update_arguments(kind: str, dtype: str) -> list[tuple[str, str]]:
    """Names and kinds of the arguments of a rule's kernel, as `fastmlp.kernels.cuda.phases.arguments`."""
    arrays = ["parameters", "gradients", *(["slots"] if UPDATES[kind][1] else [])]
    return [(name, f"{dtype}[]") for name in arrays] + [(name, dtype) for name in formulas.uses(kind)]


def update_text(kind: str, dtype: str) -> str:
    """The text of a rule's kernel: each thread takes every so many-th parameter."""
    w, slots = Text(phases.IMPORTS), [f"v{i}" for i in range(UPDATES[kind][1])]
    with w.block(f"def kernel({', '.join(name for name, _ in update_arguments(kind, dtype))}):"):
        w(
            "size = uint64(parameters.size)",
            "i = uint64(cuda.blockIdx.x) * uint64(cuda.blockDim.x) + uint64(cuda.threadIdx.x)",
        )
        w("step = uint64(cuda.blockDim.x) * uint64(cuda.gridDim.x)")
        with w.block("while i < size:"):
            w("w = parameters[i]", "g = gradients[i]")
            w(*(f"{slot} = slots[uint64(i + uint64({n}) * size)]" for n, slot in enumerate(slots)))
            written = formulas.update(kind, "w", "g", slots, dtype, "t")
            w(*written.lines, f"parameters[i] = {written.results[0]}")
            w(*(f"slots[uint64(i + uint64({n}) * size)] = {new}" for n, new in enumerate(written.results[1:])))
            w("i = uint64(i + step)")
    return w.module()


@lru_cache(maxsize=16)
def update_kernel(kind: str, dtype: str) -> Any:
    """A rule's kernel, as `numba.cuda.jit` gives it."""
    module = generate.module(f"{kind}_{dtype}", update_text(kind, dtype))
    return cuda.jit(cache=generate.is_cacheable(module), launch_bounds=(UPDATE_THREADS, 1))(module.kernel)


def update_weights(
    device: Device, rule: Rule, parameters: Any, gradients: Any, slots: Any, step: int, stream: Any
) -> None:
    """One step of the rule, in place; ``step`` is the number of steps made before."""
    T = np.dtype(parameters.dtype)
    correction1, correction2 = memory.corrections(rule, step, 1, T)
    scalars = {"correction1": correction1, "correction2": correction2}
    given: dict[str, Any] = {"parameters": parameters, "gradients": gradients, "slots": slots}
    for name in formulas.uses(rule.kind):
        given[name] = T.type(scalars[name] if name in scalars else getattr(rule, name))
    blocks = min(-(-parameters.size // UPDATE_THREADS), UPDATE_BLOCKS * device.multiprocessors)
    arguments = [given[name] for name, _ in update_arguments(rule.kind, T.name)]
    device.launch(update_kernel(rule.kind, T.name), blocks, UPDATE_THREADS, arguments, stream)


# ---------------------------------------------------------------------------------------------------- compile check
def update_signature(kind: str, dtype: str) -> tuple:
    """The types of the arguments of a rule's kernel."""
    element = getattr(types, dtype)
    return tuple(
        types.Array(element, 1, "C") if form.endswith("[]") else element for _, form in update_arguments(kind, dtype)
    )


def update_built(kind: str, dtype: str) -> tuple[Any, tuple]:
    """A rule's kernel and its signature."""
    return update_kernel(kind, dtype), update_signature(kind, dtype)


def variants() -> Iterator[Variant]:
    """Kernels for the compile check: each job for the usual networks, each option, and each rule."""
    for kind, dtype in product(UPDATES, DTYPES):
        yield Variant(
            f"update {kind} {dtype}",
            partial(update_built, kind, dtype),
            dtype,
            UPDATE_THREADS,
        )
    jobs = [job for job in phases.JOBS if job != "train"]
    for sizes, job, dtype in product(SIZES[::2], jobs, DTYPES):
        network = Network.build(sizes, dtype=dtype, input_scale=1 / 255)
        n = 10_000 if sizes == SIZES[0] else 1
        p = plan_for(network, job, n, "uint8", DEVICES[9, 0], labels=job in ("evaluate", "gradient"))
        quick = job == "evaluate" and sizes == SIZES[0] and dtype == "float32"
        yield variant(f"{job} {'-'.join(map(str, sizes))} {dtype} n {n}", p, quick=quick)
    for name, network, options in options_in_turn():
        if options["rule"] == "plain":
            p = plan_for(network, "evaluate", 10_000, multiprocessors=132, **{**options, "rule": ""})
            yield variant(f"evaluate {name}", p)
