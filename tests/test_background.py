"""Inputs of which most are one same value, the background: the CPU's first layer in rows by input, against the oracle.

In batches split by units the rows of inputs that are off the background in no sample rest; in batches split by samples
and in inference they do not. Both are forced here on problems too small to be taken so, and left to be found on larger.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_double
from dataclasses import dataclass, replace
from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    Course,
    NearKinks,
    Problem,
    copied,
    course,
    forced,
    padding,
    random_problem,
    run_course,
    run_python,
)
from test_contract import HIDDEN, WAYS, check_course, check_epochs, check_one_pass, one_of_each

from fastmlp import Mlp, Sgd, kernels
from fastmlp.kernels import Network, Rule, reference
from fastmlp.kernels.cpu import drivers, entries, plan, team
from fastmlp.kernels.cpu.config import (
    BY_INPUT_LANES,
    BY_INPUT_VECTORS,
    FEW_INPUTS,
    FEWEST_INPUTS,
    FEWEST_INPUTS_BATCH,
    NARROW_INPUTS,
    NARROW_VECTORS,
)

#: Rules under which rows may rest; the first two as all tests use them.
RESTING = [RULES[0], RULES[1], Rule("momentum", 0.03, momentum=0.5), Rule("momentum", 0.03, momentum=0.99)]

#: Values that most inputs may have, and the samples' dtypes that can hold them: any, where nothing is scaled.
BACKGROUNDS = [(7.0, "float32"), (-0.5, "float64"), (0.1, "float64"), (3.0, "uint8"), (0.0, "uint8"), (-0.5, "float32")]


@pytest.fixture(scope="module")
def cpu():
    kernels.warmup()
    return kernels.backend("cpu")


# ------------------------------------------------------------------------------------------------------- problems
@dataclass
class BackgroundProblem(Problem):
    """A problem whose inputs are ``value``, but for a share of about ``density``."""

    value: float = 0.0
    density: float = 0.2

    def redrawn(self) -> "BackgroundProblem":
        other = super().redrawn()
        return background_problem(self.network, len(self.X), other.seed, self.X.dtype.name, self.value, self.density)


def background_problem(
    network: Network, n: int, seed: int, inputs: str, value: float, density: float = 0.2, labels: bool = True
) -> BackgroundProblem:
    """A sample that is all background, an input that always is, and one that never is, among others.

    The first layer's weights are smaller by the background, so that pre-activations are about 1.
    """
    problem, rng = random_problem(network, n, seed, inputs, labels), np.random.default_rng([seed, 1])
    X, n_in = problem.X, network.sizes[0]
    off = rng.uniform(size=X.shape) < density
    off[:, n_in // 3] = True
    off[:, n_in // 2] = False
    off[n // 2] = False
    X[~off] = value
    if inputs == "uint8" and network.input_scale == 1:
        X[off] %= 5
    rows = network.rows(problem.parameters)[0]
    rows[:, int(network.bias) :] /= 1 + abs(value * network.input_scale + network.input_shift)
    return BackgroundProblem(*problem.arrays, seed, value, density)


def scaling(value: float, inputs: str) -> dict[str, float]:
    """`Network` options for samples with that background: any but 0 is left as it is."""
    if value:
        return {}
    return {"input_scale": 1 / 128, "input_shift": -1.0} if inputs == "uint8" else {"input_shift": 0.25}


def gentle(rule: Rule, problem: Problem) -> Rule:
    """The rule with a step that suits so many inputs off zero: a longer one would make the course chaotic."""
    network = problem.network
    x = problem.X.astype(np.float64) * network.input_scale + network.input_shift
    if rule.kind == "adam":
        return replace(rule, learning_rate=rule.learning_rate / (1 + abs(x).sum(1).mean()))
    size = (1 + (x * x).sum(1).mean()) * network.sizes[-1]
    return replace(rule, learning_rate=0.3 * (1 - rule.momentum) / size)


@contextmanager
def taken_off(value: float, way: str | None = "units", chunk: int | None = None) -> Iterator[None]:
    """Have the CPU take ``value`` for the background, whatever the samples, and split batches one way."""
    with (
        forced(way, always_threads=True, chunk=chunk),
        mock.patch.object(plan, "background", return_value=plan.Background(value, 0.5)),
    ):
        yield


@contextmanager
def jobs_run() -> Iterator[list[tuple[int, bool, float]]]:
    """Collects, for each member's part of a job: which job, whether rows are by input, and the scaled background."""
    kernels.warmup()  # would be a job of its own
    jobs, run = [], drivers.run

    def watched(t, job, p, *rest):
        settings = (c_double * entries.SETTINGS_LENGTH).from_address(int(p[entries.SETTINGS_ARRAY]))
        jobs.append((job, bool(p[entries.BY_INPUT]), settings[entries.BACKGROUND]))
        return run(t, job, p, *rest)

    with mock.patch.object(drivers, "run", watched):
        yield jobs


