"""Large batches: an epoch in one launch, whose blocks go through `fastmlp.kernels.cuda.phases` together."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import generate, memory, phases
from fastmlp.kernels.cuda.device import Device
from fastmlp.kernels.cuda.large_plan import Plan, method_for, plan
from fastmlp.kernels.cuda.phases import Spec
from fastmlp.kernels.cuda.variants import Variant
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import UPDATES, Rule

plan_for = lru_cache(maxsize=128)(plan)


@lru_cache(maxsize=128)
def kernel_for(spec: Spec) -> Any:
    """The kernel of a spec, as `numba.cuda.jit` gives it."""
    module = generate.module(f"{spec.job}_{spec.dtype}", phases.kernel(spec))
    bounds = (spec.threads, spec.blocks)
    return cuda.jit(cache=generate.is_cacheable(module), launch_bounds=bounds)(module.kernel)


def signature(spec: Spec) -> tuple:
    """The types of a kernel's arguments."""
    kinds = [kind for _, kind in phases.arguments(spec)]
    return tuple(
        types.Array(getattr(types, kind[:-2]), 1, "C") if kind.endswith("[]") else getattr(types, kind)
        for kind in kinds
    )


@lru_cache(maxsize=128)
def table_of(device: Device, table: tuple[tuple[int, ...], ...]) -> Any:
    """A plan's table on a device."""
    stream = cuda.stream()
    placed = memory.place(np.array(table, np.uint32).ravel(), stream, "the table of layers")
    stream.synchronize()
    return placed


def launch(
    device: Device, network: Network, p: Plan, samples: int, batch: int, stream: Any, given: dict[str, Any]
) -> None:
    """Launch a plan's kernel.

    Parameters
    ----------
    device : Device
    network : Network
    p : Plan
    samples, batch : int
        How many samples are gone through, and how many at once.
    stream
    given : dict
        The arguments that are the caller's, by name.
    """
    T, spec = np.dtype(network.dtype), p.spec

    def scratch(name: str, size: int, dtype: Any = T) -> Any:
        return memory.scratch(device, stream, ("large", name, spec.job), max(size, 1), dtype)

    own = {
        "table": table_of(device, p.table),
        "layers": np.uint32(network.layers),
        "size": np.uint32(network.size),
        "samples": np.uint32(samples),
        "batch": np.uint32(batch),
        "input_scale": T.type(network.input_scale),
        "input_shift": T.type(network.input_shift),
        "l2": T.type(network.l2),
    }
    names = [name for name, _ in phases.arguments(spec)]
    for name, size in (("values", p.values), ("deltas", p.deltas), ("parts", p.parts), ("sums", 2 * p.blocks)):
        if name in names:
            own[name] = scratch(name, size)
    if "barrier" in names:
        own["barrier"] = scratch("barrier", 1, np.uint32)
        memory.clear(own["barrier"], stream)
    everything = {**own, **given}
    device.launch(
        kernel_for(spec),
        p.blocks,
        spec.threads,
        [everything[name] for name in names],
        stream,
        shared=phases.shared_bytes(spec),
        together=phases.needs_barrier(spec),
    )


def train_epoch(
    device: Device,
    network: Network,
    rule: Rule,
    parameters: Any,
    slots: Any,
    step: int,
    X: Any,
    Y: Any,
    order: Any,
    batch_size: int,
    losses: Any,
    errors: Any,
    stream: Any,
) -> None:
    """One step of the rule for each batch of ``order``, in place. All arrays are on the device, and flat.

    Parameters
    ----------
    device : Device
    network : Network
    rule : Rule
    parameters : T [network.size]
    slots : T [rule.slots * network.size]
    step : int
        Steps made before.
    X : uint8, float32 or float64 [n * n_in]
    Y : int32 [n], or T [n * n_out]
    order : int32 [m]
    batch_size : int
        At most m.
    losses : T [ceil(m / batch_size)]
        Filled with the mean loss of each batch before its step.
    errors : T, as long, or None
        Filled with ½ the mean squared error of each batch's outputs before its step.
    stream
    """
    p = plan_for(
        network,
        "train",
        batch_size,
        np.dtype(X.dtype).name,
        device.multiprocessors,
        rule=rule.kind,
        labels=np.dtype(Y.dtype) == np.int32,
        errors=errors is not None,
        method=method_for(network.dtype),
    )
    T = np.dtype(network.dtype)
    given = {"X": X, "Y": Y, "order": order, "parameters": parameters, "slots": slots, "losses": losses}
    given.update({name: T.type(getattr(rule, name)) for name in phases.hyperparameters(rule.kind)})
    if errors is not None:
        given["errors"] = errors
    if phases.corrects(rule.kind):
        given["corrections"] = memory.place(memory.corrections(rule, step, losses.size, T), stream, "corrections")
    launch(device, network, p, order.size, batch_size, stream, given)


