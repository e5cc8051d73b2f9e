"""Many networks at once: each becomes what it would alone, whatever happens to the others."""

import runpy
import tracemalloc
import warnings
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from problems import run_python
from test_interrupts import everything, interrupted_at, needs_signals, tried_steps

from fastmlp import Adam, Callback, Mlp, Sgd, kernels
from fastmlp.many import Ensemble, bag, cross_validate, fit_many, search

NO_COMPILER = pytest.mark.skipif(kernels.available()["cpu"] is not None, reason="the CPU's kernels do not work here")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(90, 5)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def network(seed: int = 0, hidden: int = 6, **options) -> Mlp:
    return Mlp([5, hidden, 3], **{"activation": "relu", "loss": "cross_entropy", "seed": seed, **options})


#: Networks that differ in everything, with the options of each.
KINDS = [
    (lambda: network(1), {"optimizer": "sgd", "epochs": 4}),
    (lambda: network(2, 40, dtype="float32"), {"optimizer": Adam(0.01), "epochs": 30}),
    (lambda: network(3, reg_lambda=0.1), {"optimizer": Sgd(0.1, momentum=0.9), "batch_size": None, "epochs": 7}),
    (lambda: network(4, output="sigmoid", loss="binary_cross_entropy"), {"batch_size": 7, "epochs": 2}),
    (lambda: network(5, output="identity", loss="mean_squared_error"), {"shuffle": False, "epochs": 50}),
    (lambda: Mlp([5, 3], loss="cross_entropy", seed=6, threads=2), {"batch_size": 1, "epochs": 3}),
]
DEFAULTS = {"optimizer": "sgd", "epochs": 5, "batch_size": 32, "shuffle": True}


def in_lists(kinds) -> dict:
    return {name: [options.get(name, default) for _, options in kinds] for name, default in DEFAULTS.items()}


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_each_becomes_to_the_bit_what_it_would_alone(data, threads):
    """Weights, optimizer, generator and history; with other samples of their own, and when they go on."""
    rng = np.random.default_rng(0)
    samples = [None, *(rng.integers(0, 90, size) for size in (90, 20, 33, 1)), np.arange(90)]
    alone, together = ([make() for make, _ in KINDS] for _ in range(2))
    for _ in range(2):
        courses = []
        for mlp, own, (_, options) in zip(alone, samples, KINDS, strict=True):
            mlp.threads = 1
            courses.append(mlp.fit(*data, samples=own, **options))
        found = fit_many(together, *data, samples=samples, threads=threads, **in_lists(KINDS))
        for mlp, other, course, history in zip(alone, together, courses, found, strict=True):
            assert everything(mlp) == everything(other)
            assert (course.loss, course.interrupted) == (history.loss, history.interrupted)
            assert len(history) == len(history.seconds) == len(course)


def test_sample_weights_are_those_of_all(data):
    """Zero weights among them, each network with samples of its own."""
    rng = np.random.default_rng(1)
    weights = np.where(rng.random(90) < 0.2, 0, rng.random(90))
    samples = [None, rng.integers(0, 90, 50), np.arange(90) % 3 == 1]
    alone, together = [network(i, threads=1) for i in range(3)], [network(i) for i in range(3)]
    for mlp, own in zip(alone, samples, strict=True):
        mlp.fit(*data, samples=own, sample_weight=weights, epochs=7)
    fit_many(together, *data, samples=samples, sample_weight=weights, epochs=7)
    assert [everything(mlp) for mlp in alone] == [everything(mlp) for mlp in together]
    with pytest.raises(ValueError, match="sample_weight"):
        fit_many(together, *data, sample_weight=-weights)


def test_epochs_are_the_same_whether_somebody_watches_or_not(data):
    """They are trained one at a time or several at once, the last batch of each smaller than the others."""
    for dtype in ("float32", "float64"):
        for batch_size in (1, 32, 64, None):
            watched, alone = network(1, 30, dtype=dtype, threads=1), network(1, 30, dtype=dtype, threads=1)
            for mlp, callbacks in ((watched, [lambda mlp, history: None]), (alone, ())):
                mlp.fit(*data, epochs=100, batch_size=batch_size, optimizer=Adam(0.01), callbacks=callbacks)
            assert everything(watched) == everything(alone)


