"""``fastmlp evaluate``: a trained network, labelled data, and how well the one knows the other."""

import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.data import read_idx
from fastmlp.images import read_images, size_of
from fastmlp.mlp import Mlp
from fastmlp.training_run import MODEL_FILE, data_name, load_data

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["labelled", "load_model", "report"]

#: Names under which an .npz file may hold samples and labels, in lower case; the first pair that is there counts.
PAIRS = (("x_test", "y_test"), ("test_images", "test_labels"), ("x", "y"), ("images", "labels"))

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


def labelled(data: str, labels: Path | None, mlp: Mlp) -> tuple[str, np.ndarray, np.ndarray]:
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
    name : str
        The samples' name, for people to read.
    X : ndarray, [n, n_in]
    y : ndarray, [n] or [n, n_out]

    Raises
    ------
    OSError
        If a file is not there or can't be read.
    ValueError
        If one holds something else; it is named.
    """
    n_in, path, name = mlp.network.sizes[0], Path(data), data
    levels = mlp.metadata.get("levels", 255)
    if labels is not None:
        X, y = read_images([path], n_in, levels)[1], read_labels(labels)
    elif path.suffix.lower() == ".npz":
        X, y = read_npz(path)
    elif path.is_dir() and (folders := [folder for folder in path.iterdir() if is_class(folder)]):
        X, y = read_classes(folders, n_in, levels)
    elif path.is_file():
        raise ValueError(f"{data} holds no labels; name a file that does: --labels FILE")
    else:
        found = load_data(data, print)
        X, y, name = found.test_images, found.test_labels, f"{data_name(found)}, test images"
    shape = list(X.shape)
    if X.ndim < 2 or not len(X) or X[0].size != n_in:
        raise ValueError(f"{data} holds {shape}; the network takes [n, {n_in}], or images of {size_of(n_in)}")
    X = X.reshape(len(X), n_in)
    if y.ndim == 0 or len(y) != len(X):
        raise ValueError(f"{labels or data} holds labels {list(y.shape)} for samples {shape}")
    return name, X, y


def read_labels(path: Path) -> np.ndarray:
    """The labels in an IDX or .npy file, or else an exception that names it."""
    if path.suffix.lower() != ".npy":
        return read_idx(path)
    with numpy_s(path):
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped, a header can't ask for memory


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Samples and labels in an .npz file, or else an exception that names it."""
    # Opened here: NumPy leaves a file open that it can't read.
    with numpy_s(path), zipfile.ZipFile(path), open(path, "rb") as opened, np.load(opened) as file:
        names = {name.lower(): name for name in file.files}
        pair = next((pair for pair in PAIRS if set(pair) <= set(names)), None)
        if pair is not None:
            return file[names[pair[0]]], file[names[pair[1]]]
    expected = " or ".join(" and ".join(pair) for pair in PAIRS)
    raise ValueError(f"{path} holds {', '.join(names.values()) or 'nothing'}; expected the arrays {expected}")


@contextmanager
def numpy_s(path: Path) -> Iterator[None]:
    """Within it, what NumPy raises for a file becomes a ValueError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path} can't be read ({error})") from None
    except Exception as error:  # NumPy's parser of headers raises nearly everything
        raise ValueError(f"{path} holds no numbers of NumPy's, or is damaged ({error})") from None


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
    table.add_row("data", f"{name}: {len(X):,} samples")
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
