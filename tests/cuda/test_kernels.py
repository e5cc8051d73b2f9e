"""Both kernels, simulated, against the oracle: awkward shapes, every option, every layout."""

from itertools import cycle, product

import numpy as np
import pytest
from paths import CHOSEN, PATHS, laid_out, set_gpu
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    Course,
    Problem,
    assert_close,
    copied,
    course,
    padding,
    pixels,
    random_problem,
    run_course,
)

from fastmlp.kernels import Network, Rule, cuda, reference
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import plans
from fastmlp.kernels.cuda.plans import Given

#: Sizes, batch, samples of an epoch.
SHAPES = {
    "one hidden unit": ((5, 1, 2), 3, 8),
    "fewer units than blocks": ((9, 3, 2), 2, 6),
    "more units than blocks": ((7, 19, 3), 2, 4),
    "one input": ((1, 3, 2), 2, 5),
    "one output": ((6, 5, 1), 3, 8),
    "more outputs than a warp has threads": ((8, 4, 37), 2, 4),
    "inputs of whole vectors": ((32, 4, 3), 3, 7),
    "one input more": ((33, 4, 3), 3, 7),
    "one input fewer": ((15, 4, 3), 3, 7),
    "more inputs than threads have at once": ((131, 2, 2), 2, 3),
    "a batch of one": ((9, 5, 3), 1, 4),
    "a last batch of one": ((9, 5, 3), 3, 7),
    "whole batches": ((9, 5, 3), 3, 6),
    "fewer samples than a batch": ((9, 5, 3), 9, 5),
    "more samples than threads": ((5, 4, 3), 40, 50),
    "no hidden layer": ((9, 3), 3, 8),
    "no hidden layer, one number": ((1, 2), 2, 5),
    "two hidden layers": ((17, 6, 5, 3), 3, 8),
    "three hidden layers": ((3, 5, 4, 6, 2), 4, 9),
    "layers of one unit": ((1, 1, 1, 7), 2, 5),
    "layers wider than a tile": ((11, 10, 18, 9), 5, 6),
}

#: What shapes are tried with, dealt out in turn: 53 is prime to the number of choices of each option.
OPTIONS = [
    (*choice, hidden)
    for choice, hidden in zip(
        product(OUTPUT_LOSSES, RULES, DTYPES, (True, False), ("uint8", *DTYPES), (0.0, 0.3), (True, False)),
        cycle(ACTIVATIONS),
        strict=False,
    )
][::53]


def dealt(number: int, sizes: tuple[int, ...], samples: int) -> tuple[Problem, Rule]:
    """A problem of these sizes and a rule, with the options of that number, or the next that suit."""
    while True:
        (output, loss), rule, dtype, labels, inputs, l2, bias, hidden = OPTIONS[number % len(OPTIONS)]
        if output != "softmax" or sizes[-1] > 1:
            break
        number += 1
    scale = pixels(inputs) or ({"input_scale": 0.7, "input_shift": 0.2} if number % 2 else {})
    network = Network.build(sizes, hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **scale)
    return random_problem(network, samples, number, inputs, labels), rule


def check(problem: Problem, rule: Rule, batch: int, epochs: int = 2) -> None:
    """Epochs as the oracle makes them; the second goes on from the first, with samples drawn with repetition."""
    n = len(problem.X)
    rng = np.random.default_rng(problem.seed)
    orders = [rng.permutation(n), rng.integers(0, n, max(1, n - 1))][:epochs]
    problem, tolerances = course(problem, rule, orders, batch)
    expected = run_course(reference, problem, rule, orders, batch)
    actual = run_course(cuda, problem, rule, orders, batch)
    what = f"{problem.network} {rule.kind} X {problem.X.dtype} labels={problem.Y.ndim == 1} batch={batch}"
    for kind, a, b, tolerance in zip(Course._fields, actual, expected, tolerances, strict=True):
        assert_close(a, b, tolerance, f"{kind} of {what}")
    assert not padding(problem.network, actual.parameters).any()


@pytest.mark.parametrize(
    ("path", "name"),
    [(path, name) for path in PATHS for name in SHAPES if path == "tiled" or len(SHAPES[name][0]) == 3],
)
def test_shape(path, name):
    sizes, batch, samples = SHAPES[name]
    number = list(SHAPES).index(name)
    with laid_out(path, splits=1 + number % 2):
        check(*dealt(number + 7 * PATHS.index(path), sizes, samples), batch)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize(("output", "loss"), OUTPUT_LOSSES)
