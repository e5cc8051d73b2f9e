"""What ``fastmlp bench`` does: choose, measure with a progress bar, print the tables, write the result."""

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fastmlp.bench import fits, machine, results, time_to_accuracy
from fastmlp.bench.contenders import CONTENDERS, contender
from fastmlp.bench.measure import Progress as Tell
from fastmlp.bench.measure import measure_suite, ticks
from fastmlp.bench.suites import SUITES, Suite, with_source
from fastmlp.bench.tables import baseline_of, number, seconds_text, spread_text
from fastmlp.bench.time_to_accuracy import SETTINGS, SUMMARY
from fastmlp.bench.work import Work, mnist_is_here
from fastmlp.kernels.names import unknown_name
from fastmlp.training_run import try_to_write

__all__ = [
    "ACCURACY",
    "FITS",
    "INTERRUPTED",
    "OK",
    "REFUSED",
    "NothingMeasured",
    "bench",
    "bench_accuracy",
    "bench_fits",
    "check_fits",
    "check_places",
    "chosen_programs",
    "chosen_suite",
    "listing",
]

OK, REFUSED, INTERRUPTED = 0, 1, 130


class NothingMeasured(RuntimeError):
    """No contender could take part; the message says why."""


ACCURACY = "accuracy"  #: the suite that measures programs, not steps
FITS = tuple(fits.SUITES)  #: those that measure whole fits

#: The load of the machine, as a part of its cores, from which on measuring is not worth much.
BUSY = 0.25
PIPED_WIDTH = 110  #: columns of the tables where output goes to no terminal


def listing() -> str:
    """The suites, a line each, and the contenders."""
    lines = [f"{name}: {suite.summary}" for name, suite in SUITES.items()]
    lines += [f"{name}: {suite.summary}" for name, suite in fits.SUITES.items()]
    lines += [f"{ACCURACY}: {SUMMARY}", f"contenders: {', '.join(CONTENDERS)}"]
    return "\n".join([*lines, f"contenders of the suite {ACCURACY}: {', '.join(SETTINGS)}"])


def chosen_programs(contenders: str | None, batch_sizes: str | None) -> list[str]:
    """The programs of the suite "accuracy" that the command line chooses.

    Raises
    ------
    ValueError
        If there is no such program, or batch sizes are given.
    """
    if batch_sizes is not None:
        raise ValueError(f"--batch-sizes does not go with --suite={ACCURACY}: each program has settings of its own")
    names = list(SETTINGS) if contenders is None else [name.strip() for name in contenders.split(",")]
    for name in names:
        if name not in SETTINGS:
            raise unknown_name("contender", name, SETTINGS)
    return names


