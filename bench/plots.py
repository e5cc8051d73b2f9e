"""Pictures of a result file: throughput against batch size, and speed-ups.

``python -m fastmlp.bench.plots bench/results/NAME.json --out FOLDER`` writes both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp.bench.results import figures, load, speed_up
from fastmlp.bench.tables import OURS, ours_of
from fastmlp.bench.work import Work
from fastmlp.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["main", "speed_up_figure", "throughput_figure"]

#: Greys that stay apart in print, with line and marker: ours is black, solid and heavy.
STYLES = (
    ("0.45", "--", "s"),
    ("0.3", "-.", "^"),
    ("0.6", ":", "D"),
    ("0.2", ":", "v"),
    ("0.55", "-", "x"),
    ("0.4", "--", "P"),
    ("0.65", "-.", "*"),
    ("0.5", "-", "+"),
)
#: Greys and hatches of the bars.
BARS = (("0.25", ""), ("0.5", "//"), ("0.7", ""), ("0.85", "xx"), ("0.95", ".."), ("0.6", "\\\\"), ("0.8", "--"))


def training_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements of the first training work's network, by batch size.

    Raises
    ------
    ValueError
        If there is none.
    """
    training = [m for m in result["measurements"] if m["work"]["job"] == "train" and m["contenders"]]
    if not training:
        raise ValueError("the result has no training work to draw")

    def kind(measurement: dict[str, Any]) -> tuple:
        work = measurement["work"]
        return tuple(work["sizes"]), work["dtype"], work["activation"], work["loss"]

    same = [m for m in training if kind(m) == kind(training[0])]
    return sorted(same, key=lambda m: m["work"]["batch_size"])


def names_of(measurements: Sequence[dict[str, Any]]) -> list[str]:
    """All contenders, in the order of the suite."""
    return list(dict.fromkeys(name for m in measurements for name in m["contenders"]))


def label_of(measurements: Sequence[dict[str, Any]], name: str) -> str:
    """A contender's name for people."""
    return next(m["contenders"][name]["label"] for m in measurements if name in m["contenders"])


def title_of(measurements: Sequence[dict[str, Any]]) -> str:
    """Network, activation and dtype."""
    work = Work.from_dict(measurements[0]["work"])
    return f"{list(work.sizes)}, {work.activation}, {work.dtype}"


def throughput_figure(result: dict[str, Any]) -> "Figure":
    """Samples a second against batch size, both logarithmic, a line a contender.

    Parameters
    ----------
    result : dict
        As `fastmlp.bench.results.load` reads it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the result has no training work.
    """
    measurements = training_of(result)
    figure, (axes,) = new_figure(1)
    resize(figure, 8.0, 5.0)
    styles = iter(STYLES * 2)
    for name in names_of(measurements):
        there = [m for m in measurements if name in m["contenders"]]
        ours = there[0]["contenders"][name]["family"] == OURS
        color, line, marker = ("black", "-", "o") if ours else next(styles)
        axes.plot(
            [m["work"]["batch_size"] for m in there],
            [figures(result, m, name).samples_per_second for m in there],
            color=color,
            linestyle=line,
            marker=marker,
            linewidth=2.2 if ours else 1.2,
            label=label_of(measurements, name),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    batches_along(axes, [m["work"]["batch_size"] for m in measurements])
    axes.set_ylabel("samples a second")
    axes.set_title(f"Training throughput: {title_of(measurements)}", fontsize=12)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    signature(figure, result)
    return figure


def speed_up_figure(result: dict[str, Any]) -> "Figure":
    """How many times faster we are than each rival: groups of bars, with 95 % intervals, on a logarithmic axis.

    Parameters
    ----------
    result : dict
        As `fastmlp.bench.results.load` reads it.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the result has no training work, or none with us and a rival.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    measurements = training_of(result)
    rivals = [name for name in names_of(measurements) if name not in {ours_of(m) for m in measurements}]
    if not rivals or all(ours_of(m) is None for m in measurements):
        raise ValueError("the result has no rival beside us to draw")
    figure, (axes,) = new_figure(1)
    resize(figure, 10.0, 5.0)
    width = 0.8 / len(rivals)
    for number, name in enumerate(rivals):
        draw_bars(axes, measurements, name, (number - (len(rivals) - 1) / 2) * width, width, BARS[number % len(BARS)])
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g} ×")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(range(len(measurements)), [f"{m['work']['batch_size']:,}" for m in measurements])
    axes.set_xlabel("batch size")
    axes.set_ylabel("times faster (below 1: the rival wins)")
    axes.set_title(f"fastmlp's speed-up: {title_of(measurements)}", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    signature(figure, result)
    return figure


def draw_bars(
    axes: "Axes", measurements: Sequence[dict[str, Any]], name: str, shift: float, width: float, look: tuple[str, str]
) -> None:
    """A rival's bar in each group where it took part beside us."""
    label: str | None = label_of(measurements, name)
    for place, measurement in enumerate(measurements):
        contenders, ours = measurement["contenders"], ours_of(measurement)
        if ours is None or name not in contenders:
            continue
        times = speed_up(contenders[ours]["seconds"], contenders[name]["seconds"])
        axes.bar(
            place + shift,
            times.ratio - 1,
            width,
            bottom=1,
            yerr=[[max(times.ratio - times.low, 0)], [max(times.high - times.ratio, 0)]],
            error_kw={"elinewidth": 0.8},
            color=look[0],
            hatch=look[1],
            edgecolor="black",
            linewidth=0.5,
            label=label,
        )
        label = None


def resize(figure: "Figure", width: float, height: float) -> None:
    """Give a figure of one panel another size, in inches, with margins to suit it."""
    figure.set_size_inches(width, height)
    left, bottom = 0.85 / width, 0.75 / height
    figure.axes[0].set_position((left, bottom, 1 - 0.2 / width - left, 1 - 0.4 / height - bottom))


def batches_along(axes: "Axes", batch_sizes: Sequence[int]) -> None:
    """The batch sizes that were measured as the ticks of the horizontal axis."""
    axes.set_xticks(batch_sizes, [f"{size:,}" for size in batch_sizes], fontsize=9)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("batch size")


def signature(figure: "Figure", result: dict[str, Any]) -> None:
    """Machine, date and commit, small, at the foot."""
    machine = result["machine"]
    text = f"{machine['cpu']}, {machine['cores']} cores · {machine['date'][:10]} · commit {machine['commit']}"
    figure.text(0.995, 0.01, text, ha="right", va="bottom", fontsize=7, color="0.4")


def save_pictures(result: dict[str, Any], stem: str, folder: Path, suffix: str = "png") -> list[Path]:
    """Draw what a result gives.

    Parameters
    ----------
    result : dict
        As `fastmlp.bench.results.load` reads it.
    stem : str
        What the pictures' names begin with.
    folder : Path
        Made if it is not there.
    suffix : str, default "png"

    Returns
    -------
    list of Path
        The files, written.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, draw in (("throughput", throughput_figure), ("speed-up", speed_up_figure)):
        paths.append(folder / f"{stem}-{kind}.{suffix}")
        save_figure(draw(result), paths[-1])
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.plots", description=__doc__.partition("\n")[0])
    parser.add_argument("result", type=Path, help="a result file")
    parser.add_argument("--out", type=Path, help="the folder for the pictures; by default that of the result file")
    parser.add_argument("--format", default="png", choices=("png", "svg", "pdf"))
    given = parser.parse_args(arguments)
    folder = given.out or given.result.parent
    try:
        result = load(given.result)
        for path in save_pictures(result, given.result.stem, folder, given.format):
            print(path)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
