"""The contract's checks, for arrays that may be on the GPU already, and their way there.

Device arrays are told by ``__cuda_array_interface__``. They are looked at through `Described`, so that the checks and
messages are those of every backend.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastmlp.kernels.contract import check_flat, check_inputs, check_state, check_writable
from fastmlp.kernels.cuda import memory
from fastmlp.kernels.network import ALIGNMENT, Network
from fastmlp.kernels.updates import Rule, State

#: Bytes of the widest access to memory, which device samples must start on a multiple of.
VECTOR = 16


class Described:
    """A device array, as far as `fastmlp.kernels.contract` asks about one."""

    def __init__(self, array: Any) -> None:
        interface = array.__cuda_array_interface__
        self.array = array
        self.shape = tuple(interface["shape"])
        self.dtype = np.dtype(interface["typestr"])
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape))
        strides, plain = interface.get("strides"), c_strides(self.shape, self.dtype.itemsize)
        contiguous = strides is None or not self.size or same_strides(self.shape, tuple(strides), plain)
        self.flags = SimpleNamespace(c_contiguous=contiguous, writeable=not interface["data"][1])

    def __len__(self) -> int:
        return self.shape[0]

    def min(self) -> int:
        """The smallest entry: of labels, which are brought to the host for it, once."""
        return self._range()[0]

    def max(self) -> int:
        """The largest entry."""
        return self._range()[1]

    def _range(self) -> tuple[int, int]:
        known = getattr(self.array, "fastmlp_range", None)
        if known is None:
            labels = memory.fetch(memory.place(self.array))
            known = int(labels.min()), int(labels.max())
            remember_range(self.array, *known)
        return known


def remember_range(array: Any, least: int, most: int) -> None:
    """Note on an array of labels what it holds, so that it need not be looked through in each epoch."""
    try:
        array.fastmlp_range = least, most
    except AttributeError:  # another library's array, which takes no notes
        return


def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one entry to the next along each axis of a C-contiguous array."""
    strides = []
    for n in reversed(shape):
        strides.append(itemsize)
        itemsize *= n
    return tuple(reversed(strides))


def same_strides(shape: tuple[int, ...], strides: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether strides lead to the same places, where there is more than one place."""
    return all(n == 1 or a == b for n, a, b in zip(shape, strides, others, strict=True))


def described(array: Any) -> Any:
    """A NumPy array itself, a device array described."""
    return Described(array) if memory.is_on_device(array) else array


def inputs(network: Network, parameters: Any, X: Any, Y: Any = None) -> int:
    """`fastmlp.kernels.contract.check_inputs`; returns the number of samples."""
    samples = described(X)
    check_inputs(network, described(parameters), samples, None if Y is None else described(Y))
    on_boundary("parameters", parameters)
    return samples.shape[0]


def flat(name: str, array: Any, size: int, dtype: str) -> None:
    """`fastmlp.kernels.contract.check_flat`."""
    check_flat(name, described(array), size, dtype)
    on_boundary(name, array)


def state(rule: Rule, given: State, parameters: Any) -> None:
    """`fastmlp.kernels.contract.check_state`."""
    check_state(rule, State(described(given.slots), given.step), described(parameters))
    on_boundary("state.slots", given.slots)
    if rule.slots:
        check_writable(**{"state.slots": described(given.slots)})


def writable(**arrays: Any) -> None:
    """`fastmlp.kernels.contract.check_writable`."""
    check_writable(**{name: described(array) for name, array in arrays.items()})


def on_boundary(name: str, array: Any) -> None:
    """Refuse a device array that does not start where vectors do; NumPy arrays are copied, and may start anywhere."""
    if memory.is_on_device(array) and Described(array).size and memory.address(array) % ALIGNMENT:
        raise ValueError(f"{name} is off a {ALIGNMENT}-byte boundary; expected an array as a GPU's allocator gives")


def on_device(array: Any, what: str) -> Any:
    """A flat array on the GPU: a copy of a NumPy array; a device array as it is, if it starts where vectors do."""
    placed = memory.place(array, what=what)
    if placed.size and memory.address(placed) % VECTOR:
        copy = memory.empty(placed.shape, placed.dtype, what)
        memory.copy_into(copy, placed)
        placed = copy
    return placed.reshape(placed.size) if placed.ndim != 1 else placed
