"""The lab: from one sigmoid to a multilayer perceptron of one's own, part by part.

Each part below is a short function that prints what it finds and shows its pictures. ``fastmlp lab PART`` runs one and
saves the pictures; ``make notebook`` makes a notebook of this file, the text of each part above its code.

A part takes ``show``, a function that is given each finished figure and its name, and ``quick``: True makes the long
parts short, to see that they work rather than what they find. What it returns is what it has found, as numbers.
Parts that use PyTorch import it themselves; the others do without.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from fastmlp import Adam, Mlp, Sgd, lab_plots
from fastmlp.data import digits, generate_data, mnist
from fastmlp.lab_plots import plot_perceptron as plot_perceptron  # the lab's name, to be had from here
from fastmlp.sigmoids import SIGMOIDS, logistic, numerical_derivative

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from fastmlp.history import History
    from fastmlp.torch_training import TorchHistory

Show = Callable[["Figure", str], None]

# ---- 1. The linear unit ----


def loss_i(w: np.ndarray, x: np.ndarray, y: float) -> float:
    """Cross-entropy −y ln p − (1 − y) ln(1 − p) of one point; p = σ(wᵀx).

    The formula is written in z = wᵀx, since ln p is infinite where p is rounded to 0, and likewise ln(1 − p).

    Parameters
    ----------
    w, x : ndarray of float64 [3]
        x begins with a 1, w with the bias.
    y : float
        The point's class, 1 or 0.
    """
    z = w @ x
    return float(np.logaddexp(0, z) - y * z)


def grad_loss_i(w: np.ndarray, x: np.ndarray, y: float) -> np.ndarray:
    """Its gradient −(y − p) x with respect to w."""
    return -(y - logistic(w @ x)) * x


def quotients(function: Callable[[np.ndarray], float], w: np.ndarray) -> np.ndarray:
    """The gradient of a function at w by difference quotients, one weight after the other."""
    h = 1e-5
    return np.array([(function(w + h * axis) - function(w - h * axis)) / (2 * h) for axis in np.eye(len(w))])


def derivations(show: Show, quick: bool = False) -> dict[str, float]:
    """Exercises 1, 2, 3: the gradient of the linear unit, derived and checked.

    The unit says p = σ(z) with z = wᵀx = w₀ + w₁x₁ + w₂x₂, and learns from points x of class y, 1 or 0.

    Exercise 1, the unit. σ(z) = 1 / (1 + e⁻ᶻ) has the derivative e⁻ᶻ / (1 + e⁻ᶻ)² = σ (1 − σ), and ∂z/∂wⱼ = xⱼ:

        ∂p/∂wⱼ = p (1 − p) xⱼ

    Exercise 2, its cross-entropy L = −y ln p − (1 − y) ln(1 − p) at one point. The derivative with respect to p is
    −y/p + (1 − y)/(1 − p) = (p − y) / (p (1 − p)). By the chain rule it is multiplied by that of exercise 1, and the
    denominator cancels:

        ∂L/∂wⱼ = −(y − p) xⱼ

    Exercise 3, the update. The loss of all points is the sum of theirs, so its gradient is g = −Σ (y − p) x, and
    gradient descent with steps of size η is

        w ← w − η g = w + η Σ (y − p) x

    For small η such a step lowers the loss by η |g|². All three are compared with difference quotients, at weights
    drawn at random.
    """
    X, y = generate_data(n=40, means=[[2, 1], [1, 0]])
    points = list(zip(X, y[:, 0], strict=True))
    w = np.random.default_rng(1).normal(size=3)
    x, label = points[0]
    p = logistic(w @ x)

    def loss(w: np.ndarray) -> float:
        return sum(loss_i(w, *point) for point in points)

    gradient = np.sum([grad_loss_i(w, *point) for point in points], axis=0)
    compared = {
        "exercise 1, ∂p/∂w of one point": (p * (1 - p) * x, quotients(lambda w: float(logistic(w @ x)), w)),
        "exercise 2, ∂L/∂w of one point": (grad_loss_i(w, x, label), quotients(lambda w: loss_i(w, x, label), w)),
        "exercise 3, Σ ∂L/∂w of all": (gradient, quotients(loss, w)),
    }
    differences = {}
    for name, (formula, quotient) in compared.items():
        differences[name] = float(abs(formula - quotient).max())
        print(f"{name:<32}by the formula " + " ".join(f"{value:z9.5f}" for value in formula))
        print(f"{'':<32}by differences " + " ".join(f"{value:z9.5f}" for value in quotient))
        print(f"{'':<32}largest difference {differences[name]:.1e}")
    print("\nη         loss before − after a step    η |g|²        ratio")
    for step in (1e-2, 1e-3, 1e-4, 1e-5):
        lowered, expected = loss(w) - loss(w - step * gradient), step * gradient @ gradient
        print(f"{step:<10g}{lowered:<30.6f}{expected:<14.6f}{lowered / expected:.4f}")
    return differences


class Course(NamedTuple):
    """What a descent leaves behind: before the first step, and after each.

    Attributes
    ----------
    weights : ndarray of float64 [steps + 1, n_in + 1]
        The bias first.
    losses : ndarray of float64 [steps + 1]
        Of all samples, summed.
    """

    weights: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, points: "Iterable[tuple[np.ndarray, float]]") -> "Course":
        """From pairs of weights and loss."""
        weights, losses = zip(*points, strict=True)
        return cls(np.array(weights), np.array(losses))


def descend_point_by_point(X: np.ndarray, y: np.ndarray, step: float, steps: int) -> Course:
    """Gradient descent for the linear unit from w = 0, as one writes it down: a sum over the points in each step."""
    points = list(zip(X, y[:, 0], strict=True))
    w = np.zeros(X.shape[1])
    course = [(w, sum(loss_i(w, *point) for point in points))]
    for _ in range(steps):
        w = w - step * np.sum([grad_loss_i(w, *point) for point in points], axis=0)
        course.append((w, sum(loss_i(w, *point) for point in points)))
    return Course.of(course)


#: The samples of a full-batch step.
ALL = slice(None)


def random_subsets(n: int, size: int, updates: int) -> np.ndarray:
    """For each update a random subset of so many of n samples, drawn anew: their numbers [updates, size]."""
    rng = np.random.default_rng(1)
    return np.array([rng.choice(n, size, replace=False) for _ in range(updates)])


def finished(history: "History | TorchHistory") -> None:
    """Pass Ctrl-C on, which ends a training early without an error, so that it ends the part as well."""
    if history.interrupted:
        raise KeyboardInterrupt


def descend(mlp: Mlp, X: np.ndarray, y: np.ndarray, step: float, batches: Iterable[Any]) -> Course:
    """Gradient descent w ← w − step · gradient, one call of the kernels a step, so that each can be looked at.

    The lab sums the loss over the samples and the kernels take its mean, so the learning rate is the step times the
    number of samples. Each of ``batches`` is an index of the samples of one step.
    """
    course = [(mlp.weights[0][0].copy(), len(X) * mlp.evaluate(X, y).loss)]
    for batch in batches:
        X_batch, y_batch = X[batch], y[batch]
        rule = Sgd(learning_rate=step * len(X_batch))
        finished(mlp.fit(X_batch, y_batch, epochs=1, batch_size=None, shuffle=False, optimizer=rule, progress=False))
        course.append((mlp.weights[0][0].copy(), len(X) * mlp.evaluate(X, y).loss))
    return Course.of(course)


def new_linear_unit() -> Mlp:
    """A linear unit p = σ(wᵀx), which is a perceptron without hidden layers; w = 0."""
    return Mlp([2, 1], init="zeros")


def accuracy_on_line(w: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """Share of the points that lie on the right side of the line wᵀx = 0."""
    return float(np.mean((X @ w > 0) == (y[:, 0] == 1)))


def linear_unit(show: Show, quick: bool = False) -> Course:
    """Exercise 4: gradient descent for the linear unit, point by point.

    Two clouds of 40 points each. The unit p = σ(w₀ + w₁x₁ + w₂x₂) begins with w = 0 and takes 20 steps of size 0.1
    down the gradient −Σ (y − p) x of the summed cross-entropy −Σ y ln p + (1 − y) ln(1 − p). Both sums are formed
    from `loss_i` and `grad_loss_i` of single points. After each step the loss is printed, and the line p = ½ drawn.
    A linear unit is a perceptron without hidden layers: the compiled kernels take the same steps.
    """
    X, y = generate_data(n=40, means=[[2, 1], [1, 0]])
    course = descend_point_by_point(X, y, 0.1, steps=20)
    by_kernels = descend(new_linear_unit(), X[:, 1:], y, 0.1, 20 * [ALL])  # the first column is the bias'

    print("step       loss        w₀        w₁        w₂")
    for step, (w, loss) in enumerate(zip(*course, strict=True)):
        print(f"{step:4d} {loss:10.4f} " + " ".join(f"{value:z9.4f}" for value in w))
    print(f"{accuracy_on_line(course.weights[-1], X, y):.1%} of the points lie on their class's side of the last line")
    difference = abs(course.weights - by_kernels.weights).max()
    print(f"the same steps by the compiled kernels: weights differ by {difference:.1e} at most")
    show(lab_plots.linear_unit_steps_figure(X, y, course.weights, course.losses), "linear-unit-steps")
    show(lab_plots.linear_unit_figure(X, y, course.weights, course.losses), "linear-unit")
    return course


def minibatch(show: Show, quick: bool = False) -> dict[str, Course]:
    """Exercise 5: mini-batches of a random subset beside full-batch descent.

    The same unit and the same data three times, with the same step of 0.1 for each sample: summed over all 80 of them
    (full batch), over ten (mini-batch), or over a single one. The subset is random, and drawn anew after each update.
    The full batch's first steps go much too far, and its loss rises before it falls. Smaller batches look again after
    a few samples, and so go wrong less far; but a single sample pulls the line its own way, and the loss trembles. An
    epoch is as many samples as there are. After each of the first updates there is a picture, with the full batch's
    line after as many updates beside the mini-batch's.
    """
    X, y = generate_data(n=40, means=[[2, 1], [1, 0]])
    epochs = 5 if quick else 20
    courses, subsets = {}, {}
    shown = [epoch for epoch in (0, 1, 2, 3, 4, 5, 10, 20) if epoch <= epochs]
    print(f"loss of all {len(X)} samples after epoch")
    print("batch size" + "".join(f"{epoch:>10d}" for epoch in shown))
    for batch_size, name in [(len(X), "full batch"), (10, "mini-batch of 10"), (1, "single sample")]:
        subsets[name] = random_subsets(len(X), batch_size, updates=epochs * len(X) // batch_size)
        course = descend(new_linear_unit(), X[:, 1:], y, 0.1, subsets[name])
        courses[name] = course
        after_epochs = course.losses[:: len(X) // batch_size]
        print(f"{batch_size:10d}" + "".join(f"{after_epochs[epoch]:10.4f}" for epoch in shown))

        at_once = new_linear_unit()  # all updates in one call of the kernels, as one trains when not looking on
        order, rule = subsets[name].ravel(), Sgd(0.1 * batch_size)
        settings: dict[str, Any] = {"batch_size": batch_size, "shuffle": False, "optimizer": rule, "progress": False}
        finished(at_once.fit(X[order, 1:], y[order], epochs=1, **settings))
        difference = abs(at_once.weights[0][0] - course.weights[-1]).max()
        print(f"           all updates in one call: weights differ by {difference:.1e} at most")
    mini, full = courses["mini-batch of 10"].weights, courses["full batch"].weights
    figure = lab_plots.minibatch_boundaries_figure(X, y, mini, full, subsets["mini-batch of 10"])
    show(figure, "minibatch-boundaries")
    show(lab_plots.minibatch_losses_figure({n: c.losses for n, c in courses.items()}, epochs), "minibatch-losses")
    return courses


class Regression(NamedTuple):
    """What the part on linear regression has found.

    Attributes
    ----------
    course : Course
        Of the descent; the loss is ½ Σ (prediction − y)².
    least_squares : ndarray of float64 [2]
        The solution that NumPy computes directly.
    """

    course: Course
    least_squares: np.ndarray


def line_data(n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Points about the line y = 1 + 2x: X [n, 2] with a first column of ones, y [n, 1]."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, n)
    return np.column_stack([np.ones(n), x]), (1 + 2 * x + rng.normal(size=n))[:, None]


def new_linear_regression() -> Mlp:
    """Linear regression, which is a linear unit with the identity for the sigmoid; w = 0."""
    return Mlp([1, 1], output="identity", init="zeros")


def linear_regression(show: Show, quick: bool = False) -> Regression:
    """Exercise 6: linear regression by gradient descent meets least squares.

    A unit with the identity in place of the sigmoid, and half the squared error as its loss, is linear regression.
    The loss is a bowl with one lowest point, and that point can be computed at once by least squares. Descent must
    arrive there, and it does: each step leaves a fixed share of what is still missing.
    """
    X, y = line_data()
    course = descend(new_linear_regression(), X[:, 1:], y, 0.1 / len(X), 300 * [ALL])
    least_squares = np.linalg.lstsq(X, y)[0][:, 0]

    distances = abs(course.weights - least_squares).max(axis=1)
    print("step       loss        w₀        w₁    distance from least squares")
    for step in (0, 1, 2, 5, 10, 20, 50, 100, 200, 300):
        w0, w1 = course.weights[step]
        print(f"{step:4d} {course.losses[step]:10.4f} {w0:9.5f} {w1:9.5f}    {distances[step]:.1e}")
    print(f"least squares:  {least_squares[0]:9.5f} {least_squares[1]:9.5f}")
    print(f"difference between descent and least squares: {distances[-1]:.1e}")
    show(lab_plots.linear_regression_figure(X, y, course.weights, least_squares), "linear-regression")
    return Regression(course, least_squares)


#: The k of the sigmoids σ(kx) that are drawn.
STEEPNESSES = (0.5, 1, 2, 5)


def sigmoid(show: Show, quick: bool = False) -> dict[str, float]:
    """Exercise 7: other sigmoids, and the logistic one for several steepnesses.

    The logistic sigmoid σ(x) = 1 / (1 + e⁻ˣ) turns any number into one between 0 and 1, and its derivative is cheap
    once its value is there: σ′ = σ (1 − σ). In σ(kx) the factor k sets the steepness: the slope at 0 is k/4, and the
    larger k is, the more the function is like a step. It has many relatives. All rise from one limit to the other;
    they differ in how fast they reach it, and so in how soon a unit stops learning. Each derivative is checked against
    a difference quotient.
    """
    x = np.linspace(-6, 6, 240)  # an even number: 0, where the slope of softsign has a kink, is not among them
    show(lab_plots.sigmoid_figure(x, Mlp.sigmoid(x), Mlp.sigmoid_derivative(x)), "sigmoid")
    print(f"σ(0) = {Mlp.sigmoid(0):g}, σ'(0) = {Mlp.sigmoid_derivative(0):g}, its largest value")

    print("\nσ(kx)   slope at 0   above 0.99 from x =")
    for k in STEEPNESSES:
        print(f"k = {k:<4}{k * Mlp.sigmoid_derivative(0):>10g}{math.log(99) / k:>16.2f}")
    show(lab_plots.sigmoid_steepness_figure(x, STEEPNESSES), "sigmoid-steepness")

    print("\n{:<14}{:<26}{:>12}".format("sigmoid", "formula", "largest |f′ − difference quotient|"))
    differences = {}
    for name, one in SIGMOIDS.items():
        differences[name] = float(abs(one.derivative(x) - numerical_derivative(one.value, x)).max())
        print(f"{name:<14}{one.formula:<26}{differences[name]:>12.1e}")
    show(lab_plots.sigmoid_family_figure(SIGMOIDS), "sigmoid-family")
    show(lab_plots.sigmoid_tails_figure(SIGMOIDS), "sigmoid-tails")
    return differences


# ---- 2. Automatic differentiation ----


#: A function written step by step: x -> {"name = formula": value}
Graph = Callable[["torch.Tensor"], dict[str, "torch.Tensor"]]


def first_function(x: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """exp(t) + sin(t) with t = eˣ + e²ˣ, step by step; "name = formula" -> value."""
    import torch

    a = torch.exp(x)
    b = a**2
    c = a + b
    d, e = torch.sin(c), torch.exp(c)
    return {"a = eˣ": a, "b = a²": b, "c = a + b": c, "d = sin c": d, "e = exp c": e, "f = d + e": d + e}


def first_derivative(x: np.ndarray) -> np.ndarray:
    """Its derivative by hand."""
    t = np.exp(x) + np.exp(2 * x)
    return (np.exp(x) + 2 * np.exp(2 * x)) * (np.exp(t) + np.cos(t))


def second_function(x: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """√t + cos(t) with t = x² + exp(x²), step by step; "name = formula" -> value."""
    import torch

    a = x**2
    b = torch.exp(a)
    c = a + b
    d, e = torch.sqrt(c), torch.cos(c)
    return {"a = x²": a, "b = exp a": b, "c = a + b": c, "d = √c": d, "e = cos c": e, "f = d + e": d + e}


def second_derivative(x: np.ndarray) -> np.ndarray:
    """Its derivative by hand."""
    t = x**2 + np.exp(x**2)
    return 2 * x * (1 + np.exp(x**2)) * (1 / (2 * np.sqrt(t)) - np.sin(t))


#: formula -> (the graph, the derivative by hand, the range to draw)
FUNCTIONS = {
    "exp(t) + sin(t),  t = eˣ + e²ˣ": (first_function, first_derivative, (-2.0, 0.4)),
    "√t + cos(t),  t = x² + exp(x²)": (second_function, second_derivative, (-1.5, 1.5)),
}


class Node(NamedTuple):
    """A node of a graph, with what the chain rule needs.

    Attributes
    ----------
    formula : str
    value : float
    local : dict
        name of a parent -> ∂node/∂parent, the others held fast
    slope : float
        ∂f/∂node: the sum over the node's children of ∂f/∂child · ∂child/∂node.
    """

    formula: str
    value: float
    local: dict[str, float]
    slope: float


def graph(function: Graph, at: float) -> dict[str, Node]:
    """The graph that PyTorch has recorded, name -> node, from f back to x, with the chain rule worked out by hand.

    Each value knows the operation that made it (``grad_fn``), and each operation its parents and, called with 1, its
    derivatives with respect to them.
    """
    import torch

    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    steps = function(x)
    one = torch.ones((), dtype=torch.float64)
    operations = {value.grad_fn: formula[0] for formula, value in steps.items()}
    slopes = dict.fromkeys([*operations.values(), "x"], 0.0) | {"f": 1.0}
    nodes = {}
    for formula, value in reversed(steps.items()):
        name, operation = formula[0], cast(Any, value.grad_fn)
        derivatives = operation(one)
        derivatives = derivatives if isinstance(derivatives, tuple) else (derivatives,)
        parents = [operations.get(parent, "x") for parent, _ in operation.next_functions]
        local = {parent: d.item() for parent, d in zip(parents, derivatives, strict=True)}
        for parent, derivative in local.items():
            slopes[parent] += slopes[name] * derivative
        nodes[name] = Node(formula, value.item(), local, slopes[name])
    return nodes | {"x": Node("x", at, {}, slopes["x"])}


def autograd_slope(function: Graph, at: np.ndarray) -> np.ndarray:
    """What PyTorch's autograd gives for the derivative."""
    import torch

    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    function(x)["f = d + e"].sum().backward()
    assert x.grad is not None
    return x.grad.numpy()