@NO_COMPILER
def test_several_epochs_in_a_call_of_the_kernels(data):
    """To the bit as many calls; and a number that does not divide the order is refused."""
    from fastmlp.kernels import cpu

    X, y = data[0], data[1].astype(np.int32)
    mlp, rule = network(), Adam(0.01).rule
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(90), (3, 1)), axis=1)
    one, all_ = mlp.network.zeros(), mlp.network.zeros()
    one[:] = all_[:] = mlp.parameters
    state, other = mlp.network.state(rule), mlp.network.state(rule)
    losses = [cpu.train_epoch(mlp.network, rule, one, state, X, y, order, 32) for order in orders]
    found = cpu.train_epochs(mlp.network, rule, all_, other, X, y, orders.reshape(-1), 32, 3)
    assert found.tolist() == np.concatenate(losses).tolist()
    assert one.tobytes() == all_.tobytes()
    assert (state.slots.tobytes(), state.step) == (other.slots.tobytes(), other.step)
    with pytest.raises(ValueError, match="epochs=4; expected a divisor of the order's length, 270"):
        cpu.train_epochs(mlp.network, rule, all_, other, X, y, orders.reshape(-1), 32, 4)


def test_one_that_diverges_does_not_stop_the_others(data):
    networks = [network(seed) for seed in range(4)]
    alone = network(1)
    with pytest.warns(RuntimeWarning, match=r"networks\[2\]: training stopped in epoch 1, which was undone"):
        histories = fit_many(networks, *data, epochs=9, optimizer=["sgd", "sgd", Sgd(1e200), "sgd"])
    assert [len(history) for history in histories] == [9, 9, 0, 9]
    alone.fit(*data, epochs=9)
    np.testing.assert_array_equal(networks[1].parameters, alone.parameters)
    np.testing.assert_array_equal(networks[2].parameters, network(2).parameters)


def test_one_that_diverges_late_ends_with_its_last_good_epoch(data):
    """Though its epochs are trained several at a time."""
    X, y = data[0], data[0][:, :1] * 3

    def linear() -> Mlp:
        return Mlp([5, 1], output="identity", loss="mean_squared_error", seed=1, dtype="float32", threads=1)

    courses = []
    for callbacks in ((), [lambda mlp, history: None]):
        mlp = linear()
        with pytest.warns(RuntimeWarning, match="training stopped in epoch") as told:
            mlp.fit(X, y, epochs=5000, batch_size=None, optimizer=Sgd(3.0), callbacks=callbacks)
        courses.append((everything(mlp), [str(one.message) for one in told]))
    assert courses[0] == courses[1]
    assert 1 < len(mlp.history) < 5000


