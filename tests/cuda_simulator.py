"""A CUDA simulator in which all blocks of a launch run at once, on top of the one in numba-cuda.

The stock simulator runs one block after another: a barrier across the grid is silently wrong there, and warp shuffles
are missing. Here every CUDA thread is a greenlet. One runs at a time, and which one is drawn from a seeded generator,
so a failure comes back with its seed. A thread gives way at barriers, in loops that wait for others and, now and then,
at an access to memory; one block at a time, another every few thousand turns, is slower than the rest.

What a GPU leaves undefined is made visible:

- shared, local and fresh device memory is poisoned: NaN, or -1;
- an index outside an array is an error, a negative one as well;
- two accesses to one place, one of them a write, with no barrier or release and acquire between, are an error
  (``Race``), whatever the order in which they happened to run: each thread carries a vector clock;
- a barrier that some threads never reach, or reach on different lines, is an error (``Deadlock``, ``Divergence``);
- an asynchronous copy lands at the wait for it, and touching its target before that is a race.

Use: ``install()`` first of all, with NUMBA_ENABLE_CUDASIM=1; then ``settings`` says how kernels run. Inside a kernel
``cuda`` has ``threadIdx``, ``blockIdx``, ``blockDim``, ``gridDim``, ``grid``, ``gridsize``, ``shared.array``,
``local.array``, ``syncthreads``, ``syncwarp``, ``shfl_xor_sync`` and ``atomic``, and ``cuda.concurrent`` (a
`Concurrent`), from which the plain-Python meanings of inline PTX are made.
"""

import contextvars
import random
import sys
import threading
import weakref
from collections import Counter, defaultdict
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

POISON = 0xFF  #: each byte of fresh memory: NaN as a float of either width, -1 or the largest as an integer
WARP = 32
NOBODY, IN_FLIGHT = -1, -2  #: in place of a writer; the second is an asynchronous copy that was not waited for


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
    multiprocessors: int = 16  #: each has room for one block
    shared_memory: int = 232_448  #: bytes a block may opt in to
    total_memory: int = 2**34  #: bytes


settings = Settings()
_rng = random.Random(0)


def seed(value: int) -> None:
    """Start the sequence of schedules anew."""
    settings.seed = value
    _rng.seed(value)


# ------------------------------------------------------------------------------------------------------------ memory
def aligned(shape, dtype) -> np.ndarray:
    """Memory on a 256-byte boundary, as the driver gives it, poisoned."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 256, np.uint8)
    start = -raw.ctypes.data % 256
    return poisoned(raw[start : start + nbytes].view(dtype).reshape(shape))


def poisoned(array: np.ndarray) -> np.ndarray:
    """The array, filled with `POISON`."""
    array.view(np.uint8).fill(POISON)
    return array


def _dtype(dtype) -> np.dtype:
    """Of what kernels name one with: Numba's types, or the NumPy scalars that `_swap` puts in their place."""
    return np.dtype(numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)


class Local:
    """A thread's own array as a kernel sees it: every index is checked."""

    __slots__ = ("_address", "_array", "_size", "_stride", "dtype", "ndim", "shape", "size")

    def __init__(self, array: np.ndarray, address: int = 0) -> None:
        self._array, self._address, self._size = array, address, len(array)
        self.dtype, self.shape, self.size, self.ndim = array.dtype, array.shape, array.size, array.ndim
        self._stride = array.strides[0] if array.ndim == 1 else None

    def __len__(self) -> int:
        return self._size

    def _place(self, index) -> int:
        """The address of an element; an error when it is none of this array's."""
        if self._stride is not None and 0 <= (i := whole(index)) < self._size:
            return self._address + i * self._stride
        several = index if type(index) is tuple else (index,)
        if len(several) != self.ndim or not all(0 <= i < n for i, n in zip(several, self.shape, strict=True)):
            raise IndexError(f"index {', '.join(map(str, several))} outside an array of {list(self.shape)}")
        return self._address + sum(int(i) * by for i, by in zip(several, self._array.strides, strict=True))

    def __getitem__(self, index):
        if index.__class__ is slice:
            return type(self)(self._array[index])
        if self._stride is None or not 0 <= whole(index) < self._size:  # the usual case of `_place`, quickly
            self._place(index)
        return self._array[index]

    def __setitem__(self, index, value) -> None:
        if self._stride is None or not 0 <= whole(index) < self._size:
            self._place(index)
        self._array[index] = value