def descend_by_autograd(X: np.ndarray, y: np.ndarray, loss: Callable[..., Any], step: float, steps: int) -> Course:
    """Full-batch descent whose gradient nobody has written down: w ← w − step · ∂loss/∂w, from w = 0.

    Parameters
    ----------
    X : ndarray of float64 [n, n_in + 1]
        With its column of ones.
    y : ndarray of float64 [n, 1]
    loss : function
        Summed loss of Xw and y, both tensors [n, 1].
    step : float
    steps : int
    """
    import torch

    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    w = torch.zeros(X.shape[1], 1, dtype=torch.float64, requires_grad=True)
    course = []
    for _ in range(steps + 1):
        total = loss(inputs @ w, targets)
        course.append((w.detach().numpy().ravel().copy(), total.item()))
        (gradient,) = torch.autograd.grad(total, w)
        with torch.no_grad():
            w -= step * gradient
    return Course.of(course)


class Derivatives(NamedTuple):
    """The derivative of a function at 0.2, three times."""

    explicit: float
    autograd: float
    chain_rule: float


class Autodiff(NamedTuple):
    """What the part on automatic differentiation has found.

    Attributes
    ----------
    derivatives : list of Derivatives
        Of the two functions.
    differences : dict
        "linear unit", "linear regression" -> the largest difference of any weight, in any step, between the descent
        by autograd and that of the kernels.
    """

    derivatives: list[Derivatives]
    differences: dict[str, float]


