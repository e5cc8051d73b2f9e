"""The measurements on a GPU, as one command that ends within ten minutes and goes on where it was when run again.

``python -m fastmlp.bench.gpu_bench`` (``make bench-gpu``) needs a GPU, numba-cuda and, for the rivals, PyTorch and JAX;
no network, and no more of fastmlp than a checkout. It measures works one by one, those that matter most first, and
writes each into its file in bench/results/ as soon as it is there: cut off at any time, it loses the work in hand. What
time was too short for is named, and measured by the next run on the same machine from the same commit.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmlp.bench import gpu, machine, results, time_to_accuracy
from fastmlp.bench.measure import measure_job
from fastmlp.bench.processes import Crew, WorkerDied, environment, python
from fastmlp.bench.results import SpeedUp, speed_up
from fastmlp.bench.suites import SUITES, Suite, with_source
from fastmlp.bench.tables import number, wanted
from fastmlp.bench.time_to_accuracy import median_seconds, seconds_to
from fastmlp.bench.work import Work, mnist_is_here

__all__ = ["AIMS", "PARTS", "OutOfTime", "aims_of", "main", "measure_part", "within"]

ACCURACY, PROFILE = "gpu-accuracy", "gpu-profile"
#: In the order in which they are measured.
PARTS = ("gpu", ACCURACY, PROFILE, "gpu-compiled", "gpu-networks")

MINUTES = 9.5  #: of a run
LEAST = 20.0  #: seconds that must be left for a work to be begun
LONGEST = 200.0  #: seconds of one work, …
ANSWER = 150.0  #: … and of one answer of a contender, after which it is given up
SEEDS = 3  #: of the times to accuracy

OURS = "fastmlp-cuda"
FAMILY = "fastmlp"  #: how the families of our own contenders begin
NETWORK = (784, 100, 10)
#: What fastmlp must reach on `NETWORK`: batch size -> times the best rival in float32.
AIMS = {1: 8.0, 5: 8.0, 10: 8.0, 32: 5.0, 128: 3.0, 1024: 1.5, 10_000: 1.0}
EAGER, EAGER_BATCH, EAGER_AIM = "torch-cuda", 5, 25.0  #: times PyTorch as people write it
EPOCH_BATCH, EPOCH_SECONDS = 5, 0.040  #: an epoch of MNIST
TRAINING, TRAINING_SECONDS = 0.98, 0.5  #: of training to an accuracy

PROFILE_STEPS = 200  #: of a call under the profiler, which plays it over and over
PROFILE_SECONDS = 120.0
#: Options of Nsight Compute: all sections, of the kernels of the second call.
PROFILER = [
    *("--set", "full", "--print-details", "all", "--target-processes", "all"),
    *("--launch-skip", "1", "--launch-count", "1"),
]

#: All trained alike, as for a CPU: see `fastmlp.bench.time_to_accuracy.SETTINGS`.
PROGRAMS = dict.fromkeys(("fastmlp-cuda", "torch-cuda", "jax-cuda"), time_to_accuracy.SETTINGS["fastmlp"])

Tell = Callable[[str], None]


class OutOfTime(KeyboardInterrupt):
    """Raised, like Ctrl-C, wherever the program is when its time is over."""


class Failed(RuntimeError):
    """A work that could not be measured; the message says why."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A block that may take so many seconds, then `OutOfTime` is raised in it."""

    def ring(*_: object) -> None:
        raise OutOfTime(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Run:
    """One run of the command.

    Parameters
    ----------
    folder : Path
        For the result files.
    deadline : float
        By `time.perf_counter`.
    machine : dict
        As results keep it.
    ceilings : dict
        Likewise.
    source : str
        "mnist", or "synthetic" where MNIST is not here.
    tell : callable
        Called with what happens.
    """

    folder: Path
    deadline: float
    machine: dict[str, Any]
    ceilings: dict[str, Any]
    source: str
    tell: Tell

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.perf_counter()

    def file(self, part: str) -> Path:
        """A part's result file."""
        return self.folder / f"{part}.json"

    def begun(self, part: str) -> dict[str, Any] | None:
        """What an earlier run on this machine, from this commit, has measured of a part."""
        try:
            found = results.load(self.file(part))
        except (OSError, ValueError):
            return None
        return found if what_counts(found["machine"]) == what_counts(self.machine) else None

    def new(self, part: str, summary: str) -> dict[str, Any]:
        """A result with nothing measured yet."""
        return {
            "format": results.FORMAT,
            "suite": part,
            "summary": summary,
            "interrupted": True,
            "machine": self.machine,
            "ceilings": self.ceilings,
            "memory": None,
            "measurements": [],
            "failed": {},
            "left": [],
        }


def what_counts(described: dict[str, Any]) -> tuple:
    """What must be the same for results to go into one file; the files themselves may have changed since the commit."""
    return described["commit"].rstrip("+"), described["versions"], described.get("gpu")


# ------------------------------------------------------------------------------------------------------- suites
def measure_part(run: Run, part: str) -> bool:
    """Measure a suite's works as far as time allows, and write the result after each; whether all went well."""
    suite = SUITES[part] if run.source == "mnist" else with_source(SUITES[part], run.source)
    result = run.begun(part) or run.new(part, suite.summary)
    done = [Work.from_dict(measurement["work"]) for measurement in result["measurements"]]
    todo = [job for job in suite.jobs if job[0] not in done]
    if done and todo:
        run.tell(f"{part}: going on, {len(done)} of {len(suite.jobs)} works are measured")
    crew = Crew(ANSWER)
    with crew:
        while todo and run.left > LEAST:
            work, names = todo.pop(0)
            run.tell(f"{part}: {work.title}")
            try:
                run.tell(f"  {in_words(measure_into(run, result, suite, (work, names), crew))}")
                result["failed"].pop(work.title, None)
            except Failed as error:
                result["failed"][work.title] = str(error)
                run.tell(f"  failed: {error}")
            if part == "gpu":
                result["aims"] = aims_of(result)
            result["left"] = [job[0].title for job in todo]
            result["interrupted"] = bool(todo)
            results.save(result, run.file(part))
    if todo:
        run.tell(f"{part}: no time for {len(todo)} works: {'; '.join(work.title for work, _ in todo)}")
    refused = any(measurement["refused"] for measurement in result["measurements"])
    return not refused and not result["failed"]


def measure_into(
    run: Run, result: dict[str, Any], suite: Suite, job: tuple[Work, tuple[str, ...]], crew: Crew
) -> dict[str, Any]:
    """Measure one work and add it to a result.

    Raises
    ------
    Failed
        If it took too long, or a process ended in its midst.
    """
    work, names = job
    try:
        with within(min(run.left, LONGEST)):
            measurement = measure_job(work, names, crew, suite, lambda text: None)
    except (OutOfTime, WorkerDied) as error:
        for name in names:  # whoever is in the midst of something would answer the next question with it
            crew.dismiss(name)
        raise Failed(str(error)) from None
    result["measurements"].append(measurement)
    result["measurements"].sort(key=lambda one: (one["work"]["sizes"], one["work"]["batch_size"]))
    return measurement


def in_words(measurement: dict[str, Any]) -> str:
    """A measurement in a line: our time, and the speed-up over each rival: its time divided by ours."""
    contenders = measurement["contenders"]
    parts = []
    if OURS in contenders:
        ours = statistics.median(contenders[OURS]["seconds"]) / measurement["steps"]
        parts.append(f"{number(ours * 1e6)} µs a step over {measurement['steps']:,} steps")
        for name, raw in contenders.items():
            if name != OURS:
                times = speed_up(contenders[OURS]["seconds"], raw["seconds"])
                parts.append(f"speed-up {number(times.ratio)} over {raw['label']}")
    for kind in ("refused", "missing"):
        parts += [f"{kind}: {name}: {reason}" for name, reason in measurement[kind].items()]
    return "; ".join(parts)


# --------------------------------------------------------------------------------------------------------- aims
def best_rival(measurement: dict[str, Any], dtype: str) -> tuple[str, SpeedUp] | None:
    """The fastest rival that computes in this dtype, and how many times faster we are."""
    contenders = measurement["contenders"]
    rivals = [
        name for name, raw in contenders.items() if raw["dtype"] == dtype and not raw["family"].startswith(FAMILY)
    ]
    if OURS not in contenders or not rivals:
        return None
    ours = contenders[OURS]["seconds"]
    against = {name: speed_up(ours, contenders[name]["seconds"]) for name in rivals}
    name = min(against, key=lambda name: against[name].ratio)
    return name, against[name]


def aims_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached on `NETWORK`, what was, and whether that is enough: a dict an aim."""
    found = []
    for measurement in result["measurements"]:
        work = Work.from_dict(measurement["work"])
        if work.sizes != NETWORK or OURS not in measurement["contenders"]:
            continue
        seconds = statistics.median(measurement["contenders"][OURS]["seconds"])
        rival = best_rival(measurement, work.dtype)
        if work.batch_size in AIMS and rival is not None:
            found.append(aim(f"batch {work.batch_size:,}: times {rival[0]}", AIMS[work.batch_size], rival[1].ratio))
        if work.batch_size == EAGER_BATCH and EAGER in measurement["contenders"]:
            eager = speed_up(measurement["contenders"][OURS]["seconds"], measurement["contenders"][EAGER]["seconds"])
            found.append(aim(f"batch {work.batch_size}: times {EAGER}", EAGER_AIM, eager.ratio))
        if work.batch_size == EPOCH_BATCH:
            epoch = seconds / measurement["steps"] * work.batches
            found.append(aim(f"seconds an epoch at batch {work.batch_size}", EPOCH_SECONDS, epoch, below=True))
    return found


def aim(what: str, bound: float, reached: float, below: bool = False) -> dict[str, Any]:
    """One aim, as it is kept."""
    enough = reached <= bound if below else reached >= bound
    return {"what": what, "wanted": bound, "below": below, "reached": reached, "enough": enough}


def aim_in_words(one: dict[str, Any]) -> str:
    """One aim in a line."""
    return f"{one['what']}: {number(one['reached'])}; wanted {wanted(one)}"


# ----------------------------------------------------------------------------------------------------- accuracy
def measure_accuracy(run: Run) -> bool:
    """Measure the times to accuracy, unless they are measured already; whether all went well."""
    found = run.begun(ACCURACY)
    if found is not None and not found["interrupted"]:
        run.tell(f"{ACCURACY}: measured already")
        return True
    if run.source != "mnist":
        run.tell(f"{ACCURACY}: left out, for MNIST is not here (its files are sought in $FASTMLP_DATA and ./MNIST/raw)")
        return True
    if run.left < LEAST:
        run.tell(f"{ACCURACY}: no time")
        return True
    run.tell(f"{ACCURACY}: {', '.join(PROGRAMS)}")
    try:
        with within(min(run.left, LONGEST)):
            found = time_to_accuracy.measure_accuracy(list(PROGRAMS), SEEDS, PROGRAMS)
    except OutOfTime as error:
        run.tell(f"  failed: {error}")
        return False
    result = {**found, "suite": ACCURACY, "machine": run.machine}
    result["aims"] = training_aims(found["accuracy"])
    results.save(result, run.file(ACCURACY))
    for name, program in found["accuracy"]["programs"].items():
        seconds = [number(seconds_to(one, TRAINING)) for one in program["runs"]]
        trained = [number(seconds_to(one, TRAINING, "training")) for one in program["runs"]]
        run.tell(f"  {name}: seconds to {TRAINING:.0%}: {', '.join(seconds)}; of training: {', '.join(trained)}")
    for name, reason in found["accuracy"]["missing"].items():
        run.tell(f"  {name}: {reason}")
    return OURS not in found["accuracy"]["missing"]


def training_aims(accuracy: dict[str, Any]) -> list[dict[str, Any]]:
    """The aim for our training to an accuracy, if it was measured."""
    ours = accuracy["programs"].get(OURS)
    if ours is None or not ours["runs"]:
        return []
    seconds = median_seconds(ours, TRAINING, "training")
    return [aim(f"seconds of training to {TRAINING:.0%}", TRAINING_SECONDS, seconds, below=True)]


# ------------------------------------------------------------------------------------------------------ profile
def measure_profile(run: Run) -> bool:
    """Profile the works that fall short of their aim, where Nsight Compute is here; always well."""
    measured = run.begun("gpu")
    short = [] if measured is None else falling_short(measured)
    tool = shutil.which("ncu")
    if not short or tool is None:
        run.tell(f"{PROFILE}: {'nothing falls short' if not short else 'left out, for ncu is not here'}")
        return True
    result = run.begun(PROFILE) or {
        **run.new(PROFILE, "what falls short of its aim, under Nsight Compute"),
        "works": [],
    }
    done = [entry["work"] for entry in result["works"]]
    for work in short:
        if work.to_dict() in done or run.left < LEAST:
            continue
        run.tell(f"{PROFILE}: {work.title}")
        entry = profile(tool, work, min(run.left, PROFILE_SECONDS))
        result["works"].append(entry)
        results.save(result, run.file(PROFILE))
        run.tell(f"  {entry['failed'] or 'kept'}")
    return True


def falling_short(measured: dict[str, Any]) -> list[Work]:
    """The works whose aims against rivals are missed."""
    missed = []
    for measurement in measured["measurements"]:
        alone = {**measured, "measurements": [measurement]}
        if not all(one["enough"] for one in aims_of(alone)):
            missed.append(Work.from_dict(measurement["work"]))
    return missed


def profile(tool: str, work: Work, seconds: float) -> dict[str, Any]:
    """What Nsight Compute tells of our kernel in one work: a dict with its text, or why there is none."""
    asked = json.dumps(work.to_dict())
    command = [tool, *PROFILER, *python("gpu_bench", "--profiled", asked)]
    failed = None
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=seconds)
        text = done.stdout
        if done.returncode or "==PROF== No kernels" in text:
            failed = (done.stderr.strip() or text.strip() or f"exit code {done.returncode}").splitlines()[-1]
    except subprocess.TimeoutExpired:
        text, failed = "", f"took more than {seconds:.0f} s"
    return {"work": work.to_dict(), "steps": PROFILE_STEPS, "command": command[:-1], "text": text, "failed": failed}


def be_profiled(asked: str) -> None:
    """Two calls of our contender, the first one to compile: this runs under the profiler."""
    from fastmlp.bench.contenders import contender

    ours = contender(OURS)(Work.from_dict(json.loads(asked)), {"threads": None})
    for _ in range(2):
        ours.prepare(PROFILE_STEPS)
        ours.run(PROFILE_STEPS)


# ------------------------------------------------------------------------------------------------------ command
MEASURES: dict[str, Callable[[Run], bool]] = {ACCURACY: measure_accuracy, PROFILE: measure_profile}


def parts_of(text: str) -> list[str]:
    """The parts in "gpu,gpu-networks".

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no such part.
    """
    chosen = text.split(",")
    if not set(chosen) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {','.join(PARTS)}")
    return chosen


def tell(text: str) -> None:
    """Print at once: who cuts the run off shall see how far it came."""
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a work failed or a contender was refused, 2 without a GPU."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(
        prog="python -m fastmlp.bench.gpu_bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--parts", type=parts_of, default=list(PARTS), help=f"by default {','.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"end after so many, by default {MINUTES}")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the result files")
    parser.add_argument("--profiled", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    reason = gpu.missing()
    if reason is not None:
        print(f"error: nothing can be measured on a GPU here: {reason}", file=sys.stderr)
        return 2
    if given.profiled is not None:
        be_profiled(given.profiled)
        return 0
    source = "mnist" if mnist_is_here() else "synthetic"
    if source != "mnist":
        tell("MNIST is not here: measuring with made-up images of the same shape and share of zeros")
    described = {**machine.describe(), "gpu": gpu.describe()}
    tell(f"{described['gpu']['name']}, commit {described['commit']}")
    run = Run(given.out, begin + 60 * given.minutes, described, gpu.ceilings(), source, tell)
    well = True
    try:
        for part in given.parts:
            well &= MEASURES.get(part, lambda run, part=part: measure_part(run, part))(run)
    except KeyboardInterrupt:
        tell("interrupted; what was measured is kept")
        return 130
    finally:
        for part in given.parts:
            for one in (run.begun(part) or {}).get("aims", []):
                tell(aim_in_words(one))
    tell(f"{time.perf_counter() - begin:.0f} s; results in {given.out}")
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
