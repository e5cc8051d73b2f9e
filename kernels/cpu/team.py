"""A team of threads: how it starts, how it waits for one another, and the state of the floating-point unit.

A member is an ordinary Python thread that runs one compiled function without the interpreter's lock, from its first
step to its last. Numba's parallel regions are not used: entering one was seen to cost 2 µs with OpenMP but 120 with the
workqueue layer, which is all that many machines have; two threads that enter workqueue at once end the process; a
process forked after an OpenMP region hangs or dies in its next; and no layer promises that two members run on two
threads, without which a spinning barrier never ends. Waking threads of our own costs about 0.1 ms an epoch, everywhere,
and has none of these.
"""

import ctypes
import os
import platform
import struct
import sys
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import numpy as np
from llvmlite import ir
from numba import config, njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.vectors import INT32, INTP, int_constant, pointer

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)
X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
ARM = platform.machine().lower() in ("aarch64", "arm64")

#: Words of a team's shared array, a cache line apart: members that have arrived, barriers passed, whether to stop,
#: members that sleep; then, for each member, on which core it was last seen.
ARRIVED, PASSED, STOP, ASLEEP, CORES, LINE = 0, 8, 16, 24, 32, 8
#: Looks at the barrier before a waiting thread goes to sleep: 0.1 to 0.2 ms, some hundred times a step's usual wait. A
#: member that is late by more has lost its core.
PATIENCE = 5000
#: Looks before a waiting thread sees whether it keeps another member from its core: a few µs.
SOON = 200
#: Nanoseconds that a member asks Linux to run at a time where others want its core (the system's own are 3 ms): the
#: less, the sooner it gets a core back, and members that wait for each other have to run at the same time.
SLICE = 500_000
#: How long a thread sleeps at most before it looks whether to stop, in nanoseconds.
LONGEST_SLEEP = 10_000_000
#: The number of Linux's system call futex: a thread sleeps until a word in memory is told to have changed.
FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if platform.system() == "Linux" else None
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # of threads of this process alone
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(platform.machine()) if platform.system() == "Linux" else None


# ------------------------------------------------------------------------------------------------------ shared memory
@intrinsic
def atomic_add(typing, array, index, value):
    """Add to a word that other threads write too; returns what it was."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        place = builder.gep(pointer(context, builder, signature.args[0], array), [index])
        return builder.atomic_rmw("add", place, value, "seq_cst")

    return types.int64(array, I, types.int64), generate


@intrinsic
def atomic_load(typing, array, index):
    """Read a word that other threads write, and with it all that they wrote before it.

    Not before this thread's own writes to such words (a plain acquire would let it).
    """

    def generate(context, builder, signature, arguments):
        array, index = arguments
        place = builder.gep(pointer(context, builder, signature.args[0], array), [index])
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(array, I), generate


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def pause(typing):
    """Tell the core that this is a waiting loop."""

    def generate(context, builder, signature, arguments):
        if X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        elif ARM:
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(INT32, 1))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def sleep_while(typing, array, index, value):
    """Sleep until `wake` is called for a word, `LONGEST_SLEEP` at most, but not if the word is no longer ``value``.

    Where the system has no way that is known here: let another thread run on this core.

    A waiting thread that sleeps, unlike one that spins or yields, keeps its claim to its core: when the late member is
    there at last, it runs at once, before what other processes do there, and the team runs together again.
    """

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        if FUTEX is None:
            _call(builder, "SwitchToThread" if os.name == "nt" else "sched_yield", INT32)
            return context.get_dummy_value()
        # The call looks at 32 bits, of a little-endian word the lower half. It comes back early now and then.
        time = cgutils.alloca_once_value(builder, ir.Constant(ir.LiteralStructType([INTP, INTP]), [0, LONGEST_SLEEP]))
        place = builder.gep(pointer(context, builder, signature.args[0], array), [index])
        _futex(builder, FUTEX, place, FUTEX_WAIT, value, builder.ptrtoint(time, INTP))
        return context.get_dummy_value()

    return types.void(array, I, types.int64), generate


@intrinsic
def wake(typing, array, index):
    """Wake all threads that sleep until a word changes."""

    def generate(context, builder, signature, arguments):
        array, index = arguments
        if FUTEX is not None:
            place = builder.gep(pointer(context, builder, signature.args[0], array), [index])
            _futex(builder, FUTEX, place, FUTEX_WAKE, int_constant(2**31 - 1), int_constant(0))
        return context.get_dummy_value()

    return types.void(array, I), generate


def _futex(builder: ir.IRBuilder, number: int, place: ir.Value, what: int, value: ir.Value, time: ir.Value) -> None:
    """The system call of that number, by the C library's ``long syscall(long, ...)``: room for six parameters."""
    kind = ir.FunctionType(INTP, [INTP], var_arg=True)
    zero = int_constant(0)
    numbers = [int_constant(number), builder.ptrtoint(place, INTP), int_constant(what), value, time, zero, zero]
    builder.call(cgutils.get_or_insert_function(builder.module, kind, "syscall"), numbers)


