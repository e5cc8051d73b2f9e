"""Checks of what users give, and its conversion into what the kernels take.

Every function returns what it checked, converted only where needed, or raises an exception that names the argument,
what was given and what was expected. Wrong data is a ValueError; a number of the wrong type is a TypeError.
"""

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastmlp.kernels import Network, Rule
from fastmlp.kernels.activations import SOFTMAX
from fastmlp.kernels.contract import INPUT_DTYPES
from fastmlp.kernels.losses import CROSS_ENTROPY
from fastmlp.kernels.network import check_holds

#: The dtypes that the kernels read as they are.
INPUTS = frozenset(np.dtype(name) for name in INPUT_DTYPES)

#: What Python calls a real number, and what databases give for one.
NUMBER = (numbers.Real, np.bool_, Decimal)

#: No numbers, though Python's classes of numbers count them as such.
NO_NUMBER = (bool, np.bool_, np.timedelta64)

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
    if isinstance(value, NO_NUMBER) or not isinstance(value, numbers.Integral):
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
        If it is nan or infinite, or too large for a float.
    """
    if isinstance(value, NO_NUMBER) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected a number")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{name} is a {type(value).__name__} too large for a float; expected a number") from None
    if not math.isfinite(result):
        raise ValueError(f"{name}={value!r} is not finite")
    return result


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


def rule(given: Rule, dtype: str) -> Rule:
    """An update rule whose hyperparameters a dtype holds, or else ValueError."""
    for name in ("learning_rate", "momentum", "beta1", "beta2", "epsilon"):
        value = getattr(given, name)
        check_holds(name, value, dtype)
        if name.startswith("beta") and np.dtype(dtype).type(value) == 1:
            raise ValueError(f"{name}={value!r} is 1 in {dtype}; expected less, or dtype='float64'")
    return given


def numeric(name: str, values: ArrayLike) -> np.ndarray:
    """An array of real numbers, or else a ValueError that says what is none, where it is and what to do about it."""
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise ValueError(f"{name} is sparse, a {type(values).__name__}; give a dense array: {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        place = np.argwhere(np.ma.getmaskarray(values))[0].tolist()
        raise ValueError(f"{name} is masked at {place}; give every entry a value, such as by {name}.filled(0)")
    parts = [numeric(f"{name}'s column {label!r}", column) for label, column in columns(values)]
    if parts:
        return np.column_stack(parts)
    try:
        array = np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:  # whatever an object's own conversion raises
        raise ValueError(f"{name} is no array of numbers: {ragged(name, values) or error}") from None
    if array.dtype.kind == "O" and array.ndim:
        array = of_objects(array)
    if array.dtype.kind not in "biuf":
        what = not_a_number(values, array)
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected real numbers, but {what}")
    return array


def of_objects(array: np.ndarray) -> np.ndarray:
    """An array of Python objects as numbers, if all are numbers that an array can hold; else the array itself."""
    if not all(is_number(value) for value in array.flat):
        return array
    values = np.array(array.tolist())
    try:
        return values if values.dtype.kind in "biuf" else values.astype(np.float64)  # fractions, and long integers
    except (OverflowError, ValueError):  # too large, or Decimal's signaling nan
        return array


def is_number(value: object) -> bool:
    """Whether a Python object is a real number."""
    return isinstance(value, NUMBER) and not isinstance(value, np.timedelta64)


def ragged(name: str, values: ArrayLike) -> str:
    """Which of some rows differ in length, in words; "" if that is not it."""
    if not isinstance(values, list | tuple):
        return ""
    lengths = [len(row) if isinstance(row, Sequence | np.ndarray) else 1 for row in values]
    odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
    if odd is None:
        return ""
    return f"{name}[0] has {lengths[0]} entries, {name}[{odd}] has {lengths[odd]}; expected rows of one length"


def not_a_number(values: ArrayLike, array: np.ndarray) -> str:
    """In words, what of the given values is no real number, where it is, and what to do about it."""
    if array.ndim == 0:
        return f"it is {article(values)}"
    if array.dtype.kind == "U" and isinstance(values, list | tuple):  # of numbers among text NumPy makes text
        array = np.asarray(values, object)
    return f"it {holds(array)}"


def columns(values: Any) -> Iterator[tuple[Any, Any]]:
    """Labels and columns of a frame of pandas or polars, or what works like one; of other things none."""
    if not hasattr(values, "columns") or not hasattr(values, "dtypes"):
        return
    if hasattr(values, "items"):
        yield from values.items()
    elif hasattr(values, "get_columns"):
        yield from ((column.name, column) for column in values.get_columns())


#: What to do about entries that are no real numbers, by the kind of their dtype.
REMEDIES = {
    "c": "give the real and the imaginary part columns of their own",
    "M": "turn dates into numbers first, such as the days since one of them",
    "m": "turn spans of time into numbers first: divide by numpy.timedelta64(1, 's')",
    "V": "turn fields into columns: numpy.lib.recfunctions.structured_to_unstructured",
}


def holds(array: np.ndarray) -> str:
    """What of an array is no real number: "holds 'Rome' (str) at [3]; …" and what to do."""
    kind = array.dtype.kind
    if kind in REMEDIES:
        return f"holds {array.dtype}; {REMEDIES[kind]}"
    for place, value in np.ndenumerate(array):
        if is_number(value):
            continue
        value = value.item() if isinstance(value, np.generic) else value
        where = f"holds {value!r} ({type(value).__name__}) at {list(place)}"
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            return f"{where}, so no value: fill it in, or leave that sample out"
        if isinstance(value, str | bytes):
            return f"{where}; {about_text(value)}"
        if isinstance(value, Sequence | np.ndarray):
            return f"{where}; expected rows of one length"
        return f"{where}; encode it as numbers first"
    return "holds whole numbers that no float can hold"


def about_text(value: str | bytes) -> str:
    """What to do about text: convert it if it is a number's, encode it if not."""
    try:
        float(value)
    except ValueError:
        return (
            "encode text as numbers first, such as a column of 0 and 1 for each value, or for class labels "
            "numpy.unique(y, return_inverse=True)[1]"
        )
    return "it is text; convert it to numbers first, such as by astype(float)"


