"""The tests on a GPU, as one command that ends within ten minutes: ``python -m fastmlp.bench.gpu_tests``.

First small works, each checked against the oracle; the same again under compute-sanitizer's memcheck, racecheck and
synccheck, where it is here; then the tests of the contract with the real backend, in several processes where
pytest-xdist is here. What came out is written to bench/results/gpu-tests.json after each step. ``make test-gpu`` is the
same command. Without a GPU it says what is missing and ends with exit code 2.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmlp.bench import gpu, machine, measure, results
from fastmlp.bench.contender import Contender
from fastmlp.bench.contenders import contender
from fastmlp.bench.processes import environment, python
from fastmlp.bench.work import Work
from fastmlp.kernels import Rule

__all__ = ["SMALL", "check_small", "main", "run_step"]

MINUTES = 9.5  #: of all steps
TOOL_SECONDS = 75.0  #: of one tool of compute-sanitizer
GRACE = 15.0  #: seconds in which interrupted tests may report
TOOLS = ("memcheck", "racecheck", "synccheck")
SANITIZER_FAILED = 99  #: its exit code where it has found something
PROCESSES = 8  #: of pytest-xdist at most: compiling is what takes time
KEPT = 20_000  #: characters at the end of a step's output

#: The line in which pytest, and `run_small` like it, sums up.
SUMMARY = re.compile(r"^=+ (\d+ \w+(?:, \d+ \w+)*) in [\d.]+ ?s.*=$", re.M)
#: A line that says how one test went, with pytest-xdist and without it: for where the summary is missing.
OUTCOME = re.compile(
    r"^(?:\[gw\d+\] \[ *\d+%\] (\w+) tests/|tests/\S+ ([A-Z]+)\b.*\[ *\d+%\]$|(PASSED|FAILED) \[\d)", re.M
)

#: The tests that run over all backends.
FILES = tuple(f"tests/test_{name}.py" for name in ("contract", "mlp", "callbacks", "lab_mlp", "modelfile"))


def small(sizes: tuple[int, ...], batch_size: int, **changes: Any) -> Work:
    """A work of a few dozen samples."""
    return Work(sizes, batch_size, source="synthetic", samples=max(60, 2 * batch_size), **changes)


#: Every path with few samples: one block, clusters, the whole grid, slices, tiles; both dtypes, rules with and without
#: state.
SMALL = (
    small((784, 100, 10), 1),
    small((784, 100, 10), 5, shift=-0.5),
    small((784, 100, 10), 10, rule=Rule("adam", 0.001)),
    small((784, 256, 128, 10), 5, rule=Rule("nesterov", 0.01, momentum=0.9)),
    small((12, 7, 4), 6, dtype="float64", activation="tanh"),
    small((100, 1), 8, loss="binary_cross_entropy", rule=Rule("plain", 0.1)),
    small((20, 50, 1), 8, loss="mean_squared_error", activation="sigmoid"),
    small((64, 32, 10), 128),
    small((784, 100, 10), 1024),
    small((70, 60, 50, 10), 300, dtype="float64"),
)


def check_small(kind: type[Contender], work: Work) -> float:
    """By how much a contender's losses differ from the oracle's over a bit more than an epoch, relatively.

    Raises
    ------
    Missing
        If it can't run here.
    """
    ours = kind(work, {"threads": None})
    chunks = [work.batches + 1, 2]
    told = []
    for steps in chunks:
        ours.prepare(steps)
        told.append(ours.told(ours.run(steps)))
    return measure.largest_difference(told, chunks, measure.oracle_losses(work, sum(chunks)))


def run_small(name: str) -> int:
    """Check all of `SMALL`, a line each; the exit code."""
    begin = time.perf_counter()
    failed = 0
    for work in SMALL:
        try:
            difference = check_small(contender(name), work)
        except Exception as error:  # whatever goes wrong on the device, the next one shall have its turn
            print(f"FAILED {work.title}: {type(error).__name__}: {error}", flush=True)
            failed += 1
            continue
        right = difference <= measure.TOLERANCE[work.dtype]
        failed += not right
        print(f"{'PASSED' if right else 'FAILED'} {work.title}: losses differ by {difference:.1e}", flush=True)
    seconds = time.perf_counter() - begin
    print(f"== {len(SMALL) - failed} passed, {failed} failed in {seconds:.2f}s ==", flush=True)
    return int(failed > 0)


def run_step(name: str, command: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run a command, interrupt it when its time is over, and keep what it said.

    Returns
    -------
    dict
        ``name``, ``command``, ``seconds``, ``exit_code``, ``ended`` (whether it came to its end), ``outcomes``
        ("passed", "failed", … -> how many), ``well`` and ``output``, its end. Tests that ran out of time are well if
        some have passed and none has failed; anything else must end with exit code 0.
    """
    begin = time.perf_counter()
    ended = True
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = False
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    counts = outcomes(text)
    passed_so_far = "pytest" in command and counts.get("passed", 0) and not {"failed", "error", "errors"} & set(counts)
    return {
        "name": name,
        "command": [Path(command[0]).name, *command[1:]],
        "seconds": round(time.perf_counter() - begin, 1),
        "exit_code": process.returncode,
        "ended": ended,
        "outcomes": counts,
        "well": process.returncode == 0 if ended else bool(passed_so_far),
        "output": text[-KEPT:],
    }


