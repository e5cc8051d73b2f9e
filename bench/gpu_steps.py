"""What the steps of `fastmlp.bench.gpu` do, each in a process of its own: ``python -m fastmlp.bench.gpu_steps NAME …``.

Whatever goes wrong ends the process with its whole traceback. What is measured is written after each work.
"""

import importlib
import json
import logging
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fastmlp import kernels
from fastmlp.bench import machine, results, time_to_accuracy
from fastmlp.bench.contenders import CONTENDERS
from fastmlp.bench.measure import TOLERANCE, measure_suite
from fastmlp.bench.results import speed_up
from fastmlp.bench.suites import SUITES, with_source
from fastmlp.bench.work import LAB_SHIFT, LEVELS, MOMENTUM, Work, mnist_is_here
from fastmlp.bench.worker import die_with_parent
from fastmlp.kernels import Rule, reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import plans

__all__ = ["ACCURACY", "NO_GPU", "OURS", "SMALL", "aims_of", "best_rival", "to_compile"]

NO_GPU = 3  #: the exit code of `start` where there is none
ACCURACY = "gpu-accuracy"
OURS, NETWORK = "fastmlp-cuda", (784, 100, 10)
SEEDS = 3  #: of the times to accuracy
PROFILED_STEPS = 100  #: of an epoch under the profiler, which plays it over and over
LAYOUTS = 6  #: that are tried of each kind

#: What fastmlp is to reach on `NETWORK`: batch size -> times the best rival; and seconds of an epoch of MNIST.
AIMS = {1: 8.0, 5: 8.0, 10: 8.0, 32: 5.0, 128: 3.0, 10_000: 1.0}
EPOCH_BATCH, EPOCH_SECONDS = 5, 0.060

#: All trained alike, as for a CPU: see `fastmlp.bench.time_to_accuracy.SETTINGS`.
PROGRAMS = dict.fromkeys(("fastmlp-cuda", "jax-cuda", "torch-cuda"), time_to_accuracy.SETTINGS["fastmlp"])


# --------------------------------------------------------------------------------------- 1: versions and a small kernel
def start() -> int:
    """Tell versions, import the backend, and predict with one small network."""
    print(", ".join(f"{package} {version}" for package, version in machine.versions().items()), flush=True)
    card = machine.graphics_card()
    print(f"commit {machine.commit()}; {card or 'nvidia-smi tells of no GPU'}", flush=True)
    reason = kernels.available()["cuda"]
    if reason is not None:
        try:
            importlib.import_module("fastmlp.kernels.cuda.calls")
        except Exception:
            traceback.print_exc()  # all of it, where the reason has the last line
        print(f"nothing can be run on a GPU here: {reason}", flush=True)
        return 1 if card else NO_GPU
    backend = kernels.backend("cuda")
    work = Work((12, 7, 4), 6, source="synthetic", samples=20)
    X, _ = work.load()
    expected = reference.predict(work.network("float64"), work.parameters("float64"), X)
    difference = np.abs(backend.predict(work.network(), work.parameters(), X) - expected).max()
    print(f"{'; '.join(backend.describe().values())}\na prediction differs from NumPy's by {difference:.1e}")  # type: ignore[attr-defined]
    return int(not difference <= TOLERANCE[work.dtype])


# ----------------------------------------------------------------------------------------------- compiling beforehand
def to_compile(suite: str) -> list[Work]:
    """The works whose kernels a step needs."""
    if suite == ACCURACY:
        return [Work(NETWORK, time_to_accuracy.SETTINGS["fastmlp"].batch_size, rule=MOMENTUM)]
    return [work for work, _ in SUITES[suite].jobs]


