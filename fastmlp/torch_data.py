"""The data sets as the PyTorch lab reads them."""

import gzip
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import data, extras

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

__all__ = ["SHIFT", "lab_pixels", "torchvision_mnist"]

#: The lab subtracts ½ from pixels of 0 to 1: Normalize((0.5,), (1.0,)).
SHIFT = -0.5


def torchvision_mnist(path: str | os.PathLike[str] | None = None, *, download: bool = True) -> "tuple[MNIST, MNIST]":
    """MNIST as the lab has it: torchvision's own class, with ToTensor and Normalize((0.5,), (1.0,)).

    Parameters
    ----------
    path : str or path, optional
        Where the four files are; by default they are sought, and downloaded, as by `fastmlp.data.mnist`.
    download : bool, default True
        Whether to download what is found nowhere.

    Returns
    -------
    train, test : torchvision.datasets.MNIST
        All images are in memory. A sample is a float32 tensor [1, 28, 28] from -0.5 to 0.5, and its label.

    Raises
    ------
    fastmlp.data.DataNotFound, fastmlp.data.DataDamaged
        As `fastmlp.data.mnist`.
    fastmlp.extras.ExtraMissing
        If torchvision is not installed.
    """
    datasets = extras.load("torchvision.datasets", "torch")
    transform = lab_transform()
    files = data.mnist_files(path, download=download)
    # torchvision wants raw files in MNIST/raw below its root, and has read them whole once its class is made.
    with tempfile.TemporaryDirectory(prefix="fastmlp-") as root:
        lay_out(files, Path(root, "MNIST", "raw"))
        train, test = (datasets.MNIST(root, train=part, transform=transform) for part in (True, False))
    return train, test


def lab_transform() -> Any:
    """The lab's transform of an image: to a tensor of 0 to 1, less ½."""
    transforms = extras.load("torchvision.transforms", "torch")
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((-SHIFT,), (1.0,))])


def lay_out(files: dict[str, Path], folder: Path) -> None:
    """Put files into a folder, raw and under their plain names: unpacked, or as links."""
    folder.mkdir(parents=True)
    for name, path in files.items():
        data.read_idx(path)  # which refuses what is not whole, before a copy of it fills the disk
        with open(path, "rb") as file:
            packed = file.read(len(data.GZIP_MAGIC)) == data.GZIP_MAGIC
        if packed:
            with gzip.open(path) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target, data.CHUNK)
        else:
            link_or_copy(path.absolute(), folder / name)


def link_or_copy(source: Path, target: Path) -> None:
    """A symbolic link, or a copy where the system allows none."""
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def lab_pixels(images: np.ndarray, levels: int = 255) -> np.ndarray:
    """Images uint8 [n, pixels] as the lab's models see them: float32, pixel / levels - ½.

    Parameters
    ----------
    images : ndarray of uint8
    levels : int, default 255
        The largest value that a pixel can have (`fastmlp.data.Dataset`).

    Returns
    -------
    ndarray of float32
        Shaped like images; the values that ToTensor and Normalize give.
    """
    pixels = images.astype(np.float32)
    pixels /= levels
    pixels += SHIFT
    return pixels
