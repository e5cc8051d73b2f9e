"""Pieces of one compiled function: closed to all other callers, and without a count of references."""

import re

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError

from fastmlp.kernels.cpu import compiling

#: A function with a loop for each of many lines, so that LLVM does not put it where it is called. Of the seven words
#: of an array it reads where it begins and, for an index from its end, how long it is. A name that now is one array and
#: now another is what Numba counts references for.
SOURCE = (
    "def piece(a, b, n):\n"
    + "".join(f"    for k in range(n):\n        a[k + {line}] = b[k] * {line}.5 + a[n - k]\n" for line in range(40))
    + "    c = a\n    for k in range(n):\n        c[k] += 1\n        c = b if a[k] > 2 else a\n"
)
ARRAY = types.Array(types.float64, 1, "C")


def compile_both(module: str):
    """That function as a piece of another, of which both stand in ``module``: the other, and its LLVM text."""
    names: dict = {"__name__": module}
    exec(SOURCE, names)
    piece = compiling.compiled(names["piece"])

    @njit(error_model="numpy")
    def whole(a, b, n):
        piece(a, b, n)
        piece(b, a, n)

    whole.compile((ARRAY, ARRAY, types.intp))
    return whole, whole.inspect_llvm(whole.signatures[0])


def definition(text: str, name: str) -> str:
    """The line by which a text of LLVM begins the definition of a function."""
    (line,) = re.findall(rf"^define .*{name}.*$", text, re.MULTILINE)
    return line


def test_pieces_are_called_from_inside_alone():
    _, text = compile_both("fastmlp.kernels.cpu.somewhere")
    line = definition(text, "somewhere5piece")
    assert "internal" in line, line
    handed = set(re.findall(r"%arg\.[\w.]+", line))
    assert "%arg.n" in handed, line
    unread = {f"%arg.{array}.{word}" for array in "ab" for word in ("0", "1", "2", "3", "6.0")}
    assert not handed & unread, f"words of arrays that nobody reads are still handed over: {line}"


def test_functions_of_others_stay_as_they_are():
    _, text = compile_both("somebody.elses.module")
    assert "internal" not in definition(text, "6module5piece")


def test_a_piece_counts_no_references():
    whole, text = compile_both("fastmlp.kernels.cpu.somewhere")
    start = text.index(definition(text, "somewhere5piece"))
    assert "NRT_" not in text[start : text.index("\n}", start)]
    a, b = np.arange(100.0), np.ones(100)
    expected_a, expected_b = a.copy(), b.copy()
    for first, second in ((expected_a, expected_b), (expected_b, expected_a)):
        names: dict = {}
        exec(SOURCE, names)
        names["piece"](first, second, 20)
    whole(a, b, 20)
    np.testing.assert_array_equal(a, expected_a)
    np.testing.assert_array_equal(b, expected_b)


def test_a_piece_that_makes_an_array_is_refused():
    with pytest.raises(TypingError, match="zeros"):
        compiling.compiled(lambda n: np.zeros(n)).compile((types.intp,))