@intrinsic
def this_core(typing):
    """The number of the core that runs this, or -1 where the system has no quick way to tell."""

    def generate(context, builder, signature, arguments):
        if FUTEX is None:
            return int_constant(-1)
        return builder.sext(_call(builder, "sched_getcpu", INT32), INTP)

    return types.int64(), generate


@njit(nogil=True)
def in_the_way(t, team, members):
    """Whether another member was last seen on the core on which member t waits: it can't come while t looks."""
    core, found = team[CORES + t * LINE], False
    for other in range(members):
        found |= other != t and core >= 0 and atomic_load(team, CORES + other * LINE) == core
    return found


@njit(nogil=True)
def barrier(t, team, members):
    """Wait until all members have come here; t is which. Returns False where the team has been told to stop."""
    if members == 1:
        return atomic_load(team, STOP) == 0
    team[CORES + t * LINE] = this_core()
    passed = atomic_load(team, PASSED)
    if atomic_add(team, ARRIVED, 1) == members - 1:
        atomic_add(team, ARRIVED, -members)
        atomic_add(team, PASSED, 1)
        if atomic_load(team, ASLEEP):
            wake(team, PASSED)
    else:
        looks = 0
        while atomic_load(team, PASSED) == passed:
            if atomic_load(team, STOP) != 0:
                return False
            looks += 1
            if looks < PATIENCE and not (looks == SOON and in_the_way(t, team, members)):
                pause()
            else:
                atomic_add(team, ASLEEP, 1)  # before the word is looked at again: who changes it later will see this
                sleep_while(team, PASSED, passed)
                atomic_add(team, ASLEEP, -1)
    return atomic_load(team, STOP) == 0


# ------------------------------------------------------------------------------------------- the floating-point unit
@intrinsic
def flush_subnormals(typing):
    """Have this thread treat subnormal numbers as zero; returns the state to restore.

    Velocities of idle units decay into subnormals, which many CPUs handle a hundred times slower.
    """

    def generate(context, builder, signature, arguments):
        if X86:  # MXCSR: flush-to-zero is bit 15, denormals-are-zero bit 6
            slot = cgutils.alloca_once(builder, INT32)
            _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), slot)
            state = builder.load(slot)
            builder.store(builder.or_(state, ir.Constant(INT32, 0x8040)), slot)
            _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
            return builder.zext(state, INTP)
        if ARM:  # FPCR: flush-to-zero is bit 24
            read = ir.InlineAsm(ir.FunctionType(INTP, []), "mrs $0, fpcr", "=r", side_effect=True)
            state = builder.call(read, [])
            write = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [INTP]), "msr fpcr, $0", "r", side_effect=True)
            builder.call(write, [builder.or_(state, int_constant(1 << 24))])
            return state
        return int_constant(0)

    return types.intp(), generate


