"""Files that are written whole or not at all."""

import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can't be removed by others anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["write_atomically"]

#: What temporary files are called: short, so that every name that the file system takes can be written.
TEMPORARY = re.compile(r"\.fastmlp-[0-9a-f]{16}\.tmp")

#: Folders whose entries are the files that a process has open, such as the one that /dev/stdout leads to.
DESCRIPTORS = re.compile(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd")


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file: to a temporary name in the same folder first, then renamed, in one step.

    Parameters
    ----------
    path : path-like
        A file there is replaced once the new one is complete on disk, and keeps its permissions and owner; other hard
        links to it keep the old content. A symbolic link stays one: the file that it leads to is written. A device, a
        named pipe or an open descriptor (``/dev/stdout``) is written into.
    content : bytes

    Raises
    ------
    TypeError, ValueError
        If path is not a path.
    OSError
        If it can't be written; path is named, and a file there is as it was.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    What a killed process has left of its temporary files is removed by the next call for the same folder. They are
    known by their name and by a lock that each process holds on its own.
    """
    name = os.fsdecode(path)
    if "\0" in name:
        raise ValueError(f"path={name!r} holds a null character; no file system has such names")
    try:
        if (descriptor := open_descriptor(name)) is not None:
            _write_into(os.dup(descriptor), content)
            return
        try:
            there = os.stat(name)
        except FileNotFoundError:
            there = None
        if there is None or stat.S_ISREG(there.st_mode):
            _replace(name, there, content)
        elif stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        else:
            _write_into(os.open(name, os.O_WRONLY), content)
    except OSError as error:
        if error.errno is None:
            raise
        # The system names the temporary file, or, when the disk is full, none.
        raise OSError(error.errno, error.strerror, name) from error


def open_descriptor(name: str) -> int | None:
    """The number of the descriptor of this process that a name leads to, or None."""
    for _ in range(8):  # symbolic links that lead to it
        folder, last = os.path.split(name)
        folder = os.path.realpath(folder)
        if DESCRIPTORS.fullmatch(folder) and last.isdecimal():
            return int(last)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def _write_into(descriptor: int, content: bytes) -> None:
    """Write to what is open, and close it."""
    with open(descriptor, "wb") as file:
        file.write(content)


def _replace(name: str, there: os.stat_result | None, content: bytes) -> None:
    """Give a new file this name, which a file has now or none."""
    target = Path(os.path.realpath(name))
    if not os.path.basename(name):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name} can't be written: there is no folder {target.parent}")
    if there is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    _remove_leftovers(target.parent)
    temporary = None
    try:
        temporary, file = _open_temporary(target.parent)
        with file:
            if there is not None:
                _take_over(there, temporary)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            os.replace(temporary, target)  # while the lock is held
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def _open_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file of a name of our own, locked."""
    while True:
        path = folder / f".fastmlp-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb")  # noqa: SIM115 (closed by the caller)
        if _locked(file) and path.exists():
            return path, file
        file.close()  # another process has just taken it for a leftover


def _locked(file: BinaryIO) -> bool:
    """Lock a file, unless another process holds it; file systems without locks count as locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _take_over(there: os.stat_result, path: Path) -> None:
    """Give a file the owner, where that is allowed, and the permissions of the one that it replaces."""
    new = path.stat()
    if (new.st_uid, new.st_gid) != (there.st_uid, there.st_gid):
        with suppress(OSError):
            os.chown(path, there.st_uid, there.st_gid)
    if new.st_mode != there.st_mode:
        path.chmod(stat.S_IMODE(there.st_mode))


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed: those of this user which nobody has locked."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as file:
                    if os.fstat(file.fileno()).st_uid == os.geteuid():
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)
