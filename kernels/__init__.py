"""The compiled loops. A backend is a module with the functions of `fastmlp.kernels.contract`."""

import importlib
from typing import cast

from fastmlp.kernels.contract import Backend
from fastmlp.kernels.names import unknown_name
from fastmlp.kernels.network import Network
from fastmlp.kernels.updates import Rule, State

__all__ = ["BACKENDS", "Backend", "Network", "Rule", "State", "available", "backend", "warmup"]

#: name -> module. "auto" is none of them: it stands for the fastest that works here.
BACKENDS = {"cpu": "fastmlp.kernels.cpu", "numpy": "fastmlp.kernels.reference", "cuda": "fastmlp.kernels.cuda"}


def available() -> dict[str, str | None]:
    """Each backend's name with None where it works, or else with the reason and what to do about it."""
    reasons: dict[str, str | None] = dict.fromkeys(BACKENDS)
    reasons["cuda"] = "not part of this release yet; backend='cpu' is the fastest here"
    return reasons


def backend(name: str = "auto") -> Backend:
    """The backend of that name; "auto" is the CPU's compiled one.

    Parameters
    ----------
    name : {"auto", "cpu", "numpy", "cuda"}, default "auto"

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
    if name != "auto" and name not in BACKENDS:
        raise unknown_name("backend", name, ["auto", *BACKENDS])
    chosen = "cpu" if name == "auto" else name
    reason = available()[chosen]
    if reason is not None:
        raise RuntimeError(f"backend={name!r} does not work here: {reason}")
    return cast(Backend, importlib.import_module(BACKENDS[chosen]))


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
