"""The team of threads: its barrier, how it stops, and what an exception and Ctrl-C do to it."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numba import config, njit
from problems import child_environment

from fastmlp.kernels.cpu import team
from fastmlp.kernels.cpu.team import STOP, barrier, new_team


def stopper(shared):
    def stop():
        shared[STOP] = 1

    return stop


@njit(nogil=True)
def rounds(shared, written, member, members, count):
    """Write, wait, read what all have written, wait; returns how often something else was there than should be."""
    wrong = 0
    for turn in range(1, count + 1):
        written[8 * member] = turn
        if not barrier(member, shared, members):
            return -1
        for other in range(members):
            wrong += written[8 * other] != turn
        if not barrier(member, shared, members):
            return -1
    return wrong


@njit(nogil=True)
def wait_once(member, shared, members):
    return barrier(member, shared, members)


@pytest.mark.parametrize("members", [1, 2, 3, 2 * (os.cpu_count() or 1) + 1])
def test_nobody_passes_the_barrier_before_all_are_there(members):
    """More members than cores included: a waiting one has to let the others run."""
    shared, written, wrong = new_team(members), np.zeros(8 * members, np.int64), [None] * members

    def work(member):
        wrong[member] = rounds(shared, written, member, members, 500)

    team.run(members, work, stopper(shared))
    assert wrong == [0] * members
    assert not shared[STOP]


def test_each_member_is_run_once_in_a_thread_of_its_own():
    seen = {}
    meeting = threading.Barrier(4, timeout=60)

    def work(member):
        assert member not in seen
        seen[member] = threading.current_thread()
        meeting.wait()  # all four are under way at once

    team.run(4, work, pytest.fail)
    assert sorted(seen) == [0, 1, 2, 3]
    assert len({*seen.values(), threading.main_thread()}) == 5


def test_only_a_brief_job_of_one_runs_in_the_calling_thread():
    seen = []
    for members, brief in ((1, True), (1, False), (2, True)):
        team.run(members, lambda member: seen.append(threading.current_thread()), pytest.fail, brief)
    here = threading.current_thread()
    assert [thread is here for thread in seen] == [True, False, False, False]


def test_stop_ends_members_that_wait():
    """One member never comes; the others leave when told to, and say so."""
    shared, answers = new_team(3), []
    threads = [
        threading.Thread(target=lambda member=member: answers.append(wait_once(member, shared, 3))) for member in (0, 1)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert answers == []
    stopper(shared)()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert answers == [False, False]


def test_a_team_told_to_stop_passes_no_barrier():
    shared = new_team(1)
    assert wait_once(0, shared, 1)
    stopper(shared)()
    assert not wait_once(0, shared, 1)


@pytest.mark.parametrize("error", [KeyError, MemoryError, SystemExit])
def test_an_exception_in_one_member_stops_all_and_is_raised(error):
    shared, answers = new_team(3), []

    def work(member):
        if member == 1:
            time.sleep(0.05)  # the others wait at the barrier by now
            raise error("member 1")
        answers.append(wait_once(member, shared, 3))

    with pytest.raises(error, match="member 1"):
        team.run(3, work, stopper(shared))
    assert answers == [False, False]


def test_a_team_works_again_after_an_exception():
    with pytest.raises(KeyError):
        team.run(2, {}.__getitem__, stopper(new_team(2)))
    seen = []
    team.run(3, seen.append, pytest.fail)
    assert sorted(seen) == [0, 1, 2]


def test_teams_of_several_threads_do_not_wait_for_each_other():
    """Two callers at once, each with a team that meets at barriers of its own."""
    results = []

    def caller():
        shared, written, wrong = new_team(2), np.zeros(16, np.int64), [None, None]

        def work(member):
            wrong[member] = rounds(shared, written, member, 2, 200)

        team.run(2, work, stopper(shared))
        results.append(wrong)

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert results == [[0, 0]] * 3


def test_an_exception_of_a_lone_member_is_raised():
    def work(member):
        raise KeyError(member)

    for brief in (True, False):
        with pytest.raises(KeyError):
            team.run(1, work, stopper(new_team(2)), brief)


def test_threads_are_those_that_numba_was_told_or_cores(monkeypatch):
    usual = config.NUMBA_DEFAULT_NUM_THREADS
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", usual)
    assert team.most_threads() == min(usual, team.cores())
    monkeypatch.setattr(team, "cores", lambda: 1)
    assert team.most_threads() == 1
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(usual))
    assert team.most_threads() == usual
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", usual + 7)
    assert team.most_threads() == usual + 7


def test_hyperthreads_of_a_core_count_once(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 4, 5}, raising=False)
    for number, siblings in {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5"}.items():
        file = tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(siblings + "\n")
    assert team.cores(tmp_path) == 3
    assert team.cores(tmp_path / "nowhere") == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert team.cores(tmp_path / "elsewhere") == 6


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread on this system")
@pytest.mark.parametrize("members", [1, 2])
def test_ctrl_c_is_raised_when_all_members_have_left(members):
    """Not before: they would go on writing to arrays that are the caller's again."""
    told, left = threading.Event(), []

    def work(member):
        told.wait(10)
        time.sleep(0.3)
        left.append(member)

    main = threading.main_thread().ident
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        team.run(members, work, told.set)
    here = sorted(left)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5
    timer.join()
    time.sleep(0.5)
    assert here == list(range(members)), f"run returned while members of {members} were at work: {here} had left"


INTERRUPTED = """
import signal
import time

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
import numpy as np
from fastmlp import kernels
from fastmlp.kernels import Network, Rule
from problems import random_problem

kernels.warmup(("float32",))
cpu, network, rule = kernels.backend("cpu"), Network.build((100, 50, 10)), Rule("momentum", 1e-4, momentum=0.9)
problem, state = random_problem(network, 5000, labels=True), network.state(rule)
for threads, batch_size, count in ((1, 1, 30_000_000), (2, 5, 30_000_000), (2, 2000, 60_000_000)):
    order = np.zeros(count, np.int64)
    print("under way", flush=True)
    try:
        cpu.train_epoch(
            network, rule, problem.parameters, state, problem.X, problem.Y, order, batch_size, threads=threads
        )
        print("finished", flush=True)
    except KeyboardInterrupt:
        left = problem.parameters.copy()
        time.sleep(0.05)
        print("interrupted", np.isfinite(left).all(), (left == problem.parameters).all(), flush=True)
    cpu.train_epoch(network, rule, problem.parameters, state, problem.X, problem.Y, np.arange(50), 5)
print("goes on", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="another process cannot be sent Ctrl-C on Windows")
def test_ctrl_c_ends_a_long_epoch_at_once():
    """One member, two of small batches, two of large ones: each epoch would take most of a minute or more.

    Nothing is written to the parameters any more, and the next call works.
    """
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], env=child_environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            for _ in range(3):
                assert child.stdout.readline() == "under way\n"
                time.sleep(0.4)
                start = time.monotonic()
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted True True\n"
                assert time.monotonic() - start < 3
            assert child.stdout.readline() == "goes on\n"
            assert child.wait(60) == 0
        finally:
            child.kill()
