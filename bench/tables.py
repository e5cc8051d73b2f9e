"""The README's table, generated from result files.

``python -m fastmlp.bench.tables README.md bench/results/NAME.json`` rewrites what stands between the two marks; with
``--check`` it only says whether that is current.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmlp.bench.results import Figures, SpeedUp, fastest_of_family, figures, load, speed_up
from fastmlp.bench.work import Work

__all__ = ["BEGIN", "END", "main", "markdown", "replace_block"]

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

OURS = "fastmlp"  #: the family whose first contender is set against the others
#: Families in the order of the columns.
FAMILIES = ("PyTorch", "PyTorch by hand", "JAX", "scikit-learn", "NumPy")

#: What the names of columns don't say.
EXPLAINED = {
    "PyTorch": "the fastest of {labels}",
    "PyTorch by hand": "its operations called for this very network, without autograd, into preallocated tensors",
    "JAX": "all steps in one compiled scan",
}


def number(value: float) -> str:
    """Three significant digits, thousands set apart, no exponent: 0.0123, 1.23, 12.3, 12,345."""
    if value >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}"


def ratio(value: SpeedUp) -> str:
    """How many times faster we are; marked where the rival wins."""
    text = f"{number(value.ratio)} ×"
    return f"**{text}** (rival faster)" if value.ratio < 1 else text


def ours_of(measurement: dict[str, Any]) -> str | None:
    """Our contender: the first of the family in the order of the suite."""
    contenders = measurement["contenders"]
    return next((name for name in contenders if contenders[name]["family"] == OURS), None)


def families_of(measurements: Sequence[dict[str, Any]]) -> list[str]:
    """The rivals' families that took part in any of them."""
    present = {c["family"] for m in measurements for c in m["contenders"].values()}
    return [family for family in FAMILIES if family in present]


def row_title(work: Work, single_network: bool) -> str:
    """The first cell of a row."""
    return f"{work.batch_size:,}" if single_network else f"{list(work.sizes)}, {work.batch_size:,}"