def article(value: object) -> str:
    """A thing that is no array, by its type."""
    return "None" if value is None else f"{value!r}" if isinstance(value, str) else f"a {type(value).__name__}"


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


def within(name: str, array: np.ndarray, dtype: str, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """The array itself, if its numbers, and x * scale + shift of each, are finite in that dtype; or else ValueError.

    Most arrays take one look for nan and infinity, as their dtype holds no number too large.
    """
    largest = float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):
        most = min(largest, (largest - abs(shift)) / max(abs(scale), 1e-300))
        kind = array.dtype.kind
        own = 1 if kind == "b" else (np.finfo if kind == "f" else np.iinfo)(array.dtype).max
        if own <= most:
            return finite(name, array)
        if array.size and not (-most <= array.min() and array.max() <= most):  # not so of nan, either
            finite(name, array)
            place = tuple(np.argwhere((array > most) | (array < -most))[0].tolist())
            scaled = "" if (scale, shift) == (1, 0) else f" after input_scale={scale:g} and input_shift={shift:g}"
            raise ValueError(
                f"{name} holds {array[place]} at {list(place)}, beyond the network's {dtype}{scaled}: expected "
                f"numbers within ±{most:.3g}"
            )
    return array


def converted(array: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """The array in that dtype, C-contiguous, whatever NumPy is told to do about overflow and underflow."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(array, dtype)


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


def inputs(X: ArrayLike, network: Network, name: str = "X", look_for_nan: bool = True) -> np.ndarray:
    """Samples as the kernels read them: C-contiguous uint8, float32 or float64 [n, n_in].

    Such arrays pass without a copy. Other dtypes are converted to the network's, lists to arrays.

    Raises
    ------
    ValueError
        If X is not a table of numbers with n_in columns and at least one row; and, unless ``look_for_nan`` is False,
        if it holds nan, infinity, or a number that becomes infinite in the network's dtype.
    """
    array = numeric(name, X)
    n_in = network.sizes[0]
    if array.ndim != 2 or array.shape[1] != n_in:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected [n, {n_in}]{shape_hint(name, array, n_in)}")
    if not len(array):
        raise ValueError(f"{name} is empty: {list(array.shape)}; expected at least one sample")
    if look_for_nan:
        within(name, array, network.dtype, network.input_scale, network.input_shift)
    return converted(array, array.dtype if array.dtype in INPUTS else network.dtype)


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

    Rows that are one-hot throughout become labels where outputs stand for classes (softmax, sigmoid): training is the
    same to the bit, and `fastmlp.kernels.contract.counts_sides` tells classes by it from a yes or no for each output.

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
    within(name, array, network.dtype)
    if array.ndim == 1:
        array = array[:, None]
    if array.shape != (n, n_out):
        expected = f"labels [{n}] or rows [{n}, {n_out}]" if n_out > 1 else f"[{n}] or [{n}, 1]"
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {expected}")
    if network.loss == CROSS_ENTROPY:
        check_distributions(array, name)
    if network.loss == "binary_cross_entropy" and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"{name} holds {array.min()} to {array.max()}; expected 0 to 1 for binary_cross_entropy")
    if n_out > 1 and network.activations[-1] in (SOFTMAX, "sigmoid") and is_one_hot(array):
        return array.argmax(1).astype(np.int32)
    return converted(array, network.dtype)


def samples(given: ArrayLike, n: int) -> np.ndarray:
    """Which of n samples are to be used, as int64 indices [k]; a mask [n] of True and False stands for those of True.

    Raises
    ------
    ValueError
        If it is neither, or if there is none.
    """
    array = numeric("samples", given)
    if array.ndim != 1:
        raise ValueError(f"samples has shape {list(array.shape)}; expected indices [k] or a mask [{n}]")
    if array.dtype.kind == "b":
        if len(array) != n:
            raise ValueError(
                f"samples is a mask of {len(array)} entries, X has {n} samples; expected one entry a sample"
            )
        array = np.flatnonzero(array)
    if not len(array):
        raise ValueError("samples has no sample; expected one at least")
    if array.dtype.kind not in "iu":
        raise ValueError(f"samples holds {array.dtype}; expected an integer dtype, 0 to {n - 1}, or a mask [{n}]")
    if array.min() < 0 or array.max() >= n:
        raise ValueError(f"samples holds {array.min()} to {array.max()}; expected 0 to {n - 1}")
    return np.ascontiguousarray(array, np.int64)


def sample_weight(given: ArrayLike, n: int, used: np.ndarray | None = None) -> np.ndarray:
    """Weights as float64 [n], of which some sample that is used has more than 0.

    Raises
    ------
    ValueError
        If they are not finite numbers, 0 or more, one a sample; or if those of the samples used sum to 0 or infinity.
    """
    array = numeric("sample_weight", given)
    if array.shape != (n,):
        raise ValueError(f"sample_weight has shape {list(array.shape)}, X has {n} samples; expected [{n}]")
    weights = converted(within("sample_weight", array, "float64"), "float64")
    if weights.min() < 0:
        raise ValueError(f"sample_weight holds {weights.min()} at [{weights.argmin()}]; expected 0 or more")
    with np.errstate(over="ignore"):
        total = (weights if used is None else weights[used]).sum()
    if not 0 < total < math.inf:
        among = "" if used is None else " over the samples chosen"
        raise ValueError(f"sample_weight sums to {total:g}{among}; expected more than 0, and a finite number")
    return weights


def labels(array: np.ndarray, classes: int, name: str) -> np.ndarray:
    """Class labels as int32, or else ValueError."""
    if array.dtype.kind not in "biu":
        raise ValueError(
            f"{name} holds {array.dtype} labels; expected an integer dtype, 0 to {classes - 1}, or rows [n, {classes}]"
        )
    if array.min() < 0 or array.max() >= classes:
        raise ValueError(f"{name} holds labels {array.min()} to {array.max()}; expected 0 to {classes - 1}")
    return np.ascontiguousarray(array, np.int32)


def check_distributions(array: np.ndarray, name: str) -> None:
    """Refuse rows that are no probabilities."""
    if array.min() < 0:
        raise ValueError(f"{name} holds {array.min()}; expected probabilities, 0 or more")
    with np.errstate(over="ignore"):
        sums = array.sum(1, dtype=np.float64)
    worst = int(abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(f"{name}[{worst}] sums to {sums[worst]:.6g}; expected rows of probabilities, which sum to 1")


def is_one_hot(array: np.ndarray) -> bool:
    """Whether every row has a single one, and zeros."""
    return np.count_nonzero(array) == len(array) and bool((array.max(1) == 1).all())


def entries(given: Iterable, trouble: str) -> list:
    """A list itself, or the entries of another sequence as one, or else TypeError with those words."""
    if isinstance(given, list):
        return given
    try:
        if isinstance(given, str | bytes | Set | Mapping):
            raise TypeError
        return list(given)
    except Exception:  # whatever an object's own iteration raises
        raise TypeError(trouble) from None


def no_matrices(name: str, given: object) -> str:
    """That what was given for weights is no list, in words."""
    return f"{name} is a {type(given).__name__}; expected a list of matrices, one a layer"


def matrices(name: str, given: Sequence[ArrayLike], expected: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One finite matrix for each of the expected ones and of its shape, or else ValueError."""
    given = entries(given, no_matrices(name, given))
    if len(given) != len(expected):
        shapes = ", ".join(str(list(one.shape)) for one in expected)
        raise ValueError(f"{name} has {len(given)} entries; expected {len(expected)}, one a layer: {shapes}")
    return [matrix(f"{name}[{layer}]", *pair) for layer, pair in enumerate(zip(given, expected, strict=True))]


def matrix(name: str, given: ArrayLike, expected: np.ndarray) -> np.ndarray:
    """An array of the expected one's shape, finite in its dtype, or else ValueError."""
    array = numeric(name, given)
    if array.shape != expected.shape:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {list(expected.shape)}")
    return within(name, array, expected.dtype.name)
