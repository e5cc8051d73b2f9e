"""The command line, end to end: in subprocesses, and for the many options in this process, which is quicker."""

import csv
import errno
import gzip
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmlp import Mlp, Sgd, cli, data, training_run
from fastmlp.images import read_images
from fastmlp.presets import DEFAULT, LAB, PRESETS, PYTORCH_LAB

PNG = b"\x89PNG\r\n\x1a\n"
MODEL, CURVES = training_run.MODEL_FILE, training_run.CURVES_FILE
#: A run that takes as little as it can: compiles nothing, two epochs of the digits.
SHORT = ("--data", "digits", "--backend", "numpy", "--epochs", "2")

needs_mnist = pytest.mark.skipif("FASTMLP_DATA" not in os.environ, reason="FASTMLP_DATA names no folder with MNIST")


def fastmlp(*arguments, cwd, code=0, **environment):
    """Run the command in a process of its own; returns what it printed, after looking at its exit code."""
    command = [sys.executable, "-m", "fastmlp", *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, capsys):
    """Run the command in this process and in an empty folder; returns exit code, standard output and error."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def accuracies(report):
    """Training and test accuracy in a report, 0 to 1."""
    training, test = re.findall(r"(?:training|test) data .*accuracy ([\d.]+)%", report)
    return float(training) / 100, float(test) / 100


def is_refused(result, *words):
    code, output, error = result
    assert code == 2, output + error
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error
    return True


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A run with the digits in a process of its own: its folder, output and error."""
    folder = tmp_path_factory.mktemp("digits")
    output, error = fastmlp("train", "--data", "digits", "--out", "out", cwd=folder)
    return folder / "out", output, error


# ---- train ----


def test_digits_are_learnt_and_reported(digits_run):
    folder, output, _ = digits_run
    _, test = accuracies(output)
    assert test >= 0.95
    for word in ("digits", "1,437", "360", "[64, 100, 10]", "cpu", "compiling", "training", "samples a second"):
        assert word in output
    assert f"model   {Path('out', MODEL)}" in output
    assert f"curves  {Path('out', CURVES)}" in output
    assert {path.name for path in folder.iterdir()} == {MODEL, CURVES}
    assert (folder / CURVES).read_bytes().startswith(PNG)


def test_saved_model_is_the_one_reported(digits_run):
    folder, output, _ = digits_run
    mlp, digits = Mlp.load(folder / MODEL, backend="numpy"), data.digits()
    training, test = accuracies(output)
    assert mlp.score(digits.train_images, digits.train_labels) == pytest.approx(training, abs=1e-4)
    assert mlp.score(digits.test_images, digits.test_labels) == pytest.approx(test, abs=1e-4)
    assert len(mlp.history) == 30
    assert mlp.history.val_accuracy[-1] == pytest.approx(test, abs=1e-4)
    assert mlp.metadata["test"]["accuracy"] == pytest.approx(test, abs=1e-4)
    assert mlp.metadata["settings"]["epochs"] == 30


def test_piped_output_is_plain(digits_run):
    _, output, error = digits_run
    assert error == ""
    assert not set(output) & {"\x1b", "\r", "\b"}
    assert max(map(len, output.splitlines())) <= 120


@needs_mnist
def test_mnist_with_no_options_reaches_its_mark(tmp_path):
    output, error = fastmlp("train", cwd=tmp_path)
    assert error == ""
    training, test = accuracies(output)
    assert 0.975 <= test < 0.99
    assert training > test
    for word in ("MNIST: 60,000 training and 10,000 test images", "[784, 100, 10]", "relu, softmax; cross entropy"):
        assert word in output
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-mnist", folder.name)
    assert (folder / CURVES).read_bytes().startswith(PNG)
    assert Mlp.load(folder / MODEL).network.input_scale == 1 / 255


@needs_mnist
def test_pytorch_lab_on_mnist(tmp_path):
    output, _ = fastmlp("train", "--preset", "pytorch-lab", "--epochs", 2, "--out", ".", cwd=tmp_path)
    assert accuracies(output)[1] > 0.93
    network = Mlp.load(tmp_path / MODEL).network
    assert (network.input_scale, network.input_shift, network.loss) == (1 / 255, -0.5, "cross_entropy")


@needs_mnist
def test_lab_on_mnist_follows_the_plain_program(tmp_path):
    """The lab's job against a NumPy program of its own, written from lab.md: draws, steps, losses, accuracy."""
    output, _ = fastmlp("train", "--preset", "lab", "--epochs", 2, "--out", ".", cwd=tmp_path)
    mlp = Mlp.load(tmp_path / MODEL)
    mnist = data.mnist()
    weights, losses, accuracy = plain_lab(mnist.train_images, mnist.train_labels, iterations=2, chosen=10_000)
    for ours, plain in zip(mlp.weights, weights, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-11)
    assert mlp.metadata["lab_loss"] == pytest.approx(losses, rel=1e-9)
    assert accuracies(output)[0] == pytest.approx(accuracy, abs=1e-4)


def test_lab_on_digits_follows_the_plain_program(run):
    code, output, _ = run(
        "train", "--data", "digits", "--preset", "lab", "--epochs", 10, "--out", ".", "--backend", "numpy"
    )
    assert code == 0
    mlp, digits = Mlp.load(MODEL), data.digits()
    weights, losses, accuracy = plain_lab(digits.train_images, digits.train_labels, iterations=10)
    for ours, plain in zip(mlp.weights, weights, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-11)
    assert mlp.metadata["lab_loss"] == pytest.approx(losses, rel=1e-9)
    assert accuracies(output)[0] == pytest.approx(accuracy, abs=1e-4)
    assert f"loss {losses[-1]:.4f}" in output
    assert "10 iterations" in output


def plain_lab(images, labels, iterations, chosen=None):
    """The lab's program in plain NumPy: weights, loss after each iteration, training accuracy."""
    np.random.seed(123)  # noqa: NPY002
    if chosen is not None:
        picked = np.random.choice(range(60000), size=chosen)  # noqa: NPY002
        images, labels = images[picked], labels[picked]
    sizes = [images.shape[1], 100, 10]
    weights = []
    for current, following in itertools.pairwise(sizes):
        epsilon = 4 * np.sqrt(6) / np.sqrt(current + following)
        weights.append(epsilon * (2 * np.random.rand(following, current + 1) - 1))  # noqa: NPY002
    Y = np.eye(10)[labels]
    ones = np.ones((len(images), 1))
    X = np.hstack([ones, images])

    def sigmoid(z):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-z))

    def forward():
        hidden = np.hstack([ones, sigmoid(X @ weights[0].T)])
        return hidden, sigmoid(hidden @ weights[1].T)

    losses = []
    for _ in range(iterations):
        hidden, output = forward()
        delta = output - Y
        slope = hidden[:, 1:] * (1 - hidden[:, 1:])
        gradients = [((delta @ weights[1][:, 1:]) * slope).T @ X / len(X), delta.T @ hidden / len(X)]
        weights = [w - g for w, g in zip(weights, gradients, strict=True)]
        output = forward()[1]
        losses.append(0.5 * np.mean((output - Y) ** 2))
    return weights, losses, np.mean(output.argmax(1) == labels)


