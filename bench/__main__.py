"""``python -m bench --suite NAME``: measure, print the tables, write the result."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import machine, results
from bench.contenders import contender
from bench.measure import Progress as Tell
from bench.measure import measure_suite, ticks
from bench.suites import SUITES, Suite, with_source
from bench.tables import number, ours_of
from bench.work import Work, mnist_is_here

OK, REFUSED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

#: The load of the machine, as a part of its cores, from which on measuring is not worth much.
BUSY = 0.25
PIPED_WIDTH = 110  #: columns of the tables where output goes to no terminal


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure fastmlp and its rivals on the same work.",
        epilog="suites: " + "; ".join(f"{name}: {suite.summary}" for name, suite in SUITES.items()),
    )
    parser.add_argument("--suite", choices=SUITES, default="quick", help="default: quick, which takes a minute")
    parser.add_argument("--out", type=Path, help="the result file (JSON); without it nothing is written")
    parser.add_argument("--contenders", help="only these of the suite's, separated by commas; others may be added")
    parser.add_argument("--batch-sizes", help="only works with these batch sizes, separated by commas")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    return parser.parse_args(arguments)


def chosen_suite(given: argparse.Namespace) -> Suite:
    """The suite with what the command line changes.

    Raises
    ------
    ValueError
        If a value is not as expected, or nothing is left to measure.
    """
    suite = SUITES[given.suite]
    if given.rounds is not None:
        if given.rounds < 1:
            raise ValueError(f"--rounds={given.rounds}; expected 1 or more")
        suite = replace(suite, rounds=given.rounds)
    if given.contenders is not None:
        names = tuple(name.strip() for name in given.contenders.split(","))
        for name in names:
            contender(name)
        suite = replace(suite, jobs=tuple((work, names) for work, _ in suite.jobs))
    if given.batch_sizes is not None:
        try:
            sizes = {int(text) for text in given.batch_sizes.split(",")}
        except ValueError:
            raise ValueError(f"--batch-sizes={given.batch_sizes!r}; expected numbers separated by commas") from None
        suite = replace(suite, jobs=tuple(job for job in suite.jobs if job[0].batch_size in sizes))
        if not suite.jobs:
            raise ValueError(f"--batch-sizes={given.batch_sizes!r} leaves nothing of the suite {given.suite!r}")
    return suite


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
    """A measurement for the terminal: a row a contender, the fastest first."""
    ours = ours_of(measurement)
    table = Table(box=SIMPLE_HEAD, title=Work.from_dict(measurement["work"]).title, title_justify="left")
    table.add_column("contender", no_wrap=True)
    for heading in ("threads", "µs/step", "± IQR", "samples/s", "GFLOP/s", "ceiling", f"times {ours or '-'}"):
        table.add_column(heading, justify="right")
    contenders = measurement["contenders"]
    rows = {name: results.figures(result, measurement, name) for name in contenders}
    for name in sorted(rows, key=lambda name: rows[name].microseconds):
        own = rows[name]
        threads = contenders[name]["settings"].get("threads")
        cells = [number(own.microseconds), number(own.spread), number(own.samples_per_second), number(own.gflops)]
        cells.append("" if own.share is None else f"{own.share:.0%}")
        if ours is not None and name != ours:
            times = results.speed_up(contenders[ours]["seconds"], contenders[name]["seconds"])
            cells.append(f"{number(times.ratio)} ({number(times.low)}–{number(times.high)})")
        table.add_row(name, "auto" if threads is None else str(threads), *cells)
    return table


def report(console: Console, result: dict[str, Any]) -> None:
    """Print all tables, and who is missing or refused.

    The last column says how many times our time a contender takes, with the interval of 95 %: below 1 it is faster.
    """
    for measurement in result["measurements"]:
        console.print(table_of(result, measurement))
        for name, reason in measurement["missing"].items():
            console.print(f"  {name} is missing: {reason}", markup=False, highlight=False)
        for name, reason in measurement["refused"].items():
            console.print(f"  {name} IS REFUSED: {reason}", markup=False, highlight=False)
    for dtype, ceiling in result["ceilings"].items():
        console.print(f"ceiling, {dtype}: {ceiling['gflops']:.0f} GFLOP/s ({ceiling['library']})", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = parse(arguments)
    notices, console = Console(stderr=True), Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    try:
        suite = chosen_suite(given)
    except (ValueError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    if any(work.source == "mnist" for work, _ in suite.jobs) and not mnist_is_here():
        print("MNIST is not here (fastmlp train fetches it): measuring with made-up images", file=sys.stderr)
        suite = with_source(suite, "synthetic")
    load = machine.load()
    if load is not None and load > BUSY * machine.cores():
        print(f"this machine is busy (load average {load}): figures will wander", file=sys.stderr)
    try:
        with progress_bar(notices, ticks(suite)) as tell:
            result = measure_suite(given.suite, suite, tell)
    except KeyboardInterrupt:
        print("interrupted: nothing is written", file=sys.stderr)
        return INTERRUPTED
    if given.out is not None:
        results.save(result, given.out)
    report(console, result)
    if given.out is not None:
        console.print(f"written to {given.out}", markup=False, highlight=False)
    return REFUSED if any(m["refused"] for m in result["measurements"]) else OK


if __name__ == "__main__":
    sys.exit(main())
