"""Time to accuracy: seconds from the start of a process to 97 % and 98 % of MNIST's test images.

Everything is inside the clock: the interpreter's start, imports, reading the data, compiling what is not kept on disk,
training, and a test on all 10,000 test images after each epoch. The first test at or above an accuracy counts.
"""

import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.bench import machine, results
from fastmlp.bench.accuracy_programs import PROGRAMS, SIZES
from fastmlp.bench.contender import EXTRA
from fastmlp.bench.processes import environment, python
from fastmlp.bench.worker import package_version

__all__ = ["SEEDS", "SETTINGS", "SUMMARY", "TARGETS", "Settings", "measure_accuracy", "median_seconds", "seconds_to"]

SUMMARY = "seconds from a process' start to 97 % and 98 % of MNIST's test images"
TARGETS = (0.97, 0.98)
SEEDS = 5
LONGEST = 300.0  #: seconds after which a run is ended


@dataclass(frozen=True)
class Settings:
    """How a program trains [784, 100, 10], ReLU, on the cross-entropy with momentum SGD.

    Parameters
    ----------
    batch_size : int
    learning_rate : float
    epochs : int
        After so many it gives up.
    decline : bool, default True
        Whether the learning rate falls linearly, epoch by epoch, to reach zero after the last.
    momentum : float, default 0.9
    shift : float, default 0.0
        Added to pixels of 0 … 1.
    threads : int, optional
        By default the library's own choice.
    """

    batch_size: int
    learning_rate: float
    epochs: int
    decline: bool = True
    momentum: float = 0.9
    shift: float = 0.0
    threads: int | None = None

    @property
    def title(self) -> str:
        """In one line."""
        rate = f"learning rate {self.learning_rate:g}"
        if self.decline:
            rate += f" falling to 0 over {self.epochs} epochs"
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        pixels = f", pixels {self.shift:g} … {1 + self.shift:g}" if self.shift else ""
        return f"batch {self.batch_size}, {rate}, momentum {self.momentum:g}{pixels}{threads}"


#: As `fastmlp.bench.accuracy_tuning` found them: batches of 128 need 8 to 10 epochs to 98 %, of 64 and 32 hardly fewer,
#: and an epoch of them is everybody's quickest; of 256 no setting got there with every seed. "lab" are the lab's own.
SETTINGS = {
    "fastmlp": Settings(128, 0.15, 10),
    "jax": Settings(128, 0.15, 10),
    "torch-preloaded": Settings(128, 0.15, 10, threads=2),
    "torch-dataloader": Settings(128, 0.15, 10, threads=2),
    "lab": Settings(5, 0.001, 5, decline=False, shift=-0.5),
}