def test_presets_are_the_lab_s():
    assert set(PRESETS) == {"default", "lab", "pytorch-lab"}
    assert (DEFAULT.hidden, DEFAULT.activation, DEFAULT.loss) == ((100,), "relu", "cross_entropy")
    assert (LAB.epochs, LAB.batch_size, LAB.learning_rate, LAB.momentum, LAB.seed) == (400, None, 1.0, 0.0, 123)
    assert (PYTORCH_LAB.epochs, PYTORCH_LAB.batch_size, PYTORCH_LAB.init) == (5, 5, "torch")
    assert (PYTORCH_LAB.learning_rate, PYTORCH_LAB.momentum, PYTORCH_LAB.final_rate) == (0.001, 0.9, 1.0)


def test_options_override_the_preset(run):
    code, output, error = run(
        "train", "--data", "digits", "--backend", "numpy", "--preset", "pytorch-lab", "--out", "o",
        "--layers", "20,15", "--activation", "tanh", "--loss", "binary_cross_entropy", "--epochs", "3",
        "--batch-size", "7", "--learning-rate", "0.02", "--momentum", "0.5", "--dtype", "float64", "--seed", "5",
    )  # fmt: skip
    assert (code, error) == (0, "")
    mlp = Mlp.load("o/" + MODEL)
    assert mlp.network.sizes == (64, 20, 15, 10)
    assert mlp.network.activations == ("tanh", "tanh", "sigmoid")
    assert (mlp.network.loss, mlp.network.dtype) == ("binary_cross_entropy", "float64")
    assert len(mlp.history) == 3
    assert "sgd, learning rate 0.02, momentum 0.5" in output
    assert "3 epochs of batches of 7, seed 5" in output


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "mean_squared_error"),
        ("--loss", "binary_cross_entropy"),
        ("--loss", "cross_entropy", "--dtype", "float64"),
        ("--optimizer", "adam"),
        ("--optimizer", "sgd", "--momentum", "0"),
        ("--activation", "leaky_relu", "--backend", "numpy"),
        ("--layers", "none", "--threads", "1"),
    ],
    ids=" ".join,
)
def test_every_loss_and_optimizer_learns(run, options):
    code, output, error = run("train", "--data", "digits", "--epochs", "10", *options)
    assert (code, error) == (0, "")
    assert accuracies(output)[1] > 0.9


def test_same_seed_same_model_and_another_seed_another(run):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("train", *SHORT, "--seed", seed, "--out", folder)[0] == 0
    a, b, c = (Mlp.load(f"{folder}/{MODEL}").parameters for folder in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_last_epoch_takes_a_tenth_of_the_learning_rate(run):
    _, output, _ = run("train", *SHORT, "--learning-rate", "0.05", "--seed", "3", "--out", "o")
    assert "learning rate 0.05 (last epoch 0.005)" in output
    by_hand, digits = (
        Mlp(
            [64, 100, 10],
            activation="relu",
            loss="cross_entropy",
            init="torch",
            dtype="float32",
            seed=3,
            backend="numpy",
            input_scale=1 / 16,
        ),
        data.digits(),
    )
    for rate in (0.05, 0.05 * 0.1):
        by_hand.fit(
            digits.train_images, digits.train_labels, epochs=1, batch_size=16, optimizer=Sgd(rate, 0.9), progress=False
        )
    assert np.array_equal(Mlp.load("o/" + MODEL).parameters, by_hand.parameters)
    _, output, _ = run("train", *SHORT, "--epochs", "1")
    assert "last epoch" not in output


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("100", (100,)),
        ("128,64", (128, 64)),
        (" 128, 64 ", (128, 64)),
        ("none", ()),
        ("", ()),
        ("64,100,10", (100,)),
        ("[64, 100, 10]", (100,)),
        ("64,10", ()),
        ("64", (64,)),
        ("10", (10,)),
        ("784,100,10", (784, 100, 10)),
    ],
)
def test_layers(text, hidden):
    assert training_run.hidden_layers(text, data.digits()) == hidden


