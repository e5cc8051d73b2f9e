"""`sample_weight` and `samples` of `Mlp`: what they mean, on every backend, and what is refused."""

import copy
import tracemalloc

import numpy as np
import pytest

from fastmlp import Adam, Mlp, Sgd

LOSSES = {
    "cross_entropy": {"output": "softmax"},
    "binary_cross_entropy": {"output": "sigmoid"},
    "mean_squared_error": {"output": "identity"},
}


def data(n=60, n_in=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_in))
    return X, (X @ rng.normal(size=(n_in, classes))).argmax(1)


def network(backend, loss="cross_entropy", **options) -> Mlp:
    given = {"activation": "tanh", "seed": 3, "backend": backend, **LOSSES[loss], **options}
    return Mlp([6, 5, 3], loss=loss, **given)


def fitted(mlp: Mlp, X, y, **options):
    """A copy after some epochs, and their history without the times."""
    mlp = copy.deepcopy(mlp)
    history = mlp.fit(X, y, **{"epochs": 3, "batch_size": 7, "progress": False, "optimizer": Adam(0.01), **options})
    return mlp, (history.loss, history.val_loss, history.val_accuracy)


def assert_same(a, b) -> None:
    """Two networks and histories are equal to the bit."""
    np.testing.assert_array_equal(a[0].parameters, b[0].parameters)
    assert a[1] == b[1]


@pytest.mark.parametrize("loss", LOSSES)
def test_samples_are_a_part_of_the_data_to_the_bit(backend, loss):
    X, y = data()
    mlp, rng = network(backend, loss), np.random.default_rng(1)
    validation, weights = (X[:10], y[:10]), rng.uniform(0.1, 4, 60)
    indices, mask = rng.integers(0, 60, 31), rng.uniform(size=60) < 0.4
    for samples in (indices, indices.tolist(), indices.astype(np.uint8), mask, mask.tolist(), range(5, 40, 2)):
        rows = np.asarray(samples)
        for options in ({}, {"sample_weight": weights}, {"shuffle": False, "batch_size": None}):
            part = {**options, "sample_weight": weights[rows]} if "sample_weight" in options else options
            whole = fitted(mlp, X, y, samples=samples, validation=validation, **options)
            assert_same(whole, fitted(mlp, X[rows], y[rows], validation=validation, **part))


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_weight_of_zero_leaves_a_sample_out_to_the_bit(backend, shuffle):
    X, y = data()
    weights = np.where(np.arange(60) % 3, np.linspace(0.5, 2, 60), 0)
    used, mlp = weights > 0, network(backend)
    expected = fitted(mlp, X[used], y[used], sample_weight=weights[used], shuffle=shuffle)
    assert_same(fitted(mlp, X, y, sample_weight=weights, shuffle=shuffle), expected)
    samples = np.flatnonzero(used | (np.arange(60) < 20))
    assert_same(fitted(mlp, X, y, sample_weight=weights, samples=samples, shuffle=shuffle), expected)
    X[~used] = 1e300  # finite, but nothing that training could take
    assert_same(fitted(mlp, X, y, sample_weight=weights, shuffle=shuffle), expected)


