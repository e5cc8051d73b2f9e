"""Where a network's numbers live from call to call.

A backend that computes where the host's memory is takes NumPy arrays, and needs nothing of this: `OnHost` passes them
on. One that computes elsewhere has a function ``reside(network, parameters, device)`` that gives an object with
the same methods, and keeps parameters, optimizer state and data there.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from fastmlp.kernels.network import Network, aligned_zeros
from fastmlp.kernels.updates import Rule, State

_NO_CONTEXT: AbstractContextManager[None] = nullcontext()


class Residence(Protocol):
    """The parameters of a network, and what belongs to them."""

    def host(self, lend: bool = False) -> np.ndarray:
        """The parameters in the host's memory, up to date; always the same array.

        ``lend`` says that whoever gets it may keep it, expect it to be up to date whenever Python runs, and change it.
        """

    def changed(self) -> None:
        """The host's array has just been changed."""

    def parameters(self) -> Any:
        """The parameters as the backend's functions take them, up to date."""

    def trained(self) -> None:
        """The backend has changed the parameters."""

    def data(self, array: Any, what: str = "X") -> Any:
        """Samples or targets as the backend's functions take them."""

    def new_state(self, rule: Rule) -> State:
        """The state of an update rule before its first step."""

    def host_state(self, state: State) -> State:
        """A copy of a state in the host's memory."""

    def taken_state(self, state: State) -> State:
        """A state in the host's memory, as the backend's functions take it."""

    def is_finite(self) -> bool:
        """Whether the parameters are free of nan and infinity."""

    def copies(self, state: State) -> Any:
        """What `put_back` needs to undo what happens to parameters and state from now on."""

    def put_back(self, copies: Any, state: State) -> None:
        """Parameters and state as they were at `copies`."""

    def at_work(self) -> AbstractContextManager[None]:
        """A context for calls of the backend's functions."""

    def foreign_inputs(self, X: Any, name: str, look_for_nan: bool = True) -> Any:
        """Samples in a GPU's memory, checked: as the backend's functions take them, without a copy."""

    def foreign_targets(self, y: Any, name: str = "y") -> np.ndarray:
        """Targets, or weights or indices, in a GPU's memory, copied to the host's to be checked there."""


class OnHost:
    """Parameters in the host's memory."""

    def __init__(self, network: Network, parameters: np.ndarray, device: int | None = None) -> None:
        self._network, self._parameters = network, parameters

    def host(self, lend: bool = False) -> np.ndarray:
        return self._parameters

    def changed(self) -> None:
        pass

    def parameters(self) -> np.ndarray:
        return self._parameters

    def trained(self) -> None:
        pass

    def data(self, array: Any, what: str = "X") -> Any:
        return array

    def new_state(self, rule: Rule) -> State:
        return self._network.state(rule)

    def host_state(self, state: State) -> State:
        return State(aligned_copy(state.slots), state.step.copy())

    taken_state = host_state

    def is_finite(self) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):  # a sum shows any nan; only an overflow needs a second look
            return bool(np.isfinite(self._parameters.sum()) or np.isfinite(self._parameters).all())

    def copies(self, state: State) -> Any:
        return self._parameters.copy(), state.slots.copy(), state.step.copy()

    def put_back(self, copies: Any, state: State) -> None:
        self._parameters[:], state.slots[:], state.step[:] = copies

    def at_work(self) -> AbstractContextManager[None]:
        return _NO_CONTEXT

    def foreign_inputs(self, X: Any, name: str, look_for_nan: bool = True) -> Any:
        raise TypeError(elsewhere(name))

    def foreign_targets(self, y: Any, name: str = "y") -> np.ndarray:
        raise TypeError(elsewhere(name))


def elsewhere(name: str) -> str:
    """That an array is where this backend can't read it."""
    return f"{name} is in a GPU's memory; expected an array in the host's, or backend='cuda'"


def aligned_copy(flat: np.ndarray) -> np.ndarray:
    """A copy on a 64-byte boundary, which ``ndarray.copy`` does not promise."""
    copy = aligned_zeros(len(flat), flat.dtype)
    copy[:] = flat
    return copy