@pytest.mark.parametrize("text", ["x", "100,", ",", "0", "-5", "1.5", "100 50", "²"])
def test_layers_that_are_none_are_refused(run, text):
    assert is_refused(run("train", *SHORT, "--layers", text), "layers=")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "many"), "--epochs"),
        (("--batch-size", "-1"), "--batch-size"),
        (("--threads", "0"), "--threads"),
        (("--seed", "-1"), "--seed"),
        (("--seed", str(2**32)), "--seed="),
        (("--activation", "rleu"), "did you mean 'relu'?"),
        (("--loss", "hinge"), "--loss='hinge'"),
        (("--loss", "mse"), "did you mean 'mean_squared_error'?"),
        (("--activation", "ReLU"), "did you mean 'relu'?"),
        (("--optimizer", "smd"), "did you mean 'sgd'?"),
        (("--learning-rate", "0"), "error: --learning-rate=0.0"),
        (("--learning-rate", "nan"), "error: --learning-rate=nan"),
        (("--momentum", "1"), "error: --momentum=1.0"),
        (("--optimizer", "adam", "--momentum", "0.9"), "error: --momentum=0.9 goes with --optimizer='sgd'"),
        (("--dtype", "float16"), "float16"),
        (("--backend", "gpu"), "--backend='gpu'"),
        (("--backend", "GPU"), "did you mean 'cuda'?"),
        (("--backend", "numpi"), "did you mean 'numpy'?"),
        (("--backend", "cuda"), "does not work here"),
        (("--preset", "labs"), "did you mean 'lab'?"),
        (("--data", "cifar"), "--data='cifar'"),
        (("--data", "MNIST"), "did you mean 'mnist'?"),
        (("--data", ""), "--data"),
        (("--out", ""), "--out"),
        (("--data", "."), "holds none of MNIST's files"),
        (("--nonsense",), "--nonsense"),
        (("--learning-rate", "1e20", "--loss", "mean_squared_error", "--activation", "identity"), "--learning-rate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_options_are_refused(run, here, options, word):
    assert is_refused(run("train", *SHORT, *options), word)
    assert not list(here.iterdir())


def test_refusal_by_a_process_has_no_traceback(tmp_path):
    output, error = fastmlp("train", *SHORT, "--activation", "rleu", cwd=tmp_path, code=2)
    assert is_refused((2, output, error), "activation='rleu'")
    output, error = fastmlp("tarin", cwd=tmp_path, code=2)
    assert is_refused((2, output, error), "tarin")


def test_a_bug_of_ours_shows_its_traceback(run, monkeypatch):
    def broken(_):
        raise ValueError("a bug")

    monkeypatch.setattr(training_run, "train", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("train", *SHORT)


def test_without_mnist_the_digits_take_its_place_in_one_line(run, monkeypatch):
    def nowhere():
        raise data.DataNotFound("MNIST was not found:\n  here\n  there")

    monkeypatch.setattr(training_run, "mnist", nowhere)
    code, output, error = run("train", *SHORT[2:])
    assert (code, error) == (0, "")
    assert output.splitlines()[0].startswith(
        "MNIST was neither found nor could it be fetched: training on scikit-learn's digits"
    )
    assert "[64, 100, 10]" in output
    # Asked for by name, it is not replaced.
    code, _, error = run("train", *SHORT[2:], "--data", "mnist")
    assert (code, error) == (2, "error: MNIST was not found:\n  here\n  there\n")


def test_missing_mnist_is_told_in_short_lines(here):
    """What was tried, and what to do; with no network, or one that has no such server."""
    _, error = fastmlp(
        "train", "--data", "mnist", cwd=here, code=2, FASTMLP_DATA="", HOME=here, XDG_CACHE_HOME=here / "cache",
        https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    lines = error.splitlines()
    assert lines[0] == "error: MNIST was not found:"
    assert len(lines) > 6
    own = str(here)
    assert all(len(line.replace(own, "")) <= 100 for line in lines), error
    for word in ("$FASTMLP_DATA: not set", str(here / "MNIST" / "raw"), "https://", "Set FASTMLP_DATA to a folder"):
        assert word in error


def test_damaged_data_is_named_and_not_replaced_by_the_digits(run, here, monkeypatch):
    for name in data.FILES:
        Path(name).write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    assert is_refused(run("train", *SHORT[2:], "--data", "."), "train-images-idx3-ubyte", "damaged")
    monkeypatch.setenv("FASTMLP_DATA", str(here))
    assert is_refused(run("train", *SHORT[2:]), "train-images-idx3-ubyte", "damaged")


def test_warnings_are_one_line(run, monkeypatch):
    original = data.digits

    def warned():
        warnings.warn("something\nto know", UserWarning, stacklevel=1)
        return original()

    monkeypatch.setattr(training_run, "digits", warned)
    monkeypatch.setattr(warnings, "filters", [("default", None, Warning, None, 0)])
    code, _, error = run("train", *SHORT)
    assert (code, error) == (0, "warning: something to know\n")


def test_every_run_gets_a_folder_of_its_own(run):
    for _ in range(2):
        assert run("train", *SHORT)[0] == 0
    folders = list(Path("runs").iterdir())
    assert len(folders) == 2
    assert all((folder / MODEL).exists() for folder in folders)


def test_out_replaces_an_earlier_run_and_nothing_else(run, here):
    assert run("train", *SHORT, "--out", "new/folder")[0] == 0
    first = Path("new/folder", MODEL).read_bytes()
    Path("new/folder/notes.txt").write_text("mine")
    assert run("train", *SHORT, "--seed", 9, "--out", "new/folder")[0] == 0
    assert Path("new/folder", MODEL).read_bytes() != first
    assert Path("new/folder/notes.txt").read_text() == "mine"

    Path("other").mkdir()
    for name in (MODEL, CURVES):
        Path("other", name).write_text("mine")
        assert is_refused(run("train", *SHORT, "--out", "other"), name)
        assert Path("other", name).read_text() == "mine"
        Path("other", name).unlink()
    Path("file").write_text("mine")
    for out in ("file", "file/below"):
        assert is_refused(run("train", *SHORT, "--out", out), "not a folder")


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """Training is an error: what is to be refused is refused before."""

    def trained(*_, **__):
        raise AssertionError("it went on to train")

    for name in ("train", "prepare"):
        monkeypatch.setattr(training_run, name, trained)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder that nobody can write to")
def test_a_place_that_can_t_be_written_is_refused_before_training(run, here, nothing_is_trained):
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere/at/all")
    for out in ("/proc/self/fd", "/proc/new/folder", "/dev/full", "x" * 300, "file/below", "dangling"):
        assert is_refused(run("train", *SHORT, "--out", out), f"--out='{out if out[0] == '/' else here / out}'")
        assert is_refused(run("lab", "sigmoid", "--out", out), f"--out='{out}'")
        assert is_refused(run("compare", "--data", "digits", "--quick", "--out", out), "--out='")
        assert is_refused(run("bench", "--quick", "--out", f"{out}/result.json"), f"--out='{out}/result.json'")
        assert is_refused(run("bench", "--quick", "--plots", out), f"--plots='{out}'")
    assert is_refused(run("bench", "--quick", "--out", "x" * 300), "too long")
    assert {path.name for path in here.iterdir()} == {"file", "dangling"}


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_before_training(run, nothing_is_trained):
    Path("locked").mkdir(mode=0o500)
    assert is_refused(run("train", *SHORT, "--out", "locked"), "locked", "Permission denied")
    assert is_refused(run("train", *SHORT, "--out", "locked/new"), "locked", "Permission denied")


def test_a_folder_in_the_place_of_a_result_is_refused_before_training(run, digits_run, nothing_is_trained):
    Path("out", CURVES).mkdir(parents=True)
    Path("out", MODEL).write_bytes((digits_run[0] / MODEL).read_bytes())
    assert is_refused(run("train", *SHORT, "--out", "out"), CURVES)


def test_a_disk_that_fills_up_is_told_with_the_file_s_name(run, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"o/{MODEL}")

    monkeypatch.setattr(Mlp, "save", full)
    code, output, error = run("train", *SHORT, "--out", "o")
    assert (code, error) == (1, f"error: No space left on device: o/{MODEL}\n")
    assert "test data" in output


def test_too_little_memory_is_told_in_a_line(run, monkeypatch):
    assert is_refused(run("train", *SHORT, "--layers", "999999999,999999999"), "not enough memory")

    def exhausted(_):
        raise MemoryError

    monkeypatch.setattr(training_run, "train", exhausted)
    assert run("train", *SHORT)[::2] == (1, "error: there is not enough memory\n")


def test_the_end_of_a_file_is_no_interruption(run, monkeypatch):
    def ended(_):
        raise EOFError("Ran out of input")

    monkeypatch.setattr(training_run, "train", ended)
    code, _, error = run("train", *SHORT)
    assert code == 1
    assert "interrupted" not in error
    assert error.endswith("error: Ran out of input\n")


def test_the_home_folder_is_put_in_in_every_path(run, here, model, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.setenv("USERPROFILE", str(here / "home"))
    home = here / "home"
    home.mkdir()
    assert run("train", *SHORT, "--out", "~/run")[0] == 0
    assert (home / "run" / MODEL).exists()
    assert is_refused(run("train", *SHORT[2:], "--data=~/run"), str(home / "run"), "holds none of MNIST's files")
    assert is_refused(run("compare", "--data=~/run"), str(home / "run"), "holds none of MNIST's files")
    np.save(home / "x.npy", data.digits().test_images[:3])
    np.save(home / "y.npy", data.digits().test_labels[:3])
    assert run("predict", "~/run", "~/x.npy")[0] == 0
    assert run("evaluate", "~/run", "~/x.npy", "--labels=~/y.npy")[0] == 0
    assert run("lab", "sigmoid", "--out=~/lab")[0] == 0
    assert list((home / "lab").iterdir())
    (home / "file").write_text("")
    assert is_refused(run("compare", "--data", "digits", "--out=~/file"), str(home / "file"))
    assert is_refused(run("bench", "--quick", "--out=~/run"), str(home / "run"))
    assert is_refused(run("bench", "--quick", "--plots=~/file"), str(home / "file"))
    assert not (here / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "--data", "digits", "--learning-rate", "0"), ("--learning-rate=0.0",)),
        (("compare", "--data", "digits", "--models", "mpl"), ("--models='mpl'", "did you mean 'mlp'?")),
        (("compare", "--data", "digits", "--device", "gpu"), ("--device='gpu'", "did you mean 'cuda'?")),
        (("compare", "--data", "digit"), ("--data='digit'", "did you mean 'digits'?")),
        (("bench", "--contenders", "fastmpl-cpu"), ("--contenders='fastmpl-cpu'", "did you mean 'fastmlp-cpu'?")),
        (("bench", "--suite", "hedline"), ("--suite='hedline'", "did you mean 'headline'?")),
        (("lab", "sigmiod"), ("PART='sigmiod'", "did you mean 'sigmoid'?")),
        (("predict", "m", "x.npy", "--format", "jason"), ("--format='jason'", "did you mean 'json'?")),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_choice_gets_a_suggestion_under_the_option_s_name(run, arguments, words):
    if arguments[0] == "compare":
        pytest.importorskip("torch")
    assert is_refused(run(*arguments), *words)


def test_a_file_that_is_named_like_a_parameter_keeps_its_name(run):
    Path("seed=1").mkdir()
    Path("seed=1/batch_size").write_text("no model")
    for path in ("seed=1/batch_size", "./seed=1/batch_size", str(Path("seed=1/batch_size").absolute())):
        _, _, error = run("evaluate", path, "digits")
        assert "seed=1/batch_size" in error
        assert "--" not in error


# ---- standard output and error that fail ----


def in_a_shell(line, cwd):
    """Run a line of bash, in which $fastmlp is the command; returns exit code, output and error."""
    environment = {**os.environ, "fastmlp": f"{sys.executable} -m fastmlp", "short": " ".join(SHORT)}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)
    return done.returncode, done.stdout, done.stderr


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
needs_full = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")


@needs_bash
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "| head -1", "| true"])
def test_streams_that_nobody_reads_change_nothing(tmp_path, streams):
    code, _, error = in_a_shell(f"set -o pipefail; $fastmlp train $short --out o {streams}", tmp_path)
    assert (code, error) == (0, "")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {MODEL, CURVES}
    assert len(Mlp.load(tmp_path / "o" / MODEL).history) == 2