def curves(formula: str, function: Graph, derivative: Callable, ends: tuple[float, float]) -> lab_plots.Curves:
    """A function and its derivative over a range, the latter by autograd at some points."""
    import torch

    x = np.linspace(*ends, 201)
    few = x[::10]
    value = function(torch.from_numpy(x))["f = d + e"].numpy()
    return lab_plots.Curves(formula, x, value, derivative(x), few, autograd_slope(function, few))


def derivative_of(formula: str, function: Graph, derivative: Callable, at: float, show: Show) -> Derivatives:
    """The derivative of one function in the three ways, its graph printed node by node, and drawn."""
    nodes = graph(function, at)
    by_hand, by_autograd = float(derivative(np.array(at))), float(autograd_slope(function, np.array(at)))
    print(f"{'exercise 8, ' if function is second_function else ''}f(x) = {formula}   at x = {at}")
    print(f"  {'node':<12}{'value':>10}{'∂f/∂node':>12}   local derivatives")
    for node in nodes.values():
        local = ", ".join(f"∂{node.formula[0]}/∂{parent} = {d:.5f}" for parent, d in node.local.items())
        print(f"  {node.formula:<12}{node.value:>10.5f}{node.slope:>12.5f}   {local}".rstrip())
    print(f"  f′({at}) by hand       {by_hand:.12f}")
    print(f"  f′({at}) by autograd   {by_autograd:.12f}")
    print(f"  difference           {abs(by_hand - by_autograd):.1e}\n")
    show(lab_plots.graph_figure(nodes, formula), f"autodiff-graph-{list(FUNCTIONS).index(formula) + 1}")
    return Derivatives(by_hand, by_autograd, nodes["x"].slope)


