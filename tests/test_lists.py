"""What is off the background, brought to the front of a list: each way to do it gives the same."""

import numpy as np
import pytest
from numba import njit

from fastmlp.kernels.cpu import lists
from fastmlp.kernels.network import aligned_zeros

#: name -> (HAS_TABLE, HAS_COMPRESS), by which `lists.compress` chooses when it is compiled.
WAYS = {"table": (True, False), "compress": (False, True), "scalars": (False, False)}


@pytest.fixture(params=WAYS)
def listed(request, monkeypatch):
    """A function that lists an array's values off zero, compiled in one of the ways."""
    table, instruction = WAYS[request.param]
    if table and not lists.HAS_TABLE:
        pytest.skip("the table of permutations is AVX2's, which is not what is compiled for here")
    monkeypatch.setattr(lists, "HAS_TABLE", table)
    monkeypatch.setattr(lists, "HAS_COMPRESS", instruction)

    @njit
    def run(X, n, values, places):
        return lists.compress(X, np.intp(0), n, np.intp(100), values, np.intp(0), places, np.intp(0))

    def function(x):
        padded = aligned_zeros(len(x) + 16, x.dtype.name)
        padded[: len(x)] = x
        values, places = np.full(len(x) + 16, np.nan, x.dtype), np.full(len(x) + 16, -7, np.int32)
        n = run(padded, len(x), values, places)
        return values[:n], places[:n]

    return function


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_places(listed, dtype):
    rng = np.random.default_rng(0)
    cases = [(rng.normal(size=96) * (rng.random(96) < share)).astype(dtype) for share in (0, 0.03, 0.2, 0.7, 1)]
    every = np.array([[number >> bit & 1 for bit in range(8)] for number in range(256)])
    cases.append((every * rng.normal(size=every.shape)).astype(dtype).ravel())  # each pattern of eight
    cases.append(np.array([0, np.nan, -0.0, np.inf, -np.inf, 1, 0, 0] * 2, dtype))
    for x in cases:
        values, places = listed(x)
        np.testing.assert_array_equal(values, x[x != 0])
        np.testing.assert_array_equal(places, 100 + np.flatnonzero(x))
