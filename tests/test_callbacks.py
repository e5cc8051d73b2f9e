import re
import sys
import types

import numpy as np
import pytest

from fastmlp import Callback, History, Mlp, ProgressBar
from fastmlp.callbacks import callback_list, figures, in_notebook


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((40, 3)), rng.integers(0, 2, 40)


def fit(data, backend="numpy", **options):
    mlp = Mlp([3, 2], loss="cross_entropy", dtype="float32", seed=1, backend=backend)
    return mlp, mlp.fit(*data, **{"epochs": 3, **options})


class Recorder(Callback):
    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log

    def on_fit_begin(self, mlp, epochs):
        self.log.append((self.name, "begin", epochs))

    def on_epoch_end(self, mlp, history):
        self.log.append((self.name, "epoch", len(history)))

    def on_fit_end(self, mlp, history):
        self.log.append((self.name, "end", len(history)))


def test_hooks_are_called_in_turn(data, backend):
    recorder = Recorder()
    fit(data, backend, callbacks=[recorder])
    assert recorder.log == [("", "begin", 3), ("", "epoch", 1), ("", "epoch", 2), ("", "epoch", 3), ("", "end", 3)]


def test_callbacks_see_the_model_and_the_history_of_this_run(data):
    seen = []
    mlp, _ = fit(data)
    history = mlp.fit(*data, epochs=1, callbacks=lambda *given: seen.append(given))
    assert seen == [(mlp, history)]
    assert len(seen[0][1]) == 1


def test_the_base_does_nothing(data):
    _, history = fit(data, callbacks=[Callback()])
    assert len(history) == 3


def test_functions_alone_or_in_any_iterable(data):
    for callbacks in (lambda m, h: True, [lambda m, h: True], (c for c in [lambda m, h: np.bool_(True)])):
        assert len(fit(data, callbacks=callbacks)[1]) == 1


@pytest.mark.parametrize("answer", [None, False, 0.97, 1, "yes", np.bool_(False)])
def test_only_true_stops(data, answer):
    assert len(fit(data, callbacks=lambda mlp, history: answer)[1]) == 3


def test_one_that_stops_does_not_hide_the_epoch_from_the_next(data):
    recorder = Recorder()
    fit(data, callbacks=[lambda mlp, history: True, recorder])
    assert ("", "epoch", 1) in recorder.log


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_the_end_comes_after_errors_too(data, error):
    def fail(mlp, history):
        raise error

    recorder = Recorder()
    if error is KeyboardInterrupt:
        fit(data, callbacks=[recorder, fail])
    else:
        with pytest.raises(error):
            fit(data, callbacks=[recorder, fail])
    assert recorder.log[-1] == ("", "end", 1)


def test_an_error_at_the_end_of_one_does_not_keep_the_others_from_ending(data):
    class Fails(Callback):
        def on_fit_end(self, mlp, history):
            raise ZeroDivisionError

    log = []
    with pytest.raises(ZeroDivisionError):
        fit(data, callbacks=[Recorder("a", log), Fails(), Recorder("b", log)])
    assert [entry for entry in log if entry[1] == "end"] == [("b", "end", 3), ("a", "end", 3)]


def test_one_that_fails_to_begin(data):
    class Fails(Callback):
        def on_fit_begin(self, mlp, epochs):
            raise ZeroDivisionError

    log = []
    with pytest.raises(ZeroDivisionError):
        fit(data, callbacks=[Recorder("a", log), Fails(), Recorder("b", log)])
    assert log == [("a", "begin", 3), ("a", "end", 0)]


@pytest.mark.parametrize("given", [[Callback], ["progress"], [None]])
def test_other_things_are_refused(given):
    with pytest.raises(TypeError, match="callbacks holds"):
        callback_list(given, False)


# ---- progress ----


def test_piped_output_stays_empty(data, capsys):
    fit(data)
    fit(data, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(data, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(data, validation=data)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 3/3" in err
    fit(data, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("backend_name", ["numpy"])
def test_the_bar_can_be_forced_and_says_all(data, capsys, monkeypatch, backend_name):
    monkeypatch.setenv("COLUMNS", "80")
    _, history = fit(data, backend_name, progress=True, validation=data)
    out, err = capsys.readouterr()
    assert out == ""
    line = err.strip().splitlines()[-1]
    assert "epoch 3/3" in line
    assert f"loss {history.loss[-1]:.4f}" in line
    assert f"val_accuracy {history.val_accuracy[-1]:.2%}" in line
    assert f"{history.samples_per_second[-1]:,.0f} samples/s" in line
    assert re.search(r"\d:\d\d:\d\d", line)
    assert len(line) <= 80


def test_the_bar_ends_where_the_run_does(data, capsys):
    def fail(mlp, history):
        raise KeyboardInterrupt

    _, history = fit(data, progress=True, callbacks=fail)
    assert history.interrupted
    assert "epoch 1/3" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_callback_takes_the_bar_s_place(data, capsys):
    recorder = Recorder()
    fit(data, progress=recorder)
    assert len(recorder.log) == 5
    assert capsys.readouterr() == ("", "")


def test_the_same_bar_can_be_used_twice(data, capsys):
    bar = ProgressBar()
    for epochs in (2, 3):
        fit(data, epochs=epochs, progress=bar)
    err = capsys.readouterr().err
    assert "epoch 2/2" in err
    assert "epoch 3/3" in err


def fake_notebook(monkeypatch, kernel=True):
    """IPython's module as a notebook's kernel would show it, as far as it is used."""
    shown = []

    class Handle:
        def update(self, thing):
            shown.append(thing._repr_mimebundle_(include=[], exclude=[])["text/plain"])

    def display(thing, display_id):
        assert display_id is True
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object() if kernel else None)
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_a_notebook_gets_a_bar(data, capsys, monkeypatch):
    shown = fake_notebook(monkeypatch)
    assert in_notebook()
    fit(data)
    assert "epoch 0/3" in shown[0]
    assert "epoch 3/3" in shown[-1]
    assert "samples/s" in shown[-1]
    assert capsys.readouterr() == ("", "")


def test_ipython_on_a_pipe_is_no_notebook(data, capsys, monkeypatch):
    shown = fake_notebook(monkeypatch, kernel=False)
    assert not in_notebook()
    fit(data)
    assert shown == []
    assert capsys.readouterr() == ("", "")


def test_without_standard_error(data, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(fit(data)[1]) == 3


def test_figures():
    history = History()
    history.append(loss=0.12345, seconds=1, samples_per_second=1234567.8)
    assert figures(history) == "loss 0.1235  1,234,568 samples/s"
    history.append(loss=0.1, seconds=1, samples_per_second=10, val_loss=0.5)
    assert figures(history) == "loss 0.1000  val_loss 0.5000  10 samples/s"
    history.append(loss=0.1, seconds=1, samples_per_second=10, val_loss=0.5, val_accuracy=0.9751)
    assert figures(history) == "loss 0.1000  val_accuracy 97.51%  10 samples/s"