@intrinsic
def restore_subnormals(typing, state):
    """Put the floating-point unit back as `flush_subnormals` found it."""

    def generate(context, builder, signature, arguments):
        (state,) = arguments
        if X86:
            slot = cgutils.alloca_once(builder, INT32)
            builder.store(builder.trunc(state, INT32), slot)
            _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
        elif ARM:
            write = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [INTP]), "msr fpcr, $0", "r", side_effect=True)
            builder.call(write, [state])
        return context.get_dummy_value()

    return types.void(I), generate


# ------------------------------------------------------------------------------------------------------------ starting
def most_threads() -> int:
    """The number of threads where none is asked for: NUMBA_NUM_THREADS, or the cores this process may use.

    A core's two hyperthreads count once: they share its arithmetic and its caches, which one thread fills.
    """
    asked, usual = config.NUMBA_NUM_THREADS, config.NUMBA_DEFAULT_NUM_THREADS
    if asked != usual or "NUMBA_NUM_THREADS" in os.environ:
        return asked
    return min(usual, cores())


@cache
def cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The cores on which this process may run, as Linux describes them in those files; elsewhere its logical CPUs."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    try:
        return len({(cpus / f"cpu{number}/topology/thread_siblings_list").read_text() for number in allowed})
    except OSError:
        return len(allowed)


def run(members: int, work: Callable[[int], None], stop: Callable[[], None], brief: bool = False) -> None:
    """Run ``work(0)`` … ``work(members - 1)`` at once, each in a thread of its own, and wait for all.

    The calling thread only waits, in Python, so that Ctrl-C reaches it at once: ``stop`` then tells the members, which
    leave at the next place where they look. However this function is left, no member is at work any more. For a lone
    member whose work is brief, or where the system gives no thread, the calling thread does it itself; so does a member
    of another team, which is stopped with that team, and gets a KeyboardInterrupt then.

    Parameters
    ----------
    members : int
    work : callable
        Given its member's number. An exception in one stops all and is raised here.
    stop : callable
        Tells all members to leave.
    brief : bool, default False
        Whether the work is over too soon for anybody to want to interrupt it.

    Raises
    ------
    RuntimeError
        If the system gives too few threads; nothing has been run then.
    """
    if (outer := _here.job) is not None and members == 1:
        outer.run_within(work, stop)
        return
    if members == 1 and (brief or not _pool.has(1)):
        work(0)
        return
    job = _Job(members, work, stop)
    try:
        _pool.take(1)
        _pool.jobs.put(job.lead)
        job.wait()
    finally:
        try:
            job.end()
        finally:
            job.end()  # where a signal handler has raised an exception in the first
    if job.errors:
        raise job.errors[0]


def is_member() -> bool:
    """Whether the calling thread is a member of a team, at work."""
    return _here.job is not None


def at_hand(members: int) -> int:
    """So many members, or 1 where the system gives no threads for them: at its limit, or at the interpreter's end."""
    return members if members == 1 or _pool.has(members) else 1