class Stop(Callback):
    """Ends a training after so many epochs, and notes what it is told."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.told = epochs, []

    def on_fit_begin(self, mlp, epochs):
        self.told.append("begin")

    def on_epoch_end(self, mlp, history):
        self.told.append(len(history))
        return len(history) == self.epochs

    def on_fit_end(self, mlp, history):
        self.told.append("end")


def test_callbacks_end_their_own_network_and_are_called_one_at_a_time(data):
    networks, stops, at_once = [network(seed) for seed in range(5)], [Stop(n) for n in (1, 3, 2, 9, 4)], []

    def alone(mlp, history):
        at_once.append(1)
        assert len(at_once) == 1
        mlp.evaluate(*data)
        at_once.pop()

    histories = fit_many(networks, *data, epochs=6, callbacks=[[stop, alone] for stop in stops], threads=2)
    assert [len(history) for history in histories] == [1, 3, 2, 6, 4]
    assert [stop.told for stop in stops] == [["begin", *range(1, n + 1), "end"] for n in (1, 3, 2, 6, 4)]
    told = []
    fit_many(networks, *data, epochs=2, callbacks=lambda mlp, history: told.append((mlp, len(history))))
    assert sorted(epoch for _, epoch in told) == [1] * 5 + [2] * 5
    assert {mlp for mlp, _ in told} == set(networks)


def test_a_callback_may_train_other_networks(data):
    others = [network(seed) for seed in range(10, 13)]
    alone = [network(seed, threads=1) for seed in range(10, 13)]

    def train_others(mlp, history):
        fit_many(others, *data, epochs=2)

    fit_many([network(seed) for seed in range(3)], *data, epochs=3, callbacks=[train_others, None, None], threads=2)
    for mlp, other in zip(alone, others, strict=True):
        for _ in range(3):
            mlp.fit(*data, epochs=2)
        assert everything(mlp) == everything(other)


def test_an_error_in_a_callback_ends_all_and_keeps_their_epochs(data):
    networks, stop = [network(seed) for seed in range(3)], Stop(99)

    def fail(mlp, history):
        if len(history) == 3:
            raise LookupError("of the callback")

    with pytest.raises(LookupError, match="of the callback"):
        fit_many(networks, *data, epochs=10**6, callbacks=[fail, stop, None], threads=2)
    assert len(networks[0].history) == 3
    assert stop.told[-1] == "end"
    twin = network(1)
    twin.threads = 1
    if epochs := len(networks[1].history):
        twin.fit(*data, epochs=epochs)
    np.testing.assert_array_equal(networks[1].parameters, twin.parameters)


def test_validation_of_all_or_of_each(data):
    other = data[0][:10], data[1][:10]
    networks = [network(seed) for seed in range(3)]
    histories = fit_many(networks, *data, epochs=2, validation=[data, other, None])
    for history, given, mlp in zip(histories, (data, other, None), networks, strict=True):
        assert history.validated == (given is not None)
        if given is not None:
            assert history.val_loss[-1] == pytest.approx(mlp.evaluate(*given).loss, rel=1e-6)
    assert all(history.validated for history in fit_many(networks, *data, epochs=1, validation=other))


def test_other_backends_and_own_methods_come_one_after_another(data):
    class Own(Mlp):
        @staticmethod
        def sigmoid(z):
            return 1 / (1 + np.exp(-z))

    def some() -> list[Mlp]:
        return [network(1), network(2, backend="numpy"), Own([5, 4, 3], loss="binary_cross_entropy", seed=3)]

    alone, together = some(), some()
    for mlp in alone[:2]:
        mlp.threads = 1
        mlp.fit(*data, epochs=3)
    with pytest.warns(RuntimeWarning, match="Own overrides sigmoid"):
        alone[2].fit(*data, epochs=3)
    with pytest.warns(RuntimeWarning, match="Own overrides sigmoid"):
        histories = fit_many(together, *data, epochs=3)
    assert [len(history) for history in histories] == [3] * 3
    for mlp, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(mlp.parameters, other.parameters)


def test_one_progress_bar_over_all(data, capsys):
    fit_many([network(seed) for seed in range(3)], *data, epochs=4, progress=True)
    told = capsys.readouterr().err
    assert "epoch 12/12" in told
    assert "networks 3/3" in told
    fit_many([network(seed) for seed in range(3)], *data, epochs=4, progress=False)
    assert capsys.readouterr().err == ""


def test_bad_input_names_the_argument_and_changes_nothing(data):
    networks = [network(0), network(1)]
    before = [everything(mlp) for mlp in networks]
    X, y = data
    for error, words, networks_given, options in [
        (TypeError, r"networks is a Mlp; expected a sequence of Mlp", networks[0], {}),
        (ValueError, "networks is empty", [], {}),
        (TypeError, r"networks\[1\] is a str; expected", [networks[0], "mlp"], {}),
        (ValueError, r"networks\[0\] and networks\[2\] are the same Mlp", [*networks, networks[0]], {}),
        (ValueError, "epochs has 3 entries; expected 2, one a network", networks, {"epochs": [1, 2, 3]}),
        (ValueError, "epochs=0; expected 1 or more", networks, {"epochs": [5, 0]}),
        (ValueError, "samples has 1 entries; expected 2", networks, {"samples": [[0, 1]]}),
        (ValueError, "samples holds 0 to 90; expected 0 to 89", networks, {"samples": [[0], [0, 90]]}),
        (TypeError, "samples is a int", networks, {"samples": 3}),
        (TypeError, "progress=.*; expected None, True or False", networks, {"progress": Callback()}),
        (ValueError, "threads=0", networks, {"threads": 0}),
        (ValueError, "n_jobs=0", networks, {"n_jobs": 0}),
        (TypeError, "callbacks holds 3", networks, {"callbacks": [[3], None]}),
        (ValueError, "optimizer", networks, {"optimizer": ["sgd", "none"]}),
        (TypeError, "validation is a int", networks, {"validation": 3}),
    ]:
        with pytest.raises(error, match=words):
            fit_many(networks_given, X, y, **options)
    with pytest.raises(ValueError, match=r"X has shape \[90, 4\]; expected \[n, 5\]") as told:
        fit_many(networks, X[:, :4], y)
    assert told.value.__notes__ == ["This is about networks[0]."]
    odd = network(2)
    odd.weights = odd.weights[:1]
    with pytest.raises(ValueError, match="weights has 1 entries") as told:
        fit_many([*networks, odd], X, y)
    assert told.value.__notes__ == ["This is about networks[2]."]
    assert [everything(mlp) for mlp in networks] == before


def test_no_memory_but_that_of_networks_under_way():
    """Samples of other dtypes are converted once, others not at all; scratch is that of the threads' own."""
    X = np.random.default_rng(0).normal(size=(20_000, 50)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int32)
    samples = [np.arange(i, 20_000, 20) for i in range(20)]

    def peak(X, count: int) -> float:
        networks = [Mlp([50, 60, 2], loss="cross_entropy", dtype="float32", seed=i) for i in range(count)]
        fit_many(networks, X, y, samples=samples[:count], epochs=1, optimizer="adam", threads=2)  # makes their states
        tracemalloc.start()
        fit_many(networks, X, y, samples=samples[:count], epochs=2, optimizer="adam", threads=2)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(X, 2), peak(X, 20)
    assert many < X.nbytes / 2
    assert many < 3 * few + 200_000
    half = X.astype(np.float16)
    assert X.nbytes < peak(half, 20) < 2 * X.nbytes + many


