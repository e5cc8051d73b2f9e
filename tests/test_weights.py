"""Sample weights, in every backend: against PyTorch's weighted mean, against the oracle, and against leaving out."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from problems import (
    DTYPES,
    OUTPUT_LOSSES,
    RULES,
    SHAPES,
    Course,
    NearKinks,
    Problem,
    assert_close,
    copied,
    course,
    forced,
    option_product,
    pixels,
    random_problem,
    rounding,
    run_course,
)
from test_contract import HIDDEN, INPUTS, WAYS, any_problem, check_course, check_gradients, sparse_problem, unsure_hits
from test_contract import compiled as compiled  # a fixture

from fastmlp import kernels
from fastmlp.kernels import Network, reference

LONE_OUTPUTS = [pair for pair in OUTPUT_LOSSES if pair[1] != "cross_entropy"]


def weighted(problem: Problem, seed: int = 0, zeros: float = 0.2) -> Problem:
    """The problem with weights from 0.1 to 10, of which so many are 0."""
    rng, n = np.random.default_rng([seed, 5]), len(problem.X)
    weights = np.exp(rng.uniform(-2.3, 2.3, n)) * (rng.uniform(size=n) >= zeros)
    weights[rng.integers(n)] = 1.5
    return replace(problem, weights=weights)


def one_pass(module, problem: Problem, threads: int | None = None) -> tuple:
    """Evaluation and gradients with the problem's weights."""
    options = {"weights": problem.weights, "threads": threads}
    loss, hits = module.evaluate(*problem.arrays, **options)
    assert isinstance(loss, float)
    assert isinstance(hits, float)
    gradients, again = module.backpropagation(*problem.arrays, **options)
    return loss, hits, gradients, again


def check_one_pass(module, problem: Problem, what: str, threads: int | None = None) -> None:
    """Evaluate and backpropagation, within rounding of the oracle's."""
    bounds, network, weights = rounding(problem), problem.network, problem.weights
    loss, hits, gradients, again = one_pass(module, problem, threads)
    expected_loss, expected_hits, expected, _ = one_pass(reference, problem)
    assert_close([loss, again], [expected_loss] * 2, bounds.loss, f"losses of {what}")
    outputs = reference.predict(*problem.arrays[:3])
    unsure = unsure_hits(problem, outputs, bounds.activations[-1])
    tolerance = len(weights) * (4 * np.finfo(network.dtype).eps + unsure * weights.max() / weights.sum())
    assert_close(hits, expected_hits, tolerance, f"hits of {what}")
    check_gradients(network, gradients, expected, bounds, what)


def check_epochs(module, problem: Problem, rule, batch_size: int, what: str, *, epochs=1, threads=None) -> None:
    """Epochs in shuffled orders against the oracle."""
    n = len(problem.X)
    orders = [np.random.default_rng([n, epoch]).permutation(n) for epoch in range(epochs)]
    problem, tolerances = course(problem, rule, orders, batch_size)
    ours = run_course(module, problem, rule, orders, batch_size, threads)
    expected = run_course(reference, problem, rule, orders, batch_size)
    check_course(ours, expected, tolerances, f"{what}, n={n}, batch_size={batch_size}, {rule}")


# ------------------------------------------------------------------------------------------------------ the oracle
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_torchs_weighted_mean(dtype):
    Twin = pytest.importorskip("torch_twin", reason="PyTorch is not installed").Twin
    for i, (hidden, (output, loss), bias, l2) in enumerate(product(HIDDEN, OUTPUT_LOSSES, (True, False), (0.0, 0.3))):
        network = Network.build(SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, l2=l2, dtype=dtype)
        problem, what = weighted(random_problem(network, 7, i, labels=bool(i % 2)), i), str(network)
        twin, bounds = Twin(network, problem.parameters), rounding(problem)
        loss_value, _, gradients, again = one_pass(reference, problem)
        expected = twin.backward(problem.X, problem.Y, problem.weights)
        assert_close([loss_value, again], [expected] * 2, bounds.loss, f"losses of {what}")
        check_gradients(network, gradients, twin.flat(gradients=True), bounds, what)