class _Job:
    """One call of `run`.

    Signal handlers, finalizers and weak references' callbacks may run between any two bytecodes of the calling thread,
    and raise exceptions or call `run` again. So the calling thread reserves one thread of the pool and puts the job
    into the pool's queue, in one step. The thread that takes it from there is the leader: it claims the job, reserves
    the other threads, and starts all members. If the calling thread leaves `run` before that, it claims the job
    itself, and the leader finds nothing to do; if later, it stops the members and waits until they have left.
    """

    def __init__(self, members: int, work: Callable[[int], None], stop: Callable[[], None]) -> None:
        self.members, self.work, self.stop_work = members, work, stop
        self.within: list[Callable[[], None]] = []  # how to stop what members run within this job
        self.stopped = False
        self.over, self.is_over = Lock(), False
        self.owner: dict[str, str] = {}
        self.left: SimpleQueue[None] = SimpleQueue()
        self.errors: list[BaseException] = []
        self.over.acquire()

    def claimed_by(self, who: str) -> bool:
        """Claim the job for the leader or for the caller, atomically; False if the other one has it."""
        return self.owner.setdefault("who", who) == who

    def lead(self) -> None:
        """Run member 0 here and the others in other threads of the pool, unless the job has been called off."""
        if self.claimed_by("leader"):
            try:
                _pool.take(self.members - 1)
                for number in range(1, self.members):
                    _pool.jobs.put(partial(self.member, number))
                self.attempt(0)
                for _ in range(1, self.members):
                    self.left.get()
            except BaseException as error:
                self.errors.append(error)
        _pool.idle.append(None)
        self.is_over = True
        self.over.release()

    def member(self, number: int) -> None:
        """Run one of the other members."""
        self.attempt(number)
        _pool.idle.append(None)
        self.left.put(None)

    def attempt(self, number: int) -> None:
        """Run a member; where it fails, the others are stopped, which may wait at a barrier for it."""
        _here.job = self
        try:
            self.work(number)
        except BaseException as error:
            self.errors.append(error)
            self.stop()
        finally:
            _here.job = None

    def stop(self) -> None:
        """Tell all members to leave, and what they run within this job."""
        self.stopped = True
        self.stop_work()
        for stop in tuple(self.within):
            stop()

    def run_within(self, work: Callable[[int], None], stop: Callable[[], None]) -> None:
        """Do a lone member's work in a thread that is a member of this job.

        Raises
        ------
        KeyboardInterrupt
            If this job has been told to stop: the work may be half done.
        """
        self.within.append(stop)  # before the first look, so that nothing is told in between
        try:
            if not self.stopped:
                work(0)
        finally:
            self.within.remove(stop)
        if self.stopped:
            raise KeyboardInterrupt

    def wait(self) -> None:
        """Wait for the end; exceptions of signal handlers get out at once, on Windows within a fifth of a second."""
        while not self.is_over:
            self.over.acquire(timeout=0.2)

    def end(self) -> None:
        """Call the job off, or stop it and wait for its end, whatever signal handlers raise meanwhile."""
        if self.claimed_by("caller"):
            return
        while not self.is_over:
            try:
                self.stop()
                self.wait()
            except BaseException:  # what has led here is raised by the caller
                continue


class _Pool:
    """The threads that members run in: idle ones are used again, new ones are started where none is idle.

    They belong to no executor, which would refuse work in ``atexit`` handlers, and end with the process. There is no
    lock, which a finalizer could find held by the thread that it interrupts: every step is a single call of C code.
    """

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.idle: deque[None] = deque()  # an entry for each thread that is not reserved

    def has(self, count: int) -> bool:
        """Whether so many threads are idle, or could be started: none while the interpreter is finalized."""
        if sys.is_finalizing():
            return False
        try:
            while len(self.idle) < count:
                start_new_thread(self.serve, ())
                self.idle.append(None)
        except RuntimeError:
            return False
        return True

    def take(self, count: int) -> None:
        """Reserve so many threads, for as many entries of the queue; or else RuntimeError."""
        for taken in range(count):
            try:
                self.idle.pop()
            except IndexError:
                try:
                    start_new_thread(self.serve, ())
                except RuntimeError as error:
                    self.idle.extend([None] * taken)
                    raise RuntimeError(f"{error}: {count - taken} more wanted; threads=1 wants the fewest") from None

    def serve(self) -> None:
        """Do jobs for ever."""
        _ask_for_short_slices()
        while True:
            self.jobs.get()()


_pool = _Pool()


class _Here(threading.local):
    """The job of which the present thread is a member."""

    job: _Job | None = None


_here = _Here()


def _ask_for_short_slices() -> None:
    """Ask Linux for `SLICE` in this thread; versions before 6.12 take no notice."""
    if SCHED_SETATTR is None:
        return
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            nice = os.getpriority(os.PRIO_PROCESS, 0)  # this thread's, to be kept
            attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, SLICE, 0, 0)  # struct sched_attr
            ctypes.CDLL(None).syscall(SCHED_SETATTR, 0, attributes, 0)
    except (OSError, AttributeError):  # a C library without one of these (musl): the thread runs as it is
        return


def new_team(members: int) -> np.ndarray:
    """What members share: int64, before any has arrived."""
    return np.zeros(CORES + members * LINE, np.int64)


def _forget_threads() -> None:
    """In a forked process, which has none of its parent's threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