@contextmanager
def torchvision_folder() -> Iterator[str]:
    """A folder with MNIST unpacked as torchvision wants it, from wherever fastmlp finds it; all programs read it.

    Raises
    ------
    FileNotFoundError
        If MNIST is not here.
    """
    from fastmlp import data

    mnist = data.mnist(download=False)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for name, images, labels in (
            ("train", mnist.train_images, mnist.train_labels),
            ("t10k", mnist.test_images, mnist.test_labels),
        ):
            write_idx(raw / f"{name}-images-idx3-ubyte", images.reshape(-1, 28, 28))
            write_idx(raw / f"{name}-labels-idx1-ubyte", labels.astype(np.uint8))
        yield folder


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes as an IDX file."""
    shape = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())


class Failed(RuntimeError):
    """A program ended with an error; the message is the last line that it wrote."""


def run(name: str, settings: Settings, seed: int, folder: str, enough: float) -> list[dict[str, float]]:
    """Run a program: after each epoch the seconds since its start, the epoch and the test accuracy.

    Raises
    ------
    Failed
        If it ended with an error.
    """
    asked = {"program": name, "settings": asdict(settings), "seed": seed, "folder": folder, "enough": enough}
    curve = []
    with tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            python("accuracy_programs"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.close()
            for line in process.stdout:
                seconds = time.perf_counter() - begin
                curve.append({"seconds": round(seconds, 4), **json.loads(line)})
                if seconds > LONGEST:
                    process.kill()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code > 0:
            errors.seek(0)
            raise Failed((errors.read().strip().splitlines() or [f"exit code {code}"])[-1])
    return curve


def measure_accuracy(
    names: Sequence[str] | None = None,
    seeds: int = SEEDS,
    settings: dict[str, Settings] | None = None,
    progress: Callable[[str], None] = lambda text: None,
    keep: Callable[[dict[str, Any]], object] = lambda result: None,
) -> dict[str, Any]:
    """Measure the time to each of `TARGETS`.

    Each program first runs one epoch off the clock, so that its files, and what its library keeps on disk, are warm.
    Then all take turns, seed by seed, in a new order each time.

    Parameters
    ----------
    names : sequence of str, optional
        Programs, by default all.
    seeds : int, default 5
        Of each program, the same for all.
    settings : dict, optional
        In place of `SETTINGS`.
    progress : callable, optional
        Called with a line of text before each run, ``len(names) * (seeds + 1)`` times where nobody is missing.
    keep : callable, optional
        Called with the result so far, as one that was interrupted, after each run, so that it can be written down.

    Returns
    -------
    dict
        What `fastmlp.bench.results.save` writes: as of a suite, without measurements, and with ``accuracy``.

    Raises
    ------
    FileNotFoundError
        If MNIST is not here.
    KeyboardInterrupt
        If it comes before the first run has ended.
    """
    chosen = settings or SETTINGS
    described = machine.describe()
    programs: dict[str, Any] = {}
    missing: dict[str, str] = {}
    result: dict[str, Any] = {
        "format": results.FORMAT,
        "suite": "accuracy",
        "summary": SUMMARY,
        "interrupted": True,
        "machine": described,
        "ceilings": {},
        "memory": None,
        "measurements": [],
        "accuracy": {
            "sizes": list(SIZES),
            "targets": list(TARGETS),
            "longest": LONGEST,
            "programs": programs,
            "missing": missing,
        },
    }
    with torchvision_folder() as folder:
        for name in names or chosen:
            progress(f"{name}: one epoch to warm up")
            label, package, _ = PROGRAMS[name]
            try:
                run(name, replace(chosen[name], epochs=1), 0, folder, TARGETS[-1])
            except Failed as error:
                missing[name] = f"{error}; {EXTRA}" if "No module named" in str(error) else str(error)
                continue
            how = {"settings": asdict(chosen[name]), "title": chosen[name].title}
            programs[name] = {"label": label, "version": package_version(package), **how, "runs": []}
        try:
            for _ in run_seeds(programs, missing, chosen, seeds, folder, progress):
                keep(measured_so_far(result))
            result["interrupted"] = False
        except KeyboardInterrupt:
            if not any(program["runs"] for program in programs.values()):
                raise
    described["load_after"] = machine.load()
    return measured_so_far(result) if result["interrupted"] else result


def measured_so_far(result: dict[str, Any]) -> dict[str, Any]:
    """The result without programs that have not run yet."""
    accuracy = result["accuracy"]
    programs = {name: program for name, program in accuracy["programs"].items() if program["runs"]}
    return {**result, "accuracy": {**accuracy, "programs": programs}}


def run_seeds(
    programs: dict[str, Any],
    missing: dict[str, str],
    settings: dict[str, Settings],
    seeds: int,
    folder: str,
    progress: Callable[[str], None],
) -> Iterator[None]:
    """Run all programs, seed by seed, in a new order each time; one that fails goes over to those missing.

    Yields after each run.
    """
    shuffle = random.Random(0).shuffle
    for seed in range(seeds):
        turns = list(programs)
        shuffle(turns)
        for name in turns:
            progress(f"{name}: seed {seed}")
            try:
                curve = run(name, settings[name], seed, folder, TARGETS[-1])
            except Failed as error:
                missing[name] = f"with seed {seed}: {error}"
                del programs[name]
                continue
            programs[name]["runs"].append({"seed": seed, "curve": curve})
            yield


def seconds_to(run: dict[str, Any], target: float, clock: str = "seconds") -> float:
    """Seconds to the first test at or above an accuracy; infinite if none was.

    By the clock "seconds" they count from the start of the process, by "training" only calls that train.
    """
    return next((point[clock] for point in run["curve"] if point["accuracy"] >= target), float("inf"))


def median_seconds(program: dict[str, Any], target: float, clock: str = "seconds") -> float:
    """The median of `seconds_to` over the seeds: infinite where half of them did not get there."""
    return statistics.median_high([seconds_to(run, target, clock) for run in program["runs"]])
