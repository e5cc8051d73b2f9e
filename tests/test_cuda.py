"""The CUDA backend's tests, simulated: those in tests/cuda, each file in a process with the simulator switched on.

Numba reads the switch once, when it is imported, so it can't be thrown in this process. Processes run side by side, as
many as there are cores; what each has passed and skipped is printed. ``FASTMLP_CUDA_SEED=7 pytest tests/test_cuda.py``
runs the threads in other orders.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from problems import child_environment

FOLDER = Path(__file__).parent / "cuda"
NEEDED = ("numba_cuda", "greenlet")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"pip install '.[test]' brings what is missing: {MISSING}")


def simulated(name: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests/cuda in the simulator."""
    command = [sys.executable, "-m", "pytest", str(FOLDER / name), "-q", "-ra", "-p", "no:cacheprovider", "--no-header"]
    environment = child_environment(NUMBA_ENABLE_CUDASIM="1", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, cwd=FOLDER.parent.parent
    )


@pytest.fixture(scope="module")
def runs(request) -> Iterator[dict[str, Future]]:
    """The runs of all files that are wanted, under way."""
    wanted = {item.callspec.params["name"] for item in request.session.items if item.module is request.module}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {name: pool.submit(simulated, name) for name in FILES if name in wanted}
        yield runs
        for run in runs.values():
            run.cancel()


@pytest.mark.parametrize("name", FILES)
def test_simulated(name, runs, capsys):
    done = runs[name].result()
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0:
        pytest.fail(
            f"{name} in the simulator, exit status {done.returncode}:\n{done.stdout}\n{done.stderr}", pytrace=False
        )
    with capsys.disabled():
        skips = [line for line in lines if line.startswith("SKIPPED")]
        print(f"\n  simulated {name}: {lines[-1]}", *skips, sep="\n  ", end="")
