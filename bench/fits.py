"""Whole fits: how long a library takes from its data to a trained model, and how good that model is.

A suite of `SUITES` has jobs, a job several programs. Each fit is a process of its own, which loads the data and first
fits a little off the clock, so that what is compiled or imported is there; programs take turns, seed by seed, in a new
order each time. A program's scores must be those of fastmlp within the noise of the seeds, or it is refused.
"""

import importlib
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmlp.bench import machine, results
from fastmlp.bench.processes import environment, python

__all__ = ["SUITES", "Fits", "Job", "fastest_rival", "measure_fits", "seconds_of", "ticks"]

OURS = "fastmlp"
LONGEST = 600.0  #: seconds after which a fit has failed
NOISE = 3.0  #: standard errors that mean scores may differ by, …
LEAST = 0.002  #: … and what they may differ by anyway


class Job(NamedTuple):
    """What is fitted."""

    what: str  #: for a table's row
    programs: tuple[str, ...]  #: who fits it; `OURS` first
    wanted: float | None = None  #: how many times as long the fastest rival should take as `OURS`
    whole: bool = False  #: whether all of the process counts, its start and imports included


class Fits(NamedTuple):
    """A suite: its jobs, and the module whose ``fit(job, program, seed)`` returns seconds, score and version."""

    summary: str
    module: str
    jobs: dict[str, Job]
    seeds: int = 5


SKLEARN = ("fastmlp", "scikit-learn", "scikit-learn, 1 thread")

#: name -> suite
SUITES = {
    "sklearn": Fits(
        "scikit-learn's MLPClassifier and fastmlp's, with their default settings",
        "estimator_fits",
        {
            "mnist": Job("MNIST, float32, 5 epochs", SKLEARN, 5.0),
            "mnist64": Job("MNIST, float64 input, 5 epochs", SKLEARN, 6.0),
            "table": Job("a table of 50,000 x 30, 10 epochs", SKLEARN, 12.0),
            "digits": Job("digits, 100 epochs", SKLEARN, 5.0),
            "iris": Job("iris, 200 epochs", SKLEARN, 5.0),
            "start": Job("from a process' start: iris, 5 epochs", SKLEARN[:2], whole=True),
        },
    )
}


def ticks(suite: Fits) -> int:
    """How often `measure_fits` tells of its progress."""
    return suite.seeds * sum(len(job.programs) for job in suite.jobs.values())


def measure_fits(
    name: str, tell: Callable[[str], None] = lambda text: None, keep: Callable[[dict[str, Any]], object] | None = None
) -> dict[str, Any]:
    """Measure a suite.

    Parameters
    ----------
    name : str
        Of `SUITES`.
    tell : callable, optional
        Called with a line of text before each fit.
    keep : callable, optional
        Called with the result so far after each job, as one that was interrupted.

    Returns
    -------
    dict
        What `fastmlp.bench.results.save` writes: as of other suites, without measurements, and with ``fits``: for each
        job what it is, whom it was measured with, and the aim.

    Raises
    ------
    KeyboardInterrupt
        If it comes before the first job has ended.
    """
    suite, jobs = SUITES[name], list[dict[str, Any]]()
    result: dict[str, Any] = {"format": results.FORMAT, "suite": name, "summary": suite.summary, "interrupted": True}
    result |= {"machine": machine.describe(), "ceilings": {}, "memory": None, "measurements": [], "fits": jobs}
    try:
        for job in suite.jobs:
            jobs.append(measure_job(suite, job, tell))
            if keep is not None:
                keep(result)
        result["interrupted"] = False
    except KeyboardInterrupt:
        if not jobs:
            raise
    result["machine"]["load_after"] = machine.load()
    return result


def measure_job(suite: Fits, name: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """All fits of a job; programs that fail are missing, those with other scores refused."""
    job, shuffle = suite.jobs[name], random.Random(0).shuffle
    missing: dict[str, str] = {}
    programs: dict[str, Any] = {program: {"seconds": [], "scores": []} for program in job.programs}
    for seed in range(suite.seeds):
        turns = list(programs)
        shuffle(turns)
        for program in turns:
            tell(f"{name}: {program}, seed {seed}")
            try:
                fit, wall = run(suite.module, name, program, seed)
            except RuntimeError as error:
                missing[program] = str(error)
                del programs[program]
                continue
            programs[program]["version"] = fit["version"]
            programs[program]["seconds"].append(round(wall if job.whole else fit["seconds"], 5))
            programs[program]["scores"].append(round(fit["score"], 5))
    refused = {
        program: f"scores {programs[program]['scores']} are not those of {OURS}, {programs[OURS]['scores']}"
        for program in list(programs)
        if OURS in programs and differ(programs[program]["scores"], programs[OURS]["scores"])
    }
    left = {program: found for program, found in programs.items() if program not in refused}
    found = {"job": name, "what": job.what, "programs": left, "missing": missing, "refused": refused}
    return {**found, "aim": aim_of(job, left)}


def run(module: str, job: str, program: str, seed: int) -> tuple[dict[str, Any], float]:
    """One fit, in a process of its own: what it says, and the seconds of all of the process.

    Raises
    ------
    RuntimeError
        With the last line that the process wrote, if it failed.
    """
    begin = time.perf_counter()
    try:
        ended = subprocess.run(
            python("fits", module, job, program, str(seed)),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end within {LONGEST:g} s") from None
    seconds = time.perf_counter() - begin
    if ended.returncode:
        raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1])
    return json.loads(ended.stdout.splitlines()[-1]), seconds


def differ(a: list[float], b: list[float]) -> bool:
    """Whether mean scores differ by more than the noise of the seeds."""
    error = float(np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))) if min(len(a), len(b)) > 1 else 0.0
    return abs(statistics.mean(a) - statistics.mean(b)) > NOISE * error + LEAST


def seconds_of(program: dict[str, Any]) -> float:
    """The median over seeds."""
    return statistics.median(program["seconds"])


def fastest_rival(programs: dict[str, Any]) -> str | None:
    """The fastest program that is not ours."""
    rivals = [name for name in programs if not name.startswith(OURS)]
    return min(rivals, key=lambda name: seconds_of(programs[name]), default=None)


def aim_of(job: Job, programs: dict[str, Any]) -> dict[str, Any] | None:
    """What was wanted of a job, and what was reached; None where nothing was wanted or can be told."""
    rival = fastest_rival(programs)
    if job.wanted is None or rival is None or OURS not in programs:
        return None
    reached = seconds_of(programs[rival]) / seconds_of(programs[OURS])
    aim = {"what": f"{job.what}: times {rival}", "wanted": job.wanted, "below": False}
    return {**aim, "reached": reached, "enough": reached >= job.wanted}


def main(module: str, job: str, program: str, seed: str) -> int:
    """What a fit's process does: print what the module's ``fit`` returns."""
    print(json.dumps(importlib.import_module(f"fastmlp.bench.{module}").fit(job, program, int(seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