def outcomes(text: str) -> dict[str, int]:
    """How many tests passed, failed and so on, by what pytest or `run_small` has printed."""
    summed = SUMMARY.findall(text)
    if summed:
        pairs = (part.split(" ") for part in summed[-1].split(", "))
        return {word: int(count) for count, word in pairs}
    return dict(Counter("".join(groups).lower() for groups in OUTCOME.findall(text)))


def steps(sanitizer: str | None) -> list[tuple[str, list[str], float]]:
    """The steps: name, command, seconds at most; infinite for what gets the rest."""
    smalls = python("gpu_tests", "--small")
    found = [("small works", smalls, 2 * TOOL_SECONDS)]
    if sanitizer is not None:
        options = ["--target-processes", "all", "--error-exitcode", str(SANITIZER_FAILED)]
        found += [(tool, [sanitizer, "--tool", tool, *options, *smalls], TOOL_SECONDS) for tool in TOOLS]
    tests = [sys.executable, "-m", "pytest", *FILES, "-k", "cuda", "-v", "--tb=short", "-W", "default"]
    if importlib.util.find_spec("xdist") is not None:
        tests += ["-n", str(min(PROCESSES, machine.cores()))]
    return [*found, ("contract", tests, float("inf"))]


def in_words(step: dict[str, Any]) -> str:
    """A step in a line."""
    counts = ", ".join(f"{count} {word}" for word, count in step["outcomes"].items())
    verdict = "well" if step["well"] else f"NOT WELL, exit code {step['exit_code']}"
    if not step["ended"]:
        verdict += ", its time was over"
    return f"{step['name']}: {verdict}; {counts or 'nothing counted'}; {step['seconds']} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a step was not well, 2 without a GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m fastmlp.bench.gpu_tests", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="only the small works, in this process")
    parser.add_argument("--contender", default="fastmlp-cuda", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"end after so many, by default {MINUTES}")
    parser.add_argument("--out", type=Path, default=Path("bench/results/gpu-tests.json"), help="the result file")
    given = parser.parse_args(arguments)
    reason = gpu.missing()
    if reason is not None and given.contender == "fastmlp-cuda":
        print(f"error: nothing can be tested on a GPU here: {reason}", file=sys.stderr)
        return 2
    if given.small:
        return run_small(given.contender)
    deadline = time.perf_counter() + 60 * given.minutes
    sanitizer = shutil.which("compute-sanitizer")
    result: dict[str, Any] = {
        "format": results.FORMAT,
        "what": "tests on a GPU",
        "machine": {**machine.describe(), "gpu": gpu.describe()},
        "left_out": {} if sanitizer else {"compute-sanitizer": "it is not on the path"},
        "steps": [],
    }
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}", flush=True)
    for name, command, seconds in steps(sanitizer):
        left = deadline - time.perf_counter() - GRACE
        if left < GRACE:
            result["left_out"][name] = "no time was left"
            print(f"left out: {name}: no time was left", flush=True)
            continue
        step = run_step(name, command, min(seconds, left))
        result["steps"].append(step)
        results.save(result, given.out)
        if not step["well"]:
            print(step["output"][-4000:], flush=True)
        print(in_words(step), flush=True)
    results.save(result, given.out)
    return int(not all(step["well"] for step in result["steps"]) or "contract" in result["left_out"])


if __name__ == "__main__":
    sys.exit(main())
