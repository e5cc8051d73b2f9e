"""Pictures of a training run, drawn without a display and without pyplot, whose import takes time."""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmlp.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastmlp.history import History

__all__ = ["history_figure", "save_figure"]

#: Colours that differ in brightness, too, so that grey print and colour-blind eyes tell them apart (Okabe & Ito 2008).
TRAINING = {"color": "#0072b2", "linestyle": "-", "marker": "o"}
HELD_OUT = {"color": "#d55e00", "linestyle": "--", "marker": "s"}

MOST_MARKERS = 25  #: more would run together


def history_figure(
    history: "History",
    title: str | None = None,
    *,
    epoch_name: str = "epoch",
    loss_name: str = "loss",
    accuracy_of: str = "validation",
) -> "Figure":
    """The curves of loss and accuracy, side by side.

    Parameters
    ----------
    history : History
        Of at least one epoch. Without any accuracy in it, the loss stands alone.
    title : str, optional
        Above both.
    epoch_name : str, default "epoch"
        What the horizontal axis counts.
    loss_name : str, default "loss"
        The name of the loss, for the vertical axis.
    accuracy_of : str, default "validation"
        The data that `History.val_loss` and `History.val_accuracy` belong to, for the legends.

    Returns
    -------
    matplotlib.figure.Figure
        With an Agg canvas; `save_figure` writes it, and a notebook shows it.

    Raises
    ------
    ValueError
        If the history has no epoch.
    """
    if not len(history):
        raise ValueError("history has no epoch; expected one at least")
    with_accuracy = not all(map(math.isnan, history.val_accuracy))
    figure, axes = new_figure(2 if with_accuracy else 1)
    if title:
        figure.suptitle(title, fontsize=13)

    draw_curve(axes[0], history.loss, "training", TRAINING)
    if history.validated:
        draw_curve(axes[0], history.val_loss, accuracy_of, HELD_OUT)
    finish_axes(axes[0], "Loss", epoch_name, loss_name, len(history))
    from_zero(axes[0])
    axes[0].legend(loc="upper right")

    if with_accuracy:
        percent = [100 * accuracy for accuracy in history.val_accuracy]
        style = TRAINING if accuracy_of == "training" else HELD_OUT
        draw_curve(axes[1], percent, f"{accuracy_of}, {percent[-1]:.2f} % at the end", style)
        finish_axes(axes[1], "Accuracy", epoch_name, "accuracy (%)", len(history))
        axes[1].legend(loc="lower right")
    return figure


def new_figure(panels: int) -> "tuple[Figure, list[Axes]]":
    """An empty figure, 120 dots to the inch, with so many axes side by side; it needs no display.

    The margins are fixed: a layout engine would draw everything twice, and take as long again.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 1.0 + 4.5 * panels  # inches
    figure = Figure((width, 4.2), dpi=120)
    FigureCanvasAgg(figure)
    margins = {"left": 0.8 / width, "right": 1 - 0.2 / width, "bottom": 0.13, "top": 0.85, "wspace": 0.24}
    return figure, list(figure.subplots(1, panels, squeeze=False, gridspec_kw=margins)[0])


def draw_curve(axes: "Axes", values: Sequence[float], label: str, style: dict[str, Any]) -> None:
    """One value an epoch, the first at 1."""
    every = -(-len(values) // MOST_MARKERS)
    axes.plot(range(1, len(values) + 1), values, label=label, markersize=5, markevery=every, **style)


def finish_axes(axes: "Axes", title: str, epoch_name: str, quantity: str, epochs: int) -> None:
    """Title, names of the axes, grid, and whole numbers along the epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=12)
    axes.set_xlabel(epoch_name, fontsize=11)
    axes.set_ylabel(quantity, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    margin = max(0.5, 0.03 * epochs) if epochs < 20 else 0.02 * epochs
    axes.set_xlim(1 - margin, epochs + margin)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def from_zero(axes: "Axes") -> None:
    """The vertical axis from 0, with room above the highest point, so that its marker is drawn whole."""
    axes.set_ylim(0, 1.06 * max(axes.dataLim.y1, 1e-12))


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
        Its suffix gives the format: .png, .pdf, .svg and what else matplotlib writes. An existing file is replaced.

    Raises
    ------
    OSError
        If it can't be written there.
    ValueError
        If matplotlib does not write that format.
    """
    with tempfile.TemporaryDirectory(prefix="fastmlp-") as folder:
        drawn = Path(folder, "figure").with_suffix(Path(path).suffix or ".png")
        figure.savefig(drawn)
        write_atomically(path, drawn.read_bytes())