INTERRUPTED = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
from fastmlp import Adam, Mlp, kernels
from fastmlp.kernels.cpu import team
from fastmlp.many import fit_many
kernels.warmup(("float32",))
rng = np.random.default_rng(0)

def mlp(sizes, seed):
    return Mlp(sizes, activation="relu", loss="cross_entropy", dtype="float32", seed=seed, threads=1)

for sizes, n, epochs in (([4, 8, 2], 50, 10**7), ([200, 900, 900, 2], 20_000, 50)):
    X, y = rng.normal(size=(n, sizes[0])).astype(np.float32), rng.integers(0, 2, n)
    for _ in range(2):
        networks = [mlp(sizes, seed) for seed in range(5)]
        sent = []

        def send():
            sent.append(time.perf_counter())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        timer = threading.Timer(0.7, send)
        timer.start()
        histories = fit_many(networks, X, y, epochs=epochs, optimizer=Adam(), threads=2)
        late = time.perf_counter() - sent[0]
        timer.join()
        assert late < 0.4, late
        assert [history.interrupted for history in histories] == [True] * 5
        counts = [len(history) for history in histories]
        before = [one.parameters.copy() for one in networks]
        time.sleep(0.2)
        assert all((one.parameters == old).all() for one, old in zip(networks, before))
        assert len(team._pool.idle) == 2
        if n == 50:
            assert max(counts) > 0
        for seed, (one, count) in enumerate(zip(networks, counts)):
            if count < 3000:
                twin = mlp(sizes, seed)
                if count:
                    twin.fit(X, y, epochs=count, optimizer=Adam())
                assert (twin.parameters == one.parameters).all()
    print(max(counts) > 0 or n > 50)
"""


def test_ctrl_c_at_any_step_leaves_each_as_after_some_epoch(data):
    """Weights, optimizer, generator and history of each network belong together, wherever the calling thread is."""

    def some() -> list[Mlp]:
        return [network(seed) for seed in range(3)]

    def fit(networks: list[Mlp]) -> None:
        fit_many(networks, *data, epochs=2, optimizer=Adam(0.01), validation=data, progress=False, threads=2)

    states: list[list[tuple]] = [[everything(mlp)] for mlp in some()]
    for mlp, known in zip(some(), states, strict=True):
        mlp.threads = 1
        mlp.fit(
            *data, epochs=2, optimizer=Adam(0.01), validation=data, progress=False,
            callbacks=lambda mlp, history, known=known: known.append(everything(mlp)),
        )  # fmt: skip
    fit(some())
    for step, again in zip(tried_steps(lambda: fit(some())), cycle([None, 0, 2]), strict=False):
        networks = some()
        with suppress(KeyboardInterrupt):
            interrupted_at(step, lambda networks=networks: fit(networks), again)
        for mlp, known in zip(networks, states, strict=True):
            assert everything(mlp) in known, f"step {step}"


@NO_COMPILER
@needs_signals
def test_ctrl_c_ends_all_and_keeps_finished_epochs():
    found = run_python(INTERRUPTED)
    assert (found.stdout, found.stderr) == ("True\nTrue\n", "")


THREADS = """
import numpy as np
from problems import forced
from fastmlp import Mlp
from fastmlp.kernels.cpu import team
from fastmlp.many import fit_many

