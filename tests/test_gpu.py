"""The command for a GPU and the contenders there, as far as a machine without one goes: with stand-ins."""

import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastmlp import kernels
from fastmlp.bench import gpu, gpu_steps, measure, results, suites, tables, with_torch_cuda
from fastmlp.bench.contender import Missing
from fastmlp.bench.contenders import CONTENDERS, contender
from fastmlp.bench.processes import Crew, Worker, WorkerDied, environment
from fastmlp.bench.suites import SUITES, Suite
from fastmlp.bench.time_to_accuracy import SETTINGS, write_idx
from fastmlp.bench.with_jax import Jax, JaxCuda, JaxCudaTf32
from fastmlp.bench.with_torch import import_torch
from fastmlp.bench.with_torch_cuda import TorchCudaGraph, with_tf32
from fastmlp.bench.work import Work
from fastmlp.kernels import Rule, reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import plans
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.network import DTYPES
from fastmlp.kernels.updates import UPDATES

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_JAX = importlib.util.find_spec("jax") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
needs_jax = pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")
HAS_GPU = kernels.available()["cuda"] is None
without_gpu = pytest.mark.skipif(HAS_GPU, reason="there is a GPU")

TINY = Work((12, 7, 4), 6, source="synthetic", samples=100, rule=Rule("momentum", 0.05, momentum=0.9))
NUMPY, CPU, OURS = "fastmlp-numpy", "fastmlp-cpu", "slowcoach:Ours"


pytestmark = pytest.mark.usefixtures("own_process")


@without_gpu
@pytest.mark.parametrize(
    "name",
    [
        "fastmlp-cuda",
        "fastmlp-cuda-uint8",
        *(pytest.param(name, marks=needs_torch) for name in CONTENDERS if name.startswith("torch-cuda")),
        *(pytest.param(name, marks=needs_jax) for name in CONTENDERS if name.startswith("jax-cuda")),
    ],
)
def test_contenders_refuse_to_start(name, monkeypatch):
    monkeypatch.setattr(Jax, "library", lambda self: NoDevice) if name.startswith("jax") else None
    with pytest.raises(Missing, match=r"no CUDA device|does not work here"):
        contender(name)(TINY, contender(name).settings_for(TINY, 1)[0])


class NoDevice:
    """A JAX without devices; the real one can be asked for another platform only once in a process."""

    @staticmethod
    def devices(platform):
        raise RuntimeError(f"Unknown backend {platform}\nand more")


@needs_torch
def test_tf32_is_for_float32(monkeypatch):
    torch = import_torch(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Missing, match="TF32 is for float32, not float64"):
        contender("torch-cuda-tf32")(replace(TINY, dtype="float64"), {"threads": 1})
    with pytest.raises(Missing, match="TF32 is for float32, not float64"):
        JaxCudaTf32(replace(TINY, dtype="float64"), {"threads": 1})


def test_tf32_is_other_arithmetic_in_a_family_of_its_own():
    for name, kind in CONTENDERS.items():
        if "cuda" in name and not name.startswith("fastmlp"):
            assert name.endswith("-tf32") == (kind.arithmetic == "tf32") == kind.family.endswith("TF32")
    assert measure.TOLERANCE["float32"] < measure.TOLERANCE["tf32"] < measure.TOLERANCE["bfloat16"]


# ---- the contenders' logic, on the CPU ----


class FakeGraph(TorchCudaGraph):
    """A graph that takes its steps anew each time it is played."""

    device = "cpu"

    def library(self):
        return import_torch(1)

    def watched(self):
        return contextlib.nullcontext()

    def warm_up(self):
        for _ in range(with_torch_cuda.WARM):
            self.one(*self.batches[0])

    def capture(self, steps):
        return steps


@needs_torch
@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("graphs", [0, 100], ids=["gathered", "a graph a batch"])
@pytest.mark.parametrize("changes", [{}, {"rule": Rule("plain", 0.05), "loss": "mean_squared_error"}], ids=str)
def test_graphs_take_every_batch_in_turn(changes, graphs, unroll, monkeypatch):
    """More steps than an epoch has, in calls that begin and end in its midst."""
    monkeypatch.setattr(with_torch_cuda, "GRAPHS", graphs)
    work = replace(TINY, **changes)
    own = FakeGraph(work, {"threads": 1, "unroll": unroll})
    chunks = [5, 1, work.batches + 4, 2]
    told = []
    for steps in chunks:
        own.prepare(steps)
        told.append(own.told(own.run(steps)))
    expected = measure.oracle_losses(work, sum(chunks))
    assert measure.largest_difference(told, chunks, expected) < measure.TOLERANCE["float32"]


