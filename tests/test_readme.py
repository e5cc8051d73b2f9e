"""What the pages tell people to type works as it stands there."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import wraps
from pathlib import Path

import pytest
from problems import child_environment

from fastmlp import cli, comparison, lab_run, presets, training_run
from fastmlp.bench import command as bench_command
from fastmlp.data import digits

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "bench/README.md")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    """The code blocks of a language, with the number of the line that each begins in."""
    text = text_of(page)
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start()) + 2, block[1]) for block in found]


PYTHON = [pytest.param(code, id=f"line {line}") for line, code in blocks("README.md", "python")]


@pytest.mark.parametrize("code", PYTHON)
def test_each_python_block_runs_by_itself(code, little_mnist, monkeypatch, request):
    for package in ("torch", "torchvision", "onnx"):
        if package in code and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if "torch" in code:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so few samples are no work for two
        request.addfinalizer(lambda: torch.set_num_threads(threads))
    monkeypatch.chdir(little_mnist)  # what a block saves goes there
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def commands(page):
    """All shell commands that a page shows, in its blocks and in its sentences, without their comments."""
    lines = [line for _, block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`((?:fastmlp|make|pip install|python -m) [^`]*)`", text_of(page).replace("\n", " "))
    words = [shlex.split(line, comments=True) for line in lines]
    for line in words:
        while line:
            end = line.index("&&") if "&&" in line else len(line)
            yield line[:end]
            line = line[end + 1 :]


SHOWN = [pytest.param(page, command, id=f"{page}: {' '.join(command)}") for page in PAGES for command in commands(page)]


def test_the_pages_show_code():
    """Where the patterns above found nothing, nothing would be tested."""
    assert len(PYTHON) >= 3
    assert len(SHOWN) >= 20


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell here")
def test_the_shell_block_from_training_to_prediction_runs(tmp_path):
    (code,) = [code for _, code in blocks("README.md", "sh") if "fastmlp predict" in code]
    python = shlex.quote(sys.executable)
    of_this_python = f'fastmlp() {{ {python} -m fastmlp "$@"; }}\npython() {{ {python} "$@"; }}\n'
    done = subprocess.run(
        ["sh", "-e"],
        input=of_this_python + code,
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    predictions = done.stdout.splitlines()[-10:]
    assert all(re.fullmatch(r"\d [01]\.\d{4} my-images\.npy.*", line) for line in predictions), predictions


def check_train(data, out, preset, layers, backend, threads, **changes):
    assert data in (None, "mnist", "digits")
    images = digits()
    settings = training_run.with_layers(presets.preset(preset, images.name).override(**changes), layers, images)
    training_run.prepare(images, settings, backend=backend, threads=threads)


def check_bench(suite, quick, contenders, batch_sizes, rounds, **_):
    if suite == bench_command.ACCURACY:
        bench_command.chosen_programs(contenders, batch_sizes)
    elif suite in bench_command.FITS:
        bench_command.check_fits(suite, contenders=contenders, batch_sizes=batch_sizes, rounds=rounds)
    else:
        bench_command.chosen_suite("quick" if quick else suite or "headline", contenders, batch_sizes, rounds)


def check_compare(models, epochs, seeds, batch_size, learning_rate, quick, device, **_):
    comparison.settings_for(models, epochs, seeds, batch_size, learning_rate, device, quick)


#: What looks at the values of a command's options, before its work; parsing alone does the others.
CHECKS = {
    "train": check_train,
    "lab": lambda part, **_: part is None or lab_run.chosen(part),
    "bench": check_bench,
    "compare": check_compare,
}


@pytest.fixture
def only_checked(monkeypatch):
    """Have the commands of ``fastmlp`` parse and check what they are given, and then end."""

    def checking(callback):
        @wraps(callback)
        def check(**values):
            with cli.users_mistakes():
                CHECKS.get(callback.__name__, lambda **_: None)(**values)

        return check

    for command in cli.app.registered_commands:
        monkeypatch.setattr(command, "callback", checking(command.callback))


@pytest.mark.parametrize(
    "wrong",
    [
        "trian",
        "train --preset labb",
        "train --epochs many",
        "train --layers 1o0",
        "train --activation rleu",
        "lab linear-units",
        "lab all --quick=3",
        "compare --models mpl",
        "bench --suite headlin",
        "predict my-run",
        "predict my-run x.npy --threads 0",
        "evaluate my-run digits mnist",
        "info --versions",
    ],
)
def test_a_wrong_command_would_be_found(wrong, only_checked, capsys):
    assert cli.main(wrong.split()) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_each_shell_command_is_right(page, command, only_checked, capsys):
    program, *arguments = command
    if program == "fastmlp":
        assert cli.main(arguments) == 0, capsys.readouterr().err
    elif program == "make":
        targets = re.findall(r"^([a-z-]+)(?:-%)?:", text_of("Makefile"), flags=re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif command[:2] == ["pip", "install"]:
        extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
        named = re.findall(r"\[(.*?)\]", " ".join(arguments))
        assert {extra for names in named for extra in names.split(",")} <= set(extras)
    elif command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2]) is not None
    elif command[:2] == ["python", "-c"]:
        compile(command[2], page, "exec")
    else:
        assert program in ("pytest", "."), "a program of which nothing is known here"
