"""The compiled loops. A backend is a module with the functions of `fastmlp.kernels.contract`."""

import importlib
from typing import cast

from fastmlp.kernels.contract import Backend
from fastmlp.kernels.cuda import config, missing
from fastmlp.kernels.names import unknown_name
from fastmlp.kernels.network import Network
from fastmlp.kernels.updates import Rule, State

__all__ = ["BACKENDS", "Backend", "Network", "Rule", "State", "available", "backend", "warmup"]

#: name -> module. "auto" is none of them: see `backend`.
BACKENDS = {"cpu": "fastmlp.kernels.cpu", "numpy": "fastmlp.kernels.reference", "cuda": "fastmlp.kernels.cuda"}


def available() -> dict[str, str | None]:
    """Each backend's name with None where it works, or else with the reason and what to do about it."""
    reasons: dict[str, str | None] = dict.fromkeys(BACKENDS)
    reasons["cuda"] = missing.reason()
    return reasons


def backend(name: str = "auto", network: Network | None = None) -> Backend:
    """The backend of that name.

    Parameters
    ----------
    name : {"auto", "cpu", "numpy", "cuda"}, default "auto"
        "cuda:1" is the second GPU's; a plain "cuda" that of $FASTMLP_CUDA_DEVICE, or else the first. "auto" is the
        GPU's where one works and the network is large enough for it to be faster (`fastmlp.kernels.cuda.config`), and
        the CPU's compiled one otherwise.
    network : Network, optional
        What it is for; "auto" needs it to choose the GPU.

    Returns
    -------
    module
        With the functions of `fastmlp.kernels.contract`.

    Raises
    ------
    ValueError
        If the name is not known.
    RuntimeError
        If that backend does not work here, with the reason.
    """
    family, _ = split(name)
    chosen = _fastest(network) if family == "auto" else family
    reason = missing.reason() if chosen == "cuda" else None  # which may take seconds, in vain for the others
    if reason is not None:
        raise RuntimeError(f"backend={name!r} does not work here: {reason}")
    return cast(Backend, importlib.import_module(BACKENDS[chosen]))


def split(name: str) -> tuple[str, int | None]:
    """A backend's name without the number of a device, and that number: "cuda:1" is "cuda" and 1.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    family, colon, number = str(name).partition(":")
    if family not in ("auto", *BACKENDS) or (colon and (family != "cuda" or not number.isdecimal())):
        raise unknown_name("backend", name, ["auto", *BACKENDS])
    return family, int(number) if colon else None


def _fastest(network: Network | None) -> str:
    """The name of the backend that "auto" stands for."""
    least = config.AUTO_LEAST_MULTIPLY_ADDS
    large = least is not None and network is not None and network.multiply_adds >= least
    return "cuda" if large and missing.reason() is None else "cpu"


def warmup(dtypes: tuple[str, ...] = ("float32", "float64")) -> float:
    """Compile the CPU kernels of these dtypes, or load them from the cache.

    Parameters
    ----------
    dtypes : tuple of str, default ("float32", "float64")

    Returns
    -------
    float
        Seconds it took.
    """
    from fastmlp.kernels import cpu

    return cpu.warmup(dtypes)
