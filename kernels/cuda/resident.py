"""The persistent epoch: small batches, all steps in one launch that keeps the weights in the multiprocessors.

`fastmlp.kernels.cuda.resident_plan` says who does what, `fastmlp.kernels.cuda.resident_text` writes the kernel.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda import types

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.contract import INPUT_DTYPES
from fastmlp.kernels.cuda import config, generate, memory
from fastmlp.kernels.cuda.device import Device
from fastmlp.kernels.cuda.resident_plan import (
    CLUSTER,
    GRID,
    LOCAL,
    Limits,
    Plan,
    choose,
    cycles,
    is_aligned,
    tiled_cycles,
)
from fastmlp.kernels.cuda.resident_text import PARAMETERS, text
from fastmlp.kernels.cuda.variants import Variant
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import UPDATES, Rule


def signature(plan: Plan) -> tuple:
    """The Numba types with which a plan's kernel is launched."""
    real, flat = getattr(types, plan.dtype), {}
    for name in ("parameters", "slots", "losses", "errors", "corrections", "gradients"):
        flat[name] = real
    flat |= {"X": getattr(types, plan.inputs), "Y": types.int32 if plan.labels else real}
    flat |= {"order": types.int32, "words": types.uint64, "counters": types.uint32}
    scalars = {"samples": types.uint32, "steps": types.uint32}
    names = [name.strip() for name in PARAMETERS.split(",")]
    return tuple(flat[name][::1] if name in flat else scalars.get(name, real) for name in names)


@lru_cache(maxsize=256)
def kernel(plan: Plan):
    """The compiled kernel of a plan."""
    loaded = generate.module("resident", text(plan))
    keep = generate.is_cacheable(loaded)
    return cuda.jit(launch_bounds=(plan.threads, 1), cache=keep)(loaded.epoch)


def limits(device: Device) -> Limits:
    """What a device has, as far as plans depend on it."""
    return Limits(
        device.compute_capability, device.multiprocessors, device.shared_memory, device.registers_per_multiprocessor
    )


def plan_for(
    device: Device, network: Network, rule: Rule, batch_size: int, X: Any, Y: Any, errors: Any = None
) -> Plan | None:
    """The plan for these arrays; None where the network is too wide to stay resident."""
    aligned = is_aligned(network, X.dtype, memory.address(X))
    wanted = batch_size, str(X.dtype), bool(Y.dtype == np.int32), errors is not None
    return choose(limits(device), network, rule.kind, *wanted, aligned)


def suits(device: Device, network: Network, rule: Rule, batch_size: int, samples: np.dtype) -> bool:
    """Whether such batches are for the persistent epoch: where the network stays resident, and the model says that
    tiled products and the barriers between them would take longer.
    """
    if batch_size > config.RESIDENT_BATCH:
        return False
    aligned = is_aligned(network, samples)
    plans = [
        choose(limits(device), network, rule.kind, batch_size, str(samples), labels, True, aligned)
        for labels in (True, False)
    ]
    most = tiled_cycles(limits(device), network, batch_size)
    return all(plan is not None and cycles(plan) <= most for plan in plans)


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
    """One step of the rule for each batch of ``order``, all in one launch.

    Parameters
    ----------
    device : Device
    network : Network
    rule : Rule
    parameters, slots : device arrays, T
        Changed in place.
    step : int
        Steps made before.
    X, Y : device arrays, flat
        Samples, and labels int32 or targets T.
    order : device array of int32
        Indices of samples.
    batch_size : int
        At most as long as ``order``.
    losses, errors : device arrays, T [batches]
        Filled; ``errors`` may be None.
    stream
        As `numba.cuda.stream` gives.

    Raises
    ------
    RuntimeError
        If the network is too wide to stay resident; `suits` says so before.
    """
    plan = plan_for(device, network, rule, batch_size, X, Y, errors)
    if plan is None:
        raise RuntimeError(f"{network} with batches of {batch_size} does not stay resident on {device!r}")
    T = np.dtype(network.dtype).type
    words = memory.scratch(device, stream, ("exchanged words", plan), plan.exchange_words, np.uint64)
    counters = memory.scratch(device, stream, ("counters", plan), 1 + plan.groups, np.uint32)
    gradients = memory.scratch(device, stream, ("slices' gradients", plan), plan.gradient_numbers, network.dtype)
    memory.clear(words, stream)  # an old word would have the tag of a step to come
    memory.clear(counters, stream)
    corrections = losses  # for rules that read none
    if rule.kind == "adam":
        corrections = memory.place(memory.corrections(rule, step, losses.size, network.dtype), stream)
    rates = [T(getattr(rule, name)) for name in ("learning_rate", "momentum", "beta1", "beta2", "epsilon")]
    arrays = [parameters, slots, X, Y, order, losses, losses if errors is None else errors]
    device.launch(
        kernel(plan),
        plan.blocks,
        plan.threads,
        [
            *arrays,
            corrections,
            words,
            counters,
            gradients,
            np.uint32(order.size),
            np.uint32(losses.size),
            *rates,
            *map(T, (network.input_scale, network.input_shift, network.l2)),
        ],
        stream,
        plan.shared_bytes,
        together=plan.exchange != CLUSTER and plan.blocks > 1,
    )