def chosen_suite(
    name: str, contenders: str | None = None, batch_sizes: str | None = None, rounds: int | None = None
) -> Suite:
    """The suite of that name, with what the command line changes.

    Parameters
    ----------
    name : str
    contenders : str, optional
        Only these, separated by commas.
    batch_sizes : str, optional
        Only works with these batch sizes, separated by commas.
    rounds : int, optional

    Raises
    ------
    ValueError
        If a value is not as expected, or nothing is left to measure.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, [*SUITES, *fits.SUITES, ACCURACY])
    suite = SUITES[name]
    if rounds is not None:
        suite = replace(suite, rounds=rounds)
    if contenders is not None:
        chosen = tuple(part.strip() for part in contenders.split(","))
        for one in chosen:
            check_contender(one)
        suite = replace(suite, jobs=tuple((work, chosen) for work, _ in suite.jobs))
    if batch_sizes is not None:
        try:
            sizes = {int(text) for text in batch_sizes.split(",")}
        except ValueError:
            raise ValueError(f"--batch-sizes={batch_sizes!r}; expected numbers separated by commas") from None
        suite = replace(suite, jobs=tuple(job for job in suite.jobs if job[0].batch_size in sizes))
        if not suite.jobs:
            raise ValueError(f"--batch-sizes={batch_sizes!r} leaves nothing of the suite {name!r}")
    return suite


def check_fits(name: str, **options: object) -> None:
    """Refuse options that do not go with a suite of whole fits: those that are given, not None.

    Raises
    ------
    ValueError
        Naming the option.
    """
    for option, value in options.items():
        if value is not None:
            raise ValueError(
                f"--{option.replace('_', '-')} does not go with --suite={name}: its fits are as they stand"
            )


def check_contender(name: str) -> None:
    """Refuse a contender that there is none of.

    Raises
    ------
    ValueError
    """
    try:
        contender(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--contenders={name!r}: {error}") from None


def check_places(out: Path | None, plots: Path | None) -> None:
    """Refuse places that nothing can be written to, before half an hour has gone into measuring.

    Raises
    ------
    OSError
        If a folder can't be made, or nothing can be written in it.
    ValueError
        If a file is where a folder should be, or the other way round.
    """
    if out is not None:
        if os.path.isdir(out):
            raise ValueError(f"--out={out} is a folder; expected a file's name")
        if os.path.isfile(out) or not os.path.exists(out):  # a device is written to as it is
            try_to_write(out.parent, given=out)
        with suppress(FileNotFoundError):
            out.lstat()  # another OSError if the name is longer than a file's can be
    if plots is not None:
        try_to_write(plots, "plots")


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Tell]:
    """A bar on a terminal; nothing where output is piped. Gives a function that moves it on.

    It is redrawn only when it moves: a thread that redraws it would run beside the contenders.
    """
    if not console.is_terminal:
        yield lambda text: None
        return
    columns = (BarColumn(20), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        started = False

        def tell(text: str) -> None:
            nonlocal started
            bar.update(task, advance=int(started), description=text, refresh=True)
            started = True

        yield tell
        bar.update(task, completed=total, description="done", refresh=True)


def table_of(result: dict[str, Any], measurement: dict[str, Any]) -> Table:
    """A measurement for the terminal: a row a contender, the fastest first.

    The last column is the speed-up over `baseline_of` the measurement: its time divided by the row's, with the interval
    of 95 %.
    """
    contenders = measurement["contenders"]
    baseline = baseline_of(measurement)
    speed_up = [] if baseline is None else [f"speed-up over {baseline}"]
    table = Table(box=SIMPLE_HEAD, title=Work.from_dict(measurement["work"]).title, title_justify="left")
    table.add_column("contender", no_wrap=True)
    for heading in ("threads", "µs/step", "± IQR", "samples/s", "GFLOP/s", "ceiling", *speed_up):
        table.add_column(heading, justify="right")
    if baseline is not None:
        table.caption = f"speed-up over {baseline}: its time, divided by the row's (and the interval of 95 %)"
        table.caption_justify = "left"
    rows = {name: results.figures(result, measurement, name) for name in contenders}
    for name in sorted(rows, key=lambda name: rows[name].microseconds):
        own = rows[name]
        threads = contenders[name]["settings"].get("threads")
        cells = [number(own.microseconds), number(own.spread), number(own.samples_per_second), number(own.gflops)]
        cells.append("" if own.share is None else f"{own.share:.0%}")
        if baseline is not None and name != baseline:
            times = results.speed_up(contenders[name]["seconds"], contenders[baseline]["seconds"])
            cells.append(f"{number(times.ratio)} ({number(times.low)}–{number(times.high)})")
        table.add_row(name, "auto" if threads is None else str(threads), *cells)
    return table


def absent(result: dict[str, Any], kind: str) -> list[str]:
    """Who is "missing" or "refused", with the reason: a line each, with the number of works where they are several."""
    works: dict[str, int] = {}
    for measurement in result["measurements"]:
        for name, reason in measurement[kind].items():
            line = f"{name}: {reason}"
            works[line] = works.get(line, 0) + 1
    for job in result.get("fits", []):
        works |= {f"{job['what']}: {name}: {reason}": 1 for name, reason in job[kind].items()}
    total = len(result["measurements"])
    if kind == "missing":
        lines = [f"{name}: {reason}" for name, reason in result.get("accuracy", {}).get("missing", {}).items()]
        works |= dict.fromkeys(lines, total)
    return [line if total < 2 else f"{line} ({count} of {total} works)" for line, count in works.items()]


def report_accuracy(console: Console, accuracy: dict[str, Any]) -> None:
    """Print the times to accuracy: a row a program."""
    targets = accuracy["targets"]
    table = Table(box=SIMPLE_HEAD, title="seconds from a process' start, median over seeds (and their range)")
    table.add_column("program", no_wrap=True)
    for target in targets:
        table.add_column(f"to {target:.0%}", justify="right", no_wrap=True)
    table.add_column("settings")
    for name, program in accuracy["programs"].items():
        table.add_row(name, *(seconds_text(program, target) for target in targets), program["title"])
    console.print(table)


def report_fits(console: Console, result: dict[str, Any]) -> None:
    """Print the times of whole fits: a row for a job's program, the fastest first."""
    table = Table(box=SIMPLE_HEAD, title="seconds of a fit, median over seeds (and their range)")
    for heading in ("fit", "program"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "score"):
        table.add_column(heading, justify="right")
    for job in result["fits"]:
        programs = sorted(job["programs"].items(), key=lambda pair: fits.seconds_of(pair[1]))
        for place, (name, program) in enumerate(programs):
            score = number(statistics.mean(program["scores"]))
            table.add_row("" if place else job["what"], name, spread_text(program["seconds"]), score)
    console.print(table)