# -------------------------------------------------------------------------------------------------- compile check
#: Multiprocessors of the devices that plans are checked for: A100, H200, B200.
DEVICES = {(8, 0): 108, (9, 0): 132, (10, 0): 148}
SIZES = ((784, 100, 10), (784, 256, 128, 10), (784, 1000, 1000, 10))
METHODS = (("float32", "tf32x3"), ("float64", "mma"))


def variant(name: str, p: Plan, capability: tuple[int, int] | None = None, quick: bool = False) -> Variant:
    """A plan's kernel, for the compile check."""
    spec = p.spec
    only = {} if capability is None else {"least": capability, "most": capability}
    return Variant(
        name,
        lambda: (kernel_for(spec), signature(spec)),
        spec.dtype,
        spec.threads,
        phases.shared_bytes(spec),
        blocks=spec.blocks,
        quick=quick,
        **only,
    )


def variants() -> Iterator[Variant]:
    """Kernels for the compile check: large networks and batches on each device, and each option at least once."""
    cases = [((9, 0), sizes, batch, dtype, "fma") for sizes, batch, dtype in product(SIZES, (512, 10_000), DTYPES)]
    cases += [((9, 0), sizes, 10_000, dtype, method) for sizes, (dtype, method) in product(SIZES[::2], METHODS)]
    for capability, (dtype, method) in product(((8, 0), (10, 0)), (("float32", "fma"), *METHODS)):
        cases.append((capability, SIZES[0], 10_000, dtype, method))
    for capability, sizes, batch, dtype, method in cases:
        network = Network.build(sizes, dtype=dtype, input_scale=1 / 255)
        options = {"rule": "momentum", "labels": True, "method": method}
        p = plan_for(network, "train", batch, "uint8", DEVICES[capability], **options)
        name = f"{'-'.join(map(str, sizes))} {dtype} {method} batch {batch} sm_{capability[0]}{capability[1]}"
        quick = (capability, sizes, batch) == ((9, 0), SIZES[0], 10_000) and dtype == "float32"
        yield variant(f"large {name}", p, capability, quick)
    for name, network, options in options_in_turn():
        yield variant(f"large {name}", plan_for(network, "train", 10_000, multiprocessors=132, **options))


def options_in_turn() -> Iterator[tuple[str, Network, dict[str, Any]]]:
    """Each rule, dtype of the inputs, activation, output and loss, and kind of targets, in each dtype."""
    shape = (60, 50, 40, 30, 7)
    inputs = ("uint8", *DTYPES)
    for dtype in DTYPES:
        for i, kind in enumerate(UPDATES):
            network = Network.build(shape, dtype=dtype, l2=0.1)
            given = inputs[i % 3]
            yield f"{kind} {given} in {dtype}", network, {"rule": kind, "inputs": given, "errors": True}
        pairs = [(loss, output) for loss, outputs in OUTPUTS.items() for output in outputs]
        for i, (loss, output) in enumerate(pairs if dtype == "float32" else pairs[::3]):
            labels = i % 2 == 0
            hidden = [list(ACTIVATIONS)[(i + layer) % len(ACTIVATIONS)] for layer in range(3)]
            network = Network.build(shape, hidden, output, loss, dtype=dtype, bias=labels)
            name = f"{output} {loss} {'labels' if labels else 'dense'} {dtype}"
            yield name, network, {"rule": "plain", "inputs": dtype, "labels": labels}
        network = Network.build((7, 3), loss="mean_squared_error", output="tanh", dtype=dtype)
        yield f"no hidden layer {dtype}", network, {"rule": "adam", "inputs": dtype}
