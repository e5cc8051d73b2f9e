"""Kernels for exact sizes: a module for each set of constants, whose text and compiled code are found on disk again."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from problems import run_python

if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("pip install '.[test]' brings numba-cuda", allow_module_level=True)

from fastmlp.kernels.cuda import specialise
from fastmlp.kernels.cuda.specialise import is_cacheable, specialised

#: Compiles a kernel as a launch does, on a machine whose GPU is a fake; tells what was found on disk and what was not.
COMPILE = """
import json
from types import SimpleNamespace
from unittest import mock
import numpy as np
from fastmlp.kernels.cuda import launch
from fastmlp.kernels.cuda.toolkit import compiled_for
from numba.cuda import dispatcher
from numba.cuda.cudadrv import devices

gpu = SimpleNamespace(compute_capability=(9, 0))
context = SimpleNamespace(device=gpu)
with (
    mock.patch.object(devices, "get_context", lambda *which: context),
    mock.patch.object(dispatcher, "get_current_device", lambda: gpu),
    mock.patch.object(dispatcher._Kernel, "bind", lambda self: self._codelibrary.get_asm_str()),  # all but loading it
):
    kernel = launch.element_kernel("look", {rule!r})
    compiled_for(kernel, (np.zeros(1, np.float32), np.zeros(1, np.uint32)))
print(json.dumps([sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, of a process that has loaded nothing yet."""
    monkeypatch.setattr(specialise, "folder", lambda: tmp_path)
    monkeypatch.setattr(specialise, "_loaded", {})
    return tmp_path


def compiled_elsewhere(rule: str, cache: Path) -> list[int]:
    """Hits and misses of a process that compiles a kernel for that rule."""
    done = run_python(COMPILE.format(rule=rule), NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(cache: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with what changes when it is written again."""
    found = [path for path in cache.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
    assert compiled_elsewhere("plain", tmp_path) == [0, 1]
    first = written(tmp_path)
    assert len(first) >= 3  # the text; Numba's index and code
    assert compiled_elsewhere("plain", tmp_path) == [1, 0]
    assert written(tmp_path) == first
    assert compiled_elsewhere("momentum", tmp_path) == [0, 1]
    assert first.items() < written(tmp_path).items()


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 0.5])
def test_damaged_code_on_disk_is_compiled_anew(tmp_path, ending, left):
    compiled_elsewhere("plain", tmp_path)
    (damaged,) = tmp_path.rglob(f"*.{ending}")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(left * len(whole))])
    told = "import warnings\nwarnings.simplefilter('always')\n"
    done = run_python(told + COMPILE.format(rule="plain"), NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "was damaged and is compiled anew" in done.stderr
    assert compiled_elsewhere("plain", tmp_path) == [1, 0]


def test_sizes_do_not_mix(folder):
    small, large = specialised("persistent", INPUTS=5, HIDDEN=7), specialised("persistent", INPUTS=50, HIDDEN=7)
    assert (small.INPUTS, small.HIDDEN, large.INPUTS) == (5, 7, 50)
    assert small.ROW < large.ROW  # what follows from the constants
    assert specialised("persistent", INPUTS=5, HIDDEN=7) is small
    assert len({module.__file__ for module in (small, large)}) == len(list(folder.glob("*.py"))) == 2
    assert all(map(is_cacheable, (small, large)))


def test_what_kernels_call_is_part_of_the_name(folder, monkeypatch):
    before = specialised("elements")
    monkeypatch.setattr(specialise, "called_digest", lambda: "another")
    assert specialised("elements").__file__ != before.__file__


def test_a_constant_must_stand_at_the_head(folder):
    for name in ("INPUT", "NOTHING"):
        with pytest.raises(ValueError, match=f"{name} is given a value 0 times in the kernel's text; expected once"):
            specialised("persistent", **{name: 5})
    assert not list(folder.glob("*.py"))


def test_a_damaged_copy_is_replaced(folder, monkeypatch):
    first = specialised("elements")
    Path(first.__file__).write_text("RULE = 'nothing else'\n")
    monkeypatch.setattr(specialise, "_loaded", {})
    again = specialised("elements")
    assert again.__file__ == first.__file__
    assert callable(again.look)


@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_without_a_place_on_disk_it_works(folder, fault, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    if fault == "no folder":
        monkeypatch.setattr(specialise, "folder", lambda: None)
    else:
        monkeypatch.setattr(os, "replace", full)
    loaded = specialised("elements", RULE="adam")
    assert loaded.RULE == "adam"
    assert not is_cacheable(loaded)
    assert not list(folder.glob("*.py")) + list(folder.glob("*.tmp"))  # nothing half written


def test_all_that_kernels_import_is_part_of_the_name():
    """Whatever else changed would leave old compiled code in use."""
    called = {(specialise.HERE / name).resolve() for name in specialise.CALLED}
    for name in ("persistent", "tiled", "elements", *(path.stem for path in called if path.parent == specialise.HERE)):
        source = (specialise.HERE / f"{name}.py").read_text(encoding="utf-8")
        for imported in re.findall(r"^ *from (fastmlp\.[\w.]+) import", source, re.M):
            path = (specialise.HERE.parents[1] / imported.removeprefix("fastmlp.").replace(".", "/")).with_suffix(".py")
            assert path.resolve() in called | {specialise.HERE / "missing.py"}, f"{name}.py imports {imported}"