def report(console: Console, result: dict[str, Any]) -> None:
    """Print all tables, and who is missing or refused."""
    if "fits" in result:
        report_fits(console, result)
    if "accuracy" in result:
        report_accuracy(console, result["accuracy"])
    for measurement in result["measurements"]:
        if measurement["contenders"]:
            console.print(table_of(result, measurement))
    for kind, word in (("missing", "missing: "), ("refused", "REFUSED: ")):
        for line in absent(result, kind):
            console.print(word + line, markup=False, highlight=False)
    for dtype, ceiling in result["ceilings"].items():
        console.print(f"ceiling, {dtype}: {ceiling['gflops']:.0f} GFLOP/s ({ceiling['library']})", highlight=False)


def bench(name: str, suite: Suite, out: Path | None = None, plots: Path | None = None) -> int:
    """Measure a suite, print the tables, write the result and the pictures.

    Parameters
    ----------
    name : str
        The suite's.
    suite : Suite
    out : Path, optional
        The result file; without it none is written.
    plots : Path, optional
        The folder for the pictures; without it none are drawn.

    Returns
    -------
    int
        `OK`, `REFUSED` where a contender's losses were wrong, or `INTERRUPTED` by Ctrl-C; the works that were finished
        by then are reported and written.

    Raises
    ------
    KeyboardInterrupt
        If no work was finished.
    NothingMeasured
        If all contenders are missing.
    """
    notices, console = consoles()
    if any(work.source == "mnist" for work, _ in suite.jobs) and not mnist_is_here():
        print("MNIST is not here (fastmlp train fetches it): measuring with made-up images", file=sys.stderr)
        suite = with_source(suite, "synthetic")
    warn_if_busy()
    with progress_bar(notices, ticks(suite)) as tell:
        result = measure_suite(name, suite, tell, None if out is None else lambda so_far: results.save(so_far, out))
    return finish(console, result, name, out, plots)


def bench_accuracy(
    names: list[str], seeds: int | None = None, out: Path | None = None, plots: Path | None = None
) -> int:
    """Measure times to accuracy; otherwise as `bench`.

    Parameters
    ----------
    names : list of str
        Programs of `fastmlp.bench.time_to_accuracy.SETTINGS`.
    seeds : int, optional
        By default `fastmlp.bench.time_to_accuracy.SEEDS`.
    out, plots : Path, optional

    Raises
    ------
    FileNotFoundError
        If MNIST is not here.
    """
    seeds = seeds or time_to_accuracy.SEEDS
    notices, console = consoles()
    warn_if_busy()
    with progress_bar(notices, len(names) * (seeds + 1)) as tell:
        result = time_to_accuracy.measure_accuracy(names, seeds, progress=tell)
    return finish(console, result, ACCURACY, out, plots)


def bench_fits(name: str, out: Path | None = None) -> int:
    """Measure a suite of whole fits; otherwise as `bench`, without pictures.

    Parameters
    ----------
    name : str
        Of `fastmlp.bench.fits.SUITES`.
    out : Path, optional
    """
    notices, console = consoles()
    warn_if_busy()
    with progress_bar(notices, fits.ticks(fits.SUITES[name])) as tell:
        result = fits.measure_fits(name, tell, None if out is None else lambda so_far: results.save(so_far, out))
    return finish(console, result, name, out, None)


def consoles() -> tuple[Console, Console]:
    """Where the progress goes, and where the tables."""
    console = Console()
    return Console(stderr=True), console if console.is_terminal else Console(width=PIPED_WIDTH)


def warn_if_busy() -> None:
    """Say so where others are at work on this machine."""
    load = machine.load()
    if load is not None and load > BUSY * machine.cores():
        print(f"this machine is busy (load average {load}): figures will wander", file=sys.stderr)


def finish(console: Console, result: dict[str, Any], name: str, out: Path | None, plots: Path | None) -> int:
    """Report, write and draw a result; see `bench`."""
    report(console, result)
    programs = result.get("accuracy", {}).get("programs") or any(job["programs"] for job in result.get("fits", []))
    if not programs and not any(m["contenders"] or m["refused"] for m in result["measurements"]):
        raise NothingMeasured(f"nothing was measured: {'; '.join(absent(result, 'missing'))}")
    if out is not None:
        results.save(result, out)
        console.print(f"written to {out}", markup=False, highlight=False)
    if plots is not None:
        draw(console, result, name if out is None else out.stem, plots)
    if result["interrupted"]:
        return INTERRUPTED
    return REFUSED if any(m["refused"] for m in (*result["measurements"], *result.get("fits", []))) else OK


def draw(console: Console, result: dict[str, Any], stem: str, folder: Path) -> None:
    """Draw all the pictures that a result gives, and name them or the reason why there are none."""
    from fastmlp.bench.plots import save_pictures

    try:
        for path in save_pictures(result, stem, folder):
            console.print(f"picture {path}", markup=False, highlight=False)
    except ValueError as error:
        console.print(f"no picture: {error}", markup=False, highlight=False)
