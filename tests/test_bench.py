"""The harness of bench/, end to end on a tiny work."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastmlp.bench import (
    accuracy_programs,
    command,
    gpu,
    gpu_steps,
    measure,
    plots,
    products,
    results,
    tables,
    time_to_accuracy,
)
from fastmlp.bench.ceiling import measure_ceiling, measure_memory
from fastmlp.bench.contender import Missing, thread_counts
from fastmlp.bench.contenders import CONTENDERS, contender
from fastmlp.bench.processes import Crew, Worker, WorkerDied
from fastmlp.bench.suites import SUITES, Suite
from fastmlp.bench.work import Work, bytes_touched, operations
from fastmlp.bench.worker import Host
from fastmlp.cli import MISTAKE, OK, main
from fastmlp.kernels import Rule

ROOT = Path(__file__).resolve().parent.parent

HAS_TORCH = importlib.util.find_spec("torch") is not None
TORCH = ["torch-eager", "torch-by-hand"] if HAS_TORCH else []
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")

TINY = Work((12, 7, 4), 6, source="synthetic", samples=100, rule=Rule("momentum", 0.05, momentum=0.9))
TINY_LAB = Work.lab(sizes=(784, 6, 3), source="synthetic", samples=40, batch_size=40)

WRONG = """
from dataclasses import replace

from fastmlp.bench.predictors import FastmlpPredict
from fastmlp.bench.with_fastmlp import FastmlpNumpy


class WrongRate(FastmlpNumpy):
    def __init__(self, work, settings):
        super().__init__(work, settings)
        rule = replace(work.rule, learning_rate=1.01 * work.rule.learning_rate)
        self.work = replace(work, rule=rule)


class WrongOutputs(FastmlpPredict):
    def run(self, steps):
        return super().run(steps) * 1.001


class Broken(FastmlpNumpy):
    def run(self, steps):
        raise RuntimeError("out of order")
"""


CEILING = {"gflops": 159.8, "library": "numpy", "threads": 2, "size": 2048, "all": {"numpy": 159.8}}


MEMORY = {"gigabytes_per_second": 20.0, "threads": 2, "mebibytes": 128, "all": {"copy": 18.0, "triad": 20.0}}


def hasten(patch):
    """One thread, few and short trials, no ceiling: what is tested is not speed."""
    patch.setattr(measure, "TRIAL_STEPS", (2, 4))
    patch.setattr(measure, "TRIALS", 1)
    patch.setattr(measure.machine, "cores", lambda: 1)
    patch.setattr(measure, "measure_ceiling", lambda dtype, threads, **_: {**CEILING, "threads": threads})
    patch.setattr(measure, "measure_memory", lambda threads: {**MEMORY, "threads": threads})


@pytest.fixture
def crew(monkeypatch):
    """Processes for contenders."""
    hasten(monkeypatch)
    with Crew() as processes:
        yield processes


@pytest.fixture
def wrong_module(tmp_path, monkeypatch):
    """A module of contenders that no contender's check must let pass."""
    (tmp_path / "wrong_contenders.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "wrong_contenders"


# ---- the work ----


def test_work_survives_json():
    for work in (TINY, TINY_LAB):
        assert Work.from_dict(json.loads(json.dumps(work.to_dict()))) == work


def test_work_is_the_same_each_time():
    again = replace(TINY, batch_size=TINY.batch_size)
    np.testing.assert_array_equal(again.parameters(), TINY.parameters())
    np.testing.assert_array_equal(again.order(), TINY.order())
    other = replace(TINY, seed=1)
    assert not np.array_equal(other.parameters(), TINY.parameters())
    assert not np.array_equal(other.order(), TINY.order())


def test_order_holds_whole_batches_and_no_sample_twice():
    order = TINY.order()
    assert len(order) == 96
    assert len(set(order.tolist())) == 96


def test_shuffled_samples_are_the_samples_in_order():
    X, Y = TINY.load()
    shuffled_X, shuffled_Y = TINY.load(shuffled=True)
    np.testing.assert_array_equal(shuffled_X, X[TINY.order()])
    np.testing.assert_array_equal(shuffled_Y, Y[TINY.order()])


def test_float64_starts_from_the_same_rounded_weights():
    np.testing.assert_array_equal(TINY.parameters("float64"), _unpadded(TINY))


def _unpadded(work):
    """The float32 weights in the float64 network's layout."""
    network = work.network("float64")
    flat = network.zeros()
    for row, matrix in zip(network.rows(flat), work.matrices(), strict=True):
        row[:] = matrix
    return flat


def test_lab_weights_are_the_labs():
    epsilon = 4 * np.sqrt(6) / np.sqrt(784 + 6)
    expected = epsilon * (2 * np.random.RandomState(123).rand(6, 785) - 1)
    np.testing.assert_array_equal(TINY_LAB.matrices()[0], expected)


def test_made_up_images_are_mostly_background():
    pixels = Work(source="synthetic", samples=500).pixels()
    assert pixels.dtype == np.uint8
    assert 0.7 < np.mean(pixels == 0) < 0.9


def test_shift_and_noise_of_pixels():
    plain = Work(source="synthetic", samples=50)
    pixels = plain.pixels()
    np.testing.assert_allclose(plain.load()[0], pixels / 255, atol=1e-7)
    shifted = replace(plain, shift=-0.5)
    np.testing.assert_allclose(shifted.load()[0], pixels / 255 - 0.5, atol=1e-7)
    noisy = replace(shifted, dense=True).load()[0]
    assert abs(noisy - shifted.load()[0]).max() <= 0.5 / 255 + 1e-6
    assert all(len(np.unique(image)) > 0.99 * 784 for image in noisy)
    assert len(np.unique(shifted.load()[0])) <= 256


def test_bytes_of_a_hand_count():
    # 6 samples of 12 inputs; 7·13 + 4·8 parameters and as many velocities, read and written; 4 bytes each
    assert bytes_touched(TINY) == 4 * (72 + 4 * 123)
    assert bytes_touched(replace(TINY, job="predict")) == 4 * (72 + 123)


def test_operations_of_a_hand_count():
    # forward 6·12·7 + 6·7·4, gradients the same, deltas 6·7·4; each multiply-add is two operations
    assert operations(TINY) == 2 * (2 * (504 + 168) + 168)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 101}, "batch_size=101"),
        ({"job": "rest"}, "job='rest'"),
        ({"source": "mnist"}, "784 inputs"),
        ({"job": "lab"}, "job='lab'"),
        ({"networks": 2}, "networks=2; expected 1, or more with job='many'"),
        ({"shift": 0.5}, "shift=0.5"),
        ({"shift": -0.5}, "without scaled pixels"),
        ({"dense": True}, "without scaled pixels"),
        ({"dtype": "float16"}, "dtype='float16'"),
    ],
)
def test_bad_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