def test_zeros_and_ones_choose_samples(backend):
    X, y = data()
    mask = np.arange(60) % 4 != 1
    mlp = network(backend)
    assert_same(fitted(mlp, X, y, sample_weight=mask), fitted(mlp, X, y, samples=mask))
    assert_same(fitted(mlp, X, y, sample_weight=np.ones(60)), fitted(mlp, X, y))
    assert_same(fitted(mlp, X, y, samples=np.arange(60)), fitted(mlp, X, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_whole_weights_are_repetitions_in_one_batch(backend, loss):
    X, y = data(30)
    times = np.random.default_rng(2).integers(0, 4, 30)
    repeated, mlp = np.repeat(np.arange(30), times), network(backend, loss, reg_lambda=0.2)
    options = {"batch_size": None, "optimizer": Sgd(0.1, momentum=0.9)}
    ours, (losses, _, _) = fitted(mlp, X, y, sample_weight=times, **options)
    theirs, (expected, _, _) = fitted(mlp, X[repeated], y[repeated], **options)
    np.testing.assert_allclose(ours.parameters, theirs.parameters, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    np.testing.assert_allclose(
        ours.evaluate(X, y, sample_weight=times), theirs.evaluate(X[repeated], y[repeated]), rtol=1e-9
    )


def test_weighted_steps_are_torchs(backend):
    """Mini-batches in the order of the data, with the penalty over Σ wᵢ."""
    torch = pytest.importorskip("torch")
    X, y = data(40)
    weights = np.random.default_rng(5).uniform(0.1, 3, 40)
    mlp = network(backend, reg_lambda=0.3)
    module = mlp.to_torch()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, 0.9)
    total = 0.0
    for start in range(0, 40, 16):
        x, t, w = (torch.from_numpy(array[start : start + 16]) for array in (X, y, weights))
        optimizer.zero_grad()
        loss = (torch.nn.functional.cross_entropy(module(x), t, reduction="none") * w).sum() / w.sum()
        squares = sum((p**2).sum() for name, p in module.named_parameters() if "weight" in name)
        (loss + 0.3 / (2 * w.sum()) * squares).backward()
        optimizer.step()
        total += loss.item() * w.sum().item()
    options = {"epochs": 1, "batch_size": 16, "shuffle": False, "optimizer": Sgd(0.1, momentum=0.9), "progress": False}
    history = mlp.fit(X, y, sample_weight=weights, **options)
    assert history.loss[0] == pytest.approx(total / weights.sum(), rel=1e-9)
    for name, tensor in module.state_dict().items():
        np.testing.assert_allclose(mlp.state_dict()[name], tensor, rtol=1e-8, atol=1e-10)


def test_evaluate_and_score_are_weighted(backend):
    X, y = data()
    weights = np.random.default_rng(7).uniform(0, 2, 60)
    weights[::5] = 0
    mlp = network(backend)
    right = mlp.classify(X) == y
    losses = -np.log(mlp.predict(X)[np.arange(60), y])
    loss, accuracy = mlp.evaluate(X, y, sample_weight=weights)
    assert loss == pytest.approx(np.average(losses, weights=weights), rel=1e-10)
    assert accuracy == pytest.approx(np.average(right, weights=weights), rel=1e-10)
    assert mlp.score(X, y, sample_weight=list(weights)) == accuracy
    assert mlp.evaluate(X, mlp.classify(X), sample_weight=weights).accuracy == 1
    assert mlp.evaluate(X, y, sample_weight=np.ones(60)) == pytest.approx(mlp.evaluate(X, y), rel=1e-12)


def test_weights_draw_the_network_to_the_class_that_has_them(backend):
    """Two classes that can't be told apart: the outputs are the classes' shares of the weight."""
    X, y = np.zeros((40, 6)), np.arange(40) % 2
    mlp = network(backend)
    mlp.fit(X, y, sample_weight=np.where(y, 3, 1), epochs=300, batch_size=None, optimizer=Sgd(0.5), progress=False)
    np.testing.assert_allclose(mlp.predict(X[:1])[0], [0.25, 0.75, 0], atol=0.02)


def test_short_epochs_are_trained_alike_whether_watched_or_not():
    """Several at a time go to one call of the kernels where nobody watches."""
    X, y = data()
    weights = np.random.default_rng(7).uniform(0, 2, 60)
    options = {"epochs": 30, "sample_weight": weights, "samples": np.arange(50)}
    watched = fitted(network("cpu"), X, y, callbacks=lambda mlp, history: None, **options)
    assert_same(watched, fitted(network("cpu"), X, y, **options))


def test_pandas_and_other_sequences_are_taken(backend):
    pandas = pytest.importorskip("pandas")
    X, y = data()
    weights = np.linspace(0.1, 2, 60).round(3)
    expected = fitted(network(backend), X, y, sample_weight=weights)
    for given in (weights.tolist(), tuple(weights), pandas.Series(weights, index=np.arange(60)[::-1])):
        assert_same(fitted(network(backend), X, y, sample_weight=given), expected)
    chosen = pandas.Series([True, False] * 30)
    assert_same(fitted(network(backend), X, y, samples=chosen), fitted(network(backend), X[::2], y[::2]))


def test_what_does_not_train_has_no_part_in_what_was_seen():
    """Warnings about inputs go by the samples that train."""
    X, y = data(200)
    X[100:] *= 1e6
    mlp = network("numpy")
    mlp.fit(X, y, samples=np.arange(100), epochs=1, progress=False)
    with pytest.warns(RuntimeWarning, match="bring X to that scale"):
        mlp.predict(X[100:])


def test_interrupted_epochs_are_undone_with_weights(backend):
    X, y = data()
    mlp = network(backend)
    before = mlp.parameters.copy()

    def stop(mlp, history):
        raise RuntimeError("enough")

    weights = np.linspace(0, 1, 60)
    with pytest.raises(RuntimeError, match="enough"):
        mlp.fit(X, y, sample_weight=weights, callbacks=stop, epochs=2, progress=False)
    assert len(mlp.history) == 1
    assert (mlp.parameters != before).any()


def test_what_trains_is_gathered_where_it_lies():
    """Beyond the data a fit needs but a part of the memory of a copy."""
    X = np.random.default_rng(0).integers(0, 256, (40_000, 400), np.uint8)
    mlp = Mlp([400, 4, 3], output="softmax", seed=0, dtype="float32", backend="cpu", input_scale=1 / 255)
    options = {"samples": np.arange(0, 40_000, 2), "sample_weight": np.linspace(1, 2, 40_000), "progress": False}
    y = np.arange(40_000) % 3
    mlp.fit(X, y, epochs=1, batch_size=100, **options)  # compiled now
    tracemalloc.start()
    mlp.fit(X, y, epochs=1, batch_size=100, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < X.nbytes / 4


# ---- refused ----


class OnGpu:
    """An array in a GPU's memory, as far as anybody looks who can't read it."""

    __cuda_array_interface__ = None  # nobody gets as far as to what it says


@pytest.mark.parametrize("name", ["sample_weight", "samples"])
def test_arrays_on_a_gpu_are_refused_where_nothing_can_read_them(name):
    X, y = data()
    with pytest.raises(TypeError, match=f"{name} is in a GPU's memory; expected an array in the host's"):
        network("cpu").fit(X, y, **{name: OnGpu()})


NAN = np.where(np.arange(60) == 7, np.nan, 1.0)
WEIGHTS = {
    "too few": (np.ones(59), r"sample_weight has shape \[59\], X has 60 samples; expected \[60\]"),
    "a column": (np.ones((60, 1)), r"sample_weight has shape \[60, 1\], X has 60 samples; expected \[60\]"),
    "one for all": (2.0, r"sample_weight has shape \[\], X has 60 samples; expected \[60\]"),
    "negative": (1 - np.arange(60), r"sample_weight holds -58.0 at \[59\]; expected 0 or more"),
    "nan": (NAN, r"sample_weight holds nan at \[7\]"),
    "infinite": (np.where(np.isnan(NAN), np.inf, 1), r"sample_weight holds inf at \[7\]"),
    "all zero": (np.zeros(60), "sample_weight sums to 0; expected more than 0"),
    "too large a sum": (np.full(60, 1e308), "sample_weight sums to inf; expected more than 0, and a finite number"),
    "text": (["1"] * 60, "sample_weight is <U1"),
    "a class' name": ("balanced", "sample_weight is <U8"),
}
SAMPLES = {
    "beyond": ([0, 60], "samples holds 0 to 60; expected 0 to 59"),
    "negative": ([-1, 5], "samples holds -1 to 5; expected 0 to 59"),
    "huge": (np.array([2**64 - 1], np.uint64), "samples holds 18446744073709551615 to"),
    "fractions": ([0.0, 1.0], r"samples holds float64; expected an integer dtype, 0 to 59, or a mask \[60\]"),
    "none": ([], "samples has no sample; expected one at least"),
    "a short mask": ([True] * 59, "samples is a mask of 59 entries, X has 60 samples; expected one entry a sample"),
    "an empty mask": ([False] * 60, "samples has no sample; expected one at least"),
    "a table": (np.zeros((3, 2), int), r"samples has shape \[3, 2\]; expected indices \[k\] or a mask \[60\]"),
    "a number": (3, r"samples has shape \[\]; expected indices \[k\] or a mask \[60\]"),
    "a slice": (slice(3), "samples is object"),
}


def check_refused(mlp, X, y, message, call):
    before = copy.deepcopy(mlp.__dict__["_rng"].bit_generator.state), mlp.parameters.copy()
    with pytest.raises(ValueError, match=message):
        call()
    assert mlp.history is None
    np.testing.assert_array_equal(mlp.parameters, before[1])
    assert mlp._rng.bit_generator.state == before[0]


@pytest.mark.parametrize("wrong", WEIGHTS)
def test_wrong_weights_are_refused_before_anything_changes(wrong):
    (X, y), (weights, message), mlp = data(), WEIGHTS[wrong], network("numpy")
    for call in (mlp.fit, mlp.evaluate, mlp.score):
        check_refused(mlp, X, y, message, lambda call=call: call(X, y, sample_weight=weights))


@pytest.mark.parametrize("wrong", SAMPLES)
def test_wrong_samples_are_refused_before_anything_changes(wrong):
    (X, y), (samples, message), mlp = data(), SAMPLES[wrong], network("numpy")
    check_refused(mlp, X, y, message, lambda: mlp.fit(X, y, samples=samples))


def test_samples_without_weight_are_refused():
    (X, y), mlp = data(), network("numpy")
    weights = (np.arange(60) > 30).astype(float)
    check_refused(
        mlp, X, y, "sample_weight sums to 0 over the samples chosen",
        lambda: mlp.fit(X, y, sample_weight=weights, samples=np.arange(20)),
    )  # fmt: skip


def test_what_does_not_train_must_be_finite_all_the_same():
    (X, y), mlp = data(), network("numpy")
    X[50, 2] = np.nan
    check_refused(mlp, X, y, "X holds nan", lambda: mlp.fit(X, y, samples=np.arange(20)))


def test_overridden_methods_take_samples_but_no_weights():
    class Own(Mlp):
        def sigmoid(self, z):
            return np.tanh(z)

    X, y = data()
    part, alone = (Own([6, 5, 3], seed=1, loss="mean_squared_error", output="sigmoid") for _ in range(2))
    with pytest.warns(RuntimeWarning, match="slow way"):
        part.fit(X, y, samples=np.arange(0, 60, 2), epochs=1, progress=False)
    with pytest.warns(RuntimeWarning, match="slow way"):
        alone.fit(X[::2], y[::2], epochs=1, progress=False)
    np.testing.assert_array_equal(part.parameters, alone.parameters)
    for call in (part.fit, part.evaluate):
        with pytest.raises(ValueError, match="sample_weight is given, but Own overrides sigmoid; expected None"):
            call(X, y, sample_weight=np.ones(60))