def compile_one(suite: str, index: str) -> int:
    """Compile what a work of a suite needs, into the cache on disk."""
    begin = time.perf_counter()
    work = to_compile(suite)[int(index)]
    network, pixels = work.network(), suite == ACCURACY
    if pixels:
        network = replace(network, input_scale=1 / LEVELS)
    X = np.zeros((1, work.sizes[0]), np.uint8 if pixels else work.dtype)
    Y = np.zeros(1, np.int32)
    kernels.backend("cuda").prepare_for(network, work.rule, X, Y, work.batch_size)  # type: ignore[attr-defined]
    print(f"{work.title}: {time.perf_counter() - begin:.1f} s")
    return 0


# ------------------------------------------------------------------------------------------ 2: small works, the oracle
def small_works() -> list[tuple[Work, bool]]:
    """Works of some dozen samples for each kernel: each with whether its samples are bytes.

    One hidden layer and few samples a batch are for the persistent kernel, all others for the tiled one. With either
    every rule meets both dtypes; activations, losses and bytes take turns. The headline's network comes first.
    """
    persistent = ((NETWORK, 5), ((12, 7, 4), 6), ((100, 40, 3), 16), (NETWORK, 1), ((20, 50, 1), 10))
    tiled = (((784, 256, 128, 10), 5), ((64, 32, 10), 128), ((100, 1), 8), (NETWORK, 1000), ((70, 60, 50, 10), 300))
    # Adam's step has the sign of a gradient that is all rounding, unless epsilon is above rounding; and in float32
    # little is left of 1 - 0.999.
    adam = Rule("adam", 0.01, beta2=0.99, epsilon=1e-3)
    rules = (Rule("momentum", 0.1, momentum=0.9), Rule("plain", 0.2), Rule("nesterov", 0.1, momentum=0.9), adam)
    losses = ("cross_entropy", "mean_squared_error", "binary_cross_entropy")
    found = [(few(NETWORK, size, rule=rules[0]), False) for size in (5, 128)]
    for shapes in (persistent, tiled):
        kinds = [(rule, dtype) for dtype in ("float32", "float64") for rule in rules]
        choices = zip(kinds, cycle(shapes), cycle(ACTIVATIONS), cycle(losses), strict=False)
        for number, ((rule, dtype), shape, activation, loss) in enumerate(islice(choices, len(kinds))):
            work = few(*shape, dtype=dtype, activation=activation, loss=loss, rule=rule)
            found.append((work, work.has_pixels and number % 2 == 1))
    return found


def few(sizes: tuple[int, ...], batch_size: int, **changes: Any) -> Work:
    """A work of two batches, and a third that is short."""
    return Work(sizes, batch_size, source="synthetic", samples=2 * batch_size + 3, **changes)


SMALL = small_works()


def small(index: str, backend: str = "cuda") -> int:
    """Train a small work for two epochs of two batches and a shorter third, and compare all with NumPy in float64.

    Every second one has a penalty on its weights.
    """
    (work, pixels), penalty = SMALL[int(index)], 0.1 * (int(index) % 2)
    X, Y = (work.pixels(), work.load()[1]) if pixels else work.load()
    start = np.concatenate([row.ravel() for row in work.matrices("float64")])
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(X)) for _ in range(2)]
    found = []
    for who, dtype in ((kernels.backend(backend), work.dtype), (reference, "float64")):
        network = replace(work.network(dtype), l2=penalty)
        if pixels:
            network = replace(network, input_scale=1 / LEVELS, input_shift=LAB_SHIFT)
        parameters, state = work.parameters(dtype), network.state(work.rule)
        targets = Y if Y.ndim == 1 else Y.astype(dtype)
        losses = [
            who.train_epoch(network, work.rule, parameters, state, X, targets, order, work.batch_size)
            for order in orders
        ]
        outputs = who.predict(network, parameters, X[:50])
        moved = np.concatenate([row.ravel() for row in network.rows(parameters)]) - start
        found.append({"losses": np.concatenate(losses), "outputs": outputs, "weights": moved})
    ours, expected = found
    # Weights by how far they have moved: what they were tells nothing of the steps.
    off = {name: float(np.abs(ours[name] - y).max() / np.abs(y).max()) for name, y in expected.items()}
    right = all(value <= TOLERANCE[work.dtype] for value in off.values())
    differ = ", ".join(f"{name} differ by {value:.1e}" for name, value in off.items())
    print(
        f"{'right' if right else 'WRONG'}: {describe(work)}{', uint8' * pixels}{', penalty' * (penalty > 0)}: {differ}"
    )
    return int(not right)


