"""The lab's pictures: each function takes what a part has found and returns a figure.

Colours go with markers and kinds of line, so that a grey print tells the same. Figures need no display and have an Agg
canvas; `fastmlp.plots.save_figure` writes them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmlp.plots import from_zero

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastmlp.lab import Extra, Node
    from fastmlp.sigmoids import Sigmoid

#: The lab's colours. In grey, the classes differ by their markers, and the line is lighter than both.
CLASS_1: dict[str, Any] = {"color": "blue", "marker": "o", "label": "class 1"}
CLASS_0: dict[str, Any] = {"color": "red", "marker": "x", "label": "class 0"}
BOUNDARY = {"color": "orange", "linewidth": 2.2, "zorder": 3}

#: For curves beside one another: they differ in colour, brightness and kind of line (colours of Okabe & Ito 2008).
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "-"},
    {"color": "#d55e00", "linestyle": "--"},
    {"color": "#000000", "linestyle": ":"},
    {"color": "#009e73", "linestyle": "-."},
    {"color": "#cc79a7", "linestyle": (0, (6, 1, 1, 1, 1, 1))},
    {"color": "#56b4e9", "linestyle": (0, (1, 2))},
)

#: What horizontal axes count; these have whole numbers only.
COUNTED = ("epoch", "step", "update", "iteration")

#: The plane is drawn from -6 to 6, and further where points lie beyond.
EDGE = 6.0


# ---- sheets, axes, and what they share ----


def new_sheet(rows: int, columns: int, width: float, height: float, title: str) -> "tuple[Figure, np.ndarray]":
    """An empty figure of rows × columns axes, each of width × height inches, and the array of the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width * columns, height * rows + 0.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    return figure, figure.subplots(rows, columns, squeeze=False)


def name_axes(ax: "Axes", title: str, x: str, y: str) -> None:
    """Title, names of the axes, whole numbers along what is counted, and a grid behind everything."""
    from matplotlib.ticker import MaxNLocator

    if x in COUNTED:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(x, fontsize=10)
    ax.set_ylabel(y, fontsize=10)
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def logarithmic_losses(ax: "Axes") -> None:
    """A logarithmic vertical axis, for losses that begin by leaping: 10, 20, 50, 100 …"""
    from matplotlib.ticker import LogLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")


def shade(part: float) -> str:
    """A grey for part 0 (light) to 1 (black)."""
    return str(round(0.8 * (1 - part), 3))


# ---- points and lines in the plane ----


