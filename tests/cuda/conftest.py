"""Tests of CUDA kernels, simulated: `tests/test_cuda.py` runs them in a process of their own with the simulator on."""

import os
import sys
from pathlib import Path

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

if SIMULATED:
    import fastmlp.kernels.cuda.toolkit  # noqa: F401 (before anything else of numba-cuda)

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import cuda_simulator

    cuda_simulator.install()
else:
    collect_ignore_glob = ["test_*.py"]  # numba reads the variable once, at import: not in this process


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    """Few threads share out the work, where a test says nothing else: each is one of Python's."""
    from paths import laid_out

    from fastmlp.kernels.cuda import launch

    monkeypatch.setattr(launch, "ELEMENT_THREADS", 32)
    monkeypatch.setattr(launch, "ELEMENT_BLOCKS", 1)
    with laid_out():
        yield


@pytest.fixture(autouse=True)
def schedule():
    """The same schedules in every run, unless FASTMLP_CUDA_SEED asks for others."""
    seed = int(os.environ.get("FASTMLP_CUDA_SEED", "0"))
    from paths import set_gpu

    cuda_simulator.seed(seed)
    before = vars(cuda_simulator.settings).copy()
    set_gpu(multiprocessors=3)  # so that grids stay small
    yield
    set_gpu(**before)
