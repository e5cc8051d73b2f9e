"""The lab's parts, end to end, against formulas and plain programs written here, and their pictures."""

import ast
import contextlib
import functools
import inspect
import io
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrow
from PIL import Image

from fastmlp import cli, data, lab, lab_notebook, lab_plots, lab_run
from fastmlp.data import DataNotFound
from fastmlp.history import History
from fastmlp.sigmoids import SIGMOIDS, numerical_derivative

needs_mnist = pytest.mark.skipif("FASTMLP_DATA" not in os.environ, reason="FASTMLP_DATA names no folder with MNIST")

#: part -> the pictures that it shows, in order
PICTURES = {
    "derivations": [],
    "linear-unit": ["linear-unit-steps", "linear-unit"],
    "minibatch": ["minibatch-boundaries", "minibatch-losses"],
    "linear-regression": ["linear-regression"],
    "sigmoid": ["sigmoid", "sigmoid-steepness", "sigmoid-family", "sigmoid-tails"],
    "autodiff": ["autodiff-graph-1", "autodiff-graph-2", "autodiff-derivatives"],
    "torch-mlp": ["torch-mlp-loss", "torch-mlp-digits"],
    "torch-cnn": ["torch-cnn-loss", "torch-cnn-digits"],
    "mixer": ["mixer-loss", "mixer-digits"],
    "one-image": ["one-image"],
    "scratch-mlp": ["scratch-mlp-loss", "scratch-mlp-digits"],
    "extras": ["extras", "extras-bias"],
}
WITH_MNIST = ("torch-mlp", "torch-cnn", "mixer", "one-image", "scratch-mlp")

#: part -> what its title says of its exercise
EXERCISES = {
    "derivations": "Exercises 1, 2, 3: ",
    "linear-unit": "Exercise 4: ",
    "minibatch": "Exercise 5: ",
    "linear-regression": "Exercise 6: ",
    "sigmoid": "Exercise 7: ",
    "autodiff": "Exercises 8, 9, 10: ",
    "torch-mlp": "Exercise, MNIST: an MLP",
    "torch-cnn": "Exercise, MNIST: a convolutional network",
    "mixer": "Advanced exercise: a recent paper's architecture",
    "one-image": "Exercise, MNIST: one image drawn with its label",
    "scratch-mlp": "Exercise: the multilayer perceptron from scratch",
    "extras": "Extra exercises: bias or none, activation, initialisation, optimiser",
}


class Ran:
    """A part that has run: what it returned and printed, and its figures by name."""

    def __init__(self, name):
        self.figures: dict[str, Figure] = {}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.found = lab.PARTS[name](self.show, True)
        self.printed = printed.getvalue()

    def show(self, figure, name):
        assert name not in self.figures
        self.figures[name] = figure

    def numbers(self, pattern):
        """The numbers that a pattern finds in what was printed."""
        return [float(number) for number in re.findall(pattern, self.printed)]


