"""Ctrl-C and other code that signals run, at every step of a call: nothing hangs, crashes, or is changed by half."""

import faulthandler
import gc
import inspect
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from itertools import cycle

import numpy as np
import pytest
from problems import child_environment, forced, random_problem, run_python

from fastmlp import Adam, Mlp, Sgd, kernels
from fastmlp.kernels import Network, Rule
from fastmlp.kernels.cpu import team

#: Every step of a short call is tried, and of a long one as many as this.
MOST_STEPS = 150

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends a process no signals of these kinds")


@pytest.fixture(autouse=True)
def no_hang():
    """A test that hangs says where, and ends the run."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def interrupted_at(step: int, call, again: int | None = None) -> tuple[bool, bool]:
    """Call with KeyboardInterrupt raised at that bytecode of it; whether it came so far, and whether that got out.

    And once more, where wanted, at the function entered so many later.
    """
    count, entered, told = -1, 0, False

    def gets_lost(frame):  # what is raised while a generator is closed
        return bool(frame.f_code.co_flags & inspect.CO_GENERATOR)

    def profile(frame, event, argument):
        nonlocal entered
        entered += event == "call" and told
        if again is not None and entered > again and not gets_lost(frame):
            raise KeyboardInterrupt

    def trace(frame, event, argument):
        nonlocal count, told
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if count >= step and not told and not gets_lost(frame):
            told = True
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # what is raised in its callbacks gets lost
    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks for it before
    sys.settrace(trace)
    sys.setprofile(None if again is None else profile)
    try:
        call()
        return told, False
    except KeyboardInterrupt:
        return True, True
    finally:
        sys.setprofile(None)
        sys.settrace(before)
        gc.enable()


def steps_of(call) -> int:
    """How many bytecodes a call takes."""
    low, high = 0, 1
    while interrupted_at(high, call)[0]:
        low, high = high, 2 * high
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if interrupted_at(middle, call)[0] else (low, middle)
    return high


def tried_steps(call) -> range:
    """Bytecodes at which to interrupt it, evenly spread."""
    count = steps_of(call)
    return range(0, count, max(1, count // MOST_STEPS))


@pytest.mark.parametrize("members", [1, 3])
def test_no_member_is_at_work_after_an_interrupt_at_any_step(members):
    for step in range(10_000):
        told, begun, left = threading.Event(), [], []

        def work(member, told=told, begun=begun, left=left):
            begun.append(member)
            told.wait(0.002)
            left.append(member)

        came, escaped = interrupted_at(step, lambda work=work, told=told: team.run(members, work, told.set))
        here = sorted(left)
        time.sleep(0.001 if step % 20 else 0.01)
        assert here == sorted(begun) == sorted(left), f"step {step}: {here} had left of {begun}"
        assert here in ([], list(range(members))), f"step {step}: a team of {members} began with {here}"
        assert escaped == came
        if not came:
            break
    assert step > 50
    seen = []
    team.run(members, seen.append, pytest.fail)
    assert sorted(seen) == list(range(members))


def test_nor_where_signal_handlers_raise_again_and_again():
    """As where Ctrl-C is held down: while the members are told to leave, and while they are waited for."""
    told, left, raised = threading.Event(), [], []

    def work(member):
        told.wait(10)
        time.sleep(0.1)
        left.append(member)

    def stop():
        if len(raised) < 20:
            raised.append(1)
            raise KeyboardInterrupt
        told.set()

    for step in range(0, 2000, 9):
        told.clear()
        left.clear()
        raised.clear()
        came, escaped = interrupted_at(step, lambda: team.run(2, work, stop))
        assert escaped == came
        if raised:
            break
    assert (len(raised), sorted(left)) == (20, [0, 1])


def everything(mlp: Mlp) -> tuple:
    """All that a run of training changes, to be compared to the bit."""
    kind, state = mlp._optimizer or ("", None)
    history = mlp.history.to_dict() if mlp.history else {}
    return (
        mlp.parameters.tobytes(),
        mlp._rng.bit_generator.state["state"]["state"],
        kind,
        None if state is None else (state.slots.tobytes(), int(state.step[0])),
        len(history.get("loss", ())),
        tuple(history.get("loss", ())),
        tuple(len(history.get(name, ())) for name in ("val_loss", "val_accuracy", "seconds", "samples_per_second")),
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("backend", "optimizer"), [("numpy", Adam(0.01)), ("cpu", Sgd(0.1, momentum=0.9))])
def test_an_epoch_counts_with_all_that_belongs_to_it_or_not_at_all(backend, optimizer, threads):
    """Interrupted at any step: weights, optimizer, generator and history are those after some number of epochs."""
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)

    def new() -> Mlp:
        return Mlp([6, 40, 3], activation="relu", loss="cross_entropy", seed=3, backend=backend, threads=threads)

    def fit(mlp: Mlp) -> None:
        mlp.fit(X, y, epochs=3, batch_size=20, optimizer=optimizer, validation=(X, y), progress=False)

    mlp, after = new(), []
    mlp.fit(X, y, epochs=1, batch_size=20, optimizer="adam" if backend == "cpu" else "sgd", progress=False)
    start = [everything(mlp)]
    mlp.fit(
        X, y, epochs=3, batch_size=20, optimizer=optimizer, validation=(X, y), progress=False,
        callbacks=lambda mlp, history: after.append(everything(mlp)),
    )  # fmt: skip
    outcomes = set()
    with team_always(threads):
        for step, again in zip(tried_steps(lambda: fit(new())), cycle([None, 0, 1, 2, 3]), strict=False):
            mlp = new()
            mlp.fit(X, y, epochs=1, batch_size=20, optimizer="adam" if backend == "cpu" else "sgd", progress=False)
            with suppress(KeyboardInterrupt):
                interrupted_at(step, lambda mlp=mlp: fit(mlp), again)
            found = everything(mlp)
            assert found in [*start, *after], f"step {step}: not as after any epoch; {found[2:]}"
            outcomes.add([*start, *after].index(found))
    assert outcomes == {0, 1, 2, 3}


def team_always(threads: int):
    """Teams of so many threads, however small the work."""
    return forced(always_threads=threads > 1)


@needs_signals
def test_a_signal_handler_may_call_what_it_interrupts():
    """It evaluates the network that is trained, and predicts with it, in one thread and in two; so may a finalizer."""
    found = run_python(HANDLERS)
    assert (found.stdout, found.stderr) == ("0 wrong\n", "")


HANDLERS = """
import faulthandler, gc, signal, weakref
faulthandler.dump_traceback_later(120, exit=True)
import numpy as np
from problems import forced
from fastmlp import Mlp, Sgd

