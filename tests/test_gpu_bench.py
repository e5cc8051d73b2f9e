"""The commands for a GPU and the contenders there, as far as a machine without one goes: with fakes in their places."""

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from fastmlp import kernels
from fastmlp.bench import gpu, gpu_bench, gpu_tests, measure, results, suites, tables, with_torch_cuda
from fastmlp.bench.contender import Missing
from fastmlp.bench.contenders import CONTENDERS, contender
from fastmlp.bench.processes import Crew, Worker, WorkerDied, environment
from fastmlp.bench.suites import SUITES, Suite
from fastmlp.bench.time_to_accuracy import write_idx
from fastmlp.bench.with_jax import Jax, JaxCuda, JaxCudaTf32
from fastmlp.bench.with_torch import import_torch
from fastmlp.bench.with_torch_cuda import TorchCudaGraph, with_tf32
from fastmlp.bench.work import Work
from fastmlp.kernels import Rule

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_JAX = importlib.util.find_spec("jax") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
needs_jax = pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")
HAS_GPU = kernels.available()["cuda"] is None
without_gpu = pytest.mark.skipif(HAS_GPU, reason="there is a GPU")

TINY = Work((12, 7, 4), 6, source="synthetic", samples=100, rule=Rule("momentum", 0.05, momentum=0.9))
NUMPY, CPU = "fastmlp-numpy", "fastmlp-cpu"


# ---- without a GPU ----


@without_gpu
@pytest.mark.parametrize("command", [gpu_bench, gpu_tests])
def test_commands_say_at_once_what_is_missing(command, tmp_path, capsys):
    begin = time.perf_counter()
    assert command.main(["--out", str(tmp_path / "r.json")]) == 2
    assert time.perf_counter() - begin < 5
    said = capsys.readouterr().err
    assert said.startswith("error: nothing can be ")
    assert kernels.available()["cuda"] in said
    assert not list(tmp_path.iterdir())


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
    assert set(gpu_bench.AIMS) <= {work.batch_size for work, _ in SUITES["gpu"].jobs}
    for name in ("gpu", "gpu-compiled", "gpu-networks"):
        assert all(names[0] == gpu_bench.OURS for _, names in SUITES[name].jobs)
    assert set(gpu_bench.PARTS) - set(gpu_bench.MEASURES) <= set(SUITES)


# ---- an answer that does not come ----