@needs_bash
@needs_full
@pytest.mark.parametrize("python", ["", "PYTHONUNBUFFERED=1"])
def test_output_that_can_t_be_written_is_told_once_the_model_is_saved(tmp_path, python):
    code, _, error = in_a_shell(f"{python} $fastmlp train $short --out o >/dev/full", tmp_path)
    assert (code, error) == (1, "error: standard output: No space left on device\n")
    assert {path.name for path in (tmp_path / "o").iterdir()} == {MODEL, CURVES}
    assert len(Mlp.load(tmp_path / "o" / MODEL).history) == 2


@needs_bash
def test_a_file_that_can_t_be_written_to_its_end_is_named(tmp_path):
    code, output, error = in_a_shell("ulimit -f 8; $fastmlp train $short --out o", tmp_path)  # 8 KiB, or 4 on a Mac
    assert (code, error) == (1, f"error: File too large: {Path('o', MODEL)}\n")
    assert "test data" in output
    assert not list((tmp_path / "o").iterdir())


@needs_bash
def test_a_current_folder_that_is_gone_is_told(tmp_path):
    code, _, error = in_a_shell("mkdir gone && cd gone && rmdir ../gone && $fastmlp train $short", tmp_path)
    assert (code, error) == (2, "error: the current folder no longer exists; change to another\n")


@needs_bash
@needs_full
def test_predictions_survive_streams_that_fail(model, tmp_path):
    np.save(tmp_path / "x.npy", np.tile(data.digits().test_images, (20, 1)))
    for form in ("text", "csv"):
        command = f"$fastmlp predict {model} x.npy --backend numpy --format {form}"
        assert in_a_shell(f"{command} >&-", tmp_path) == (0, "", "")
        code, output, error = in_a_shell(f"set -o pipefail; {command} | head -1", tmp_path)
        assert (code, output.count("\n"), error) == (0, 1, "")
        code, _, error = in_a_shell(f"{command} >/dev/full", tmp_path)
        assert (code, error) == (1, "error: standard output: No space left on device\n")