def describe(work: Work) -> str:
    """A small work in a line."""
    return f"{work.title}, {work.rule.kind}, {work.loss}"


# --------------------------------------------------------------------------------------------- 3 and 5: against others
def measure(name: str, folder: str) -> int:
    """Measure a suite's works one by one, and write the result after each."""
    suite = SUITES[name]
    if not mnist_is_here():
        print("MNIST is not here: measuring with made-up images of the same shape and share of zeros")
        suite = with_source(suite, "synthetic")

    def save(result: dict[str, Any]) -> None:
        results.save({**result, "aims": aims_of(result)}, Path(folder, f"{name}.json"))

    def keep(result: dict[str, Any]) -> None:
        save(result)
        print(in_words(result["measurements"][-1]), flush=True)

    result = measure_suite(name, suite, keep=keep)
    save(result)
    return int(bool(problems(result)))


def in_words(measurement: dict[str, Any]) -> str:
    """A measurement in a line: everybody's microseconds a step, and who does not take part."""
    told = [f"{name} {microseconds(measurement, name):.2f}" for name in measurement["contenders"]]
    told += [f"{kind}: {name}: {why}" for kind in ("missing", "refused") for name, why in measurement[kind].items()]
    return f"{Work.from_dict(measurement['work']).title}: {'; '.join(told)}"


def problems(result: dict[str, Any]) -> list[str]:
    """What went wrong: contenders that were refused, and ours where it is missing."""
    found: Counter[str] = Counter()
    for measurement in result["measurements"]:
        found.update(f"{name}: {why}" for name, why in measurement["refused"].items())
        found.update(f"{name}: {why}" for name, why in measurement["missing"].items() if name == OURS)
    return [f"{what} ({count} works)" for what, count in found.items()]


def microseconds(measurement: dict[str, Any], name: str) -> float:
    """Of a contender's step, the median over rounds."""
    return statistics.median(measurement["contenders"][name]["seconds"]) / measurement["steps"] * 1e6


def best_rival(measurement: dict[str, Any]) -> str | None:
    """The fastest that computes in the work's own dtype and is not ours."""
    contenders, dtype = measurement["contenders"], measurement["work"]["dtype"]
    rivals = [n for n, raw in contenders.items() if raw["dtype"] == dtype and not raw["family"].startswith("fastmlp")]
    return min(rivals, key=lambda name: microseconds(measurement, name), default=None)