def autograd_in_place_of_formulas() -> dict[str, float]:
    """The linear unit and linear regression by autograd, and how far the kernels are from them."""
    import torch

    def cross_entropy(z: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
        return torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")

    def squared_error(z: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
        return ((z - y) ** 2).sum() / 2

    X, y = generate_data(n=40, means=[[2, 1], [1, 0]])
    x, t = line_data()
    pairs = {
        "linear unit": (
            descend_by_autograd(X, y, cross_entropy, 0.1, steps=20),
            descend(new_linear_unit(), X[:, 1:], y, 0.1, 20 * [ALL]),
        ),
        "linear regression": (
            descend_by_autograd(x, t, squared_error, 0.1 / len(x), steps=300),
            descend(new_linear_regression(), x[:, 1:], t, 0.1 / len(x), 300 * [ALL]),
        ),
    }
    differences = {}
    for exercise, (name, (by_autograd, by_kernels)) in enumerate(pairs.items(), start=9):
        differences[name] = float(abs(by_autograd.weights - by_kernels.weights).max())
        steps, loss = len(by_autograd.losses) - 1, by_autograd.losses[-1]
        print(f"exercise {exercise}, {name} by autograd: loss {loss:.6f} after {steps} steps;")
        print(f"  weights differ from the kernels' by {differences[name]:.1e} at most")
    return differences


def autodiff(show: Show, quick: bool = False) -> Autodiff:
    """Exercises 8, 9, 10: derivatives that nobody has to write down.

    A program that computes a function is a graph of simple operations, and for each of those the derivative is known.
    The chain rule does the rest: beginning at f, each node's ∂f/∂node is the sum over its children of the child's own,
    times one local derivative. PyTorch records the graph as the program runs, and then does just that. For the
    lab's function and, in exercise 8, for a second one the result at x = 0.2 is compared with the derivative worked out
    by hand, and the graph is drawn. Then autograd takes the place of the hand-written gradients, of the linear unit
    in exercise 9 and of linear regression in exercise 10.
    """
    at = 0.2
    derivatives = [
        derivative_of(formula, function, derivative, at, show)
        for formula, (function, derivative, _) in FUNCTIONS.items()
    ]
    show(
        lab_plots.derivatives_figure([curves(formula, *row) for formula, row in FUNCTIONS.items()], at),
        "autodiff-derivatives",
    )
    return Autodiff(derivatives, autograd_in_place_of_formulas())


# ---- 3. PyTorch on MNIST ----


def running_losses(history: "TorchHistory", title: str) -> "Figure":
    """The picture of what the lab prints, along the epochs."""
    at = [epoch - 1 + batch / len(history.batch_losses[0]) for epoch, batch, _ in history.running_losses]
    losses = [loss for _, _, loss in history.running_losses]
    subtitle = f"{history.test_accuracy[-1]:.1%} of the test images right at the end"
    quantity = f"cross-entropy (nats), mean of {history.report_every:,} mini-batches"
    return lab_plots.loss_curve_figure(np.array(at), losses, title, subtitle, "epoch", quantity)


def train_as_the_lab_does(model: "torch.nn.Module", name: str, show: Show, quick: bool) -> "TorchHistory":
    """The lab's training, whatever the network: MNIST, batches of 5, momentum SGD, 5 epochs.

    The mean loss of each 2,000 mini-batches is printed, and after each epoch the accuracy on the test images.
    """
    from torch.utils.data import Subset

    from fastmlp.torch_data import torchvision_mnist
    from fastmlp.torch_training import torch_classify, train_torch

    train, test = torchvision_mnist()
    epochs, report_every = 5, 2_000
    if quick:
        train, test, epochs, report_every = Subset(train, range(500)), Subset(test, range(500)), 1, 20
    history = train_torch(
        model,
        train,
        test,
        pipeline="dataloader",
        epochs=epochs,
        batch_size=5,
        learning_rate=0.001,
        momentum=0.9,
        report_every=report_every,
        say=print,
    )
    if len(history):
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{parameters:,} parameters; {history.test_accuracy[-1]:.2%} of {len(test):,} test images right")
        print(f"training took {sum(history.seconds):.1f} s, {np.mean(history.samples_per_second):,.0f} images a second")
        show(running_losses(history, f"{type(model).__name__} on MNIST, batches of 5"), f"{name}-loss")
        pairs = [test[i] for i in range(24)]
        images, labels = (np.array([np.ravel(value) for value in values]) for values in zip(*pairs, strict=True))
        show(lab_plots.digits_figure(images, labels[:, 0], torch_classify(model, images)), f"{name}-digits")
    finished(history)
    return history


def torch_mlp(show: Show, quick: bool = False) -> "TorchHistory":
    """Exercise, MNIST: an MLP in PyTorch.

    784 inputs, 100 hidden units with ReLU, 10 outputs; cross-entropy, SGD with learning rate 0.001 and momentum 0.9,
    5 epochs in batches of 5. A step has four lines: the old gradients are cleared, the loss is computed, autograd goes
    backwards from it, and the optimiser changes the weights. The loss is printed as the mean of each 2,000 batches,
    with the epoch and the batch in brackets before it; at the end, the accuracy on the test images.
    """
    import torch

    from fastmlp.torch_models import TorchMlp

    torch.manual_seed(0)
    return train_as_the_lab_does(TorchMlp([784, 100, 10]), "torch-mlp", show, quick)


def torch_cnn(show: Show, quick: bool = False) -> "TorchHistory":
    """Exercise, MNIST: a convolutional network in PyTorch.

    Two convolutions, each with max-pooling and ReLU, and two linear layers, with dropout before the second convolution
    is pooled and before the last layer. It has a third of the MLP's parameters and sees that an image is an image.
    It is trained as the MLP is.
    """
    import torch

    from fastmlp.torch_models import TorchCnn

    torch.manual_seed(0)
    return train_as_the_lab_does(TorchCnn(), "torch-cnn", show, quick)


def mixer(show: Show, quick: bool = False) -> "TorchHistory":
    """Advanced exercise: a recent paper's architecture, the MLP-Mixer.

    Images are cut into patches; blocks of two MLPs each mix first over the patches, then over the channels of each
    patch (Tolstikhin et al., NeurIPS 2021). There is neither convolution nor attention in it, only MLPs.
    It is trained as the other two are.
    """
    import torch

    from fastmlp.torch_models import TorchMixer

    torch.manual_seed(0)
    return train_as_the_lab_does(TorchMixer(), "mixer", show, quick)


def one_image(show: Show, quick: bool = False) -> int:
    """Exercise, MNIST: one image drawn with its label.

    An image of MNIST is a row of 784 numbers from 0 (background) to 255 (ink), row by row from its top left corner, and
    its label is the digit that somebody meant to write. To look at one, the row is folded into 28 × 28 pixels again.
    """
    data = mnist()
    image, label = data.train_images[0], int(data.train_labels[0])
    print(f"the first of {len(data.train_images):,} training images: {len(image)} pixels")
    print(f"values from {image.min()} to {image.max()}; {np.mean(image > 0):.1%} of the pixels have ink; label {label}")
    show(lab_plots.one_image_figure(image, label), "one-image")
    return label


# ---- 4. The MLP from scratch ----


class Scratch(NamedTuple):
    """What the part on the MLP from scratch has found.

    Attributes
    ----------
    errors : list of float
        ½ the mean squared error over all outputs, after each iteration.
    accuracy, test_accuracy : float
        Share of images classified rightly: of those trained on, and of the test images.
    """

    errors: list[float]
    accuracy: float
    test_accuracy: float


def train_from_scratch(X: np.ndarray, Y: np.ndarray, iterations: int, at_once: int) -> tuple[Mlp, list[float]]:
    """The lab's class, and the error after each iteration, printed after so many at a time."""
    mlp = Mlp([784, 100, 10])
    errors: list[float] = []
    for _ in range(iterations // at_once):
        mlp.train(X, Y, iterations=at_once, errors=errors)
        print(f"iteration {len(errors):3d}   ½ mean squared error {errors[-1]:.5f}")
    return mlp, errors


def scratch_mlp(show: Show, quick: bool = False) -> Scratch:
    """Exercise: the multilayer perceptron from scratch learns digits.

    The lab's own class and its own run: 10,000 images with raw pixels from 0 to 255, sigmoids in both layers, weights
    drawn from NumPy's global generator, and 400 iterations, each over all images and with steps of size 1. After each
    iteration stands ½ the mean squared error. (The descent follows the cross-entropy; the error is what is drawn.)
    """
    images, iterations, at_once = (1_000, 40, 10) if quick else (10_000, 400, 20)
    data = mnist()
    np.random.seed(123)  # noqa: NPY002 (the lab's own draws)
    chosen = np.random.choice(range(60_000), size=images)  # noqa: NPY002
    X, labels = data.train_images[chosen], data.train_labels[chosen]
    mlp, errors = train_from_scratch(X, np.eye(10)[labels], iterations, at_once)
    accuracy = float(np.mean(mlp.classify(X) == labels))
    test_accuracy = float(np.mean(mlp.classify(data.test_images) == data.test_labels))
    print(f"accuracy on the {images:,} training images: {accuracy:.2%}")
    print(f"accuracy on the {len(data.test_images):,} test images: {test_accuracy:.2%}")

    title, subtitle = "The MLP from scratch, [784, 100, 10]", f"{accuracy:.1%} of the training images right at the end"
    counted = np.arange(1, iterations + 1)
    figure = lab_plots.loss_curve_figure(counted, errors, title, subtitle, "iteration", "½ mean squared error")
    show(figure, "scratch-mlp-loss")
    some = slice(0, 24)
    said = mlp.classify(data.test_images[some])
    show(lab_plots.digits_figure(data.test_images[some], data.test_labels[some], said), "scratch-mlp-digits")
    return Scratch(errors, accuracy, test_accuracy)


#: What each row of the grid of extras varies, name -> arguments of `Mlp` and `Mlp.fit`; the first is what the other
#: rows use.
EXTRAS: dict[str, dict[str, dict[str, Any]]] = {
    "bias": {"with bias": {}, "without bias": {"bias": False}},
    "activation of the hidden layers": {
        name: {"activation": name} for name in ("relu", "leaky_relu", "tanh", "sigmoid", "identity")
    },
    "initialisation": {
        name: {"init": name} for name in ("he_normal", "glorot_uniform", "torch", "lab", "cassani", "zeros")
    },
    "optimiser": {
        "momentum 0.9": {"optimizer": Sgd(0.02, momentum=0.9)},
        "Nesterov 0.9": {"optimizer": Sgd(0.02, momentum=0.9, nesterov=True)},
        "SGD": {"optimizer": Sgd(0.02)},
        "Adam": {"optimizer": Adam(0.002)},
    },
}


class Extra(NamedTuple):
    """Some runs that differ by their seed alone.

    Attributes
    ----------
    losses : ndarray of float64 [seeds, epochs]
        Mean cross-entropy of the training images.
    accuracies : ndarray of float64 [seeds]
        Of the test images, at the end.
    """

    losses: np.ndarray
    accuracies: np.ndarray


def extra(choice: dict[str, Any], seeds: int, epochs: int) -> Extra:
    """Train [64, 64, 32, 10] on scikit-learn's digits, with one thing chosen otherwise."""
    data = digits()
    runs = []
    for seed in range(seeds):
        settings: dict[str, Any] = {
            "activation": "relu",
            "loss": "cross_entropy",
            "init": "he_normal",
            "dtype": "float32",
            "optimizer": Sgd(0.02, momentum=0.9),
        } | choice
        optimizer = settings.pop("optimizer")
        # One thread: a step is too short for a second one to be of use.
        mlp = Mlp([64, 64, 32, 10], seed=seed, threads=1, input_scale=1 / data.levels, **settings)
        history = mlp.fit(
            data.train_images,
            data.train_labels,
            epochs=epochs,
            batch_size=32,
            optimizer=optimizer,
            progress=False,
        )
        finished(history)
        runs.append((history.loss, mlp.score(data.test_images, data.test_labels)))
    losses, accuracies = zip(*runs, strict=True)
    return Extra(np.array(losses), np.array(accuracies))


def bias_of_a_linear_unit() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Two clouds on the same side of the origin, and the weights that a linear unit finds with and without bias."""
    X, y = generate_data(n=40, means=[[4, 4], [2, 2]])
    found = {}
    for name, bias in [("with bias", True), ("without bias", False)]:
        mlp = Mlp([2, 1], init="zeros", bias=bias)
        finished(mlp.fit(X[:, 1:], y, epochs=2_000, batch_size=None, optimizer=Sgd(0.5), progress=False))
        found[name] = mlp.weights[0][0].copy() if bias else np.append(0.0, mlp.weights[0][0])
        print(f"linear unit {name}: {accuracy_on_line(found[name], X, y):.1%} of the points on the right side")
    return X, y, found


def extras(show: Show, quick: bool = False) -> dict[str, dict[str, Extra]]:
    """Extra exercises: bias or none, activation, initialisation, optimiser.

    A network with two hidden layers learns the digits of scikit-learn (8 × 8 pixels), with one thing changed at a
    time and with several seeds. Then the bias again, where one can see what it is for: without one, the line of a
    linear unit has to pass through the origin.
    """
    seeds, epochs = (2, 4) if quick else (5, 30)
    results = {
        what: {name: extra(choice, seeds, epochs) for name, choice in choices.items()}
        for what, choices in EXTRAS.items()
    }
    for what, row in results.items():
        print(f"{what}, test accuracy after {epochs} epochs, mean and range of {seeds} seeds")
        for name, found in row.items():
            low, high = found.accuracies.min(), found.accuracies.max()
            print(f"  {name:<20}{found.accuracies.mean():>7.1%}  ({low:.1%} to {high:.1%})")
    show(lab_plots.extras_figure(results), "extras")
    show(lab_plots.bias_figure(*bias_of_a_linear_unit()), "extras-bias")
    return results


Part = Callable[[Show, bool], Any]

#: name -> part, in the order of the exercises. The first line of its docstring names its exercise and is its title, the
#: rest explains it.
PARTS: dict[str, Part] = {
    "derivations": derivations,
    "linear-unit": linear_unit,
    "minibatch": minibatch,
    "linear-regression": linear_regression,
    "sigmoid": sigmoid,
    "autodiff": autodiff,
    "torch-mlp": torch_mlp,
    "torch-cnn": torch_cnn,
    "mixer": mixer,
    "one-image": one_image,
    "scratch-mlp": scratch_mlp,
    "extras": extras,
}

#: name of a part -> the few functions that matter in it, "module:name".
CODE: dict[str, list[str]] = {
    "derivations": ["fastmlp.lab:loss_i", "fastmlp.lab:grad_loss_i", "fastmlp.lab:quotients"],
    "linear-unit": ["fastmlp.lab:loss_i", "fastmlp.lab:grad_loss_i", "fastmlp.lab:descend_point_by_point"],
    "minibatch": ["fastmlp.lab:random_subsets", "fastmlp.lab:descend"],
    "linear-regression": ["fastmlp.lab:new_linear_regression", "fastmlp.lab:descend"],
    "sigmoid": ["fastmlp.sigmoids:logistic", "fastmlp.sigmoids:logistic_derivative", "fastmlp.sigmoids:smoothstep"],
    "autodiff": ["fastmlp.lab:second_function", "fastmlp.lab:second_derivative", "fastmlp.lab:descend_by_autograd"],
    "torch-mlp": ["fastmlp.lab:torch_mlp", "fastmlp.torch_training:LabPipeline.train_epoch"],
    "torch-cnn": ["fastmlp.torch_models:TorchCnn.__init__", "fastmlp.torch_models:TorchCnn.forward"],
    "mixer": ["fastmlp.torch_models:MixerBlock.forward", "fastmlp.torch_models:TorchMixer.forward"],
    "one-image": ["fastmlp.lab_plots:one_image_figure"],
    "scratch-mlp": ["fastmlp.lab:train_from_scratch"],
    "extras": ["fastmlp.lab:extra"],
}