SLEEPER = """
import os
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


# ---- make bench-gpu ----


@pytest.fixture
def fake_gpu(monkeypatch, hasty):
    """A GPU, its two tiny works, and contenders that need none."""
    jobs = tuple((replace(TINY, batch_size=size), (CPU, NUMPY)) for size in (6, 20))
    monkeypatch.setitem(SUITES, "gpu", Suite("tiny", jobs, rounds=3, target=0.002, longest=0.01))
    monkeypatch.setattr(gpu_bench, "OURS", CPU)
    monkeypatch.setattr(gpu_bench, "EAGER", NUMPY)
    monkeypatch.setattr(gpu_bench, "NETWORK", TINY.sizes)
    monkeypatch.setattr(gpu_bench, "AIMS", {6: 1e-9, 20: 1e9})
    monkeypatch.setattr(gpu, "missing", lambda: None)
    monkeypatch.setattr(gpu, "describe", lambda: {"name": "a fake", "driver": "1.0"})
    monkeypatch.setattr(gpu, "ceilings", lambda: {"float32": {"gflops": 1.0, "library": "a fake", "size": 8}})
    monkeypatch.setattr(gpu_bench, "mnist_is_here", lambda: False)
    monkeypatch.setattr(gpu_bench.machine, "commit", lambda: "abc")
    monkeypatch.setattr(gpu_bench.shutil, "which", lambda name: None)


@pytest.fixture
def quick_jobs(fake_gpu, monkeypatch):
    """Measurements out of thin air; the batch sizes that were asked for."""
    seen = []

    def measure_job(work, names, *_):
        seen.append(work.batch_size)
        contenders = {CPU: raw([1.0, 1.0, 1.0], family="fastmlp"), NUMPY: raw([2.0, 2.0, 2.0])}
        return {**measured(work.batch_size, contenders), "work": work.to_dict()}

    monkeypatch.setattr(gpu_bench, "measure_job", measure_job)
    return seen


def bench(folder, *arguments):
    return gpu_bench.main(["--out", str(folder), *arguments])


def test_bench_measures_and_tells(fake_gpu, tmp_path, capsys):
    assert bench(tmp_path, "--parts", "gpu,gpu-accuracy,gpu-profile") == 0
    said = capsys.readouterr().out
    assert "made-up images" in said
    assert "gpu-accuracy: left out, for MNIST is not here" in said
    assert "gpu-profile: left out, for ncu is not here" in said
    assert "batch 20: times fastmlp-numpy" in said
    assert "(missed)" in said
    result = results.load(tmp_path / "gpu.json")
    assert result["machine"]["gpu"]["name"] == "a fake"
    assert [one["work"]["batch_size"] for one in result["measurements"]] == [6, 20]
    assert not result["interrupted"]
    assert result["left"] == []
    assert [one["enough"] for one in result["aims"]] == [True, False]
    page = tables.markdown([result])
    assert "a fake, driver 1.0" in page
    assert "the product of 8 × 8 matrices by a fake" in page
    assert "**at least 1,000,000,000** (missed)" in page


def test_bench_goes_on_where_it_ended(quick_jobs, tmp_path, capsys, monkeypatch):
    """A run that is cut off in its second work keeps the first; the next measures the second alone."""
    whole, seen = gpu_bench.measure_job, quick_jobs

    def cut_off(*arguments):
        measured = whole(*arguments)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return measured

    monkeypatch.setattr(gpu_bench, "measure_job", cut_off)
    assert bench(tmp_path, "--parts", "gpu") == 130
    kept = results.load(tmp_path / "gpu.json")
    assert kept["interrupted"]
    assert len(kept["measurements"]) == len(kept["left"]) == 1
    monkeypatch.setattr(gpu_bench.machine, "commit", lambda: "abc+")  # its own files have changed
    assert bench(tmp_path, "--parts", "gpu") == 0
    assert seen == [6, 20, 20]
    assert "going on, 1 of 2 works are measured" in capsys.readouterr().out
    both = results.load(tmp_path / "gpu.json")
    assert both["measurements"][0] == kept["measurements"][0]
    assert len(both["measurements"]) == 2
    assert bench(tmp_path, "--parts", "gpu") == 0
    assert len(seen) == 3
    monkeypatch.setattr(gpu_bench.machine, "commit", lambda: "def")
    assert bench(tmp_path, "--parts", "gpu") == 0
    assert seen[3:] == [6, 20]


def test_bench_ends_when_its_time_is_over(fake_gpu, tmp_path, capsys):
    assert bench(tmp_path, "--parts", "gpu", "--minutes", "0.1") == 0
    assert "no time for 2 works" in capsys.readouterr().out
    assert not (tmp_path / "gpu.json").exists()


def test_bench_gives_up_a_work_that_takes_too_long(fake_gpu, tmp_path, monkeypatch, sleepers):
    """Its processes are ended, the next work is measured, and the exit code tells."""
    first, second = SUITES["gpu"].jobs
    jobs = ((first[0], (CPU, f"{sleepers}:Sleeper")), second)
    monkeypatch.setitem(SUITES, "gpu", replace(SUITES["gpu"], jobs=jobs))
    within, seconds = gpu_bench.within, [4.0]
    monkeypatch.setattr(gpu_bench, "within", lambda usual: within(seconds.pop() if seconds else usual))
    assert bench(tmp_path, "--parts", "gpu") == 1
    result = results.load(tmp_path / "gpu.json")
    assert result["failed"] == {first[0].title: "took more than 4 s"}
    assert [one["work"]["batch_size"] for one in result["measurements"]] == [20]
    assert "Failed: [12, 7, 4], relu, batch 6, float32: took more than 4 s." in tables.markdown([result])


def test_bench_goes_on_when_a_process_ends_in_the_rounds(fake_gpu, tmp_path, monkeypatch, sleepers):
    first, second = SUITES["gpu"].jobs
    jobs = ((first[0], (CPU, f"{sleepers}:Deserter")), second)
    monkeypatch.setitem(SUITES, "gpu", replace(SUITES["gpu"], jobs=jobs, rounds=6))
    assert bench(tmp_path, "--parts", "gpu") == 1
    result = results.load(tmp_path / "gpu.json")
    assert result["failed"] == {first[0].title: "exit code 7: no message"}
    assert len(result["measurements"]) == 1


def test_within_a_time():
    with pytest.raises(gpu_bench.OutOfTime, match="took more than 0 s"), gpu_bench.within(0.05):
        time.sleep(5)
    with gpu_bench.within(5):
        pass
    time.sleep(0.06)  # no alarm is left behind


def raw(seconds, dtype="float32", family="y"):
    return {"label": "x", "family": family, "dtype": dtype, "settings": {}, "seconds": seconds}


def measured(batch_size, contenders, steps=100):
    work = Work(batch_size=batch_size, shift=-0.5)
    return {"work": work.to_dict(), "rounds": 3, "steps": steps, "contenders": contenders, "missing": {}, "refused": {}}


def test_aims_are_against_the_best_rival_in_the_same_arithmetic():
    contenders = {
        "fastmlp-cuda": raw([1.0, 1.1, 0.9], family="fastmlp"),
        "fastmlp-cuda-tf32x3": raw([0.5, 0.5, 0.5], family="fastmlp CUDA, three TF32"),
        "torch-cuda": raw([30.0, 33.0, 27.0]),
        "torch-cuda-graph": raw([9.0, 9.9, 8.1]),
        "jax-cuda-tf32": raw([2.0, 2.2, 1.8], "tf32"),
    }
    aims = gpu_bench.aims_of({"measurements": [measured(5, contenders, steps=400_000)]})
    assert [one["what"] for one in aims] == [
        "batch 5: times torch-cuda-graph",
        "batch 5: times torch-cuda",
        "seconds an epoch at batch 5",
    ]
    assert [one["reached"] for one in aims] == pytest.approx([9.0, 30.0, 12_000 / 400_000])
    assert [one["enough"] for one in aims] == [True, True, True]
    slow = gpu_bench.aims_of({"measurements": [measured(5, {**contenders, "torch-cuda-graph": raw([7.0] * 3)})]})
    assert [one["enough"] for one in slow] == [False, True, False]
    assert gpu_bench.aims_of({"measurements": [measured(5, {"torch-cuda": raw([1.0] * 3)})]}) == []


def test_works_that_fall_short_are_profiled(quick_jobs, tmp_path, monkeypatch, capsys):
    """With a profiler that says a word, and one that fails."""
    assert bench(tmp_path, "--parts", "gpu") == 0
    for code, failed in ((0, None), (3, "no counters")):
        monkeypatch.setattr(gpu_bench.shutil, "which", lambda name: sys.executable)
        program = f"import sys; print('occupancy 25 %'); print('no counters', file=sys.stderr); sys.exit({code})"
        monkeypatch.setattr(gpu_bench, "python", lambda *arguments, program=program: ["-c", program])
        monkeypatch.setattr(gpu_bench, "PROFILER", [])
        (tmp_path / "gpu-profile.json").unlink(missing_ok=True)
        assert bench(tmp_path, "--parts", "gpu-profile") == 0
        (entry,) = results.load(tmp_path / "gpu-profile.json")["works"]
        assert entry["work"]["batch_size"] == 20
        assert entry["text"] == "occupancy 25 %\n"
        assert entry["failed"] == failed


def test_profiled_process_trains(fake_gpu, monkeypatch):
    taken = []
    monkeypatch.setattr(contender(CPU), "run", lambda self, steps: taken.append(steps))
    assert gpu_bench.main(["--profiled", json.dumps(TINY.to_dict())]) == 0
    assert taken == [gpu_bench.PROFILE_STEPS] * 2


def test_time_to_accuracy_is_told_and_kept(fake_gpu, tmp_path, monkeypatch, capsys):
    def fake(names, seeds, settings):
        runs = [
            {"seed": seed, "curve": [{"seconds": 2.0 + seed, "training": 0.1, "epoch": 1, "accuracy": accuracy}]}
            for seed, accuracy in enumerate((0.981, 0.982, 0.95))
        ]
        program = {"label": "ours", "title": "as it is", "runs": runs}
        accuracy = {"sizes": [784, 100, 10], "targets": [0.97, 0.98], "programs": {CPU: program}}
        accuracy["missing"] = {"jax-cuda": "it is not installed"}
        return {**gpu_bench_result(), "accuracy": accuracy}

    monkeypatch.setattr(gpu_bench.time_to_accuracy, "measure_accuracy", fake)
    monkeypatch.setattr(gpu_bench, "mnist_is_here", lambda: True)
    assert bench(tmp_path, "--parts", "gpu-accuracy") == 0
    said = capsys.readouterr().out
    assert "seconds to 98%: 2, 3, inf; of training: 0.1, 0.1, inf" in said
    assert "seconds of training to 98%: 0.1; wanted at most 0.5" in said
    result = results.load(tmp_path / "gpu-accuracy.json")
    assert [one["enough"] for one in result["aims"]] == [True]
    assert "of training to 98%" in tables.markdown([result])
    assert bench(tmp_path, "--parts", "gpu-accuracy") == 0
    assert "measured already" in capsys.readouterr().out


def gpu_bench_result():
    result = {"format": results.FORMAT, "suite": "accuracy", "summary": "x", "interrupted": False, "machine": {}}
    return {**result, "ceilings": {}, "memory": None, "measurements": []}


def test_bench_refuses_unknown_parts(capsys):
    with pytest.raises(SystemExit):
        gpu_bench.main(["--parts", "gpu,cpu"])
    assert "'gpu,cpu'" in capsys.readouterr().err


# ---- what the GPU is ----


def test_a_process_that_fails_tells_why():
    with pytest.raises(RuntimeError, match="KeyError: 'colour'"):
        gpu.in_own_process("colour")


def test_ceilings_are_rates_or_none(monkeypatch):
    monkeypatch.setattr(gpu, "in_own_process", lambda what: {"float32": 5e4})
    assert gpu.ceilings()["float32"]["gflops"] == 5e4

    def fail(what):
        raise RuntimeError("no PyTorch")

    monkeypatch.setattr(gpu, "in_own_process", fail)
    assert gpu.ceilings() == {}


# ---- a bare machine ----

BARE = """
import sys