# ---- the contenders ----


def test_thread_counts():
    assert thread_counts(1) == [1]
    assert thread_counts(3) == [1, 2, 3]
    assert thread_counts(12) == [1, 2, 3, 4, 8, 12]


def test_unknown_contender_gets_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'torch-eager'"):
        contender("torch-eagr")


def test_every_contender_of_every_suite_is_known():
    for suite in SUITES.values():
        for _, names in suite.jobs:
            assert set(names) <= set(CONTENDERS)


@pytest.mark.parametrize("name", ["fastmlp-cpu", "fastmlp-cpu-in-order", "fastmlp-numpy", "scikit-learn"])
def test_batches_go_round(name, own_process):
    """More steps than a pass has: contender and oracle come back to the first batch."""
    steps = TINY.batches + 5
    kind = contender(name)(TINY, {"threads": 1})
    kind.prepare(7)
    told = [list(kind.run(7))]
    kind.prepare(steps - 7)
    told.append(list(kind.run(steps - 7)))
    assert measure.largest_difference(told, [7, steps - 7], measure.oracle_losses(TINY, steps)) < 1e-6


@pytest.mark.parametrize("name", [name for name in SUITES["many"].jobs[0][1] if HAS_TORCH or "torch" not in name])
def test_many_networks_have_the_oracles_losses(name, own_process):
    """In whole epochs and otherwise, one call after another."""
    adam = Rule("adam", learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8)
    work = replace(TINY, job="many", networks=3, rule=adam)
    try:
        many = contender(name)(work, contender(name).settings_for(work, 2)[0])
    except Missing as reason:
        pytest.skip(str(reason))
    chunks, told = [work.batches, 7, 2 * work.batches], []
    for steps in chunks:
        many.prepare(steps)
        told.append(many.told(many.run(steps)))
    expected = measure.oracle_losses(work, sum(chunks))
    assert measure.largest_difference(told, chunks, expected) < 1e-5
    assert expected[0] != measure.oracle_losses(replace(work, networks=1), 1)[0]


@needs_torch
@pytest.mark.parametrize("bias", ["apart", "in_weights"])
@pytest.mark.parametrize("weights", ["in_out", "out_in"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sizes": (12, 4)},
        {"sizes": (12, 9, 5, 4), "activation": "tanh", "dtype": "float64"},
        {"loss": "binary_cross_entropy", "activation": "sigmoid"},
        {"loss": "mean_squared_error", "rule": Rule("plain", 0.05)},
    ],
    ids=str,
)
def test_by_hand_is_right_in_every_form(changes, weights, bias, own_process):
    work = replace(TINY, **changes)
    kind = contender("torch-by-hand")(work, {"threads": 1, "weights": weights, "bias": bias})
    kind.prepare(20)
    told = [[float(loss) for loss in kind.run(20)]]
    expected = measure.oracle_losses(work, 20)
    assert measure.largest_difference(told, [20], expected) < measure.TOLERANCE[work.dtype]


PREDICT = replace(TINY, job="predict", batch_size=8)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("fastmlp-predict", None),
        pytest.param("torch-predict", None, marks=needs_torch),
        pytest.param("torch-predict-by-hand", "in_out", marks=needs_torch),
        pytest.param("torch-predict-by-hand", "out_in", marks=needs_torch),
    ],
)
def test_predictors_give_the_outputs_of_the_oracle(name, weights, loss, own_process):
    work = replace(PREDICT, sizes=(12, 7, 5, 4), loss=loss, activation="tanh")
    predictor = contender(name)(work, {"threads": 1, "weights": weights})
    told = []
    for _ in range(2):
        predictor.prepare(1)
        told.append(predictor.told(predictor.run(1)))
    expected = measure.expected_of(work)
    assert expected.shape == (2 * 8 * 4,)
    assert measure.largest_difference(told, [32, 32], expected) < measure.TOLERANCE["float32"]


def test_wrong_outputs_are_refused(crew, wrong_module):
    result = measure.measure_work(PREDICT, ["fastmlp-predict", f"{wrong_module}:WrongOutputs"], crew, rounds=1, steps=2)
    assert set(result["contenders"]) == {"fastmlp-predict"}
    assert "its outputs" in result["refused"][f"{wrong_module}:WrongOutputs"]


