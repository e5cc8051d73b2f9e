"""A CUDA simulator in which all blocks of a launch run at once, on top of the one in numba-cuda.

The stock simulator runs one block after another: a barrier across the grid is silently wrong there, and shuffles,
votes and clusters are missing. Here every CUDA thread is a greenlet. One runs at a time, and which one is drawn from
a seeded generator, so a failure comes back with its seed. A thread gives way at barriers and, now and then, at an
access to memory.

What a GPU leaves undefined is made visible:

- shared, local and fresh device memory is poisoned: NaN, or bytes of 0xA5;
- an index outside an array is an error, a negative one as well;
- two accesses to one place, one of them a write, with no barrier or release and acquire between, are an error
  (``Race``), whatever the order in which they happened to run: each thread carries a vector clock;
- a barrier that some threads never reach, or reach on different lines, is an error (``Deadlock``, ``Divergence``);
- an asynchronous copy lands at its issue or only at the wait for it, and reading before the wait is a race.

Use: ``install()`` first of all, with NUMBA_ENABLE_CUDASIM=1; then ``settings`` says how kernels run. Inside a kernel
``cuda`` has what numba's documentation lists, and ``cuda.concurrent`` (a `Concurrent`), from which the plain-Python
meanings of inline PTX are made.
"""

import contextvars
import random
import sys
import threading
import weakref
from dataclasses import dataclass
from operator import index as whole
from types import SimpleNamespace

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet
from numba import cuda
from numba.cuda import types
from numba.cuda.np import numpy_support
from numba.cuda.simulator import api as _api
from numba.cuda.simulator import kernel as _kernel
from numba.cuda.simulator import kernelapi as _kernelapi
from numba.cuda.simulator.cudadrv import devicearray as _devicearray
from numba.cuda.simulator.cudadrv import devices as _devices

POISON = 0xA5  #: each byte of fresh integer memory
WARP = 32
IN_FLIGHT = -2  #: in place of a writer: an asynchronous copy that was not waited for
NOBODY = -1


class Race(AssertionError):
    """Two accesses to one place, one of them a write, that nothing orders."""


class Deadlock(AssertionError):
    """Every thread waits, or spins, for what will never come."""


class Divergence(AssertionError):
    """Threads that should act together are at different lines, or do different things."""


@dataclass
class Settings:
    """How kernels run. Change the attributes of `settings`."""

    seed: int = 0  #: of the order of threads; each launch continues the sequence
    preempt: float = 0.02  #: probability of giving way at an access to memory
    races: bool = True  #: whether vector clocks watch every access
    compute_capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 16
    blocks_per_multiprocessor: int = 1  #: resident at once, whatever the kernel needs
    shared_memory: int = 232_448  #: bytes a block may opt in to
    total_memory: int = 2**34  #: bytes


settings = Settings()
_rng = random.Random(0)


def seed(value: int) -> None:
    """Start the sequence of schedules anew."""
    settings.seed = value
    _rng.seed(value)


def aligned(shape, dtype, fill=None) -> np.ndarray:
    """Memory on a 256-byte boundary, as the driver gives it, poisoned."""
    dtype = np.dtype(dtype)
    shape = tuple(shape) if np.iterable(shape) else (int(shape),)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.full(nbytes + 256, POISON, np.uint8)
    start = -raw.ctypes.data % 256
    array = raw[start : start + nbytes].view(dtype).reshape(shape)
    if dtype.kind == "f":
        array.fill(np.nan)
    return array


class Memory:
    """An array as a kernel sees it: every access is checked, and may let other threads run first."""

    __slots__ = ("_address", "_array", "_size", "_stride", "dtype", "shape", "size")

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.dtype, self.shape, self.size = array.dtype, array.shape, array.size
        self._size = len(array)
        self._stride = array.strides[0] if array.ndim == 1 else None
        self._address = array.ctypes.data

    def __len__(self) -> int:
        return self._size

    @property
    def ndim(self) -> int:
        return self._array.ndim

    def _place(self, index) -> int:
        """The address of an element; an error when it is none of this array's."""
        if self._stride is not None:
            i = whole(index)
            if not 0 <= i < self._size:
                raise IndexError(f"index {i} outside an array of {self._size}")
            return self._address + i * self._stride
        if type(index) is not tuple or len(index) != self._array.ndim:
            raise IndexError(f"index {index} into {list(self.shape)}")
        address = self._address
        for i, n, stride in zip(index, self.shape, self._array.strides, strict=True):
            if not 0 <= i < n:
                raise IndexError(f"index {tuple(map(int, index))} outside {list(self.shape)}")
            address += int(i) * stride
        return address

    def __getitem__(self, index):
        if index.__class__ is slice:
            return Memory(self._array[index])
        stride = self._stride
        if stride is not None and 0 <= (i := whole(index)) < self._size:
            address = self._address + i * stride
        else:
            address = self._place(index)
        me = getcurrent()
        me.left -= 1
        entry = me.launch.shadow.get(address)
        if entry is not None and me.left > 0:
            writer = entry[0]
            if writer == me.number or (writer >= 0 and me.known[writer] >= entry[1]):
                entry[2][me.number] = me.time  # the usual case of `Thread.touch`, quickly
                return self._array[index]
        me.left += 1
        me.touch(address, False)
        return self._array[index]

    def __setitem__(self, index, value) -> None:
        getcurrent().touch(self._place(index), True)
        self._array[index] = value

    def view(self, dtype) -> "Memory":
        return Memory(self._array.view(_dtype(dtype)))


