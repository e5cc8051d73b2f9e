"""The data sets of the lab: MNIST, scikit-learn's digits, two Gaussians.

Images stay uint8 and are laid out [n, pixels], as the kernels take them; labels are int64 [n].
"""

import math
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fastmlp import checks
from fastmlp.kernels.folders import user_cache

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "DataDamaged",
    "DataNotFound",
    "DataOfAnotherKind",
    "Dataset",
    "cache_folder",
    "digits",
    "generate_data",
    "mnist",
    "mnist_files",
    "read_idx",
    "two_gaussians",
]

#: The four files of MNIST, and the MD5 of each as it was published, that is gzipped.
FILES = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
#: Where they are published, in the order in which they are tried.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
WANTED = f"a folder with {', '.join(FILES)}, raw or gzipped (.gz)"
#: Where in a folder the files may lie: in it, or where torchvision puts them below its ``root``.
SUBFOLDERS = (".", "raw", "MNIST/raw")

CONNECT_SECONDS = 3.0  #: for a connection to a mirror
ANSWER_SECONDS = 4.0  #: for the mirrors' first answer, looking up their names included
STALL_SECONDS = 10.0  #: between two pieces of a file

#: Type code of an IDX file -> its values, which are big-endian.
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
GZIP_RATIO = 1032  # deflate shrinks nothing further than this
BLOCK = 1 << 17  # bytes read at once
LARGE = 1 << 26  #: bytes of values; a gzipped file with more is unpacked once to see whether it is whole, and then read
CHUNK = 1 << 18  # bytes unpacked at once: they are copied while they are still in the cache of the core


class DataNotFound(FileNotFoundError):
    """A data set was neither found nor fetched; the message says where it was sought and what to do."""


class DataDamaged(ValueError):
    """A file is not what it should be; the message names it and says what is wrong."""

    def __init__(self, path: str | os.PathLike[str], trouble: str, verdict: str = "is damaged") -> None:
        downloaded = Path(path).absolute().parent == cache_folder()
        super().__init__(f"{path} {verdict}: {trouble}{'; delete it to download it anew' if downloaded else ''}")