def plot_perceptron(ax: "Axes", X: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
    """Points of two classes, the line where a linear unit says ½, and the direction in which it says more.

    Class 1 is blue, class 0 red, the line w₀ + w₁x₁ + w₂x₂ = 0 orange, over x₁ from -6 to 6 (over x₂, where it is
    vertical); an arrow along (w₁, w₂) starts on it, where it is nearest to the middle of the points. Axes are equal.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    X : ndarray [n, 3]
        A column of ones, then the coordinates.
    y : ndarray [n, 1] or [n]
        Classes, 1 and 0.
    w : ndarray [3], or any shape of three entries
        Bias w₀, w₁, w₂. Where both of the latter are 0 there is no line, and none is drawn.

    Raises
    ------
    ValueError
        If a shape is not as described.
    """
    X, y, w = np.asarray(X), np.ravel(y), np.ravel(w)
    if X.ndim != 2 or X.shape[1] != 3:
        raise ValueError(f"X has shape {list(X.shape)}; expected [n, 3], a column of ones and two coordinates")
    if len(y) != len(X):
        raise ValueError(f"y has {len(y)} entries for the {len(X)} rows of X; expected one for each")
    if len(w) != 3:
        raise ValueError(f"w has {len(w)} entries; expected three: bias, w1, w2")
    plot_points(ax, X, y)
    if w[1:].any():
        plot_boundary(ax, w, **BOUNDARY, label="boundary, p = ½")
        plot_direction(ax, X, w)


def plot_points(ax: "Axes", X: np.ndarray, y: np.ndarray) -> None:
    """The points of both classes, on equal axes."""
    y = np.ravel(y)
    for label, style in ((1, CLASS_1), (0, CLASS_0)):
        ax.plot(*X[y == label, 1:].T, linestyle="none", markersize=4.5, **style)
    edge = max(EDGE, 0.5 + abs(X[:, 1:]).max(initial=0))
    name_axes(ax, "", "$x_1$", "$x_2$")
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")


def plot_boundary(ax: "Axes", w: np.ndarray, **style: Any) -> None:
    """The line w₀ + w₁x₁ + w₂x₂ = 0."""
    ends = np.array([-EDGE, EDGE])
    # Nearly vertical lines are drawn over x₂: over x₁ their ends would lie far beyond what can be drawn.
    if abs(w[2]) > 1e-6 * abs(w[1]):
        ax.plot(ends, -(w[0] + w[1] * ends) / w[2], **style)
    else:
        ax.plot(-(w[0] + w[2] * ends) / w[1], ends, **style)


def plot_direction(ax: "Axes", X: np.ndarray, w: np.ndarray) -> None:
    """An arrow of length 1.5 along (w₁, w₂), from the line's point that is nearest to the middle of the points."""
    normal, middle = w[1:] / np.hypot(*w[1:]), X[:, 1:].mean(axis=0)
    start = middle - (w[0] / np.hypot(*w[1:]) + normal @ middle) * normal
    ax.arrow(*start, *(1.5 * normal), color="black", width=0.04, head_width=0.3, length_includes_head=True, zorder=4)


# ---- sigmoids ----


def sigmoid_figure(x: np.ndarray, value: np.ndarray, slope: np.ndarray) -> "Figure":
    """The logistic sigmoid and its derivative."""
    figure, axes = new_sheet(1, 2, 5.0, 3.6, "The logistic sigmoid")
    left, right = axes[0]
    left.plot(x, value, linewidth=2, label=r"$\sigma(x) = 1\,/\,(1 + e^{-x})$", **STYLES[0])
    left.axhline(0.5, color="0.6", linewidth=0.8)
    name_axes(left, "Value", "x", "σ(x)")
    right.plot(x, slope, linewidth=2, label=r"$\sigma'(x) = \sigma(x)\,(1 - \sigma(x))$", **STYLES[1])
    name_axes(right, "Derivative", "x", "σ′(x)")
    for ax, top in ((left, 1.0), (right, 0.25)):
        ax.set(xlim=(-6, 6), ylim=(-0.04 * top, 1.24 * top))
        ax.legend(loc="upper left")
    return figure


def sigmoid_steepness_figure(x: np.ndarray, steepnesses: Sequence[float]) -> "Figure":
    """The sigmoids σ(kx) for several k, and their derivatives k σ (1 − σ)."""
    from fastmlp.sigmoids import logistic, logistic_derivative

    figure, axes = new_sheet(1, 2, 5.0, 3.6, "The logistic sigmoid for several steepnesses k")
    left, right = axes[0]
    for k, style in zip(steepnesses, STYLES, strict=False):
        left.plot(x, logistic(k * x), linewidth=2, label=f"k = {k:g}", **style)
        right.plot(x, k * logistic_derivative(k * x), linewidth=2, label=f"k = {k:g}", **style)
    name_axes(left, "Value", "x", "σ(kx)")
    name_axes(right, "Derivative", "x", "k σ(kx) (1 − σ(kx))")
    for ax in (left, right):
        ax.set_xlim(-6, 6)
        ax.legend(loc="upper left")
    return figure


def sigmoid_family_figure(family: "Mapping[str, Sigmoid]") -> "Figure":
    """Each sigmoid with its derivative, and the difference quotient as dots on it."""
    from fastmlp.sigmoids import numerical_derivative

    columns = 3
    rows = -(-len(family) // columns)
    figure, axes = new_sheet(rows, columns, 3.7, 2.6, "A family of sigmoids and their derivatives")
    x, few = np.linspace(-6, 6, 400), np.linspace(-5.9, 5.9, 24)
    for ax, (name, one) in zip(axes.flat, family.items(), strict=False):
        ax.plot(x, one.value(x), label="value", linewidth=2, **STYLES[0])
        ax.plot(x, one.derivative(x), label="derivative", linewidth=2, **STYLES[1])
        quotient = numerical_derivative(one.value, few)
        ax.plot(few, quotient, "o", color="black", markersize=2.5, label="difference quotient", zorder=3)
        name_axes(ax, f"{name}:  {one.formula}", "x", "f(x), f′(x)")
        ax.set(xlim=(-6, 6), ylim=(-1.75, 2.1))
    for ax in axes.flat[len(family) :]:
        ax.remove()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def sigmoid_tails_figure(family: "Mapping[str, Sigmoid]") -> "Figure":
    """All sigmoids over each other, with the same limits and slope, and how far each still is from its limit."""
    figure, axes = new_sheet(1, 2, 5.6, 4.4, "The family compared: limits −1 and 1, slope 1 at 0")
    left, right = axes[0]
    x = np.linspace(-5, 5, 401)
    positive = np.linspace(0, 8, 401)
    for number, (name, one) in enumerate(family.items()):
        # There are more sigmoids than kinds of line: the second time round they are thin.
        style = STYLES[number % len(STYLES)] | {"linewidth": 2.2 if number < len(STYLES) else 1.1}
        left.plot(x, one.normalised(x), label=name, **style)
        right.semilogy(positive, 1 - one.normalised(positive), label=name, **style)
    name_axes(left, "Value", "x", "f(x)")
    name_axes(right, "Distance from the limit", "x", "1 − f(x)")
    left.set(xlim=(-5, 5), ylim=(-1.08, 1.08))
    right.set(xlim=(0, 8), ylim=(1e-4, 1.2))
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=9, handlelength=3.5)
    return figure


# ---- the linear unit ----


def linear_unit_steps_figure(X: np.ndarray, y: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> "Figure":
    """The line after each step, one panel a step."""
    columns = 5
    steps = len(weights) - 1
    rows = -(-steps // columns)
    figure, axes = new_sheet(
        rows, columns, 2.5, 2.6, "The linear unit learns: its boundary after each step, the arrow along $(w_1, w_2)$"
    )
    for ax in axes.flat[steps:]:
        ax.remove()
    for step, ax in enumerate(axes.flat[:steps], start=1):
        plot_perceptron(ax, X, y, weights[step])
        ax.set_title(f"step {step}, loss {losses[step]:.2f}", fontsize=9)
        tidy_panel(ax, axes, X)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def look_near(ax: "Axes", X: np.ndarray) -> None:
    """Look at the points from near by, with room about them for the line and its arrow; axes stay equal."""
    low, high = X[:, 1:].min(axis=0), X[:, 1:].max(axis=0)
    middle, half_width = (low + high) / 2, (high - low).max()
    ticks = [np.arange(np.ceil(m - half_width), np.floor(m + half_width) + 1) for m in middle]
    ax.set(xlim=middle[0] + half_width * np.array([-1, 1]), ylim=middle[1] + half_width * np.array([-1, 1]))
    ax.set(xticks=ticks[0], yticks=ticks[1])


def tidy_panel(ax: "Axes", axes: np.ndarray, X: np.ndarray) -> None:
    """Small panels look at the points from near by, and only those at the edge of the sheet name their axes."""
    look_near(ax, X)
    if ax not in axes[-1]:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    if ax not in axes[:, 0]:
        ax.set_ylabel("")
        ax.tick_params(labelleft=False)


def linear_unit_figure(X: np.ndarray, y: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> "Figure":
    """All lines over each other, and the loss."""
    steps = len(weights) - 1
    figure, axes = new_sheet(1, 2, 5.2, 4.6, f"A linear unit separates two classes: {steps} full-batch steps")
    left, right = axes[0]
    plot_perceptron(left, X, y, weights[-1])
    for step in range(1, steps):
        label = "after earlier steps, light to dark" if step == steps // 2 else None
        plot_boundary(left, weights[step], color=shade(step / steps), linewidth=0.9, zorder=1, label=label)
    look_near(left, X)
    left.set_title("Boundary", fontsize=11)
    left.legend(loc="upper left", fontsize=8)
    right.plot(losses, marker="o", markersize=4, label="sum over the samples", **STYLES[0])
    name_axes(right, "Loss", "step", "cross-entropy (nats)")
    logarithmic_losses(right)
    right.legend()
    return figure


def minibatch_boundaries_figure(
    X: np.ndarray, y: np.ndarray, mini: np.ndarray, full: np.ndarray, subsets: np.ndarray
) -> "Figure":
    """The line after each update, a panel an update: the mini-batch's, whose samples are ringed, and the full batch's.

    Parameters
    ----------
    X : ndarray [n, 3]
    y : ndarray [n, 1]
    mini, full : ndarray [updates + 1, 3]
        Weights before the first update and after each; as many are drawn as the shorter run has.
    subsets : ndarray of int [updates, size]
        The samples of each of the mini-batch's updates.
    """
    columns = 5
    updates = min(len(mini), len(full)) - 1
    title = f"The first {updates} updates of a random mini-batch, beside as many of the full batch"
    figure, axes = new_sheet(-(-updates // columns), columns, 2.5, 2.6, title)
    for ax in axes.flat[updates:]:
        ax.remove()
    for update, ax in enumerate(axes.flat[:updates], start=1):
        plot_perceptron(ax, X, y, mini[update])
        plot_boundary(ax, full[update], color="black", linestyle="--", linewidth=1.2, label="full batch's boundary")
        ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": "black"}
        ax.plot(*X[subsets[update - 1], 1:].T, linestyle="none", label="drawn for this update", **ring)
        ax.set_title(f"update {update}", fontsize=9)
        tidy_panel(ax, axes, X)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def minibatch_losses_figure(losses: Mapping[str, np.ndarray], epochs: int) -> "Figure":
    """The loss of all samples after each update, along epochs and along updates."""
    figure, axes = new_sheet(1, 2, 5.2, 4.2, "The path of the loss: full batch, mini-batch, single sample")
    left, right = axes[0]
    for style, (name, course) in zip(STYLES, losses.items(), strict=False):
        updates = np.arange(len(course))
        marker = "o" if len(course) <= 50 else None
        settings = style | {"marker": marker, "markersize": 3.5, "linewidth": 1.3, "label": name}
        left.plot(updates * epochs / updates[-1], course, **settings)
        right.plot(updates[1:], course[1:], **settings)
    name_axes(left, "For the same samples seen", "epoch", "cross-entropy of all samples (nats)")
    name_axes(right, "For the same number of updates", "update", "cross-entropy of all samples (nats)")
    right.set_xscale("log")
    for ax in (left, right):
        logarithmic_losses(ax)
        ax.legend()
    return figure


def linear_regression_figure(X: np.ndarray, y: np.ndarray, weights: np.ndarray, least_squares: np.ndarray) -> "Figure":
    """The lines of some steps over the points, and how far the weights are from least squares."""
    figure, axes = new_sheet(1, 2, 5.2, 4.2, "Linear regression: gradient descent meets least squares")
    left, right = axes[0]
    left.plot(X[:, 1], y, "o", color="0.45", markersize=4, label="data")
    ends = np.array([-3.2, 3.2])
    for step, style in zip((1, 3, 10), STYLES[1:], strict=False):
        w = weights[step]
        left.plot(ends, w[0] + w[1] * ends, label=f"after {step} step{'s' if step > 1 else ''}", **style)
    left.plot(ends, least_squares[0] + least_squares[1] * ends, linewidth=2.5, label="least squares", **STYLES[0])
    name_axes(left, "Data and lines", "x", "y")
    left.legend(loc="upper left")
    distance = abs(weights - least_squares).max(axis=1)
    right.semilogy(distance, linewidth=2, label="largest difference of a weight", **STYLES[0])
    name_axes(right, "Distance from least squares", "step", r"$\max_i\,|w_i - w_i^{\mathrm{LS}}|$")
    right.legend()
    return figure


# ---- automatic differentiation ----

#: Where the nodes of the lab's two graphs stand; both have this shape.
PLACES = {"x": (0, 0), "a": (1.8, 0), "b": (3.2, 1), "c": (4.6, 0), "d": (6, 1), "e": (6, -1), "f": (7.4, 0)}


def signed(number: float) -> str:
    """Four decimals, with a minus sign rather than a hyphen."""
    return f"{number:.4f}".replace("-", "−")


def draw_edge(ax: "Axes", start: tuple[float, float], end: tuple[float, float], label: str) -> None:
    """An arrow between two boxes with a label at its middle."""
    level = start[1] == end[1]
    shrink = {"shrinkA": 46, "shrinkB": 49} if level else {"shrinkA": 34, "shrinkB": 38}  # points: boxes are wide
    arrow = {"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.4} | shrink
    ax.annotate("", end, start, arrowprops=arrow, zorder=1)
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    ax.text(*middle, label, ha="center", va="center", fontsize=8.5, color="#0072b2", bbox=paper, zorder=2)


def graph_figure(nodes: "Mapping[str, Node]", formula: str) -> "Figure":
    """A graph with the value and ∂f/∂node in each node and the local derivative at each edge."""
    figure, axes = new_sheet(1, 1, 10.5, 4.4, f"f(x) = {formula}:  the graph at x = {nodes['x'].value:g}")
    ax = axes[0, 0]
    for name, node in nodes.items():
        text = f"{node.formula}\n= {signed(node.value)}\n∂f/∂{name} = {signed(node.slope)}"
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}
        ax.text(*PLACES[name], text, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
        for parent, derivative in node.local.items():
            draw_edge(ax, PLACES[parent], PLACES[name], f"∂{name}/∂{parent}\n{signed(derivative)}")
    ax.set(xlim=(-0.8, 8.3), ylim=(-1.5, 1.5))
    ax.set_axis_off()
    ax.set_title("nodes: value and ∂f/∂node; edges: local derivative, to be multiplied along each path", fontsize=10)
    return figure


class Curves(NamedTuple):
    """A function over a range of x [n], and its derivative by hand there and by autograd at a few points [m]."""

    formula: str
    x: np.ndarray
    value: np.ndarray
    derivative: np.ndarray
    few: np.ndarray
    by_autograd: np.ndarray


def derivatives_figure(drawn: Sequence[Curves], at: float) -> "Figure":
    """Functions with their derivatives by hand (lines) and by autograd (dots)."""
    figure, axes = new_sheet(1, len(drawn), 5.2, 4.2, "The derivative by hand and by autograd")
    for ax, (formula, x, value, derivative, few, by_autograd) in zip(axes[0], drawn, strict=True):
        ax.plot(x, value, label="f(x)", linewidth=1.6, **STYLES[2])
        ax.plot(x, derivative, label="f′(x) by hand", linewidth=2, **STYLES[0])
        ax.plot(few, by_autograd, "o", color="#d55e00", markersize=6, label="f′(x) by autograd", zorder=3)
        ax.axvline(at, color="0.5", linewidth=1, label=f"x = {at:g}")
        name_axes(ax, f"f(x) = {formula}", "x", "f(x), f′(x)")
        ax.legend(loc="upper left")
    return figure


# ---- networks ----


def loss_curve_figure(
    x: np.ndarray, losses: Sequence[float], title: str, subtitle: str, count: str, quantity: str
) -> "Figure":
    """One course of a loss, against what ``count`` says."""
    figure, axes = new_sheet(1, 1, 7.0, 4.2, title)
    marker = "o" if len(losses) <= 80 else None
    axes[0, 0].plot(x, losses, linewidth=1.8, marker=marker, markersize=3.5, label="training", **STYLES[0])
    name_axes(axes[0, 0], subtitle, count, quantity)
    from_zero(axes[0, 0])
    axes[0, 0].set_xlim(left=0)
    axes[0, 0].legend()
    return figure


def digits_figure(images: np.ndarray, labels: np.ndarray, said: np.ndarray, title: str = "") -> "Figure":
    """Some images with what a network says about them; those it gets wrong are framed and marked.

    Parameters
    ----------
    images : ndarray [n, pixels]
    labels, said : ndarray of int [n]
    title : str, optional
    """
    columns = 8
    side = round(images.shape[1] ** 0.5)
    rows = -(-len(images) // columns)
    figure, axes = new_sheet(rows, columns, 1.15, 1.35, title or "Test images, and what the network says they are")
    for ax in axes.flat[len(images) :]:
        ax.remove()
    for ax, image, label, answer in zip(axes.flat, images, labels, said, strict=False):
        ax.imshow(image.reshape(side, side), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
        right = label == answer
        ax.set_title(f"{answer}" if right else f"{answer} (is {label})", fontsize=10, weight=None if right else "bold")
        ax.spines[:].set(color="0.7" if right else "black", linewidth=0.8 if right else 2.5)
    return figure


def one_image_figure(image: np.ndarray, label: int) -> "Figure":
    """An image, given as one row of pixels, with its label above it."""
    side = round(len(image) ** 0.5)
    figure, axes = new_sheet(1, 1, 4.8, 3.8, f"label: {label}")
    shown = axes[0, 0].imshow(image.reshape(side, side), cmap="gray_r")
    name_axes(axes[0, 0], f"{side} × {side} pixels", "column", "row")
    axes[0, 0].grid(False)
    figure.colorbar(shown, label="value of the pixel", fraction=0.046)
    return figure


def extras_figure(results: "Mapping[str, Mapping[str, Extra]]") -> "Figure":
    """For each thing varied: the courses of the loss (mean of the seeds, and their range), and test accuracies."""
    figure, axes = new_sheet(2, len(results), 3.8, 3.4, "One thing changed at a time: [64, 64, 32, 10] on 8 × 8 digits")
    for (above, below), (what, row) in zip(axes.T, results.items(), strict=True):
        draw_courses(above, row)
        name_axes(above, what, "epoch", "training cross-entropy (nats)")
        draw_errors(below, row)
        name_axes(below, "each seed, and the mean", "test error (%)", "")
    return figure


def draw_courses(ax: "Axes", row: "Mapping[str, Extra]") -> None:
    """The mean of the seeds' losses, in a band from the least to the greatest."""
    for style, (name, found) in zip(STYLES, row.items(), strict=False):
        epochs = np.arange(1, found.losses.shape[1] + 1)
        ax.semilogy(epochs, found.losses.mean(axis=0), linewidth=1.8, label=name, **style)
        low, high = found.losses.min(axis=0), found.losses.max(axis=0)
        ax.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set_ylim(bottom=min(found.losses.min() for found in row.values()) / 8)  # room for the legend
    ax.legend(fontsize=8, loc="lower left", handlelength=3)


def draw_errors(ax: "Axes", row: "Mapping[str, Extra]") -> None:
    """The test error of each seed and their mean; linear up to 1 %, logarithmic from there."""
    for place, (name, found) in enumerate(row.items()):
        errors = 100 * (1 - found.accuracies)
        ax.plot(errors, np.full(len(errors), place), "|", color="0.35", markersize=14, markeredgewidth=1.4)
        ax.plot(errors.mean(), place, "o", color="black", markersize=7)
        above: dict[str, Any] = {"xytext": (4, 8), "textcoords": "offset points"}
        ax.annotate(f"{errors.mean():.1f}", (errors.mean(), place), fontsize=9, **above)
        ax.text(0.03, place, name, va="center", fontsize=9)  # few errors are below 1 %: there is room
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlim=(0, 220), ylim=(len(row) - 0.5, -0.6), yticks=[])
    ax.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], labels=["0", "1", "2", "5", "10", "20", "50", "100"])


def bias_figure(X: np.ndarray, y: np.ndarray, weights: Mapping[str, np.ndarray]) -> "Figure":
    """The lines of linear units with and without bias, side by side."""
    figure, axes = new_sheet(1, len(weights), 4.6, 4.6, "What a bias is for: without one, the line passes through 0")
    for ax, (name, w) in zip(axes[0], weights.items(), strict=True):
        plot_perceptron(ax, X, y, w)
        ax.plot(0, 0, "+", color="black", markersize=12, markeredgewidth=2, label="origin")
        ax.set_title(name, fontsize=11)
        ax.legend(loc="lower left", fontsize=8)
    return figure