rng = np.random.default_rng(0)
X, y = rng.normal(size=(500, 20)), rng.integers(0, 2, 500)
networks = [Mlp([20, 30, 2], loss="cross_entropy", seed=seed, threads=3) for seed in range(6)]
with forced(always_threads=True):
    fit_many(networks, X, y, epochs=5, validation=(X, y), callbacks=lambda mlp, history: mlp.evaluate(X, y), threads=2)
    print(len(team._pool.idle))
    networks[0].evaluate(X, y)
    print(len(team._pool.idle))
"""


@NO_COMPILER
def test_threads_are_no_more_than_asked_for():
    """Also in validation, and in what callbacks call: networks that train have the cores already."""
    found = run_python(THREADS)
    assert (found.stdout, found.stderr) == ("2\n3\n", "")


# -------------------------------------------------------------------------------------------------------------- jobs
def test_in_jobs_they_become_the_same(data):
    here, there = ([make() for make, _ in KINDS] for _ in range(2))
    for _ in range(2):
        parameters = there[0].parameters
        histories = fit_many(here, *data, **in_lists(KINDS))
        found = fit_many(there, *data, n_jobs=2, **in_lists(KINDS))
        assert [history.loss for history in histories] == [history.loss for history in found]
        assert [everything(mlp) for mlp in here] == [everything(mlp) for mlp in there]
        assert there[0].parameters is parameters
    assert [mlp.backend_name for mlp in there] == [mlp.backend_name for mlp in here]


DASK = """
import warnings
import numpy as np

def main():
    from dask.distributed import Client, LocalCluster
    from joblib import parallel_config
    from fastmlp import Mlp
    from fastmlp.many import fit_many
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 5)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    def networks():
        return [Mlp([5, 6, 2], loss="cross_entropy", seed=seed) for seed in range(5)]
    here, there = networks(), networks()
    fit_many(here, X, y, epochs=4)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with parallel_config(backend="dask"):
            histories = fit_many(there, X, y, epochs=4, n_jobs=-1)
    print([len(history) for history in histories])
    print(all((one.parameters == other.parameters).all() for one, other in zip(here, there)))

if __name__ == "__main__":
    main()