@pytest.fixture(scope="module")
def run():
    """Run a part, quick; a second call for the same part returns the same."""
    return functools.cache(Ran)


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_torch():
    """Batches of 5 are no work for two, and threads that wait for each other take long where others want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- every part ----


def test_the_parts_are_the_labs():
    assert list(lab.PARTS) == list(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_each_part_names_its_exercise_and_explains_itself(name):
    assert lab_run.titles()[name].startswith(EXERCISES[name])
    assert lab_run.explanation(name).count(". ") + lab_run.explanation(name).count(".\n") >= 1  # some sentences
    shown = [lab_run.code_of(function) for function in lab.CODE[name]]
    assert shown
    for code in shown:
        (function,) = ast.parse(code).body
        assert ast.get_docstring(function) is None
        assert len(code.splitlines()) < 30


@pytest.mark.parametrize("name", [n if n not in WITH_MNIST else pytest.param(n, marks=needs_mnist) for n in PICTURES])
def test_each_part_runs_and_its_pictures_are_fit_to_be_shown(name, run):
    ran = run(name)
    assert ran.printed
    assert list(ran.figures) == PICTURES[name]
    for picture, figure in ran.figures.items():
        figure.canvas.draw()
        for axes in figure.axes:
            are_drawn_whole(axes, picture)
        grey = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].mean(axis=2)
        inked = np.mean(grey < 200)
        assert 0.003 < inked < 0.5, f"{picture} is blank, or black"
        assert figure.get_suptitle()
        width, height = figure.canvas.get_width_height()
        assert (width, height) == grey.shape[::-1]
        title = figure._suptitle.get_window_extent()
        assert title.x0 >= 0
        assert title.x1 <= width
        for axes in figure.axes:
            has_axes_of_numbers = axes.axison and len(axes.get_xticks())
            assert not has_axes_of_numbers or not axes.get_visible() or any_label(figure, axes), picture
            box = axes.get_tightbbox()
            if axes.get_visible():
                assert box.x0 >= -1
                assert box.y0 >= -1
                assert box.x1 <= width + 1
                assert box.y1 <= height + 1


def are_drawn_whole(axes, picture):
    """A panel has something on it, its markers are whole, its points not squeezed, and what it counts is whole."""
    assert axes.has_data() or axes.texts, f"{picture} has a blank panel"
    if axes.get_xlabel() in ("epoch", "step", "iteration", "update") and axes.get_xscale() == "linear":
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks == [round(tick) for tick in ticks], f"{picture}: {ticks}"
        assert len(ticks) > 1
    for line in axes.lines:
        if line.get_marker() in ("o", "x") and line.get_clip_on():
            points = axes.transData.transform(np.column_stack(line.get_data()))
            inside = axes.bbox.padded(-line.get_markersize() / 2 * axes.figure.dpi / 72)
            assert points[:, 1].max() <= inside.y1, f"{picture}: a marker is cut off"
            assert points[:, 1].min() >= inside.y0, f"{picture}: a marker is cut off"
    classes = [line for line in axes.lines if line.get_label() in ("class 0", "class 1")]
    if classes and not picture.startswith("extras"):  # there the origin belongs to the picture
        points = np.hstack([line.get_data() for line in classes])
        widths = np.ptp(points, axis=1) / [np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())]
        assert widths.max() > 0.4, f"{picture}: the points are squeezed into {widths}"


def test_no_column_of_a_table_is_printed_twice(run):
    (headings,) = (line.split() for line in run("minibatch").printed.splitlines() if line.startswith("batch size"))
    assert headings == ["batch", "size", "0", "1", "2", "3", "4", "5"]


def any_label(figure, axes):
    """Whether a panel names its axes, or stands in a grid whose outer panels do."""
    last_row = axes.get_subplotspec().is_last_row()
    return bool(axes.get_xlabel()) or not last_row


# ---- the linear unit ----


def test_the_gradient_of_the_linear_unit_agrees_with_difference_quotients(run):
    ran = run("derivations")
    assert [name[: len("exercise 1")] for name in ran.found] == ["exercise 1", "exercise 2", "exercise 3"]
    assert max(ran.found.values()) < 1e-7
    ratios = ran.numbers(r"(?m)^(?:0\.0\d*1|1e-05) .* (\S+)$")
    assert len(ratios) == 4
    assert ratios[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("y", [0.0, 1.0])
@pytest.mark.parametrize("z", [-800.0, -3.0, 0.0, 0.5, 800.0])
def test_loss_and_gradient_of_a_single_point(y, z):
    w, x = np.array([z - 2, 1.0, 0.5]), np.array([1.0, 1.0, 2.0])
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-z))
        # -ln σ(z) = ln(1 + e^-z), which is -z where e^-z is too large
        loss = max(0.0, -z if y else z) + math.log1p(math.exp(-abs(z)))
        assert lab.loss_i(w, x, y) == pytest.approx(loss, rel=1e-13)
        np.testing.assert_allclose(lab.grad_loss_i(w, x, y), -(y - p) * x, rtol=1e-13)


def test_the_kernels_take_the_steps_of_the_sum_over_points(run):
    (difference,) = run("linear-unit").numbers(r"weights differ by (\S+) at most")
    assert difference < 1e-12


def test_the_sigmoid_is_drawn_for_several_steepnesses(run):
    left, right = run("sigmoid").figures["sigmoid-steepness"].axes
    assert len(left.lines) == len(lab.STEEPNESSES) >= 3
    for k, value, slope in zip(lab.STEEPNESSES, left.lines, right.lines, strict=True):
        x = value.get_xdata()
        np.testing.assert_allclose(value.get_ydata(), 1 / (1 + np.exp(-k * x)), rtol=1e-13)
        quotient = numerical_derivative(lambda x, k=k: 1 / (1 + np.exp(-k * x)), x)
        np.testing.assert_allclose(slope.get_ydata(), quotient, rtol=0, atol=1e-9)


def test_sigmoid_is_drawn_with_its_derivative_over_the_labs_range(run):
    left, right = run("sigmoid").figures["sigmoid"].axes
    x = left.lines[0].get_xdata()
    assert (x[0], x[-1]) == (-6, 6) == left.get_xlim()
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(left.lines[0].get_ydata(), s, rtol=1e-14)
    np.testing.assert_allclose(right.lines[0].get_ydata(), s * (1 - s), rtol=1e-13)


def test_all_derivatives_agree_with_difference_quotients(run):
    ran = run("sigmoid")
    assert set(ran.found) == set(SIGMOIDS)
    assert {"tanh", "arctan", "erf", "Gudermannian", "algebraic", "softsign", "smoothstep"} < set(SIGMOIDS)
    assert max(ran.found.values()) < 1e-8
    assert ran.numbers(r"(\d\.\de-\d+)\n") == pytest.approx(list(ran.found.values()), rel=0.06)


@pytest.mark.parametrize("name", SIGMOIDS)
def test_sigmoids_rise_from_limit_to_limit(name):
    one = SIGMOIDS[name]
    x = np.linspace(-30, 30, 601)
    assert (np.diff(one.value(x)) >= 0).all()
    far = one.value(np.array([-1e9, 1e9]) if name not in ("logistic", "tanh") else np.array([-700.0, 700.0]))
    assert far == pytest.approx([-one.limit if one.low is None else one.low, one.limit], abs=1e-8)
    assert one.derivative(np.zeros(1))[0] == one.derivative(x).max()
    normal = one.normalised(np.array([-1e-6, 0, 1e-6]))
    assert normal[1] == pytest.approx(0, abs=1e-15)
    assert (normal[2] - normal[0]) / 2e-6 == pytest.approx(1, abs=1e-5)


def test_a_wrong_derivative_would_be_seen():
    x = np.linspace(-6, 6, 240)
    assert abs(1.001 / np.cosh(x) ** 2 - numerical_derivative(np.tanh, x)).max() > 1e-4


def plain_linear_unit(X, y, batches, step=0.1):
    """Weights and summed losses of the lab's linear unit, by its formulas alone, before and after each step."""

    def loss(w):
        p = 1 / (1 + np.exp(-X @ w))
        return -np.sum(y * np.log(p) + (1 - y) * np.log(1 - p))

    w = np.zeros((3, 1))
    weights, losses = [w], [loss(w)]
    for batch in batches:
        p = 1 / (1 + np.exp(-X[batch] @ w))
        w = w + step * X[batch].T @ (y[batch] - p)
        weights.append(w)
        losses.append(loss(w))
    return np.array(weights)[:, :, 0], np.array(losses)