rng = np.random.default_rng(0)
X, y = rng.normal(size=(400, 20)), rng.integers(0, 3, 400)
other = Mlp([20, 30, 3], activation="relu", loss="cross_entropy", seed=1)
calls, wrong, looking = 0, 0, False

def equal():  # an equal network, not the same one: plans are found by comparing
    twin = Mlp([20, 30, 3], activation="relu", loss="cross_entropy", seed=1)
    return twin.evaluate(X, y), twin.predict(X[:1])

def look(*_):
    global calls, wrong, looking
    if looking:  # where a look takes longer than the timer, handlers would pile up
        return
    looking = True
    calls += 1
    wrong += other.evaluate(X, y) != expected or (other.predict(X[:1]) != one).any()
    evaluation, outputs = equal()
    wrong += evaluation != expected or (outputs != one).any()
    wrong += not np.isfinite(mlp.evaluate(X, y).loss)
    looking = False

class Finalized:
    def __del__(self):
        look()

signal.signal(signal.SIGALRM, look)
for threads in (1, 2):
    with forced(always_threads=threads > 1):
        mlp = Mlp([20, 30, 3], activation="relu", loss="cross_entropy", seed=2, threads=threads)
        mlp.fit(X, y, epochs=1)
        expected, one = other.evaluate(X, y), other.predict(X[:1])
        calls = 0
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        while calls < 300:
            mlp.fit(X, y, epochs=3, batch_size=8, optimizer=Sgd(1e-6))
            for _ in range(5):
                equal()
            cycle = [Finalized()]
            cycle.append(cycle)
            del cycle
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
print(wrong, "wrong")
"""


LATE = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
from fastmlp import Adam, Mlp, Sgd, kernels
kernels.warmup(("float32",))

def mlp(sizes, **options):
    return Mlp(sizes, activation="relu", loss="cross_entropy", dtype="float32", seed=0, **options)

wide, narrow = mlp([784, 2000, 2000, 10], threads=int(sys.argv[1])), mlp([4, 8, 2], threads=int(sys.argv[1]))
pixels, digits = np.zeros((20_000, 784), np.uint8), np.zeros(20_000, int)
pixels[:, ::3] = np.arange(262)
many, labels = np.zeros((8_000_000, 4), np.uint8), np.zeros(8_000_000, np.int32)
calls = {
    "predict": lambda: wide.predict(pixels),
    "evaluate": lambda: wide.evaluate(pixels, digits),
    "backpropagation": lambda: wide.backpropagation(pixels, digits),
    "full batch": lambda: wide.fit(pixels, digits, epochs=1, batch_size=None),
    "train": lambda: wide.train(pixels, digits, 3),
    "batch 1": lambda: narrow.fit(many, labels, epochs=1, batch_size=1, optimizer=Adam(), shuffle=False),
}
for name, call in calls.items():
    sent = 0.0

    def send():
        global sent
        sent = time.perf_counter()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    timer = threading.Timer(0.7, send)
    timer.start()
    try:
        result = call()
        assert getattr(result, "interrupted", False), f"{name} was over before"
    except KeyboardInterrupt:
        pass
    print(f"{name}: {time.perf_counter() - sent:.3f}")
    timer.join()
"""