#: Networks, and devices by their data sheets (A100, H200, B200), whose plans are compiled by the check.
SHAPES = ((784, 100, 10), (784, 256, 128, 10), (784, 1000, 1000, 10), (784, 10), (64, 8, 3))
DEVICES = (Limits((8, 0), 108, 163 * 1024), Limits((9, 0), 132, 227 * 1024), Limits((10, 0), 148, 227 * 1024))


def variants() -> Iterator[Variant]:
    """Kernels for the compile check: plans of typical networks on typical devices, and each option at least once."""
    seen: set[tuple[Limits, Plan]] = set()
    quick = {(8, 0): GRID, (9, 0): CLUSTER, (10, 0): LOCAL}  # compiled by the tests: one for each capability
    for on, network, kind, batch, inputs, labels, errors in cases():
        plan = choose(on, network, kind, batch, inputs, labels, errors, is_aligned(network, np.dtype(inputs)))
        if plan is None or cycles(plan) > tiled_cycles(on, network, batch) or (on, plan) in seen:
            continue
        seen.add((on, plan))
        shape, capability = "-".join(map(str, network.sizes)), "".join(map(str, on.compute_capability))
        name = f"resident {shape} {kind} batch {batch} {inputs} in {network.dtype} sm_{capability} {len(seen)}"
        shared, at = plan.shared_bytes, on.compute_capability
        is_quick = network.dtype == "float32" and plan.exchange == quick.get(at)
        if is_quick:
            del quick[at]
        yield Variant(name, partial(_build, plan), plan.dtype, plan.threads, shared, at, at, quick=is_quick)


def cases() -> Iterator[tuple[Limits, Network, str, int, str, bool, bool]]:
    """Devices, networks, rules, batches, dtypes of samples, whether targets are labels, whether errors are wanted."""
    for on, shape, dtype in product(DEVICES, SHAPES, DTYPES):
        every = on == DEVICES[1] and dtype == "float32"
        for batch in (1, 5, 10, 32, 128, 512) if every else (1, 10, 128) if dtype == "float32" else (5, 128):
            yield on, Network.build(shape, dtype=dtype), "momentum", batch, dtype, True, False
    for i, (dtype, inputs, kind) in enumerate(product(DTYPES, INPUT_DTYPES, UPDATES)):
        network = Network.build((784, 100, 10), dtype=dtype, input_scale=1 / 255, l2=0.1 * (i % 2))
        yield DEVICES[1], network, kind, (5, 32)[i % 2], inputs, True, True
    for i, (dtype, (loss, outputs)) in enumerate(product(DTYPES, OUTPUTS.items())):
        for k, output in enumerate(outputs):
            hidden = [list(ACTIVATIONS)[(i + k + j) % len(ACTIVATIONS)] for j in range(3)]
            network = Network.build((33, 31, 17, 9, 5), hidden, output, loss, bias=bool(k % 2), dtype=dtype)
            yield DEVICES[(i + k) % 3], network, "adam", 7, dtype, bool(i % 2), True


def _build(plan: Plan) -> tuple[Any, tuple]:
    return kernel(plan), signature(plan)