@needs_torch
def test_autocast_is_other_arithmetic_and_learns(own_process):
    """It passes its looser check, and float32's not; one that stands still does not pass."""
    work = replace(TINY, batch_size=20)
    expected = measure.oracle_losses(work, 20)
    kind = contender("torch-bf16")

    def difference(rule):
        own = kind(replace(work, rule=rule), {"threads": 1})
        own.prepare(20)
        return measure.largest_difference([own.told(own.run(20))], [20], expected)

    assert measure.TOLERANCE["float32"] < difference(work.rule) < measure.TOLERANCE["bfloat16"]
    assert difference(replace(work.rule, learning_rate=0.0)) > measure.TOLERANCE["bfloat16"]


def test_threads_that_are_not_here_are_missing(crew):
    result = measure.measure_work(TINY, ["fastmlp-threads-1", "fastmlp-threads-16"], crew, rounds=1, steps=2)
    assert list(result["contenders"]) == ["fastmlp-threads-1"]
    assert result["missing"] == {"fastmlp-threads-16": "this machine has 1 core"}


def test_cuda_is_missing_with_its_reason(crew):
    torch_cuda = HAS_TORCH and importlib.import_module("torch").cuda.is_available()
    result = measure.measure_work(TINY, ["fastmlp-cuda", "torch-cuda"], crew, rounds=1, steps=2)
    if HAS_TORCH and not torch_cuda:
        assert result["missing"]["torch-cuda"] == "no CUDA device"
    assert result["refused"] == {}


# ---- equal losses ----


def test_difference_of_losses():
    expected = np.array([4.0, 2.0, 0.5, 0.3])
    assert measure.largest_difference([[4.0, 2.0], [0.5, 0.3]], [2, 2], expected) == 0
    assert measure.largest_difference([[4.4, 2.0], [0.5, 0.3]], [2, 2], expected) == pytest.approx(0.1)
    assert measure.largest_difference([[3.0], [0.4]], [2, 2], expected) == 0  # means alone
    assert measure.largest_difference([[3.0], [0.6]], [2, 2], expected) == pytest.approx(0.2)  # of 1, not of 0.4
    assert measure.largest_difference([[4.0, math.nan], [0.5, 0.3]], [2, 2], expected) == math.inf


def test_wrong_rate_and_broken_contender_are_refused(crew, wrong_module):
    """A learning rate wrong by one per cent is found before any clock starts."""
    names = ["fastmlp-numpy", f"{wrong_module}:WrongRate", f"{wrong_module}:Broken"]
    result = measure.measure_work(TINY, names, crew, rounds=1, steps=2)
    assert set(result["contenders"]) == {"fastmlp-numpy"}
    assert set(result["refused"]) == set(names[1:])
    assert "differ from the oracle's" in result["refused"][names[1]]
    assert "out of order" in result["refused"][names[2]]


def test_missing_contender_has_its_reason(crew):
    result = measure.measure_work(TINY, ["numpy-lab"], crew, rounds=1)
    assert result["missing"] == {"numpy-lab": "does the lab's job alone, with sigmoids"}
    assert result["contenders"] == {}


# ---- processes ----


def test_worker_that_dies_tells_why():
    worker = Worker()
    try:
        with pytest.raises(WorkerDied, match="KeyError"):
            worker.ask("dance")
    finally:
        worker.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc to see a process' state")
def test_idle_worker_is_stopped():
    worker = Worker()
    try:
        worker.ask("start", contender="fastmlp-numpy", work=TINY.to_dict(), settings={"threads": 1})
        state = ""
        for _ in range(1000):  # the signal takes a moment
            state = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                break
        assert state == "T"
        assert worker.ask("losses", chunks=[2])["losses"][0] == pytest.approx(measure.oracle_losses(TINY, 2), rel=1e-5)
    finally:
        worker.close()


class Counting:
    """A contender that notes how many steps it was asked for each time."""

    device_seconds = None

    def __init__(self):
        self.taken = []

    def prepare(self, steps):
        pass

    def run(self, steps):
        self.taken.append(steps)
        time.sleep(0.01)


def test_clock_starts_after_the_run_in():
    host = Host()
    for asked, least, most in (({"warm": 2, "run_in": 0.1}, 2, 10), ({"warm": 2}, 1, 1), ({"warm": 0}, 0, 0)):
        host.contender = Counting()
        begin = time.perf_counter()
        seconds = host.time(steps=5, **asked)["seconds"]
        *before, last = host.contender.taken
        assert (last, set(before)) == (5, {2} if most else set())
        assert least <= len(before) <= most
        assert 0.01 <= seconds <= time.perf_counter() - begin - asked.get("run_in", 0)


def test_turns_and_trials_begin_with_a_run_in():
    asked = []

    class Asked:
        def ask(self, do, **arguments):
            asked.append(arguments.get("run_in", 0.0))
            return {"seconds": 1.0}

    entrant = SimpleNamespace(name="x", settings={}, worker=lambda crew, settings: Asked())
    measure.run_rounds([entrant], None, 2, 5, 1, lambda text: None)
    assert asked == [measure.RUN_IN] * 2
    asked.clear()
    measure.try_steps(Asked(), 100, math.inf)
    assert asked[0] == measure.RUN_IN


# ---- end to end ----


