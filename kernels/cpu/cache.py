"""Compiled code kept on disk, in a folder of its own.

Numba's own cache keeps a function by the age of the file that it stands in, and does not notice that a function which
it calls has changed elsewhere. Here everything is compiled into one function, and the cache is kept by the contents
of all files of kernels/.
"""

import hashlib
import inspect
import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numba
import platformdirs
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from fastmlp.kernels.cpu.target import vector_bits


@cache
def source_digest() -> str:
    """A digest of all that decides what is compiled: the files of kernels/, Numba's version, the vector width."""
    digest = hashlib.sha256(f"{numba.__version__} {vector_bits()}".encode())
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def folder() -> Path | None:
    """Where compiled code is kept: a folder in $NUMBA_CACHE_DIR if that is set, else in the user's cache folder.

    None, with one warning, where neither can be written: everything then works, and compiles anew in each process.
    """
    root = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("fastmlp")
    path = Path(root) / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        warnings.warn(
            f"compiled kernels cannot be kept in {path} ({error.strerror}); they will be compiled anew in every "
            "process. Set NUMBA_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return path


class _Locator:
    """Tells Numba's cache where its files are and when they are stale."""

    def __init__(self, py_func) -> None:
        self.path = folder()

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func) if folder() is not None else None

    def ensure_cache_path(self) -> None:
        """The folder exists: `folder` has made it."""

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self.path)

    def get_source_stamp(self) -> str:
        """What is compared with the stamp of the files."""
        return source_digest()

    def get_disambiguator(self) -> str:
        """Part of the files' names: another version's files are left alone."""
        return source_digest()


class _Implementation(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):
    _impl_class = _Implementation


def cached(function):
    """Compile a function when it is first called, without the interpreter's lock, and keep the result on disk."""
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    if folder() is not None:
        dispatcher._cache = _Cache(function)
    return dispatcher


def holds(dispatcher, dtype: str) -> bool:
    """Whether a function compiled by `cached` is there for ``parameters`` of this dtype, loaded or on disk."""
    position = list(inspect.signature(dispatcher.py_func).parameters).index("parameters")

    def has(signature) -> bool:
        return str(signature[position].dtype) == dtype

    if any(has(signature) for signature in dispatcher.signatures):
        return True
    if folder() is None:
        return False
    target = dispatcher.targetdescr.target_context.codegen().magic_tuple()
    return any(has(key[0]) and key[1] == target for key in dispatcher._cache._cache_file._load_index())
