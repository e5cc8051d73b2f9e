"""Whether CUDA works here, and what is missing where it does not; without importing what may be missing."""

import ctypes
import importlib
import importlib.util
import os
import sys
from functools import cache

import numpy as np

from fastmlp.kernels.cuda.config import LEAST_CAPABILITY

#: The variable that names the GPU to use, as its number; the first one without it.
DEVICE_VARIABLE = "FASTMLP_CUDA_DEVICE"

INSTALL = "pip install 'fastmlp[cuda]'"


def reason() -> str | None:
    """None where the backend works, or else what is missing and what to do about it.

    Looks from the outside in, and stops at the first thing that is not there: where no package or no driver is
    installed the answer takes no time, and nothing of CUDA is imported.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        return f"the package numba-cuda is not installed; {INSTALL}"
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        return _import_reason() or _simulator_reason()
    if not _has_driver():
        return "no NVIDIA driver is installed (its library libcuda was not found)"
    # The kernels are tried, too: another release of numba-cuda may lack what they take from it.
    return _import_reason("fastmlp.kernels.cuda.calls") or _device_reason(os.environ.get(DEVICE_VARIABLE))


@cache
def _import_reason(*modules: str) -> str | None:
    """Why numba-cuda can't be imported, or these modules after it; asked once, as Python does not repeat all of it."""
    try:
        for module in ("fastmlp.kernels.cuda.toolkit", *modules):
            importlib.import_module(module)
    except Exception as error:  # a broken installation fails in many ways; each is a reason
        return f"numba-cuda can't be imported with NumPy {np.__version__} ({type(error).__name__}: {error}); {INSTALL}"
    return None


def _simulator_reason() -> str | None:
    from fastmlp.kernels.cuda.toolkit import cuda

    if hasattr(cuda, "concurrent"):  # tests/cuda_simulator.py has put its own in the place of Numba's
        return None
    return (
        "NUMBA_ENABLE_CUDASIM is set, and Numba's simulator runs one block after another, where these kernels' blocks "
        "wait for one another; unset it"
    )


@cache
def _device_reason(chosen: str | None) -> str | None:
    """What is missing of libraries and device; asked once for each value of the variable."""
    from fastmlp.kernels.cuda.toolkit import cuda, driver, nvvm

    if not cuda.is_available():
        problem = cuda.cuda_error()
        if problem:
            return f"the NVIDIA driver does not start: {' '.join(str(problem).split())}"
        if not nvvm.is_available():
            return f"the compiler library NVVM is not installed; {INSTALL}"
        return "numba-cuda finds no CUDA"
    try:
        count = driver.driver.get_device_count()
    except Exception as error:
        return f"the NVIDIA driver does not answer: {error}"
    if not count:
        return "the NVIDIA driver finds no GPU"
    try:
        number = device_number(chosen, count)
        capability = tuple(cuda.gpus[number].compute_capability)
    except Exception as error:
        return str(error)
    if capability < LEAST_CAPABILITY:
        has, needs = (".".join(map(str, pair)) for pair in (capability, LEAST_CAPABILITY))
        return f"GPU {number} has compute capability {has}; these kernels need {needs} (Ampere) or newer"
    return None


def _has_driver() -> bool:
    """Whether the driver's library can be loaded; loading it starts nothing."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def device_number(chosen: str | int | None, count: int) -> int:
    """The number of the GPU that was asked for, the first one by default.

    Raises
    ------
    ValueError
        If it is no number, or there is no such GPU.
    """
    if chosen is None or chosen == "":
        return 0
    text = str(chosen)
    if not text.isdecimal() or int(text) >= count:
        raise ValueError(f"GPU {chosen!r} was asked for; expected 0 to {count - 1}, as {count} are here")
    return int(text)
