"""The compiled loops. A backend is a module with the functions of `fastmlp.kernels.contract`."""

import importlib
import warnings
from functools import cache
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
    return {name: _reason(name) for name in BACKENDS}


def _reason(name: str) -> str | None:
    """None where the backend of that name works, or else the reason."""
    if name == "numpy":  # asked for nothing that it does not need: CUDA may take seconds to answer
        return None
    return (missing.reason() if name == "cuda" else None) or no_compiler()


def no_compiler() -> str | None:
    """None where Numba compiles functions here, or else why not and what to do about it."""
    try:
        import numba
    except Exception as error:  # a broken installation fails in many ways; each is a reason
        return f"Numba can't be imported ({error}); pip install --upgrade numba"
    if numba.config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT is set, so that Numba compiles nothing; unset it"
    return None


def backend(name: str = "auto", network: Network | None = None) -> Backend:
    """The backend of that name.

    Parameters
    ----------
    name : {"auto", "cpu", "numpy", "cuda"}, default "auto"
        "cuda:1" is the second GPU's; a plain "cuda" that of $FASTMLP_CUDA_DEVICE, or else the first. "auto" is the
        GPU's where one works and the network is large enough for it to be faster (`fastmlp.kernels.cuda.config`), and
        the CPU's compiled one otherwise; where Numba can't compile, "numpy", with a RuntimeWarning.
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
    reason = _reason(chosen)
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
    if large and _reason("cuda") is None:
        return "cuda"
    reason = _reason("cpu")
    if reason is None:
        return "cpu"
    _warn_of_numpy(reason)
    return "numpy"


@cache
def _warn_of_numpy(reason: str) -> None:
    """Say once that nothing is compiled."""
    warnings.warn(f"the backend is numpy, which is slower, since cpu does not work here: {reason}", RuntimeWarning, 6)


def warmup(dtypes: tuple[str, ...] = ("float32", "float64")) -> float:
    """Compile the CPU kernels of these dtypes, or load them from the cache.

    Parameters
    ----------
    dtypes : tuple of str, default ("float32", "float64")

    Returns
    -------
    float
        Seconds it took.

    Raises
    ------
    RuntimeError
        If nothing can be compiled here, with the reason.
    """
    backend("cpu")
    from fastmlp.kernels import cpu

    return cpu.warmup(dtypes)
