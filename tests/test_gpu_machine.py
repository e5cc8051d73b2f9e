"""A checkout on a machine with a GPU: what there is of one without the GPU.

Such a machine has a few packages, fastmlp not among them, and no network. Here its environment is a virtual one with
links to those packages of this one that it would have. `make test-gpu-venv` installs a true one, with the newest
releases, and runs these tests in it: FASTMLP_GPU_PYTHON is then that environment's Python.
"""

import json
import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

from fastmlp import kernels
from fastmlp.bench import cuda_compile

#: Packages of ours that such a machine lacks; what has the name in its own is left out with it.
LACKED = ("fastmlp", "greenlet", "nbclient", "nbformat", "onnx", "platformdirs", "pooch", "pytest_benchmark")
ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(os.name == "nt" or shutil.which("make") is None, reason="there is no make here"),
    pytest.mark.skipif(cuda_compile.missing() is not None, reason=str(cuda_compile.missing())),
]


class Machine(NamedTuple):
    """Its Python, and a folder with a checkout and no other file."""

    python: Path
    checkout: Path

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout; the variables are those of somebody who has just logged in."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR") if name in os.environ}
        environment = {**kept, "HOME": str(self.checkout.parent), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )


def linked(folder: Path) -> Path:
    """The Python of a virtual environment with links to this one's packages, but for those of `LACKED`."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for place in {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}:
        for path in Path(place).iterdir():
            if not any(name in path.name.lower().replace("-", "_") for name in LACKED):
                (packages / path.name).symlink_to(path)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    for name in ("fastmlp", "kernels", "bench", "tests"):
        shutil.copytree(ROOT / name, folder / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / "checkout")
    true = os.environ.get("FASTMLP_GPU_PYTHON")
    return Machine(Path(true) if true else linked(folder / "environment"), folder / "checkout")


#: Imports all that there is, trains, and tells of modules that lack another package than such a machine may lack.
EVERYTHING = """
import importlib
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("error")
import fastmlp
from fastmlp import Mlp, kernels

assert fastmlp.__file__.startswith(os.getcwd())
for name in ("platformdirs", "pooch"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    sys.exit(f"{name} is here")

for backend in ("numpy", "cpu"):
    Mlp([2, 2], loss="cross_entropy", backend=backend).fit([[0, 1], [1, 0]], [0, 1], epochs=2, progress=False)
print(kernels.available()["cuda"])

warnings.simplefilter("default")  # for what libraries warn of when they are imported
EXTRAS = {"torch", "torchvision", "jax", "onnx", "onnxruntime", "nbformat", "nbclient", "IPython"}
for path in (path for name in ("fastmlp", "kernels", "bench") for path in Path(name).rglob("*.py")):
    parts = path.with_suffix("").parts
    if not path.stem.startswith(("__", "test_")):
        try:
            importlib.import_module(".".join(parts if parts[0] == "fastmlp" else ("fastmlp", *parts)))
        except ImportError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
"""


def test_everything_can_be_imported_and_the_cpu_trains(machine):
    done = machine.run("env", f"PYTHONPATH={machine.checkout}", machine.python, "-c", EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(kernels.available()["cuda"])


def test_make_gpu_comes_as_far_as_the_driver(machine, tmp_path):
    """All before it is done: imports, plans, kernels compiled."""
    reason = kernels.available()["cuda"]
    if reason is None or "no NVIDIA driver" not in reason:
        pytest.skip(f"a driver is here: {reason or 'a GPU works'}")
    done = machine.run("make", "gpu", f"PYTHON={machine.python}", f"OUT={tmp_path}")
    said = done.stdout + done.stderr
    assert "no NVIDIA driver" in said
    assert "Error 1" in done.stderr, said
    assert 'File "' not in said, said  # as each line of a traceback has
    assert set(re.findall(r", sm_90: (.*)$", said, re.M)) == {"ok"}, said


def test_the_contracts_tests_can_be_collected_there(machine):
    """By a command of `make gpu`; none of them runs without a GPU."""
    code = "import json; from fastmlp.bench import gpu; print(json.dumps(list(gpu.tests().values())[0]))"
    told = machine.run("env", f"PYTHONPATH={machine.checkout}", machine.python, "-c", code)
    command = json.loads(told.stdout)
    done = machine.run("env", f"PYTHONPATH={machine.checkout}", *command, "--collect-only")
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout + done.stderr
