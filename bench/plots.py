"""Pictures of a result file: throughput against batch size, speed-ups, a roofline; accuracy against time.

``python -m fastmlp.bench.plots bench/results/NAME.json --out FOLDER`` writes those that the file has figures for.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp.bench.results import figures, load, speed_up
from fastmlp.bench.tables import OURS, ours_of
from fastmlp.bench.time_to_accuracy import seconds_to
from fastmlp.bench.work import Work, bytes_touched, operations
from fastmlp.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "main", "roofline_figure", "save_pictures", "speed_up_figure", "throughput_figure"]

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
OWN_STYLE = {"color": "black", "linestyle": "-", "marker": "o", "linewidth": 2.2}


def line_style(color: str, line: str, marker: str) -> dict[str, Any]:
    """Of a rival."""
    return {"color": color, "linestyle": line, "marker": marker, "linewidth": 1.2}


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
        return tuple(work["sizes"]), work["dtype"], work["activation"], work["loss"], tuple(work["rule"].items())

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
    return f"{list(work.sizes)}, {work.activation}, {work.dtype}, {work.data}"


def styles_of(measurements: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How each contender's line is drawn."""
    styles = itertools.cycle(STYLES)
    found = {}
    for name in names_of(measurements):
        ours = next(m["contenders"][name]["family"] for m in measurements if name in m["contenders"]) == OURS
        found[name] = OWN_STYLE if ours else line_style(*next(styles))
    return found


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
    for name, style in styles_of(measurements).items():
        there = [m for m in measurements if name in m["contenders"]]
        axes.plot(
            [m["work"]["batch_size"] for m in there],
            [figures(result, m, name).samples_per_second for m in there],
            label=label_of(measurements, name),
            **style,
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
    axes.set_ylabel("speed-up over the rival: its time / ours")
    axes.set_title(f"fastmlp's speed-up: {title_of(measurements)}", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    signature(figure, result)
    return figure


def roofline_figure(result: dict[str, Any]) -> "Figure":
    """The rate of arithmetic against operational intensity, both logarithmic, below the roofs of the machine.

    After Williams, Waterman & Patterson (2009). The roofs are measured in the same run: the rate of a large matrix
    product, and of memory times intensity. A step's bytes are those of `fastmlp.bench.work.bytes_touched`, as if
    all came from memory; a point above the slope tells that parameters stay in the caches.

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
        If the result has no training work, or its run did not measure both roofs.
    """
    measurements = training_of(result)
    ceiling = result["ceilings"].get(measurements[0]["work"]["dtype"])
    if ceiling is None or result["memory"] is None:
        raise ValueError("the result has no measured roofs")
    peak, bandwidth = ceiling["gflops"], result["memory"]["gigabytes_per_second"]
    works = [Work.from_dict(m["work"]) for m in measurements]
    intensities = [operations(work) / bytes_touched(work) for work in works]
    figure, (axes,) = new_figure(1)
    resize(figure, 8.0, 5.4)
    ends = (min([*intensities, peak / bandwidth]) / 1.6, max(intensities) * 1.6)
    axes.plot(ends, (peak, peak), color="0.5", linewidth=3, label=f"matrix product: {peak:.0f} GFLOP/s")
    slope = (ends[0], peak / bandwidth)
    label = f"memory: {bandwidth:.0f} GB/s"
    axes.plot(slope, [bandwidth * x for x in slope], color="0.7", linewidth=3, linestyle=(0, (3, 1)), label=label)
    for name, style in styles_of(measurements).items():
        there = [(x, m) for x, m in zip(intensities, measurements, strict=True) if name in m["contenders"]]
        rates = [figures(result, m, name).gflops for _, m in there]
        axes.plot([x for x, _ in there], rates, label=label_of(measurements, name), **{**style, "linewidth": 0.8})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("operations a byte that a step touches (FLOP/B)")
    axes.set_ylabel("matrix products (GFLOP/s)")
    sizes = axes.secondary_xaxis("top")
    sizes.set_xticks(intensities, [f"{work.batch_size:,}" for work in works], fontsize=8)
    spread_labels(sizes.get_xticklabels(), intensities)
    sizes.set_xticks([], minor=True)
    sizes.set_xlabel("batch size", fontsize=9)
    figure.text(
        0.01,
        0.01,
        "Bytes are counted as if all came from memory: above the slope, parameters stay in the caches. Operations are "
        "those of\ndense products: above the roof, arithmetic on the samples' background is left out.",
        fontsize=7,
        color="0.4",
    )
    axes.set_title(f"Roofline: {title_of(measurements)}", fontsize=12)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left, bottom, width, height - 0.09))
    signature(figure, result)
    return figure


def spread_labels(labels: Sequence[Any], places: Sequence[float]) -> None:
    """Hide labels that would run into the last one shown; the last of all is always shown."""
    shown = math.inf
    for label, place in zip(reversed(labels), reversed(places), strict=True):
        if place * 1.12 > shown:
            label.set_visible(False)
        else:
            shown = place


def accuracy_figure(result: dict[str, Any]) -> "Figure":
    """The test accuracy against seconds since the start of the process, a line a program.

    Of each program the run with the median time to the last accuracy is drawn, or the one that came nearest to it.

    Parameters
    ----------
    result : dict
        As `fastmlp.bench.results.load` reads it, of the suite "accuracy".

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the result has no times to accuracy.
    """
    if not result.get("accuracy", {}).get("programs"):
        raise ValueError("the result has no times to accuracy")
    from matplotlib.ticker import LogLocator, NullLocator

    targets = result["accuracy"]["targets"]
    figure, (axes,) = new_figure(1)
    resize(figure, 10.5, 5.0)
    styles = itertools.cycle(STYLES)
    for name, program in result["accuracy"]["programs"].items():
        curve = median_run(program, targets[-1])["curve"]
        style = OWN_STYLE if name == OURS else line_style(*next(styles))
        axes.plot(
            [point["seconds"] for point in curve],
            [100 * point["accuracy"] for point in curve],
            label=program["label"],
            **{**style, "markersize": 5},
        )
    for target in targets:
        axes.axhline(100 * target, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=max(90.0, axes.get_ylim()[0]))
    axes.set_xlabel("seconds since the start of the process")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"Time to accuracy: {result['accuracy']['sizes']} on MNIST, a point an epoch", fontsize=12)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left, bottom, width - 0.3, height))
    signature(figure, result)
    return figure


def median_run(program: dict[str, Any], target: float) -> dict[str, Any]:
    """The run with the median time to an accuracy; runs that did not get there come last, the best of them first."""

    def rank(run: dict[str, Any]) -> tuple[float, float]:
        return seconds_to(run, target), -max(point["accuracy"] for point in run["curve"])

    ranked = sorted(program["runs"], key=rank)
    return ranked[len(ranked) // 2]


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


#: kind -> what draws it
FIGURES: dict[str, Callable[[dict[str, Any]], "Figure"]] = {
    "throughput": throughput_figure,
    "speed-up": speed_up_figure,
    "roofline": roofline_figure,
    "accuracy": accuracy_figure,
}


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
    reasons = []
    for kind, draw in FIGURES.items():
        try:
            figure = draw(result)
        except ValueError as reason:
            reasons.append(str(reason))
            continue
        paths.append(folder / f"{stem}-{kind}.{suffix}")
        save_figure(figure, paths[-1])
    if not paths:
        raise ValueError("; ".join(dict.fromkeys(reasons)))
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