for name in ("pooch", "platformdirs", "torch", "torchvision", "jax", "onnx", "sklearn", "matplotlib", "safetensors"):
    sys.modules[name] = None
from fastmlp.bench import gpu_bench, gpu_tests
from fastmlp.bench.work import mnist_is_here

assert sys.modules["pooch"] is None
print(mnist_is_here())
for command in (gpu_bench, gpu_tests):
    command.gpu.missing = lambda: "no GPU here"
    assert command.main([]) == 2
"""


@pytest.mark.parametrize("here", [False, True])
def test_commands_need_little_more_than_a_checkout(here, tmp_path, monkeypatch):
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
    assert done.stderr.count("no GPU here") == 2


# ---- make test-gpu ----

WRONG = """
from fastmlp.bench.with_fastmlp import FastmlpCpu


class Wrong(FastmlpCpu):
    def run(self, steps):
        return super().run(steps) * (1 + 1e-3)


class Broken(FastmlpCpu):
    def run(self, steps):
        raise ValueError("out of order")
"""


@pytest.fixture
def few_small(monkeypatch):
    monkeypatch.setattr(gpu_tests, "SMALL", (TINY, replace(TINY, dtype="float64")))


def test_small_works_are_checked(few_small, tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong_there.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    assert gpu_tests.main(["--small", "--contender", CPU]) == 0
    assert "== 2 passed, 0 failed" in capsys.readouterr().out
    assert gpu_tests.main(["--small", "--contender", "wrong_there:Wrong"]) == 1
    assert "FAILED [12, 7, 4], relu, batch 6, float64: losses differ by 1.0e-03" in capsys.readouterr().out
    assert gpu_tests.main(["--small", "--contender", "wrong_there:Broken"]) == 1
    assert "== 0 passed, 2 failed" in capsys.readouterr().out


def test_small_works_are_right_on_the_cpu(capsys):
    """All of them, so that one that fails on a GPU fails because of the GPU."""
    assert gpu_tests.main(["--small", "--contender", CPU]) == 0


PYTEST = """
tests/test_contract.py::test_a[cuda] PASSED                              [ 20%]
tests/test_contract.py::test_b[cuda-1] FAILED                            [ 40%]
tests/test_contract.py::test_c[cuda] SKIPPED (not here)                  [ 60%]
[gw1] [ 80%] PASSED tests/test_contract.py::test_d[cuda]
[gw0] [100%] ERROR tests/test_contract.py::test_e[cuda]
FAILED tests/test_contract.py::test_b[cuda-1] - assert 1 == 2
"""


def test_outcomes_are_read_from_lines_or_from_the_summary():
    assert gpu_tests.outcomes(PYTEST) == {"passed": 2, "failed": 1, "skipped": 1, "error": 1}
    summary = "=== 1 failed, 30 passed, 2 skipped, 9 deselected in 12.34s (0:00:12) ===\n"
    assert gpu_tests.outcomes(PYTEST + summary) == {"failed": 1, "passed": 30, "skipped": 2, "deselected": 9}
    assert gpu_tests.outcomes("Segmentation fault") == {}


def test_steps_end_when_their_time_is_over(monkeypatch):
    monkeypatch.setattr(gpu_tests, "GRACE", 0.5)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
    )
    begin = time.perf_counter()
    step = gpu_tests.run_step("stubborn", [sys.executable, "-c", stubborn], 1.0)
    assert time.perf_counter() - begin < 20
    assert not step["ended"]
    assert not step["well"]
    assert step["output"] == "here\n"


def test_interrupted_tests_are_well_while_none_has_failed(tmp_path, monkeypatch):
    """pytest itself, interrupted: it says how many had passed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it shall start quickly
    (tmp_path / "test_slow.py").write_text(
        "import time\n\ndef test_quick():\n    pass\n\ndef test_slow():\n    time.sleep(60)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        str(tmp_path),
        "--rootdir",
        str(tmp_path),
    ]
    step = gpu_tests.run_step("slow", command, 6.0)
    assert not step["ended"]
    assert step["outcomes"] == {"passed": 1}
    assert step["well"]