def test_a_compilation_is_announced(run, monkeypatch):
    from fastmlp.kernels import cpu

    arguments = ("train", "--data", "digits", "--epochs", "1")
    monkeypatch.setattr(cpu, "is_compiled", lambda dtype: dtype != "float32")
    assert "Compiling the float32 kernels" in run(*arguments)[1]
    monkeypatch.setattr(cpu, "is_compiled", lambda dtype: dtype == "float32")
    assert "Compiling" not in run(*arguments)[1]
    assert "Compiling" not in run(*arguments, "--backend", "numpy")[1]


@pytest.mark.skipif(os.name == "nt", reason="SIGINT can't be sent to one process on Windows")
def test_ctrl_c_keeps_the_finished_epochs(tmp_path):
    command = [sys.executable, "-m", "fastmlp", "train", *SHORT[:4], "--epochs", "100000", "--out", "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            first = process.stdout.readline()
            time.sleep(0.7)
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert first.startswith("Training")
    assert process.returncode == 130, output + error
    assert error == "interrupted\n"
    history = Mlp.load(tmp_path / "out" / MODEL).history
    assert history.interrupted
    assert f"Interrupted after epoch {len(history)} of 100000" in output
    assert "(interrupted)" in output
    assert 0 < len(history) < 100000
    assert (tmp_path / "out" / CURVES).exists()


def test_ctrl_c_before_the_first_epoch_saves_nothing(run, here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastmlp.kernels.reference.train_epoch", interrupted)
    code, _, error = run("train", *SHORT)
    assert (code, error) == (130, "interrupted\n")
    assert not list(here.iterdir())


@pytest.mark.parametrize("moment", ["evaluate", "second fit"])
def test_ctrl_c_after_the_last_epoch_keeps_the_model(run, monkeypatch, moment):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    if moment == "evaluate":
        monkeypatch.setattr(training_run, "evaluate", interrupted)
    else:
        original, calls = Mlp.fit, []

        def fit(*arguments, **options):
            calls.append(1)
            return original(*arguments, **options) if len(calls) == 1 else interrupted()

        monkeypatch.setattr(Mlp, "fit", fit)
    code, output, error = run("train", *SHORT, "--out", "o")
    assert (code, error) == (130, "interrupted\n")
    assert len(Mlp.load("o/" + MODEL).history) == (2 if moment == "evaluate" else 1)
    assert f"model   {Path('o', MODEL)}" in output


def test_divergence_later_on_keeps_the_good_epochs(run, monkeypatch):
    from fastmlp.kernels import reference

    original, calls = reference.train_epoch, []

    def diverging(*arguments, **options):
        calls.append(1)
        losses = original(*arguments, **options)
        return losses * np.nan if len(calls) == 2 else losses

    monkeypatch.setattr(reference, "train_epoch", diverging)
    monkeypatch.setattr("warnings.filters", [("default", None, Warning, None, 0)])
    code, output, error = run("train", *SHORT, "--epochs", "5", "--out", "o")
    assert code == 0
    assert error.startswith("warning: training stopped in epoch 2")
    assert error.count("\n") == 1
    assert "1 epoch of" in output
    assert len(Mlp.load("o/" + MODEL).history) == 1


# ---- predict ----


@pytest.fixture(scope="module")
def model(digits_run):
    return digits_run[0] / MODEL


@pytest.fixture(scope="module")
def expected(model):
    """The first test images, their predicted labels and the probabilities of those."""
    images = data.digits().test_images[:6]
    mlp = Mlp.load(model, backend="numpy")
    return images, mlp.classify(images), mlp.predict(images).max(1)


def write_idx(path, images):
    header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + images.tobytes())


def test_predict_agrees_with_classify(model, expected, tmp_path):
    images, labels, chances = expected
    square = images.reshape(-1, 8, 8)
    write_idx(tmp_path / "some-idx3-ubyte.gz", square)
    write_idx(tmp_path / "some-idx3-ubyte", square)
    np.save(tmp_path / "rows.npy", images)
    np.save(tmp_path / "squares.npy", square.astype(float))
    np.save(tmp_path / "one.npy", square[0])
    files = ["some-idx3-ubyte.gz", "some-idx3-ubyte", "rows.npy", "squares.npy", "one.npy"]
    output, error = fastmlp("predict", model, *files, cwd=tmp_path)
    assert error == ""
    lines = [f"{label} {p:.4f}" for label, p in zip(labels, chances, strict=True)]
    rows = [line.split(" ") for line in output.splitlines()]
    assert [f"{label} {p}" for label, p, _ in rows] == lines * 4 + lines[:1]
    assert rows[1][2] == "some-idx3-ubyte.gz[1]"


def test_predict_reads_pictures_and_folders_of_them(run, model, expected, here):
    images, labels, _ = expected
    Path("folder").mkdir()
    for i, image in enumerate(images):
        # 16 shades as 8-bit grey: back to 0 … 16 it is what it was, but for rounding.
        grey = np.round(image.reshape(8, 8) * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).save(f"folder/{i}.png")
        Image.fromarray(255 - grey).convert("RGB").save(f"folder/{i}.bmp")
    Path("folder/notes.txt").write_text("no picture")
    code, output, _ = run("predict", model, *(f"folder/{i}.png" for i in range(6)))
    assert code == 0
    assert [int(line.split()[0]) for line in output.splitlines()] == labels.tolist()
    code, output, _ = run("predict", model, "--invert", *(f"folder/{i}.bmp" for i in range(6)))
    assert [int(line.split()[0]) for line in output.splitlines()] == labels.tolist()
    code, output, _ = run("predict", model, "folder")
    assert code == 0
    assert len(output.splitlines()) == 12
    assert output.splitlines()[1].endswith(str(Path("folder/0.png")))


def test_white_is_the_largest_value_of_the_training_data(here):
    Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save("a.png")
    for levels, values in ((255, [0, 51, 102, 255]), (10, [0, 2, 4, 10])):
        names, images = read_images([Path("a.png")], 4, levels)
        assert names == ["a.png"]
        np.testing.assert_allclose(images, [values], rtol=1e-12)
    assert read_images([Path("a.png")], 4)[1].dtype == np.uint8


def test_predict_as_csv_and_json(run, model, expected):
    images, labels, chances = expected
    np.save("a.npy", images)
    code, output, _ = run("predict", model, "a.npy", "--format", "json")
    rows = json.loads(output)
    assert code == 0
    assert [row["label"] for row in rows] == labels.tolist()
    assert [row["probability"] for row in rows] == pytest.approx(chances.tolist(), rel=1e-5)
    assert rows[2]["image"] == "a.npy[2]"
    code, output, _ = run("predict", model, "a.npy", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert code == 0
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(chances.tolist(), rel=1e-5)


def test_predict_with_a_single_output(run):
    mlp = Mlp([2, 1], loss="binary_cross_entropy", backend="numpy")
    mlp.weights = [[[0.0, 1.0, 0.0]]]
    mlp.save("unit.safetensors")
    np.save("x.npy", np.array([[2.0, 0.0], [-3.0, 0.0]]))
    code, output, _ = run("predict", "unit.safetensors", "x.npy")
    assert code == 0
    assert output == "1 0.8808 x.npy[0]\n0 0.9526 x.npy[1]\n"


def test_predict_refuses_what_it_can_t_use(run, model, expected):
    images, _, _ = expected
    assert is_refused(run("predict", model, "nowhere.png"), "nowhere.png")
    assert is_refused(run("predict", "nowhere.safetensors", "x.npy"), "nowhere.safetensors")
    Path("text.npy").write_text("no array")
    assert is_refused(run("predict", model, "text.npy"), "text.npy")
    assert is_refused(run("predict", "text.npy", "text.npy"), "text.npy")
    Path("text.png").write_text("no picture")
    assert is_refused(run("predict", model, "text.png"), "text.png is not a picture")
    Path("cut.png").write_bytes(PNG + b"cut off")
    assert is_refused(run("predict", model, "cut.png"), "cut.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("large.png")
    assert is_refused(run("predict", model, "large.png"), "large.png has 28 × 28 pixels", "8 × 8")
    Image.fromarray(np.zeros((4, 16), np.uint8)).save("flat.png")
    assert is_refused(run("predict", model, "flat.png"), "flat.png has 16 × 4 pixels")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save("clear.png")
    assert is_refused(run("predict", model, "clear.png"), "transparent")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save("deep.png")
    assert is_refused(run("predict", model, "deep.png"), "8 bits")
    np.save("wide.npy", np.zeros((3, 65)))
    assert is_refused(run("predict", model, "wide.npy"), "[3, 65]")
    np.save("none.npy", np.zeros((0, 64)))
    assert is_refused(run("predict", model, "none.npy"), "no image")
    np.save("nan.npy", np.full((1, 64), np.nan))
    assert is_refused(run("predict", model, "nan.npy"), "nan")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    assert is_refused(run("predict", model, "objects.npy"), "objects.npy")
    Path("labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x02ab")
    assert is_refused(run("predict", model, "labels-idx1-ubyte"), "expected images")
    Path("empty").mkdir()
    assert is_refused(run("predict", model, "empty"), "no pictures")
    assert is_refused(run("predict", model))
    np.save("good.npy", images)
    assert is_refused(run("predict", model, "good.npy", "--format", "xml"), "xml")


def test_predict_refuses_a_regression(run):
    Mlp([2, 1], loss="mean_squared_error", backend="numpy").save("line.safetensors")
    np.save("x.npy", np.zeros((1, 2)))
    assert is_refused(run("predict", "line.safetensors", "x.npy"), "does not classify")


def test_a_run_s_folder_stands_for_the_model_in_it(run, digits_run, model):
    np.save("x.npy", data.digits().test_images[:5])
    for command in (("predict", "x.npy"), ("evaluate", "digits")):
        by_file = run(command[0], model, command[1])
        assert by_file[0] == 0
        assert run(command[0], digits_run[0], command[1]) == by_file
        Path("empty").mkdir(exist_ok=True)
        assert is_refused(run(command[0], "empty", command[1]), "empty", MODEL)


# ---- evaluate ----


def figures(output):
    """Loss, accuracy (0 to 1), and for each label its samples and how many were right, in an evaluation's output."""
    loss = float(re.search(r"loss +│ ([\d.]+)", output)[1])
    accuracy = float(re.search(r"accuracy +│ ([\d.]+)%", output)[1]) / 100
    rows = re.findall(r"│ +(\d+) │ +([\d,]+) │ +([\d,]+) │", output)
    return loss, accuracy, {int(label): (int(samples), int(right)) for label, samples, right in rows}


def test_evaluate_agrees_with_the_model_on_every_kind_of_data(run, model, here):
    digits, mlp = data.digits(), Mlp.load(model, backend="numpy")
    X, y = digits.test_images, digits.test_labels
    given = mlp.classify(X)
    expected = mlp.evaluate(X, y)
    by_label = {label: (int(np.sum(y == label)), int(np.sum(given[y == label] == label))) for label in range(10)}
    square = X.reshape(-1, 8, 8)
    write_idx(here / "images.gz", square)
    Path("labels").write_bytes(b"\0\0\x08\x01" + np.array([len(y)], ">u4").tobytes() + y.astype(np.uint8).tobytes())
    np.save("X.npy", X)
    np.save("y.npy", y)
    np.savez("lab.npz", X=square, y=y)
    np.savez_compressed("keras.npz", x_train=X[:1], y_train=y[:1], x_test=square, y_test=y.astype(np.uint8))
    for arguments in (
        ("digits",),
        ("images.gz", "--labels", "labels"),
        ("X.npy", "--labels", "y.npy"),
        ("X.npy", "--labels", "labels"),
        ("lab.npz",),
        ("keras.npz",),
    ):
        code, output, error = run("evaluate", model, *arguments, "--backend", "numpy")
        assert (code, error) == (0, "")
        loss, accuracy, rows = figures(output)
        assert loss == pytest.approx(expected.loss, abs=1e-4)
        assert accuracy == pytest.approx(expected.accuracy, abs=1e-4)
        assert rows == by_label


def test_evaluate_takes_a_folder_of_pictures_for_each_label(run, model):
    X, y = data.digits().test_images[:40], data.digits().test_labels[:40]
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        Path("pictures", str(label)).mkdir(parents=True, exist_ok=True)
        grey = np.round(image.reshape(8, 8) * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).save(f"pictures/{label}/{i}.png")
        Path("dark", str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - grey).save(f"dark/{label}/{i}.png")
    expected = pytest.approx(Mlp.load(model, backend="numpy").score(X, y), abs=1e-4)
    for arguments in (("pictures",), ("dark", "--invert")):
        code, output, error = run("evaluate", model, *arguments, "--backend", "numpy")
        assert (code, error) == (0, "")
        assert figures(output)[1] == expected


def test_evaluate_says_what_a_label_is_taken_for(run, here):
    mlp = Mlp([2, 3], loss="cross_entropy", dtype="float64", backend="numpy")
    mlp.weights = [[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [-9.0, 0.0, 0.0]]]
    mlp.save("m.safetensors")
    X = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    np.savez("d.npz", X=X, y=np.array([0, 0, 0, 1]))
    _, output, _ = run("evaluate", "m.safetensors", "d.npz")
    assert figures(output)[1:] == (0.5, {0: (3, 1), 1: (1, 1)})
    assert re.search(r"0 │ +3 │ +1 │ +33.33% │ 1 \(2\)", output)


def test_evaluate_a_regression_has_a_loss_alone(run):
    mlp = Mlp([2, 1], loss="mean_squared_error", backend="numpy", dtype="float64")
    mlp.weights = [[[0.0, 1.0, 0.0]]]
    mlp.save("line.safetensors")
    np.savez("d.npz", X=np.array([[2.0, 0.0], [-3.0, 0.0]]), y=np.array([3.0, -3.0]))
    code, output, _ = run("evaluate", "line.safetensors", "d.npz")
    assert code == 0
    assert "0.2500 (mean squared error)" in output
    assert "accuracy" not in output


@needs_mnist
def test_evaluate_refuses_data_of_another_size(run, model):
    assert is_refused(run("evaluate", model, "mnist"), "[10000, 784]", "8 × 8")


def test_evaluate_refuses_what_it_can_t_use(run, model, expected):
    images, labels, _ = expected
    np.save("x.npy", images)
    np.save("y.npy", labels[:3])
    assert is_refused(run("evaluate", model, "x.npy"), "x.npy", "--labels")
    assert is_refused(run("evaluate", model, "x.npy", "--labels", "y.npy"), "y.npy holds labels [3]", "[6, 64]")
    assert is_refused(run("evaluate", model, "x.npy", "--labels", "nowhere.npy"), "nowhere.npy")
    assert is_refused(run("evaluate", model, "nowhere.npz"), "nowhere.npz")
    Path("text.npy").write_text("no array")
    assert is_refused(run("evaluate", model, "x.npy", "--labels", "text.npy"), "text.npy")
    announced = b"(399999999999,), }"
    large = Path("y.npy").read_bytes().replace(b"(3,), }".ljust(len(announced)), announced)
    assert announced in large
    Path("large.npy").write_bytes(large)
    assert is_refused(run("evaluate", model, "x.npy", "--labels", "large.npy"), "large.npy")
    np.savez("objects.npz", X=np.array([{}], object), y=labels)
    assert is_refused(run("evaluate", model, "objects.npz"), "objects.npz")
    np.savez("none.npz", X=images[:0], y=labels[:0])
    assert is_refused(run("evaluate", model, "none.npz"), "none.npz holds [0, 64]")
    assert is_refused(run("evaluate", model, "mnits"), "DATA='mnits'", "did you mean 'mnist'?")
    assert is_refused(run("evaluate", "nowhere", "digits"), "nowhere")
    Path("text.npz").write_text("no archive")
    assert is_refused(run("evaluate", model, "text.npz"), "text.npz")
    np.savez("other.npz", a=images, b=labels)
    assert is_refused(run("evaluate", model, "other.npz"), "other.npz holds a, b", "x_test and y_test")
    np.savez("cut.npz", X=images, y=labels)
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-100])
    assert is_refused(run("evaluate", model, "cut.npz"), "cut.npz")
    np.savez("wide.npz", X=np.zeros((6, 65)), y=labels)
    assert is_refused(run("evaluate", model, "wide.npz"), "wide.npz holds [6, 65]")
    np.savez("eleven.npz", X=images, y=labels + 10)
    assert is_refused(run("evaluate", model, "eleven.npz"), "eleven.npz's y holds labels")


def test_evaluate_calls_nothing_damaged_that_is_of_another_kind(run, model, expected):
    images, labels, _ = expected
    np.save("x.npy", images)
    for name in ("text.npy", "text.npz"):
        Path(name).write_text("0,1,2\n3,4,5\n")
    np.savez("objects.npz", X=np.array([{}] * 6, object), y=labels)
    np.save("objects.npy", np.array([{}] * 6, object), allow_pickle=True)
    np.save("words.npy", np.array(["one"] * 6))
    for arguments, words in (
        (("x.npy", "--labels", "text.npy"), ("text.npy is no .npy file: it begins with the bytes 30 2c",)),
        (("x.npy", "--labels", "objects.npy"), ("objects.npy holds object; expected real numbers",)),
        (("x.npy", "--labels", "words.npy"), ("words.npy holds <U3; expected real numbers",)),
        (("text.npz",), ("text.npz is no .npz file: it begins with the bytes 30 2c",)),
        (("objects.npz",), ("objects.npz's X.npy holds object; expected real numbers",)),
    ):
        result = run("evaluate", model, *arguments)
        assert is_refused(result, *words)
        assert not re.search("damaged|pickle", result[2])


def test_evaluate_names_the_file_whose_numbers_it_refuses(run, model, expected):
    images, labels, _ = expected
    spoiled = images.astype(float)
    spoiled[2, 3] = np.nan
    np.savez("d.npz", X=spoiled, y=labels)
    assert is_refused(run("evaluate", model, "d.npz"), "error: d.npz holds nan at [2, 3]")
    np.savez("keras.npz", x_test=images, y_test=labels.astype(float))
    assert is_refused(run("evaluate", model, "keras.npz"), "error: keras.npz's y_test holds float64 labels")
    np.save("x.npy", images)
    for name, given, words in (
        ("large.npy", labels + 8, f"holds labels {labels.min() + 8} to {labels.max() + 8}; expected 0 to 9"),
        ("halves.npy", labels / 2, "holds float64 labels"),
        ("x.npy", images, "holds labels [6, 64] for samples [6, 64]"),
        ("sums.npy", np.ones((6, 10)), "[0] sums to 10"),
    ):
        np.save(name, given)
        assert is_refused(run("evaluate", model, "x.npy", "--labels", name), f"error: {name}", words)
    for label in (0, 12):
        Path("classes", str(label)).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(f"classes/{label}/a.png")
    assert is_refused(run("evaluate", model, "classes"), "error: classes holds labels 0 to 12; expected 0 to 9")


@pytest.mark.filterwarnings("always")
def test_evaluate_names_the_file_that_looks_inverted(run, model):
    X, y = data.digits().test_images, data.digits().test_labels
    np.savez("light.npz", X=16.0 - X, y=y)
    np.savez("dark.npz", X=X, y=y)
    np.savez("small.npz", X=X / 1000, y=y)
    _, _, error = run("evaluate", model, "light.npz")
    assert error.startswith("warning: light.npz looks inverted")
    assert error.endswith("(or the reverse), give --invert\n")
    _, _, error = run("evaluate", model, "dark.npz", "--invert")
    assert error.startswith("warning: dark.npz looks inverted")
    assert error.endswith("; leave --invert out\n")
    _, _, error = run("evaluate", model, "small.npz")
    assert error.startswith("warning: small.npz holds 0 to 0.016")
    assert error.endswith("bring small.npz to that scale\n")
    for arguments in (("light.npz", "--invert"), ("dark.npz",)):
        assert run("evaluate", model, *arguments)[2] == ""


def test_a_folder_named_like_a_data_set_is_meant_by_its_path(run, model):
    digits, file = run("evaluate", model, "digits"), Path("digits/3/a.png")
    file.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
    assert digits[0] == 0
    assert run("evaluate", model, "digits") == digits
    code, output, _ = run("evaluate", model, "./digits")
    assert code == 0
    assert re.search("[.]/digits: 1 sample +│", output)
    assert is_refused(run("train", *SHORT[2:], "--data", "./digits"), "digits")
    assert run("train", *SHORT)[0] == 0
    for command in ("train", "evaluate", "compare"):
        assert "./digits" in run(command, "--help")[1]


@pytest.mark.filterwarnings("always")
def test_advice_is_what_the_command_line_can_follow(run, monkeypatch):
    code, _, error = run("train", *SHORT, "--learning-rate", "1e30")
    assert code == 2
    assert error.endswith("a smaller --learning-rate than 1e+30 may help\n")

    def told(_):
        warnings.warn("the inputs are 0 to 255, far from unit scale: input_scale=1/255 may help", stacklevel=1)

    train = training_run.train
    monkeypatch.setattr(training_run, "train", lambda run: (told(run), train(run)))
    error = run("train", *SHORT)[2]
    assert "preset" in error
    assert "input_scale" not in error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError(errno.EIO, os.strerror(errno.EIO))],
    ids=["memory", "full", "broken"],
)
def test_what_the_machine_lacks_is_no_mistake(run, model, monkeypatch, error):
    def failing(*_, **__):
        raise error

    np.save("x.npy", np.zeros((2, 64)))
    for name in ("predict", "evaluate"):
        monkeypatch.setattr(Mlp, name, failing)
    for arguments in (("predict", model, "x.npy"), ("evaluate", model, "digits")):
        code, _, told = run(*arguments)
        assert code == 1
        assert told.startswith("error: ")
        assert told.count("\n") == 1


