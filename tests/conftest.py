"""What the tests share: the backends to run over, and settings that keep them quiet and repeatable."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import settings

# In CI the same examples every time; a developer gets new ones at each run.
settings.register_profile("fastmlp", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("fastmlp")


#: For pytest.mark.parametrize("backend", BACKENDS).
BACKENDS = ["numpy", "cpu"]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Each backend's name in turn."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
