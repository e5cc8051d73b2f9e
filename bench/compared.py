"""The README's table of accuracies and times, from a result of ``fastmlp compare``.

``python -m fastmlp.bench.compared README.md bench/results/compare/compare.json`` rewrites what stands between the two
marks; with ``--check`` it only says whether that is current.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmlp.atomic import write_atomically
from fastmlp.comparison import FORMAT
from fastmlp.training_run import counted

__all__ = ["BEGIN", "END", "main", "markdown"]

BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def markdown(result: dict[str, Any]) -> str:
    """The rows as a table, and below it what was compared from the same weights.

    Parameters
    ----------
    result : dict
        As `fastmlp.comparison.save` writes it.

    Raises
    ------
    ValueError
        If it is no such result, or of a comparison that has not come to its end.
    """
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"this is no result of fastmlp compare; expected format {FORMAT!r}")
    if not result["finished"]:
        raise ValueError("this comparison has not come to its end; a table needs a whole one")
    settings, data = result["settings"], result["data"]
    lines = [
        f"{counted(settings['epochs'], 'epoch')} of {data['training']:,} {data['name'].upper()} images in batches of "
        f"{settings['batch_size']}, learning rate {settings['learning_rate']:g}, momentum {settings['momentum']:g}, "
        f"{counted(settings['seeds'], 'seed')}:",
        "",
        "| model | test accuracy | s an epoch | images a second |",
        "|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        if row["courses"]:
            spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.2f}"
            figures = f"{row['epoch_seconds']:.2f} | {row['images_per_second']:,.0f}"
            lines.append(f"| {row['name']} | {100 * row['accuracy']:.2f}{spread} % | {figures} |")
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("fastmlp", "numba", "torch"))
    lines += [
        "",
        f"{result['cpu']}, {result['cores']} cores; {versions}; {result['date'][:10]}. Medians of all epochs.",
    ]
    if result["parity"]:
        lines += [
            f"From the same weights over the same {result['parity'][0]['batches']:,} batches, largest differences: "
            + "; ".join(
                f"{one['what']} ({one['dtype']}) {one['loss_difference']:.1e} of losses, "
                f"{one['weight_difference']:.1e} of weights"
                for one in result["parity"]
            )
            + "."
        ]
    return "\n".join(lines)


def replace_block(text: str, block: str) -> str:
    """The text with another block between the marks.

    Raises
    ------
    ValueError
        If it does not have both marks once, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"expected {BEGIN} and {END}, each once and in this order")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where the table is not current, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.compared", description=__doc__.partition("\n")[0])
    parser.add_argument("readme", type=Path, help="the file with the two marks")
    parser.add_argument("result", type=Path, help="compare.json")
    parser.add_argument("--check", action="store_true", help="change nothing, say whether it is current")
    given = parser.parse_args(arguments)
    try:
        text = given.readme.read_text(encoding="utf-8")
        new = replace_block(text, markdown(json.loads(given.result.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        if new != text:
            print(f"{given.readme}: the table is not that of {given.result}", file=sys.stderr)
        return int(new != text)
    if new != text:
        write_atomically(given.readme, new.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
