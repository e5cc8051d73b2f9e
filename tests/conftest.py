"""What the tests share: the backends to run over, and settings that keep them quiet and repeatable."""

import importlib
import os
import signal
from importlib.util import find_spec

os.environ.setdefault("MPLBACKEND", "Agg")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has that ignored in what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fastmlp import kernels

# The same examples every time; `pytest --hypothesis-profile=explore` draws new ones at each run.
settings.register_profile("fastmlp", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("fastmlp")


NO_GPU = kernels.available()["cuda"]  #: why the tests don't run on a GPU; None where they do

#: For pytest.mark.parametrize("backend", BACKENDS).
BACKENDS = ["numpy", "cpu", *(["cuda"] if NO_GPU is None else [])]


def pytest_report_header() -> str:
    """Say which backends are tested, and why one is not."""
    return f"backends: {', '.join(BACKENDS)}" + (
        f"; cuda is simulated in tests/test_cuda.py: {NO_GPU}" if NO_GPU else ""
    )


@pytest.hookimpl(trylast=True)  # after -k and its like
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a share of the tests, such as the third of twelve for FASTMLP_SHARE=2/12: others run the rest meanwhile."""
    part, _, parts = os.environ.get("FASTMLP_SHARE", "0/1").partition("/")
    items[:] = items[int(part) :: int(parts)]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Each backend's name in turn."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def little_mnist(tmp_path, monkeypatch):
    """Learnable images in MNIST's files, few of them: the real ones are not needed to see a program train."""
    from fastmlp.bench.time_to_accuracy import write_idx
    from fastmlp.bench.work import Work

    images, labels = Work(source="synthetic", samples=1200).pixels(), Work(source="synthetic", samples=1200).load()[1]
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, 1000)), ("t10k", slice(1000, None))):
        write_idx(raw / f"{name}-images-idx3-ubyte", images[part].reshape(-1, 28, 28))
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels[part].astype(np.uint8))
    monkeypatch.setenv("FASTMLP_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def own_process():
    """For contenders in this very process: numbers of threads, and how PyTorch treats subnormals, as they were."""
    torch = importlib.import_module("torch") if find_spec("torch") else None
    threads = torch.get_num_threads() if torch else 0
    with threadpool_limits(None):
        yield
    if torch:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
