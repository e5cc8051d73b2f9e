"""A team of threads: how it starts, how it waits for one another, and the state of the floating-point unit.

A member is an ordinary Python thread that runs one compiled function without the interpreter's lock, from its first
step to its last. Numba's parallel regions are not used: entering one was seen to cost 2 µs with OpenMP but 120 with the
workqueue layer, which is all that many machines have; two threads that enter workqueue at once end the process; a
process forked after an OpenMP region hangs or dies in its next; and no layer promises that two members run on two
threads, without which a spinning barrier never ends. Waking threads of our own costs about 0.1 ms an epoch, everywhere,
and has none of these.
"""

import os
import platform
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import cache

from llvmlite import ir
from numba import config, njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.vectors import INT32, INTP, int_constant, pointer

I = types.intp  # noqa: E741 (an index, in signatures that would not fit otherwise)
X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
ARM = platform.machine().lower() in ("aarch64", "arm64")

#: Words of a team's shared array, a cache line apart: members that have arrived, barriers passed, and whether to stop.
ARRIVED, PASSED, STOP, WORDS = 0, 8, 16, 24
#: Looks at the barrier before a waiting thread offers its core to others: 0.1 to 0.2 ms, some hundred times a step's
#: usual wait. A member that is late by more has lost its core. Offering sooner is worse where other processes want the
#: cores: they get a whole time slice (3 ms) for every wait, and a step takes a hundred times as long.
PATIENCE = 5000


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
    """Read a word that other threads write, and with it all that they wrote before it."""

    def generate(context, builder, signature, arguments):
        array, index = arguments
        place = builder.gep(pointer(context, builder, signature.args[0], array), [index])
        return builder.load_atomic(place, "acquire", 8)

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
def offer_core(typing):
    """Let the system run another thread on this core."""

    def generate(context, builder, signature, arguments):
        _call(builder, "SwitchToThread" if os.name == "nt" else "sched_yield", INT32)
        return context.get_dummy_value()

    return types.void(), generate


@njit(nogil=True)
def barrier(team, members):
    """Wait until all members have come here. Returns False where the team has been told to stop."""
    if members == 1:
        return atomic_load(team, STOP) == 0
    passed = atomic_load(team, PASSED)
    if atomic_add(team, ARRIVED, 1) == members - 1:
        atomic_add(team, ARRIVED, -members)
        atomic_add(team, PASSED, 1)
    else:
        looks = 0
        while atomic_load(team, PASSED) == passed:
            if atomic_load(team, STOP) != 0:
                return False
            looks += 1
            if looks < PATIENCE:
                pause()
            else:
                offer_core()
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
    """The number of threads where none is asked for: NUMBA_NUM_THREADS, by default the cores this process may use."""
    return config.NUMBA_NUM_THREADS


def run(members: int, work: Callable[[int], None], stop: Callable[[], None], brief: bool = False) -> None:
    """Run ``work(0)`` … ``work(members - 1)`` at once, each in a thread of its own, and wait for all.

    The calling thread only waits, in Python, so that Ctrl-C reaches it at once: ``stop`` then tells the members, which
    leave at their next barrier. For a lone member whose work is brief, the calling thread does it itself.

    Parameters
    ----------
    members : int
    work : callable
        Given its member's number. An exception in one stops all and is raised here.
    stop : callable
        Tells all members to leave.
    brief : bool, default False
        Whether the work is over too soon for anybody to want to interrupt it.
    """
    if members == 1 and brief:
        work(0)
        return
    futures = [_pool().submit(work, number) for number in range(members)]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    except BaseException:
        stop()
        _wait_undisturbed(futures)
        raise
    if any(future.done() and future.exception() for future in futures):
        stop()  # the others wait at a barrier for the one that failed
    wait(futures)
    for future in futures:
        future.result()


def _wait_undisturbed(futures: list[Future]) -> None:
    """Wait for members that have been told to stop, which takes a step: a second Ctrl-C changes nothing."""
    while True:
        try:
            wait(futures)
            return
        except KeyboardInterrupt:
            continue


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads that members run in: idle ones are used again, new ones are started as long as none is idle."""
    return ThreadPoolExecutor(max_workers=10_000, thread_name_prefix="fastmlp")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads
