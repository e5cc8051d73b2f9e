"""The persistent epoch in the simulator, layout by layout, against the oracle."""

import os
from dataclasses import replace
from itertools import cycle, product
from types import SimpleNamespace

import cuda_simulator
import numpy as np
import pytest
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    Problem,
    assert_close,
    course,
    every_parameter,
    pixels,
    random_problem,
)
from problems import run_course as run

from fastmlp.kernels import Network, reference
from fastmlp.kernels import cuda as backend
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import config, resident
from fastmlp.kernels.cuda.resident_plan import CLUSTER, GRID, LOCAL, Limits, Plan, candidates, choose, cycles, fits

#: Layouts: sizes, batch, and of the plan rows, lanes, vectors, groups, slices, exchange and whether it is scattered.
LAYOUTS = {
    "one block": ((7, 5, 3), 2, (2, 4, 1, 1, 1, LOCAL, False)),
    "no hidden layer": ((9, 2), 3, (1, 2, 1, 1, 1, LOCAL, False)),
    "no hidden layer, several blocks": ((9, 5), 3, (2, 1, 1, 3, 1, GRID, False)),
    "no hidden layer, a cluster": ((16, 5), 3, (1, 2, 1, 4, 1, CLUSTER, False)),
    "no hidden layer, slices": ((9, 3), 5, (3, 1, 1, 1, 2, LOCAL, False)),
    "two blocks": ((16, 8, 4), 5, (4, 1, 1, 2, 1, GRID, False)),
    "an odd number of rows": ((33, 9, 3), 3, (5, 1, 2, 2, 1, GRID, False)),
    "several warps": ((150, 4, 2), 2, (1, 2, 1, 2, 1, GRID, False)),
    "a lane for each unit": ((5, 19, 2), 2, (1, 32, 1, 1, 1, LOCAL, False)),
    "more outputs than lanes": ((8, 4, 37), 2, (1, 2, 1, 2, 1, GRID, False)),
    "one unit": ((5, 1, 2), 19, (1, 1, 1, 1, 1, LOCAL, False)),
    "a batch of one": ((1, 3, 1), 1, (1, 2, 1, 2, 1, GRID, False)),
    "a cluster": ((16, 7, 4), 4, (2, 2, 1, 2, 1, CLUSTER, False)),
    "a cluster with an idle block": ((16, 5, 3), 2, (2, 1, 2, 4, 1, CLUSTER, False)),
    "two hidden layers": ((33, 6, 4, 2), 3, (1, 2, 3, 3, 1, GRID, False)),
    "two hidden layers, scattered": ((17, 9, 7, 3), 4, (3, 1, 2, 3, 1, GRID, True)),
    "three hidden layers": ((3, 5, 4, 6, 2), 18, (1, 4, 1, 2, 1, GRID, False)),
    "slices": ((16, 8, 4), 9, (4, 1, 1, 2, 2, GRID, False)),
    "slices of a deep network": ((9, 5, 4, 2), 7, (1, 4, 1, 2, 3, GRID, False)),
    "slices and many samples": ((4, 2, 2), 40, (1, 2, 1, 1, 2, LOCAL, False)),
}

#: Problems that each layout is tried with.
ROUNDS = int(os.environ.get("FASTMLP_CUDA_ROUNDS", "1"))

LIMITS = Limits((9, 0), 132, 227 * 1024)


@pytest.fixture(autouse=True)
def room():
    """Blocks enough for every layout."""
    cuda_simulator.settings.multiprocessors = 16


def lay_out(monkeypatch, problem: Problem, rule, batch: int, layout: tuple, errors: bool = True) -> Plan:
    """Have the backend take this plan."""
    rows, lanes, vectors, groups, slices, exchange, scattered = layout
    X, labels = problem.X, problem.Y.ndim == 1
    aligned = X.shape[1] * X.itemsize % 16 == 0
    plan = Plan(
        problem.network, rule.kind, batch, X.dtype.name, labels, errors, rows, lanes, vectors, groups, slices,
        exchange, scattered, aligned,
    )  # fmt: skip
    monkeypatch.setattr(resident, "suits", lambda *arguments: True)
    monkeypatch.setattr(resident, "plan_for", lambda *arguments: plan)
    return plan


