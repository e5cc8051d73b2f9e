"""Checks of what users give, and its conversion into what the kernels take.

Every function returns what it checked, converted only where needed, or raises an exception that names the argument,
what was given and what was expected. Wrong data is a ValueError; a number of the wrong type is a TypeError.
"""

import math
import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastmlp.kernels import Network
from fastmlp.kernels.contract import INPUT_DTYPES
from fastmlp.kernels.losses import CROSS_ENTROPY

#: The dtypes that the kernels read as they are.
INPUTS = frozenset(np.dtype(name) for name in INPUT_DTYPES)

#: How far the sum of a row of probabilities may be off 1: float16 rows still pass.
ROW_SUM_TOLERANCE = 1e-3


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, ``least`` or more.

    Raises
    ------
    TypeError
        If it is not a whole number.
    ValueError
        If it is smaller.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected a whole number, {least} or more")
    if value < least:
        raise ValueError(f"{name}={value}; expected {least} or more")
    return int(value)


def number(name: str, value: object) -> float:
    """A finite real number as a float, or else an exception that names the argument.

    Raises
    ------
    TypeError
        If ``value`` is not a real number.
    ValueError
        If it is nan or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected a number")
    if not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is not finite")
    return float(value)


def threads(value: object) -> int | None:
    """None, or the number of threads."""
    return None if value is None else whole("threads", value)


def seed(value: object) -> int | None:
    """None, or a seed that every generator of NumPy takes: 0 to 2³² - 1."""
    if value is None:
        return None
    number = whole("seed", value, 0)
    if number >= 2**32:
        raise ValueError(f"seed={number}; expected 0 to {2**32 - 1}")
    return number


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r}; expected True or False")
    return bool(value)


def numeric(name: str, values: ArrayLike) -> np.ndarray:
    """An array of real numbers, or else ValueError."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected real numbers")
    return array


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither nan nor infinity.

    A sum takes one pass and no memory, and any nan or infinity shows in it; only an overflow calls for a second look.
    """
    if array.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """The array itself, free of nan and infinity, or else ValueError."""
    if not is_finite(array):
        place = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{name} holds {array[place]} at {list(place)}; expected finite numbers")
    return array


def is_ready(X: object, n_in: int) -> bool:
    """Whether the kernels can read X as it is: the short way round `inputs` for a call on one sample."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.shape[1] == n_in
        and X.shape[0] > 0
        and X.dtype in INPUTS
        and X.flags.c_contiguous
    )


def inputs(X: ArrayLike, network: Network, name: str = "X") -> np.ndarray:
    """Samples as the kernels read them: C-contiguous uint8, float32 or float64 [n, n_in].

    Such arrays pass without a copy. Other dtypes are converted to the network's, lists to arrays. Not looked at: nan
    and infinity (see `finite`).

    Raises
    ------
    ValueError
        If X is not a table of numbers with n_in columns and at least one row.
    """
    array = numeric(name, X)
    n_in = network.sizes[0]
    if array.ndim != 2 or array.shape[1] != n_in:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected [n, {n_in}]{shape_hint(name, array, n_in)}")
    if not len(array):
        raise ValueError(f"{name} is empty: {list(array.shape)}; expected at least one sample")
    return np.ascontiguousarray(array, array.dtype if array.dtype in INPUTS else network.dtype)


def shape_hint(name: str, array: np.ndarray, n_in: int) -> str:
    """How to give an array of the wrong shape the right one, where that is plain."""
    if array.ndim == 1 and n_in == 1:
        return f"; for one number a sample: {name}[:, None]"
    if array.ndim == 1 and len(array) == n_in:
        return f"; for a single sample: {name}[None]"
    if array.ndim > 2 and len(array) and array[0].size == n_in:
        return f"; for images: {name}.reshape(len({name}), -1)"
    return ""


def targets(y: ArrayLike, network: Network, n: int, name: str = "y", samples: str = "X") -> np.ndarray:
    """Targets as the kernels read them: int32 labels [n], or C-contiguous rows [n, n_out] in the network's dtype.

    ===================== ============================================================================================
    loss                  what y may be
    ===================== ============================================================================================
    cross_entropy         class labels [n] of an integer dtype, 0 to n_out - 1; one-hot or probability rows [n, n_out]
    binary_cross_entropy  one output: values within [0, 1], [n] or [n, 1]; more: labels [n], rows within [0, 1]
    mean_squared_error    one output: any finite numbers, [n] or [n, 1]; more: labels [n] (for one-hot), finite rows
    ===================== ============================================================================================

    Raises
    ------
    ValueError
        If y is none of them, or not one entry for each of the n samples.
    """
    array = numeric(name, y)
    n_out = network.sizes[-1]
    if array.ndim == 0 or len(array) != n:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, {samples} has {n} samples; expected one entry a sample"
        )
    if array.ndim == 1 and n_out > 1:
        return labels(array, n_out, name)
    finite(name, array)
    if array.ndim == 1:
        array = array[:, None]
    if array.shape != (n, n_out):
        expected = f"labels [{n}] or rows [{n}, {n_out}]" if n_out > 1 else f"[{n}] or [{n}, 1]"
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {expected}")
    if network.loss == CROSS_ENTROPY:
        return distributions(array, network.dtype, name)
    if network.loss == "binary_cross_entropy" and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"{name} holds {array.min()} to {array.max()}; expected 0 to 1 for binary_cross_entropy")
    return np.ascontiguousarray(array, network.dtype)


def labels(array: np.ndarray, classes: int, name: str) -> np.ndarray:
    """Class labels as int32, or else ValueError."""
    if array.dtype.kind not in "biu":
        raise ValueError(
            f"{name} holds {array.dtype} labels; expected an integer dtype, 0 to {classes - 1}, or rows [n, {classes}]"
        )
    if array.min() < 0 or array.max() >= classes:
        raise ValueError(f"{name} holds labels {array.min()} to {array.max()}; expected 0 to {classes - 1}")
    return np.ascontiguousarray(array, np.int32)


def distributions(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Rows of probabilities in that dtype, or int32 labels where every row is one-hot; or else ValueError."""
    if array.min() < 0:
        raise ValueError(f"{name} holds {array.min()}; expected probabilities, 0 or more")
    sums = array.sum(1, dtype=np.float64)
    worst = int(abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(f"{name}[{worst}] sums to {sums[worst]:.6g}; expected rows of probabilities, which sum to 1")
    if np.count_nonzero(array) == len(array) and (array.max(1) == 1).all():
        return array.argmax(1).astype(np.int32)
    return np.ascontiguousarray(array, dtype)


def matrices(name: str, given: Sequence[ArrayLike], expected: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One finite matrix for each of the expected ones and of its shape, or else ValueError."""
    if len(given) != len(expected):
        raise ValueError(f"{name} has {len(given)} entries; expected {len(expected)}, one a layer")
    return [matrix(f"{name}[{layer}]", *pair) for layer, pair in enumerate(zip(given, expected, strict=True))]


def matrix(name: str, given: ArrayLike, expected: np.ndarray) -> np.ndarray:
    """A finite array of the expected one's shape, or else ValueError."""
    array = numeric(name, given)
    if array.shape != expected.shape:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {list(expected.shape)}")
    return finite(name, array)