@pytest.fixture(scope="module")
def result():
    """A suite of a tiny training work at two batch sizes and a tiny lab job, measured."""
    names = ("fastmlp-cpu", "fastmlp-numpy", *TORCH)
    suite = Suite(
        "tiny",
        ((TINY, names), (replace(TINY, batch_size=20), names), (TINY_LAB, ("fastmlp-lab", "numpy-lab"))),
        rounds=3,
        target=0.002,
        longest=0.01,
    )
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        measured = measure.measure_suite("tiny", suite, told.append)
    assert len(told) == measure.ticks(suite)
    return measured


def test_everybody_takes_part(result):
    for measurement in result["measurements"]:
        assert measurement["refused"] == {}
        assert measurement["missing"] == {}
        for raw in measurement["contenders"].values():
            assert len(raw["seconds"]) == 3
            assert min(raw["seconds"]) > 0
            assert raw["loss_difference"] < 1e-5


def test_result_says_where_and_how(result):
    machine = result["machine"]
    for key in ("cpu", "cores", "vector_bits", "commit", "date"):
        assert machine[key]
    assert machine["versions"]["numpy"] == np.__version__
    assert set(result["ceilings"]) == {"float32", "float64"}
    first = result["measurements"][0]
    assert first["contenders"]["fastmlp-numpy"]["settings"]["threads"] >= 1
    assert first["steps"] >= 2


def test_figures_are_those_of_the_raw_times(result):
    measurement = {**result["measurements"][0], "steps": 10}
    raw = dict(measurement["contenders"]["fastmlp-cpu"], seconds=[1e-3, 2e-3, 4e-3])
    measurement["contenders"] = {"fastmlp-cpu": raw}
    found = results.figures(result, measurement, "fastmlp-cpu")
    assert found.microseconds == pytest.approx(200)
    assert found.spread == pytest.approx(150)
    assert found.samples_per_second == pytest.approx(TINY.batch_size / 200e-6)
    assert found.gflops == pytest.approx(operations(TINY) / 200e-6 / 1e9)


def test_speed_up_and_its_interval():
    times = results.speed_up([1.0, 1.1, 0.9], [2.0, 2.2, 1.8])
    assert times.ratio == pytest.approx(2)
    assert times.low == pytest.approx(2)  # rounds are drawn whole: what disturbed both cancels
    assert times.high == pytest.approx(2)
    apart = results.speed_up([1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    assert apart.low == pytest.approx(1)
    assert apart.ratio == pytest.approx(2)
    assert apart.high == pytest.approx(4)


def test_ceiling_is_a_rate():
    found = measure_ceiling("float64", 1, size=64)
    assert found["gflops"] == max(found["all"].values()) > 0
    assert found["library"] in found["all"]
    assert "numpy" in found["all"]
    alone = measure_ceiling("float64", 1, size=64, libraries=("numpy", "no_such_library"))
    assert alone["library"] == "numpy"


def test_memory_has_a_rate():
    found = measure_memory(2, mebibytes=4)
    assert set(found["all"]) == {"copy", "triad"}
    assert found["gigabytes_per_second"] == max(found["all"].values()) > 0.1


def test_patience_leaves_settings_untried(crew, monkeypatch):
    monkeypatch.setattr(measure.machine, "cores", lambda: 4)
    result = measure.measure_work(TINY, ["fastmlp-numpy"], crew, rounds=1, steps=2, patience=0.0)
    raw = result["contenders"]["fastmlp-numpy"]
    assert [trial["settings"] for trial in raw["trials"]] == [{"threads": 1}]
    assert raw["untried"] == 3


def test_result_file_comes_back(result, tmp_path):
    path = tmp_path / "new" / "r.json"
    results.save(result, path)
    assert results.load(path) == json.loads(json.dumps(result))
    assert os.listdir(path.parent) == ["r.json"]


def test_older_result_files_are_read():
    """Of format 1, which did not tell the shift: the lab's, for works on pixels."""
    result = results.of_format_2({"format": 1, "measurements": [{"work": {"job": "train", "sizes": [784, 100, 10]}}]})
    assert result["measurements"][0]["work"]["shift"] == -0.5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}'])
def test_other_files_are_no_results(text, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="no result file"):
        results.load(path)


def test_terminal_tables(result, capsys):
    command.report(command.Console(width=110), result)
    shown = capsys.readouterr().out
    for word in ("fastmlp-cpu", "fastmlp-numpy", "numpy-lab", "GFLOP/s", *TORCH):
        assert word in shown


# ---- the command ----


def bench(*arguments):
    return main(["bench", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "quik"], "did you mean 'quick'"),
        (["--quick", "--suite", "lab"], "--quick"),
        (["--contenders", "nobody"], "'nobody'"),
        (["--contenders", "no_such_module:Class"], "no_such_module"),
        (["--batch-sizes", "7"], "leaves nothing"),
        (["--batch-sizes", "many"], "expected numbers"),
        (["--rounds", "0"], "--rounds"),
        (["--out", "."], "is a folder"),
    ],
)
def test_command_refuses_what_it_does_not_know(arguments, message, capsys):
    assert bench(*arguments) == MISTAKE
    assert message in capsys.readouterr().err


