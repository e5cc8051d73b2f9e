"""Large batches on the GPU, simulated: every phase and every way of dealing out work, against the oracle."""

from contextlib import ExitStack, contextmanager
from functools import lru_cache
from unittest import mock

import numpy as np
import pytest
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    SHAPES,
    Course,
    NearKinks,
    assert_close,
    copied,
    course,
    padding,
    pixels,
    random_problem,
    run_course,
)

from fastmlp.kernels import Network, Rule, cuda
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.cuda import calls, inference, large, large_plan
from fastmlp.kernels.cuda.sums import Tile

#: Threads of a block, multiprocessors, threads for a row of outputs; small, for each thread is one of Python's.
THREADS, BLOCKS = 8, 3


def small_tiles(dtype: str, rows: int = 4) -> dict[str, Tile]:
    """Tiles of different shapes for each kind of product, smaller than the networks."""
    if dtype == "float32":
        wide, narrow = Tile(rows, 8, 8, 2, 4), Tile(rows, 4, 4, 1, 2)
        return {
            "first": wide,
            "inner": narrow,
            "last": narrow,
            "delta": Tile(rows, 8, 4, 2, 4),
            "gradient_first": Tile(4, 8, 4, 4, 4),
            "gradient": Tile(8, 4, 8, 4, 4),
        }
    wide, narrow = Tile(rows, 4, 4, 2, 2), Tile(rows, 4, 2, 1, 2)
    return {
        "first": wide,
        "inner": narrow,
        "last": narrow,
        "delta": Tile(rows, 4, 2, 2, 2),
        "gradient_first": Tile(2, 4, 2, 2, 2),
        "gradient": Tile(4, 2, 4, 2, 2),
    }


@contextmanager
def laid_out(*, bands: bool | None = None, blocks: int = BLOCKS, **options):
    """Within the block, plans have small tiles and few threads, and every batch is trained in this way."""

    @lru_cache
    def plan(network, job, batch, inputs, multiprocessors, **given):
        chosen = {"tiles": small_tiles(network.dtype), "threads": THREADS, "bands": bands, **options}
        return large_plan.plan(network, job, batch, inputs, blocks, **given, **chosen)

    with ExitStack() as stack:
        for module in (large, inference):
            stack.enter_context(mock.patch.object(module, "plan_for", plan))
        stack.enter_context(mock.patch.object(calls, "_path", return_value=large))
        yield


def check_course(network, rule, n=8, batch=3, inputs="float32", labels=True, seed=0) -> None:
    """Two epochs, the second in another order and of fewer samples, against the oracle."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n), rng.permutation(n)[: n - 3]]
    problem = random_problem(network, n, seed, inputs, labels)
    try:
        problem, tolerances = course(problem, rule, orders, batch)
    except NearKinks as error:
        pytest.skip(str(error))
    from fastmlp.kernels import reference

    expected = run_course(reference, problem, rule, orders, batch)
    actual = run_course(cuda, problem, rule, orders, batch)
    for what, a, b, tolerance in zip(Course._fields, actual, expected, tolerances, strict=True):
        assert_close(a, b, tolerance, f"{what} of {network} {rule} X {inputs} labels={labels} batch={batch}")
    assert not padding(network, actual.parameters).any()


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_epochs_of_every_rule(rule, dtype, bands):
    with laid_out(bands=bands):
        network = Network.build((7, 5, 6, 3), "tanh", dtype=dtype, l2=0.2, **pixels("uint8"))
        check_course(network, rule, inputs="uint8")


@pytest.mark.parametrize(("output", "loss"), OUTPUT_LOSSES)
def test_epochs_of_every_loss(output, loss):
    with laid_out(bands=True):
        for labels, dtype in ((True, "float32"), (False, "float64")):
            network = Network.build((5, 6, 4), "sigmoid", output, loss, dtype=dtype, bias=labels)
            check_course(network, Rule("momentum", 0.1, momentum=0.5), inputs=dtype, labels=labels)


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_epochs_of_every_shape(sizes, bands):
    hidden = [list(ACTIVATIONS)[i % len(ACTIVATIONS)] for i in range(len(sizes) - 2)]
    loss = "binary_cross_entropy" if sizes[-1] == 1 else "cross_entropy"
    dtype, inputs = ("float32", "float64") if bands else ("float64", "uint8")
    with laid_out(bands=bands):
        network = Network.build(sizes, hidden, loss=loss, dtype=dtype, **pixels(inputs))
        check_course(network, Rule("plain", 0.1), inputs=inputs, n=7, batch=7)


@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_epochs_of_every_activation(hidden):
    with laid_out(bands=True, lanes=4):
        for inputs in ("uint8", "float32"):
            network = Network.build((12, 9, 5), hidden, **pixels(inputs))
            check_course(network, Rule("nesterov", 0.05, momentum=0.5), inputs=inputs, batch=7)


@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_epochs_of_every_batch_size(batch):
    for bands, blocks in ((True, 1), (True, 4), (False, 3)):
        with laid_out(bands=bands, blocks=blocks):
            check_course(Network.build((6, 5, 3), "tanh"), Rule("plain", 0.2), n=8 if batch < 5 else 17, batch=batch)


def test_outputs_wider_than_a_tile():
    """Rows of outputs are then normalised after all their tiles, by as many lanes as there are."""
    for bands, lanes in ((True, 1), (True, 8), (False, 2)):
        with laid_out(bands=bands, lanes=lanes):
            check_course(Network.build((4, 5, 9), "tanh"), Rule("plain", 0.2), n=8, batch=5)


def test_the_plans_own_tiles():
    """Those that it finds for few threads, in place of those of the other tests."""
    for dtype, batch in (("float32", 3), ("float64", 8)):
        with laid_out(bands=None, tiles=None, blocks=2):
            check_course(Network.build((10, 6, 5, 3), "tanh", dtype=dtype), RULES[3], n=8, batch=batch)


def test_two_runs_agree_in_every_bit():
    from cuda_simulator import seed

    network, rule = Network.build((9, 8, 3), "tanh"), RULES[1]
    problem = random_problem(network, 10, labels=True)
    for bands in (True, False):
        with laid_out(bands=bands):
            runs = []
            for schedule in range(3):
                seed(schedule)
                runs.append(run_course(cuda, problem, rule, [np.arange(10)], 6))
            for run in runs[1:]:
                for a, b in zip(run, runs[0], strict=True):
                    np.testing.assert_array_equal(a, b)


def test_what_is_no_number_stays_out_of_the_padding():
    """An epsilon of zero makes 0/0 of what Adam would do to padding, and a NaN times zero is a NaN."""
    network = Network.build((5, 3, 2), "relu")
    problem = random_problem(network, 8, labels=True)
    problem.X[3, 2] = np.nan
    with laid_out(bands=True):
        rule = Rule("adam", 0.1, epsilon=0.0)
        parameters, state = copied(problem.parameters), network.state(rule)
        losses = cuda.train_epoch(network, rule, parameters, state, problem.X, problem.Y, np.arange(8), 4)
    assert np.isnan(losses).all()
    assert not padding(network, parameters).any()


def test_too_large_for_the_indices_is_refused():
    network = Network.build((2, 60_000, 2))
    with pytest.raises(ValueError, match="use smaller batches"):
        large_plan.plan(network, "train", 100_000, "uint8", 132, rule="plain", labels=True)