def test_linear_unit_takes_the_20_steps_of_a_plain_program(run):
    ran = run("linear-unit")
    X, y = data.generate_data(n=40, means=[[2, 1], [1, 0]])
    weights, losses = plain_linear_unit(X, y, [slice(None)] * 20)
    assert ran.found.losses.shape == (21,)
    np.testing.assert_allclose(ran.found.losses, losses, rtol=1e-9, atol=0)
    np.testing.assert_allclose(ran.found.weights, weights, rtol=1e-9, atol=1e-9)
    assert losses[0] == pytest.approx(80 * math.log(2))
    printed = ran.numbers(r"(?m)^ +\d+ +(\d+\.\d{4}) ")
    assert printed == pytest.approx(losses.tolist(), abs=6e-5)


def test_the_line_is_drawn_at_every_step(run):
    ran = run("linear-unit")
    panels = ran.figures["linear-unit-steps"].axes
    assert len(panels) == 20
    for w, panel in zip(ran.found.weights[1:], panels, strict=True):
        (line,) = (line for line in panel.lines if line.get_color() == "orange")
        assert on_line(w, line)


def on_line(w, line):
    x1, x2 = line.get_data()
    return np.allclose(w[0] + w[1] * x1 + w[2] * x2, 0, atol=1e-9)