def test_a_folder_is_tried_while_another_command_tries_it(here, monkeypatch):
    mkdir, rmdir, tries = Path.mkdir, Path.rmdir, []

    def made_by_another(path, *arguments, **keywords):
        mkdir(path)
        return mkdir(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", made_by_another)
    training_run.try_to_write(here / "a" / "b")
    assert (here / "a" / "b").is_dir()  # it is the other's
    monkeypatch.setattr(Path, "mkdir", mkdir)

    def used_by_another(path):
        (path / "result").write_text("another's")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", used_by_another)
    training_run.try_to_write(here / "c")
    assert (here / "c" / "result").exists()
    monkeypatch.setattr(Path, "rmdir", rmdir)

    def taken_away_once(path, *arguments, **keywords):
        mkdir(path, *arguments, **keywords)
        tries.append(path)
        if len(tries) == 1:
            rmdir(path)

    monkeypatch.setattr(Path, "mkdir", taken_away_once)
    training_run.try_to_write(here / "d")
    assert not (here / "d").exists()


def test_a_report_counts_one_as_one_and_threads_as_at_most(run, model):
    output = run("train", *SHORT[:2], "--epochs", 1, "--threads", 1000, "--layers", "none")[1]
    assert "1 epoch of batches of 16" in output
    assert "cpu, at most 1,000 threads" in output
    np.savez("d.npz", X=data.digits().test_images[:1], y=data.digits().test_labels[:1])
    assert re.search("d.npz: 1 sample +│", run("evaluate", model, "d.npz")[1])


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory taken is read from /proc")
@pytest.mark.parametrize("shape", ["(400000000,)", "(6, 66666666)", "(400000000, 64)"])
def test_an_archive_that_asks_for_memory_is_refused_within_little(model, tmp_path, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, re.findall(r"\d+", shape)))}
    )
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("X.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(400):
                member.write(bytes(1_000_000))
        with archive.open("y.npy", "w") as member:
            np.save(member, np.arange(6))
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom fastmlp import Mlp, evaluation_run\n"
        "def most():\n    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "mlp = Mlp.load(sys.argv[2], backend='numpy')\nbefore = most()\n"
        "try:\n    evaluation_run.labelled(sys.argv[1], None, mlp)\n"
        "except ValueError as error:\n    print(most() - before, error)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "d.npz", model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, _, message = done.stdout.partition(" ")
    assert "d.npz" in message
    assert int(taken) < 60_000


# ---- info, help, version ----


def test_info_tells_versions_and_backends(tmp_path):
    output, error = fastmlp("info", cwd=tmp_path)
    assert error == ""
    for word in ("fastmlp", "python", "numpy", "numba", "llvmlite", "torch", "cpu", np.__version__):
        assert word in output
    from fastmlp import kernels

    text = " ".join(output.replace("│", " ").split())
    for name, reason in kernels.available().items():
        told = "works here" if reason is None else reason.split(";")[0]
        assert f"backend {name} {told}" in text


def test_help_and_version(run):
    code, output, error = run("--help")
    assert (code, error) == (0, "")
    for command in ("train", "predict", "evaluate", "info"):
        assert command in output
    assert run()[:2] == (0, output)
    code, output, _ = run("train", "--help")
    assert code == 0
    for option in (
        "data", "layers", "activation", "loss", "epochs", "batch-size", "optimizer", "learning-rate", "momentum",
        "dtype", "backend", "threads", "seed", "out", "preset",
    ):  # fmt: skip
        assert f"--{option} " in output
    from fastmlp import __version__

    for option in ("--version", "-V"):
        assert run(option) == (0, f"fastmlp {__version__}\n", "")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from fastmlp.cli import main\n"
        "main(['train', '--help'])\n"
        "print([name for name in ('numba', 'matplotlib', 'sklearn', 'torch', 'pooch', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_training_leaves_out_what_it_does_not_need(tmp_path):
    code = (
        "import sys\n"
        "from fastmlp.cli import main\n"
        f"assert main({['train', *SHORT]}) == 0\n"
        "print([n for n in ('numba', 'sklearn', 'torch', 'pooch', 'matplotlib.pyplot') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
