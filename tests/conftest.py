"""What the tests share: the backends to run over, and settings that keep them quiet and repeatable."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import settings

from fastmlp import kernels

settings.register_profile("fastmlp", deadline=None)
settings.load_profile("fastmlp")


def reason_to_skip(name: str) -> str | None:
    """Why a backend can't be tested here, or None."""
    try:
        module = kernels.backend(name)
    except (ImportError, RuntimeError) as error:
        return f"backend {name!r} does not work here: {error}"
    return None if hasattr(module, "train_epoch") else f"backend {name!r} is not there yet"


def backend_param(name: str):
    reason = reason_to_skip(name)
    return pytest.param(name, marks=[] if reason is None else pytest.mark.skip(reason=reason))


#: For pytest.mark.parametrize("backend", BACKENDS).
BACKENDS = [backend_param(name) for name in ("numpy", "cpu")]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Each backend's name in turn."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
