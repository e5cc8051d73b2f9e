"""Pictures of a comparison, for a slide each; drawn without a display, and told apart in grey, too."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.comparison import HIDDEN, SHOWN_IMAGES, Comparison, Row
from fastmlp.plots import from_zero, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "losses_figure", "misclassified_figure", "save_figures", "throughput_figure"]

#: Colours of Okabe & Ito (2008) that differ in brightness, lines and markers: one for each row, in turn.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "-", "marker": "o"},
    {"color": "#56b4e9", "linestyle": "--", "marker": "s"},
    {"color": "#d55e00", "linestyle": "-", "marker": "^"},
    {"color": "#e69f00", "linestyle": "--", "marker": "D"},
    {"color": "#009e73", "linestyle": "-", "marker": "v"},
    {"color": "#000000", "linestyle": ":", "marker": "P"},
)
FASTMLP_COLOR, TORCH_COLOR = "#0072b2", "#e69f00"


def save_figures(result: Comparison, folder: Path) -> list[Path]:
    """Write every picture that the result allows; returns their paths.

    Parameters
    ----------
    result : Comparison
    folder : Path
        It must exist. Pictures of an earlier comparison in it are replaced.

    Raises
    ------
    OSError
        If one can't be written.
    """
    written = []
    for name, (draw, is_possible) in FIGURES.items():
        if is_possible(result):
            save_figure(draw(result), folder / name)
            written.append(folder / name)
    return written


def job(result: Comparison) -> str:
    """Data and batches in one line."""
    data = "MNIST" if result.data.name == "mnist" else result.data.name
    return f"{data}, {len(result.data.train_images):,} training images, batches of {result.settings.batch_size}"


def losses_figure(result: Comparison) -> "Figure":
    """Losses of fastmlp and of PyTorch over each other in an epoch from the same weights, and their difference below.

    Raises
    ------
    ValueError
        If nothing was compared from the same weights.
    """
    compared = [one for one in result.parity if one.what.startswith("fastmlp")]
    if not compared:
        raise ValueError("the comparison has no epoch of fastmlp and PyTorch from the same weights")
    figure = empty_figure(8.0, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    first = compared[0]
    at = np.arange(1, len(first.curves[0]) + 1) * first.batches_a_point
    ours, theirs = first.curves
    above.plot(at, theirs, color=TORCH_COLOR, linewidth=6, alpha=0.6, label=f"PyTorch, {first.dtype}")
    above.plot(at, ours, color=FASTMLP_COLOR, linewidth=1.4, label=f"{first.what.partition(' and ')[0]}, {first.dtype}")
    above.set_title(f"One epoch from the same weights: {job(result)}", fontsize=12)
    mean = f"mean of {first.batches_a_point}" if first.batches_a_point > 1 else "each"
    above.set_ylabel(f"cross entropy\n({mean} batch{'es' if first.batches_a_point > 1 else ''})", fontsize=11)
    from_zero(above)
    above.legend(loc="upper right")
    for one, style in zip(compared, STYLES, strict=False):
        gap = np.array(one.differences)
        drawn = {**style, "marker": "", "linewidth": 1.4}
        # Where both are equal to the bit a logarithmic axis has no place for the point.
        below.plot(at, np.where(gap > 0, gap, np.nan), label=f"{one.what}, {one.dtype}", **drawn)
    below.set_yscale("log")
    below.set_ylabel("largest\ndifference", fontsize=11)
    below.set_xlabel("batch", fontsize=11)
    below.legend(loc="upper left", bbox_to_anchor=(0, -0.28), ncols=2, fontsize=9, frameon=False)
    for axes in (above, below):
        tidy(axes)
    return figure


def accuracy_figure(result: Comparison) -> "Figure":
    """Test accuracy against seconds of training: a mark an epoch, thin lines for each seed."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = empty_figure(8.0, 5.6)
    axes = figure.subplots()
    for row, style in zip(result.ran, STYLES * 2, strict=False):
        epochs = min(len(course.seconds) for course in row.courses)
        seconds = np.array([np.cumsum(course.seconds)[:epochs] for course in row.courses])
        percent = 100 * np.array([course.test_accuracy[:epochs] for course in row.courses])
        for x, y in zip(seconds, percent, strict=True):
            axes.plot(x, y, color=style["color"], linewidth=0.7, alpha=0.5, marker=".", markersize=3)
        axes.plot(np.median(seconds, 0), percent.mean(0), label=full_name(row), markersize=6, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"Test accuracy against time: {job(result)}", fontsize=12)
    axes.set_xlabel("seconds of training (logarithmic)", fontsize=11)
    axes.set_ylabel("test accuracy (%)", fontsize=11)
    seeds = result.settings.seeds
    told = None if seeds == 1 else f"{seeds} seeds: mean accuracy, median time; thin lines: each seed"
    axes.legend(
        title=told,
        fontsize=9,
        title_fontsize=9,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=2,
    )
    tidy(axes)
    return figure


