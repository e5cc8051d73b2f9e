"""The contract on an NVIDIA GPU. Without one, or without its packages, the functions say what is missing.

What needs the package numba-cuda is imported at the first call.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.kernels.contract import quiet
from fastmlp.kernels.cuda.missing import reason
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import Rule, State

if TYPE_CHECKING:
    from fastmlp.kernels.cuda.residence import OnDevice


def _calls() -> ModuleType:
    """The module that does the work.

    Raises
    ------
    RuntimeError
        Where it can't work, with what is missing.
    """
    missing = reason()
    if missing is not None:
        raise RuntimeError(f"backend='cuda' does not work here: {missing}")
    from fastmlp.kernels.cuda import calls

    return calls


def feedforward(
    network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None
) -> list[np.ndarray]:
    """Activations T [n, units] of every layer after the input."""
    return _calls().feedforward(network, parameters, X)


def predict(network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Outputs T [n, n_out]."""
    return _calls().predict(network, parameters, X)


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
    return _calls().evaluate(network, parameters, X, Y, weights)


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
    return _calls().backpropagation(network, parameters, X, Y, weights)


@quiet
def update_weights(
    rule: Rule, parameters: np.ndarray, gradients: np.ndarray, state: State, *, threads: int | None = None
) -> None:
    """One step of the rule, in place."""
    _calls().update_weights(rule, parameters, gradients, state)


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
    options = {"errors": errors, "samples": samples, "weights": weights}
    return _calls().train_epoch(network, rule, parameters, state, X, Y, order, batch_size, **options)


def prepare_for(network: Network, rule: Rule, X: Any, Y: Any, batch_size: int, weighted: bool = False) -> None:
    """Compile, or load from the cache, what training this network on this data needs, with weights or without."""
    _calls().prepare_for(network, rule, X, Y, batch_size, weighted)


def reside(network: Network, parameters: np.ndarray, device: int | None = None) -> "OnDevice":
    """Where a network's parameters and its optimizer's state live between calls: on the GPU."""
    _calls()
    from fastmlp.kernels.cuda.residence import OnDevice

    return OnDevice(network, parameters, device)


def warmup(dtypes: tuple[str, ...] = DTYPES) -> float:
    """Start the GPU and try a kernel of each dtype on it; returns the seconds it took."""
    return _calls().warmup(dtypes)


def describe(number: int | None = None) -> dict[str, str]:
    """The GPU of that number, or else the chosen one, for people to read; empty where the backend does not work."""
    if reason() is not None:
        return {}
    from fastmlp.kernels.cuda import memory
    from fastmlp.kernels.cuda.device import device

    chosen = device(number)
    free, total = chosen.memory()
    capability = ".".join(map(str, chosen.compute_capability))
    return {
        "gpu": f"{chosen.name}, number {chosen.id}",
        "gpu has": f"{chosen.multiprocessors} multiprocessors, compute capability {capability}, "
        f"{memory.amount(chosen.shared_memory)} of shared memory a block",
        "gpu memory": f"{memory.amount(free)} free of {memory.amount(total)}",
    }