@pytest.mark.parametrize(("name", "size"), [("full batch", 80), ("mini-batch of 10", 10), ("single sample", 1)])
def test_each_way_to_take_the_samples_is_a_plain_programs(name, size, run):
    ran = run("minibatch")
    X, y = data.generate_data(n=40, means=[[2, 1], [1, 0]])
    batches = lab.random_subsets(80, size, 5 * 80 // size)
    weights, losses = plain_linear_unit(X, y, batches)
    np.testing.assert_allclose(ran.found[name].weights, weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ran.found[name].losses, losses, rtol=1e-9)


def test_each_update_draws_its_subset_anew():
    subsets = lab.random_subsets(80, 10, 40)
    assert subsets.shape == (40, 10)
    assert all(len(set(subset)) == 10 for subset in subsets.tolist())
    assert len({tuple(sorted(subset)) for subset in subsets.tolist()}) == 40
    assert len(set(subsets[:8].ravel().tolist())) < 80  # not the parts of a shuffled epoch
    assert set(subsets.ravel()) == set(range(80))


def test_after_each_update_both_lines_and_the_subset_are_drawn(run):
    ran = run("minibatch")
    X, _ = data.generate_data(n=40, means=[[2, 1], [1, 0]])
    panels = ran.figures["minibatch-boundaries"].axes
    assert len(panels) == 5
    subsets = lab.random_subsets(80, 10, 40)
    for update, panel in enumerate(panels, start=1):
        lines = {line.get_label(): line for line in panel.lines}
        assert on_line(ran.found["mini-batch of 10"].weights[update], lines["boundary, p = ½"])
        assert on_line(ran.found["full batch"].weights[update], lines["full batch's boundary"])
        drawn = np.column_stack(lines["drawn for this update"].get_data())
        assert np.array_equal(drawn, X[subsets[update - 1], 1:])


def test_all_updates_in_one_call_of_the_kernels_are_the_same(run):
    differences = run("minibatch").numbers(r"differ by (\S+) at most")
    assert len(differences) == 3
    assert max(differences) < 1e-12


def test_paths_of_the_loss_are_drawn_against_epochs_and_updates(run):
    ran = run("minibatch")
    epochs, updates = ran.figures["minibatch-losses"].axes
    assert [line.get_xdata()[-1] for line in epochs.lines] == [5, 5, 5]
    assert [line.get_xdata()[-1] for line in updates.lines] == [5, 40, 400]
    assert [text.get_text() for text in epochs.get_legend().get_texts()] == list(ran.found)


def test_linear_regression_arrives_at_least_squares(run):
    ran = run("linear-regression")
    X, y = lab.line_data()
    solution = np.linalg.solve(X.T @ X, X.T @ y)[:, 0]  # the normal equations: not how the part does it
    np.testing.assert_allclose(ran.found.least_squares, solution, rtol=1e-10)
    np.testing.assert_allclose(ran.found.course.weights[-1], solution, rtol=0, atol=1e-6)
    assert abs(ran.found.course.weights[0] - solution).max() > 0.5
    assert ran.found.course.losses[-1] == pytest.approx(0.5 * np.sum((X @ solution[:, None] - y) ** 2))
    (printed,) = ran.numbers(r"difference between descent and least squares: (\S+)")
    assert printed < 1e-6


# ---- automatic differentiation ----


def test_derivatives_at_a_fifth(run):
    first, second = run("autodiff").found.derivatives
    x = 0.2
    t = math.exp(x) + math.exp(2 * x)
    slope = (math.exp(x) + 2 * math.exp(2 * x)) * (math.exp(t) + math.cos(t))
    assert first == pytest.approx((slope, slope, slope), rel=1e-13)
    t, rise = x**2 + math.exp(x**2), 2 * x + 2 * x * math.exp(x**2)
    slope = rise / (2 * math.sqrt(t)) - rise * math.sin(t)
    assert second == pytest.approx((slope, slope, slope), rel=1e-13)


def test_derivatives_by_hand_agree_with_difference_quotients():
    for function, derivative, ends in lab.FUNCTIONS.values():
        x = np.linspace(*ends, 31)
        quotient = numerical_derivative(lambda x, f=function: f(torch.from_numpy(x))["f = d + e"].numpy(), x)
        np.testing.assert_allclose(derivative(x), quotient, rtol=1e-6, atol=1e-6)


def test_local_derivatives_are_listed_node_by_node(run):
    x = 0.2
    a = math.exp(x)
    c = a + a**2
    expected = {
        "f": {"d": 1.0, "e": 1.0},
        "e": {"c": math.exp(c)},
        "d": {"c": math.cos(c)},
        "c": {"a": 1.0, "b": 1.0},
        "b": {"a": 2 * a},
        "a": {"x": a},
        "x": {},
    }
    nodes = lab.graph(lab.first_function, x)
    assert list(nodes) == list(expected)
    for name, local in expected.items():
        assert nodes[name].local == pytest.approx(local)
    assert nodes["c"].slope == pytest.approx(math.exp(c) + math.cos(c))
    assert nodes["a"].slope == pytest.approx(nodes["c"].slope * (1 + 2 * a))
    printed = run("autodiff").printed
    for child, local in expected.items():
        for parent, value in local.items():
            assert f"∂{child}/∂{parent} = {value:.5f}" in printed


def test_autograd_in_place_of_formulas_agrees_with_the_kernels(run):
    ran = run("autodiff")
    assert set(ran.found.differences) == {"linear unit", "linear regression"}
    assert max(ran.found.differences.values()) < 1e-6
    X, y = data.generate_data(n=40, means=[[2, 1], [1, 0]])
    _, losses = plain_linear_unit(X, y, [slice(None)] * 20)
    (printed,) = ran.numbers(r"exercise 9, linear unit by autograd: loss (\S+) ")
    assert printed == pytest.approx(losses[-1], abs=1e-6)


# ---- networks ----


@needs_mnist
@pytest.mark.parametrize(("name", "parameters"), [("torch-mlp", 79_510), ("torch-cnn", 25_150), ("mixer", None)])
def test_torch_parts_print_the_running_losses_and_the_accuracy(name, parameters, run):
    ran = run(name)
    assert ran.numbers(r"loss: (\S+)") == pytest.approx([loss for *_, loss in ran.found.running_losses], abs=6e-4)
    assert [batch for _, batch, _ in ran.found.running_losses] == [20, 40, 60, 80, 100]
    assert ran.numbers(r"(\S+)% of 500 test images") == [pytest.approx(100 * ran.found.test_accuracy[-1], abs=0.01)]
    (count,) = re.findall(r"(\S+) parameters", ran.printed)
    assert parameters is None or count == f"{parameters:,}"
    x, y = ran.figures[f"{name}-loss"].axes[0].lines[0].get_data()
    assert list(x) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert list(y) == [loss for *_, loss in ran.found.running_losses]
    assert len(ran.figures[f"{name}-digits"].axes) == 24


@needs_mnist
def test_torch_parts_take_the_labs_settings(monkeypatch):
    """In full: 60,000 images, 5 epochs, batches of 5, each 2,000 of which make a line."""
    given = {}

    def note(model, train, test, **settings):
        given.update(settings, sizes=(len(train), len(test)), sample=train[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("fastmlp.torch_training.train_torch", note)
    with pytest.raises(KeyboardInterrupt):
        lab.torch_mlp(lambda *_: None)
    image, label = given.pop("sample")
    assert (tuple(image.shape), float(image.min()), float(image.max()), label) == ((1, 28, 28), -0.5, 0.5, 5)
    assert given == {
        "pipeline": "dataloader",
        "epochs": 5,
        "batch_size": 5,
        "learning_rate": 0.001,
        "momentum": 0.9,
        "report_every": 2000,
        "say": print,
        "sizes": (60_000, 10_000),
    }


@needs_mnist
def test_one_image_is_drawn_with_its_label(run):
    ran = run("one-image")
    (axes, _) = ran.figures["one-image"].axes
    image = np.asarray(axes.images[0].get_array())
    assert np.array_equal(image.ravel(), data.mnist().train_images[0])
    assert image.shape == (28, 28)
    assert ran.figures["one-image"].get_suptitle() == f"label: {data.mnist().train_labels[0]}" == "label: 5"


def test_ctrl_c_in_a_training_ends_the_part(monkeypatch):
    monkeypatch.setattr(lab.Mlp, "fit", lambda *_, **__: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        lab.minibatch(lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        lab.linear_unit(lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        lab.extras(lambda *_: None, True)


@needs_mnist
def test_scratch_mlp_is_the_labs_own_run(run):
    ran = run("scratch-mlp")
    mnist = data.mnist()
    np.random.seed(123)  # noqa: NPY002
    chosen = np.random.choice(range(60000), size=1000)  # noqa: NPY002
    X, Y = mnist.train_images[chosen].astype(float), np.eye(10)[mnist.train_labels[chosen]]
    weights = []
    for current, following in [(784, 100), (100, 10)]:
        epsilon = 4 * np.sqrt(6) / np.sqrt(current + following)
        weights.append(epsilon * (2 * np.random.rand(following, current + 1) - 1))  # noqa: NPY002
    X = np.column_stack([np.ones(1000), X])
    errors = []
    for _ in range(3):  # with raw pixels, rounding decides the rest of the course
        hidden, output = plain_forward(weights, X)
        delta = output - Y
        hidden_delta = (delta @ weights[1][:, 1:]) * hidden[:, 1:] * (1 - hidden[:, 1:])
        weights = [weights[0] - hidden_delta.T @ X / 1000, weights[1] - delta.T @ hidden / 1000]
        errors.append(0.5 * np.mean((plain_forward(weights, X)[1] - Y) ** 2))
    assert len(ran.found.errors) == 40
    assert ran.found.errors[:2] == pytest.approx(errors[:2], rel=1e-9)
    assert ran.found.errors[-1] < 0.8 * ran.found.errors[0]
    assert ran.found.accuracy > 0.3
    line = ran.figures["scratch-mlp-loss"].axes[0].lines[0]
    assert line.get_ydata() == pytest.approx(ran.found.errors)
    assert ran.numbers(r"training images: (\S+)%") == [pytest.approx(100 * ran.found.accuracy, abs=0.01)]


def plain_forward(weights, X):
    with np.errstate(over="ignore"):
        hidden = np.column_stack([np.ones(len(X)), 1 / (1 + np.exp(-X @ weights[0].T))])
        return hidden, 1 / (1 + np.exp(-hidden @ weights[1].T))


def test_extras_show_the_difference_that_each_choice_makes(run):
    ran = run("extras")
    assert list(ran.found) == list(lab.EXTRAS)
    for row, choices in lab.EXTRAS.items():
        assert list(ran.found[row]) == list(choices)
        for one in ran.found[row].values():
            assert one.losses.shape == (2, 4)
            assert np.isfinite(one.losses).all()
            assert ((one.accuracies > 0) & (one.accuracies <= 1)).all()
    base = [next(iter(row.values())) for row in ran.found.values()]
    for other in base[1:]:  # each row begins with the same settings, and runs repeat to the bit
        assert np.array_equal(base[0].losses, other.losses)
    initialisations = ran.found["initialisation"]
    assert initialisations["zeros"].accuracies.max() < 0.2  # equal units stay equal
    assert initialisations["he_normal"].accuracies.min() > 0.85
    on, off = ran.numbers(r"linear unit with\S* bias: (\S+)%")
    assert (on, off) == (100, pytest.approx(50, abs=10))


# ---- the picture of a perceptron ----


@pytest.fixture
def panel():
    figure, axes = lab_plots.new_sheet(1, 1, 4, 4, "a title")
    return figure, axes[0, 0]


def test_plot_perceptron(panel):
    figure, ax = panel
    X, y = lab.generate_data()
    w = np.array([[-1.0], [2.0], [1.0]])
    lab.plot_perceptron(ax, X, y, w)
    class_1, class_0, line = ax.lines
    for points, label, colour in [(class_1, 1, "blue"), (class_0, 0, "red")]:
        assert to_rgb(points.get_color()) == to_rgb(colour)
        assert np.array_equal(np.transpose(points.get_data()), X[y[:, 0] == label, 1:])
    assert class_1.get_marker() != class_0.get_marker()
    assert to_rgb(line.get_color()) == to_rgb("orange")
    assert line.get_xdata().tolist() == [-6, 6]
    assert line.get_ydata().tolist() == [13, -11]
    (arrow,) = (patch for patch in ax.patches if isinstance(patch, FancyArrow))
    figure.savefig(os.devnull, format="png")
    along = np.array([arrow._dx, arrow._dy])
    assert along / np.hypot(*along) == pytest.approx(np.array([2, 1]) / np.sqrt(5))
    assert -1 + 2 * arrow._x + arrow._y == pytest.approx(0)  # it starts on the line
    assert ax.get_aspect() == 1
    assert ax.get_xlim()[0] <= -6
    assert ax.get_xlim()[1] >= 6


@pytest.mark.parametrize("w", [[3.0, 2.0, 0.0], [3.0, -2.0, 1e-12]])
def test_a_vertical_line_is_drawn_too(panel, w):
    figure, ax = panel
    lab.plot_perceptron(ax, *lab.generate_data(), np.array(w))
    assert on_line(np.array(w), ax.lines[-1])
    assert ax.lines[-1].get_ydata().tolist() == [-6, 6]
    figure.savefig(os.devnull, format="png")


def test_without_weights_there_is_no_line(panel):
    _, ax = panel
    lab.plot_perceptron(ax, *lab.generate_data(), np.zeros(3))
    assert len(ax.lines) == 2
    assert not ax.patches


def test_all_points_are_seen(panel):
    _, ax = panel
    X, y = lab.generate_data(means=[[30, 3], [-1, 1]])
    lab.plot_perceptron(ax, X, y, np.ones(3))
    assert ax.get_xlim()[1] > X[:, 1].max()


@pytest.mark.parametrize(
    ("X", "y", "w", "message"),
    [
        (np.ones((4, 2)), np.ones(4), np.ones(3), r"X has shape \[4, 2\]; expected \[n, 3\]"),
        (np.ones((4, 3)), np.ones(3), np.ones(3), "y has 3 entries for the 4 rows"),
        (np.ones((4, 3)), np.ones(4), np.ones(2), "w has 2 entries; expected three"),
    ],
)
def test_plot_perceptron_refuses_other_shapes(panel, X, y, w, message):
    _, ax = panel
    with pytest.raises(ValueError, match=message):
        lab.plot_perceptron(ax, X, y, w)
    assert not ax.lines


# ---- the command ----


def test_the_command_lists_the_parts(capsys):
    assert cli.main(["lab"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PICTURES)
    for number in range(1, 11):
        assert sum(bool(re.search(rf"Exercise.*\b{number}\b.*:", line)) for line in lines) == 1


def test_the_command_runs_a_part_and_saves_its_pictures(tmp_path, capsys):
    assert cli.main(["lab", "linear-regression", "--out", str(tmp_path / "a" / "b")]) == 0
    output = capsys.readouterr().out
    path = tmp_path / "a" / "b" / "linear-regression.png"
    assert f"picture  {path}" in output
    assert "difference between descent and least squares" in output
    assert "== linear-regression: Exercise 6: " in output
    assert "half the squared error as its loss, is linear regression" in output  # the explanation
    assert "def new_linear_regression() -> Mlp:" in output  # the code
    assert [*path.parent.iterdir()] == [path]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("L").getcolors()) > 20


def test_all_runs_what_it_can_and_tells_what_is_lacking(tmp_path, capsys, monkeypatch):
    ran = []

    def lacking(show, quick):
        raise DataNotFound("MNIST was not found")

    parts = {"first": lambda show, quick: ran.append(quick), "second": lacking, "third": lambda *_: ran.append("third")}
    monkeypatch.setattr(lab_run, "PARTS", parts)
    assert cli.main(["lab", "all", "--quick", "--out", str(tmp_path)]) == 2
    assert ran == [True, "third"]
    output, error = capsys.readouterr()
    assert "not run: MNIST was not found" in output
    assert error == "error: second: MNIST was not found\n"


def test_what_several_parts_lack_is_told_once(tmp_path, capsys, monkeypatch):
    def without_torch(show, quick):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    def without_data(show, quick):
        raise DataNotFound("MNIST was not found")

    parts = {"a": without_torch, "b": without_data, "c": without_torch, "d": without_data, "e": without_torch}
    monkeypatch.setattr(lab_run, "PARTS", parts)
    assert cli.main(["lab", "all", "--out", str(tmp_path)]) == 2
    output, error = capsys.readouterr()
    both = "error: a, c, e: torch is not installed: pip install 'fastmlp[torch]'; b, d: MNIST was not found\n"
    assert error == both
    assert output.count("it needs torch") == 1
    assert output.count("MNIST was not found") == 1
    assert output.count("not run, for the same reason as a\n") == 2


def without(missing):
    """A program that is the command on a machine where a package is not installed."""
    return f"""
import sys
from fastmlp import cli

class NotInstalled:
    def find_spec(name, path, target=None):
        if name.split(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name={missing!r})

sys.meta_path.insert(0, NotInstalled)
if sys.argv[2] == "all":
    from fastmlp import lab_run

    chosen = ("derivations", "autodiff", "torch-mlp", "torch-cnn", "mixer")
    lab_run.PARTS = {{name: lab_run.PARTS[name] for name in chosen}}
sys.exit(cli.main())
"""


def test_all_parts_without_pytorch_say_so_once(tmp_path):
    command = [sys.executable, "-c", without("torch"), "lab", "all", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "derivations took" in done.stdout
    everything = done.stdout + done.stderr
    assert everything.count("torch is not installed") == 1
    assert everything.count("pip install") == 1
    assert done.stderr.startswith("error: autodiff, torch-mlp, torch-cnn, mixer: torch is not installed")


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_without_pytorch_its_parts_name_the_extra(missing, tmp_path):
    part = "autodiff" if missing == "torch" else "torch-mlp"
    command = [sys.executable, "-c", without(missing), "lab", part, "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {part}: {missing} is not installed")
    assert "pip install 'fastmlp[torch]'" in done.stderr


def test_the_command_refuses_unknown_parts_and_bad_folders(tmp_path, capsys):
    assert cli.main(["lab", "linear-units", "--out", str(tmp_path / "x")]) == 2
    assert "did you mean 'linear-unit'?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    assert cli.main(["lab", "sigmoid", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err


def test_importing_the_lab_leaves_torch_and_matplotlib_alone():
    code = "import sys, fastmlp.lab; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- the notebook ----


def test_the_notebook_holds_all_of_the_lab():
    made = lab_notebook.notebook()
    code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code")
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    names = {node.name for node in ast.parse(inspect.getsource(lab)).body if hasattr(node, "name")}
    ast.parse(re.sub(r"^%.*", "", code, flags=re.MULTILINE))
    for name in names:
        assert re.search(rf"^(def|class) {name}\b", code, flags=re.MULTILINE), name
    for name, part in lab.PARTS.items():
        assert f"{part.__name__}(show, quick);" in code
        assert f"fastmlp lab {name}" in text
        assert f"## {lab_run.titles()[name]}" in text
        assert lab_run.explanation(name) in text
        for function in lab.CODE[name]:
            if not function.startswith("fastmlp.lab:"):
                assert f'print(code_of("{function}"))' in code
    assert made == lab_notebook.notebook()


@needs_mnist
def test_the_notebook_runs(tmp_path):
    command = [sys.executable, "-m", "fastmlp.lab_notebook", str(tmp_path / "lab.ipynb"), "--quick"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lab.ipynb"]
    cells = [cell for cell in json.loads((tmp_path / "lab.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == sum(map(len, PICTURES.values()))
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert "difference between descent and least squares" in printed
    assert not [output for output in outputs if output.get("name") == "stderr"]
