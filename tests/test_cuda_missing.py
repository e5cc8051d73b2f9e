"""Without a GPU, or without what drives it: the same names are there, and say what is missing."""

import importlib.util
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from problems import run_python

from fastmlp import Mlp, kernels, system
from fastmlp.kernels import contract, cuda
from fastmlp.kernels.cuda import config, missing

FUNCTIONS = [name for name, _ in inspect.getmembers(contract.Backend, inspect.isfunction) if not name.startswith("_")]


@pytest.fixture
def installed(monkeypatch):
    """As if package and driver were there; each test takes something away."""
    pytest.importorskip("numba_cuda", reason="pip install '.[test]' brings numba-cuda")
    from fastmlp.kernels.cuda.toolkit import cuda as numba_cuda
    from fastmlp.kernels.cuda.toolkit import driver, nvvm

    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.delenv("FASTMLP_CUDA_DEVICE", raising=False)
    gpus = [SimpleNamespace(compute_capability=(9, 0)), SimpleNamespace(compute_capability=(7, 5))]
    monkeypatch.setattr(missing, "_has_driver", lambda: True)
    monkeypatch.setattr(numba_cuda, "is_available", lambda: True)
    monkeypatch.setattr(numba_cuda, "cuda_error", lambda: None)
    monkeypatch.setattr(numba_cuda, "gpus", gpus)
    monkeypatch.setattr(nvvm, "is_available", lambda: True)
    monkeypatch.setattr(driver, "driver", SimpleNamespace(get_device_count=lambda: len(gpus)))
    missing._device_reason.cache_clear()
    yield SimpleNamespace(cuda=numba_cuda, nvvm=nvvm, driver=driver, gpus=gpus)
    missing._device_reason.cache_clear()


def test_nothing_is_missing(installed):
    assert missing.reason() is None
    assert kernels.available()["cuda"] is None
    assert kernels.backend("cuda") is cuda


def test_the_package_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "numba_cuda" else find(name, *rest)
    )
    assert missing.reason() == "the package numba-cuda is not installed; pip install 'fastmlp[cuda]'"


#: A module that can't be imported: as under NumPy 2.5, from parts of it, or for want of what the kernels take from it.
BROKEN = """
import sys
from importlib import abc, machinery

class Broken(abc.MetaPathFinder, abc.Loader):
    def find_spec(self, name, path, target=None):
        return machinery.ModuleSpec(name, self) if name == {module!r} else None

    def exec_module(self, module):
        raise {error}

import numba
sys.meta_path.insert(0, Broken())
from fastmlp import Mlp
from fastmlp.kernels.cuda import missing
missing._has_driver = lambda: True
for _ in range(2):
    try:
        Mlp([2, 1], backend="cuda")
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("numba.cuda", "ImportError('NVIDIA CUDA Python bindings not found')"),
        ("numba.cuda.np.arrayobj", "AttributeError('row_stack')"),
        ("numba.cuda.np.npdatetime_helpers", "DeprecationWarning('generic')"),
        ("numba.cuda.cache_hints", "KeyError('of another release')"),
    ],
)
def test_numba_cuda_cant_be_imported(module, error):
    pytest.importorskip("numba_cuda", reason="pip install '.[test]' brings numba-cuda")
    done = run_python(BROKEN.format(module=module, error=error))
    assert done.returncode == 0, done.stderr
    first, again = done.stdout.splitlines()
    assert first.startswith(
        f"backend='cuda' does not work here: numba-cuda can't be imported with NumPy {np.__version__} ("
    )
    assert error.split("(")[0] in first
    assert first.endswith("; pip install 'fastmlp[cuda]'")
    assert again == first


def test_numbas_own_cuda_is_not_taken_for_numba_cuda():
    """Where Python has not read numba-cuda's .pth file, ``numba.cuda`` is another module."""
    pytest.importorskip("numba_cuda", reason="pip install '.[test]' brings numba-cuda")
    done = run_python(
        "import sys, types\n"
        "from fastmlp.kernels.cuda import missing\n"
        "missing._has_driver = lambda: True\n"
        "sys.modules['numba.cuda'] = types.ModuleType('numba.cuda')\n"
        "sys.modules['numba.cuda'].__file__ = 'elsewhere/numba/cuda/__init__.py'\n"
        "print(missing.reason())\n"
    )
    assert done.returncode == 0, done.stderr
    assert "numba.cuda is Numba's own, in elsewhere/numba/cuda/__init__.py" in done.stdout