def test_command_end_to_end(tmp_path, monkeypatch, capsys):
    """Without MNIST it measures with made-up images, and says so."""
    hasten(monkeypatch)
    monkeypatch.setattr(command, "mnist_is_here", lambda: False)
    tiny = Suite("tiny", ((Work((784, 5, 10), 50, samples=100), ("fastmlp-cpu", "torch-eager")),), target=0.001)
    monkeypatch.setitem(SUITES, "quick", tiny)
    out, plots = tmp_path / "new" / "r.json", tmp_path / "pictures"
    arguments = ["--contenders", "fastmlp-cpu,fastmlp-numpy", "--rounds", "1"]
    assert bench("--quick", *arguments, "--out", str(out), "--plots", str(plots)) == OK
    shown = capsys.readouterr()
    assert "made-up images" in shown.err
    assert "speed-up over fastmlp-numpy" in shown.out
    measured = results.load(out)["measurements"][0]
    assert list(measured["contenders"]) == ["fastmlp-cpu", "fastmlp-numpy"]
    assert measured["work"]["source"] == "synthetic"
    assert measured["rounds"] == 1
    assert "r-throughput.png" in os.listdir(plots)


def test_command_fails_where_a_contender_is_refused(monkeypatch, wrong_module, capsys):
    hasten(monkeypatch)
    monkeypatch.setitem(SUITES, "quick", Suite("tiny", ((TINY, (f"{wrong_module}:WrongRate",)),), rounds=1))
    assert bench("--quick") == command.REFUSED
    assert "REFUSED" in capsys.readouterr().out


def test_missing_rivals_are_named_and_the_rest_runs(tmp_path, monkeypatch, capsys):
    """In processes that can't import them."""
    for name in ("torch", "jax"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.syspath_prepend(tmp_path)
    hasten(monkeypatch)
    suite = Suite("tiny", ((TINY, ("fastmlp-cpu", "torch-eager", "jax")),), rounds=1, target=0.001)
    monkeypatch.setitem(SUITES, "quick", suite)
    assert bench("--quick") == OK
    shown = capsys.readouterr().out
    assert "missing: torch-eager: PyTorch is not installed (hidden); pip install 'fastmlp[bench]'" in shown
    assert "missing: jax: JAX is not installed (hidden); pip install 'fastmlp[bench]'" in shown
    assert "fastmlp-cpu" in shown


def test_nothing_but_missing_contenders_is_a_mistake(monkeypatch, capsys):
    hasten(monkeypatch)
    monkeypatch.setitem(SUITES, "quick", Suite("tiny", ((TINY, ("numpy-lab",)),), rounds=1))
    assert bench("--quick") == MISTAKE
    assert "lab's job alone" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_run_cut_short_keeps_what_was_measured(tmp_path, monkeypatch, capsys, error):
    hasten(monkeypatch)
    second = replace(TINY, batch_size=20)
    whole = measure.measure_work

    def until_second(work, *arguments, **keywords):
        if work == second:
            raise error
        return whole(work, *arguments, **keywords)

    monkeypatch.setattr(measure, "measure_work", until_second)
    suite = Suite("tiny", ((TINY, ("fastmlp-numpy",)), (second, ("fastmlp-numpy",))), rounds=1, target=0.001)
    monkeypatch.setitem(SUITES, "quick", suite)
    out = tmp_path / "r.json"
    code, words = (command.INTERRUPTED, "interrupted") if error is KeyboardInterrupt else (1, "not enough memory")
    assert bench("--quick", "--out", str(out)) == code
    assert words in capsys.readouterr().err
    kept = results.load(out)
    assert kept["interrupted"]
    assert len(kept["measurements"]) == 1


def test_list_names_suites_and_contenders(capsys):
    assert bench("--list") == OK
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*SUITES, *CONTENDERS))


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "fastmlp.bench", "--list"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in SUITES)


# ---- the README's table ----


def fake(ours, theirs, family="PyTorch"):
    """A result with one work and made-up times."""

    def raw(label, family, seconds):
        return {"label": label, "family": family, "dtype": "float32", "settings": {"threads": 1}, "seconds": seconds}

    return {
        "format": results.FORMAT,
        "suite": "fake",
        "summary": "made-up times",
        "interrupted": False,
        "memory": None,
        "machine": {
            "cpu": "an abacus",
            "cores": 2,
            "vector_bits": 128,
            "versions": {"python": "3"},
            "date": "2024-06-07",
            "commit": "abc",
        },
        "ceilings": {"float32": CEILING},
        "measurements": [
            {
                "work": Work(shift=-0.5).to_dict(),
                "rounds": 3,
                "steps": 100,
                "contenders": {
                    "fastmlp-cpu": raw("fastmlp", "fastmlp", ours),
                    "torch-eager": raw("PyTorch eager", family, theirs),
                },
                "missing": {"jax": "JAX is not installed"},
                "refused": {},
            }
        ],
    }


def test_table_holds_the_figures():
    table = tables.markdown([fake([2e-3] * 3, [5e-3] * 3)])
    assert "| 5 | 20 | 250,000 | 50% | 2.5 × |" in table
    assert "Training, [784, 100, 10], relu, momentum, float32, MNIST, pixels -0.5 … 0.5, 60,000 samples:" in table
    assert "an abacus, 2 cores" in table
    assert "jax: JAX is not installed" in table


def test_the_terminal_and_the_page_say_the_same_speed_up(capsys):
    """Of PyTorch's time over fastmlp's: the higher, the faster, in both, and both say so."""
    result = fake([2e-3] * 3, [5e-3] * 3)
    command.report(command.Console(width=160), result)
    shown = capsys.readouterr().out
    assert "speed-up over torch-eager: its time, divided by the row's" in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.split()}
    assert rows["fastmlp-cpu"][-2:] == ["2.5", "(2.5–2.5)"]
    assert rows["torch-eager"][-1] == "20%"  # the baseline itself has none
    page = tables.markdown([result])
    assert "speed-up over PyTorch |" in page
    assert "| 2.5 × |" in page
    assert "the rival's time divided by fastmlp's" in page


