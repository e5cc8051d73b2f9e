"""What nobody should hand over, what looks odd but is right, and damage to files: drawn for tests/test_fuzz.py."""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import sparse


class Rude:
    """Raises wherever it is touched."""

    def __array__(self, *arguments, **options):
        raise RuntimeError("no")

    __len__ = __iter__ = __float__ = __index__ = __getitem__ = __array__


class Converts:
    """Becomes an array when it is asked to, as frames and series do."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


class Whole:
    """Counts as a whole number where Python wants an index, but is none."""

    def __index__(self) -> int:
        return 2


#: For any argument.
VALUES: list[Any] = [
    *(None, True, False, np.True_, 0, 1, 2, 3, -1, 255, 2**31, 2**32 - 1, 2**32, 2**63, -(2**63), 10**30, -(10**400)),
    *(10**400, 0.0, -0.0, 0.5, 1.0, 2.0, -0.5, 5e-324, 1e-30, 1e300, -1e300, math.nan, math.inf, -math.inf, 1 + 0j),
    *(np.int8(2), np.uint64(2), np.uint64(2**64 - 1), np.float32(0.5), np.float16(0.25), np.longdouble(0.5)),
    *(
        np.float64(math.nan),
        np.complex64(1),
        np.datetime64("2020"),
        np.timedelta64(1, "s"),
        np.str_("sgd"),
        np.void(b"1"),
    ),
    *(Fraction(1, 2), Decimal("0.5"), Decimal("nan"), Fraction(10**400, 3), Whole(), Rude(), object(), ...),
    *(
        "",
        "2",
        "relu",
        "sgd",
        "tanh",
        "cpu",
        "auto",
        "cuda:99",
        "cuda:x",
        "float32",
        "\ud800",
        "名",
        "x" * 5000,
        "a\0b",
    ),
    *(b"relu", bytearray(b"2"), [], [2], (2,), [3, 4, 2], ["relu"], [[1, 2], [3]], [None], {}, {1: 2}, {2}, range(3)),
    *(int, float, np.float32, np.dtype("f4"), np.dtype("V3"), slice(3), NotImplemented, memoryview(b"2"), {"relu": 1}),
    *(
        np.array(2),
        np.array([2]),
        np.array([]),
        np.ones((2, 2, 2)),
        np.array("relu"),
        np.array([3, 4, 2]),
        np.array(None),
    ),
]


# ---- arrays ----


def strided(rng, a):
    view = np.zeros([2 * size + 1 for size in a.shape], a.dtype)[(slice(1, None, 2),) * a.ndim]
    view[...] = a
    return view


def misaligned(rng, a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(rng, a):
    a = a.copy()
    a.setflags(write=False)
    return a


def narrow(rng, a):
    """In any dtype that holds the values; whole numbers stay whole."""
    codes = "?bBhHiIlLqQ" + ("efdg" if a.dtype.kind == "f" else "")
    with np.errstate(all="ignore"):
        fit = [code for code in codes if (a.astype(code).astype(a.dtype) == a).all()]
    return a.astype(fit[rng.integers(len(fit))])


class Subclass(np.ndarray):
    """As np.matrix and units' arrays are."""


#: The same numbers in another form; every one must be taken as they are.
DISGUISES: list[Callable[[np.random.Generator, np.ndarray], Any]] = [
    lambda rng, a: a.copy(),
    lambda rng, a: np.asfortranarray(a),
    lambda rng, a: np.flip(np.flip(a).copy()),
    lambda rng, a: np.ascontiguousarray(a.T).T,
    lambda rng, a: a.astype(a.dtype.newbyteorder()),
    lambda rng, a: a.tolist(),
    lambda rng, a: tuple(map(tuple, a)) if a.ndim > 1 else tuple(a),
    lambda rng, a: list(a),
    lambda rng, a: np.ma.MaskedArray(a),
    lambda rng, a: a.view(Subclass),
    lambda rng, a: Converts(a),
    lambda rng, a: memoryview(np.ascontiguousarray(a)),
    lambda rng, a: narrow(rng, strided(rng, a)),
    *(strided, misaligned, read_only, narrow, narrow, narrow),
]


def with_entry(value, dtype=object):
    """One entry replaced."""

    def change(rng, a):
        a = a.astype(dtype)
        a[tuple(rng.integers(size) for size in a.shape)] = value
        return a if rng.random() < 0.5 else a.tolist()

    return change


def masked(rng, a):
    mask = np.zeros(a.shape, bool)
    mask[tuple(rng.integers(size) for size in a.shape)] = True
    return np.ma.MaskedArray(a, mask)


def endless(rng, a):
    rows: list = []
    rows.append(rows)
    return rows