def training_table(result: dict[str, Any], measurements: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table of one dtype's training works: a row a work, a column a family."""
    works = [Work.from_dict(m["work"]) for m in measurements]
    single = len({work.sizes for work in works}) == 1
    families = families_of(measurements)
    title = "batch" if single else "network, batch"
    lines = [
        f"| {' | '.join([title, 'µs a step', 'samples a second', 'of ceiling', *(f'times {f}' for f in families)])} |",
        "|" + "---|" + "---:|" * (3 + len(families)),
    ]
    for work, measurement in zip(works, measurements, strict=True):
        cells = [row_title(work, single)]
        ours = ours_of(measurement)
        if ours is None:
            cells += ["not measured"] + [""] * (2 + len(families))
        else:
            cells += own_cells(figures(result, measurement, ours))
            cells += [rival_cell(measurement, ours, family) for family in families]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def own_cells(own: Figures) -> list[str]:
    """Time, throughput and share of the ceiling."""
    share = "" if own.share is None else f"{own.share:.0%}"
    return [number(own.microseconds), number(own.samples_per_second), share]


def rival_cell(measurement: dict[str, Any], ours: str, family: str) -> str:
    """How many times faster we are than the fastest of a family."""
    rival = fastest_of_family(measurement, family)
    if rival is None:
        return "–"
    contenders = measurement["contenders"]
    return ratio(speed_up(contenders[ours]["seconds"], contenders[rival]["seconds"]))


def lab_table(result: dict[str, Any], measurement: dict[str, Any]) -> list[str]:
    """The lines of the table of the lab's job: a row a contender, set against the NumPy program."""
    contenders = measurement["contenders"]
    lines = ["| lab's full-batch job | ms an iteration | times faster than NumPy |", "|---|---:|---:|"]
    program = fastest_of_family(measurement, "NumPy")
    for name, raw in contenders.items():
        own = figures(result, measurement, name)
        times = ""
        if program is not None and name != program:
            times = ratio(speed_up(raw["seconds"], contenders[program]["seconds"]))
        lines.append(f"| {raw['label']} ({raw['dtype']}) | {number(own.microseconds / 1000)} | {times} |")
    return lines


def notes(result: dict[str, Any]) -> str:
    """Where and how it was measured, and what is missing."""
    machine, measurements = result["machine"], result["measurements"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rounds = sorted({m["rounds"] for m in measurements})
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors; {versions}; "
        f"{machine['date'][:10]}, commit {machine['commit']}.",
        f"Medians of {' or '.join(map(str, rounds))} alternating rounds, each contender in its own process, with the "
        "threads that suit it best, after all have shown the same losses from the same weights and batches.",
    ]
    sources = {m["work"]["source"] for m in measurements if m["work"]["sizes"][0] == 784}
    if "synthetic" in sources:
        parts.append("The images are made up, of MNIST's shape.")
    for dtype, ceiling in result["ceilings"].items():
        parts.append(
            f"Ceiling, {dtype}: {number(ceiling['gflops'])} GFLOP/s, the better of NumPy's and PyTorch's product of "
            f"{ceiling['size']:,} × {ceiling['size']:,} matrices on {ceiling['threads']} threads."
        )
    labels = sorted({c["label"] for m in measurements for c in m["contenders"].values() if c["family"] == "PyTorch"})
    present = families_of([m for m in measurements if m["work"]["job"] == "train"])
    for family, text in EXPLAINED.items():
        if family in present:
            parts.append(f"{family}: {text.format(labels=', '.join(labels))}.")
    for kind, word in (("missing", "Not measured"), ("refused", "Refused")):
        reasons = {f"{name}: {why}" for m in measurements for name, why in m[kind].items()}
        parts += [f"{word}: {' '.join(reason.split())}." for reason in sorted(reasons)]
    return " ".join(parts)


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The tables of several results, each with its notes.

    Parameters
    ----------
    results : sequence of dict
        As `fastmlp.bench.results.load` reads them.

    Returns
    -------
    str
        Markdown, without the marks.
    """
    blocks = []
    for result in results:
        training = [m for m in result["measurements"] if m["work"]["job"] == "train"]
        kinds = {(m["work"]["dtype"], m["work"]["activation"]): None for m in training}
        for dtype, activation in kinds:
            group = [m for m in training if (m["work"]["dtype"], m["work"]["activation"]) == (dtype, activation)]
            sizes = {tuple(m["work"]["sizes"]) for m in group}
            network = f"{list(sizes.pop())}, " if len(sizes) == 1 else ""
            rule = group[0]["work"]["rule"]["kind"]
            blocks.append(f"Training {network}{activation}, {rule}, {dtype}:")
            blocks.append("\n".join(training_table(result, group)))
        blocks += ["\n".join(lab_table(result, m)) for m in result["measurements"] if m["work"]["job"] == "lab"]
        blocks.append(notes(result))
    return "\n\n".join(blocks)


def replace_block(text: str, block: str) -> str:
    """The text with the block between the marks.

    Raises
    ------
    ValueError
        If it does not have each mark once, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"the file to be rewritten has no place for the table; expected one {BEGIN} and after it one {END}"
        )
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def write(path: Path, text: str) -> None:
    """Replace a text file, by way of a temporary name."""
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where the table is not current, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.tables", description=__doc__.partition("\n")[0])
    parser.add_argument("readme", type=Path, help="the file with the two marks")
    parser.add_argument("results", type=Path, nargs="+", help="result files")
    parser.add_argument("--check", action="store_true", help="change nothing, say whether it is current")
    given = parser.parse_args(arguments)
    try:
        text = given.readme.read_text(encoding="utf-8")
        new = replace_block(text, markdown([load(path) for path in given.results]))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        if new != text:
            print(f"{given.readme}: the table is not that of {', '.join(map(str, given.results))}", file=sys.stderr)
        return int(new != text)
    if new != text:
        write(given.readme, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