def aims_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached on `NETWORK`, what was, and whether that is enough: a dict an aim."""
    found: list[dict[str, Any]] = []
    for measurement in result["measurements"]:
        work, rival = Work.from_dict(measurement["work"]), best_rival(measurement)
        contenders = measurement["contenders"]
        if work.sizes != NETWORK or OURS not in contenders:
            continue
        if work.batch_size in AIMS and rival is not None:
            wanted = AIMS[work.batch_size]
            reached = speed_up(contenders[OURS]["seconds"], contenders[rival]["seconds"]).ratio
            found.append({"what": f"batch {work.batch_size:,}: times {rival}", "wanted": wanted, "below": False})
            found[-1] |= {"reached": reached, "enough": reached >= wanted}
        if work.batch_size == EPOCH_BATCH:
            reached = microseconds(measurement, OURS) * 1e-6 * work.batches
            found.append({"what": f"seconds an epoch at batch {EPOCH_BATCH}", "wanted": EPOCH_SECONDS, "below": True})
            found[-1] |= {"reached": reached, "enough": reached <= EPOCH_SECONDS}
    return found


# --------------------------------------------------------------------------------------------------------- 7: accuracy
def accuracy(folder: str) -> int:
    """Measure the times to accuracy, and write the result after each run."""
    gpu = machine.graphics_card() or {"name": "a GPU", "driver": "unknown"}

    def keep(result: dict[str, Any]) -> None:
        result = {**result, "suite": ACCURACY, "machine": {**result["machine"], "gpu": gpu}}
        results.save(result, Path(folder, f"{ACCURACY}.json"))

    result = time_to_accuracy.measure_accuracy(
        list(PROGRAMS), SEEDS, PROGRAMS, lambda text: print(text, flush=True), keep
    )
    keep(result)
    found = result["accuracy"]
    for name, program in found["programs"].items():
        times = [
            f"{time_to_accuracy.median_seconds(program, target):.2f} s to {target:.0%}" for target in found["targets"]
        ]
        print(f"{name}: {', '.join(times)}")
    print(json.dumps(found["missing"]))
    return int(OURS in found["missing"])


# ---------------------------------------------------------------------------------------------------------- 8: profile
def epochs(index: str) -> int:
    """Two epochs of few steps of a work of the suite "gpu": the second is what a profiler looks at."""
    work = SUITES["gpu"].jobs[int(index)][0]
    contender = CONTENDERS[OURS](work if mnist_is_here() else replace(work, source="synthetic"), {"threads": None})
    for _ in range(2):
        contender.prepare(min(work.batches, PROFILED_STEPS))
        contender.run(min(work.batches, PROFILED_STEPS))
    return 0


# --------------------------------------------------------------------------------------------------- 9: other layouts
def layout(index: str, place: str, folder: str) -> int:
    """Compile a work of the suite "gpu" with the layout that the rule ranks at this place, and time it; one at a time.

    A tiled kernel's places are those of the tile of its forward products, then, from `LAYOUTS` on, of its gradients.
    """
    import fcntl  # which not every system has

    suite, n = SUITES["gpu"], int(place)
    work, found = suite.jobs[int(index)][0], dict[str, Any]()
    rank_layouts, rank_tiles = plans.best_layouts, plans.best_tiles

    def best_layouts(*given: Any) -> list[dict[str, int]]:
        found.update(rank_layouts(*given)[n])
        return [found]

    def best_tiles(products: Any, dtype: str, gpu: Any, splits: tuple[int, ...]) -> list[Any]:
        ranked, first = rank_tiles(products, dtype, gpu, splits), LAYOUTS * (len(splits) > 1)
        chosen = ranked[n - first if first <= n < first + LAYOUTS else 0]
        found["gradients" if first else f"{len(products)} products"] = [*chosen[0], chosen[1]]
        return [chosen]

    with mock.patch.multiple(plans, best_layouts=best_layouts, best_tiles=best_tiles):
        contender = CONTENDERS[OURS](work if mnist_is_here() else replace(work, source="synthetic"), {"threads": None})
        contender.prepare(1)
        contender.run(1)
    with open(Path(folder, "gpu-logs", "turn"), "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert suite.steps is not None
        seconds, steps = [], suite.steps(work)
        for _ in range(4):
            contender.prepare(steps)
            begin = time.perf_counter()
            contender.run(steps)
            seconds.append(time.perf_counter() - begin)
    told = ", ".join(f"{1e6 * s / steps:.2f}" for s in seconds[1:])
    print(f"{work.title}: {told} µs a step at place {n}: {found}")
    return 0


def main(name: str, *arguments: str) -> int:
    """Do a step; returns its exit code."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the whole of what a contender that died has said
    logging.getLogger("numba").setLevel(logging.WARNING)  # which tells of each piece of the GPU's memory
    steps: dict[str, Callable[..., int]] = {
        "start": start,
        "compile": compile_one,
        "small": small,
        "measure": measure,
        "accuracy": accuracy,
        "epochs": epochs,
        "layout": layout,
    }
    return steps[name](*arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