def check_orders(cpu, problem: Problem, rule: Rule, orders, batch_size: int, what: str, threads=None) -> None:
    """Epochs in these orders, against the oracle: parameters, state, losses and errors."""
    what = f"{what}, batch_size={batch_size}, {threads} threads, {rule}"
    problem, tolerances = course(problem, rule, orders, batch_size)
    ours = run_course(cpu, problem, rule, orders, batch_size, threads)
    check_course(ours, run_course(reference, problem, rule, orders, batch_size), tolerances, what)
    for array in (ours.parameters, *ours.slots.reshape(rule.slots, problem.network.size)):
        assert not padding(problem.network, array).any(), f"padding after {what}"


# -------------------------------------------------------------------------------------------- rows that rest
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_of_every_size(cpu, dtype):
    """On either side of what is taken in one go, of a word's halves and of a whole word; the last batch is short."""
    sizes = (1, 2, 3, 5, 6, 11, 31, 32, 33, 40, 63, 64)
    for i, batch_size in enumerate(sizes):
        for j, (value, inputs) in enumerate(BACKGROUNDS[i % 2 :: 2]):
            network = Network.build((29, 11, 3), "tanh", bias=j != 2, dtype=dtype, **scaling(value, inputs))
            n = max(13, 2 * batch_size + 1 + batch_size // 2)
            problem = background_problem(network, n, i, inputs, value, 0.05 if j else 0.3)
            what = f"{network} X {inputs}, background {value}"
            with taken_off(value), jobs_run() as jobs:
                rule, threads = gentle(RESTING[(i + j) % 4], problem), 1 + (i + j) % 3
                check_epochs(cpu, problem, rule, batch_size, what, epochs=3, threads=threads, composition=False)
            assert set(jobs) == {(entries.TRAIN_SMALL, True, value * network.input_scale + network.input_shift)}, what


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_units_shared_out_by_whole_vectors(cpu, dtype, threads):
    """As many as a vector, more than fit the registers, and so few that a member has none; any number of layers."""
    for i, (units, hidden) in enumerate(product((1, 7, 8, 9, 100, 105, 110, 300), range(4))):
        sizes = ((units,), (units, 3), (units, 10, 3), (units, 9, 1, 4))[hidden]
        pairs = [pair for pair in OUTPUT_LOSSES if sizes[-1] > 1 or pair[1] != "cross_entropy"]
        output, loss = pairs[i % len(pairs)]
        value, inputs = BACKGROUNDS[(i + i // 4) % len(BACKGROUNDS)]
        n_in = 101 if units < 20 else 17
        network = Network.build(
            (n_in, *sizes), HIDDEN[i % 5], output, loss, bias=i % 3 != 0, dtype=dtype, **scaling(value, inputs)
        )
        problem = background_problem(network, 20, i, inputs, value, labels=i % 2 == 0)
        rule, batch_size = gentle(RESTING[i % 4], problem), (3, 7, 12)[i % 3]
        with taken_off(value):
            what = f"{network} X {inputs}, background {value}"
            check_epochs(cpu, problem, rule, batch_size, what, threads=threads, composition=False)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_output_and_loss(cpu, hidden):
    """With each activation, dtype and kind of targets, bias or not, split by units and by samples."""
    choices = product(OUTPUT_LOSSES, (True, False), DTYPES, WAYS)
    for i, ((output, loss), bias, dtype, way) in enumerate(choices):
        value, inputs = BACKGROUNDS[i % 6]
        network = Network.build((13, 5, 3), hidden, output, loss, bias=bias, dtype=dtype, **scaling(value, inputs))
        problem = background_problem(network, 11, i, inputs, value, labels=i // 4 % 2 == 0)
        with taken_off(value, way):
            what = f"{network} X {inputs}, background {value}, {way}"
            check_one_pass(cpu, problem, what, 1 + i % 3)
            rule = gentle(RULES[1], problem)
            check_epochs(cpu, problem, rule, 4, what, epochs=1, threads=1 + i % 3, composition=False)


@pytest.mark.parametrize(
    ("dtype", "rule", "value"),
    [
        ("float64", RESTING[0], 7.0),
        ("float64", RESTING[1], 0.0),
        ("float64", RESTING[2], -0.5),
        ("float64", RESTING[3], 7.0),
        ("float32", RESTING[1], -0.5),
        ("float32", RESTING[3], 0.0),
    ],
    ids=lambda x: f"{x.kind} {x.momentum}" if isinstance(x, Rule) else str(x),
)
def test_long_rests(cpu, dtype, rule, value):
    """Inputs that rest for longer than the table of rests, or to the end; woken in one epoch and left in the next."""
    longest = plan.LONGEST_REST
    gaps = (1, 2, longest - 2, longest - 1, longest, longest + 1, 2 * longest - 2, 2 * longest - 1, 2 * longest)
    network, n = Network.build((110, 5, 2), "tanh", dtype=dtype, bias=value != 0, **scaling(value, dtype)), 620
    problem = background_problem(network, n, 0, dtype, value, 0)
    X, rng = problem.X, np.random.default_rng(0)
    for block in (0, 97):  # inputs of the first block and of the second
        for k, gap in enumerate((*gaps, n - 1), block):
            X[0, k], X[gap, k] = rng.normal(0, 2, 2) + value  # woken after such a gap, and rests to the end
        X[0, block + len(gaps) + 1] = value + 2  # rests to the end, and is woken at the end of the next epoch
    orders = [np.arange(n), np.arange(300)[::-1].copy()]
    with taken_off(value), jobs_run() as jobs:
        check_orders(cpu, problem, gentle(rule, problem), orders, 1, str(network), threads=2)
    assert {job[:2] for job in jobs} == {(entries.TRAIN_SMALL, True)}


def test_momentum_of_zero_is_no_momentum(cpu):
    """The velocities of a row that rests are zero after the first step of rest."""
    network = Network.build((29, 11, 3), "tanh", dtype="float64")
    problem = background_problem(network, 20, 0, "float64", 7.0, 0.05)
    rule = gentle(Rule("momentum", 0.03, momentum=0.0), problem)
    with taken_off(7.0):
        check_epochs(cpu, problem, rule, 3, str(network), composition=False)


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_epochs_go_on_from_the_state(cpu, value):
    """Rests end with the epoch and begin anew; the oracle may take one in between."""
    network = Network.build((29, 9, 3), "tanh", dtype="float64")
    problem = background_problem(network, 24, 0, "float64", value, 0.05)
    for rule in (gentle(rule, problem) for rule in RESTING):
        orders = [np.random.default_rng(i).permutation(24) for i in range(4)]
        _, tolerances = course(problem, rule, orders, 2)
        expected = run_course(reference, problem, rule, orders, 2)
        parameters, state = copied(problem.parameters), network.state(rule)
        with taken_off(value):
            for module, order in zip((cpu, reference, cpu, cpu), orders, strict=True):
                module.train_epoch(network, rule, parameters, state, problem.X, problem.Y, order, 2, threads=2)
        ours = Course(parameters, state.slots, 0, 0)
        check_course(ours, Course(*expected[:2], 0, 0), Course(*tolerances[:2], 0, 0), str(rule))


# ------------------------------------------------------------------------------------ rows that are always up to date
@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_that_cannot_rest(cpu, dtype):
    """Nesterov's momentum, Adam and any penalty, however the batches are split; nothing rests."""
    rules = [*RULES[2:], RULES[0], RULES[1]]
    for i, (rule, way, batch_size) in enumerate(product(rules, (*WAYS, None), (5, 33))):
        value, inputs = BACKGROUNDS[i % 6]
        l2 = 0.0 if i < 12 and i % 2 else 0.1
        network = Network.build((29, 11, 3), "sigmoid", dtype=dtype, l2=l2, bias=i % 4 != 0, **scaling(value, inputs))
        problem = background_problem(network, 80, i, inputs, value)
        with taken_off(value, way), jobs_run() as jobs:
            what = f"{network} X {inputs}, background {value}, {way}"
            check_epochs(cpu, problem, gentle(rule, problem), batch_size, what, threads=1 + i % 3, composition=False)
        by_samples = way == "samples" or (way is None and batch_size > 16)
        expected = (entries.TRAIN_LARGE, True) if by_samples else (entries.TRAIN_SMALL, False)
        assert {job[:2] for job in jobs} == {expected}, what


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_pass_and_large_batches(cpu, dtype):
    """Feedforward, predict, evaluate and backpropagation, and batches split by samples: words of up to 64 samples."""
    widths, units = (1, 2, 31, 95, 96, 97, 200), (1, 7, 8, 9, 100, 105, 110, 300)
    for i, (n_in, (value, inputs)) in enumerate(product(widths, BACKGROUNDS)):
        sizes = (n_in, units[i % 8], 3) if i % 3 else (n_in, units[i % 8] + 1)
        chunk, threads, n = (None, 31, 32, 33, 63, 64, 5)[i % 7], 1 + i % 3, (70, 13, 130)[i // 3 % 3]
        hidden = "tanh" if units[i % 8] > 20 else HIDDEN[i % 5]  # of so many units some would be near a kink
        network = Network.build(sizes, hidden, bias=i % 4 != 0, dtype=dtype, **scaling(value, inputs))
        problem = background_problem(network, n, i, inputs, value)
        what = f"{network} X {inputs}, background {value}, n={n}, chunk={chunk}, {threads} threads"
        with taken_off(value, "samples", chunk), jobs_run() as jobs:
            check_one_pass(cpu, problem, what, threads)
            rule = gentle(RULES[i % 4], problem)
            check_epochs(cpu, problem, rule, n - n // 3, what, epochs=1, threads=threads, composition=False)
        assert all(sparse for _, sparse, _ in jobs), what


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_by_input_of_samples_taken_whole(cpu, dtype):
    """The same without a background and its lists: the products of few inputs, edges of their tiles included."""
    widths, units = (1, 2, 7, 8, 9, 33, 70), (1, 2, 7, 9, 25, 40, 100)
    for i, (n_in, n_out) in enumerate(product(widths, units)):
        sizes = (n_in, n_out, 3) if i % 3 else (n_in, n_out + 1)
        chunk, threads, n = (None, 1, 2, 5, 12, 64, 65)[i % 7], 1 + i % 3, (70, 13, 130)[i // 3 % 3]
        inputs, options = (("float32", {}), ("uint8", {"input_scale": 1 / 128, "input_shift": -1.0}))[i % 2]
        hidden = "tanh" if n_out > 20 else HIDDEN[i % 5]
        network = Network.build(sizes, hidden, bias=i % 4 != 0, dtype=dtype, l2=0.1 * (i % 5 == 0), **options)
        problem = random_problem(network, n, i, inputs)
        what = f"{network} X {inputs}, n={n}, chunk={chunk}, {threads} threads"
        with (
            forced("samples", always_threads=True, chunk=chunk),
            mock.patch.object(plan, "has_few_inputs", return_value=True),
            jobs_run() as jobs,
        ):
            check_one_pass(cpu, problem, what, threads)
            rule = gentle(RULES[i % 4], problem)
            check_epochs(cpu, problem, rule, n - n // 3, what, epochs=1, threads=threads, composition=False)
        assert all(by_input for _, by_input, _ in jobs), what


# ------------------------------------------------------------------------------------------------------ as found
@pytest.mark.parametrize("dtype", DTYPES)
def test_backgrounds_are_found(cpu, dtype):
    """Nothing forced: in enough samples the background is noticed, by every function."""
    for i, (value, inputs) in enumerate(BACKGROUNDS):
        network = Network.build((40, 12, 3), "tanh", dtype=dtype, bias=i != 3, **scaling(value, inputs))
        problem, what = background_problem(network, 420, i, inputs, value), f"X {inputs}, background {value}"
        found = plan.background(network, problem.X, 420)
        assert found is not None, what
        assert found.value == value, what
        assert 0.1 < found.share < 0.3, what
        level = value * network.input_scale + network.input_shift
        with jobs_run() as jobs:
            check_one_pass(cpu, problem, what, threads=2)
        seen = {entries.PREDICT, entries.FEEDFORWARD, entries.EVALUATE, entries.GRADIENT}
        assert set(jobs) == {(job, True, level) for job in seen}, what
        for batch_size, job in ((5, entries.TRAIN_SMALL), (420, entries.TRAIN_LARGE)):
            with jobs_run() as jobs:
                rule = gentle(RESTING[i % 4], problem)
                check_epochs(cpu, problem, rule, batch_size, what, epochs=1, threads=2, composition=False)
            assert set(jobs) == {(job, True, level)}, what


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_inputs_of_many_units(cpu, dtype):
    """Rows by input without any background, in small batches, where nothing else moves the rows.

    The fewest units that are many fill so many vectors of this machine. Of 200 samples of many units some come near a
    kink, the more so under momentum: activations that have one get the fewest units and plain steps.
    """
    many = NARROW_VECTORS * plan.vector_bits() // 8 // np.dtype(dtype).itemsize
    plain, momentum, short, long = RESTING
    cases = [
        ((4, 2 * many, 1), 1, "sigmoid", plain, True),
        ((1, many, 3), 7, "relu", plain, True),
        ((9, 2 * many + 1, 5, 2), 2, "tanh", short, True),
        ((3, many, 2), 5, "leaky_relu", plain, True),
        ((3, 4 * many, 2), 8, "identity", long, True),
        ((3, many - 1, 2), 2, "tanh", long, False),
        ((many, many, 3), NARROW_INPUTS, "tanh", momentum, True),
        ((many, many, 3), NARROW_INPUTS + 1, "tanh", momentum, False),
    ]
    for i, (sizes, batch_size, hidden, rule, expected) in enumerate(cases):
        inputs, options = (("float32", {}), ("uint8", {"input_scale": 1 / 128, "input_shift": -1.0}))[i % 2]
        loss = "binary_cross_entropy" if sizes[-1] == 1 else "cross_entropy"
        network = Network.build(sizes, hidden, loss=loss, bias=i != 2, dtype=dtype, **options)
        problem, what = random_problem(network, 200, i, inputs), f"{network} X {inputs}, batch_size={batch_size}"
        with jobs_run() as jobs:
            rule = gentle(rule, problem)
            check_epochs(cpu, problem, rule, batch_size, what, epochs=1, threads=1 + i % 2, composition=False)
        assert {rows_by_input for _, rows_by_input, _ in jobs} == {expected}, what


def test_who_has_rows_by_input_without_a_background(cpu):
    """Not few units, not few samples, not a rule that moves rows without a gradient."""
    many = NARROW_VECTORS * plan.vector_bits() // 32
    network, rule = Network.build((4, 2 * many, 2), "tanh"), RESTING[1]
    cases = [
        (network, rule, 200, True),
        (network, RULES[3], 200, False),
        (replace(network, l2=0.1), rule, 200, False),
        (network, rule, 20, False),
        (Network.build((4, many - 1, 2), "tanh"), rule, 200, False),
    ]
    for network, rule, n, expected in cases:
        with jobs_run() as jobs:
            problem = random_problem(network, n, 0)
            check_epochs(cpu, problem, gentle(rule, problem), 3, str(network), epochs=1, threads=1, composition=False)
        assert {rows_by_input for _, rows_by_input, _ in jobs} == {expected}, (network, rule, n)


def test_who_has_rows_by_input_in_large_batches(cpu):
    """Few inputs of many units, in vectors of many numbers, and enough samples; whatever the rule."""
    for dtype in DTYPES:
        lanes = plan.vector_bits() // 8 // np.dtype(dtype).itemsize
        few = (BY_INPUT_VECTORS - 1) * lanes
        cases = [
            ((FEW_INPUTS, few + 1, 2), 300, lanes >= BY_INPUT_LANES),
            ((FEW_INPUTS + 1, few + 1, 2), 300, False),
            ((20, few, 2), 300, False),
            ((20, few + 1, 2), 100, False),
        ]
        for sizes, n, expected in cases:
            problem = random_problem(Network.build(sizes, "tanh", dtype=dtype), n, 0)
            with jobs_run() as jobs:
                check_one_pass(cpu, problem, f"{sizes}, n={n}", threads=1)
                rule = gentle(RULES[3], problem)
                check_epochs(cpu, problem, rule, n - 30, str(sizes), epochs=1, threads=1, composition=False)
            assert {by_input for _, by_input, _ in jobs} == {expected}, (sizes, dtype, n)


def test_the_fewest_inputs_have_small_batches_split_by_samples(cpu):
    """By a lone member, from some samples on."""
    lanes = plan.vector_bits() // 32
    units, large = BY_INPUT_VECTORS * lanes, entries.TRAIN_LARGE if lanes >= BY_INPUT_LANES else entries.TRAIN_SMALL
    for n_in, batch, expected in (
        (FEWEST_INPUTS, FEWEST_INPUTS_BATCH, large),
        (FEWEST_INPUTS + 1, FEWEST_INPUTS_BATCH, entries.TRAIN_SMALL),
        (FEWEST_INPUTS, FEWEST_INPUTS_BATCH - 1, entries.TRAIN_SMALL),
    ):
        problem = random_problem(Network.build((n_in, units, 2), "tanh"), 300, 0)
        with jobs_run() as jobs:
            rule = gentle(RULES[3], problem)
            check_epochs(cpu, problem, rule, batch, f"{n_in}, {batch}", epochs=1, threads=1, composition=False)
        assert {job for job, *_ in jobs} == {expected}, (n_in, batch)


def test_what_is_no_background_is_left_in(cpu):
    """Found only where the difference from it is zero, and in finite numbers."""
    rng, network = np.random.default_rng(0), Network.build((40, 3))
    scaled = Network.build((40, 3), input_scale=0.7)
    X = np.where(rng.random((300, 40)) < 0.2, rng.normal(size=(300, 40)), 7.0).astype(np.float32)
    assert plan.background(network, X, 300) == (7.0, pytest.approx(0.2, abs=0.05))
    assert plan.background(scaled, X, 300) is None
    assert plan.background(scaled, X - 7, 300).value == 0
    assert plan.background(network, X, 100) is None
    assert plan.background(network, np.where(rng.random(X.shape) < 0.5, X, rng.random(X.shape)), 300) is None
    largest = np.finfo(np.float32).max
    for everywhere in (np.nan, np.inf, -np.inf, largest):
        spoilt = np.full((300, 40), everywhere, np.float32)
        assert (plan.background(network, spoilt, 300) is None) == (everywhere != largest), everywhere
    spoilt = np.where(np.arange(40) % 2, np.inf, -np.inf) * np.ones((300, 1))
    assert plan.background(network, spoilt, 300) is None
    X[3] = np.nan
    assert plan.background(network, X, 300).value == 7


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_samples_that_are_background_throughout(cpu, value):
    """All of them, or all but a few that nobody looks at when the background is sought."""
    for dtype, few in product(DTYPES, (True, False)):
        network = Network.build((30, 9, 3), "tanh", dtype=dtype)
        problem = background_problem(network, 330, 0, dtype, value)
        problem.X[:] = value
        if few:
            problem.X[1::3, ::5] = value + 1
            problem.X[::3] = value
        for batch_size in (5, 330):
            what = f"{network}, background {value}, few={few}"
            check_one_pass(cpu, problem, what)
            rule = gentle(RULES[1], problem)
            check_epochs(cpu, problem, rule, batch_size, what, epochs=1, composition=False)


def test_data_changed_in_place_between_calls(cpu):
    """Another background, none, the first again: what is kept from one call is not taken for the next."""
    network, rule = Network.build((40, 4, 3), "tanh", dtype="float64"), Rule("momentum", 0.0005, momentum=0.9)
    kept = background_problem(network, 400, 0, "float64", 0.0, labels=False)
    ours, theirs = (Problem(network, copied(kept.parameters), kept.X, kept.Y) for _ in range(2))
    states, level = [network.state(rule) for _ in range(2)], []
    for i, value in enumerate((0.0, 7.0, None, -0.5, 0.0, None, 7.0)):
        dense = random_problem(network, 400, i).X
        kept.X[:] = dense if value is None else background_problem(network, 400, i, "float64", value).X
        order, batch_size = np.random.default_rng(i).permutation(400), (5, 40, 300)[i % 3]
        results = []
        for module, problem, state in ((cpu, ours, states[0]), (reference, theirs, states[1])):
            with jobs_run() as jobs:
                losses = module.train_epoch(network, rule, problem.parameters, state, kept.X, kept.Y, order, batch_size)
            results.append(Course(problem.parameters, state.slots, losses, 0))
            level += [(sparse, background) for _, sparse, background in jobs]
        check_course(*results, Course(1e-11, 1e-11, 1e-11, 0), f"call {i}, background {value}")
        check_one_pass(cpu, ours, f"call {i}, background {value}")
    assert {(True, 0.0), (True, 7.0), (True, -0.5)} <= set(level)
    assert not all(sparse for sparse, _ in level)


# ------------------------------------------------------------------------------------------------ what must not differ
@pytest.mark.parametrize("way", WAYS)
def test_repeats_to_the_bit(cpu, way):
    """With as many threads, and whether or not the errors are asked for."""
    for value, threads, sizes in product((0.0, -0.5), (1, 2, 3), ((29, 40, 3), (29, 8), (29, 9, 17, 4))):
        network, rule = Network.build(sizes, "tanh"), RULES[1]
        problem, orders = background_problem(network, 60, 0, "float32", value), [np.arange(60)[::-1].copy()] * 2
        rule = gentle(rule, problem)
        with taken_off(value, way, 5):
            first = run_course(cpu, problem, rule, orders, 7, threads)
            for _ in range(3):
                again = run_course(cpu, problem, rule, orders, 7, threads)
                check_course(again, first, Course(0, 0, 0, 0), f"{network} {way} {threads} threads, again")
            parameters, state = copied(problem.parameters), network.state(rule)
            for order in orders:
                cpu.train_epoch(network, rule, parameters, state, problem.X, problem.Y, order, 7, threads=threads)
            np.testing.assert_array_equal(parameters, first.parameters)
            np.testing.assert_array_equal(state.slots, first.slots)


@pytest.mark.parametrize("spoiler", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_leaves_nothing_behind(cpu, spoiler):
    """It comes out in the parameters, a NaN in its batch's loss too; the next call finds nothing of it in a kept plan.

    An infinite input need not come out in a loss: tanh is 1 there. Nor does the NaN that it leaves in its weights, as
    long as no other sample is off a background of zero there.
    """
    choices = product(WAYS, (0.0, 7.0), (True, False), ((29, 9, 3), (29, 11, 5, 3), (29, 13)), (2, 3, 7))
    for i, (way, value, bias, sizes, batch_size) in enumerate(choices):
        network, threads = Network.build(sizes, "tanh", bias=bias, dtype=DTYPES[i % 2]), 1 + i % 3
        problem = background_problem(network, 9, i, DTYPES[i % 2], value)
        rule, orders = gentle(RULES[1], problem), [np.arange(9)] * 2
        spoilt = Problem(network, problem.parameters, problem.X.copy(), problem.Y)
        spoilt.X[1::3, 4] = spoiler
        what = f"{network} {way} background {value} batch_size {batch_size}"
        with taken_off(value, way, 4):
            before = [*one_of_each(cpu, problem), *run_course(cpu, problem, rule, orders, batch_size, threads)]
            kept = [*plan.plans.kept, *plan.plans.last]
            one_of_each(cpu, spoilt)
            with np.errstate(invalid="ignore"):
                expected = run_course(reference, spoilt, rule, orders[:1], batch_size)
            lost = run_course(cpu, spoilt, rule, orders, batch_size, threads)
            assert not np.isfinite(expected.parameters).all(), what
            assert not np.isfinite(lost.parameters).all(), what
            if np.isnan(spoiler):
                step = np.flatnonzero(np.isnan(expected.losses))[0]
                assert np.isnan(lost.losses[step]), what
                assert np.isfinite(lost.losses[:step]).all(), what
            after = [*one_of_each(cpu, problem), *run_course(cpu, problem, rule, orders, batch_size, threads)]
            found = [*plan.plans.kept, *plan.plans.last]
            assert set(map(id, found)) == set(map(id, kept)), "not the plans that were spoilt"
        for a, b in zip(after, before, strict=True):
            np.testing.assert_array_equal(a, b, f"after {spoiler}: {what}")


def test_any_place_in_memory_and_only_rows_in_c_order(cpu):
    """A part of an array, off any boundary, read-only, is taken as it lies; columns are refused before anything."""
    for (value, inputs), batch_size in product(BACKGROUNDS, (5, 300)):
        network = Network.build((41, 12, 3), "tanh", **scaling(value, inputs))
        problem = background_problem(network, 420, 0, inputs, value)
        rule, orders = gentle(RULES[1], problem), [np.arange(400)]
        whole = np.zeros(420 * 41 + 1, inputs)
        whole[1:] = problem.X.reshape(-1)
        part = whole[1:].reshape(420, 41)[3:-1]
        part.setflags(write=False)
        off = Problem(network, problem.parameters, part, problem.Y[3:-1])
        own = Problem(network, problem.parameters, part.copy(), problem.Y[3:-1])
        results = [run_course(cpu, which, rule, orders, batch_size, 2) for which in (off, own)]
        check_course(*results, Course(0, 0, 0, 0), f"X {inputs}")
        for wrong in (np.asfortranarray(problem.X), np.repeat(problem.X, 2, 1)[:, ::2]):
            parameters, state = copied(problem.parameters), network.state(rule)
            with pytest.raises(ValueError, match=rf"X is {inputs} \[420, 41\]; expected C-contiguous"):
                cpu.train_epoch(network, rule, parameters, state, wrong, problem.Y, orders[0], batch_size)
            np.testing.assert_array_equal(parameters, problem.parameters)
            assert not state.slots.any()
            assert not state.step.any()


# -------------------------------------------------------------------------------------------------- any shape at all
@st.composite
def any_background_problem(draw):
    sizes = (draw(st.integers(1, 120)), *draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    losses = [pair for pair in OUTPUT_LOSSES if sizes[-1] > 1 or pair[1] != "cross_entropy"]
    output, loss = draw(st.sampled_from(losses))
    value, inputs = draw(st.sampled_from(BACKGROUNDS))
    network = Network.build(
        sizes,
        [draw(st.sampled_from(HIDDEN)) for _ in sizes[2:]],
        output,
        loss,
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
        **scaling(value, inputs),
    )
    n, seed, density = draw(st.integers(1, 70)), draw(st.integers(0, 99)), draw(st.sampled_from([0.01, 0.1, 0.5, 1.0]))
    return background_problem(network, n, seed, inputs, value, density, draw(st.booleans()))


@settings(max_examples=100)
@given(
    problem=any_background_problem(),
    rule=st.sampled_from(RESTING),
    batch_size=st.integers(1, 64),
    threads=st.integers(1, 4),
    way=st.sampled_from([None, *WAYS]),
    chunk=st.sampled_from([None, 1, 4, 33]),
)
def test_any_shape(problem, rule, batch_size, threads, way, chunk):
    cpu = kernels.backend("cpu")
    with taken_off(problem.value, way, chunk):
        what = f"{problem.network} background {problem.value} {way} threads={threads} chunk={chunk}"
        check_one_pass(cpu, problem, what, threads)
        try:
            rule = gentle(rule, problem)
            check_epochs(cpu, problem, rule, batch_size, what, threads=threads, composition=False)
        except NearKinks:
            reject()


# ------------------------------------------------------------------------------------------------------ interrupted
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread on this system")
@pytest.mark.parametrize("value", [0.0, -0.5])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_in_rows_that_rest_leaves_the_last_finished_epoch(cpu, monkeypatch, threads, value):
    """Within an epoch the first layer's rows are the members' own, so that half of one is in the parameters: undone."""
    network = Network.build((30, 12, 3), "tanh")
    problem, optimizer = background_problem(network, 400, 0, "float32", value), Sgd(0.001, momentum=0.9)
    many = np.tile(problem.X, (500, 1)), np.tile(problem.Y, 500)
    straight, mlp = (
        Mlp(
            (30, 12, 3),
            activation="tanh",
            loss="cross_entropy",
            backend="cpu",
            threads=threads,
            dtype="float32",
            seed=0,
        )
        for _ in range(2)
    )
    for one in (straight, mlp):
        one.fit(problem.X, problem.Y, epochs=2, batch_size=2, optimizer=optimizer)
    finished, left = mlp.parameters.copy(), []
    run, train_epoch = team.run, cpu.train_epoch

    def interrupted(*arguments):
        timer = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        try:
            return run(*arguments)
        finally:
            timer.join()

    def watched(network, rule, parameters, *rest, **options):
        try:
            return train_epoch(network, rule, parameters, *rest, **options)
        finally:
            left.append(parameters.copy())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    with monkeypatch.context() as patch, jobs_run() as jobs:
        patch.setattr(team, "run", interrupted)
        patch.setattr(cpu, "train_epoch", watched)
        history = mlp.fit(*many, epochs=1, batch_size=2, optimizer=optimizer)
    signal.signal(signal.SIGINT, before)
    assert {job[:2] for job in jobs} == {(entries.TRAIN_SMALL, True)}
    assert history.interrupted
    assert len(history) == 0
    assert len(left) == 1
    assert not np.array_equal(left[0], finished), "interrupted before its first step: it shows nothing"
    np.testing.assert_array_equal(mlp.parameters, finished)
    for one in (straight, mlp):
        assert not one.fit(problem.X, problem.Y, epochs=2, batch_size=2, optimizer=optimizer).interrupted
    np.testing.assert_array_equal(mlp.parameters, straight.parameters)


# ------------------------------------------------------------------------------------------- nothing beyond the ends
GUARDED = """
import ctypes, mmap
from itertools import product
import numpy as np
from fastmlp import kernels
from fastmlp.kernels import Network
from fastmlp.kernels.cpu import plan
from problems import RULES, run_course
from test_background import background_problem, gentle, taken_off

protect = ctypes.CDLL(None, use_errno=True).mprotect
page, kept, real = mmap.PAGESIZE, [], plan.Plan

def guarded(array):
    # A copy that ends, but for what keeps its start on a boundary, where a page begins that nobody may read or write.
    size = -(-array.nbytes // 64) * 64
    pages = -(-size // page) + 1
    kept.append(mmap.mmap(-1, pages * page))
    start = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
    assert protect(ctypes.c_void_p(start + (pages - 1) * page), page, 0) == 0
    copy = np.frombuffer(kept[-1], array.dtype, array.size, (pages - 1) * page - size)
    copy[:] = array
    return copy

def guarded_plan(p, table, scratch, members, lists, settings):
    return real(p, table, guarded(scratch), members, guarded(lists), settings)

plan.Plan = guarded_plan
cpu, rng = kernels.backend("cpu"), np.random.default_rng(0)
choices = product(("units", "samples"), ("float32", "float64"), (0.0, 7.0), (True, False), (1, 3), (1, 11, 110))
for way, dtype, value, bias, threads, units in choices:
    for n_in, batch_size in ((7, 3), (97, 33), (784, 64)):
        network = Network.build((n_in, units, 3), "tanh", bias=bias, dtype=dtype)
        problem = background_problem(network, 66, 0, dtype, value, 0.1)
        problem.X, order = guarded(problem.X.reshape(-1)).reshape(problem.X.shape), np.arange(66)
        with taken_off(value, way):
            run_course(cpu, problem, gentle(RULES[1], problem), [order], batch_size, threads)
            if way == "samples":
                cpu.evaluate(*problem.arrays)
                cpu.backpropagation(*problem.arrays)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected by another call on Windows")
def test_nothing_is_read_or_written_beyond_the_ends():
    """With a page after scratch, lists and samples that nobody may touch."""
    done = run_python(GUARDED)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
