"""A kernel for exact sizes: its file's own text with other constants at the head, found again by Numba's cache on disk.

Numba takes a module's integers and names for constants, so that loops over them unroll and arrays of such sizes stay in
registers; and it keeps on disk what it has compiled of a function that stands in a file, by the file's name and age.
So a kernel's file is loaded once for each set of constants, as a module of its own: a copy in the cache folder, whose
name has in it a digest of the text and of all that the text calls. A copy is put in place whole or not at all.
"""

import hashlib
import importlib.util
import linecache
import os
import re
import sys
import tempfile
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from fastmlp.kernels.cpu import cache as cpu_cache
from fastmlp.kernels.cuda.toolkit import SIMULATED

HERE = Path(__file__).parent

#: What the text of a kernel calls; a change there makes every copy anew.
CALLED = (
    "toolkit.py",
    "instructions.py",
    "functions.py",
    "rows.py",
    "products.py",
    "records.py",
    "shapes.py",
    "../activations.py",
    "../arithmetic.py",
    "../losses.py",
    "../updates.py",
)

_loaded: dict[str, ModuleType] = {}
_lock = threading.RLock()  # re-entrant: a signal's handler may train, too


@cache
def called_digest() -> str:
    """A digest of what kernels call, and of who compiles them."""
    who = sys.implementation.cache_tag, version("numba"), version("numba-cuda")
    digest = hashlib.sha256(repr(who).encode())
    for name in CALLED:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


@cache
def folder() -> Path | None:
    """Where the copies and their compiled code are kept; None where nothing can be written."""
    root = cpu_cache.folder()
    if root is None:
        return None
    path = root / "cuda"
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK) else None


@cache
def source(name: str) -> str:
    """The text of a kernel's file."""
    return (HERE / f"{name}.py").read_text(encoding="utf-8")


def with_constants(text: str, constants: dict[str, Any]) -> str:
    """A text with other values for the constants at its head, a line ``NAME = value`` each.

    Raises
    ------
    ValueError
        If the head has no such line, or more than one.
    """
    for name, value in constants.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
        if found != 1:
            raise ValueError(f"{name} is given a value {found} times in the kernel's text; expected once")
    return text


def specialised(name: str, **constants: Any) -> ModuleType:
    """The kernel ``name`` of this folder with these constants: the same module for the same ones.

    Parameters
    ----------
    name : str
        Of the file, without ".py".
    **constants
        Values that Python can read again from their ``repr``.
    """
    text = with_constants(source(name), constants)
    digest = hashlib.sha256((called_digest() + text).encode()).hexdigest()[:20]
    full = f"fastmlp_cuda_{name}_{digest}"
    with _lock:
        if full not in _loaded:
            _loaded[full] = _load(full, text)
        return _loaded[full]


def _load(name: str, text: str) -> ModuleType:
    place = None if SIMULATED else folder()
    if place is None:
        return _load_from_memory(name, text)
    path = place / f"{name}.py"
    try:
        if not path.exists() or path.read_bytes() != text.encode():
            _put_in_place(path, text)
    except OSError:  # such as a full disk
        return _load_from_memory(name, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _put_in_place(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _load_from_memory(name: str, text: str) -> ModuleType:
    """A module that stands in no file; error messages find its lines all the same."""
    loaded = ModuleType(name)
    loaded.__file__ = f"<{name}>"
    linecache.cache[loaded.__file__] = (len(text), None, text.splitlines(True), loaded.__file__)
    exec(compile(text, loaded.__file__, "exec"), loaded.__dict__)
    return loaded


def is_cacheable(loaded: ModuleType) -> bool:
    """Whether Numba can keep what it compiles from a module."""
    return not str(loaded.__file__).startswith("<")
