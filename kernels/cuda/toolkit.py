"""All that the backend takes from numba-cuda and llvmlite, in one place: another house for the kernels is another file.

Private doors, each with its reason:

- `numba.cuda.cudadrv.driver`: more than 48 KiB of shared memory must be asked for by a driver call that numba-cuda does
  not make; so must the number of the GPU that a foreign array is on.
- `numba.cuda.np.arrayobj.make_array`: the address of an array's element, which inline PTX takes.
- `numba.cuda.cgutils`, llvmlite's `ir`: what an intrinsic writes.
"""

from typing import Any

from fastmlp.kernels.cuda.missing import load

load()

from numba import cuda  # noqa: E402  what follows needs what `load` mends
from numba.core import types  # noqa: E402
from numba.core.types import float32, float64, int32, uint8, uint32, uint64  # noqa: E402
from numba.cuda.core import config  # noqa: E402

__all__ = [
    "SIMULATED",
    "cgutils",
    "config",
    "cuda",
    "driver",
    "float32",
    "float64",
    "int32",
    "intrinsic",
    "ir",
    "make_array",
    "types",
    "uint8",
    "uint32",
    "uint64",
]

#: Whether kernels run in a simulator (NUMBA_ENABLE_CUDASIM=1) instead of on a device.
SIMULATED = bool(config.ENABLE_CUDASIM)

cgutils: Any = None
driver: Any = None
intrinsic: Any = None
ir: Any = None
make_array: Any = None
if not SIMULATED:
    from llvmlite import ir
    from numba.cuda import cgutils
    from numba.cuda.cudadrv import driver
    from numba.cuda.extending import intrinsic
    from numba.cuda.np.arrayobj import make_array
