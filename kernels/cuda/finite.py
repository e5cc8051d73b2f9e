"""Whether an array holds nan or infinity, looked for on the GPU: one launch, four bytes back."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types

from fastmlp.kernels.cuda import generate, memory
from fastmlp.kernels.cuda.config import FINITE_BLOCKS, FINITE_THREADS
from fastmlp.kernels.cuda.device import Device
from fastmlp.kernels.cuda.variants import Variant
from fastmlp.kernels.network import DTYPES

TEXT = """
from numba import cuda, uint32


def look(values, found):
    i = cuda.grid(1)
    step = cuda.gridsize(1)
    while i < values.size:
        value = values[i]
        if value - value != value - value:  # of nan and infinity that is nan, which equals nothing
            cuda.atomic.max(found, 0, uint32(1))
        i += step
"""


@cache
def kernel() -> Any:
    """The kernel; for any dtype."""
    loaded = generate.module("finite", TEXT)
    return cuda.jit(cache=generate.is_cacheable(loaded))(loaded.look)


def is_finite(device: Device, array: Any, stream: Any) -> bool:
    """Whether a flat device array holds neither nan nor infinity. Integers always do."""
    if np.dtype(array.dtype).kind != "f" or not array.size:
        return True
    found = memory.scratch(device, stream, ("finite",), 1, np.uint32)
    memory.clear(found, stream)
    most = -(-array.size // FINITE_THREADS)
    blocks = min(most, FINITE_BLOCKS * device.multiprocessors)
    device.launch(kernel(), blocks, FINITE_THREADS, (array, found), stream)
    return not memory.fetch(found, stream)[0]


def variants() -> Iterator[Variant]:
    """Kernels for the compile check."""
    for dtype in DTYPES:
        yield Variant(f"finite {dtype}", partial(_build, dtype), dtype, FINITE_THREADS)


def _build(dtype: str) -> tuple[Any, tuple]:
    return kernel(), (types.Array(getattr(types, dtype), 1, "C"), types.Array(types.uint32, 1, "C"))