@pytest.mark.parametrize(
    ("family", "names", "baseline"),
    [
        ("JAX", ["fastmlp-cpu", "torch-eager"], "torch-eager"),
        ("PyTorch", ["fastmlp-cpu"], "fastmlp-cpu"),
        ("PyTorch", ["torch-eager"], "torch-eager"),
        ("PyTorch", [], None),
    ],
)
def test_the_baseline_is_the_first_rival_that_is_there(family, names, baseline):
    (measurement,) = fake([2e-3] * 3, [5e-3] * 3, family)["measurements"]
    measurement["contenders"] = {name: measurement["contenders"][name] for name in names}
    assert tables.baseline_of(measurement) == baseline


def test_table_says_where_a_rival_wins():
    assert "**0.5 ×** (rival faster)" in tables.markdown([fake([4e-3] * 3, [2e-3] * 3)])


def test_table_says_how_it_is_with_samples_in_order():
    result = fake([4e-3] * 3, [2e-3] * 3)
    contenders = result["measurements"][0]["contenders"]
    contenders["fastmlp-cpu-in-order"] = {
        **contenders["fastmlp-cpu"],
        "family": contender("fastmlp-cpu-in-order").family,
        "seconds": [1e-3] * 3,
    }
    table = tables.markdown([result])
    assert (
        "| batch | µs a step | samples a second | of ceiling | µs with samples in order | speed-up over PyTorch |"
        in table
    )
    assert "| 5 | 40 | 125,000 | 25% | 10 | **0.5 ×** (rival faster; in order 2 ×) |" in table
    assert "fastmlp gathers its own from anywhere" in table


@pytest.fixture
def narrower(monkeypatch):
    """The products of `products` on layers of 300 units, which are quickly done."""
    monkeypatch.setattr(products, "SIDE", 300)


def test_products_are_those_of_the_library(narrower, own_process):
    result = products.measure(["float32"], rounds=2)
    assert [row["product"] for row in result["products"]] == 2 * list(products.PRODUCTS)
    table = tables.markdown([result])
    for row in result["products"]:
        assert {"ours", "numpy"} <= set(row["gflops"])
        assert all(rate > 0 for rate in row["gflops"].values())
        assert f"| {row['product']}, {row['samples']} samples, float32 | {row['gflops']['ours']:.0f} |" in table


@pytest.mark.parametrize("product", range(len(products.PRODUCTS)), ids=products.PRODUCTS)
def test_a_wrong_product_is_not_timed(product, narrower, monkeypatch):
    layer = products.Layer("float32", 64)
    monkeypatch.setattr(products, "ours", lambda *arguments: None)
    with pytest.raises(RuntimeError, match=f"{products.PRODUCTS[product]}, 64 samples, float32"):
        layer.check(product)


def test_a_gradient_stored_is_not_one_added(narrower, monkeypatch):
    layer, ours = products.Layer("float32", 64), products.ours
    other = {products.GRADIENT: products.GRADIENT_ADDED, products.GRADIENT_ADDED: products.GRADIENT}
    monkeypatch.setattr(products, "ours", lambda product, *arguments: ours(other[product], *arguments))
    for product in other:
        with pytest.raises(RuntimeError, match=products.PRODUCTS[product]):
            layer.check(product)