@needs_signals
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_is_heard_within_three_tenths_of_a_second(threads):
    """Wherever steps are long, or many; the calls would take seconds."""
    found = run_python(LATE.replace("sys.argv[1]", str(threads)))
    assert not found.stderr
    late = {name: float(seconds) for name, seconds in (line.split(": ") for line in found.stdout.splitlines())}
    assert len(late) == 6
    assert max(late.values()) < 0.3, late


@pytest.mark.parametrize(("threads", "batch_size"), [(64, 2048), (1000, 32_000), (1000, 256)])
def test_memory_does_not_grow_with_the_square_of_threads(threads, batch_size, monkeypatch):
    network, rule = Network.build((784, 100, 10)), Rule("momentum", 1e-4, momentum=0.9)
    problem, state = random_problem(network, 300, labels=True), network.state(rule)
    order = np.arange(batch_size) % 300
    monkeypatch.setattr(team, "run", lambda members, *_: None)  # what is asked for, not what so many threads do
    tracemalloc.start()
    kernels.backend("cpu").train_epoch(
        network, rule, problem.parameters, state, problem.X, problem.Y, order, batch_size, threads=threads
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6


def test_what_is_asked_for_at_exit_is_computed():
    """Also where the threads that it needs can't be started any more."""
    program = """
import atexit, sys
import numpy as np
from problems import forced
from fastmlp import Mlp
mlp = Mlp([20, 30, 3], activation="relu", loss="cross_entropy", seed=2, threads=2)
X = np.ones((50, 20))

def last():
    with forced(always_threads=True):
        print(mlp.predict(X).shape, mlp.fit(X, np.zeros(50, int), epochs=1, batch_size=10).loss[0] > 0, flush=True)

atexit.register(last)
if BEFORE:
    last()
"""
    for before in (True, False):
        found = run_python(program.replace("BEFORE", str(before)))
        assert (found.stdout, found.stderr) == ("(50, 3) True\n" * (1 + before), "")


def test_a_finalizer_that_predicts_does_not_keep_the_interpreter_from_ending():
    """Threads that were idle before don't run any more then. NumPy may refuse; an answer, if one comes, is right."""
    program = """
import faulthandler, os
faulthandler.dump_traceback_later(60, exit=True)
import numpy as np
from fastmlp import Mlp

mlp, X = Mlp([784, 200, 10], threads=2), np.ones((2000, 784), np.uint8)
expected = mlp.predict(X)

class Last:
    def __del__(self, mlp=mlp, X=X, expected=expected, write=os.write):
        write(1, b"equal" if (mlp.predict(X) == expected).all() else b"other")

last = Last()
"""
    found = run_python(program)
    assert found.returncode == 0, found.stderr
    assert found.stdout in ("equal", "")


def test_where_the_system_gives_no_threads_one_does_the_work(monkeypatch):
    """At a limit on processes, say. What it gave before is used; a team that is too small is refused in words."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    network = Network.build((20, 30, 3))
    problem = random_problem(network, 50, labels=True)
    expected = kernels.backend("cpu").predict(*problem.arrays[:3], threads=1)
    monkeypatch.setattr(team, "_pool", team._Pool())
    monkeypatch.setattr(team, "start_new_thread", refuse)
    with team_always(2):
        found = kernels.backend("cpu").predict(*problem.arrays[:3], threads=2)
    np.testing.assert_array_equal(found, expected)
    seen = []
    team.run(1, seen.append, pytest.fail)
    assert seen == [0]
    with pytest.raises(RuntimeError, match="can't start new thread"):
        team.run(2, seen.append, pytest.fail)
    assert seen == [0]


SOAK = """
import faulthandler, os, pickle, signal, sys
faulthandler.dump_traceback_later(300, exit=True)
import numpy as np
from problems import forced
from fastmlp import Adam, Mlp, Sgd

rounds, threads = map(int, sys.argv[1:3])
if sys.argv[3] == "one core" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
armed = False

def handler(_, frame):  # raises where fastmlp is at work, not while this program catches what it raised
    while armed and frame is not None:
        if "fastmlp" in frame.f_code.co_filename:
            raise KeyboardInterrupt
        frame = frame.f_back

class Job:
    def __init__(self, sizes, n, batch_size, optimizer):
        rng = np.random.default_rng(0)
        self.X, self.y = rng.integers(0, 256, (n, sizes[0]), np.uint8), rng.integers(0, sizes[-1], n)
        if sizes[0] == 784:
            self.X[rng.random(self.X.shape) < 0.8] = 0
        self.options = dict(batch_size=batch_size, optimizer=optimizer, validation=(self.X, self.y), progress=False)
        scale = 1 / 255
        mlp = Mlp(sizes, activation="relu", loss="cross_entropy", seed=1, threads=threads, input_scale=scale)
        self.start, self.after = pickle.dumps(mlp), []
        for _ in range(5):
            self.after.append((mlp.parameters.tobytes(), mlp.predict(self.X).tobytes()))
            self.fit(mlp, 1)

    def fit(self, mlp, epochs):
        mlp.fit(self.X, self.y, epochs=epochs, **self.options)

with forced(always_threads=threads > 1):
    signal.signal(signal.SIGINT, handler)
    jobs = [
        Job([8, 5, 2], 300, 1, Adam()),
        Job([50, 40, 3], 600, 8, Sgd(0.05, momentum=0.9)),
        Job([300, 200, 10], 500, 100, Sgd(0.05)),
        Job([784, 100, 10], 700, 5, Sgd(0.01, momentum=0.9)),
    ]
    interrupted = 0
    print("ready", flush=True)
    for number in range(rounds):
        job = jobs[number % len(jobs)]
        mlp = pickle.loads(job.start)
        armed = True
        try:
            job.fit(mlp, 4)
            for _ in range(3):
                mlp.predict(job.X)
        except KeyboardInterrupt:
            pass
        armed = False
        epochs = len(mlp.history) if mlp.history else 0
        interrupted += epochs < 4
        assert mlp.parameters.tobytes() == job.after[epochs][0], (number, epochs)
        if epochs < 4:
            job.fit(mlp, 4 - epochs)
        assert (mlp.parameters.tobytes(), mlp.predict(job.X).tobytes()) == job.after[4], (number, epochs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(rounds, interrupted, flush=True)
"""


@needs_signals
@pytest.mark.parametrize(("threads", "cores"), [(1, "any"), (2, "any"), (2, "one core")])
def test_a_hundred_times_ctrl_c_at_random_moments(threads, cores):
    """Of fits and predictions of several sizes, twice in a row sometimes; the fit goes on equal to the bit."""
    rng = np.random.default_rng(threads + len(cores))
    command = [sys.executable, "-c", SOAK, "100", str(threads), cores]
    with subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        watch = threading.Timer(240, child.kill)
        watch.start()
        try:
            line = child.stdout.readline()
            assert line == "ready\n", child.stderr.read()
            reader = threading.Thread(target=lambda: lines.extend(child.stdout))
            lines: list[str] = []
            reader.start()
            while reader.is_alive():
                time.sleep(rng.exponential(0.02))
                for _ in range(1 + rng.integers(0, 3) // 2):
                    child.send_signal(signal.SIGINT)
            assert child.wait(60) == 0, child.stderr.read()
        finally:
            watch.cancel()
            child.kill()
    rounds, interrupted = map(int, lines[-1].split())
    assert rounds == 100
    assert interrupted > 25