def throughput_figure(result: Comparison) -> "Figure":
    """Training images a second, a bar for each row, the fastest above."""
    rows = sorted(result.ran, key=lambda row: row.images_per_second)
    figure = empty_figure(8.0, 1.5 + 0.5 * len(rows))
    axes = figure.subplots()
    rates = [row.images_per_second for row in rows]
    ours = [row.model == "mlp" for row in rows]
    bars = axes.barh(
        [full_name(row) for row in rows],
        rates,
        color=[FASTMLP_COLOR if own else TORCH_COLOR for own in ours],
        edgecolor="black",
        hatch=["" if own else "//" for own in ours],
    )
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=4, fontsize=10)
    figure.suptitle(f"Training throughput: {job(result)}", fontsize=12)
    axes.set_xlabel("images a second", fontsize=11)
    axes.set_xlim(0, 1.17 * max(rates))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    tidy(axes)
    axes.grid(visible=False, axis="y")
    return figure


def misclassified_figure(result: Comparison) -> "Figure":
    """Test images that some model takes for something else, with what each says of them; a cross marks the wrong.

    Raises
    ------
    ValueError
        If no model has got any wrong.
    """
    wrong = result.misclassified()
    if not len(wrong):
        raise ValueError("no test image was classified wrongly")
    indices = wrong[np.unique(np.linspace(0, len(wrong) - 1, SHOWN_IMAGES).astype(int))]
    columns = 6
    rows = -(-len(indices) // columns)
    models = result.models
    figure = empty_figure(10.0, 0.5 + rows * (1.3 + 0.17 * len(models)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, index in zip(panels.flat, indices.tolist(), strict=False):
        axes.imshow(result.data.test_images[index].reshape(result.data.image_shape), cmap="gray_r")
        label = int(result.data.test_labels[index])
        axes.set_title(f"image {index}, label {label}", fontsize=8.5, fontweight="bold")
        for line, row in enumerate(models):
            said = said_by(row, index)
            right = said == label
            axes.text(
                0.5,
                -0.06 - 0.19 * line,
                f"{model_name(row)}: {said} {'✓' if right else '✗'}",
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=8,
                color="0.35" if right else "#a11d00",
                fontweight="normal" if right else "bold",
            )
    share = f"{len(indices)} of the {len(wrong):,} test images that at least one model gets wrong"
    figure.suptitle(f"Misclassified: {share} (of {len(result.data.test_labels):,})", fontsize=12)
    return figure


def said_by(row: Row, index: int) -> int:
    """The label that a row's first course gives a test image."""
    labels = row.courses[0].labels
    assert labels is not None  # so are they in Comparison.models
    return int(labels[index])


def model_name(row: Row) -> str:
    """A row's model without its variant."""
    return row.name.partition(",")[0]


def full_name(row: Row) -> str:
    """A row's name that says what it is, too."""
    if row.model in ("mlp", "torch-mlp"):
        return f"{row.name} (MLP, {HIDDEN[0]} hidden)"
    return f"{row.name} (PyTorch)"


def empty_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, 120 dots to the inch; it needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: "Axes") -> None:
    """A pale grid behind, and no frame above and at the right."""
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


#: file -> who draws it, and whether a result allows it
FIGURES: dict[str, tuple[Callable[[Comparison], "Figure"], Callable[[Comparison], bool]]] = {
    "losses.png": (losses_figure, lambda result: bool(result.parity)),
    "accuracy.png": (accuracy_figure, lambda result: bool(result.ran)),
    "throughput.png": (throughput_figure, lambda result: bool(result.ran)),
    "misclassified.png": (misclassified_figure, lambda result: bool(len(result.misclassified()))),
}
