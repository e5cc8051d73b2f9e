"""Everything that there is to do on a GPU, as one command: ``python -m fastmlp.bench.gpu``, or ``make gpu``.

`STEPS` has the steps, the most telling first. Each is a process or several, with a time limit; whatever fails or hangs
is ended, and the next step begins. Results are written as they come, and what each process says goes into a file of its
own, so that a command that is killed loses only what was in hand. It names the steps that it had no time for. It needs
a checkout, NumPy, Numba and numba-cuda; for the step 4 pytest, for 3, 5 and 7 the rivals' packages; and no network.
Without a GPU it compiles some kernels, where the compiler is installed, and ends with exit code 1.
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastmlp.bench import gpu_steps, machine, results
from fastmlp.bench.gpu_steps import NO_GPU, best_rival, microseconds, problems
from fastmlp.bench.processes import environment, python
from fastmlp.bench.suites import SUITES
from fastmlp.bench.tables import number, wanted
from fastmlp.bench.work import Work

__all__ = ["STEPS", "Step", "main"]

MINUTES = 12.0
MOST_TRIED = 10_000  #: the largest batch size that layouts are tried for
LEAST = 5.0  #: seconds that must be left for a step to begin
PROFILED = (5, 10_000)  #: batch sizes of the works that are profiled, one for each kernel
GRACE = 10.0  #: seconds in which processes whose time is over may say what they have
RECORD = "gpu-steps"  #: the result file that tells how the steps went
COMPILING = 90.0  #: seconds that the steps wait for the compiler
SHOWN, SHOWN_PROCESSES = 15, 3  #: last lines of a process, and of how many that failed; the files have all of it
TESTS = [
    str(machine.ROOT / f"tests/test_{name}.py") for name in ("contract", "mlp", "callbacks", "lab_mlp", "modelfile")
]

Commands = dict[str, list[str]]  #: name of a process -> what starts it


def small_works() -> Commands:
    """A process a work: one that breaks the GPU's context breaks it for no other."""
    return {f"small-{index}": python("gpu_steps", "small", str(index)) for index in range(len(gpu_steps.SMALL))}


def tests() -> Commands:
    """The contract's tests, shared out among processes, since compiling is what takes time."""
    options = ["-k", "cuda", "-q", "--tb=short", "-W", "default", "-o", "addopts=", "--continue-on-collection-errors"]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *TESTS]
    shares = [f"{part}/{machine.cores()}" for part in range(machine.cores())]
    return {f"tests-{share.replace('/', '-of-')}": ["env", f"FASTMLP_SHARE={share}", *pytest] for share in shares}


def sanitized() -> Commands:
    """The small works under two tools of compute-sanitizer; none where it is not installed."""
    tool = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
    checks = [(name, check) for name in small_works() for check in ("racecheck", "memcheck")] if tool else []
    return {
        f"{check}-{name}": [str(tool), "--tool", check, "--error-exitcode", "99", *small_works()[name]]
        for name, check in checks
    }