@needs_torch
def test_graphs_are_tried_with_several_steps_only_where_they_gather():
    assert len(TorchCudaGraph.settings_for(Work(source="synthetic"), 1)) == 2
    assert len(TorchCudaGraph.settings_for(Work(source="synthetic", batch_size=512), 1)) == 1


@needs_torch
def test_graph_refuses_what_it_is_not_written_for():
    with pytest.raises(Missing, match="'adam'"):
        FakeGraph(replace(TINY, rule=Rule("adam", 0.01)), {"threads": 1, "unroll": 1})
    own = FakeGraph(TINY, {"threads": 1, "unroll": 1})
    with pytest.raises(ValueError, match="steps="):
        own.prepare(with_torch_cuda.LONGEST + 1)


@needs_torch
def test_tf32_is_asked_for(monkeypatch):
    torch = import_torch(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    try:
        for kind, precision in ((with_torch_cuda.TorchCuda, "highest"), (with_tf32(with_torch_cuda.TorchCuda), "high")):
            own = object.__new__(kind)
            own.work, own.settings = TINY, {"threads": 1}
            own.library()
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@needs_jax
@pytest.mark.parametrize("unroll", [1, 8])
def test_jax_there_is_jax_here(unroll, monkeypatch):
    monkeypatch.setattr(JaxCuda, "platform", "cpu")
    own = JaxCuda(TINY, {"threads": 1, "unroll": unroll})
    chunks = [3, TINY.batches + 2]
    told = []
    try:
        for steps in chunks:
            own.prepare(steps)
            told.append(own.told(own.run(steps)))
    finally:
        own.jax.config.update("jax_default_matmul_precision", None)
    expected = measure.oracle_losses(TINY, sum(chunks))
    assert measure.largest_difference(told, chunks, expected) < measure.TOLERANCE["float32"]


def test_suites_on_a_gpu_hold_all_that_was_asked_for():
    for name, networks in (("gpu", [(784, 100, 10)]), ("gpu-networks", list(suites.GPU_NETWORKS))):
        works = [work for work, _ in SUITES[name].jobs]
        for sizes in networks:
            batches = {work.batch_size for work in works if work.sizes == sizes}
            assert batches >= {1, 5, 10, 32, 128, 512, 4096, 10_000, 60_000}
    assert set(gpu_steps.AIMS) <= {work.batch_size for work, _ in SUITES["gpu"].jobs}
    for name in ("gpu", "gpu-compiled", "gpu-networks"):
        assert all(names[0] == gpu_steps.OURS for _, names in SUITES[name].jobs)


# ---- an answer that does not come ----

SLEEPER = """
import os
import shlex
import time

from fastmlp.bench.with_fastmlp import FastmlpNumpy


class Sleeper(FastmlpNumpy):
    def run(self, steps):
        time.sleep(600)


class Deserter(FastmlpNumpy):
    shown = 0

    def told(self, result):
        self.shown += 1
        return super().told(result)

    def run(self, steps):
        if self.shown == 2:  # both calls whose losses are checked are behind it: this is a turn
            os._exit(7)
        return super().run(steps)


class Clocked(FastmlpNumpy):
    def run(self, steps):
        self.device_seconds = 0.25 * steps
        return super().run(steps)
"""


@pytest.fixture
def sleepers(tmp_path, monkeypatch):
    """A module of contenders that stop answering, or have a clock of their own."""
    (tmp_path / "sleepers.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(tmp_path)
    return "sleepers"


@pytest.fixture
def hasty(monkeypatch):
    """Few and short trials, one thread."""
    monkeypatch.setattr(measure, "TRIAL_STEPS", (2, 4))
    monkeypatch.setattr(measure, "TRIALS", 1)
    monkeypatch.setattr(measure.machine, "cores", lambda: 1)


def test_worker_is_given_up_when_no_answer_comes(sleepers):
    worker = Worker(limit=20.0)
    try:
        worker.ask("start", contender=f"{sleepers}:Sleeper", work=TINY.to_dict(), settings={"threads": 1})
        worker._limit = 0.3
        with pytest.raises(WorkerDied, match=r"no answer within 0\.3 s"):
            worker.ask("losses", chunks=[2])
        assert worker._process.wait(10) != 0
    finally:
        worker.close()


def test_others_go_on_without_who_does_not_answer(sleepers, hasty):
    sleeper = f"{sleepers}:Sleeper"
    with Crew(limit=120.0) as crew:
        crew.worker(sleeper).ask("start", contender=sleeper, work=TINY.to_dict(), settings={"threads": 1})
        crew.worker(sleeper)._limit = 1.0  # from now on: to start took longer
        result = measure.measure_work(TINY, [sleeper, NUMPY], crew, rounds=2, steps=3)
    assert list(result["contenders"]) == [NUMPY]
    assert "no answer within 1 s" in result["refused"][sleeper]


def test_a_devices_own_clock_is_kept(sleepers, hasty):
    with Crew() as crew:
        result = measure.measure_work(TINY, [f"{sleepers}:Clocked", NUMPY], crew, rounds=2, steps=3)
    assert result["contenders"][f"{sleepers}:Clocked"]["device_seconds"] == [0.75, 0.75]
    assert "device_seconds" not in result["contenders"][NUMPY]


def test_turns_are_whole_epochs(hasty):
    with Crew() as crew:
        long = measure.measure_work(TINY, [NUMPY], crew, rounds=1, steps=40, whole_epochs=True)
        short = measure.measure_work(TINY, [NUMPY], crew, rounds=1, steps=10, whole_epochs=True)
    assert TINY.batches == 16
    assert [long["steps"], short["steps"]] == [32, 10]


def test_contenders_without_trials_are_set_up_at_once_and_take_their_first_settings(hasty):
    """The slow one takes fewer steps, and its times are those of all."""
    with Crew() as crew:
        result = measure.measure_work(TINY, ["slowcoach:Slow", NUMPY], crew, rounds=2, steps=32, patience=None)
    slow, other = result["contenders"].values()
    assert slow["trials"] == other["trials"] == []
    assert (result["steps"], slow["most_steps"]) == (32, 4)
    assert all(0.32 <= seconds < 3.2 for seconds in slow["seconds"])
    assert "most_steps" not in other


# ---- make gpu: the steps ----

RIVAL = """
import time

from fastmlp.bench.with_fastmlp import FastmlpNumpy


class Slow(FastmlpNumpy):
    most_steps = 4
    family = "a rival"

    def run(self, steps):
        time.sleep(0.01 * steps)
        return super().run(steps)


class Ours(FastmlpNumpy):
    family = "fastmlp"


class Wrong(FastmlpNumpy):
    def run(self, steps):
        return super().run(steps) * (1 + 1e-3)
"""


@pytest.fixture(autouse=True)
def rivals(tmp_path, monkeypatch):
    (tmp_path / "slowcoach.py").write_text(RIVAL)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def stand_ins(monkeypatch, hasty):
    """Two tiny works, and contenders that need no GPU."""
    jobs = tuple((replace(TINY, batch_size=size), (OURS, "slowcoach:Slow")) for size in (5, 10))
    monkeypatch.setitem(SUITES, "gpu", Suite("tiny", jobs, rounds=2, steps=lambda work: 4, gpu=True))
    monkeypatch.setattr(gpu_steps, "OURS", OURS)
    monkeypatch.setattr(gpu_steps, "NETWORK", TINY.sizes)
    monkeypatch.setattr(gpu_steps, "AIMS", {5: 1e-9, 10: 1e9})
    monkeypatch.setattr(gpu_steps, "mnist_is_here", lambda: True)
    monkeypatch.setattr(gpu_steps.machine, "graphics_card", lambda: {"name": "stand-in", "driver": "1.0"})


def test_small_works_are_right_on_the_cpu():
    """All of them, so that one that fails on a GPU fails because of the GPU."""
    assert [gpu_steps.small(str(index), CPU[8:]) for index in range(len(gpu_steps.SMALL))] == [0] * len(gpu_steps.SMALL)


def test_small_works_hold_every_rule_loss_and_dtype_and_bytes():
    for works in (gpu_steps.SMALL[:10], gpu_steps.SMALL[10:]):
        kinds = {(work.rule.kind, work.dtype) for work, _ in works}
        assert kinds >= {(rule, dtype) for rule in UPDATES for dtype in DTYPES}
        assert {work.loss for work, _ in works} == set(OUTPUTS)
        assert any(pixels for _, pixels in works)
    assert {work.activation for work, _ in gpu_steps.SMALL} == set(ACTIVATIONS)


@pytest.mark.parametrize("what", ["losses", "weights", "outputs"])
def test_small_works_that_are_wrong_are_found(what, monkeypatch, capsys):
    """A part in a thousand off, in any of what is compared."""

    class Off:
        @staticmethod
        def train_epoch(network, rule, parameters, *others):
            before = parameters.copy()
            losses = reference.train_epoch(network, rule, parameters, *others)
            if what == "weights":
                parameters += 1e-3 * (parameters - before)
            return losses * (1 + 1e-3 * (what == "losses"))

        @staticmethod
        def predict(*arguments):
            return reference.predict(*arguments) * (1 + 1e-3 * (what == "outputs"))

    monkeypatch.setattr(gpu_steps.kernels, "backend", lambda name: Off)
    assert gpu_steps.small("0") == 1
    assert "WRONG: [784, 100, 10]" in capsys.readouterr().out


def test_measurements_are_written_after_each_work(stand_ins, tmp_path, monkeypatch, capsys):
    """A step that ends in the midst of the second work has kept the first, and the table names what is left."""
    whole = measure.measure_job

    def killed(work, *arguments):
        if work.batch_size == 10:
            raise SystemExit
        return whole(work, *arguments)

    monkeypatch.setattr(measure, "measure_job", killed)
    with pytest.raises(SystemExit):
        gpu_steps.measure("gpu", str(tmp_path))
    kept = results.load(tmp_path / "gpu.json")
    assert kept["interrupted"]
    assert len(kept["measurements"]) == 1
    assert "no time for [12, 7, 4], 10" in gpu.table(kept)
    monkeypatch.setattr(measure, "measure_job", whole)
    assert gpu_steps.measure("gpu", str(tmp_path)) == 0
    result = results.load(tmp_path / "gpu.json")
    assert not result["interrupted"]
    assert [one["enough"] for one in result["aims"]] == [True, True, False]
    page = tables.markdown([result])
    assert ", 100 samples, on the GPU stand-in:" in page
    assert "stand-in, driver 1.0" in page
    assert "**at least 1,000,000,000** (missed)" in page
    told = gpu.table(result)
    assert "batch 10: times slowcoach:Slow" in told
    assert "no time" not in told


def test_who_fails_leaves_the_others(stand_ins, sleepers, tmp_path, monkeypatch, capsys):
    """Whose process ends in the rounds, or who tells wrong losses, is named, and the exit code tells."""
    first, second = SUITES["gpu"].jobs
    jobs = ((first[0], (OURS, f"{sleepers}:Deserter")), (second[0], (*second[1], "slowcoach:Wrong")))
    monkeypatch.setitem(SUITES, "gpu", replace(SUITES["gpu"], jobs=jobs))
    assert gpu_steps.measure("gpu", str(tmp_path)) == 1
    result = results.load(tmp_path / "gpu.json")
    assert [list(one["contenders"]) for one in result["measurements"]] == [[OURS], [OURS, "slowcoach:Slow"]]
    told = gpu.table(result)
    assert f"{sleepers}:Deserter: its process ended: exit code 7" in told
    assert "slowcoach:Wrong: its losses over the first 20 steps differ" in told
    assert f"Refused: {sleepers}:Deserter: its process ended" in tables.markdown([result])


def raw(seconds, dtype="float32", family="a rival"):
    return {"label": "x", "family": family, "dtype": dtype, "settings": {}, "seconds": seconds}


def measured(contenders, steps):
    work = Work(batch_size=5, shift=-0.5)
    return {"work": work.to_dict(), "rounds": 3, "steps": steps, "contenders": contenders, "missing": {}, "refused": {}}


def test_aims_are_against_the_best_rival_in_the_same_arithmetic():
    contenders = {
        "fastmlp-cuda": raw([1.0, 1.1, 0.9], family="fastmlp"),
        "torch-cuda": raw([30.0, 33.0, 27.0]),
        "torch-cuda-graph": raw([9.0, 9.9, 8.1]),
        "jax-cuda-tf32": raw([2.0, 2.2, 1.8], "tf32"),
    }
    aims = gpu_steps.aims_of({"measurements": [measured(contenders, steps=240_000)]})
    assert [one["what"] for one in aims] == ["batch 5: times torch-cuda-graph", "seconds an epoch at batch 5"]
    assert [one["reached"] for one in aims] == pytest.approx([9.0, 12_000 / 240_000])
    assert [one["enough"] for one in aims] == [True, True]
    slow = measured({**contenders, "torch-cuda-graph": raw([7.0] * 3)}, steps=120_000)
    assert [one["enough"] for one in gpu_steps.aims_of({"measurements": [slow]})] == [False, False]
    assert gpu_steps.aims_of({"measurements": [measured({"torch-cuda": raw([1.0] * 3)}, 1)]}) == []


def test_times_to_accuracy_are_written_after_each_run(tmp_path, little_mnist, monkeypatch, capsys):
    programs = {"fastmlp": replace(SETTINGS["fastmlp"], epochs=1)}
    monkeypatch.setattr(gpu_steps, "PROGRAMS", programs)
    monkeypatch.setattr(gpu_steps, "SEEDS", 1)
    saved = []
    save = results.save

    def watched(result, path):
        saved.append((len(result["accuracy"]["programs"]["fastmlp"]["runs"]), result["interrupted"]))
        save(result, path)

    monkeypatch.setattr(results, "save", watched)
    assert gpu_steps.accuracy(str(tmp_path)) == 0
    assert saved == [(1, True), (1, False)]
    assert "of training to 98%" in tables.markdown([results.load(tmp_path / "gpu-accuracy.json")])


# ---- make gpu: the command ----

SAY = "import sys, time; print('three words here', flush=True); "
WELL, FAILS, DIES = SAY, SAY + "raise ValueError('out of order')", SAY + "import os; os.abort()"
HANGS = SAY + "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
NO_DEVICE = f"print('versions'); print('no NVIDIA driver is installed'); sys.exit({gpu_steps.NO_GPU})"
PYTEST = "import sys; print('3 passed, 1 failed, 2 skipped in 1.50s'); sys.exit(1)"
FAILED_AND_CUT_OFF = "import time; print('= 1 failed, 1 error in 1.50s =', flush=True); time.sleep(60)"
CUT_OFF = "import time; print('3 passed, 2 skipped in 1.50s', flush=True); time.sleep(60)"


def step(*programs, seconds=20.0, **others):
    commands = {f"process-{place}": [sys.executable, "-c", program] for place, program in enumerate(programs)}
    return gpu.Step("stand-in", seconds, lambda out: commands, **others)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command over these steps: its exit code, what it has said, and what it has recorded."""
    monkeypatch.setattr(gpu, "GRACE", 1.0)
    monkeypatch.setattr(gpu, "LEAST", 1.0)
    out = tmp_path / "out"

    def run(steps, *arguments, capsys):
        monkeypatch.setattr(gpu, "STEPS", steps)
        code = gpu.main(["--out", str(out), *arguments])
        record = out / "gpu-steps.json"
        return code, capsys.readouterr().out, json.loads(record.read_text()) if record.exists() else None

    run.out = out
    return run


def test_command_goes_on_after_what_fails_hangs_or_dies(command, capsys):
    steps = {
        "1": step(WELL),
        "2": step(WELL, DIES, FAILS, HANGS, each=4.0),
        "3": step(PYTEST),
        "4": step(CUT_OFF, FAILED_AND_CUT_OFF, seconds=2.5),
        "5": step(WELL),
        "6": step(),
    }
    begin = time.perf_counter()
    code, said, record = command(steps, capsys=capsys)
    assert time.perf_counter() - begin < 20
    assert code == 1
    two, three, four = record["steps"][1:4]
    assert two["failed"] == {"process-1": "exit code -6", "process-2": "exit code 1", "process-3": "no end within 4 s"}
    assert two["well"] == 1
    assert (three["failed"], three["tests"]) == ({"process-0": "exit code 1"}, {"passed": 3, "failed": 1, "skipped": 2})
    assert (four["failed"], four["cut off"]) == ({"process-1": "cut off"}, 2)
    assert four["tests"] == {"passed": 3, "skipped": 2, "failed": 1, "error": 1}
    assert record["steps"][4]["failed"] == {}
    assert record["left"] == ["6"]
    assert "ValueError: out of order" in said
    assert "6: stand-in: NOT DONE" in said
    shown = tables.markdown([results.load(command.out / "gpu-steps.json")])
    assert "| stand-in | 0 | 1 | 0 | 3 passed, 1 failed, 2 skipped |" in shown
    assert "ValueError: out of order" in (command.out / "gpu-logs" / "process-2.txt").read_text()


def test_command_is_well_if_all_is(command, capsys):
    code, said, record = command({"1": step(WELL), "2": step(WELL, WELL)}, capsys=capsys)
    assert (code, record["left"]) == (0, [])
    assert "2: stand-in: 2 well" in said


def test_command_names_what_it_had_no_time_for(command, capsys):
    steps = {"1": step(WELL), "2": step(HANGS), "3": step(WELL)}
    begin = time.perf_counter()
    code, said, record = command(steps, "--minutes", "0.1", capsys=capsys)
    assert time.perf_counter() - begin < 10
    assert code == 0
    assert [entry["step"] for entry in record["steps"]] == ["1", "2"]
    assert record["left"] == ["3"]
    assert "3: stand-in: NOT DONE" in said


def test_command_does_the_steps_that_are_named(command, capsys):
    """The first is always among them."""
    steps = {name: step(WELL) for name in "12345"}
    _, _, record = command(steps, "--steps", "4 2", capsys=capsys)
    assert [entry["step"] for entry in record["steps"]] == ["1", "2", "4"]
    with pytest.raises(SystemExit):
        command(steps, "--steps", "2 9", capsys=capsys)
    assert "'2 9'; expected some of 1 2 3 4 5" in capsys.readouterr().err


def test_kernels_are_compiled_beforehand(command, capsys, tmp_path, monkeypatch):
    """While the second step runs; the third, which measures, begins when that has ended."""
    monkeypatch.setattr(gpu_steps, "to_compile", lambda part: [TINY] * 2)
    program = f"import pathlib, time; time.sleep(1); pathlib.Path({str(tmp_path)!r}, 'compiled').touch()"
    monkeypatch.setattr(gpu, "python", lambda *arguments: [sys.executable, "-c", program])
    asks = f"import pathlib; assert pathlib.Path({str(tmp_path)!r}, 'compiled').exists()"
    code, said, _ = command({"1": step(WELL), "2": step(WELL), "3": step(asks, needs="gpu")}, capsys=capsys)
    assert code == 0, said


def test_command_without_a_gpu_compiles_and_says_why(command, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "python", lambda *arguments: [sys.executable, "-c", "print('kernels: ok')"])
    steps = {
        "1": gpu.Step("s", 9, lambda out: {"start": [sys.executable, "-c", f"import sys; {NO_DEVICE}"]}),
        "2": step(FAILS),
    }
    code, said, record = command(steps, capsys=capsys)
    assert code == 1
    assert "kernels: ok\nno NVIDIA driver is installed\n" in said
    assert [entry["step"] for entry in record["steps"]] == ["1"]


KILLED = """
import sys

from fastmlp.bench import gpu

second = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
commands = {"1": "print('well')", "2": second}
gpu.STEPS = {
    name: gpu.Step("stand-in", 50, lambda out, name=name, code=code: {name: [sys.executable, "-c", code]})
    for name, code in commands.items()
}
sys.exit(gpu.main(["--out", sys.argv[1]]))
"""


def test_profiled_are_two_epochs_of_a_work_for_each_kernel(tmp_path, monkeypatch):
    """What Nsight Compute would start, with a file in the tool's place."""
    monkeypatch.setenv("PATH", "")
    assert gpu.profiled(tmp_path) == {}
    tool = tmp_path / "ncu"
    tool.write_text("")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    commands = [shlex.split(command[-1]) for command in gpu.profiled(tmp_path).values()]
    assert all(command[0] == str(tool) for command in commands)
    programs = [command[: command.index("&&")][-2:] for command in commands]  # the name of a step, and what it is given
    assert {SUITES["gpu"].jobs[int(index)][0].batch_size for _, index in programs} == {5, 10_000}
    taken = []

    class Noted(contender(NUMPY)):
        def run(self, steps):
            taken.append(steps)
            return super().run(steps)

    monkeypatch.setitem(CONTENDERS, gpu_steps.OURS, Noted)
    monkeypatch.setattr(gpu_steps, "PROFILED_STEPS", 3)
    name, index = next(program for program in programs if program[1] == "0")
    assert gpu_steps.main(name, index) == 0
    assert taken == [3, 3]


def test_layouts_are_those_that_the_rule_ranks_next(tmp_path, monkeypatch, capsys):
    """Each place is another layout, and the ranking has a work for each place."""
    asked = []

    class Planned(contender(NUMPY)):
        def __init__(self, work, settings):
            super().__init__(work, settings)
            given = plans.Given(work.rule.kind, work.rule.slots, work.batch_size, "float32", True)
            constants = plans.persistent.__wrapped__(work.network(), given, plans.Gpu())
            if constants is None:
                constants = plans.tiled.__wrapped__(work.network(), "train", given, plans.Gpu())
            asked.append(constants)

    monkeypatch.setitem(CONTENDERS, gpu_steps.OURS, Planned)
    jobs = tuple((replace(work, source="synthetic", samples=300), names) for work, names in SUITES["gpu"].jobs[:5])
    monkeypatch.setitem(SUITES, "gpu", replace(SUITES["gpu"], jobs=jobs, steps=lambda work: 2))
    (tmp_path / "gpu-logs").mkdir()
    commands = gpu.layouts(tmp_path)
    assert len(commands) == 2 * gpu_steps.LAYOUTS * len(jobs)
    for index, (work, _) in enumerate(jobs):
        asked.clear()
        for place in range(2 * gpu_steps.LAYOUTS):
            command = commands[f"layout-{work.batch_size}-{place}"]
            assert gpu_steps.main(*command[command.index("layout") :]) == 0, index
        assert len({str(constants) for constants in asked}) >= 2 * gpu_steps.LAYOUTS - 1
    assert capsys.readouterr().out.count("µs a step at place") == len(commands)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_are_checked(minutes, command, capsys):
    with pytest.raises(SystemExit):
        command({"1": step(WELL)}, "--minutes", minutes, capsys=capsys)
    assert f"argument --minutes: '{minutes}'; expected a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_measured_survives_a_kill(how, tmp_path):
    """And SIGTERM leaves no process behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment(), stdout=subprocess.DEVNULL
    )
    log = tmp_path / "gpu-logs" / "2.txt"
    end = time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.05)
    child = int(log.read_text())
    try:
        process.send_signal(how)
        assert process.wait(30) == (130 if how == signal.SIGTERM else -how)
        record = json.loads((tmp_path / "gpu-steps.json").read_text())
        assert [(entry["step"], entry["well"]) for entry in record["steps"]] == [("1", 1)]
        assert record["left"] == ["2"]
        if how == signal.SIGTERM:
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_tests_can_be_shared_out():
    """Each test is in one share, whatever else chooses among them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["tests/test_network.py", "-k", "refus or unknown"]
    processes = []
    for share in ("0/1", "0/2", "1/2"):
        environ = environment({"FASTMLP_SHARE": share, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
        root = Path(__file__).parents[1]
        processes.append(subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE, text=True))
    told = [process.communicate()[0] for process in processes]
    shares = [[line for line in text.splitlines() if "::" in line] for text in told]
    both = len(shares[1]), len(shares[2])
    assert min(both) > 0
    assert max(both) - min(both) <= 1
    assert sorted(shares[0]) == sorted(shares[1] + shares[2])


# ---- a bare machine ----

BARE = """
import sys

for name in ("pooch", "platformdirs", "torch", "torchvision", "jax", "onnx", "sklearn", "matplotlib", "safetensors"):
    sys.modules[name] = None
from fastmlp.bench import gpu
from fastmlp.bench.work import mnist_is_here

assert sys.modules["pooch"] is None
print(mnist_is_here())
"""


@pytest.mark.parametrize("here", [False, True])
def test_command_needs_little_more_than_a_checkout(here, tmp_path, monkeypatch):
    """None of the packages that a machine with a GPU may lack, and MNIST where it is told to be."""
    monkeypatch.delenv("FASTMLP_DATA", raising=False)
    if here:
        images = np.zeros((2, 28, 28), np.uint8)
        for name in ("train", "t10k"):
            write_idx(tmp_path / f"{name}-images-idx3-ubyte", images)
            write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.array([0, 9], np.uint8))
        monkeypatch.setenv("FASTMLP_DATA", str(tmp_path))
    command = [sys.executable, "-c", BARE]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{here}\n")