"""


def test_on_a_dask_cluster_of_two_workers(tmp_path):
    pytest.importorskip("distributed")
    path = tmp_path / "program.py"
    path.write_text(DASK)
    found = run_python(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')")
    assert found.stdout == "[4, 4, 4, 4, 4]\nTrue\n", found.stderr


# ------------------------------------------------------------------------------------------------- thin on fit_many
def test_cross_validation_is_of_stratified_folds_and_networks_that_have_not_seen_them(data):
    X, y = data
    found = cross_validate(network, X, y, folds=3, seed=1, epochs=20, optimizer=Adam(0.01))
    assert sorted(np.concatenate(found.tests).tolist()) == list(range(90))
    for fold, test in enumerate(found.tests):
        assert np.abs(np.bincount(y[test]) - np.bincount(y) / 3).max() < 1
        twin = network(fold, threads=1)
        train = np.setdiff1d(np.arange(90), test)
        assert twin.fit(X, y, samples=train, epochs=20, optimizer=Adam(0.01)).loss == found.histories[fold].loss
        assert twin.evaluate(X[test], y[test]) == pytest.approx((found.losses[fold], found.accuracies[fold]))
    again = cross_validate(network, X, y, folds=3, seed=1, epochs=20, optimizer=Adam(0.01))
    assert again.losses.tolist() == found.losses.tolist()


def test_cross_validation_of_one_output_of_rows_and_of_a_regression(data):
    X, y = data
    one = cross_validate(lambda fold: Mlp([5, 1], seed=fold), X, y == 1, folds=4, seed=0)
    shares = [np.mean(y[test] == 1) for test in one.tests]
    assert max(shares) - min(shares) < 0.1
    rows = cross_validate(network, X.tolist(), np.eye(3)[y].tolist(), folds=3, seed=1)
    assert rows.losses.tolist() == cross_validate(network, X, y, folds=3, seed=1).losses.tolist()
    found = cross_validate(lambda fold: Mlp([5, 1], loss="mean_squared_error", seed=fold), X, X[:, 1], folds=2)
    assert np.isnan(found.accuracies).all()
    assert np.isfinite(found.losses).all()


def test_a_bag_answers_with_the_mean_of_its_networks(data):
    X, y = data
    found = bag(network, X, y, size=4, share=0.5, seed=7, epochs=30, optimizer=Adam(0.02))
    assert len(found.networks) == len(found.histories) == 4
    np.testing.assert_allclose(found.predict(X), np.mean([mlp.predict(X) for mlp in found.networks], 0), rtol=1e-12)
    np.testing.assert_array_equal(found.classify(X), found.predict(X).argmax(1))
    assert found.score(X, y) == np.mean(found.classify(X) == y) > 0.6
    rng = np.random.default_rng(7)
    for i, mlp in enumerate(found.networks):
        twin = network(i, threads=1)
        twin.fit(X, y, samples=rng.choice(90, 45), epochs=30, optimizer=Adam(0.02))
        np.testing.assert_array_equal(mlp.parameters, twin.parameters)
    lone = bag(lambda i: Mlp([5, 1], seed=i), X, y > 1, size=2, epochs=1)
    assert set(lone.classify(X)) <= {0, 1}


def test_search_goes_on_with_the_better_ones(data):
    X, y = data
    grid = {"hidden": [2, 8], "optimizer": [Sgd(1e-9), Adam(0.02), Sgd(0.1)], "batch_size": [8, 32]}
    found = search(lambda hidden: network(0, hidden), grid, X, y, epochs=18, seed=3)
    assert len(found.trials) == 12
    assert [trial["epochs"] for trial in found.trials] == [18] + [6] * 3 + [2] * 8
    assert found.trials[0]["parameters"] == found.parameters
    assert found.parameters["optimizer"] != Sgd(1e-9)
    assert found.network.size_layers == [5, found.parameters["hidden"], 3]
    assert len(found.network.history) == 18
    assert [len(trial["history"]) for trial in found.trials] == [trial["epochs"] for trial in found.trials]
    drawn = search(lambda hidden: network(0, hidden), {"hidden": range(1, 30)}, X, y, draws=4, epochs=3, seed=3)
    assert len(drawn.trials) == 4
    again = search(lambda hidden: network(0, hidden), {"hidden": range(1, 30)}, X, y, draws=4, epochs=3, seed=3)
    assert drawn.parameters == again.parameters
    lone = search(lambda hidden: network(0, hidden), {"hidden": [3]}, X, y, epochs=2)
    assert (lone.parameters, lone.trials[0]["epochs"]) == ({"hidden": 3}, 2)


def test_bad_input_of_these(data):
    X, y = data
    for call, error, words in [
        (lambda: cross_validate(network(), X, y), TypeError, "make is a Mlp; expected a function"),
        (lambda: cross_validate(lambda fold: 3, X, y), TypeError, r"make\(0\) returns a int; expected an Mlp"),
        (lambda: cross_validate(network, X, y, folds=1), ValueError, "folds=1; expected 2 or more"),
        (lambda: cross_validate(network, X, y, folds=80), ValueError, "folds=80; expected at most"),
        (lambda: cross_validate(network, X[:, :2], y), ValueError, r"X has shape \[90, 2\]"),
        (lambda: bag(network, X, y, share=0), ValueError, "share=0; expected a number above 0"),
        (lambda: bag(network, X, y, size=0), ValueError, "size=0; expected 1 or more"),
        (lambda: bag(network, 3, y), ValueError, "X has shape"),
        (lambda: search(network, {}, X, y), TypeError, "parameters={}; expected a mapping"),
        (lambda: search(network, {"seed": [0, 1]}, X, y, factor=1), ValueError, "factor=1; expected 2 or more"),
        (lambda: search(network, {"seed": [0, 1]}, X, y, draws=0), ValueError, "draws=0; expected 1 or more"),
        (lambda: Ensemble([network(), Mlp([4, 3])]), ValueError, "networks have"),
        (lambda: Ensemble([Mlp([5, 1], loss="mean_squared_error")]).classify(X), ValueError, "classif"),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, of small classes
            with pytest.raises(error, match=words):
                call()


@pytest.mark.parametrize("name", ["cross_validation", "bag", "search"])
def test_the_examples_run(name, capsys):
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / f"{name}.py"), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out
