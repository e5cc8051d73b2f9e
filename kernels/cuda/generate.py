"""Kernels written as text: how the text is put together, and how it becomes a function that Numba's cache finds again.

Numba keeps compiled code on disk for a function that stands in a file, by the file's name and age. So the text of a
kernel is written into a module in the cache folder. The module's name has in it a digest of the text and of all that
the text calls, so that whatever is changed gets a file of its own; a file is put in place whole or not at all.
"""

import hashlib
import importlib.util
import linecache
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import numba
import numba_cuda

from fastmlp.kernels.cpu import cache as cpu_cache
from fastmlp.kernels.cuda.elementwise import SIMULATED

_modules: dict[str, ModuleType] = {}
_lock = threading.Lock()


class Text:
    """Lines of Python, indented by ``with`` blocks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0

    def __call__(self, *lines: str) -> None:
        """Add lines at the depth reached."""
        self.lines += ["    " * self._depth + line if line else "" for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Add a line that ends in a colon, and what is added inside one step further in."""
        self(head)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"


@cache
def callees_digest() -> str:
    """A digest of what kernels written as text call, and of who compiles them."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {numba.__version__} {numba_cuda.__version__}".encode())
    for name in ("elementwise.py", "ptx.py", "tile_ops.py", "vectors.py", "sums.py"):
        path = Path(__file__).parent / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


@cache
def folder() -> Path | None:
    """Where the modules and their compiled code are kept; None where nothing can be written."""
    root = cpu_cache.folder()
    if root is None:
        return None
    path = root / "cuda"
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK) else None


def module(name: str, text: str) -> ModuleType:
    """The module with this text: the same object for the same text.

    Parameters
    ----------
    name : str
        What the kernel is, in a word or two that can stand in a file's name.
    text : str
        Python source.
    """
    digest = hashlib.sha256((callees_digest() + text).encode()).hexdigest()[:20]
    full = f"fastmlp_cuda_{name}_{digest}"
    with _lock:
        if full not in _modules:
            _modules[full] = _load(full, text)
        return _modules[full]


def _load(name: str, text: str) -> ModuleType:
    place = None if SIMULATED else folder()
    if place is None:
        return _load_from_memory(name, text)
    path = place / f"{name}.py"
    try:
        if not path.exists() or path.read_bytes() != text.encode():
            _replace(path, text)
    except OSError:  # such as a full disk
        return _load_from_memory(name, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _replace(path: Path, text: str) -> None:
    """Put a file in place whole."""
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