def test_command_keeps_each_step(fake_gpu, few_small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "r.json"
    lengths = []
    save = results.save
    monkeypatch.setattr(
        results, "save", lambda result, path: lengths.append(len(result["steps"])) or save(result, path)
    )
    say = [sys.executable, "-c", "print('== 3 passed in 0.10s ==')"]
    fail = [sys.executable, "-c", "print('a race'); raise SystemExit(99)"]
    monkeypatch.setattr(
        gpu_tests, "steps", lambda tool: [("one", say, 9.0), ("racecheck", fail, 9.0), ("contract", say, math.inf)]
    )
    assert gpu_tests.main(["--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "left out: compute-sanitizer: it is not on the path" in said
    assert "one: well; 3 passed" in said
    assert "racecheck: NOT WELL, exit code 99" in said
    assert "a race" in said
    kept = json.loads(out.read_text())
    assert [step["well"] for step in kept["steps"]] == [True, False, True]
    assert kept["machine"]["gpu"]["name"] == "a fake"
    assert lengths[:3] == [1, 2, 3]


def test_steps_hold_the_sanitizer_where_it_is():
    names = [name for name, _, _ in gpu_tests.steps(None)]
    assert names == ["small works", "contract"]
    with_tools = gpu_tests.steps("/somewhere/compute-sanitizer")
    assert [name for name, _, _ in with_tools] == ["small works", "memcheck", "racecheck", "synccheck", "contract"]
    assert with_tools[1][1][:3] == ["/somewhere/compute-sanitizer", "--tool", "memcheck"]
    assert np.isinf(with_tools[-1][2])
