"""``fastmlp evaluate``: a trained network, labelled data, and how well the one knows the other."""

import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastmlp.data import idx_kind, read_idx
from fastmlp.images import Refused, check_beginning, npy_kind, one_line, read_images, size_of
from fastmlp.mlp import Mlp
from fastmlp.training_run import DATA_NAMES, MODEL_FILE, counted, data_name, load_data

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["labelled", "load_model", "report"]

#: Names under which an .npz file may hold samples and labels, in lower case; the first pair that is there counts.
PAIRS = (("x_test", "y_test"), ("test_images", "test_labels"), ("x", "y"), ("images", "labels"))

ZIP_MAGIC = b"PK"

MOST_MISTAKES = 3  #: other labels that a label's row names


def load_model(path: Path, backend: str, threads: int | None) -> Mlp:
    """The network in a file, or in a run's folder.

    Raises
    ------
    OSError, ValueError, RuntimeError
        As `Mlp.load` raises them; or if the folder holds no model.
    """
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            raise FileNotFoundError(
                f"{path} is a folder without a {MODEL_FILE}; expected a model file or a run's folder"
            )
        path = path / MODEL_FILE
    return Mlp.load(path, backend=backend, threads=threads)


# ---- the data ----


class Labelled(NamedTuple):
    """Samples, their labels, and what names them for people."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_from: str
    y_from: str


def labelled(data: str, labels: Path | None, mlp: Mlp) -> Labelled:
    """Samples and their labels, as the command line names them.

    Parameters
    ----------
    data : str
        "mnist", "digits", or a folder with MNIST's files: their test images; an .npz file with the arrays of one of
        `PAIRS`; a folder of folders of pictures, each named by its label. With labels, what `read_images` takes.
    labels : Path, optional
        An IDX or .npy file.
    mlp : Mlp
        What they are for.

    Returns
    -------
    Labelled
        X is [n, n_in], y [n] or [n, n_out].

    Raises
    ------
    OSError
        If a file is not there or can't be read.
    ValueError
        If one holds something else; it is named.
    """
    network, path = mlp.network, Path(data)
    n_in, levels = network.sizes[0], mlp.metadata.get("levels", 255)
    name, y_from = data, str(labels or data)

    def check(samples: tuple[int, ...], shape: tuple[int, ...]) -> None:
        """Refuse shapes of samples and labels that don't suit the network or each other."""
        if len(samples) < 2 or not samples[0] or math.prod(samples[1:]) != n_in:
            raise Refused(f"{data} holds {list(samples)}; the network takes [n, {n_in}], or images of {size_of(n_in)}")
        if shape[:1] != samples[:1] or shape[1:] not in ((), (network.sizes[-1],)):
            raise Refused(f"{y_from} holds labels {list(shape)} for samples {list(samples)}")

    if labels is not None:
        X = read_images([path], n_in, levels)[1]
        y = read_labels(labels, partial(check, X.shape))
    elif path.suffix.lower() == ".npz":
        X, y, y_from = read_npz(path, check)
    elif data not in DATA_NAMES and path.is_dir() and (folders := [f for f in path.iterdir() if is_class(f)]):
        X, y = read_classes(folders, n_in, levels)
    elif data not in DATA_NAMES and path.is_file():
        raise ValueError(f"{data} holds no labels; name a file that does: --labels FILE")
    else:
        found = load_data(data, print)
        X, y, name = found.test_images, found.test_labels, f"{data_name(found)}, test images"
        check(X.shape, y.shape)
    return Labelled(name, X.reshape(len(X), n_in), y, data, y_from)


def read_labels(path: Path, check: Callable[[tuple[int, ...]], None]) -> np.ndarray:
    """The labels in an IDX or .npy file of a shape that passes the check, or else an exception that names it."""
    if path.suffix.lower() != ".npy":
        check(idx_kind(path)[1])
        return read_idx(path)
    with path.open("rb") as file:
        check(npy_kind(str(path), file, os.fstat(file.fileno()).st_size)[1])
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(
    path: Path, check: Callable[[tuple[int, ...], tuple[int, ...]], None]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Samples and labels in an .npz file, of shapes that pass the check, and a name for the labels.

    Nothing is unpacked before: some megabytes may announce gigabytes.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it holds something else; it is named.
    """
    with path.open("rb") as file:
        check_beginning(str(path), file.read(6), ZIP_MAGIC, ".npz")
        try:
            with zipfile.ZipFile(file) as archive:
                members = {member.removesuffix(".npy").lower(): member for member in archive.namelist()}
                pair = next((pair for pair in PAIRS if set(pair) <= set(members)), None)
                if pair is None:
                    held = ", ".join(member.removesuffix(".npy") for member in members.values()) or "nothing"
                    expected = " or ".join(" and ".join(pair) for pair in PAIRS)
                    raise Refused(f"{path} holds {held}; expected the arrays {expected}")
                infos = [archive.getinfo(members[name]) for name in pair]
                shapes, arrays = [], []
                for info in infos:
                    with archive.open(info) as member:
                        shapes.append(npy_kind(f"{path}'s {info.filename}", member, info.file_size)[1])
                check(*shapes)
                for info in infos:
                    with archive.open(info) as member:
                        arrays.append(np.lib.format.read_array(member, allow_pickle=False))
        except (Refused, MemoryError):
            raise
        except Exception as error:  # what unpacks an archive raises nearly everything
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path} can't be read as an .npz file ({one_line(error, 200)})") from None
    return arrays[0], arrays[1], f"{path}'s {infos[1].filename.removesuffix('.npy')}"


def is_class(folder: Path) -> bool:
    """Whether this is a folder that is named by a label."""
    return folder.name.isascii() and folder.name.isdigit() and folder.is_dir()


def read_classes(folders: list[Path], n_in: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures in some folders, and for each the label that its folder is named by."""
    parts = [read_images([folder], n_in, levels)[1] for folder in folders]
    y = np.repeat([int(folder.name) for folder in folders], [len(part) for part in parts])
    return np.concatenate(parts), y


# ---- the result ----


def report(mlp: Mlp, name: str, X: np.ndarray, y: np.ndarray) -> "list[Table]":
    """Evaluate; a table with loss and accuracy, and for labels one with a row each.

    Raises
    ------
    ValueError
        If the labels are none of the network's.
    """
    from rich import box
    from rich.table import Table

    result = mlp.evaluate(X, y)
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("network", f"{list(mlp.network.sizes)}, {', '.join(dict.fromkeys(mlp.network.activations))}")
    table.add_row("data", f"{name}: {counted(len(X), 'sample')}")
    table.add_row("loss", f"{result.loss:.4f} ({mlp.network.loss.replace('_', ' ')})")
    if mlp.classifies:
        table.add_row("accuracy", f"{result.accuracy:.2%}")
    if not mlp.classifies or y.ndim != 1 or y.dtype.kind not in "iu":
        return [table]
    return [table, label_table(y, mlp.classify(X))]


def label_table(y: np.ndarray, given: np.ndarray) -> "Table":
    """For each label its samples, how many of them were recognized, and what the others were taken for."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name in ("label", "samples", "right", "accuracy"):
        table.add_column(name, justify="right")
    table.add_column("most often mistaken for (times)")
    for label in np.unique(y):
        taken = Counter(given[y == label].tolist())
        samples, right = taken.total(), taken.pop(int(label), 0)
        mistakes = ", ".join(f"{other} ({count:,})" for other, count in taken.most_common(MOST_MISTAKES))
        table.add_row(str(label), f"{samples:,}", f"{right:,}", f"{right / samples:.2%}", mistakes)
    return table
