"""What the pages tell people to type works as it stands there."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fastmlp import cli

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
    lines += re.findall(r"`((?:fastmlp|make|pip install|python -m) ?[^`]*)`", text_of(page).replace("\n", " "))
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


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_each_shell_command_is_there(page, command, capsys):
    program, *arguments = command
    if program == "fastmlp":
        assert cli.main([*arguments, "--help"]) == 0, capsys.readouterr().err  # unknown options are refused before
    elif program == "make":
        targets = re.findall(r"^([a-z-]+)(?:-%)?:", text_of("Makefile"), flags=re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif command[:2] == ["pip", "install"]:
        extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
        named = re.findall(r"\[(.*?)\]", " ".join(arguments))
        assert {extra for names in named for extra in names.split(",")} <= set(extras)
    elif command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2]) is not None