#: No table of numbers; every one must be refused.
NO_NUMBERS: list[Callable[[np.random.Generator, np.ndarray], Any]] = [
    *(
        with_entry(value)
        for value in (None, "1", b"x", 1j, [1, 2], {}, Rude(), 10**400, object(), np.datetime64("2020"))
    ),
    *(lambda rng, a, code=code: a.astype(code) for code in ("U", "S", "D")),
    lambda rng, a: a.astype("i8").astype("M8[s]"),
    lambda rng, a: a.astype("i8").astype("m8[s]"),
    lambda rng, a: a.astype([("value", "f8")]),
    lambda rng, a: [*a.tolist()[:-1], [1, 2, 3, 4, 5, 6, 7, 8, 9]],
    lambda rng, a: sparse.csr_array(np.atleast_2d(a)),
    lambda rng, a: VALUES[rng.integers(len(VALUES))],
    lambda rng, a: (value for value in a),
    lambda rng, a: Converts([1, 2]),
    lambda rng, a: Converts(None),
    *(masked, endless),
]

#: Numbers, but not that many; every one must be refused.
WRONG_SHAPES: list[Callable[[np.random.Generator, np.ndarray], Any]] = [
    lambda rng, a: a[None],
    lambda rng, a: a[..., None, None],
    lambda rng, a: a[:0],
    lambda rng, a: a[:, :0] if a.ndim > 1 else a[:0],
    lambda rng, a: np.hstack([a, a]) if a.ndim > 1 else np.concatenate([a, a]),
    lambda rng, a: a.flat[0],
    lambda rng, a: np.broadcast_to(a.flat[0], (3, *a.shape)),
]

#: Numbers that are not finite, or that float32 has not; every one must be refused where they are looked for.
NOT_FINITE = [with_entry(value, float) for value in (math.nan, math.inf, -math.inf)]


# ---- files ----


def flipped(rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def poked(rng, content: bytes) -> bytes:
    """A few bytes near the beginning, where headers are, made anything."""
    at = int(rng.integers(min(64, len(content))))
    extreme = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", rng.bytes(3), b"\0\0\1\0"]
    new = extreme[rng.integers(len(extreme))]
    return content[:at] + new + content[at + len(new) :]


def spliced(rng, content: bytes) -> bytes:
    one, other = sorted(rng.integers(len(content), size=2))
    return [content[:one] + content[other:], content[:other] + content[one:]][rng.integers(2)]


#: Ways in which a file comes to harm.
DAMAGES: list[Callable[[np.random.Generator, bytes], bytes]] = [
    *(flipped, flipped, poked, poked, spliced),
    lambda rng, content: content,
    lambda rng, content: content[: rng.integers(len(content))],
    lambda rng, content: content + rng.bytes(rng.integers(1, 100)),
    lambda rng, content: content + content,
    lambda rng, content: b"",
    lambda rng, content: rng.bytes(rng.integers(1, 500)),
    lambda rng, content: b"\0" * int(rng.integers(1, 5000)),
    lambda rng, content: b"a,b\n1,2\n",
]

#: In the place of anything in JSON, as text.
JSON_VALUES = [
    *("null", "true", "false", "0", "1", "-1", "2", "100", "20000", "4294967296", "1e400", "-1e400", "1e308", "0.5"),
    *(
        "1" + "0" * 400,
        "9" * 5000,
        "NaN",
        "Infinity",
        '""',
        '"relu"',
        '"zeros"',
        '"float64"',
        '"\\ud800"',
        '"' + "x" * 5000 + '"',
    ),
    *("[]", "{}", "[[]]", "[1,2]", "[3,3,3]", '["relu"]', '{"a":1}', "[" * 100_000, "[" * 500 + "]" * 500, "nul", '"'),
]


def changed_json(rng, value: Any) -> str:
    """JSON text with one place of it made something else: replaced, left out, doubled or renamed."""
    spots: list[tuple] = []

    def walk(node, path):
        spots.append(path)
        if isinstance(node, dict | list):
            for key in node if isinstance(node, dict) else range(len(node)):
                walk(node[key], (*path, key))

    walk(value, ())
    spot = spots[rng.integers(len(spots))]
    new = JSON_VALUES[rng.integers(len(JSON_VALUES))]
    how = rng.integers(6)

    def write(node, path):
        if path == spot and how < 4:
            return new
        if isinstance(node, dict):
            items = []
            for key, child in node.items():
                here = (*path, key) == spot
                if here and how == 4:
                    continue
                name = f"{key}é" if here and how == 5 else key
                items.append(f"{json.dumps(name)}:{write(child, (*path, key))}")
            return "{" + ",".join(items) + "}"
        if isinstance(node, list):
            kept = [(i, child) for i, child in enumerate(node) if (*path, i) != spot or how < 4]
            return "[" + ",".join(write(child, (*path, i)) for i, child in kept) + "]"
        return json.dumps(node)

    return write(value, ())