def test_numba_cuda_can_be_imported_without_what_numpy_took_away():
    pytest.importorskip("numba_cuda", reason="pip install '.[test]' brings numba-cuda")
    done = run_python(
        "import numpy as np, fastmlp.kernels.cpu\n"
        "vars(np).pop('row_stack', None)\n"
        "from fastmlp.kernels.cuda import missing\n"
        "missing._has_driver = lambda: True\n"
        "missing.reason()\n"
        "import fastmlp.kernels.cuda.calls\n"
        "print(hasattr(np, 'row_stack'))\n"
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_the_driver_is_missing(installed, monkeypatch):
    monkeypatch.setattr(missing, "_has_driver", lambda: False)
    assert missing.reason() == "no NVIDIA driver is installed (its library libcuda was not found)"


@pytest.mark.parametrize(
    ("error", "has_nvvm", "expected"),
    [
        ("CUDA_ERROR_UNKNOWN (999)", True, "the NVIDIA driver does not start: CUDA_ERROR_UNKNOWN (999)"),
        (None, False, "the compiler library NVVM is not installed; pip install 'fastmlp[cuda]'"),
        (None, True, "numba-cuda finds no CUDA"),
    ],
)
def test_numba_finds_no_cuda(installed, monkeypatch, error, has_nvvm, expected):
    monkeypatch.setattr(installed.cuda, "is_available", lambda: False)
    monkeypatch.setattr(installed.cuda, "cuda_error", lambda: error)
    monkeypatch.setattr(installed.nvvm, "is_available", lambda: has_nvvm)
    assert missing.reason() == expected


def test_there_is_no_gpu(installed):
    installed.gpus.clear()
    assert missing.reason() == "the NVIDIA driver finds no GPU"


def test_the_gpu_that_was_asked_for_is_not_there_or_too_old(installed, monkeypatch):
    monkeypatch.setenv("FASTMLP_CUDA_DEVICE", "2")
    assert missing.reason() == "GPU '2' was asked for; expected 0 to 1, as 2 are here"
    monkeypatch.setenv("FASTMLP_CUDA_DEVICE", "1")
    assert missing.reason() == "GPU 1 has compute capability 7.5; these kernels need 8.0 (Ampere) or newer"
    monkeypatch.setenv("FASTMLP_CUDA_DEVICE", "0")
    assert missing.reason() is None


def test_numbas_own_simulator_is_no_gpu(installed, monkeypatch):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert "Numba's simulator runs one block after another" in missing.reason()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_there_and_says_what_is_missing(name, monkeypatch):
    monkeypatch.setattr(cuda, "reason", lambda: "no GPU")
    function = getattr(cuda, name)
    assert (
        list(inspect.signature(function).parameters)
        == list(inspect.signature(getattr(contract.Backend, name)).parameters)[1:]
    )
    count = sum(p.default is p.empty for p in inspect.signature(function).parameters.values())
    with pytest.raises(RuntimeError, match="backend='cuda' does not work here: no GPU"):
        function(*[None] * count)


def test_an_mlp_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(missing, "reason", lambda: "no GPU")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(RuntimeError, match=f"backend='{name}' does not work here: no GPU"):
            Mlp([2, 1], backend=name)
    assert system.backends()["backend cuda"] == "no GPU"


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(missing, "reason", lambda: "no GPU")
    monkeypatch.setattr(config, "AUTO_LEAST_MULTIPLY_ADDS", 1)
    assert Mlp([2, 1]).backend_name == "cpu"


def test_nothing_of_cuda_is_imported_unasked():
    done = run_python(
        "import sys, fastmlp\n"
        "from fastmlp import kernels\n"
        "import fastmlp.kernels.cuda\n"
        "fastmlp.Mlp([2, 2], loss='cross_entropy', backend='numpy').fit([[0, 1], [1, 0]], [0, 1], progress=False)\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('numba.cuda', 'numba_cuda', 'cuda.'))))\n"
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip()
