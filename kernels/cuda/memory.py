"""Arrays on the GPU: made, filled, brought back, and taken from others without a copy."""

import weakref
from collections.abc import Hashable
from typing import Any

import numpy as np

from fastmlp.kernels.cuda.device import Device, current
from fastmlp.kernels.cuda.toolkit import SIMULATED, cuda, gpu_of
from fastmlp.kernels.updates import Rule

__all__ = [
    "address",
    "clear",
    "copy_into",
    "corrections",
    "empty",
    "fetch",
    "is_on_device",
    "place",
    "scratch",
    "staged",
    "zeros",
]

_kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of each stream: key -> array


def is_on_device(array: object) -> bool:
    """Whether it is an array in a GPU's memory: PyTorch's, CuPy's, Numba's."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def address(array: Any) -> int:
    """Where a device array begins."""
    return array.__cuda_array_interface__["data"][0]


def owner(array: Any) -> int | None:
    """The number of the GPU in whose memory a device array is; None where there is but one."""
    if SIMULATED or len(cuda.gpus) == 1 or not address(array):
        return None
    return gpu_of(address(array))


def amount(size: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def empty(shape: int | tuple[int, ...], dtype: Any, what: str = "an array") -> Any:
    """Memory on the calling thread's GPU, whatever is in it.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : NumPy dtype
    what : str, default "an array"
        What it is for, should there be none left.

    Raises
    ------
    MemoryError
        Saying what was needed, and what was free.
    """
    device, stream = current()
    try:
        with device.active():
            return cuda.device_array(shape, np.dtype(dtype), stream=stream)
    except Exception as error:
        if not isinstance(error, MemoryError) and "OUT_OF_MEMORY" not in str(error):
            raise
        free, total = device.memory()
        needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raise MemoryError(
            f"{what} needs {amount(needed)} on {device!r}, and {amount(free)} of its {amount(total)} are free"
        ) from error


def clear(array: Any, stream: Any = None) -> None:
    """Set an array to zero, in the stream's turn."""
    if not array.size:
        return
    if SIMULATED:
        array._ary.fill(0)
    else:
        array.gpu_data.memset(0, array.nbytes, stream=current().stream if stream is None else stream)


def zeros(size: int, dtype: Any, stream: Any = None, what: str = "an array") -> Any:
    """A flat array of zeros."""
    array = empty(size, dtype, what)
    clear(array, stream)
    return array


def place(array: Any, stream: Any = None, what: str = "an array") -> Any:
    """A NumPy array's copy on the GPU, or another library's device array as it is.

    Parameters
    ----------
    array : ndarray, or anything with ``__cuda_array_interface__``
        C-contiguous.
    stream : optional
        The calling thread's own by default.
    what : str, default "an array"
        What it is, should there be no memory left for it.

    Raises
    ------
    MemoryError
        As `empty`.
    ValueError
        If a device array is in another GPU's memory.
    """
    if is_on_device(array):
        device = current().device
        with device.active():
            where = owner(array)
            if where not in (None, device.id):
                raise ValueError(f"{what} is in the memory of GPU {where}; expected GPU {device.id}")
            return array if hasattr(array, "copy_to_host") else cuda.as_cuda_array(array)
    target = empty(array.shape, array.dtype, what)
    if array.size:
        copy_into(target, array, stream)
    return target


def copy_into(target: Any, source: Any, stream: Any = None) -> None:
    """Fill a device array from a NumPy or device array of its shape and dtype."""
    device, own = current()
    with device.active():
        target.copy_to_device(source, stream=own if stream is None else stream)


def fetch(array: Any, stream: Any = None, out: np.ndarray | None = None) -> np.ndarray:
    """A device array's contents as a NumPy array, once all that was queued before is done."""
    device, own = current()
    stream = own if stream is None else stream
    with device.active():
        found = array.copy_to_host(out, stream=stream)
        stream.synchronize()
    return found


def scratch(device: Device, stream: Any, key: Hashable, size: int, dtype: Any) -> Any:
    """A flat array kept from call to call of this stream; zeros when it is made.

    Parameters
    ----------
    device : Device
    stream
        Work in other streams may go on at the same time, so each has scratch of its own.
    key : hashable
        What it is for. Asking for another size or dtype under the same key makes it anew.
    size : int
    dtype : NumPy dtype
    """
    kept = _kept.setdefault(stream, {})
    array = kept.get(key)
    if array is None or array.size != size or array.dtype != np.dtype(dtype):
        kept.pop(key, None)
        kept[key] = array = zeros(size, dtype, stream, f"scratch ({key[0] if isinstance(key, tuple) else key})")
    return array


def staged(values: np.ndarray, dtype: Any, what: str = "an array") -> Any:
    """A copy on the GPU of a flat NumPy array, in another dtype, by way of page-locked memory that is used again.

    So the copy needs no help of the CPU. It must be over before the next call of the same thread and dtype.
    """
    device, stream = current()
    kept = _kept.setdefault(stream, {})
    key = "staging", np.dtype(dtype).str
    staging = kept.get(key)
    if staging is None or staging.size < values.size:
        with device.active():
            kept[key] = staging = cuda.pinned_array(values.size, np.dtype(dtype))
    part = staging[: values.size]
    part[:] = values
    target = empty(values.size, dtype, what)
    copy_into(target, part, stream)
    return target


def corrections(rule: Rule, step: int, batches: int, dtype: Any) -> np.ndarray:
    """Adam's bias corrections 1 - β₁ᵗ and 1 - β₂ᵗ of the next steps, [2 * batches] in turn, rounded once."""
    t = np.arange(step + 1, step + batches + 1, dtype=np.float64)
    return np.stack([1 - rule.beta1**t, 1 - rule.beta2**t], 1).ravel().astype(dtype)