def test_every_loss_and_rule(output, loss, rule, path):
    number = OUTPUT_LOSSES.index((output, loss)) + RULES.index(rule) + PATHS.index(path)
    hidden, dtype = list(ACTIVATIONS)[number % len(ACTIVATIONS)], DTYPES[number % 2]
    network = Network.build((9, 4, 3), hidden, output, loss, l2=0.2, dtype=dtype)
    with laid_out(path):
        check(random_problem(network, 3, 5, labels=rule.kind in ("plain", "adam")), rule, 2, epochs=1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("inputs", ["uint8", *DTYPES])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in", [16, 19])
def test_samples_of_every_dtype(n_in, dtype, inputs, path):
    """In whole vectors and with some left over; scaled and shifted, and as they are."""
    for scale in [pixels(inputs)] if inputs == "uint8" else [{}, {"input_scale": 0.5, "input_shift": -0.25}]:
        network = Network.build((n_in, 3, 2), "tanh", dtype=dtype, **scale)
        with laid_out(path):
            check(random_problem(network, 4, 2, inputs, labels=True), RULES[0], 3, epochs=1)


@pytest.mark.parametrize(
    "layout",
    [
        {"units": 1, "groups": 1},
        {"units": 1, "groups": 3},
        {"units": 4, "groups": 1},
        {"units": 8, "groups": 2},
        {"units": 2, "groups": 2, "span": 64},
        {"units": 4, "groups": 1, "span": 96},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_of_the_persistent_kernel(layout, dtype):
    """Units of a thread, groups of a block, warps of a group; the last block has fewer units than the others."""
    set_gpu(multiprocessors=7)
    network = Network.build((21, 7, 3), "tanh", dtype=dtype)
    with laid_out("persistent", **layout):
        check(random_problem(network, 5, 3, labels=True), RULES[1], 3)


@pytest.mark.parametrize(("dtype", "threads"), [("float32", 96), ("float64", 32)])
@pytest.mark.parametrize("splits", [1, 2, 5])
def test_layouts_of_the_tiled_kernel(splits, dtype, threads):
    """Tiles as wide as a thread's square and wider; more parts of a batch than it has samples to give them."""
    v = 16 // np.dtype(dtype).itemsize
    tiles = [(v, v, v, v, 8), (2 * v, 3 * v, v, v, 16), (2 * v, 2 * v, v, 2 * v, 32)]
    network = Network.build((13, 7, 5, 3), "tanh", dtype=dtype)
    turned = tiles[splits % 3 :] + tiles[: splits % 3]
    with laid_out("tiled", tiles=turned, splits=splits, threads=threads):
        check(random_problem(network, 9, 3, labels=True), RULES[1], 7)


@pytest.mark.parametrize("path", PATHS)
def test_plans_for_the_least_shared_memory_fit(path, monkeypatch):
    """What a plan takes for granted is what its kernel needs."""
    network, given = Network.build((9, 5, 3)), Given("momentum", 1, 3, "float32", True)
    monkeypatch.setattr(plans, "persistent", CHOSEN["persistent"] if path == "persistent" else lambda *given: None)
    monkeypatch.setattr(plans, "tiled", CHOSEN["tiled"])

    def is_enough(shared: int) -> bool:
        gpu = plans.Gpu(2, shared)
        return plans.persistent(network, given, gpu) is not None if path == "persistent" else bool(tiles_in(shared))

    def tiles_in(shared: int):
        return plans.tiles("float32", shared)

    least = next(shared for shared in range(0, 1 << 18, 16) if is_enough(shared))
    set_gpu(multiprocessors=2, shared_memory=least)
    check(random_problem(network, 7, labels=True), RULES[1], 3)


def test_samples_are_gone_through_in_parts(monkeypatch):
    """Of so many that what lies between the layers would take much memory."""
    monkeypatch.setattr(plans, "MOST_ROWS", 5)
    network = Network.build((7, 6, 3), "tanh", dtype="float64")
    problem = random_problem(network, 13, labels=True)
    expected = reference.predict(network, problem.parameters, problem.X)
    assert_close(cuda.predict(network, problem.parameters, problem.X), expected, 1e-12, "outputs")
    (loss, hits), (wanted, right) = cuda.evaluate(*problem.arrays), reference.evaluate(*problem.arrays)
    assert loss == pytest.approx(wanted, rel=1e-12)
    assert hits == right


@pytest.mark.parametrize("path", PATHS)
def test_errors_are_optional(path):
    network = Network.build((9, 4, 3))
    problem, order = random_problem(network, 7, labels=True), np.arange(7)
    expected = run_course(reference, problem, RULES[0], [order], 3)
    parameters, state = copied(problem.parameters), network.state(RULES[0])
    with laid_out(path):
        losses = cuda.train_epoch(network, RULES[0], parameters, state, problem.X, problem.Y, order, 3)
    assert_close(losses, expected.losses, 1e-5, "losses")
    assert_close(parameters, expected.parameters, 1e-5, "parameters")


@pytest.mark.parametrize("path", PATHS)
def test_infinity_does_not_spread_to_where_it_has_no_business(path):
    """A sample of infinity saturates sigmoids; what exists only as padding stays zero."""
    network = Network.build((9, 5, 3), "sigmoid")
    problem, order = random_problem(network, 5, 1, labels=True), np.array([0, 1, 2, 3])
    weights = network.rows(problem.parameters)[0]
    weights[weights == 0] = 0.5
    problem.X[1, 2] = np.inf
    with laid_out(path), np.errstate(invalid="ignore"):
        ours, expected = (run_course(module, problem, RULES[0], [order], 3) for module in (cuda, reference))
    np.testing.assert_allclose(ours.losses[:1], expected.losses[:1], rtol=1e-5)
    assert np.isfinite(ours.losses[0])
    for one, two in zip(network.rows(ours.parameters), network.rows(expected.parameters), strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(two))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_number_stays_out_of_the_padding(path):
    """An epsilon of zero makes 0/0 of what Adam would do to padding, and a NaN times zero is a NaN."""
    network = Network.build((5, 3, 2), "relu")
    problem = random_problem(network, 8, labels=True)
    problem.X[3, 2] = np.nan
    with laid_out(path):
        found = run_course(cuda, problem, Rule("adam", 0.1, epsilon=0.0), [np.arange(8)], 4)
    assert np.isnan(found.losses).all()
    assert not padding(network, found.parameters).any()


def test_hits_are_counted_as_numpy_counts_them():
    """The first of equal outputs counts, and what is no number is the largest."""
    for n_out in (3, 34):
        network = Network.build([n_out, n_out], output="relu", loss="mean_squared_error", bias=False)
        parameters = network.zeros()
        network.rows(parameters)[0][:] = np.eye(n_out)
        X = np.zeros((6, n_out), np.float32)
        X[:, -3:] = [[1, 1, 0], [0, 0, 0], [0, 2, 2], [-1, 3, 1], [0, 1, 0], [1, 2, 3]]
        spoilt = X.copy()
        spoilt[2, -2:] = np.nan
        first = n_out - 3
        labels = [np.array(row, np.int32) + first for row in ([0, 0, 1, 1, 0, 2], [1, 1, 2, 0, 1, 0])]
        for Y in (*labels, X, X[::-1].copy()):
            for given in (X, spoilt):
                found = cuda.evaluate(network, parameters, given, Y)[1]
                assert found == reference.evaluate(network, parameters, given, Y)[1]


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_rows_for_sigmoid_outputs_want_every_output_right(loss):
    for n_out in (3, 9, 40):
        network = Network.build([4, n_out], output="sigmoid", loss=loss)
        problem = random_problem(network, 11)
        outputs = reference.predict(network, problem.parameters, problem.X)
        Y = (outputs > 0.5).astype(np.float32)
        Y[::3, -1] = 1 - Y[::3, -1]  # wrong in an output that need not be the largest
        labels = np.where(np.arange(11) % 2, outputs.argmax(1), 0).astype(np.int32)
        assert cuda.evaluate(network, problem.parameters, problem.X, Y)[1] == 7
        hits = (outputs.argmax(1) == labels).sum()
        assert cuda.evaluate(network, problem.parameters, problem.X, labels)[1] == hits