def _dtype(dtype) -> np.dtype:
    """Of whatever kernels name one with: Numba's types, or what `_swap` puts in their place."""
    if isinstance(dtype, types.Type):
        return np.dtype(numpy_support.as_dtype(dtype))
    return np.dtype(dtype) if isinstance(dtype, type) else np.dtype(getattr(dtype, "dtype", dtype))


class Thread(greenlet):
    """One CUDA thread."""

    def __init__(self, launch: "Launch", block: "Block", number: int, index: tuple, index_in_block: tuple) -> None:
        super().__init__(self._run)
        self.launch, self.block, self.number = launch, block, number
        self.blockIdx, self.threadIdx = _kernelapi.Dim3(*block.index), _kernelapi.Dim3(*index_in_block)
        self.thread_id = index[0]
        self.lane, self.warp = self.thread_id % WARP, block.warps[self.thread_id // WARP]
        self.left = launch.patience()
        self.known = launch.start  # of each thread, up to which of its own times everything is ordered before now
        self.time = 1
        self.waits = "to start"
        self.committed: list[list] = []
        self.copies: list = []

    def _run(self) -> None:
        launch = self.launch
        launch.function(*launch.arguments)
        if self.copies or any(self.committed):
            raise AssertionError("the thread ends with asynchronous copies that it never waited for")

    def touch(self, address: int, write: bool, atomic: bool = False) -> None:
        """Before an access to memory: perhaps let others run, then see that it is ordered."""
        launch = self.launch
        self.left -= 1
        if self.left <= 0:
            self.left = launch.patience()
            self.give_way()
        if write:
            launch.spins = 0
        if not launch.races:
            return
        entry = launch.shadow.get(address)
        if entry is None:
            launch.shadow[address] = entry = [NOBODY, 0, {}, False]
        writer, when, readers, was_atomic = entry
        me = self.number
        if writer == IN_FLIGHT:
            raise Race("access to the target of an asynchronous copy that nobody has waited for yet")
        both_atomic = atomic and was_atomic
        if writer >= 0 and writer != me and self.known[writer] < when and not both_atomic:
            raise Race(f"{'write' if write else 'read'} after a write of {launch.threads[writer].name()}, unordered")
        if not write:
            readers[-1 - me if atomic else me] = self.time
            return
        for place, then in readers.items():
            reader = place if place >= 0 else -1 - place
            if reader != me and self.known[reader] < then and not (atomic and place < 0):
                raise Race(f"write after a read of {launch.threads[reader].name()}, unordered")
        launch.shadow[address] = [me, self.time, {}, atomic]

    def give_way(self) -> None:
        """Back among those who can run."""
        launch = self.launch
        launch.ready.append(self)
        launch.hub.switch()

    def name(self) -> str:
        return f"thread {self.threadIdx} of block {self.blockIdx}"


class Meeting:
    """A barrier of some threads, at which values can be laid out for all."""

    def __init__(self, members: int, what: str, strict: bool = True) -> None:
        self.members, self.what, self.strict = members, what, strict
        self.arrived: list[Thread] = []
        self.values: dict[int, object] = {}
        self.where: tuple | None = None

    def arrive(self, value=None, where=None, orders: bool = True) -> dict:
        """Wait until all are here; what each brought, by thread number."""
        me: Thread = getcurrent()
        if not self.arrived:
            self.values, self.where = {}, where
        elif where != self.where:
            raise Divergence(f"{self.what}: some are at {self.where}, {me.name()} is at {where}")
        self.arrived.append(me)
        self.values[me.number] = value
        values = self.values
        launch = me.launch
        if len(self.arrived) < self.members:
            me.waits = f"at {self.what} {where}"
            launch.hub.switch()
        else:
            here, self.arrived = self.arrived, []
            if orders and launch.races:
                join(here)
            launch.spins = 0
            launch.ready.extend(here)
            launch.hub.switch()
        me.waits = ""
        return values


def join(threads: list[Thread]) -> None:
    """After a barrier, what any of them did is before all that any of them does."""
    distinct = list({id(t.known): t.known for t in threads}.values())
    known = list(map(max, *distinct)) if len(distinct) > 1 else distinct[0].copy()
    for thread in threads:
        known[thread.number] = thread.time
    for thread in threads:
        thread.known = known
        thread.time += 1


class Block:
    """A block's shared memory and barriers."""

    def __init__(self, index: tuple, number: int, threads: int, dynamic: int) -> None:
        self.index, self.number = index, number
        self.barrier = Meeting(threads, "the block's barrier")
        counts = [min(WARP, threads - first) for first in range(0, threads, WARP)]
        self.warps = [SimpleNamespace(count=n, meetings={}, threads=[]) for n in counts]
        self.dynamic = aligned(dynamic, np.uint8) if dynamic else None
        if self.dynamic is not None:
            self.dynamic[:] = 0xFF  # NaN as a float of either width
        self.arrays: dict[tuple, np.ndarray] = {}
        self.static_bytes = 0

    def shared(self, shape, dtype, place: tuple) -> Memory:
        dtype = _dtype(dtype)
        if shape in (0, (0,)):
            if self.dynamic is None:
                raise ValueError("dynamic shared memory, but the launch asks for none")
            return Memory(self.dynamic[: len(self.dynamic) // dtype.itemsize * dtype.itemsize].view(dtype))
        if place not in self.arrays:
            array = self.arrays[place] = aligned(shape, dtype)
            self.static_bytes += array.nbytes
            limit = min(settings.shared_memory, 49_152)
            if self.static_bytes > limit:
                raise MemoryError(f"{self.static_bytes} bytes of static shared memory; the limit is {limit}")
        return Memory(self.arrays[place])


class Launch:
    """A grid that runs."""

    def __init__(self, function, grid: tuple, block: tuple, dynamic: int, arguments: list) -> None:
        self.function, self.grid, self.block_dim, self.arguments = function, grid, block, arguments
        self.rng = random.Random(_rng.random())
        self.races = settings.races
        n, blocks = int(np.prod(block)), int(np.prod(grid))
        if not 0 < n <= 1024 or blocks < 1:
            raise ValueError(f"blocks of {n} threads, {blocks} blocks; expected 1 to 1024 threads, 1 block or more")
        if dynamic > settings.shared_memory:
            raise MemoryError(f"{dynamic} bytes of dynamic shared memory; the limit is {settings.shared_memory}")
        self.start = [0] * (n * blocks)
        self.shadow: dict[int, list] = {}
        self.released: dict[int, list[int]] = {}
        self.spins = 0
        self.hub = getcurrent()
        self.cluster = 0
        self.clusters: dict[int, Meeting] = {}
        self.grid_barrier = Meeting(n * blocks, "the grid's barrier")
        self.blocks: list[Block] = []
        self.threads: list[Thread] = []
        for z, y, x in np.ndindex(*grid[::-1]):
            one = Block((x, y, z), len(self.blocks), n, dynamic)
            self.blocks.append(one)
            for number, (c, b, a) in enumerate(np.ndindex(*block[::-1])):
                thread = Thread(self, one, len(self.threads), (number,), (a, b, c))
                one.warps[number // WARP].threads.append(thread)
                self.threads.append(thread)
        self.ready = list(self.threads)

    def patience(self) -> int:
        """Accesses until the next voluntary pause."""
        return 1 + int(self.rng.expovariate(settings.preempt)) if settings.preempt > 0 else sys.maxsize

    def resident(self, what: str) -> None:
        """Blocks that wait for one another must all be there at once."""
        most = settings.multiprocessors * settings.blocks_per_multiprocessor
        if len(self.blocks) > most:
            raise Deadlock(f"{what} with {len(self.blocks)} blocks; {most} are resident at once")

    def run(self) -> None:
        alive = len(self.threads)
        try:
            while alive:
                if not self.ready:
                    raise Deadlock("nobody can go on: " + self._waiting())
                if self.spins > 200 * len(self.threads) + 10_000:
                    raise Deadlock("everybody spins, or waits: " + self._waiting())
                at = self.rng.randrange(len(self.ready))
                self.ready[at], self.ready[-1] = self.ready[-1], self.ready[at]
                thread = self.ready.pop()
                try:
                    thread.switch()
                except Exception as error:
                    message = f"{thread.name()} (seed {settings.seed}): {error}"
                    raise _same_kind(error, message) from error
                if thread.dead:
                    alive -= 1
                    self.spins = 0
        finally:
            for thread in self.threads:
                if not thread.dead and thread:
                    thread.throw(GreenletExit)

    def _waiting(self) -> str:
        places: dict[str, int] = {}
        for thread in self.threads:
            if not thread.dead:
                places[thread.waits or "running"] = places.get(thread.waits or "running", 0) + 1
        ended = sum(thread.dead for thread in self.threads)
        return f"{ended} threads have ended; " + "; ".join(f"{n} {where}" for where, n in places.items())


def _same_kind(error: Exception, message: str) -> Exception:
    try:
        return type(error)(message)
    except Exception:
        return RuntimeError(message)


def _where(depth: int = 2) -> tuple:
    frame = sys._getframe(depth)
    return frame.f_code.co_filename.rpartition("/")[2], frame.f_lineno, frame.f_lasti


class Concurrent:
    """What the plain-Python meanings of inline PTX are made of; ``cuda.concurrent`` inside a kernel."""

    def pause(self) -> None:
        """Let others run, in a loop that waits for them."""
        me = getcurrent()
        me.launch.spins += 1
        me.waits = f"spinning at {_where()}"
        me.give_way()
        me.waits = ""

    def release_add(self, array: Memory, index, value) -> None:
        """red.release.gpu.add: all that this thread knows is before what an acquire of the sum sees."""
        self._release(array, index)
        array._array[index] += array.dtype.type(value)

    def store_release(self, array: Memory, index, value) -> None:
        """st.release.gpu."""
        self._release(array, index)
        array._array[index] = value

    def load_acquire(self, array: Memory, index):
        """ld.acquire.gpu, in a spin loop or out of one."""
        me = getcurrent()
        me.launch.resident("waiting for a release")
        address = array._place(index)
        self.pause()
        self._acquire(address)
        return array._array[index]

    def load_relaxed(self, array: Memory, index):
        """ld.relaxed.gpu or ld.volatile, in a spin loop: orders nothing, and is no race with `store_relaxed`."""
        me = getcurrent()
        me.launch.resident("waiting for a word")
        self.pause()
        me.touch(array._place(index), False, atomic=True)
        return array._array[index]

    def store_relaxed(self, array: Memory, index, value) -> None:
        """st.relaxed.gpu of a word of at most 64 bits."""
        getcurrent().touch(array._place(index), True, atomic=True)
        array._array[index] = value

    def _release(self, array: Memory, index) -> None:
        me = getcurrent()
        address = array._place(index)
        launch = me.launch
        me.left -= 1
        if me.left <= 0:
            me.left = launch.patience()
            me.give_way()
        launch.spins = 0
        if launch.races:
            known = me.known.copy()
            known[me.number] = me.time
            before = launch.released.get(address)
            launch.released[address] = known if before is None else list(map(max, before, known))
            me.time += 1

    def _acquire(self, address: int) -> None:
        me = getcurrent()
        known = me.launch.released.get(address)
        if known is not None:
            me.known = list(map(max, me.known, known))

    def grid_sync(self) -> None:
        """A barrier of all threads of the grid."""
        launch = getcurrent().launch
        launch.resident("a grid barrier")
        launch.grid_barrier.arrive(where=_where())

    def cluster_dims(self, n: int) -> None:
        """Blocks come in clusters of n; every thread says so, first of all."""
        launch = getcurrent().launch
        if launch.cluster not in (0, n):
            raise ValueError(f"clusters of {launch.cluster} blocks and of {n}")
        if len(launch.blocks) % n:
            raise ValueError(f"{len(launch.blocks)} blocks are no whole number of clusters of {n}")
        launch.cluster = int(n)

    def cluster_size(self) -> np.uint32:
        return np.uint32(getcurrent().launch.cluster or 1)

    def cluster_rank(self) -> np.uint32:
        """Of this block in its cluster."""
        me = getcurrent()
        return np.uint32(me.block.number % (me.launch.cluster or 1))

    def cluster_sync(self) -> None:
        """barrier.cluster.arrive.release and wait.acquire."""
        me = getcurrent()
        launch = me.launch
        size = launch.cluster or 1
        number = me.block.number // size
        if number not in launch.clusters:
            launch.clusters[number] = Meeting(me.block.barrier.members * size, "the cluster's barrier")
        launch.clusters[number].arrive(where=_where())

    def peer(self, shared: Memory, rank) -> Memory:
        """The same shared array, or part of it, in another block of the cluster."""
        me = getcurrent()
        size = me.launch.cluster or 1
        if not 0 <= int(rank) < size:
            raise IndexError(f"rank {rank} in a cluster of {size}")
        other = me.launch.blocks[me.block.number // size * size + int(rank)]
        for place, array in [*me.block.arrays.items(), (None, me.block.dynamic)]:
            if array is None or not 0 <= shared._address - array.ctypes.data < max(array.nbytes, 1):
                continue
            if place is None:
                base = other.dynamic
            elif place in other.arrays:
                base = other.arrays[place]
            else:
                raise RuntimeError("the peer has not made this shared array yet: a cluster barrier is missing")
            start = shared._address - array.ctypes.data
            raw = base.reshape(-1).view(np.uint8)[start : start + shared._array.nbytes]
            return Memory(raw.view(shared.dtype).reshape(shared.shape))
        raise ValueError("not a shared array of this block")

    def warp(self, value=None, mask=0xFFFFFFFF, orders: bool = False) -> list:
        """Lay out a value for the lanes of the mask: a list of 32, None where a lane is missing.

        ``orders``: whether memory accesses before it are before those after it (of all the warp's operations only
        syncwarp does that).
        """
        return self._exchange(value, mask, "a warp operation", _where(), orders)

    def _exchange(self, value, mask, what: str, where, orders: bool) -> list:
        me = getcurrent()
        mask = int(mask) & 0xFFFFFFFF
        if not mask >> me.lane & 1:
            raise Divergence(f"{what} by lane {me.lane}, which the mask {mask:#010x} leaves out")
        warp = me.warp
        present = mask & ((1 << warp.count) - 1)
        meeting = warp.meetings.setdefault(mask, Meeting(bin(present).count("1"), f"{what}, mask {mask:#010x},"))
        values = meeting.arrive(value, where, orders)
        lanes: list = [None] * WARP
        first = warp.threads[0].number
        for number, given in values.items():
            lanes[number - first] = given
        return lanes

    def check_aligned(self, array: Memory, index, nbytes: int) -> None:
        """An error where a vector access of so many bytes would fault."""
        if array._place(index) % nbytes:
            raise ValueError(f"access of {nbytes} bytes at index {int(index)} of {array.dtype}, not aligned")

    def async_copy(self, target: Memory, i, source: Memory, j, count: int, valid: int | None = None) -> None:
        """cp.async of ``count`` elements; those from ``valid`` on become zero and are not read."""
        me = getcurrent()
        valid = count if valid is None else int(valid)
        nbytes = count * target.dtype.itemsize
        if nbytes not in (4, 8, 16):
            raise ValueError(f"cp.async of {nbytes} bytes; expected 4, 8 or 16")
        self.check_aligned(target, i, nbytes)
        if valid:
            self.check_aligned(source, j, nbytes)
        at, origin = int(i), int(j)
        copy = (target, at, source, origin, count, valid)
        for k in range(count):
            me.touch(target._place(at + k), True)
            target._array[at + k] = np.nan if target.dtype.kind == "f" else target.dtype.type(POISON)
        if me.launch.rng.random() < 0.5:
            for k in range(count):
                target._array[at + k] = source._array[origin + k] if k < valid else 0
        for k in range(valid):
            me.touch(source._place(origin + k), False)
        if me.launch.races:
            for k in range(count):
                me.launch.shadow[target._place(at + k)][0] = IN_FLIGHT
        me.copies.append(copy)

    def async_commit(self) -> None:
        """cp.async.commit_group."""
        me = getcurrent()
        me.committed.append(me.copies)
        me.copies = []

    def async_wait(self, groups: int = 0) -> None:
        """cp.async.wait_group: all but the newest ``groups`` groups of this thread's copies have landed."""
        me = getcurrent()
        while len(me.committed) > groups:
            for target, at, source, origin, count, valid in me.committed.pop(0):
                for k in range(count):
                    if me.launch.races:
                        me.launch.shadow[target._place(at + k)] = [me.number, me.time, {}, False]
                    if k < valid:
                        me.touch(source._place(origin + k), False)
                        target._array[at + k] = source._array[origin + k]
                    else:
                        target._array[at + k] = 0

    def exit_copies(self) -> None:
        """Forget copies that were issued and not waited for."""
        me = getcurrent()
        me.copies, me.committed = [], []


class _Shared:
    def array(self, shape, dtype, alignment=None) -> Memory:
        return getcurrent().block.shared(shape, dtype, _where())


class _Local:
    def array(self, shape, dtype, alignment=None) -> Memory:
        return Memory(aligned(shape, _dtype(dtype)))


class _Grid:
    def sync(self) -> None:
        launch = getcurrent().launch
        launch.resident("a grid barrier")
        launch.grid_barrier.arrive(where=_where())


class _Groups:
    def this_grid(self) -> _Grid:
        return _Grid()


class _Atomic:
    """The stock operations. Each is indivisible here as only one thread runs; each orders like acquire and release."""

    def __init__(self) -> None:
        self._plain = _kernelapi.FakeCUDAAtomic()

    def __getattr__(self, name: str):
        plain = getattr(self._plain, name)

        def operation(array: Memory, *arguments):
            index = 0 if name == "compare_and_swap" else arguments[0]
            concurrent = cuda.concurrent
            me = getcurrent()
            address = array._place(index)
            me.touch(address, True, atomic=True)
            concurrent._acquire(address)
            concurrent._release(array, index)
            return plain(array._array, *arguments)

        return operation


class Module(_kernelapi.FakeCUDAModule):
    """``cuda`` inside a kernel."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch.grid, launch.block_dim, 0)
        self._shared, self._local, self._cg, self._atomic = _Shared(), _Local(), _Groups(), _Atomic()
        self.concurrent = cuda.concurrent

    @property
    def threadIdx(self):
        return getcurrent().threadIdx

    @property
    def blockIdx(self):
        return getcurrent().blockIdx

    @property
    def laneid(self):
        return getcurrent().lane

    def syncthreads(self) -> None:
        getcurrent().block.barrier.arrive(where=_where())

    def syncthreads_count(self, value) -> int:
        return sum(map(bool, getcurrent().block.barrier.arrive(value, _where()).values()))

    def syncthreads_and(self, value) -> int:
        return int(all(getcurrent().block.barrier.arrive(value, _where()).values()))

    def syncthreads_or(self, value) -> int:
        return int(any(getcurrent().block.barrier.arrive(value, _where()).values()))

    def syncwarp(self, mask=0xFFFFFFFF) -> None:
        cuda.concurrent._exchange(None, mask, "syncwarp", _where(), True)

    def _lanes(self, mask, value, what: str) -> list:
        return cuda.concurrent._exchange(value, mask, what, _where(3), False)

    def shfl_sync(self, mask, value, source):
        return self._pick(self._lanes(mask, value, "shfl_sync"), int(source) % WARP, value)

    def shfl_xor_sync(self, mask, value, lanes):
        return self._pick(self._lanes(mask, value, "shfl_xor_sync"), getcurrent().lane ^ int(lanes), value)

    def shfl_down_sync(self, mask, value, delta):
        return self._pick(self._lanes(mask, value, "shfl_down_sync"), getcurrent().lane + int(delta), value)

    def shfl_up_sync(self, mask, value, delta):
        return self._pick(self._lanes(mask, value, "shfl_up_sync"), getcurrent().lane - int(delta), value)

    def _pick(self, lanes: list, source: int, own):
        if not 0 <= source < WARP:
            return own
        if lanes[source] is None:  # a lane that does not exist, or takes no part: undefined on a GPU
            return np.float64(np.nan).astype(own.dtype) if isinstance(own, np.floating) else own
        return lanes[source]

    def ballot_sync(self, mask, predicate) -> np.uint32:
        lanes = self._lanes(mask, bool(predicate), "ballot_sync")
        return np.uint32(sum(1 << i for i, given in enumerate(lanes) if given))

    def any_sync(self, mask, predicate) -> bool:
        return any(self._lanes(mask, bool(predicate), "any_sync"))

    def all_sync(self, mask, predicate) -> bool:
        return all(given for given in self._lanes(mask, bool(predicate), "all_sync") if given is not None)

    def eq_sync(self, mask, value) -> bool:
        lanes = [given for given in self._lanes(mask, value, "eq_sync") if given is not None]
        return all(given == value for given in lanes)

    def match_any_sync(self, mask, value) -> np.uint32:
        lanes = self._lanes(mask, value, "match_any_sync")
        return np.uint32(sum(1 << i for i, given in enumerate(lanes) if given is not None and given == value))

    def activemask(self) -> np.uint32:
        raise NotImplementedError("activemask: what it gives is up to the scheduler; name the lanes instead")

    def nanosleep(self, nanoseconds) -> None:
        cuda.concurrent.pause()

    def fma(self, a, b, c):
        """Rounded once, as the hardware does: exact for float32; float64 is not fused here."""
        if isinstance(a, np.float32):
            return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
        return a * b + c

    def ldca(self, array, index):
        return array[index]

    ldcg = ldcs = ldlu = ldcv = ldca

    def stcg(self, array, index, value) -> None:
        array[index] = value

    stcs = stwb = stwt = stcg


_launching = threading.RLock()


def _array_argument(argument, back: list):
    if isinstance(argument, np.ndarray) and argument.ndim:
        copy = aligned(argument.shape, argument.dtype)
        copy[...] = argument
        back.append((argument, copy))
        return Memory(copy)
    if isinstance(argument, _devicearray.FakeCUDAArray):
        return Memory(argument._ary)
    return argument


class Configured:
    """A kernel with its launch configuration."""

    def __init__(self, kernel, grid, block, stream=0, dynamic: int = 0) -> None:
        self.kernel = kernel
        self.grid, self.block = _kernel.normalize_kernel_dimensions(grid, block)
        self.stream, self.dynamic = stream, int(dynamic)

    def __call__(self, *arguments) -> None:
        bounds = getattr(self.kernel, "launch_bounds", None)
        most = bounds[0] if isinstance(bounds, tuple) else bounds
        if most is not None and int(np.prod(self.block)) > most:
            raise ValueError(f"blocks of {np.prod(self.block)} threads; the launch bounds say {most}")
        with _launching:
            back: list = []
            memory = [_array_argument(argument, back) for argument in arguments]
            launch = Launch(self.kernel.fn, tuple(self.grid), tuple(self.block), self.dynamic, memory)
            launch.module, launch.swapped = Module(launch), {}
            try:
                _swap(launch, self.kernel.fn)
                with np.errstate(all="ignore"):
                    for thread in launch.threads:
                        thread.gr_context = contextvars.copy_context()
                    launch.run()
            finally:
                for names, originals in launch.swapped.values():
                    names.update(originals)
            for host, copy in back:
                host[...] = copy


def _swap(launch: Launch, function) -> None:
    """Put the kernel's ``cuda`` in the place of the module in a function's globals, once a launch.

    And NumPy's scalar types in the place of Numba's, which kernels call so often that it tells.
    """
    names = function.__globals__
    if id(names) not in launch.swapped:
        originals, replaced = {}, {}
        for key, value in names.items():
            if value is cuda:
                originals[key], replaced[key] = value, launch.module
            elif isinstance(value, (types.Float, types.Integer)) and value.name in _SCALARS:
                originals[key], replaced[key] = value, _SCALARS[value.name]
        launch.swapped[id(names)] = (names, originals)
        names.update(replaced)


def _call(self, *arguments):
    """A device function inside a kernel."""
    me = getcurrent()
    if not isinstance(me, Thread):
        raise TypeError("a kernel is launched as kernel[grid, block](...), and a device function is called in one")
    _swap(me.launch, self.fn)
    return self.fn(*arguments)


def _jit(function=None, device=False, launch_bounds=None, **options):
    """``cuda.jit`` with every keyword that the real one takes."""
    if function is None or not callable(function) or isinstance(function, types.Type):
        return lambda f: _jit(f, device=device, launch_bounds=launch_bounds, **options)
    kernel = _kernel.FakeCUDAKernel(function, device=device)
    kernel.launch_bounds = launch_bounds
    return kernel


class _Overload:
    shared_mem_per_block = 0

    def max_cooperative_grid_blocks(self, block, dynamic: int = 0) -> int:
        return settings.multiprocessors * settings.blocks_per_multiprocessor


class _Overloads(dict):
    def __missing__(self, signature):
        return _Overload()


class _Device:
    """What the backend asks a device for."""

    id, name, uuid = 0, b"concurrent simulator", "GPU-00000000-0000-0000-0000-000000000000"

    @property
    def compute_capability(self):
        return settings.compute_capability

    @property
    def MULTIPROCESSOR_COUNT(self):
        return settings.multiprocessors

    @property
    def MAX_SHARED_MEMORY_PER_BLOCK_OPTIN(self):
        return settings.shared_memory

    @property
    def MAX_SHARED_MEMORY_PER_MULTIPROCESSOR(self):
        return settings.shared_memory + 1024

    MAX_REGISTERS_PER_MULTIPROCESSOR = 65_536


_allocated: dict[int, int] = {}


def _memory_info(self):
    return _devices._MemoryInfo(settings.total_memory - sum(_allocated.values()), settings.total_memory)


def _device_array(shape, dtype=np.float64, strides=None, order="C", stream=0):
    array = aligned(shape, dtype)
    free = settings.total_memory - sum(_allocated.values())
    if array.nbytes > free:
        raise MemoryError(f"CUDA_ERROR_OUT_OF_MEMORY: {array.nbytes} bytes wanted, {free} free")
    made = _devicearray.FakeCUDAArray(array, stream=stream)
    _Tally(made)
    return made


class _Tally:
    """Counts an array's bytes for as long as it lives."""

    def __init__(self, array) -> None:
        key = id(array)
        _allocated[key] = array._ary.nbytes
        weakref.finalize(array, _allocated.pop, key, None).atexit = False


def _to_device(array, stream=0, copy=True, to=None):
    array = np.asarray(array)
    target = _device_array(array.shape, array.dtype) if to is None else to
    target._ary[...] = array
    return target


def _interface(array) -> dict:
    """``__cuda_array_interface__``: here the host's memory stands for the device's."""
    ary = array._ary
    strides = None if ary.flags.c_contiguous else ary.strides
    data = (ary.ctypes.data, not ary.flags.writeable)
    return {
        "shape": ary.shape,
        "typestr": ary.dtype.str,
        "data": data,
        "strides": strides,
        "stream": None,
        "version": 3,
    }


def _as_cuda_array(foreign, sync=True):
    """A device array of Numba's on another library's memory."""
    interface = foreign.__cuda_array_interface__
    holder = SimpleNamespace(__array_interface__={**interface, "version": 3})
    array = _devicearray.FakeCUDAArray(np.asarray(holder))
    array.owner = foreign
    return array


def _hasten_types() -> None:
    """Calls of Numba's scalar types, float32(x) and the like: at once NumPy's, for kernels are full of them."""
    for kind in (types.Float, types.Integer, types.Boolean):
        slow = kind.__call__

        def call(self, *arguments, slow=slow):
            if len(arguments) == 1 and arguments[0].__class__ in _NUMBERS:
                return _SCALARS[self.name](arguments[0])
            return slow(self, *arguments)

        kind.__call__ = call


def _wrapping(scalar):
    """Integers wrap where NumPy would refuse a Python number that does not fit."""
    bits, signed = np.dtype(scalar).itemsize * 8, np.dtype(scalar).kind == "i"

    def convert(value):
        if value.__class__ is scalar:
            return value
        try:
            return scalar(value)
        except OverflowError:
            whole = int(value) & ((1 << bits) - 1)
            return scalar(whole - (1 << bits) if signed and whole >> (bits - 1) else whole)

    convert.dtype = np.dtype(scalar)
    return convert


_INTEGERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_SCALARS: dict = {name: getattr(np, name) for name in ("float32", "float64")}
_SCALARS |= {name: _wrapping(getattr(np, name)) for name in _INTEGERS}
_SCALARS |= {"bool": np.bool_, "boolean": np.bool_, "float16": np.float16}
_NUMBERS = {int, float, bool, np.bool_, np.float16, np.float32, np.float64, *(getattr(np, name) for name in _INTEGERS)}


def install() -> None:
    """Put this simulator in the place of numba-cuda's own, for the rest of the process.

    Raises
    ------
    RuntimeError
        Unless NUMBA_ENABLE_CUDASIM=1 was set before numba was imported.
    """
    from numba.cuda.core import config

    if not config.ENABLE_CUDASIM:
        raise RuntimeError("set NUMBA_ENABLE_CUDASIM=1 before Python starts")
    seed(settings.seed)
    _hasten_types()
    kernel = _kernel.FakeCUDAKernel
    kernel.__call__ = _call
    kernel.__getitem__ = lambda self, configuration: Configured(self, *configuration)
    kernel.configure = lambda self, *configuration: Configured(self, *configuration)
    kernel.overloads = property(lambda self: _Overloads())
    cuda.jit = _api.jit = _jit
    cuda.concurrent = Concurrent()
    cuda.device_array = _devicearray.device_array = _device_array
    cuda.to_device = _devicearray.to_device = _to_device
    cuda.device_array_like = _devicearray.device_array_like = lambda array, stream=0: _device_array(
        array.shape, array.dtype
    )
    cuda.as_cuda_array = _as_cuda_array
    _devicearray.FakeCUDAArray.__cuda_array_interface__ = property(_interface)
    _devices.FakeCUDAContext.get_memory_info = _memory_info
    for context in _devices.gpus.lst:
        context._device = _Device()


__all__ = ["Deadlock", "Divergence", "Race", "install", "seed", "settings"]