def profiled(out: Path) -> Commands:
    """Nsight Compute's account of our kernel in some works, by part, then by instruction; none if not installed."""
    tool = shutil.which("ncu", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
    options = ["--clock-control", "none", "--set", "full", "--launch-skip", "1", "--launch-count", "1"]
    options += ["--kernel-name", "regex:epoch", "--import-source", "no", "--force-overwrite"]
    pages = (["details", "--print-details", "all"], ["source", "--print-source", "sass", "--csv"])
    commands: Commands = {}
    for index, (work, _) in enumerate(SUITES["gpu"].jobs):
        if work.batch_size in PROFILED and tool:
            report = str(out / "gpu-logs" / f"profile-{work.batch_size}.ncu-rep")
            steps = [[tool, *options, "-o", report, *python("gpu_steps", "epochs", str(index))]]
            steps += [[tool, "--import", report, "--page", *page] for page in pages]
            commands[f"profile-{work.batch_size}"] = ["sh", "-c", " && ".join(map(shlex.join, steps))]
    return commands


def layouts(out: Path) -> Commands:
    """A process for each layout that is tried of a work; they compile side by side, and measure in turns."""
    works = [(index, work) for index, (work, _) in enumerate(SUITES["gpu"].jobs) if work.batch_size <= MOST_TRIED]
    return {
        f"layout-{work.batch_size}-{place}": python("gpu_steps", "layout", str(index), str(place), str(out))
        for place in range(2 * gpu_steps.LAYOUTS)
        for index, work in works
    }


class Step(NamedTuple):
    """A step: what it does, its seconds at most, and from the folder of results to its processes."""

    what: str
    seconds: float
    commands: Callable[[Path], Commands]
    each: float = float("inf")  #: seconds after which a process has failed
    needs: str | None = None  #: the name in `gpu_steps.to_compile` of what must be compiled before


def measured(what: str, seconds: float, name: str, *command: str) -> Step:
    """A step that is one process, which writes results of that name."""
    return Step(what, seconds, lambda out: {name: python("gpu_steps", *command, str(out))}, needs=name)


STEPS = {
    "1": Step("versions, one small kernel", 40, lambda out: {"start": python("gpu_steps", "start")}),
    "2": Step("small works against NumPy in float64", 120, lambda out: small_works(), each=50),
    "3": measured("[784, 100, 10] against PyTorch and JAX", 200, "gpu", "measure", "gpu"),
    "4": Step("the contract's tests", 120, lambda out: tests()),
    "5": measured("wider networks against PyTorch and JAX", 90, "gpu-networks", "measure", "gpu-networks"),
    "6": Step("compute-sanitizer on the small works", 90, lambda out: sanitized(), each=80),
    "7": measured("time to 97 and 98 % on MNIST", 90, gpu_steps.ACCURACY, "accuracy"),
    "8": Step("where the cycles go, by Nsight Compute", 90, profiled, each=80),
    "9": Step("layouts that the rule ranks next, for fitting it", 150, layouts),
}


class Batch:
    """Processes, as many at a time as there are cores; `ended` tells how each did."""

    def __init__(self, commands: Commands, logs: Path, each: float = float("inf")) -> None:
        self.waiting, self.logs, self.each = list(commands.items()), logs, each
        self.running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self.ended: dict[str, str] = {}
        self.advance()

    def advance(self) -> None:
        """See who has ended, and start whose turn it is."""
        for name, (process, begin) in list(self.running.items()):
            if process.poll() is not None or time.monotonic() - begin > self.each:
                code = process.poll()
                self.ended[name] = {None: f"no end within {self.each:g} s", 0: "well"}.get(code, f"exit code {code}")
                self.kill(name)
        while self.waiting and len(self.running) < machine.cores():
            name, command = self.waiting.pop(0)
            with open(self.logs / f"{name}.txt", "wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)
            self.running[name] = process, time.monotonic()

    def kill(self, name: str) -> None:
        """End a process and all that it has started."""
        process, _ = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait(self, seconds: float) -> "Batch":
        """Until all have ended or so many seconds are over; then the others are interrupted, and soon killed."""
        cut_off: list[str] = []
        try:
            for limit in (seconds, GRACE):
                end = time.monotonic() + limit
                while self.running and time.monotonic() < end:
                    time.sleep(0.05)
                    self.advance()
                for process, _ in self.running.values():
                    process.send_signal(signal.SIGINT)
                cut_off += [*self.running, *(name for name, _ in self.waiting)]
                self.waiting = []
        finally:
            for name in list(self.running):
                self.kill(name)
        self.ended |= dict.fromkeys(cut_off, "cut off")
        return self

    def said(self, name: str) -> str:
        """The last lines of a process."""
        path = self.logs / f"{name}.txt"
        lines = path.read_text(errors="replace").rstrip().splitlines() if path.exists() else []
        return "\n".join(line[:400] for line in lines[-SHOWN:])

    def tests(self, name: str) -> Counter[str]:
        """What pytest has counted: "passed", "failed", "error" … -> how many tests."""
        summed = re.findall(r"^=* ?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", self.said(name), re.M)
        pairs = (part.split() for part in summed[-1].split(", ")) if summed else ()
        return Counter({word.removesuffix("s"): int(count) for count, word in pairs})

    def failed(self) -> dict[str, str]:
        """Who failed, and how; to be cut off is no failure, unless a test had failed."""
        wrong = {"failed", "error"}
        return {
            name: how
            for name, how in self.ended.items()
            if how not in ("well", "cut off") or wrong & set(self.tests(name))
        }


class Run:
    """One run of the command: results go to `out`, and it ends `minutes` after its begin."""

    def __init__(self, out: Path, minutes: float, chosen: Sequence[str]) -> None:
        self.out, self.logs, self.begin = out, out / "gpu-logs", time.time()
        self.deadline = time.monotonic() + 60 * minutes - GRACE
        self.logs.mkdir(parents=True, exist_ok=True)
        about = {"gpu": machine.graphics_card(), "versions": machine.versions(), "commit": machine.commit()}
        about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        summary = "make gpu, step by step"
        self.record: dict[str, Any] = {"format": results.FORMAT, "suite": RECORD, "summary": summary}
        self.record |= {"machine": about, "steps": [], "left": list(chosen)}
        self.compiling: Batch | None = None

    def left(self, most: float = float("inf")) -> float:
        """Seconds that are left, but not more than these."""
        return min(most, self.deadline - time.monotonic())

    def do(self, name: str) -> Batch | None:
        """Do a step as far as time allows; record and tell how it went."""
        step = STEPS[name]
        tell(f"\n== {name}: {step.what}")
        if step.needs is not None and self.compiling is not None:  # nothing is measured on a busy machine
            batch, self.compiling = self.compiling, None
            tell_failed(batch.wait(self.left(COMPILING)))
        begin, commands = time.monotonic(), step.commands(self.out)
        if not commands or self.left() < LEAST:
            tell("no time is left" if commands else "left out: what it needs is not installed")
            return None
        batch = Batch(commands, self.logs, step.each).wait(self.left(step.seconds))
        ways, counts = list(batch.ended.values()), sum(map(batch.tests, batch.ended), Counter())
        entry = {"step": name, "what": step.what, "seconds": round(time.monotonic() - begin, 1)}
        entry |= {"well": ways.count("well"), "cut off": ways.count("cut off"), "failed": batch.failed()}
        self.record["steps"].append({**entry, "tests": dict(counts)})
        self.record["left"].remove(name)
        results.save(self.record, self.out / f"{RECORD}.json")
        tell_failed(batch)
        if len(ways) == 1 and not batch.failed():
            tell(batch.said(*batch.ended))
        return batch

    def compile_first(self) -> None:
        """Start to compile what the steps left need, while others are about what is right."""
        needed = [STEPS[name].needs for name in self.record["left"]]
        works = [(part, str(index)) for part in needed if part for index in range(len(gpu_steps.to_compile(part)))]
        commands = {f"compile-{part}-{index}": python("gpu_steps", "compile", part, index) for part, index in works}
        self.compiling = Batch(commands, self.logs)

    def report(self) -> bool:
        """Tell all in short; whether nothing failed."""
        tell("\n== in short")
        wrong = [name for entry in self.record["steps"] for name in entry["failed"]]
        for path in (self.out / "gpu.json", self.out / "gpu-networks.json"):
            if path.exists() and path.stat().st_mtime >= self.begin:
                result = results.load(path)
                tell(table(result))
                wrong += problems(result)
        for entry in self.record["steps"]:
            counts = [f"{len(entry['failed'])} FAILED"] * bool(entry["failed"])
            counts += [f"{entry['cut off']} cut off"] * bool(entry["cut off"])
            counts += [f"{count} tests {word}" for word, count in entry["tests"].items()]
            words = ", ".join([f"{entry['well']} well", *counts])
            tell(f"{entry['step']}: {entry['what']}: {words}; {entry['seconds']:.0f} s")
        for name in self.record["left"]:
            tell(f"{name}: {STEPS[name].what}: NOT DONE")
        return not wrong


def tell(text: str) -> None:
    """Print at once: who ends the command shall see how far it came."""
    print(text, flush=True)


def tell_failed(batch: Batch) -> None:
    """Tell who failed, those with the same last line together, and of the first of some of them the last words."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, how in batch.failed().items():
        alike.setdefault((how, batch.said(name).rpartition("\n")[2]), []).append(name)
    for place, ((how, last), names) in enumerate(alike.items()):
        tell(f"-- {', '.join(names)}: {how}\n{batch.said(names[0]) if place < SHOWN_PROCESSES else last}")


def table(result: dict[str, Any]) -> str:
    """What was measured against rivals: a line a work, then what was to be reached, then what went wrong."""
    lines = [f"{'network, batch':<28}{'ours, µs':>10}{'rival, µs':>11}{'times':>8}  best rival"]
    for measurement in result["measurements"]:
        work, rival = Work.from_dict(measurement["work"]), best_rival(measurement)
        names = [name if name in measurement["contenders"] else None for name in (gpu_steps.OURS, rival)]
        ours, theirs = (float("nan") if name is None else microseconds(measurement, name) for name in names)
        title = f"{list(work.sizes)}, {work.batch_size:,}"
        lines.append(f"{title:<28}{ours:>10.2f}{theirs:>11.2f}{theirs / ours:>8.2f}  {rival}")
    done = [measurement["work"] for measurement in result["measurements"]]
    source = {"source": done[0]["source"]}
    left = [work for work, _ in SUITES[result["suite"]].jobs if {**work.to_dict(), **source} not in done]
    lines += [f"no time for {'; '.join(f'{list(work.sizes)}, {work.batch_size:,}' for work in left)}"] * bool(left)
    lines += [f"{aim['what']}: {number(aim['reached'])}; wanted {wanted(aim)}" for aim in result["aims"]]
    return "\n".join([*lines, *problems(result)])


def chosen_steps(text: str) -> list[str]:
    """The steps in "2 3", in their order; the first is always among them, and all are in "".

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no such step.
    """
    asked = set(text.replace(",", " ").split()) or set(STEPS)
    if not asked <= set(STEPS):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {' '.join(STEPS)}")
    return [name for name in STEPS if name in asked | {"1"}]


def minutes_of(text: str) -> float:
    """A number above zero.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none.
    """
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")


def interrupt(*_: object) -> None:
    """End as by Ctrl-C, so that no process is left behind."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where something failed or there is no GPU, 130 when interrupted."""
    steps = "; ".join(f"{name}: {step.what}" for name, step in STEPS.items()).replace("%", "%%")
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--minutes", type=minutes_of, default=MINUTES, help=f"end after so many, by default {MINUTES:g}"
    )
    parser.add_argument(
        "--steps", type=chosen_steps, default=list(STEPS), help=f'such as "2 3", by default all; {steps}'
    )
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder for results")
    given = parser.parse_args(arguments)
    run = Run(given.out.absolute(), given.minutes, given.steps)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        start = run.do(given.steps[0])
        if start is not None and start.ended.get("start") == f"exit code {NO_GPU}":
            tell("\n== some kernels, compiled without a GPU")
            command = python("cuda_compile", "--quick", "--capabilities", "90")
            tell(Batch({"cuda-compile": command}, run.logs).wait(run.left()).said("cuda-compile"))
            tell(start.said("start").splitlines()[-1])
            return 1
        run.compile_first()
        for name in given.steps[1:]:
            run.do(name)
        return int(not run.report())
    except KeyboardInterrupt:
        tell("interrupted; what was measured is kept")
        return 130
    finally:
        if run.compiling is not None:
            run.compiling.wait(0.0)
        signal.signal(signal.SIGTERM, before)
        tell(f"results and gpu-logs are in {run.out}")


if __name__ == "__main__":
    sys.exit(main())
