"""Images from files, as a trained network takes them."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from fastmlp.checks import is_finite
from fastmlp.data import idx_kind, read_idx

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_images"]

#: Those of them that Pillow is asked for, by its names.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
NPY_MAGIC = b"\x93NUMPY"
LONGEST_NPY_HEADER = 10_000  #: bytes; NumPy takes no longer one from a file that nobody vouches for

#: Suffixes by which a file is taken for a picture.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".webp"})


class Refused(ValueError):
    """A file is not what is expected; the message names it."""


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
    """The pictures in a folder, by name, or else ValueError; what macOS adds beside each (``._7.png``) is none."""
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith("._") and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))})")
    return found


def read_file(path: Path, n_in: int, levels: int) -> np.ndarray:
    """The images [n, n_in] in one file, or else an exception that names it."""
    if path.suffix.lower() in PICTURES:
        return read_picture(path, n_in, levels)
    if path.suffix.lower() == ".npy":
        return read_npy(path, n_in)
    if path.suffix.lower() == ".npz":
        raise ValueError(f"{path} is an archive of arrays; expected one array, in a .npy file")
    dtype, shape = idx_kind(path)
    if len(shape) != 3:
        raise ValueError(f"{path} holds {dtype} {list(shape)}; expected images [n, rows, columns]")
    check_shape(path, shape, n_in)
    return read_idx(path).reshape(-1, n_in)


def read_npy(path: Path, n_in: int) -> np.ndarray:
    """The images [n, n_in] in a .npy file, or else ValueError."""
    with path.open("rb") as file:
        shape = npy_kind(str(path), file, os.fstat(file.fileno()).st_size)[1]
        check_shape(path, shape, n_in)
        array = np.lib.format.read_array(file, allow_pickle=False)
    if not is_finite(array):
        raise ValueError(f"{path} holds nan or infinity; expected finite numbers")
    return np.ascontiguousarray(array).reshape(-1, n_in)


def npy_kind(name: str, file: IO[bytes], size: int) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of the array in a .npy file of so many bytes, as its header has them; the file is then rewound.

    Raises
    ------
    Refused
        If the file, which may be a part of an archive, holds anything but an array of real numbers.
    """
    head = file.read(12)
    check_beginning(name, head, NPY_MAGIC, ".npy")
    version = tuple(head[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):  # a third one is for names of fields
        raise Refused(f"{name} is no .npy file of numbers: its format has version {'.'.join(map(str, version))}")
    # NumPy reads the whole header before it refuses one that is too long.
    length = int.from_bytes(head[8 : 10 if version == (1, 0) else 12], "little")
    if length > LONGEST_NPY_HEADER:
        raise Refused(f"{name} is no .npy file of numbers: it announces a header of {length} bytes")
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        is_first = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if min(shape, default=0) < 0:
            raise ValueError(f"its header announces the shape {list(shape)}")
    except Exception as error:  # NumPy's parser of headers raises nearly everything
        raise Refused(f"{name} is no .npy file of numbers ({one_line(error, 200)})") from None
    if dtype.kind not in "biuf":
        raise Refused(f"{name} holds {dtype}; expected real numbers")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise Refused(f"{name} is {size} bytes long; expected {expected} for {list(shape)}")
    file.seek(0)
    return dtype, shape


def check_beginning(name: str, head: bytes, magic: bytes, suffix: str) -> None:
    """Refuse a file that does not begin as those of its suffix do."""
    if not head.startswith(magic):
        raise Refused(f"{name} is no {suffix} file: it begins with the bytes {head[:6].hex(' ') or '(none)'}")


def check_shape(path: Path, shape: Sequence[int], n_in: int) -> None:
    """Refuse an array that does not hold images of so many pixels."""
    images = (len(shape) == 2 and shape[1] == n_in) or (len(shape) == 3 and math.prod(shape[1:]) == n_in)
    if not images and not (len(shape) in (1, 2) and math.prod(shape) == n_in):
        raise ValueError(f"{path} holds {list(shape)}; the network takes images of {size_of(n_in)}")
    if not shape[0]:
        raise ValueError(f"{path} holds no image")


def read_picture(path: Path, n_in: int, levels: int) -> np.ndarray:
    """A picture's grey as one row [1, n_in] from 0 to ``levels``, or else an exception that names the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it is about to raise or what does no harm
        try:
            # Of other formats' decoders, one would start a program.
            with Image.open(file, formats=FORMATS) as image:
                columns, rows = image.size
                check_size(path, rows, columns, n_in)  # before it is unpacked
                image.load()
                grey = grey_of(path, ImageOps.exif_transpose(image))
                check_size(path, grey.shape[0], grey.shape[1], n_in)
        except Refused:
            raise
        except UnidentifiedImageError:
            raise ValueError(f"{path} is not a picture of a known format") from None
        except Exception as error:  # its decoders raise nearly everything
            raise ValueError(f"{path} can't be read as a picture ({one_line(error, 200)})") from None
    row = grey.reshape(1, n_in)
    return row if levels == 255 else row * (levels / 255)


def check_size(path: Path, rows: int, columns: int, n_in: int) -> None:
    """Refuse a picture of another size than the network's."""
    side = math.isqrt(n_in)
    if rows * columns != n_in or (side * side == n_in and rows != side):
        raise Refused(f"{path} has {columns} × {rows} pixels; the network takes images of {size_of(n_in)}")


def grey_of(path: Path, image: "Image") -> np.ndarray:
    """Grey values uint8 [rows, columns], or else ValueError."""
    if image.mode.startswith(("I", "F")):
        raise Refused(f"{path} has more than 8 bits a pixel; save it with 8")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise Refused(f"{path} is transparent in places; put it on a black ground first")
        image = rgba
    return np.asarray(image.convert("L"))


def inverted(images: np.ndarray, levels: float) -> np.ndarray:
    """The images dark on light, as ``levels`` - images: uint8 if they are and it can hold that, else float64."""
    if images.dtype == np.uint8 and levels in range(int(images.max()), 256):
        return np.uint8(levels) - images
    return np.subtract(levels, images, dtype=np.float64)


def size_of(n_in: int) -> str:
    """The size of an image in words."""
    side = math.isqrt(n_in)
    return f"{side} × {side} pixels" if side * side == n_in else f"{n_in} pixels"


def one_line(message: object, most: int | None = None) -> str:
    """A message, such as an exception, without line breaks, and at most so many characters of it."""
    text = " ".join(str(message).split()) or type(message).__name__
    return text if most is None or len(text) <= most else f"{text[: most - 4]} ..."
