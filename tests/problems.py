"""Random problems for the kernels' tests, how far rounding may take two answers apart, and ways to force a plan."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import fastmlp
from fastmlp import kernels
from fastmlp.kernels import Network, Rule, reference
from fastmlp.kernels.activations import SOFTMAX
from fastmlp.kernels.losses import CROSS_ENTROPY, LOSSES, OUTPUTS
from fastmlp.kernels.network import aligned_zeros

#: Every backend that is held against the oracle: the CPU's, which must work everywhere, and the GPU's where one works.
COMPILED = ["cpu", *(["cuda"] if kernels.available()["cuda"] is None else [])]

DTYPES = ("float32", "float64")

#: (output activation, loss): every pair that goes together.
OUTPUT_LOSSES = [(output, loss) for loss, outputs in OUTPUTS.items() for output in outputs]

#: Awkward on purpose: one unit, no hidden layer, widths on either side of a vector's, four layers of weights.
SHAPES = [(7, 5, 3), (1, 2), (9, 2), (16, 8, 4), (5, 1, 2), (17, 9, 15), (33, 31, 4, 2), (3, 5, 4, 6, 2), (1, 1, 7)]

#: One rule of each kind. Rates are modest, so that a difference by rounding is not blown up on the way. Adam divides by
#: the root of its second moment, so where a gradient is zero but for rounding it would turn that rounding into a whole
#: step; an epsilon above the rounding of float32 keeps it out.
RULES = [
    Rule("plain", 0.1),
    Rule("momentum", 0.03, momentum=0.9),
    Rule("nesterov", 0.03, momentum=0.8),
    Rule("adam", 0.01, beta1=0.85, beta2=0.97, epsilon=1e-3),
]


@dataclass
class Problem:
    """A network with parameters, samples and targets, and weights if any; ``seed`` is what they were drawn with."""

    network: Network
    parameters: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    seed: int = 0
    weights: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def arrays(self) -> tuple[Network, np.ndarray, np.ndarray, np.ndarray]:
        return self.network, self.parameters, self.X, self.Y

    def in_dtype(self, dtype: str) -> "Problem":
        """The same numbers in another dtype, rounded to it."""
        network = replace(self.network, dtype=dtype)
        X = self.X if self.X.dtype == np.uint8 else self.X.astype(dtype)
        Y = self.Y if self.Y.ndim == 1 else self.Y.astype(dtype)
        return Problem(network, convert(self.network, self.parameters, network), X, Y, self.seed, weights=self.weights)

    def redrawn(self) -> "Problem":
        """Another of the same kind, with the same weights."""
        inputs, labels = self.X.dtype.name, self.Y.ndim == 1
        return replace(
            random_problem(self.network, len(self.X), self.seed + 10_000, inputs, labels), weights=self.weights
        )


def convert(network: Network, flat: np.ndarray, other: Network) -> np.ndarray:
    """A flat array in the layout and dtype of another description of the same sizes."""
    result = other.zeros()
    for target, source in zip(other.rows(result), network.rows(flat), strict=True):
        target[:] = source
    return result


def random_parameters(network: Network, seed: int = 0) -> np.ndarray:
    """Weights of standard deviation 1/√n_in, so that pre-activations are about 1 at every depth; biases of ½."""
    rng = np.random.default_rng(seed)
    flat = network.zeros()
    for rows, n_in in zip(network.rows(flat), network.sizes, strict=False):
        rows[:] = rng.normal(0, 1 / np.sqrt(n_in), rows.shape)
        if network.bias:
            rows[:, 0] = rng.normal(0, 0.5, len(rows))
    return flat


def random_problem(network: Network, n: int, seed: int = 0, inputs: str | None = None, labels: bool = False) -> Problem:
    """Samples of the dtype ``inputs`` (by default the network's own), and labels or dense targets to suit the loss."""
    rng = np.random.default_rng([seed, n])
    n_in, n_out = network.sizes[0], network.sizes[-1]
    inputs = inputs or network.dtype
    X = rng.integers(0, 256, (n, n_in)) if inputs == "uint8" else rng.normal(0, 1, (n, n_in))
    if labels:
        Y = rng.integers(0, max(n_out, 2), n).astype(np.int32)
    elif network.loss == CROSS_ENTROPY:
        Y = rng.dirichlet(np.ones(n_out), n).astype(network.dtype)
    elif network.loss == "binary_cross_entropy":
        Y = rng.uniform(0, 1, (n, n_out)).astype(network.dtype)
    else:
        Y = rng.normal(0, 1, (n, n_out)).astype(network.dtype)
    return Problem(network, random_parameters(network, seed), X.astype(inputs), Y, seed)


def pixels(inputs: str) -> dict[str, float]:
    """`Network` options that bring samples of that dtype to about ±1."""
    return {"input_scale": 1 / 128, "input_shift": -1.0} if inputs == "uint8" else {}


def option_product(hidden: str) -> Iterator[tuple[str, Problem]]:
    """Each combination of output and loss, bias, dtype, penalty, dtype of the samples and kind of targets.

    Shapes and numbers of samples are dealt out in turn. Comes with a text that names the combination.
    """
    choices = product(OUTPUT_LOSSES, (True, False), DTYPES, (0.0, 0.3), ("uint8", *DTYPES), (True, False))
    for i, ((output, loss), bias, dtype, l2, inputs, labels) in enumerate(choices):
        sizes, n = SHAPES[i % len(SHAPES)], (1, 2, 3, 7, 13)[i % 5]
        scale = pixels(inputs) or ({"input_scale": 0.7, "input_shift": 0.2} if i % 2 else {})
        network = Network.build(sizes, hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **scale)
        yield f"{network}, n={n}, X {inputs}, labels={labels}", random_problem(network, n, i, inputs, labels)


# -------------------------------------------------------------------------------------------------- rounding
@dataclass
class Bounds:
    """How far two evaluations in the network's dtype may differ by rounding: an entry for each number."""

    activations: list[np.ndarray]
    loss: float
    gradients: list[np.ndarray]  # as `Network.rows`


#: Rounding errors of an activation in both evaluations together: exp and tanh to 2 ulp each, and what is done to them.
ULPS = 8


def around(name: str, z: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, ...]:
    """Value and slope of an activation, and how far each moves while z moves by ``error``."""
    (value, slope), low, high = (reference.activate(name, x) for x in (z, z - error, z + error))
    spreads = [np.maximum(abs(a - b), abs(c - b)) for a, b, c in zip(low, (value, slope), high, strict=True)]
    return value, slope, *spreads


def rounding(problem: Problem) -> Bounds:
    """Running error analysis of one forward and backward pass, to first order.

    A sum of K products in any order is off by K/2 eps times the sum of their magnitudes (Higham, Accuracy and
    Stability, §3.1), and two evaluations by K eps; errors of the operands are carried through by the magnitudes of
    what multiplies them, and through activations by their values at both ends of the interval, kinks included.
    """
    network, n = problem.network, len(problem.X)
    samples_weights = np.ones(n) if problem.weights is None else problem.weights
    shares = samples_weights / samples_weights.sum()
    eps = float(np.finfo(network.dtype).eps)
    layers = [rows.astype(np.float64) for rows in network.rows(problem.parameters)]
    biases = [rows[:, 0] if network.bias else np.zeros(len(rows)) for rows in layers]
    weights = [rows[:, 1:] if network.bias else rows for rows in layers]
    scaled = problem.X.astype(np.float64) * network.input_scale
    a, e = scaled + network.input_shift, 2 * eps * (abs(scaled) + abs(network.input_shift))
    values, errors, slopes, activations = [], [], [], []
    for w, b, name in zip(weights, biases, network.activations, strict=True):
        values.append(a)
        errors.append(e)
        z = a @ w.T + b
        ez = e @ abs(w).T + eps * (w.shape[1] + 1) * (abs(a) @ abs(w).T + abs(b))
        if name == SOFTMAX:
            a, s = reference.activate(name, z)[0], np.ones_like(z)
            e, es = a * (2 * ez.max(1, keepdims=True) + (ULPS + z.shape[1]) * eps), np.zeros_like(z)
        else:
            a, s, e, es = around(name, z, ez)
            e, es = e + ULPS * eps * abs(a), es + ULPS * eps
        activations.append(e)
        slopes.append((abs(s), es))
    y = reference.targets(replace(network, dtype="float64"), problem.Y)
    s, es = slopes[-1]
    if network.loss == CROSS_ENTROPY:
        wide = 2 * ez.max(1) + ULPS * eps * (abs(z).max(1) + np.log(z.shape[1]) + 1)
        loss = wide @ shares
    else:
        terms = LOSSES[network.loss][0](z, a, y, np)
        change = abs(a - y) * (ez if network.loss == "binary_cross_entropy" else e + eps * abs(y))
        parts = terms + (abs(z) * (1 + abs(y)) if network.loss == "binary_cross_entropy" else 0)
        loss = (change + ULPS * eps * parts).sum(1) @ shares + eps * z.shape[1] * (terms.sum(1) @ shares)
    d, ed = abs(a - y) * shares[:, None], (e + 4 * eps * (abs(a) + abs(y))) * shares[:, None]
    if network.loss == "mean_squared_error":
        d, ed = d * s, ed * (s + es) + d * es
    gradients = []
    for w, a, e, layer in zip(weights[::-1], values[::-1], errors[::-1], range(len(weights))[::-1], strict=True):
        g = (
            ed.T @ (abs(a) + e)
            + d.T @ e
            + (n + 4) * eps * (d.T @ abs(a))
            + 4 * eps * network.l2 / samples_weights.sum() * abs(w)
        )
        column = (ed + (n + 4) * eps * d).sum(0)[:, None]
        gradients.insert(0, np.hstack([column, g]) if network.bias else g)
        if layer:
            s, es = slopes[layer - 1]
            below = d @ abs(w)
            ed = (ed @ abs(w) + w.shape[0] * eps * below) * (s + es) + below * (es + eps * s)
            d = below * s
    return Bounds(activations, float(loss), gradients)


# ---------------------------------------------------------------------------------------------------- courses
class Course(NamedTuple):
    """What comes of epochs, or how far each of it may be off."""

    parameters: Any
    slots: Any
    losses: Any
    errors: Any


def run_course(
    module: Any, problem: Problem, rule: Rule, orders: Sequence, batch_size: int, threads: int | None = None
) -> Course:
    """An epoch for each order."""
    network, _, X, Y = problem.arrays
    parameters, state = copied(problem.parameters), network.state(rule)
    losses, errors = [], []
    for order in orders:
        errors.append(np.full(-(-len(order) // batch_size), np.nan))
        options = {"threads": threads, "errors": errors[-1]}
        if problem.weights is not None:  # there are no errors then
            errors[-1][:] = 0
            options = {"threads": threads, "weights": problem.weights}
        losses.append(module.train_epoch(network, rule, parameters, state, X, Y, order, batch_size, **options))
    result = Course(parameters, state.slots, np.concatenate(losses), np.concatenate(errors))
    assert state.step.tolist() == [len(result.losses)]
    return result


class NearKinks(AssertionError):
    """Every problem of a kind comes so close to a kink that its course can't be foreseen to rounding."""


def course(problem: Problem, rule: Rule, orders: Sequence, batch_size: int) -> tuple[Problem, Course]:
    """A problem, and how far two courses over it may drift apart by rounding: eps times a measured condition.

    The oracle runs the course in float32 and in float64, from the same numbers. What float32 is off by is its eps times
    the condition of the course, and to first order the same condition holds for float64. Another order of summation has
    errors of the same size, not the same errors: it gets 10 times that, and in any case a few eps a step of the
    largest number and of what a gradient's eps becomes, which is all where the oracle happens to be exact.

    A pre-activation that comes so close to a kink that rounding decides on which side it lies would make two courses
    part for good. Such a problem, about one in a hundred, is replaced with another of its kind; hence the first result.
    """
    dtype = problem.network.dtype
    eps, narrow_eps = (float(np.finfo(d).eps) for d in (dtype, "float32"))
    rate = max(1.0, rule.learning_rate / (rule.epsilon if rule.kind == "adam" else 1 - rule.momentum))
    for _ in range(20):
        narrow = problem.in_dtype("float32")
        wide = narrow.in_dtype("float64")
        with kink_distances() as distances:
            exact = run_course(reference, wide, rule, orders, batch_size)
        rounded = run_course(reference, narrow, rule, orders, batch_size)
        tolerances = []
        for kind, a, b in zip(Course._fields, rounded, exact, strict=True):
            flat = kind in ("parameters", "slots")
            values = every_parameter(narrow.network, a) if flat else a
            expected = every_parameter(wide.network, b) if flat else b
            largest = max(1.0, float(abs(expected).max(initial=0)))
            floor = 4 * eps * len(exact.losses) * rate * largest
            condition = float(abs(values - expected).max(initial=0)) / narrow_eps
            tolerances.append(10 * condition * eps + floor)
        if min(distances, default=np.inf) > 100 * eps + tolerances[0]:
            return problem, Course(*tolerances)
        problem = problem.redrawn()
    raise NearKinks("no problem of this kind stays away from kinks")


def every_parameter(network: Network, flat: np.ndarray) -> np.ndarray:
    """All that is no padding, the same in the layout of either dtype; ``flat`` may be several arrays in a row."""
    arrays = flat.reshape(-1, network.size)
    return np.concatenate([rows.ravel() for array in arrays for rows in network.rows(array)] or [flat])


@contextmanager
def kink_distances() -> Iterator[list[float]]:
    """Collects, while the oracle runs, how close pre-activations come to the kink of a ReLU, as parts of the largest.

    Exact zeros are left out: they are sums of zeros, in any order.
    """
    distances: list[float] = []
    activate = reference.activate

    def watched(name: str, z: np.ndarray):
        sizes = abs(z[z != 0])
        if name in ("relu", "leaky_relu") and sizes.size:
            distances.append(float(sizes.min() / max(1.0, sizes.max())))
        return activate(name, z)

    with mock.patch.object(reference, "activate", watched):
        yield distances


# ---------------------------------------------------------------------------------------------------- checks
def assert_close(actual, expected, tolerance, what: str) -> None:
    """Each number within its tolerance; the message names the worst."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    excess = abs(actual - expected) - tolerance
    if not (excess <= 0).all():  # a NaN is no number within any tolerance
        worst = np.unravel_index(np.nanargmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
        allowed = np.broadcast_to(tolerance, excess.shape)[worst]
        raise AssertionError(
            f"{what}: at {list(map(int, worst))} {actual[worst]!r}, expected {expected[worst]!r}: "
            f"off by {abs(actual[worst] - expected[worst]):.3g}, allowed {allowed:.3g}"
        )


def padding(network: Network, flat: np.ndarray) -> np.ndarray:
    """The elements of a flat array that are no parameter."""
    mask = network.zeros()
    for rows in network.rows(mask):
        rows[:] = 1
    return flat[mask == 0]


def copied(array: np.ndarray) -> np.ndarray:
    """A copy on a 64-byte boundary, which ``ndarray.copy`` does not promise."""
    result = aligned_zeros(len(array), array.dtype)
    result[:] = array
    return result


# -------------------------------------------------------------------------------------------- the CPU's plans
@contextmanager
def forced(
    way: str | None = None,
    *,
    always_threads: bool = False,
    chunk: int | None = None,
    sparse: bool | None = None,
    wide: bool | None = None,
) -> Iterator[None]:
    """Have the CPU backend split batches by "units" or by "samples", whatever their size.

    ``always_threads`` gives the smallest network as many threads as are asked for, and even a lone one a thread of its
    own; ``chunk`` is the number of samples taken at a time; ``sparse`` whether inference and batches split by samples
    take them as lists of what is not zero; ``wide`` whether layers have the operands of their products copied.
    """
    from fastmlp.kernels import cpu
    from fastmlp.kernels.cpu import plan

    with ExitStack() as stack:

        def replace_with(module: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(module, name, value))

        if way is not None:
            replace_with(plan, "is_small", lambda *arguments: way == "units")
        if always_threads:
            replace_with(cpu, "WORK_PER_STEP", 1e-9)
            replace_with(cpu, "WORK_PER_RESTING_STEP", 1e-9)
            replace_with(cpu, "WORK_PER_THREAD", 1e-9)
            replace_with(cpu, "BRIEF_WORK", 0)
        if chunk is not None:
            replace_with(plan, "chunk_samples", lambda network: chunk)
        if wide is not None:
            replace_with(plan, "is_wide", lambda *arguments: wide)
            replace_with(plan, "plans", plan._Plans())  # those that are kept were made otherwise
        if sparse is not None:
            found = plan.Background(0.0, 0.5) if sparse else None
            replace_with(plan, "background", lambda *arguments: found)
        yield


def compilations() -> int:
    """How many times this process has compiled the CPU's kernels, or loaded them from the cache."""
    from fastmlp.kernels.cpu import drivers

    return len(drivers.run.signatures)


def run_python(code: str, *, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; it finds fastmlp as this one does, or in ``path``, and these helpers."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=child_environment(path, **environment),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=path,
    )


def child_environment(path: Path | None = None, **environment: str) -> dict[str, str]:
    """Variables for a process that finds fastmlp as this one does, or in ``path``, and these helpers."""
    places = [str(path or Path(fastmlp.__file__).parent.parent), str(Path(__file__).parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **environment}
