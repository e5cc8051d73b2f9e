"""Compiled code kept on disk, in a folder of its own.

Numba's own cache keeps a function by the age of the file that it stands in, does not notice that a function which it
calls has changed elsewhere, and loads whatever its files hold. Here everything is compiled into one function, and what
it is compiled into is kept by all that decides it, a file for each signature. A file is loaded only if its checksum is
right. Whatever is wrong with the cache, the kernels work: they are compiled, and one warning tells what is wrong where.
"""

import hashlib
import inspect
import os
import pickle
import re
import stat
import sys
import time
import uuid
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
from numba import njit
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from fastmlp.kernels.cpu.target import vector_bits
from fastmlp.kernels.folders import user_cache

#: Numba's settings that change what it compiles, besides the CPU's name and features.
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML")

#: What temporary files are called, and how old one is, in seconds, that nobody can still be writing.
TEMPORARY, ABANDONED = re.compile(r"[0-9a-f]{32}\.tmp"), 3600

#: What this process has warned of: the first thing that is wrong with the cache, and nothing after it.
_warned: list[str] = []


def _warn(message: str) -> None:
    if not _warned:
        _warned.append(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _why(error: BaseException) -> str:
    """An exception in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@cache
def source_digest() -> str:
    """A digest of all that decides what is compiled: the files of kernels/, who compiles, for which CPU and how."""
    compilers = sys.implementation.cache_tag, getattr(sys, "abiflags", ""), numba.__version__, llvmlite.__version__
    target = cpu_target.target_context.codegen().magic_tuple()
    settings = [repr(getattr(config, name, None)) for name in SETTINGS]
    digest = hashlib.sha256(repr((compilers, target, vector_bits(), settings)).encode())
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _root() -> Path:
    """The folder in which ours is; absolute, so that it stays the same one when the process changes its own."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(named) if named else user_cache()).absolute()


@cache
def folder() -> Path | None:
    """Where compiled code is kept: a folder in $NUMBA_CACHE_DIR if that is set, else in the user's cache folder.

    It may be one that can only be read. None, with one warning, where there is none and none can be made: everything
    then works, and compiles anew in each process.
    """
    path: Path | str = os.environ.get("NUMBA_CACHE_DIR") or "the user's cache folder"
    try:
        path = _root() / "kernels"
        path.mkdir(parents=True, exist_ok=True)
        return path
    except (OSError, ValueError) as error:
        _warn(_cannot_be_kept(path, error))
        return None


def _cannot_be_kept(where: Path | str, error: BaseException) -> str:
    return (
        f"compiled kernels cannot be kept in {where} ({_why(error)}); they will be compiled anew in every process. "
        "Set NUMBA_CACHE_DIR to a folder that can be written."
    )


def _checksum(path: Path, content: bytes) -> bytes:
    """Of the content and the name, so that no file is taken for another."""
    return hashlib.sha256(path.name.encode() + content).digest()


def _read(path: Path) -> bytes:
    """What `_write` wrote; OSError where there is no such file, or if it is not as it was written."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not an ordinary file")
    data = path.read_bytes()
    checksum, content = data[:32], data[32:]
    if checksum != _checksum(path, content):
        raise OSError("it is damaged: its checksum is wrong")
    return content


def _write(path: Path, content: bytes) -> None:
    """Put a file in place, whole or not at all, for everybody to read whom the process lets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(_checksum(path, content) + content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_abandoned(place: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            with suppress(OSError):
                if TEMPORARY.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                    os.unlink(entry.path)


class KernelCache(NullCache):
    """What one function has been compiled into: a file for each signature in `folder`.

    Parameters
    ----------
    function : callable
        It has an argument named parameters, an array, whose dtype is in the names of the files.
    """

    def __init__(self, function) -> None:
        self._name = function.__name__
        self._position = list(inspect.signature(function).parameters).index("parameters")
        self._unusable: dict[Path, str] = {}

    def dtype(self, signature) -> str:
        """The dtype of ``parameters`` in a signature."""
        return str(signature[self._position].dtype)

    def _prefix(self, dtype: str) -> str:
        return f"{self._name}-{dtype}-{source_digest()}"

    def _path(self, signature) -> Path | None:
        place = folder()
        digest = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return place and place / f"{self._prefix(self.dtype(signature))}-{digest}.nbc"

    def load_overload(self, sig, target_context):
        """Load what a signature was compiled into, as Numba's dispatcher asks for it; None where it has to compile."""
        target_context.refresh()
        path = self._path(sig)
        if path is None:
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(_read(path)))
        except FileNotFoundError:
            return None
        except Exception as error:  # reading, unpickling and linking fail in many ways; each has one remedy
            self._unusable[path] = _why(error)
            return None

    def save_overload(self, sig, data) -> None:
        """Keep what a signature was compiled into; warn if what was there was of no use, or if it can't be kept."""
        path = self._path(sig)
        if path is None:
            return
        if data.library.has_dynamic_globals:
            _warn(
                f"compiled kernels cannot be kept in {path.parent} (not optimised, as with NUMBA_OPT=0, they hold "
                "addresses of this process); they will be compiled anew in every process."
            )
            return
        unusable = self._unusable.pop(path, None)
        try:
            _write(path, dumps(data._reduce()))
        except Exception as error:  # what was compiled is there and works, whatever is wrong
            _warn(
                _cannot_be_kept(path.parent, error)
                if unusable is None
                else f"the compiled kernels in {path} cannot be used ({unusable}) nor replaced ({_why(error)}); they "
                "will be compiled anew in every process. Remove what is there, or set NUMBA_CACHE_DIR to a folder that "
                "can be written."
            )
            return
        if unusable is not None:
            _warn(
                f"the compiled kernels in {path} could not be used ({unusable}): they were compiled anew and replaced"
            )

    def has(self, dtype: str) -> bool:
        """Whether there is a file for ``parameters`` of that dtype, as it was written."""
        place = folder()
        if place is None:
            return False
        for path in place.glob(f"{self._prefix(dtype)}-*.nbc"):
            try:
                _read(path)
                return True
            except (OSError, MemoryError):
                continue
        return False


def cached(function):
    """Compile a function when it is first called, without the interpreter's lock, and keep the result on disk."""
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def holds(dispatcher, dtype: str) -> bool:
    """Whether a function compiled by `cached` is there for ``parameters`` of this dtype, loaded or on disk."""
    kept = dispatcher._cache
    return any(kept.dtype(signature) == dtype for signature in dispatcher.signatures) or kept.has(dtype)


def describe() -> str:
    """The folder, and whether it can be written, for people to read."""
    place = folder()
    if place is None:
        return "none can be written"
    return str(place) if os.access(place, os.W_OK) else f"{place} (can be read, not written)"