def test_products_as_a_command(narrower, monkeypatch, tmp_path, capsys, own_process):
    monkeypatch.setattr(products, "DTYPES", ["float32"])
    out = tmp_path / "products.json"
    assert products.main(["--rounds", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == tables.products_table(results.load(out))
    with pytest.raises(SystemExit):
        products.main(["--rounds", "0"])
    assert "--rounds=0; expected 1 at least" in capsys.readouterr().err


def test_table_of_a_measured_result(result):
    table = tables.markdown([result])
    assert "| 6 |" in table
    assert "| 20 |" in table
    assert "lab's full-batch job" in table
    assert all(line.count("|") == table.splitlines()[2].count("|") for line in table.splitlines()[2:6])


@pytest.fixture
def pages(tmp_path):
    """A checkout with both pages, their tables stale, and one result file for each."""
    for page, (name, *_) in tables.PAGES.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(f"before\n{tables.BEGIN}\nstale\n{tables.END}\nafter\n")
        results.save(fake([2e-3] * 3, [5e-3] * 3), tmp_path / "bench" / "results" / f"{name}.json")
    return tmp_path


def test_pages_are_rewritten_and_checked(pages, capsys):
    root = ["--root", str(pages)]
    assert tables.main([*root, "--check"]) == 1
    assert tables.main(root) == 0
    assert tables.main([*root, "--check"]) == 0
    for page in tables.PAGES:
        text = (pages / page).read_text()
        assert text.startswith(f"before\n{tables.BEGIN}\n")
        assert text.endswith(f"{tables.END}\nafter\n")
        assert "stale" not in text
        assert "2.5 ×" in text
    results.save(fake([1e-3] * 3, [5e-3] * 3), pages / "bench" / "results" / "headline.json")
    capsys.readouterr()
    assert tables.main([*root, "--check"]) == 1
    assert capsys.readouterr().err.startswith("README.md: ")
    assert sorted(os.listdir(pages)) == ["README.md", "bench"]


@pytest.mark.parametrize("text", ["nothing", tables.BEGIN, tables.END + tables.BEGIN, 2 * (tables.BEGIN + tables.END)])
def test_page_without_its_marks_is_left_alone(text, pages, capsys):
    (pages / "README.md").write_text(text)
    assert tables.main(["--root", str(pages)]) == 2
    assert (pages / "README.md").read_text() == text
    assert tables.BEGIN in capsys.readouterr().err


def test_committed_pages_are_those_of_the_committed_results(capsys):
    """README.md and bench/RESULTS.md hold what the files in bench/results give."""
    assert tables.main(["--root", str(ROOT), "--check"]) == 0, capsys.readouterr().err


def test_every_page_shows_suites():
    shown = [name for names in tables.PAGES.values() for name in names]
    assert set(shown) <= {*SUITES, *command.FITS, command.ACCURACY, gpu_steps.ACCURACY, gpu.RECORD, products.NAME}
    assert len(shown) == len(set(shown))


def test_table_of_predictions():
    result = fake([2e-3] * 3, [5e-3] * 3)
    result["measurements"][0]["work"]["job"] = "predict"
    table = tables.markdown([result])
    assert "Prediction, [784, 100, 10], relu, float32, MNIST" in table
    assert "µs a call" in table
    assert "the same outputs" in table


def test_table_of_threads():
    result = fake([2e-3] * 3, [5e-3] * 3)
    contenders = result["measurements"][0]["contenders"]
    raw = contenders["fastmlp-cpu"]
    contenders["fastmlp-threads-1"] = {**raw, "family": "fastmlp, threads given", "seconds": [3e-3] * 3}
    contenders["fastmlp-threads-2"] = {**raw, "family": "fastmlp, threads given", "seconds": [2e-3] * 3}
    table = tables.markdown([result])
    assert "| network, batch | µs a step, 1 thread | 2 threads | its own choice |" in table
    assert "| [784, 100, 10], 5 | 30 | 1.5 × | 1.5 × |" in table


# ---- time to accuracy ----


def fake_accuracy():
    """Made-up times to accuracy: fastmlp gets to 98 % in 3, 4 and 9 seconds; PyTorch with one seed of three."""

    def run(seed, seconds, top):
        return {
            "seed": seed,
            "curve": [
                {"seconds": seconds / 2, "epoch": 1, "accuracy": 0.975},
                {"seconds": seconds, "epoch": 2, "accuracy": top},
            ],
        }

    def program(label, *runs):
        return {"label": label, "title": "batch 32", "runs": list(runs)}

    ours = program("fastmlp", run(0, 9, 0.985), run(1, 4, 0.985), run(2, 3, 0.985))
    theirs = program("PyTorch, data in memory", run(0, 20, 0.985), run(1, 30, 0.978), run(2, 40, 0.979))
    accuracy = {
        "sizes": [784, 100, 10],
        "targets": [0.97, 0.98],
        "programs": {"fastmlp": ours, "torch-preloaded": theirs},
        "missing": {"jax": "it is not installed"},
    }
    return {**fake([1.0], [1.0]), "measurements": [], "ceilings": {}, "accuracy": accuracy}


def test_medians_count_runs_that_did_not_get_there():
    ours, theirs = fake_accuracy()["accuracy"]["programs"].values()
    assert [time_to_accuracy.median_seconds(ours, target) for target in (0.97, 0.98)] == [2, 4]
    assert time_to_accuracy.median_seconds(theirs, 0.97) == 15
    assert time_to_accuracy.median_seconds(theirs, 0.98) == math.inf


def test_table_of_times_to_accuracy(capsys):
    table = tables.markdown([fake_accuracy()])
    assert "| fastmlp | 2 (1.5–4.5) | 4 (3–9) | batch 32 |" in table
    assert "| PyTorch, data in memory | 15 (10–20) | not by 2 of 3 seeds | batch 32 |" in table
    assert "jax: it is not installed" in table
    command.report(command.Console(width=110), fake_accuracy())
    shown = capsys.readouterr().out
    assert "not by 2 of 3 seeds" in shown
    assert "missing: jax: it is not installed" in shown


def test_learning_rate_falls_to_zero():
    settings = time_to_accuracy.Settings(32, 0.4, 4)
    assert accuracy_programs.rates(asdict(settings)) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert accuracy_programs.rates(asdict(replace(settings, decline=False))) == [0.4] * 4
    assert "0.4 falling to 0 over 4 epochs" in settings.title


HAS_JAX = importlib.util.find_spec("jax") is not None
HAS_TORCHVISION = HAS_TORCH and importlib.util.find_spec("torchvision") is not None


@pytest.mark.parametrize(
    "name",
    [
        "fastmlp",
        pytest.param("jax", marks=pytest.mark.skipif(not HAS_JAX, reason="JAX is not installed")),
        *(
            pytest.param(name, marks=pytest.mark.skipif(not HAS_TORCHVISION, reason="torchvision is not installed"))
            for name in ("torch-preloaded", "torch-dataloader")
        ),
    ],
)
def test_programs_learn(name, little_mnist, own_process):
    """Each of them, in this process, gets to 97 % of easy images; and the same seed gives the same run."""
    program = accuracy_programs.PROGRAMS[name][2]
    settings = asdict(time_to_accuracy.Settings(20, 0.02, 4, threads=1))
    tests = list(program(settings, 3, str(little_mnist)))
    assert len(tests) == 4
    assert tests[-1] > 0.97
    assert list(program(settings, 3, str(little_mnist))) == tests


def test_time_to_accuracy_end_to_end(little_mnist, monkeypatch, capsys):
    """From the command, with a program whose library is missing."""
    hidden = little_mnist / "path"
    hidden.mkdir()
    (hidden / "jax.py").write_text("raise ImportError(\"No module named 'jax'\")\n")
    monkeypatch.syspath_prepend(hidden)
    monkeypatch.setitem(time_to_accuracy.SETTINGS, "fastmlp", time_to_accuracy.Settings(50, 0.002, 40))
    out, folder = little_mnist / "r.json", little_mnist / "pictures"
    monkeypatch.setattr(time_to_accuracy, "SEEDS", 2)
    arguments = ["--suite", "accuracy", "--contenders", "fastmlp,jax"]
    assert bench(*arguments, "--out", str(out), "--plots", str(folder)) == OK
    shown = capsys.readouterr().out
    assert "missing: jax: ImportError: No module named 'jax'; pip install 'fastmlp[bench]'" in shown
    accuracy = results.load(out)["accuracy"]
    runs = accuracy["programs"]["fastmlp"]["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    for run in runs:
        seconds = [point["seconds"] for point in run["curve"]]
        assert 0 < seconds[0] < seconds[-1] < 60
        assert seconds == sorted(seconds)
        assert run["curve"][-1]["accuracy"] >= 0.98  # it ends there
        assert all(point["accuracy"] < 0.98 for point in run["curve"][:-1])
    assert os.listdir(folder) == ["r-accuracy.png"]


def test_interrupted_times_to_accuracy_are_kept(little_mnist, monkeypatch):
    """Ctrl-C in the second run after one that ended; and a program that fails in the midst goes missing."""
    curves = iter([[], [], [{"seconds": 1.0, "epoch": 1, "accuracy": 0.99}]])

    def run(name, *arguments):
        if name == "jax" and seen.append(name) is None and len(seen) > 1:
            raise time_to_accuracy.Failed("it broke")
        try:
            return next(curves)
        except StopIteration:
            raise KeyboardInterrupt from None

    seen: list[str] = []
    monkeypatch.setattr(time_to_accuracy, "run", run)
    result = time_to_accuracy.measure_accuracy(["fastmlp", "jax"], 3)
    assert result["interrupted"]
    assert list(result["accuracy"]["programs"]) == ["fastmlp"]
    assert len(result["accuracy"]["programs"]["fastmlp"]["runs"]) == 1
    assert result["accuracy"]["missing"] == {"jax": "with seed 0: it broke"}


def test_accuracy_refuses_what_it_can_not_do(capsys, monkeypatch, tmp_path):
    assert bench("--suite", "accuracy", "--batch-sizes", "5") == MISTAKE
    assert bench("--suite", "accuracy", "--contenders", "torch-eager") == MISTAKE
    assert "'torch-eager'" in capsys.readouterr().err


# ---- pictures ----


def test_throughput_picture(result):
    figure = plots.throughput_figure(result)
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    _, labels = axes.get_legend_handles_labels()
    assert labels[:2] == ["fastmlp", "NumPy oracle"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [6, 20])
    assert axes.get_xlabel() == "batch size"
    assert axes.get_ylabel() == "samples a second"


def test_speed_up_picture(result):
    figure = plots.speed_up_figure(result)
    (axes,) = figure.axes
    rivals = 1 + len(TORCH)
    assert len(axes.patches) == 2 * rivals
    ours, theirs = (result["measurements"][0]["contenders"][n]["seconds"] for n in ("fastmlp-cpu", "fastmlp-numpy"))
    times = np.median(theirs) / np.median(ours)
    bar = axes.patches[0].get_path().get_extents(axes.patches[0].get_patch_transform())
    assert [bar.ymin, bar.ymax] == pytest.approx(sorted([1, times]))


def test_roofline(result):
    figure = plots.roofline_figure(result)
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines)[:2] == ["matrix product: 160 GFLOP/s", "memory: 20 GB/s"]
    x, y = lines["memory: 20 GB/s"].get_data()
    np.testing.assert_allclose(y, 20 * np.asarray(x))
    assert y[-1] == pytest.approx(159.8)  # the roofs meet
    works = [TINY, replace(TINY, batch_size=20)]
    np.testing.assert_allclose(lines["fastmlp"].get_xdata(), [operations(work) / bytes_touched(work) for work in works])
    with pytest.raises(ValueError, match="no measured roofs"):
        plots.roofline_figure({**result, "memory": None})


def test_accuracy_picture():
    figure = plots.accuracy_figure(fake_accuracy())
    (axes,) = figure.axes
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["fastmlp", "PyTorch, data in memory"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [2, 4])  # seed 1, the one in the middle
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [97.5, 98.5])
    assert axes.get_ylabel() == "test accuracy (%)"


def test_pictures_are_written(result, tmp_path, capsys):
    path = tmp_path / "r.json"
    results.save(result, path)
    assert plots.main([str(path), "--out", str(tmp_path / "pictures")]) == 0
    assert sorted(os.listdir(tmp_path / "pictures")) == ["r-roofline.png", "r-speed-up.png", "r-throughput.png"]
    results.save({**result, "measurements": []}, path)
    assert plots.main([str(path)]) == 2
    assert "no training work" in capsys.readouterr().err
    assert plots.main([str(tmp_path / "nothing.json")]) == 2
