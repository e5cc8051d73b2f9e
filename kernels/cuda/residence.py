"""A network's numbers on the GPU, from call to call.

Parameters and optimizer state are placed once and stay. The host's array, which people see as ``weights``, is brought
up to date when they ask for it; whoever has asked once may hold on to it, and change it in place at any time. So from
then on it is brought up to date after each training call, and looked through for changes before the next.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastmlp.kernels.contract import INPUT_DTYPES
from fastmlp.kernels.cuda import arguments, calls, memory
from fastmlp.kernels.cuda.device import Queue, device, on, stream
from fastmlp.kernels.network import Network
from fastmlp.kernels.residence import aligned_copy
from fastmlp.kernels.updates import Rule, State


class OnDevice:
    """Parameters on a GPU, in a stream of their own: see `fastmlp.kernels.residence.Residence`."""

    def __init__(self, network: Network, parameters: np.ndarray, number: int | None = None) -> None:
        self._network, self._host = network, parameters
        chosen = device(number)
        self._lock = threading.RLock()  # a stream's scratch is for one call at a time
        self._queue = Queue(chosen, stream(chosen, self))
        self._device: Any = None  # the parameters on the GPU, once they are needed there
        self._seen: np.ndarray | None = None  # what the host's array held when it was last compared with them
        self._host_is_behind = self._host_is_ahead = False
        self._lent = False  # somebody may hold on to the host's array
        self._backup: dict[str, Any] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._lock, on(self._queue):
            yield

    def host(self, lend: bool = False) -> np.ndarray:
        self._lent |= lend
        self._update_host()
        return self._host

    def changed(self) -> None:
        self._host_is_ahead = True

    def _update_host(self) -> None:
        if self._host_is_behind:
            with self.at_work():
                memory.fetch(self._device, out=self._host)
            self._host_is_behind, self._seen = False, None
        if self._lent and self._device is not None and self._seen is None:
            self._seen = self._host.copy()

    def parameters(self) -> Any:
        with self.at_work():
            if self._device is None:
                self._device = memory.place(self._host, what="the parameters")
                self._host_is_ahead = False
            elif self._host_is_ahead or self._was_changed():
                memory.copy_into(self._device, self._host)
                self._host_is_ahead, self._seen = False, None
            if self._lent and self._seen is None:
                self._seen = self._host.copy()
        return self._device

    def _was_changed(self) -> bool:
        if not self._lent or self._host_is_behind or self._seen is None:
            return False
        return not np.array_equal(self._host, self._seen)

    def trained(self) -> None:
        self._host_is_behind = True
        if self._lent:
            self._update_host()

    def data(self, array: Any, what: str = "X") -> Any:
        with self.at_work():
            placed = memory.place(array, what=what)
            if isinstance(array, np.ndarray) and array.ndim == 1 and array.size and array.dtype == np.int32:
                arguments.remember_range(placed, int(array.min()), int(array.max()))
        return placed

    def new_state(self, rule: Rule) -> State:
        with self.at_work():
            slots = memory.zeros(rule.slots * self._network.size, self._network.dtype, what="the optimizer's state")
        return State(slots, np.zeros(1, np.int64))

    def host_state(self, state: State) -> State:
        with self.at_work():
            slots = memory.fetch(state.slots) if state.slots.size else np.zeros(0, self._network.dtype)
        return State(aligned_copy(slots), state.step.copy())

    def taken_state(self, state: State) -> State:
        with self.at_work():
            return State(memory.place(state.slots, what="the optimizer's state"), state.step.copy())

    def foreign_inputs(self, X: Any, name: str, look_for_nan: bool = True) -> Any:
        """Checked like the host's samples.

        Raises
        ------
        ValueError
            If X is not C-contiguous uint8, float32 or float64 [n, n_in] of finite numbers.
        """
        given, n_in = arguments.described(X), self._network.sizes[0]
        if given.ndim != 2 or given.shape[1] != n_in or not given.shape[0]:
            raise ValueError(f"{name} has shape {list(given.shape)}; expected [n, {n_in}] with at least one sample")
        if given.dtype.name not in INPUT_DTYPES or not given.flags.c_contiguous:
            how = "" if given.flags.c_contiguous else ", not contiguous"
            expected = f"C-contiguous {', '.join(INPUT_DTYPES)}, as it is not copied"
            raise ValueError(f"{name} is {given.dtype}{how}, in a GPU's memory; expected {expected}")
        with self.at_work():
            placed = memory.place(X, what=name)
            if look_for_nan and not calls.is_finite(placed):
                raise ValueError(f"{name} holds nan or infinity; expected finite numbers")
        return placed

    def foreign_targets(self, y: Any, name: str = "y") -> np.ndarray:
        with self.at_work():
            return memory.fetch(memory.place(y, what=name))

    def is_finite(self) -> bool:
        with self.at_work():
            return calls.is_finite(self.parameters())

    def copies(self, state: State) -> Any:
        """Kept on the GPU, in memory that is used again: only the latest copies can be put back."""
        self._keep("parameters", self.parameters())
        self._keep("slots", state.slots)
        return state.step.copy()

    def _keep(self, name: str, array: Any) -> None:
        if not array.size:
            return
        with self.at_work():
            backup = self._backup.get(name)
            if backup is None or backup.size != array.size:
                self._backup[name] = backup = memory.empty(array.size, array.dtype, "a copy to go back to")
            memory.copy_into(backup, array)

    def put_back(self, copies: Any, state: State) -> None:
        with self.at_work():
            memory.copy_into(self._device, self._backup["parameters"])
            if state.slots.size:
                memory.copy_into(state.slots, self._backup["slots"])
        state.step[:] = copies
        self.trained()
