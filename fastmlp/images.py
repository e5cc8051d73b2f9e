"""Images from files, as a trained network takes them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.data import read_idx

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_images"]

#: Suffixes by which a file is taken for a picture.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".webp"})


def read_images(paths: Sequence[Path], n_in: int, levels: int = 255) -> tuple[list[str], np.ndarray]:
    """The images in some files, and a name for each.

    Parameters
    ----------
    paths : sequence of Path
        IDX files, raw or gzipped; .npy files [n, n_in], [n, rows, columns], [rows, columns] or [n_in]; picture files,
        turned to grey; folders of pictures. IDX and .npy files are taken as they are, with the values of the data that
        the network was trained on.
    n_in : int
        Pixels that an image must have. Pictures must be square if n_in is a square number.
    levels : int, default 255
        The value of white in the data that the network was trained on; the grey of pictures is rescaled to it.

    Returns
    -------
    names : list of str
        A picture's path, or a file's path and the image's number in it, such as ``digits.npy[3]``.
    images : ndarray, [n, n_in]
        uint8 if all are, otherwise float64.

    Raises
    ------
    OSError
        If a file is not there or can't be read.
    ValueError
        If one holds something else; it is named.
    """
    names: list[str] = []
    parts: list[np.ndarray] = []
    for path in paths:
        for file in pictures_in(path) if path.is_dir() else [path]:
            images = read_file(file, n_in, levels)
            single = file.suffix.lower() in PICTURES
            names += [str(file)] if single else [f"{file}[{i}]" for i in range(len(images))]
            parts.append(images)
    if all(part.dtype == np.uint8 for part in parts):
        return names, np.concatenate(parts)
    return names, np.concatenate([part.astype(np.float64) for part in parts])


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, by name, or else ValueError."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return found


def read_file(path: Path, n_in: int, levels: int) -> np.ndarray:
    """The images [n, n_in] in one file, or else an exception that names it."""
    if path.suffix.lower() in PICTURES:
        return read_picture(path, n_in, levels)
    if path.suffix.lower() == ".npy":
        return as_rows(path, read_npy(path), n_in)
    images = read_idx(path)
    if images.ndim != 3:
        raise ValueError(f"{path} holds {images.dtype} {list(images.shape)}; expected images [n, rows, columns]")
    return as_rows(path, images, n_in)


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file, or else ValueError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {array.dtype}; expected real numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{path} holds nan or infinity; expected finite numbers")
    return array


def as_rows(path: Path, array: np.ndarray, n_in: int) -> np.ndarray:
    """Images as rows [n, n_in], or else ValueError."""
    if array.ndim == 2 and array.shape[1] == n_in:
        rows = array
    elif array.ndim in (1, 2) and array.size == n_in:
        rows = array.reshape(1, n_in)
    elif array.ndim == 3 and math.prod(array.shape[1:]) == n_in:
        rows = array.reshape(len(array), n_in)
    else:
        raise ValueError(f"{path} holds {list(array.shape)}; the network takes images of {size_of(n_in)}")
    if not len(rows):
        raise ValueError(f"{path} holds no image")
    return np.ascontiguousarray(rows)


def read_picture(path: Path, n_in: int, levels: int) -> np.ndarray:
    """A picture's grey as one row [1, n_in] from 0 to ``levels``, or else an exception that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            grey = grey_of(path, image)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture") from None
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be read as a picture ({error})") from None
    side = math.isqrt(n_in)
    if grey.size != n_in or (side * side == n_in and grey.shape != (side, side)):
        rows, columns = grey.shape
        raise ValueError(f"{path} has {columns} × {rows} pixels; the network takes images of {size_of(n_in)}")
    row = grey.reshape(1, n_in)
    return row if levels == 255 else row * (levels / 255)


def grey_of(path: Path, image: "Image") -> np.ndarray:
    """Grey values uint8 [rows, columns], or else ValueError."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path} has more than 8 bits a pixel; save it with 8")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise ValueError(f"{path} is transparent in places; put it on a black ground first")
        image = rgba
    return np.asarray(image.convert("L"))


def size_of(n_in: int) -> str:
    """The size of an image in words."""
    side = math.isqrt(n_in)
    return f"{side} × {side} pixels" if side * side == n_in else f"{n_in} pixels"
