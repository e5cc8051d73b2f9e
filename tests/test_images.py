"""fastmlp.images: what is read from files, and that every other file is refused by name and in little memory."""

import gzip
import io
import itertools
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmlp import data
from fastmlp.images import read_images

IMAGE = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)


def png_of(columns, rows, kind=6, content=b""):
    """A PNG file with this header and these packed pixels."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def picture(form, **options):
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, form, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def idx(array, shape=None):
    shape = array.shape if shape is None else shape
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + array.tobytes()


SOUND = {
    "a.png": picture("PNG"),
    "a.jpg": picture("JPEG", quality=95),
    "a.bmp": picture("BMP"),
    "a.gif": picture("GIF"),
    "a.tif": picture("TIFF"),
    "lzw.tif": picture("TIFF", compression="tiff_lzw"),
    "a.pgm": picture("PPM"),
    "a.webp": picture("WEBP", lossless=True),
    "a.npy": npy(IMAGE),
    "rows.npy": npy(IMAGE.reshape(1, 64).astype(">f4")),
    "fortran.npy": npy(np.asfortranarray(IMAGE)),
    "a-idx3-ubyte": idx(IMAGE[None]),
    "a-idx3-ubyte.gz": gzip.compress(idx(IMAGE[None])),
}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path, message="", n_in=64):
    """That a file is refused in one line with its name."""
    with pytest.raises(ValueError, match=message) as caught:
        read_images([path], n_in)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    return str(caught.value)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_is_read(name, tmp_path):
    _, images = read_images([write(tmp_path, name, SOUND[name])], 64)
    np.testing.assert_allclose(images, IMAGE.reshape(1, 64), atol=6 if name.endswith("jpg") else 0)


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_is_read_or_refused_by_name(name, tmp_path):
    """Of what is cut or has flipped bits; a picture without a checksum may well be read with another pixel."""
    rng = np.random.default_rng(0)
    content, path = SOUND[name], tmp_path / name
    damaged = [content[:length] for length in rng.integers(0, len(content), 40)]
    for _ in range(120):
        changed = bytearray(content)
        for bit in rng.integers(0, 8 * min(len(changed), rng.choice([64, 200, 10_000])), rng.integers(1, 6)):
            changed[bit // 8] ^= 1 << int(bit % 8)
        damaged.append(bytes(changed))
    outcomes = set()
    for changed in damaged:
        path.write_bytes(changed)
        try:
            _, images = read_images([path], 64)
        except ValueError as error:
            said = str(error)
        else:
            said = ""
            assert images.shape[1] == 64
            assert np.isfinite(images).all()
        outcomes.add(bool(said))
        assert not said or (str(path) in said and "\n" not in said)
    assert True in outcomes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "not a picture"),
        ("a.png", b"1,2,3\n4,5,6\n", "not a picture"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not a picture"),
        ("a.png", png_of(8, 8, 0, b"no deflate"), "can't be read as a picture"),
        ("a.png", png_of(8, 8, 0, zlib.compress(bytes(20))), "can't be read as a picture"),
        ("a.png", png_of(9000, 9000), "9000 × 9000 pixels; the network takes images of 8 × 8"),
        ("a.png", png_of(60_000, 60_000), "a.png"),
        ("a.png", png_of(4, 16), "4 × 16 pixels"),
        ("a.npy", b"", "begins with"),
        ("a.npy", b"PK\x03\x04", "begins with"),
        ("a.npy", b"1,2,3\n", "begins with"),
        ("a.npy", npy(IMAGE)[:-1], "bytes|mmap"),
        ("a.npy", npy(IMAGE) + b"\0", "bytes long"),
        ("a.npy", npy(np.array([{}], object)), "a.npy"),
        ("a.npy", npy(IMAGE.astype(complex)), "complex128"),
        ("a.npy", npy(np.zeros(64, [("a", "f4")])), "expected real numbers"),
        ("a.npy", npy(IMAGE).replace(b"(8, 8)", b"(-1,8)"), "a.npy"),
        ("a.npy", npy(IMAGE).replace(b"(8, 8)", b"((((((")[:200], "a.npy"),
        ("a.npy", npy(IMAGE).replace(b"|u1", b"|u9"), "a.npy"),
        ("a.npy", b"\x93NUMPY\x02\0\xff\xff\xff\xff{}", "announces a header of 4294967295 bytes"),
        ("a.npz", b"PK\x03\x04", "archive"),
        ("a.npz", b"anything", "archive"),
        ("digits.csv", b"label,pixel\n1,2\n", "is not an IDX file"),
        ("digits.csv.gz", gzip.compress(b"label,pixel\n1,2\n"), "is not an IDX file"),
        ("a.txt", b"", "is not an IDX file"),
        ("labels", idx(np.zeros(5, np.uint8)), "expected images"),
        ("large", idx(np.zeros((2, 32, 32), np.uint8)), "the network takes images of 8 × 8"),
        ("lie", idx(np.zeros(64, np.uint8), (0, 2**32 - 1, 2**32 - 1)), "lie"),
        ("lie", idx(np.zeros(64, np.uint8), (2**32 - 1, 8, 8)), "too short"),
        ("lie", idx(np.zeros(64, np.uint8), (2, 8, 8)), "too short for the 128 bytes"),
    ],
    ids=itertools.count(),
)
def test_what_can_t_be_taken_is_refused_in_one_line(name, content, message, tmp_path):
    said = refused(write(tmp_path, name, content), message)
    assert not re.search("delete|replace", said)
    assert "damaged" not in said or name == "lie"


def test_an_idx_header_whose_dimensions_no_array_has(tmp_path):
    for shape in ((0, *[2**32 - 1] * 3), (0, *[2**32 - 1] * 31)):
        path = write(tmp_path, "lie", idx(np.zeros(0, np.uint8), shape))
        with pytest.raises(data.DataDamaged, match="announces the dimensions") as caught:
            data.read_idx(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_orientation_that_a_camera_notes_is_honoured(orientation, form, tmp_path):
    upright = np.zeros((8, 8), np.uint8)
    upright[:4, :2] = 255
    # What a reader has to do to what is stored, by the Exif standard; here the inverse makes what is stored.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{form.lower()}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, form, exif=exif)
    np.testing.assert_allclose(read_images([path], 64)[1].reshape(8, 8), upright, atol=60 if form == "JPEG" else 0)


def test_what_macos_adds_to_a_folder_is_skipped(tmp_path):
    for name in ("7.png", "8.png"):
        write(tmp_path, name, SOUND["a.png"])
        write(tmp_path, f"._{name}", b"\0\5\x16\7 no picture")
    write(tmp_path, ".DS_Store", b"no picture")
    assert [Path(name).name for name in read_images([tmp_path], 64)[0]] == ["7.png", "8.png"]
    (tmp_path / "only").mkdir()
    write(tmp_path, "only/._7.png", b"no picture")
    with pytest.raises(ValueError, match="holds no pictures"):
        read_images([tmp_path / "only"], 64)


def test_pillow_s_warnings_are_neither_errors_nor_heard(tmp_path, recwarn):
    content = png_of(10_000, 9_000)  # of a size that Pillow warns of
    refused(write(tmp_path, "a.png", content), "10000 × 9000 pixels")
    assert not recwarn.list


# ---- memory


def packed(*parts):
    """A gzip file of these parts: bytes, or how many zeros."""
    file = io.BytesIO()
    with gzip.open(file, "wb", 1) as target:
        for part in parts:
            for begin in range(0, part if isinstance(part, int) else 1, 1 << 20):
                target.write(part if isinstance(part, bytes) else bytes(min(1 << 20, part - begin)))
    return file.getvalue()


def sparse(path):
    path.write_bytes(b"\x93NUMPY\x02\0\xff\xff\xff\xff{}")
    with open(path, "r+b") as file:
        file.truncate(5 << 30)


N = 400_000_000
LARGE = {
    "pixels.png": lambda: png_of(9000, 9000, 6, zlib.compress(bytes(1 << 20))),
    "flat.gz": lambda: packed(idx(np.zeros(0, np.uint8), (N,)), N),
    "wide.gz": lambda: packed(idx(np.zeros(0, np.uint8), (1, 20_000, 20_000)), N),
    "long.gz": lambda: packed(idx(np.zeros(0, np.uint8), (N // 64, 8, 8)), N + 1),
    "short.gz": lambda: packed(idx(np.zeros(0, np.uint8), (N // 64 + 1, 8, 8)), N),
    "wrong.gz": lambda: packed(idx(np.zeros(0, np.uint8), (N // 64, 8, 8)), N)[:-8] + bytes(8),
    "zeros.gz": lambda: packed(N),
    "wide.npy": lambda: npy(np.zeros(0, np.uint8)).replace(b"(0,)", b"(20000, 20000)"),
    "header.npy": sparse,
}


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory taken is read from /proc")
@pytest.mark.parametrize("name", LARGE)
def test_a_file_that_asks_for_memory_is_refused_within_little(name, tmp_path):
    path = tmp_path / name
    if name == "header.npy":
        sparse(path)
    else:
        path.write_bytes(LARGE[name]())
    code = (
        "import re, sys, PIL.Image\nfrom pathlib import Path\nfrom fastmlp.images import read_images\n"
        "def most():\n    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = most()\n"
        "try:\n    read_images([Path(sys.argv[1])], 64)\n"
        "except ValueError as error:\n    print(most() - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    taken, _, message = done.stdout.partition(" ")
    assert str(path) in message
    assert int(taken) < 60_000


def test_a_version_of_the_format_that_is_not_known_is_refused_before_its_header_is_read(tmp_path):
    """Its length would be taken for 660 MB."""
    content = bytearray(SOUND["rows.npy"])
    content[7] = 1
    tracemalloc.start()
    refused(write(tmp_path, "other.npy", bytes(content)), "version 1.1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
