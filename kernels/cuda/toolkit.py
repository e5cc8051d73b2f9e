"""All that the backend takes from numba-cuda and llvmlite: another house for the kernels is another file like this one.

Importing this module imports numba-cuda. Not public there, and so what another release may take away:

- ``numba.cuda.np.arrayobj.make_array`` and ``numba.cuda.cgutils``: an intrinsic finds the address of an array's element
  with the one, and reads tuples and declares functions with the other.
- ``numba.cuda.cudadrv.driver``: what numba-cuda has no function for is asked of the driver by its own functions.
- ``numba.cuda.cudadrv.nvvm``: whether the compiler library is there, for a message that says so.
- What `compiled_for`, `launch_together` and `compiling_for` do: their docstrings have the reasons.
- NumPy's ``row_stack`` for the length of the import: see `_load`.

Nothing of Numba is patched but by `compiling_for`, which only the compile check uses.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def _load() -> None:
    """Import numba-cuda, whichever NumPy is here.

    Up to 0.30 at least it asks NumPy for ``row_stack``, a name for ``vstack`` that NumPy 2.5 took away, and converts a
    time difference in a way that NumPy warns of. For the length of the import the name is there, the warning is not.

    Raises
    ------
    ImportError
        If ``numba.cuda`` is not that of numba-cuda, or numba-cuda can't be imported.
    """
    names = vars(np)
    lent = "row_stack" not in names
    if lent:
        names["row_stack"] = np.vstack
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The 'generic' unit for NumPy timedelta", DeprecationWarning)
            found = importlib.import_module("numba.cuda")
            if getattr(found, "implementation", None) != "NVIDIA":
                raise ImportError(
                    f"numba.cuda is Numba's own, in {found.__file__}: Python has not read the .pth file of numba-cuda, "
                    "as where its folder is named by PYTHONPATH"
                )
            importlib.import_module("numba.cuda.np.arrayobj")  # it would be imported by the first compilation
    finally:
        if lent:
            del names["row_stack"]


_load()

# ruff: noqa: E402 (only now can it be imported)
from llvmlite import ir
from numba import cuda
from numba.cuda import cgutils, types
from numba.cuda.core import config
from numba.cuda.cudadrv import driver, nvvm
from numba.cuda.extending import intrinsic
from numba.cuda.np.arrayobj import make_array
from numba.cuda.types import float32, float64, int32, int64, uint8, uint32, uint64

__all__ = [
    "SIMULATED",
    "allow_shared_memory",
    "cgutils",
    "compiled_for",
    "compiling_for",
    "config",
    "cuda",
    "driver",
    "float32",
    "float64",
    "gpu_of",
    "int32",
    "int64",
    "intrinsic",
    "ir",
    "launch_together",
    "make_array",
    "nvvm",
    "types",
    "uint8",
    "uint32",
    "uint64",
]

#: Whether kernels run in a simulator (NUMBA_ENABLE_CUDASIM=1) instead of on a device.
SIMULATED = bool(config.ENABLE_CUDASIM)


def compiled_for(kernel: Any, arguments: Sequence[Any]) -> Any:
    """What a kernel is compiled into for these arguments, as at a launch.

    That a launch compiles is public. What it compiled, and how many blocks of that fit, is needed before the launch.
    """
    if SIMULATED:
        return kernel.overloads[()]
    types_ = tuple(kernel.typeof_pyval(argument) for argument in arguments)
    try:
        return kernel.compile(types_)
    except Exception as error:  # what reading a damaged pickle may raise is anything
        if not forget(kernel):
            raise
        compiled = kernel.compile(types_)  # which raises again what had another cause
        warnings.warn(f"kept code of a CUDA kernel was damaged and is compiled anew ({error})", RuntimeWarning, 2)
        return compiled


def forget(kernel: Any) -> bool:
    """Remove what Numba keeps of a kernel on disk; whether there was something.

    Numba loads whatever its files hold. What a full disk has cut short would else break every later run.
    """
    folder, source = kernel.stats.cache_path, Path(kernel.py_func.__code__.co_filename)
    kept = list(Path(folder).glob(f"{source.stem}.*.nb[ic]")) if folder else []
    for path in kept:
        path.unlink(missing_ok=True)
    return bool(kept)


def allow_shared_memory(compiled: Any, size: int, number: int) -> None:
    """Let blocks of a compiled kernel have that many bytes of dynamic shared memory on the GPU of that number.

    More than 48 KiB are to be asked for, by a function of the driver that numba-cuda does not call.
    """
    attribute = driver.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.driver.cuKernelSetAttribute(attribute, size, compiled.library.get_cufunc().handle, number)


def launch_together(compiled: Any) -> None:
    """Have a compiled kernel launched only with all its blocks at the same time, as blocks that wait for others need.

    numba-cuda itself does this only for kernels that use its grid group, which would link the device runtime.
    """
    compiled.cooperative = True


def gpu_of(address: int) -> int:
    """The number of the GPU in whose memory an address is, be the memory numba-cuda's or another library's."""
    attribute = driver.binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(driver.driver.cuPointerGetAttribute(attribute, address))


@contextmanager
def compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """Within the block, Numba compiles for this compute capability, whatever GPU is here, or none.

    `numba.cuda.compile` takes one for the kernel; but the device functions that it calls ask for the current device.
    """

    class Device:
        compute_capability = capability

    from numba.cuda import dispatcher

    asked, dispatcher.get_current_device = dispatcher.get_current_device, lambda: Device
    try:
        yield
    finally:
        dispatcher.get_current_device = asked