def check(monkeypatch, problem: Problem, rule, batch: int, layout: tuple, what: str) -> None:
    """Two epochs with a short last batch, as the oracle makes them."""
    rng = np.random.default_rng(problem.seed)
    n = len(problem.X)
    orders = [rng.integers(0, n, batch + max(1, batch // 2)) for _ in range(2)]
    problem, tolerance = course(problem, rule, orders, batch)
    lay_out(monkeypatch, problem, rule, batch, layout)
    ours, expected = (run(module, problem, rule, orders, batch) for module in (backend, reference))
    for kind in tolerance._fields:
        pair = [getattr(result, kind) for result in (ours, expected)]
        if kind in ("parameters", "slots"):
            pair = [every_parameter(problem.network, array) for array in pair]
        assert_close(*pair, getattr(tolerance, kind), f"{kind} of {what}")


#: What a layout is tried with, dealt out in turn.
OPTIONS = cycle(
    [
        (*choice, hidden)
        for choice, hidden in zip(
            product(OUTPUT_LOSSES, RULES, DTYPES, (True, False), ("uint8", *DTYPES), (0.0, 0.3), (True, False)),
            cycle(ACTIVATIONS),
            strict=False,
        )
    ][::53]  # with no common divisor, so that every option comes
)


def dealt(seed: int, sizes: tuple[int, ...]) -> tuple[Problem, object, str]:
    """A problem of these sizes and a rule, with the next options."""
    for (output, loss), rule, dtype, labels, inputs, l2, bias, hidden in OPTIONS:
        if output == "softmax" and sizes[-1] == 1:
            continue
        scale = pixels(inputs) or ({"input_scale": 0.7, "input_shift": 0.2} if seed % 2 else {})
        network = Network.build(sizes, hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **scale)
        problem = random_problem(network, 11, seed, inputs, labels)
        return problem, rule, f"{network} {rule.kind}, X {inputs}, labels={labels}"
    raise AssertionError


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, monkeypatch):
    sizes, batch, layout = LAYOUTS[name]
    for seed in range(ROUNDS):
        problem, rule, what = dealt(seed, sizes)
        check(monkeypatch, problem, rule, batch, layout, f"{name}: {what}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize(("output", "loss"), OUTPUT_LOSSES)
def test_every_loss_and_rule(output, loss, rule, monkeypatch):
    names = list(ACTIVATIONS)
    hidden = names[(OUTPUT_LOSSES.index((output, loss)) + RULES.index(rule)) % len(names)]
    network = Network.build((9, 4, 3), hidden, output, loss, l2=0.2, dtype=DTYPES[RULES.index(rule) % 2])
    problem = random_problem(network, 7, 5, labels=rule.kind in ("plain", "adam"))
    check(monkeypatch, problem, rule, 3, (2, 1, 1, 2, 1, GRID, False), f"{network} {rule.kind}")


@pytest.mark.parametrize("inputs", ["uint8", *DTYPES])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in", [16, 19])
def test_samples_copied_in_vectors_and_one_by_one(n_in, dtype, inputs, monkeypatch):
    """Scaled and as they are, which for the network's own dtype means without any conversion."""
    for scale in [pixels(inputs)] if inputs == "uint8" else [{}, {"input_scale": 0.5}] if n_in == 16 else [{}]:
        network = Network.build((n_in, 3, 2), "tanh", dtype=dtype, **scale)
        problem = random_problem(network, 6, 2, inputs, labels=True)
        check(monkeypatch, problem, RULES[0], 3, (2, 2, 1, 1, 1, LOCAL, False), f"{network}, X {inputs}")


@pytest.mark.parametrize("layout", ["slices", "a cluster"])
def test_any_schedule_gives_the_same_numbers(layout, monkeypatch):
    """Every sum has its order: another schedule changes no bit."""
    sizes, batch, plan = LAYOUTS[layout]
    network = Network.build(sizes, "sigmoid", l2=0.1)
    problem, orders = random_problem(network, 11, 4, labels=True), [np.arange(11)]
    lay_out(monkeypatch, problem, RULES[1], batch, plan)
    found = []
    for seed, preempt in enumerate((0.001, 0.3)):
        cuda_simulator.seed(seed)
        cuda_simulator.settings.preempt = preempt
        found.append(run(backend, problem, RULES[1], orders, batch))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_errors_are_optional(monkeypatch):
    network = Network.build((9, 4, 3))
    problem, order = random_problem(network, 7, labels=True), np.arange(7)
    lay_out(monkeypatch, problem, RULES[0], 3, (2, 1, 1, 2, 1, GRID, False), errors=False)
    parameters, state = problem.parameters.copy(), network.state(RULES[0])
    losses = backend.train_epoch(network, RULES[0], parameters, state, problem.X, problem.Y, order, 3)
    expected = run(reference, problem, RULES[0], [order], 3)
    assert_close(losses, expected.losses, 1e-5, "losses")


def test_infinity_does_not_spread_to_where_it_has_no_business(monkeypatch):
    """A sample of infinity saturates sigmoids; the units, pieces and samples that exist only as padding stay zero."""
    network = Network.build((9, 5, 3), "sigmoid")
    problem, order = random_problem(network, 5, 1, labels=True), np.array([0, 1, 2, 3])
    weights = network.rows(problem.parameters)[0]
    weights[weights == 0] = 0.5
    problem.X[1, 2] = np.inf  # in the vector that pieces without a part of a row load as well
    lay_out(monkeypatch, problem, RULES[0], 3, (4, 1, 1, 2, 1, GRID, False))
    with np.errstate(invalid="ignore"):
        ours, expected = (run(module, problem, RULES[0], [order], 3) for module in (backend, reference))
    np.testing.assert_allclose(ours.losses[:1], expected.losses[:1], rtol=1e-5)
    assert np.isfinite(ours.losses[0])
    for one, two in zip(network.rows(ours.parameters), network.rows(expected.parameters), strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(two))


def test_padding_stays_zero(monkeypatch):
    network = Network.build((7, 5, 3))
    problem = random_problem(network, 6, labels=True)
    lay_out(monkeypatch, problem, RULES[3], 3, (2, 2, 1, 2, 1, GRID, False))
    found = run(backend, problem, RULES[3], [np.arange(6)], 3).parameters
    for rows in network.rows(found):
        rows[:] = 0
    assert not found.any()


# ------------------------------------------------------------------------------------------------------------ plans
def chosen(sizes, batch, limits=LIMITS, kind="momentum", inputs="float32", **options):
    network = Network.build(sizes, **options)
    return choose(limits, network, kind, batch, inputs, True, False, sizes[0] % 16 == 0)


@pytest.mark.parametrize("batch", [1, 5, 10, 32, 128, 512])
@pytest.mark.parametrize("limits", [LIMITS, Limits((8, 0), 108, 163 * 1024), Limits((7, 5), 40, 64 * 1024)])
def test_a_plan_fits_and_is_the_quickest(limits, batch):
    plan = chosen((784, 100, 10), batch, limits)
    if plan is None:
        assert batch >= 32, "the lab's network is to stay resident with small batches"
        return
    assert fits(plan, limits)
    assert plan.blocks <= limits.multiprocessors
    assert plan.groups * plan.units >= 100
    assert plan.slices * plan.samples >= batch
    assert plan.pieces * plan.vectors * plan.vector >= 784
    assert plan.exchange != CLUSTER or limits.compute_capability >= (9, 0)
    others = [other for other in candidates(replace(plan, rows=1, lanes=1, vectors=1), limits) if fits(other, limits)]
    assert cycles(plan) == min(map(cycles, others))


def test_wide_networks_take_the_next_path():
    assert chosen((784, 4096, 4096, 10), 5) is None
    device = SimpleNamespace(
        compute_capability=(9, 0), multiprocessors=132, shared_memory=227 * 1024, registers_per_multiprocessor=65_536
    )
    lab, wide = Network.build((784, 100, 10)), Network.build((784, 4096, 4096, 10))
    assert resident.suits(device, lab, RULES[1], 10, np.dtype("uint8"))
    assert not resident.suits(device, wide, RULES[1], 10, np.dtype("uint8"))
    assert not resident.suits(device, lab, RULES[1], config.RESIDENT_BATCH + 1, np.dtype("uint8"))


def test_the_rule_between_the_paths_follows_the_model(monkeypatch):
    device = SimpleNamespace(
        compute_capability=(9, 0), multiprocessors=132, shared_memory=227 * 1024, registers_per_multiprocessor=65_536
    )
    lab = Network.build((784, 100, 10))
    for phase, expected in ((0, False), (1_000_000, True)):
        monkeypatch.setattr(config, "PHASE_CYCLES", phase)
        assert resident.suits(device, lab, RULES[1], 10, np.dtype("uint8")) is expected


def test_parts_of_shared_memory_do_not_overlap():
    for sizes, batch in (((784, 100, 10), 10), ((33, 31, 17, 9, 5), 7), ((9, 2), 3)):
        plan = chosen(sizes, batch)
        starts = sorted(set(plan.offsets.values()))  # a few parts are in one place on purpose
        assert starts[-1] == plan.shared_bytes
        assert all(start % 16 == 0 for start in starts)
        shared = {name for name in plan.offsets if list(plan.offsets.values()).count(plan.offsets[name]) > 1}
        assert shared <= {"a2", "partial"} | {f"{name}{k}" for name in ("slope", "delta") for k in range(1, 5)}