class Memory(Local):
    """An array that threads share: an access may let others run first, and must be ordered with theirs."""

    __slots__ = ()

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array, array.ctypes.data)

    def __getitem__(self, index):
        if index.__class__ is slice:
            return Memory(self._array[index])
        getcurrent().touch(self._place(index), False)
        return self._array[index]

    def __setitem__(self, index, value) -> None:
        getcurrent().touch(self._place(index), True)
        self._array[index] = value


# ------------------------------------------------------------------------------------------------- threads, barriers
class Thread(greenlet):
    """One CUDA thread."""

    def __init__(self, launch: "Launch", block: "Block", number: int, index: tuple[int, int, int], place: int) -> None:
        super().__init__(self._run)
        self.launch, self.block, self.number = launch, block, number
        self.blockIdx, self.threadIdx = _kernelapi.Dim3(*block.index), _kernelapi.Dim3(*index)
        self.lane, self.warp = place % WARP, block.warps[place // WARP]
        self.left = launch.patience()
        self.known = launch.start  # of each thread, up to which of its own times everything is ordered before now
        self.time = 1
        self.waits = "to start"
        self.version, self.looks = 0, Counter[int]()  # how often it looked at each place since that `Launch.version`
        self.copies: list[tuple] = []  # asynchronous ones of the group that is open
        self.committed: list[list[tuple]] = []

    def _run(self) -> None:
        self.launch.function(*self.launch.arguments)
        if self.copies or any(self.committed):
            raise AssertionError("the thread ends with asynchronous copies that it never waited for")

    def touch(self, address: int, write: bool, atomic: bool = False) -> None:
        """Before an access to memory: perhaps let others run, then see that it is ordered."""
        launch = self.launch
        self.left -= 1
        if self.left <= 0:
            self.give_way()
        if not launch.races:
            return
        entry = launch.shadow.get(address)
        if entry is None:
            launch.shadow[address] = entry = [NOBODY, 0, {}, False]
        writer, when, readers, was_atomic = entry
        me = self.number
        if writer == IN_FLIGHT:
            raise Race("access to the target of an asynchronous copy that nobody has waited for yet")
        if writer >= 0 and writer != me and self.known[writer] < when and not (atomic and was_atomic):
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
        self.left = self.launch.patience()
        self.launch.ready.append(self)
        self.launch.hub.switch()

    def poll(self, address: int, where: tuple) -> None:
        """Before it looks whether another thread has written there.

        If none has written anywhere since it looked twice, it waits for the next who does. (Once is too few: a number
        in two words is looked at again after one of them was old.)
        """
        launch = self.launch
        launch.resident("waiting for another block")
        if self.version == launch.version and self.looks[address] == 2:
            self.waits = f"waiting at {where}"
            launch.polling.append(self)
            launch.hub.switch()
            self.waits = ""
        if self.version != launch.version:
            self.version, self.looks = launch.version, Counter()
        self.looks[address] += 1

    def release(self, address: int) -> None:
        """What this thread knows is known to whoever acquires this place."""
        launch = self.launch
        self.left -= 1
        if self.left <= 0:
            self.give_way()
        known = list(map(max, self.known, launch.released.get(address, launch.start)))
        known[self.number] = self.time
        launch.released[address] = known
        self.time += 1

    def acquire(self, address: int) -> None:
        """Know what those knew who released this place."""
        if address in self.launch.released:
            self.known = list(map(max, self.known, self.launch.released[address]))

    def name(self) -> str:
        return f"thread {self.threadIdx} of block {self.blockIdx}"


class Meeting:
    """A barrier of some threads, to which each may bring a value."""

    def __init__(self, members: int, what: str) -> None:
        self.members, self.what = members, what
        self.arrived: list[Thread] = []
        self.values: dict[int, object] = {}
        self.where: tuple | None = None

    def arrive(self, where: tuple, value=None, orders: bool = True) -> dict:
        """Wait until all are here; what each brought, by thread number."""
        me: Thread = getcurrent()
        launch = me.launch
        if not self.arrived:
            self.values, self.where = {}, where
        elif where != self.where:
            raise Divergence(f"{self.what}: some are at {self.where}, {me.name()} is at {where}")
        self.arrived.append(me)
        self.values[me.number] = value
        values = self.values
        me.waits = f"at {self.what} {where}"
        if len(self.arrived) == self.members:
            here, self.arrived = self.arrived, []
            if orders and launch.races:
                join(here)
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

    def __init__(self, index: tuple, threads: int, dynamic: int) -> None:
        self.index = index
        self.barrier = Meeting(threads, "the block's barrier")
        counts = [min(WARP, threads - first) for first in range(0, threads, WARP)]
        self.warps = [SimpleNamespace(count=n, meetings={}) for n in counts]
        self.dynamic = aligned(dynamic, np.uint8)
        self.arrays: dict[tuple, np.ndarray] = {}

    def shared(self, shape, dtype, place: tuple) -> Memory:
        """The array that the block has at that place in the source; the dynamic memory for a shape of 0."""
        dtype = _dtype(dtype)
        if shape in (0, (0,)):
            if not self.dynamic.size:
                raise ValueError("dynamic shared memory, but the launch asks for none")
            return Memory(self.dynamic[: len(self.dynamic) // dtype.itemsize * dtype.itemsize].view(dtype))
        if place not in self.arrays:
            self.arrays[place] = aligned(shape, dtype)
            static = sum(array.nbytes for array in self.arrays.values())
            limit = min(settings.shared_memory - self.dynamic.nbytes, 49_152)
            if static > limit:
                raise MemoryError(f"{static} bytes of static shared memory; {limit} are left for it")
        return Memory(self.arrays[place])


class Launch:
    """A grid that runs."""

    def __init__(self, function, grid: tuple, block: tuple, dynamic: int, arguments: list) -> None:
        self.function, self.arguments, self.races = function, arguments, settings.races
        self.rng = random.Random(_rng.random())
        n, blocks = int(np.prod(block)), int(np.prod(grid))
        if not 0 < n <= 1024 or blocks < 1:
            raise ValueError(f"blocks of {n} threads, {blocks} blocks; expected 1 to 1024 threads, 1 block or more")
        if dynamic > settings.shared_memory:
            raise MemoryError(f"{dynamic} bytes of dynamic shared memory; the limit is {settings.shared_memory}")
        self.start = [0] * (n * blocks)
        self.shadow: dict[int, list] = {}  # of each address: last writer, when, its readers since, whether atomic
        self.released: dict[int, list[int]] = {}
        self.version = 0  # number of writes that threads may wait for
        self.polling: list[Thread] = []  # who waits for the next
        self.hub = getcurrent()
        self.blocks = [Block((x, y, z), n, dynamic) for z, y, x in np.ndindex(*grid[::-1])]
        self.threads: list[Thread] = []
        for one in self.blocks:
            for place, (c, b, a) in enumerate(np.ndindex(*block[::-1])):
                self.threads.append(Thread(self, one, len(self.threads), (a, b, c), place))
        self.ready = list(self.threads)
        self.slow = self.rng.choice(self.blocks)

    def patience(self) -> int:
        """Accesses until the next voluntary pause."""
        return 1 + int(self.rng.expovariate(settings.preempt)) if settings.preempt > 0 else sys.maxsize

    def resident(self, what: str) -> None:
        """Blocks that wait for one another must all be there at once."""
        if len(self.blocks) > settings.multiprocessors:
            raise Deadlock(f"{what} with {len(self.blocks)} blocks; {settings.multiprocessors} are resident at once")

    def run(self) -> None:
        alive = len(self.threads)
        try:
            while alive:
                if not self.ready:
                    raise Deadlock("nobody can go on: " + self._waiting())
                thread = self._next()
                try:
                    thread.switch()
                except Exception as error:
                    error.add_note(f"in {thread.name()}, seed {settings.seed}")
                    raise
                if thread.dead:
                    alive -= 1
        finally:
            for thread in self.threads:
                if thread and not thread.dead:
                    thread.throw(GreenletExit)

    def _next(self) -> Thread:
        """Anyone who can run, rather not of the slow block."""
        ready, random = self.ready, self.rng.random
        if random() < 0.0005:
            self.slow = self.rng.choice(self.blocks)
        for _ in range(9):
            at = int(random() * len(ready))
            if ready[at].block is not self.slow:
                break
        ready[at], ready[-1] = ready[-1], ready[at]
        return ready.pop()

    def wrote(self) -> None:
        """Those who wait for a write look again."""
        self.version += 1
        self.ready += self.polling
        self.polling.clear()

    def _waiting(self) -> str:
        ended = sum(thread.dead for thread in self.threads)
        places = Counter(thread.waits or "running" for thread in self.threads if not thread.dead)
        return f"{ended} threads have ended; " + "; ".join(f"{n} {where}" for where, n in places.items())


# ----------------------------------------------------------------------------------------------- inside of a kernel
def _where(depth: int = 2) -> tuple:
    """The place in the source from which the caller, or its caller, was called."""
    frame = sys._getframe(depth)
    return frame.f_code.co_filename.rpartition("/")[2], frame.f_lineno, frame.f_lasti


def _lanes(value, mask, what: str, where: tuple, orders: bool) -> dict:
    """What each lane of the mask brings, by thread number."""
    me = getcurrent()
    mask = int(mask) & 0xFFFFFFFF
    if not mask >> me.lane & 1:
        raise Divergence(f"{what} by lane {me.lane}, which the mask {mask:#010x} leaves out")
    meeting = me.warp.meetings.get(mask)
    if meeting is None:
        present = mask & ((1 << me.warp.count) - 1)
        meeting = me.warp.meetings[mask] = Meeting(present.bit_count(), f"{what}, mask {mask:#010x},")
    return meeting.arrive(where, value, orders)


class Concurrent:
    """What the plain-Python meanings of inline PTX are made of; ``cuda.concurrent`` inside a kernel."""

    def release_add(self, array: Memory, index, value) -> None:
        """red.release.gpu.add: all that this thread knows is before what an acquire of the sum sees."""
        me, address = getcurrent(), array._place(index)
        me.release(address)
        array._array[index] += array.dtype.type(value)
        me.launch.wrote()

    def load_acquire(self, array: Memory, index):
        """ld.acquire.gpu, in a loop that waits."""
        me, address = getcurrent(), array._place(index)
        me.poll(address, _where())
        me.acquire(address)
        return array._array[index]

    def load_relaxed(self, array: Memory, index):
        """ld.relaxed.gpu, in a loop that waits: orders nothing, and is no race with `store_relaxed`."""
        me, address = getcurrent(), array._place(index)
        me.poll(address, _where())
        me.touch(address, False, atomic=True)
        return array._array[index]

    def store_relaxed(self, array: Memory, index, value) -> None:
        """st.relaxed.gpu of a word of at most 64 bits."""
        me, address = getcurrent(), array._place(index)
        me.touch(address, True, atomic=True)
        array._array[index] = value
        me.launch.wrote()

    def check_aligned(self, array: Memory, index, nbytes: int) -> None:
        """An error where a vector access of so many bytes would fault."""
        if array._place(index) % nbytes:
            raise ValueError(f"access of {nbytes} bytes at index {int(index)} of {array.dtype}, not aligned")

    def async_copy(self, target: Memory, i, source: Memory, j, count: int) -> None:
        """cp.async of ``count`` elements."""
        me, i, j = getcurrent(), int(i), int(j)
        nbytes = count * target.dtype.itemsize
        if nbytes not in (4, 8, 16):
            raise ValueError(f"cp.async of {nbytes} bytes; expected 4, 8 or 16")
        self.check_aligned(target, i, nbytes)
        self.check_aligned(source, j, nbytes)
        for k in range(count):
            me.touch(source._place(j + k), False)
            me.touch(target._place(i + k), True)
            if me.launch.races:
                me.launch.shadow[target._place(i + k)][0] = IN_FLIGHT
        poisoned(target._array[i : i + count])
        me.copies += [(target, i + k, source, j + k) for k in range(count)]

    def async_commit(self) -> None:
        """cp.async.commit_group."""
        me = getcurrent()
        me.committed.append(me.copies)
        me.copies = []

    def async_wait(self, groups: int = 0) -> None:
        """cp.async.wait_group: all but the newest ``groups`` groups of this thread's copies have landed."""
        me = getcurrent()
        while len(me.committed) > groups:
            for target, i, source, j in me.committed.pop(0):
                me.launch.shadow[target._place(i)] = [me.number, me.time, {}, False]
                target._array[i] = source[j]


class _Atomic:
    """The stock operations. Each is indivisible here as only one thread runs; each orders like acquire and release."""

    def __getattr__(self, name: str):
        plain = getattr(_kernelapi.FakeCUDAAtomic(), name)

        def operation(array: Memory, index, *values):
            me, address = getcurrent(), array._place(index)
            me.touch(address, True, atomic=True)
            me.acquire(address)
            me.release(address)
            me.launch.wrote()
            return plain(array._array, index, *values)

        return operation


class Module(_kernelapi.FakeCUDAModule):
    """``cuda`` inside a kernel."""

    threadIdx = property(lambda self: getcurrent().threadIdx)
    blockIdx = property(lambda self: getcurrent().blockIdx)

    def __init__(self, grid: tuple, block: tuple) -> None:
        super().__init__(grid, block, 0)
        self._atomic, self.concurrent = _Atomic(), cuda.concurrent
        self._shared = SimpleNamespace(
            array=lambda shape, dtype, alignment=16: getcurrent().block.shared(shape, dtype, _where())
        )
        self._local = SimpleNamespace(
            array=lambda shape, dtype, alignment=16: Local(poisoned(np.empty(shape, _dtype(dtype))))
        )

    def syncthreads(self) -> None:
        getcurrent().block.barrier.arrive(_where())

    def syncwarp(self, mask=0xFFFFFFFF) -> None:
        _lanes(None, mask, "syncwarp", _where(), True)

    def shfl_xor_sync(self, mask, value, lanes):
        """What that lane brings; from one that takes no part it is undefined: a NaN, where there is one."""
        given, me = _lanes(value, mask, "shfl_xor_sync", _where(), False), getcurrent()
        lost = type(value)(np.nan) if isinstance(value, np.floating) else value
        return given.get(me.number - me.lane + (me.lane ^ int(lanes)), lost)


# ---------------------------------------------------------------------------------------------------- on the host
_launching = threading.RLock()


def _argument(given, copies: list):
    """What a kernel gets for an argument; the host's arrays are copied there, and noted so that they can be back."""
    if isinstance(given, tuple):
        parts = [_argument(part, copies) for part in given]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    if isinstance(given, np.ndarray) and given.ndim:
        copies.append((given, aligned(given.shape, given.dtype)))
        copies[-1][1][...] = given
        return Memory(copies[-1][1])
    return Memory(given._ary) if isinstance(given, _devicearray.FakeCUDAArray) else given


class Configured:
    """A kernel with its launch configuration."""

    def __init__(self, kernel, grid, block, stream=0, dynamic: int = 0) -> None:
        self.kernel, self.stream, self.dynamic = kernel, stream, int(dynamic)
        self.grid, self.block = map(tuple, _kernel.normalize_kernel_dimensions(grid, block))

    def __call__(self, *arguments) -> None:
        bounds = self.kernel.launch_bounds
        most = bounds[0] if isinstance(bounds, tuple) else bounds
        if most is not None and int(np.prod(self.block)) > most:
            raise ValueError(f"blocks of {np.prod(self.block)} threads; the launch bounds say {most}")
        with _launching:
            copies: list[tuple] = []
            inside = [_argument(argument, copies) for argument in arguments]
            launch = Launch(self.kernel.fn, self.grid, self.block, self.dynamic, inside)
            launch.module, launch.swapped, launch.undo = Module(self.grid, self.block), set(), []
            try:
                _swap(launch, self.kernel.fn)
                with np.errstate(all="ignore"):
                    for thread in launch.threads:
                        thread.gr_context = contextvars.copy_context()
                    launch.run()
            finally:
                for restore, *what in launch.undo:
                    restore(*what)
            for host, copy in copies:
                host[...] = copy


_SCALARS = {name: getattr(np, name) for name in ("float16", "float32", "float64")}
_SCALARS |= {f"{kind}{bits}": getattr(np, f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


def _number(self, *arguments):
    """What Numba's scalar types do when they are called: of a number make NumPy's scalar; of types, a signature."""
    is_signature = not arguments or isinstance(arguments[0], types.Type)
    return types.Type.__call__(self, *arguments) if is_signature else _SCALARS[self.name](*arguments)


def _inside(launch: Launch, value):
    """What a kernel finds in the place of a value of a name."""
    if value is cuda:
        return launch.module
    if isinstance(value, types.Number):  # called so often that it tells
        return _SCALARS[value.name]
    if isinstance(value, _kernel.FakeCUDAKernel):
        _swap(launch, value.fn)
        return value.fn
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_inside(launch, part) for part in value))
    return value


def _swap(launch: Launch, function) -> None:
    """Have the names of a function, its module's and those that it captures, mean what they do in a kernel."""
    names = function.__globals__
    if id(names) not in launch.swapped:
        launch.swapped.add(id(names))
        for key, value in list(names.items()):
            if (inside := _inside(launch, value)) is not value:
                launch.undo.append((names.__setitem__, key, value))
                names[key] = inside
    for cell in function.__closure__ or ():
        if id(cell) not in launch.swapped:
            launch.swapped.add(id(cell))
            if (inside := _inside(launch, value := cell.cell_contents)) is not value:
                launch.undo.append((setattr, cell, "cell_contents", value))
                cell.cell_contents = inside


def _call(self, *arguments):
    """A device function that `_swap` has not found, inside a kernel."""
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
    """A compiled kernel, as far as the backend asks."""

    shared_mem_per_block = 0

    def max_cooperative_grid_blocks(self, block, dynamic: int = 0) -> int:
        return settings.multiprocessors


class _Device:
    """What the backend asks a device for."""

    id, name, uuid = 0, b"concurrent simulator", "GPU-00000000-0000-0000-0000-000000000000"
    compute_capability = property(lambda self: settings.compute_capability)
    MULTIPROCESSOR_COUNT = property(lambda self: settings.multiprocessors)
    MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = property(lambda self: settings.shared_memory)
    MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = property(lambda self: settings.shared_memory + 1024)
    MAX_REGISTERS_PER_MULTIPROCESSOR = 65_536


_allocated: dict[int, int] = {}  # bytes of each device array that lives


def _memory_info(self):
    return _devices._MemoryInfo(settings.total_memory - sum(_allocated.values()), settings.total_memory)


def _device_array(shape, dtype=np.float64, strides=None, order="C", stream=0):
    array, free = aligned(shape, dtype), _memory_info(None).free
    if array.nbytes > free:
        raise MemoryError(f"CUDA_ERROR_OUT_OF_MEMORY: {array.nbytes} bytes wanted, {free} free")
    made = _devicearray.FakeCUDAArray(array, stream=stream)
    _allocated[id(made)] = array.nbytes
    weakref.finalize(made, _allocated.pop, id(made), None).atexit = False
    return made


def _interface(array) -> dict:
    """``__cuda_array_interface__``: here the host's memory stands for the device's."""
    ary = array._ary
    strides = None if ary.flags.c_contiguous else ary.strides
    data = ary.ctypes.data, not ary.flags.writeable
    return {"shape": ary.shape, "typestr": ary.dtype.str, "data": data, "strides": strides, "version": 3}


def _as_cuda_array(foreign, sync=True):
    """A device array of Numba's on another library's memory."""
    holder = SimpleNamespace(__array_interface__={**foreign.__cuda_array_interface__, "version": 3})
    array = _devicearray.FakeCUDAArray(np.asarray(holder))
    array.owner = foreign
    return array


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
    types.Number.__call__ = _number
    kernel = _kernel.FakeCUDAKernel
    kernel.__call__ = _call
    kernel.__getitem__ = lambda self, configuration: Configured(self, *configuration)
    kernel.overloads = property(lambda self: defaultdict(_Overload))
    cuda.jit = _api.jit = _jit
    cuda.concurrent = Concurrent()
    cuda.device_array = _devicearray.device_array = _device_array
    cuda.as_cuda_array = _as_cuda_array
    _devicearray.FakeCUDAArray.__cuda_array_interface__ = property(_interface)
    _devices.FakeCUDAContext.get_memory_info = _memory_info
    for context in _devices.gpus.lst:
        context._device = _Device()


__all__ = ["Deadlock", "Divergence", "Race", "install", "seed", "settings"]