class DataOfAnotherKind(DataDamaged):
    """A file is not of the kind that was expected, which need not be damage; an ``except DataDamaged`` takes both."""

    def __init__(self, path: str | os.PathLike[str], expected: str, trouble: str) -> None:
        super().__init__(path, trouble, f"is not {expected}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, for training and for testing.

    Parameters
    ----------
    name : str
        "mnist" or "digits".
    train_images, test_images : ndarray of uint8 [n, pixels]
        Square images, row by row; 0 is background.
    train_labels, test_labels : ndarray of int64 [n]
        From 0 to ``n_classes - 1``.
    source : str
        Where it was found, for people to read.
    levels : int, default 255
        The largest value that a pixel can have: 255 for MNIST, 16 for digits.
    """

    name: str
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    source: str
    levels: int = 255

    @property
    def n_in(self) -> int:
        """Pixels of an image."""
        return self.train_images.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image: (28, 28) for MNIST, (8, 8) for digits."""
        side = math.isqrt(self.n_in)
        return side, side


def cache_folder() -> Path:
    """The folder of the user's cache that MNIST is downloaded to; it need not exist yet."""
    return user_cache() / "mnist"


def mnist(path: str | os.PathLike[str] | None = None, *, download: bool = True, progress: bool = True) -> Dataset:
    """The MNIST handwritten digits: 60,000 images to train on, 10,000 to test with, 28 × 28 pixels.

    The four files, raw IDX or gzipped, are sought in ``$FASTMLP_DATA``, ``./MNIST/raw``, ``./data/MNIST/raw`` and the
    user's cache, in this order; then they are downloaded to the user's cache, their checksums verified. What is called
    a folder here may also be what torchvision calls ``root``, with the files in ``MNIST/raw`` below it.

    Parameters
    ----------
    path : str or path, optional
        The folder that holds the files. If given, no other place is looked at and nothing is downloaded.
    download : bool, default True
        Whether to download what is found nowhere.
    progress : bool, default True
        Whether to show the download's progress; it is shown on a terminal only.

    Returns
    -------
    Dataset
        With ``levels`` 255.

    Raises
    ------
    TypeError
        If path is not a path.
    DataNotFound
        If path lacks the files; or if they are nowhere and can't be downloaded.
    DataDamaged
        If a file is not a whole IDX file.
    DataOfAnotherKind
        If one is no IDX file, or not one of MNIST's; a DataDamaged.

    Warns
    -----
    UserWarning
        If ``$FASTMLP_DATA`` is set to a folder that lacks the files.
    """
    return _load(*_locate(path, download, progress))


def mnist_files(
    path: str | os.PathLike[str] | None = None, *, download: bool = True, progress: bool = True
) -> dict[str, Path]:
    """Where the four files of MNIST are, raw or gzipped, sought and downloaded as by `mnist`; none is read.

    Parameters
    ----------
    path, download, progress
        As for `mnist`.

    Returns
    -------
    dict
        From each name, such as "train-images-idx3-ubyte", to its path.

    Raises
    ------
    TypeError, DataNotFound
        As `mnist`.
    """
    return _locate(path, download, progress)[0]


def _locate(path: str | os.PathLike[str] | None, download: bool, progress: bool) -> tuple[dict[str, Path], str]:
    """The four files, and where they were found in words."""
    if path is not None:
        return _locate_in(path)
    looked = []
    for folder, label in _places():
        files = _find(folder)
        if len(files) == len(FILES):
            return files, f"{folder} ({label})"
        looked.append(f"{folder} ({label}): {_trouble(folder, files)}")
        if label == "$FASTMLP_DATA":
            warnings.warn(f"FASTMLP_DATA={str(folder)!r}: {_trouble(folder, files)}; looking elsewhere", stacklevel=3)
    cache = cache_folder()
    failures = _download(cache, progress) if download else ["download=False"]
    files = _find(cache)
    if len(files) == len(FILES):
        return files, f"{cache} (just downloaded)"
    raise DataNotFound(_not_found_message(looked, failures))


def _locate_in(path: str | os.PathLike[str]) -> tuple[dict[str, Path], str]:
    """The four files in this folder and no other."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path={path!r}; expected the path of a folder")
    folder = Path(path).expanduser()
    files = _find(folder)
    if len(files) < len(FILES):
        raise DataNotFound(f"path={str(path)!r}: {_trouble(folder, files)}; expected {WANTED}")
    return files, str(folder)


def _places() -> Iterator[tuple[Path, str]]:
    """The folders to look at, in order, each with a word on what it is."""
    if named := os.environ.get("FASTMLP_DATA"):
        yield Path(named).expanduser(), "$FASTMLP_DATA"
    yield Path("MNIST/raw").absolute(), "torchvision's folder"
    yield Path("data/MNIST/raw").absolute(), "torchvision's folder"
    yield cache_folder(), "your cache"


def _find(folder: Path) -> dict[str, Path]:
    """Those of the four files that are there, by name; all from one place."""
    return max((_find_in(folder / sub) for sub in SUBFOLDERS), key=len)


def _find_in(folder: Path) -> dict[str, Path]:
    """Those of the four files that lie right here; raw ones first, because they load faster."""
    found = {}
    for name in FILES:
        # Some copies are named with a dot: train-images.idx3-ubyte.
        stems = (name, name.replace("-idx", ".idx"))
        paths = [folder / (stem + suffix) for suffix in ("", ".gz") for stem in stems]
        # os.path.isfile is False, where Path.is_file raises, for a folder that may not be entered.
        present = [path for path in paths if os.path.isfile(path)]
        if present:
            found[name] = present[0]
    return found


def _trouble(folder: Path, files: dict[str, Path]) -> str:
    """What is wrong with a folder that has no more than these files."""
    if not os.path.isdir(folder):
        return "not a folder" if os.path.exists(folder) else "no such folder"
    if not files:
        return "holds none of MNIST's files"
    return f"lacks {', '.join(name for name in FILES if name not in files)}"


def _not_found_message(looked: Sequence[str], failures: Sequence[str]) -> str:
    """Where MNIST was sought, why it was not downloaded, and what to do."""
    unset = [] if os.environ.get("FASTMLP_DATA") else ["$FASTMLP_DATA: not set"]
    lines = ["MNIST was not found:", *(f"  {line}" for line in [*unset, *looked])]
    lines += ["and not downloaded:", *(f"  {line}" for line in failures)]
    return "\n".join([*lines, "Try again with a network. Or:", f"Set FASTMLP_DATA to {WANTED}."])


def _load(files: dict[str, Path], source: str) -> Dataset:
    """The four files, read and checked against each other."""
    train_images, train_labels = _load_pair(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"])
    test_images, test_labels = _load_pair(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"])
    return Dataset("mnist", train_images, train_labels, test_images, test_labels, source)


def _load_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 784] and labels [n] of two files that belong together."""
    expected = "an MNIST file"
    (images_dtype, shape), (labels_dtype, labels_shape) = idx_kind(images_path), idx_kind(labels_path)
    if images_dtype != np.uint8 or len(shape) != 3 or shape[1:] != (28, 28) or not shape[0]:
        trouble = f"it holds {images_dtype} {list(shape)}; expected uint8 [n, 28, 28]"
        raise DataOfAnotherKind(images_path, expected, trouble)
    if labels_dtype != np.uint8 or len(labels_shape) != 1:
        trouble = f"it holds {labels_dtype} {list(labels_shape)}; expected uint8 [n]"
        raise DataOfAnotherKind(labels_path, expected, trouble)
    if shape[0] != labels_shape[0]:
        trouble = f"it holds {labels_shape[0]} labels for the {shape[0]} images of {images_path}"
        raise DataOfAnotherKind(labels_path, "the one that belongs to the images", trouble)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if labels.max() > 9:
        raise DataOfAnotherKind(labels_path, expected, f"it holds the label {labels.max()}; expected 0 to 9")
    return images.reshape(len(images), -1), labels.astype(np.int64)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, raw or gzipped (told by its first bytes, not by its name).

    The format is described with MNIST itself: two zero bytes, a type code, the number of dimensions, each dimension as
    a big-endian 32-bit number, then the values, big-endian, last dimension fastest.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    ndarray
        Writable, C-contiguous, of the file's shape and type (uint8, int8, int16, int32, float32 or float64).

    Raises
    ------
    OSError
        If the file can't be read.
    DataOfAnotherKind
        If it does not begin as an IDX file does.
    DataDamaged
        If it is shorter or longer than its header says, or if gzip's own check fails.
    """
    path = Path(path)
    with path.open("rb") as file:
        dtype, shape, start = _idx_layout(path, file)
        size = math.prod(shape) * dtype.itemsize
        if size > LARGE and _is_gzipped(file):
            for _ in _idx_values(path, file, start, size):
                pass
        values = np.empty(size, np.uint8)
        end = 0
        for chunk in _idx_values(path, file, start, size):
            begin, end = end, end + len(chunk)
            values[begin:end] = np.frombuffer(chunk, np.uint8)
    try:
        return values.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # no values, and dimensions whose product is beyond all bounds
        raise DataDamaged(path, f"its header announces the dimensions {list(shape)} ({error})") from None


def idx_kind(path: str | os.PathLike[str]) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of the array in an IDX file, as its header has them; raises what `read_idx` does."""
    path = Path(path)
    with path.open("rb") as file:
        dtype, shape, _ = _idx_layout(path, file)
    return dtype.newbyteorder("="), shape


def _idx_layout(path: Path, file: BinaryIO) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and length of the header, if the file's length goes with them: they may ask for any memory."""
    dtype, shape, start = _idx_header(path, next(_chunks(path, file), b""))
    size = math.prod(shape) * dtype.itemsize
    there = os.fstat(file.fileno()).st_size
    gzipped = _is_gzipped(file)
    if size > there * (GZIP_RATIO if gzipped else 1):
        raise DataDamaged(path, f"it is too short for the {size} bytes of values that its header announces")
    if not gzipped:
        _check_size(path, there - start, size)
    return dtype, shape, start


def _is_gzipped(file: BinaryIO) -> bool:
    """Whether a file begins as gzip's do."""
    file.seek(0)
    return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _chunks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The content of a file from its beginning, unpacked."""
    gzipped = _is_gzipped(file)
    file.seek(0)
    return _gunzip(path, file) if gzipped else iter(partial(file.read, CHUNK), b"")


def _idx_values(path: Path, file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    """The values of an IDX file, which begin at ``start``, in chunks; or else DataDamaged."""
    chunks = _chunks(path, file)
    end = 0
    for chunk in chain([next(chunks, b"")[start:]], chunks):
        end += len(chunk)
        if end > size:
            _check_size(path, end, size)
        yield chunk
    _check_size(path, end, size)


def _check_size(path: Path, there: int, announced: int) -> None:
    """Refuse a file with more or fewer bytes of values than its header announces."""
    if there > announced:
        raise DataDamaged(path, f"it goes on after the {announced} bytes of values that its header announces")
    if there < announced:
        raise DataDamaged(path, f"it ends after {there} of the {announced} bytes of values that its header announces")


def _idx_header(path: Path, head: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and length of the header that a file begins with."""
    magic = head[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_DTYPES or not 1 <= magic[3] <= 32:
        trouble = f"it begins with the bytes {magic.hex(' ') or '(none)'}, as no such file does"
        raise DataOfAnotherKind(path, "an IDX file, raw or gzipped", trouble)
    start = 4 + 4 * magic[3]
    if len(head) < start:
        raise DataDamaged(path, f"it ends within its header of {start} bytes")
    return np.dtype(IDX_DTYPES[magic[2]]), tuple(np.frombuffer(head[4:start], ">u4").tolist()), start


def _gunzip(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """What a gzipped file holds, in chunks. A quarter faster than the gzip module, which reads 8 KiB at a time."""
    import zlib

    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    whole = False
    while block := file.read(BLOCK):
        while block:
            try:
                yield decoder.decompress(block, CHUNK)
            except zlib.error as error:  # its checksum is among the things zlib verifies
                raise DataDamaged(path, f"it can't be unpacked ({error})") from None
            whole = decoder.eof
            block = decoder.unconsumed_tail
            if whole:  # a gzip file may be several, one after another
                block, decoder = decoder.unused_data, zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    if not whole:
        raise DataDamaged(path, "its gzip data end early")


def _download(cache: Path, progress: bool) -> list[str]:
    """Fetch what the cache lacks, each file whole or not at all.

    Returns
    -------
    list of str
        A line for each mirror that failed, whether or not a later one did better.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"the folder {cache} can't be made ({error.strerror})"]
    try:
        import pooch
    except ImportError as error:
        return [f"{_brief(error)}; pip install pooch"]
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # the bar tells what pooch would log
    failures = []
    try:
        for mirror, trouble in _ask(MIRRORS):
            trouble = trouble or _fetch(mirror, cache, progress)
            if not trouble:
                break
            failures.append(f"{mirror}: {trouble}")
    finally:
        logger.setLevel(level)
    return failures


def _ask(mirrors: Sequence[str]) -> list[tuple[str, str]]:
    """Each mirror with an empty string if it answers, or else with what is wrong.

    All are asked at once, in threads that are left to themselves when time is up: no timeout of a request covers the
    lookup of a name, nor all the addresses of a host.
    """
    import pooch

    answers = dict.fromkeys(mirrors, f"no answer within {ANSWER_SECONDS:g} s")

    def ask(mirror: str) -> None:
        try:
            smallest = f"{mirror}t10k-labels-idx1-ubyte.gz"
            pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, ANSWER_SECONDS))(smallest, BytesIO(), None)
            answers[mirror] = ""
        except (OSError, ValueError) as error:
            answers[mirror] = _brief(error)

    deadline = time.monotonic() + ANSWER_SECONDS
    threads = [Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(answers.items())


def _fetch(mirror: str, cache: Path, progress: bool) -> str:
    """Fetch what the cache lacks from one mirror; what went wrong, or an empty string."""
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    missing = [name for name in FILES if name not in _find_in(cache)]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = not (progress and sys.stderr.isatty())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
            for name in missing:
                downloader = pooch.HTTPDownloader(
                    progressbar=_FileBar(bar, name), chunk_size=1 << 16, timeout=(CONNECT_SECONDS, STALL_SECONDS)
                )
                # pooch writes to a temporary name, verifies, then renames.
                pooch.retrieve(f"{mirror}{name}.gz", f"md5:{FILES[name]}", f"{name}.gz", cache, downloader=downloader)
    except (OSError, ValueError) as error:  # what requests raises is an OSError; a wrong checksum is a ValueError
        return _brief(error)
    return ""


def _brief(error: Exception) -> str:
    """An exception in one line: those that come from the network wrap their cause in a page of others."""
    text = " ".join(str(error).split()).rpartition("(Caused by ")[2]
    text = re.sub(r"""^\w+\(.*?HTTPS?Connection\w*\(.*?\): (.*?)["']\)+$""", r"\1", text)
    return f"{type(error).__name__}: {text if len(text) <= 120 else text[:117] + '...'}"


class _FileBar:
    """One line of a progress display, driven by pooch as it would drive tqdm."""

    def __init__(self, bar: "Progress", name: str) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=None)

    @property
    def total(self) -> float | None:
        return self._bar.tasks[self._task].total

    @total.setter
    def total(self, size: int) -> None:
        self._bar.update(self._task, total=size)

    def update(self, size: int) -> None:
        self._bar.advance(self._task, size)

    def reset(self) -> None:
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        self._bar.refresh()


def digits(test_size: float = 0.2, seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn brings along: 8 × 8 pixels, 17 shades.

    Parameters
    ----------
    test_size : float, default 0.2
        The share of images to test with, between 0 and 1; their number is rounded up.
    seed : int, default 0
        Of the shuffle before the two parts are taken; from 0 to 2³² − 1.

    Returns
    -------
    Dataset
        With ``levels`` 16.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or test_size leaves no image to train on.
    """
    if not 0 < checks.number("test_size", test_size) < 1:
        raise ValueError(f"test_size={test_size!r}; expected a number between 0 and 1")
    _check_seed(seed)
    images, labels, source = _read_digits()
    n_test = math.ceil(test_size * len(images))
    if n_test == len(images):
        raise ValueError(f"test_size={test_size!r} leaves none of {len(images)} images to train on")
    order = np.random.default_rng(seed).permutation(len(images))
    test, train = order[:n_test], order[n_test:]
    return Dataset("digits", images[train], labels[train], images[test], labels[test], source, levels=16)


def _read_digits() -> tuple[np.ndarray, np.ndarray, str]:
    """Images [1797, 64], labels [1797] and where they come from."""
    spec = find_spec("sklearn")  # finds it without importing it, which takes more than a second
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
            return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64), f"scikit-learn's {path.name}"
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.astype(np.uint8), labels.astype(np.int64), "scikit-learn's load_digits"


def two_gaussians(
    n: int = 20, means: Sequence[Sequence[float]] | np.ndarray = ((3, 3), (-1, 1)), seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes in the plane, each class one Gaussian: the lab's ``generate_data``.

    The draws are those that follow ``np.random.seed(seed)``, to the last bit; NumPy's global generator itself is left
    alone. In order: 2 × 2 matrices S₁ and S₀, uniform in [0, 1); n points of class 1, normal with covariance S₁ᵀS₁; n
    of class 0, with S₀ᵀS₀; one permutation of all.

    Parameters
    ----------
    n : int, default 20
        Points of each class.
    means : array-like of float [2, 2], default ((3, 3), (-1, 1))
        The mean of class 1, then that of class 0.
    seed : int, default 1
        From 0 to 2³² − 1.

    Returns
    -------
    X : ndarray of float64 [2n, 3]
        A column of ones, then the coordinates.
    y : ndarray of float64 [2n, 1]
        The classes, 1.0 and 0.0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """
    n = checks.whole("n", n)
    try:
        centres = np.asarray(means, dtype=np.float64)
    except Exception:  # whatever an object's own conversion raises
        centres = np.empty(0)
    if centres.shape != (2, 2) or not np.isfinite(centres).all():
        raise ValueError(f"means={means!r}; expected two points of two finite numbers, [2, 2]")
    _check_seed(seed)
    random = np.random.RandomState(seed)
    spreads = [random.rand(2, 2), random.rand(2, 2)]
    points = [random.multivariate_normal(m, S.T @ S, n) for m, S in zip(centres, spreads, strict=True)]
    X = np.column_stack([np.ones(2 * n), np.concatenate(points)])
    y = np.repeat([1.0, 0.0], n)[:, None]
    order = random.choice(2 * n, size=2 * n, replace=False)
    return X[order], y[order]


generate_data = two_gaussians  #: under the name that it has in the lab


def _check_seed(seed: int) -> None:
    """Refuse what does not seed NumPy's generators."""
    if checks.seed(seed) is None:
        raise TypeError("seed=None; expected a whole number")