def test_the_reference_by_hand():
    """Two samples, one linear unit: loss ½ (w x - y)², weights 1 and 3."""
    network = Network.build([1, 1], output="identity", loss="mean_squared_error", bias=False, l2=0.8, dtype="float64")
    parameters = network.zeros()
    network.rows(parameters)[0][:] = 0.5
    X, Y, weights = np.array([[2.0], [4.0]]), np.array([[0.0], [1.0]]), np.array([1.0, 3.0])
    loss, hits = reference.evaluate(network, parameters, X, Y, weights=weights)
    assert loss == pytest.approx((1 * 0.5 + 3 * 0.5) / 4)
    assert hits == pytest.approx(2 * 3 / 4)  # 1 is on the other side of ½ than 0; 2 is on that of 1
    gradients, _ = reference.backpropagation(network, parameters, X, Y, weights=weights)
    assert network.rows(gradients)[0] == pytest.approx((1 * 1 * 2 + 3 * 1 * 4) / 4 + 0.8 / 4 * 0.5)


# ---------------------------------------------------------------------------------------------- one pass, and epochs
@pytest.mark.parametrize("hidden", HIDDEN)
def test_one_pass_for_the_whole_product_of_options(compiled, hidden):
    for i, (what, problem) in enumerate(option_product(hidden)):
        check_one_pass(compiled, weighted(problem, i), what)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_epochs_for_the_whole_product_of_options(compiled, hidden):
    choices = product(OUTPUT_LOSSES, (True, False), DTYPES, (0.0, 0.2), RULES)
    for i, ((output, loss), bias, dtype, l2, rule) in enumerate(choices):
        inputs, batch_size = INPUTS[i % 3], (3, 5, 7, 12)[i % 7 % 4]
        network = Network.build(
            SHAPES[i % len(SHAPES)], hidden, output, loss, bias=bias, dtype=dtype, l2=l2, **pixels(inputs)
        )
        problem = weighted(random_problem(network, 11, i, inputs, labels=bool(i // 3 % 2)), i)
        check_epochs(compiled, problem, rule, batch_size, f"{network} X {inputs}", epochs=2)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_both_ways_of_splitting(way, threads):
    cpu = kernels.backend("cpu")
    with forced(way, always_threads=True, chunk=4):
        for i, (sizes, bias, dtype) in enumerate(product(SHAPES, (True, False), DTYPES)):
            hidden, (output, loss) = HIDDEN[i % len(HIDDEN)], OUTPUT_LOSSES[i % len(OUTPUT_LOSSES)]
            network = Network.build(sizes, hidden, output, loss, bias=bias, dtype=dtype, l2=0.1 * (i % 2))
            problem = weighted(random_problem(network, 11, i, labels=bool(i // 2 % 2)), i)
            what = f"{network} {way} {threads}"
            check_epochs(cpu, problem, RULES[i % 4], (5, 1, 11, 7)[i // 4 % 4], what, threads=threads)
            check_one_pass(cpu, problem, what, threads)


@pytest.mark.parametrize("way", WAYS)
def test_single_outputs(way):
    """Few samples at a time, and so many that their outputs share vectors, on either side of whole vectors."""
    cpu, sizes = kernels.backend("cpu"), ((9, 5, 1), (3, 1))
    with forced(way, always_threads=True):
        for i, ((output, loss), dtype) in enumerate(product(LONE_OUTPUTS, DTYPES)):
            for n, batch_size in ((150, 150), (64, 33), (35, 16), (40, 17), (11, 4), (80, 64)):
                network = Network.build(sizes[i % 2], "tanh", output, loss, dtype=dtype, l2=0.1 * (i % 3))
                problem = weighted(random_problem(network, n, i, labels=bool(i % 3)), i)
                check_one_pass(cpu, problem, f"{network} {way}", 1 + i % 2)
                check_epochs(cpu, problem, RULES[i % 4], batch_size, f"{network} {way}", threads=1 + i % 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_samples(dtype):
    """As lists, in batches of any size; and with rows of the first layer that rest."""
    cpu = kernels.backend("cpu")
    for i, (n_in, way) in enumerate(product((1, 48, 97, 200), WAYS)):
        network = Network.build((n_in, (7, 17, 72)[i % 3], 3), HIDDEN[i % 5], bias=i % 3 != 0, dtype=dtype)
        problem, threads = weighted(sparse_problem(network, 23, i, INPUTS[i % 3]), i), 1 + i % 3
        problem = replace(problem, network=replace(network, input_scale=1 / 128 if i % 3 == 0 else 0.5))
        what = f"{network} {way} {threads}"
        with forced(way, always_threads=True, chunk=(None, 5)[i % 2], sparse=True):
            check_one_pass(cpu, problem, what, threads)
            for rule, batch_size in product(RULES[:2], (23, 5, 1)):
                check_epochs(cpu, problem, rule, batch_size, what, epochs=2, threads=threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [1, 5, 40, 300])
def test_the_ways_that_are_chosen(compiled, batch_size, dtype):
    """Unforced: dense and sparse samples, few inputs and many, one output and ten."""
    for i, sizes in enumerate([(100, 30, 10), (20, 50, 1), (300, 231, 5)]):
        network = Network.build(sizes, "tanh", dtype=dtype, loss="mean_squared_error", l2=0.1 * (i % 2))
        problem = random_problem(network, 300, i)
        if i == 0:
            problem.X[np.random.default_rng(3).uniform(size=problem.X.shape) < 0.9] = 0
        gentle = replace(RULES[1], learning_rate=1e-3)
        check_epochs(compiled, weighted(problem, i), gentle, batch_size, str(network), threads=1 + i % 2)


@settings(max_examples=100)
@given(
    problem=any_problem(),
    rule=st.sampled_from(RULES),
    batch_size=st.integers(1, 25),
    threads=st.integers(1, 3),
    way=st.sampled_from([None, *WAYS]),
    sparse=st.booleans(),
    zeros=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_any_shape(problem, rule, batch_size, threads, way, sparse, zeros):
    cpu, problem = kernels.backend("cpu"), weighted(problem, problem.seed, zeros)
    with forced(way, always_threads=way is not None, sparse=sparse):
        what = f"{problem.network} {way} threads={threads} sparse={sparse} zeros={zeros}"
        check_one_pass(cpu, problem, what, threads)
        gentle = replace(rule, learning_rate=rule.learning_rate / max(problem.network.sizes))
        try:
            check_epochs(cpu, problem, gentle, batch_size, what, threads=threads)
        except NearKinks:
            reject()


# -------------------------------------------------------------------------------------------- what weights mean
def test_weights_of_one_are_none(compiled):
    for i, ((output, loss), rule) in enumerate(product(OUTPUT_LOSSES, RULES)):
        network = Network.build((9, 5, 3), "tanh", output, loss, dtype=DTYPES[i % 2], l2=0.1)
        orders = [np.arange(11)]
        problem, tolerances = course(random_problem(network, 11, i), rule, orders, 4)
        plain = run_course(compiled, problem, rule, orders, 4)._replace(errors=np.zeros(3))
        ours = run_course(compiled, replace(problem, weights=np.ones(11)), rule, orders, 4)
        check_course(ours, plain, tolerances, f"{network} {rule}")


def test_a_factor_of_all_weights_is_a_factor_of_the_penalty_alone(compiled):
    network = Network.build((9, 5, 3), "tanh", dtype="float64", l2=0.5)
    problem = weighted(random_problem(network, 11))
    larger = replace(problem, weights=4 * problem.weights, network=replace(network, l2=2.0))
    check_course(
        *(run_course(compiled, one, RULES[1], [np.arange(11)], 4) for one in (larger, problem)),
        Course(1e-15, 1e-15, 1e-15, 0),
        "",
    )


def test_a_weight_of_two_is_a_sample_taken_twice(compiled):
    """In one batch of all."""
    for i, (output, loss) in enumerate(OUTPUT_LOSSES):
        network = Network.build((9, 5, 3), "tanh", output, loss, dtype="float64", l2=0.3)
        problem, times = random_problem(network, 8, i), np.array([1, 2, 0, 3, 1, 1, 2, 0])
        repeated = np.repeat(np.arange(8), times)
        more = Problem(network, problem.parameters, problem.X[repeated], problem.Y[repeated])
        gradients, loss_value = compiled.backpropagation(*problem.arrays, weights=times.astype(float))
        expected, expected_loss = compiled.backpropagation(*more.arrays)
        np.testing.assert_allclose(gradients, expected, rtol=1e-12, atol=1e-14)
        assert loss_value == pytest.approx(expected_loss, rel=1e-13)
        loss_value, hits = compiled.evaluate(*problem.arrays, weights=times.astype(float))
        expected_loss, expected_hits = compiled.evaluate(*more.arrays)
        assert (loss_value, hits / 8) == pytest.approx((expected_loss, expected_hits / len(repeated)), rel=1e-13)


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("batch_size", [4, 40])
def test_a_weight_of_zero_hides_what_is_no_number(compiled, batch_size, sparse, n_out):
    """Nan and infinity among samples and targets that have no weight leave no trace, in whatever way."""
    for i, (output, loss) in enumerate(LONE_OUTPUTS if n_out == 1 else OUTPUT_LOSSES):
        network = Network.build((9, 5, n_out), "relu", output, loss, l2=0.1)
        problem = weighted(random_problem(network, 40, i), i, zeros=0.4)
        spoilt, out = replace(problem, X=problem.X.copy(), Y=problem.Y.copy()), problem.weights == 0
        spoilt.X[out] = np.where(np.arange(9) % 2, np.nan, np.inf)
        spoilt.Y[out] = np.nan
        for way in WAYS if compiled.__name__.endswith("cpu") else [None]:
            with forced(way, sparse=sparse) if way else forced():
                for rule in RULES[1:3]:
                    courses = [
                        run_course(compiled, one, rule, [np.arange(40)], batch_size) for one in (spoilt, problem)
                    ]
                    assert np.isfinite(courses[0].parameters).all()
                    check_course(*courses, Course(0, 0, 0, 0), f"{network} {way}")
                for a, b in zip(one_pass(compiled, spoilt), one_pass(compiled, problem), strict=True):
                    np.testing.assert_array_equal(a, b, f"{network} {way}")


@pytest.mark.parametrize("module", ["numpy", "cpu"])
def test_a_batch_without_weight_moves_by_momentum_alone(module):
    module = kernels.backend(module)
    for rule, way in product(RULES, WAYS):
        network = Network.build((9, 5, 3), "tanh", dtype="float64", l2=0.1)
        problem = random_problem(network, 8)
        weights = np.where(np.arange(8) < 4, 1.5, 0.0)
        with forced(way):
            ours = run_course(module, replace(problem, weights=weights), rule, [np.arange(8)], 4)
        parameters, state = copied(problem.parameters), network.state(rule)
        gradients, loss = reference.backpropagation(
            network, parameters, problem.X[:4], problem.Y[:4], weights=weights[:4]
        )
        reference.update_weights(rule, parameters, gradients, state)
        reference.update_weights(rule, parameters, network.zeros(), state)
        np.testing.assert_allclose(ours.parameters, parameters, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(ours.losses, [loss, 0], rtol=1e-13)


def test_no_weight_at_all(compiled):
    network = Network.build((9, 5, 3), l2=0.1)
    problem = replace(random_problem(network, 8), weights=np.zeros(8))
    loss, hits, gradients, again = one_pass(compiled, problem)
    assert (loss, hits, again) == (0, 0, 0)
    assert not gradients.any()
    course = run_course(compiled, problem, RULES[0], [np.arange(8)], 3)
    np.testing.assert_array_equal(course.parameters, problem.parameters)
    assert not course.losses.any()


def test_hits_are_exact_where_all_or_none_are_right(compiled):
    """However the weights are rounded."""
    network = Network.build((6, 5, 3), "tanh")
    problem = weighted(random_problem(network, 301), zeros=0.1)
    right = compiled.predict(*problem.arrays[:3]).argmax(1).astype(np.int32)
    for Y, expected in ((right, 301), ((right + 1) % 3, 0)):
        for threads in (1, 2):
            arrays = network, problem.parameters, problem.X, Y.astype(np.int32)
            _, hits = compiled.evaluate(*arrays, weights=problem.weights, threads=threads)
            if compiled.__name__.endswith("cpu") or expected:
                assert hits == expected
            else:
                assert abs(hits) < 1e-3


def test_weights_of_any_size(compiled):
    """Beyond what float32 holds, in sum and alone."""
    problem = weighted(random_problem(Network.build((9, 5, 3), "tanh"), 11))
    expected = run_course(compiled, problem, RULES[1], [np.arange(11)], 4)
    for factor in (1e300, 1e-300):
        scaled = replace(problem, weights=problem.weights * factor)
        check_course(
            run_course(compiled, scaled, RULES[1], [np.arange(11)], 4), expected, Course(1e-6, 1e-6, 1e-6, 0), ""
        )


# --------------------------------------------------------------------------------------------------- chosen samples
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [1, 7, 50, 400])
def test_chosen_samples_are_to_the_bit_what_they_are_alone(compiled, batch_size, dtype):
    """Also where those chosen are mostly background and all together are not, and the other way round."""
    rng = np.random.default_rng(batch_size)
    for sparse, rule, with_weights in product((None, "chosen", "others"), RULES[1::2], (True, False)):
        network = Network.build((40, 30, 3), "tanh", dtype=dtype)
        problem = random_problem(network, 1500, 1, labels=True)
        samples = rng.integers(1000, 1500, 300)
        if sparse:
            part = slice(1000, None) if sparse == "chosen" else slice(1000)
            problem.X[part][rng.uniform(size=problem.X[part].shape) < 0.9] = 0
        weights = weighted(problem).weights if with_weights else None
        order, results = rng.permutation(300), []
        for X, Y, w, chosen in (
            (problem.X, problem.Y, weights, samples),
            (problem.X[samples], problem.Y[samples], None if weights is None else weights[samples], None),
        ):
            parameters, state = copied(problem.parameters), network.state(rule)
            losses = compiled.train_epoch(
                network, rule, parameters, state, X, Y, order, batch_size, samples=chosen, weights=w, threads=2
            )
            results.append((parameters, state.slots, losses))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b, f"{sparse} {rule} {with_weights}")


@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_several_epochs_in_a_call(way, with_weights):
    cpu, network = kernels.backend("cpu"), Network.build((9, 5, 3), "tanh", l2=0.1)
    problem, samples = weighted(random_problem(network, 30), zeros=0.3), np.arange(25, 3, -1)
    options = {"samples": samples, "weights": problem.weights if with_weights else None}
    orders = np.stack([np.random.default_rng(epoch).permutation(22) for epoch in range(3)])
    with forced(way):
        for rule in RULES:
            results = []
            for given, epochs in ((orders.reshape(1, -1), 3), (orders, 1)):
                parameters, state = copied(problem.parameters), network.state(rule)
                arrays = network, rule, parameters, state, problem.X, problem.Y
                losses = [cpu.train_epochs(*arrays, order, 5, epochs, **options) for order in given]
                results.append((parameters, state.slots, np.concatenate(losses)))
            for a, b in zip(*results, strict=True):
                np.testing.assert_array_equal(a, b, str(rule))


# ---------------------------------------------------------------------------------------------------------- refused
WRONG = {
    "few": (np.ones(7), r"weights is float64 \[7\]; expected contiguous float64 \[8\]"),
    "of another dtype": (np.ones(8, np.float32), r"weights is float32 \[8\]; expected contiguous float64 \[8\]"),
    "negative": (np.arange(8.0) - 1, r"weights are -1.0 to 6.0; expected 0 or more, with a finite sum"),
    "nan": (np.full(8, np.nan), "weights are nan to nan; expected 0 or more"),
    "infinite": (np.full(8, np.inf), "weights are inf to inf; expected 0 or more"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_weights_are_refused_before_anything_changes(backend, wrong):
    module, (weights, message) = kernels.backend(backend), WRONG[wrong]
    network = Network.build((9, 5, 3))
    problem, rule = random_problem(network, 8), RULES[3]
    parameters, state = copied(problem.parameters), network.state(rule)
    arrays = network, parameters, problem.X, problem.Y
    for call in (
        lambda: module.evaluate(*arrays, weights=weights),
        lambda: module.backpropagation(*arrays, weights=weights),
        lambda: module.train_epoch(
            network, rule, parameters, state, problem.X, problem.Y, np.arange(8), 3, weights=weights
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(parameters, problem.parameters)
    assert not state.slots.any()
    assert state.step[0] == 0


def test_errors_with_weights_are_refused(backend):
    module, network, rule = kernels.backend(backend), Network.build((9, 5, 3)), RULES[1]
    problem, state = random_problem(network, 8), network.state(rule)
    with pytest.raises(ValueError, match="errors are given with weights; expected one of the two"):
        module.train_epoch(
            network, rule, problem.parameters, state, problem.X, problem.Y, np.arange(8), 3,
            weights=np.ones(8), errors=np.zeros(3),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "order", "message"),
    [
        (np.arange(9), np.arange(8), "samples holds 0 to 8; expected 0 to 7"),
        (np.arange(-1, 3), np.arange(4), "samples holds -1 to 2; expected 0 to 7"),
        (np.arange(3.0), np.arange(3), r"samples is float64 \[3\]; expected contiguous int64 \[m\]"),
        (np.arange(0), np.arange(3), "samples is empty"),
        (np.arange(3), np.arange(4), "order holds 0 to 3; expected 0 to 2"),
    ],
)
def test_wrong_samples_are_refused(backend, samples, order, message):
    module, network, rule = kernels.backend(backend), Network.build((9, 5, 3)), RULES[0]
    problem, state = random_problem(network, 8), network.state(rule)
    before = problem.parameters.copy()
    with pytest.raises(ValueError, match=message):
        module.train_epoch(network, rule, problem.parameters, state, problem.X, problem.Y, order, 3, samples=samples)
    np.testing.assert_array_equal(problem.parameters, before)
