"""The GPU: what it has, the stream in which a thread's work is queued, and how kernels are launched."""

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from fastmlp.kernels.cuda.config import SHARED_MEMORY_UNASKED
from fastmlp.kernels.cuda.missing import DEVICE_VARIABLE, device_number
from fastmlp.kernels.cuda.toolkit import SIMULATED, allow_shared_memory, compiled_for, config, cuda, launch_together

__all__ = ["Device", "Queue", "current", "device", "on", "rehearsal", "stream"]

_configuring = threading.Lock()
_idle: dict[int, list] = {}  # of each GPU: streams that nobody owns any more
_here = threading.local()  # each thread's queue, and whether it only rehearses


class Device:
    """A GPU.

    Attributes
    ----------
    id : int
    name : str
    compute_capability : tuple of int
    multiprocessors : int
    shared_memory : int
        Bytes that a block may have, once asked for.
    """

    def __init__(self, number: int) -> None:
        self.id = number
        with self.active():
            gpu: Any = cuda.get_current_device()
            name = gpu.name
            self.name = name.decode() if isinstance(name, bytes) else str(name)
            self.compute_capability: tuple[int, int] = tuple(gpu.compute_capability)
            self.multiprocessors: int = gpu.MULTIPROCESSOR_COUNT
            self.shared_memory: int = gpu.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        self._allowed: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"GPU {self.id} ({self.name})"

    def active(self):
        """A context in which this GPU is the calling thread's."""
        return cuda.gpus[self.id]

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and bytes in all."""
        with self.active():
            free, total = cuda.current_context().get_memory_info()
        return free, total

    def launch(
        self,
        kernel: Any,
        blocks: int,
        threads: int,
        arguments: Sequence[Any],
        stream: Any,
        shared: int = 0,
        together: bool = False,
    ) -> None:
        """Queue a kernel.

        Parameters
        ----------
        kernel
            What `numba.cuda.jit` gives.
        blocks, threads : int
            Blocks, and threads of each.
        arguments : sequence
            Device arrays and typed scalars.
        stream
            As `numba.cuda.stream` gives.
        shared : int, default 0
            Bytes of dynamic shared memory of a block.
        together : bool, default False
            Whether blocks wait for one another. They are then launched only once all can run at the same time.

        Raises
        ------
        RuntimeError
            If the blocks wait for one another and don't all fit.
        """
        compiled = self._compiled(kernel, arguments, shared)
        if together:
            self._bring_together(compiled, blocks, threads, shared)
        if getattr(_here, "rehearses", False):
            return
        with _configuring:  # few blocks are meant: Numba's warning about them is for others
            warns, config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
            try:
                configured = kernel[blocks, threads, stream, shared]
            finally:
                config.CUDA_LOW_OCCUPANCY_WARNINGS = warns
        configured(*arguments)

    def blocks_at_once(self, kernel: Any, threads: int, arguments: Sequence[Any], shared: int = 0) -> int:
        """How many blocks of a kernel run on the whole GPU at the same time."""
        return self._compiled(kernel, arguments, shared).max_cooperative_grid_blocks(threads, shared)

    def _compiled(self, kernel: Any, arguments: Sequence[Any], shared: int) -> Any:
        """The kernel compiled for these arguments, and allowed so much shared memory."""
        compiled = compiled_for(kernel, arguments)
        if SIMULATED:
            return compiled
        whole = shared + compiled.shared_mem_per_block
        if whole > SHARED_MEMORY_UNASKED and self._allowed.get(compiled, 0) < shared:
            allow_shared_memory(compiled, shared, self.id)
            self._allowed[compiled] = shared
        return compiled

    def _bring_together(self, compiled: Any, blocks: int, threads: int, shared: int) -> None:
        most = compiled.max_cooperative_grid_blocks(threads, shared)
        if blocks > most:
            raise RuntimeError(
                f"a kernel of {blocks} blocks of {threads} threads that wait for one another does not fit {self!r}: "
                f"{most} run at the same time"
            )
        launch_together(compiled)


class Queue(NamedTuple):
    """Where work goes: a GPU, and a stream of it."""

    device: Device
    stream: Any


@cache
def _device(number: int) -> Device:
    return Device(number)


def device(number: int | str | None = None) -> Device:
    """A GPU by its number; without one, that of $FASTMLP_CUDA_DEVICE, or the first.

    Raises
    ------
    ValueError
        If there is no such GPU.
    """
    chosen = os.environ.get(DEVICE_VARIABLE) if number is None else number
    return _device(device_number(chosen, len(cuda.gpus)))


def stream(on: Device, owner: Any) -> Any:
    """A stream for as long as its owner lives; then the next owner gets it, and what is kept for it."""
    idle = _idle.setdefault(on.id, [])
    try:
        given = idle.pop()
    except IndexError:
        with on.active():
            given = cuda.stream()
    weakref.finalize(owner, idle.append, given).atexit = False
    return given


def current() -> Queue:
    """The calling thread's queue: that of `on`, or else one of its own on the default GPU."""
    inner = getattr(_here, "queues", None)
    if inner:
        return inner[-1]
    chosen = device()
    own = _here.__dict__.setdefault("own", {})
    if chosen.id not in own:
        own[chosen.id] = Queue(chosen, stream(chosen, threading.current_thread()))
    return own[chosen.id]


@contextmanager
def on(queue: Queue) -> Iterator[None]:
    """Within the block, the calling thread's work goes into this queue."""
    queues = _here.__dict__.setdefault("queues", [])
    queues.append(queue)
    try:
        with queue.device.active():
            yield
    finally:
        queues.pop()


@contextmanager
def rehearsal() -> Iterator[None]:
    """Within the block, the calling thread's kernels are compiled and not launched."""
    _here.rehearses = True
    try:
        yield
    finally:
        _here.rehearses = False
