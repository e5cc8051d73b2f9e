"""fastmlp.data: where MNIST is looked for, what is refused, downloads from local mirrors, the other data sets."""

import gzip
import hashlib
import os
import socket
import struct
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import platformdirs
import pytest

from fastmlp import data

REAL = os.environ.get("FASTMLP_DATA", "")
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty working folder, an empty cache, no FASTMLP_DATA, no mirrors and no proxies."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("FASTMLP_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.setattr(data, "MIRRORS", ())
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


@pytest.fixture
def cache(nowhere):
    return nowhere / "cache" / "fastmlp" / "mnist"


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[str(array.dtype)], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def contents(seed: int = 0, n_train: int = 12, n_test: int = 5) -> dict[str, np.ndarray]:
    """Arrays like MNIST's, by file name."""
    random = np.random.default_rng(seed)
    made = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        made[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        made[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, n, dtype=np.uint8)
    return made


def write(folder: Path, arrays: dict[str, np.ndarray], gzipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def check(dataset: data.Dataset, arrays: dict[str, np.ndarray]) -> None:
    """The data set holds these arrays, in the promised shapes and types."""
    assert dataset.name == "mnist"
    assert dataset.levels == 255
    assert dataset.n_in == 784
    assert dataset.image_shape == (28, 28)
    pairs = (("train", dataset.train_images, dataset.train_labels), ("t10k", dataset.test_images, dataset.test_labels))
    for part, images, labels in pairs:
        wanted = arrays[f"{part}-images-idx3-ubyte"]
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert images.flags.writeable
        np.testing.assert_array_equal(images, wanted.reshape(len(wanted), 784))
        np.testing.assert_array_equal(labels, arrays[f"{part}-labels-idx1-ubyte"])


# ---- read_idx


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(7,), (0, 3), (3, 5, 2), (50_000, 8)])
def test_read_idx_returns_what_was_written(tmp_path, dtype, shape, gzipped):
    array = np.random.default_rng(1).integers(0, 4, shape).astype(dtype)
    path = tmp_path / "array"  # no suffix: gzip is told by the content
    path.write_bytes(gzip.compress(idx(array), 1) if gzipped else idx(array))
    read = data.read_idx(str(path))
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, array)


def test_read_idx_takes_a_gzip_file_of_several_members(tmp_path):
    array = np.arange(200, dtype=np.uint8)
    raw = idx(array)
    (tmp_path / "array.gz").write_bytes(gzip.compress(raw[:50]) + gzip.compress(raw[50:]))
    np.testing.assert_array_equal(data.read_idx(tmp_path / "array.gz"), array)


def test_read_idx_takes_the_best_compressed_file(tmp_path):
    zeros = np.zeros((3000, 784), np.uint8)
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(idx(zeros), 9))
    np.testing.assert_array_equal(data.read_idx(tmp_path / "zeros.gz"), zeros)


SMALL = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
GZIPPED = gzip.compress(SMALL, mtime=0)
DAMAGED = {
    "empty": (b"", "begins with"),
    "a web page": (b"<!DOCTYPE html><html></html>", "begins with the bytes 3c 21 44 4f"),
    "first byte": (b"\1" + SMALL[1:], "begins with"),
    "unknown type": (SMALL[:2] + b"\x0a" + SMALL[3:], "begins with"),
    "no dimensions": (SMALL[:3] + b"\0" + SMALL[4:], "begins with"),
    "too many dimensions": (SMALL[:3] + b"\xff" + SMALL[4:], "begins with"),
    "within the header": (SMALL[:9], "header of 16 bytes"),
    "truncated": (SMALL[:-1], "ends after 23 of the 24 bytes"),
    "too long": (SMALL + b"\0", "goes on after the 24 bytes"),
    "huge dimensions": (SMALL[:4] + b"\xff" * 12 + SMALL[16:], "too short"),
    "gzip: checksum": (GZIPPED[:-8] + bytes([GZIPPED[-8] ^ 1]) + GZIPPED[-7:], "unpacked"),
    "gzip: length": (GZIPPED[:-4] + b"\0\0\0\0", "unpacked"),
    "gzip: truncated": (GZIPPED[:-9], "early"),
    "gzip: no checksum": (GZIPPED[:-8], "early"),
    "gzip: magic only": (GZIPPED[:2], "begins with|early"),
    "gzip: rubbish at the end": (GZIPPED + b"rubbish", "unpacked"),
    "gzip: of a truncated file": (gzip.compress(SMALL[:-3]), "ends after 21 of the 24 bytes"),
    "gzip: of a file too long": (gzip.compress(SMALL + b"\0"), "goes on after"),
    "gzip: of huge dimensions": (gzip.compress(SMALL[:4] + b"\xff" * 12 + SMALL[16:]), "too short"),
    "gzip: of nothing": (gzip.compress(b""), "begins with"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_read_idx_names_and_refuses_a_damaged_file(tmp_path, damage):
    content, message = DAMAGED[damage]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(data.DataDamaged, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("whole", [SMALL, GZIPPED], ids=["raw", "gzipped"])
def test_read_idx_refuses_every_truncation(tmp_path, whole):
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(data.DataDamaged):
            data.read_idx(tmp_path / "cut")


def test_no_changed_bit_of_a_gzipped_file_changes_what_is_read(tmp_path):
    wanted = np.arange(24).reshape(2, 3, 4)
    refused = 0
    for i in range(len(GZIPPED)):
        for bit in range(8):
            content = bytearray(GZIPPED)
            content[i] ^= 1 << bit
            (tmp_path / "changed").write_bytes(content)
            try:
                read = data.read_idx(tmp_path / "changed")
            except data.DataDamaged:
                refused += 1
            else:  # a time stamp, say
                np.testing.assert_array_equal(read, wanted)
    assert refused > 4 * len(GZIPPED)


def test_read_idx_of_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        data.read_idx(tmp_path / "absent")


# ---- mnist: where it is looked for


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_mnist_at_a_path(tmp_path, gzipped, below):
    arrays = contents()
    write(tmp_path / "here" / below, arrays, gzipped)
    dataset = data.mnist(tmp_path / "here")
    check(dataset, arrays)
    assert str(tmp_path / "here") in dataset.source
    check(data.mnist(str(tmp_path / "here")), arrays)


def test_mnist_takes_names_with_a_dot_and_raw_before_gzipped(tmp_path):
    arrays = contents()
    write(tmp_path / "here", contents(1), gzipped=True)
    write(tmp_path / "here", {name.replace("-idx", ".idx"): array for name, array in arrays.items()})
    check(data.mnist(tmp_path / "here"), arrays)


def test_mnist_in_the_home_folder(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("USERPROFILE", str(nowhere))
    arrays = contents()
    write(nowhere / "mine", arrays)
    check(data.mnist("~/mine"), arrays)
    monkeypatch.setenv("FASTMLP_DATA", "~/mine")
    check(data.mnist(), arrays)


def places(nowhere: Path) -> list[tuple[Path, str]]:
    """The order of the search, with the word that the source is to hold."""
    return [
        (nowhere / "named", "$FASTMLP_DATA"),
        (nowhere / "work" / "MNIST" / "raw", "torchvision"),
        (nowhere / "work" / "data" / "MNIST" / "raw", "torchvision"),
        (nowhere / "cache" / "fastmlp" / "mnist", "cache"),
    ]


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_search_order(nowhere, monkeypatch, first, gzipped):
    if first == 0:
        monkeypatch.setenv("FASTMLP_DATA", str(nowhere / "named"))
    for i, (folder, _) in enumerate(places(nowhere)):
        if i == first - 1 and i > 0:
            write(folder, dict(list(contents(i).items())[:3]))  # incomplete: to be passed over
        if i >= first:
            write(folder, contents(i), gzipped)
    dataset = data.mnist(download=False)
    check(dataset, contents(first))
    folder, word = places(nowhere)[first]
    assert str(folder) in dataset.source
    assert word in dataset.source


def test_a_path_comes_before_every_other_place(nowhere, monkeypatch):
    monkeypatch.setenv("FASTMLP_DATA", str(nowhere / "named"))
    for i, (folder, _) in enumerate(places(nowhere)):
        write(folder, contents(i))
    write(nowhere / "mine", contents(9))
    check(data.mnist(nowhere / "mine"), contents(9))


def test_a_path_without_the_files_is_an_error_and_nothing_else_is_taken(nowhere, monkeypatch):
    monkeypatch.setattr(data, "_download", None)  # not to be called
    for folder, _ in places(nowhere):
        write(folder, contents())
    monkeypatch.setenv("FASTMLP_DATA", str(nowhere / "named"))
    absent, file, empty, partial = (nowhere / name for name in ("absent", "file", "empty", "partial"))
    file.write_bytes(b"")
    empty.mkdir()
    write(partial, {"train-images-idx3-ubyte": np.zeros((1, 28, 28), np.uint8)})
    cases = [(absent, "no such folder"), (file, "not a folder"), (empty, "none of"), (partial, "lacks train-labels")]
    for path, message in cases:
        with pytest.raises(data.DataNotFound, match=message) as caught:
            data.mnist(path)
        assert str(path) in str(caught.value)
        assert "t10k-labels-idx1-ubyte" in str(caught.value)


@pytest.mark.parametrize("path", [3, b"bytes", ["list"]])
def test_a_path_of_the_wrong_type(path):
    with pytest.raises(TypeError, match="path="):
        data.mnist(path)


def test_a_named_folder_without_the_files_is_said_and_passed_over(nowhere, monkeypatch):
    monkeypatch.setenv("FASTMLP_DATA", str(nowhere / "wrong"))
    write(places(nowhere)[2][0], contents())
    with pytest.warns(UserWarning, match=r"FASTMLP_DATA=.*wrong.*no such folder"):
        dataset = data.mnist(download=False)
    check(dataset, contents())


def test_nowhere_says_where_it_looked_and_what_to_do(nowhere):
    with pytest.raises(data.DataNotFound) as caught:
        data.mnist(download=False)
    assert isinstance(caught.value, FileNotFoundError)
    message = str(caught.value)
    for folder, _ in places(nowhere)[1:]:
        assert str(folder) in message
    assert "$FASTMLP_DATA: not set" in message
    assert "download=False" in message
    assert "Set FASTMLP_DATA to a folder with train-images-idx3-ubyte" in message


# ---- mnist: what is refused


def test_damage_is_found_through_mnist_in_every_file(tmp_path):
    for name in contents():
        folder = write(tmp_path / name, contents(), gzipped=True)
        path = folder / f"{name}.gz"
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(data.DataDamaged, match=name):
            data.mnist(folder)


def test_a_damaged_file_is_refused_even_where_other_places_follow(nowhere):
    write(places(nowhere)[1][0], contents())
    write(places(nowhere)[2][0], contents())
    path = places(nowhere)[1][0] / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(data.DataDamaged, match="ends after 9407 of the 9408") as caught:
        data.mnist(download=False)
    assert str(path) in str(caught.value)


MISFITS: dict[str, tuple[str, np.ndarray, str]] = {
    "fewer labels": ("train-labels-idx1-ubyte", np.zeros(11, np.uint8), "11 labels for the 12 images"),
    "more images": ("t10k-images-idx3-ubyte", np.zeros((6, 28, 28), np.uint8), "5 labels for the 6 images"),
    "no images": ("train-images-idx3-ubyte", np.zeros((0, 28, 28), np.uint8), "expected uint8"),
    "labels as images": ("train-images-idx3-ubyte", np.zeros(12, np.uint8), r"expected uint8 \[n, 28, 28\]"),
    "other size": ("t10k-images-idx3-ubyte", np.zeros((5, 28, 27), np.uint8), "28, 27"),
    "signed images": ("t10k-images-idx3-ubyte", np.zeros((5, 28, 28), np.int8), "int8"),
    "images as labels": ("t10k-labels-idx1-ubyte", np.zeros((5, 28, 28), np.uint8), r"expected uint8 \[n\]"),
    "wide labels": ("train-labels-idx1-ubyte", np.zeros(12, np.int32), "int32"),
    "label ten": ("train-labels-idx1-ubyte", np.full(12, 10, np.uint8), "label 10"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_whole_files_that_are_not_mnist_are_refused(tmp_path, misfit):
    name, array, message = MISFITS[misfit]
    write(tmp_path / "here", contents() | {name: array})
    with pytest.raises(data.DataDamaged, match=message) as caught:
        data.mnist(tmp_path / "here")
    assert str(tmp_path / "here") in str(caught.value)


OTHERS = {
    "text": b"label,pixel0\n7,0\n",
    "text, gzipped": gzip.compress(b"label,pixel0\n7,0\n"),
    "a web page": b"<!DOCTYPE html>",
    "nothing": b"",
    "letters": idx(np.arange(1, 13, dtype=np.uint8)),
    "numbers of 32 bits": idx(np.zeros(12, np.int32)),
    "larger images": idx(np.zeros((12, 32, 32), np.uint8)),
    "more labels": idx(np.zeros(13, np.uint8)),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_file_of_another_kind_is_neither_damaged_nor_to_be_deleted(nowhere, name, other):
    folder = write(nowhere / "mine", contents())
    (folder / name).write_bytes(OTHERS[other])
    with pytest.raises(data.DataOfAnotherKind) as caught:
        data.mnist(folder)
    said = str(caught.value)
    assert str(folder / name) in said
    assert "is not " in said
    assert "\n" not in said
    assert not any(word in said for word in ("damaged", "delete", "replace"))


def test_only_a_file_of_the_download_cache_may_be_deleted(nowhere, cache):
    for folder in (nowhere / "mine", cache):
        write(folder, contents(), gzipped=True)
        path = folder / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(data.DataDamaged, match="is damaged") as caught:
            data.mnist(folder)
        assert ("delete it to download it anew" in str(caught.value)) == (folder == cache)


# ---- mnist: the download


class Mirror(ThreadingHTTPServer):
    """Serves what is in ``files``; a number is an HTTP status; of the files in ``cut`` it sends the half."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes | int], cut: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut = files, cut
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/mnist/"
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.removeprefix("/mnist/")
        self.server.asked.append(name)
        content = self.server.files.get(name, 404)
        if isinstance(content, int):
            self.send_error(content)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name in self.server.cut else content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def published(monkeypatch):
    """Files as a mirror has them, whose checksums are the ones expected."""
    files = {f"{name}.gz": gzip.compress(idx(array)) for name, array in contents().items()}
    sums = {name.removesuffix(".gz"): hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(data, "FILES", sums)
    return files


@pytest.fixture
def serve(monkeypatch):
    """Starts mirrors, and makes them the ones that are tried."""
    mirrors: list[Mirror] = []

    def start(*files: dict[str, bytes | int], cut: tuple[str, ...] = ()) -> list[Mirror]:
        mirrors.extend(Mirror(dict(served), cut if i == 0 else ()) for i, served in enumerate(files))
        monkeypatch.setattr(data, "MIRRORS", tuple(mirror.url for mirror in mirrors))
        return mirrors

    yield start
    for mirror in mirrors:
        mirror.close()


def in_cache(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_download_fills_the_cache_and_is_done_once(cache, published, serve, capfd):
    first, second = serve(published, published)
    dataset = data.mnist()
    check(dataset, contents())
    assert str(cache) in dataset.source
    assert in_cache(cache) == set(published)
    assert set(second.asked) <= {"t10k-labels-idx1-ubyte.gz"}
    asked = len(first.asked)
    check(data.mnist(), contents())
    assert len(first.asked) == asked
    assert capfd.readouterr() == ("", "")  # not a terminal: no bar, and no log


def test_download_only_what_is_missing(cache, published, serve):
    mine = dict(list(contents().items())[:3])
    write(cache, mine)
    (mirror,) = serve(published)
    check(data.mnist(), contents())
    assert set(mirror.asked) == {"t10k-labels-idx1-ubyte.gz"}
    assert in_cache(cache) == {*mine, "t10k-labels-idx1-ubyte.gz"}


FAULTS: dict[str, dict[str, bytes | int]] = {
    "not there": {"train-images-idx3-ubyte.gz": 404},
    "server's fault": {"t10k-labels-idx1-ubyte.gz": 503},
    "wrong checksum": {"train-labels-idx1-ubyte.gz": gzip.compress(idx(np.zeros(12, np.uint8)))},
    "a web page": {"train-images-idx3-ubyte.gz": b"<html>log in first</html>"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_mirror_falls_through_to_the_next(cache, published, serve, fault):
    serve(published | FAULTS[fault], published)
    check(data.mnist(), contents())
    assert in_cache(cache) == set(published)


def test_a_connection_cut_in_a_file_falls_through_to_the_next(cache, published, serve):
    serve(published, published, cut=("train-images-idx3-ubyte.gz",))
    check(data.mnist(), contents())
    assert in_cache(cache) == set(published)


@pytest.mark.parametrize(
    ("fault", "message"), [("not there", "404"), ("wrong checksum", "hash"), ("a web page", "hash")]
)
def test_when_all_mirrors_fail_each_is_named_and_nothing_partial_stays(cache, published, serve, fault, message):
    bad = published | FAULTS[fault]
    mirrors = serve(bad, bad)
    with pytest.raises(data.DataNotFound) as caught:
        data.mnist()
    lines = str(caught.value).splitlines()
    for mirror in mirrors:
        assert any(mirror.url in line and message in line for line in lines)
    for path in cache.iterdir():  # what is left is whole
        assert path.read_bytes() == published[path.name]
    assert not in_cache(cache) & set(FAULTS[fault])


def test_a_cut_connection_leaves_nothing_partial(cache, published, serve):
    serve(published, cut=("train-images-idx3-ubyte.gz",))
    with pytest.raises(data.DataNotFound):
        data.mnist()
    assert in_cache(cache) == set()


def test_an_interrupted_download_leaves_nothing_partial(cache, published, serve, monkeypatch):
    def interrupt(self, size: int) -> None:
        raise KeyboardInterrupt

    serve(published)
    monkeypatch.setattr(data._FileBar, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.mnist()
    assert in_cache(cache) == set()


def test_a_bar_on_a_terminal_unless_unwanted(cache, published, serve, monkeypatch, capsys):
    serve(published)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    data.mnist(progress=False)
    assert capsys.readouterr().err == ""
    for path in cache.iterdir():
        path.unlink()
    data.mnist()
    captured = capsys.readouterr()
    assert "train-images-idx3-ubyte" in captured.err
    assert captured.out == ""


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_without_a_network_both_mirrors_are_given_up_at_once(cache, monkeypatch):
    mirrors = (closed_port(), closed_port())
    monkeypatch.setattr(data, "MIRRORS", mirrors)
    start = time.monotonic()
    with pytest.raises(data.DataNotFound) as caught:
        data.mnist()
    assert time.monotonic() - start < 3
    for mirror in mirrors:
        assert mirror in str(caught.value)
    assert in_cache(cache) == set()


def test_without_pooch_what_is_here_is_read_and_nothing_is_downloaded(cache, monkeypatch):
    """In a checkout it may be missing; so may platformdirs."""
    for name in ("pooch", "platformdirs"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    with pytest.raises(data.DataNotFound, match=r"(?s)not downloaded:.*pip install pooch.*FASTMLP_DATA"):
        data.mnist()
    write(cache, contents())
    assert data.mnist().source == f"{cache} (your cache)"


def test_mirrors_that_never_answer_are_given_up_together(published, serve, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        silent = tuple(f"http://127.0.0.1:{server.getsockname()[1]}/" for server in (first, second))
        monkeypatch.setattr(data, "MIRRORS", silent)
        monkeypatch.setattr(data, "ANSWER_SECONDS", 0.5)
        start = time.monotonic()
        with pytest.raises(data.DataNotFound, match=r"no answer within 0\.5 s|timed out"):
            data.mnist()
        assert time.monotonic() - start < 3
        # One that does answer is used all the same.
        (mirror,) = serve(published)
        monkeypatch.setattr(data, "MIRRORS", (silent[0], mirror.url))
        check(data.mnist(), contents())


def test_a_name_that_is_never_looked_up_does_not_hold_it_up(monkeypatch):
    """As when the name server can't be reached: a lookup has no timeout of its own."""
    lookups = []

    def slow(*args, **kwargs):
        lookups.append(args[0])
        time.sleep(2)
        raise socket.gaierror("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(data, "MIRRORS", ("http://first.invalid/", "http://second.invalid/"))
    monkeypatch.setattr(data, "ANSWER_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(data.DataNotFound, match=r"no answer within 0\.3 s"):
        data.mnist()
    assert time.monotonic() - start < 1.5
    assert set(lookups) == {"first.invalid", "second.invalid"}


def test_a_cache_that_cannot_be_made_is_said(nowhere, published, serve):
    serve(published)
    (nowhere / "cache").write_bytes(b"in the way")
    with pytest.raises(data.DataNotFound, match="can't be made"):
        data.mnist()


def test_the_mirrors_and_checksums_that_ship():
    script = "from fastmlp import data; print(*data.MIRRORS, *data.FILES.values())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert len([word for word in printed if word.startswith("https://")]) == 2
    assert [len(word) for word in printed[2:]] == [32] * 4


# ---- the real files


@pytest.mark.skipif(not REAL, reason="FASTMLP_DATA is not set: the real MNIST is not read")
def test_the_real_mnist():
    dataset = data.mnist(REAL)
    assert dataset.train_images.shape == (60_000, 784)
    assert dataset.test_images.shape == (10_000, 784)
    assert dataset.n_classes == 10
    assert np.bincount(dataset.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The published MD5 of the unpacked training images; those of the other gzipped files are data.FILES'.
    raw = idx(dataset.train_images.reshape(-1, 28, 28))
    assert hashlib.md5(raw).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"


@pytest.mark.skipif(not REAL, reason="FASTMLP_DATA is not set: the real files' checksums are not compared")
@pytest.mark.parametrize("name", list(data.FILES)[1:])
def test_the_published_checksums(name):
    path = data._find(Path(REAL))[name]
    if path.suffix != ".gz":
        pytest.skip(f"{path.name} is not gzipped: the published checksum is the gzipped file's")
    assert hashlib.md5(path.read_bytes()).hexdigest() == data.FILES[name]


# ---- digits


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    dataset = data.digits()
    assert (dataset.name, dataset.levels, dataset.n_in) == ("digits", 16, 64)
    assert (dataset.n_classes, dataset.image_shape) == (10, (8, 8))
    assert (len(dataset.train_images), len(dataset.test_images)) == (1437, 360)
    assert "scikit-learn" in dataset.source
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.max() == 16
    wanted, wanted_labels = load_digits(return_X_y=True)
    both, wanted_both = np.column_stack([images, labels]), np.column_stack([wanted, wanted_labels])
    np.testing.assert_array_equal(both[np.lexsort(both.T)], wanted_both[np.lexsort(wanted_both.T)])


def test_digits_without_the_bundled_file_at_its_place(monkeypatch):
    wanted = data.digits()
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    dataset = data.digits()
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert getattr(dataset, part).dtype == getattr(wanted, part).dtype
        np.testing.assert_array_equal(getattr(dataset, part), getattr(wanted, part))


def test_digits_split_by_seed_and_share():
    first, again, other = data.digits(), data.digits(seed=0), data.digits(seed=1)
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert not np.array_equal(first.test_images, other.test_images)
    assert np.bincount(first.test_labels, minlength=10).min() > 20  # every class, not the last writers alone
    half = data.digits(test_size=0.5)
    assert (len(half.train_images), len(half.test_images)) == (898, 899)


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 1.5, float("nan"), 0.99999])
def test_digits_refuse_a_share_that_leaves_nothing(test_size):
    with pytest.raises(ValueError, match="test_size="):
        data.digits(test_size=test_size)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [("test_size", "half", TypeError), ("seed", 0.5, TypeError), ("seed", -1, ValueError)],
)
def test_digits_refuse_bad_input(argument, value, error):
    with pytest.raises(error, match=f"{argument}="):
        data.digits(**{argument: value})


# ---- two Gaussians


@pytest.fixture
def global_generator():
    """NumPy's global generator, put back afterwards."""
    state = np.random.get_state()  # noqa: NPY002 (the lab's generator is the subject)
    yield
    np.random.set_state(state)  # noqa: NPY002


@pytest.mark.usefixtures("global_generator")
@pytest.mark.parametrize(
    ("n", "means", "seed"), [(20, [[3, 3], [-1, 1]], 1), (40, [[2, 1], [1, 0]], 1), (1, [[0.5, 0], [0, -2.5]], 123)]
)
def test_two_gaussians_draw_as_the_lab_does(n, means, seed):
    np.random.seed(seed)  # noqa: NPY002
    S1, S2 = np.random.rand(2, 2), np.random.rand(2, 2)  # noqa: NPY002
    ones = np.random.multivariate_normal(means[0], S1.T @ S1, n)  # noqa: NPY002
    zeros = np.random.multivariate_normal(means[1], S2.T @ S2, n)  # noqa: NPY002
    shuffle = np.random.choice(2 * n, size=2 * n, replace=False)  # noqa: NPY002
    X, y = data.two_gaussians(n, means, seed)
    assert X.shape == (2 * n, 3)
    assert y.shape == (2 * n, 1)
    assert X.dtype == y.dtype == np.float64
    assert X.flags.c_contiguous
    assert y.flags.c_contiguous
    for row, i in enumerate(shuffle):
        point, label = (ones[i], 1.0) if i < n else (zeros[i - n], 0.0)
        assert X[row].tolist() == [1.0, *point]
        assert y[row, 0] == label


def test_two_gaussians_defaults():
    X, y = data.two_gaussians()
    wanted_X, wanted_y = data.two_gaussians(n=20, means=[[3, 3], [-1, 1]], seed=1)
    np.testing.assert_array_equal(X, wanted_X)
    np.testing.assert_array_equal(y, wanted_y)
    assert X.shape == (40, 3)
    assert y.sum() == 20
    assert not np.array_equal(X, data.two_gaussians(seed=2)[0])


def test_two_gaussians_lie_about_their_means():
    X, y = data.two_gaussians(n=4000, means=np.array([[3.0, 3.0], [-1.0, 1.0]]))
    np.testing.assert_allclose(X[y[:, 0] == 1, 1:].mean(0), [3, 3], atol=0.1)
    np.testing.assert_allclose(X[y[:, 0] == 0, 1:].mean(0), [-1, 1], atol=0.1)


def test_two_gaussians_leave_the_global_generator_alone():
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    data.two_gaussians()
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    np.testing.assert_equal(after, before)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("n", 0, ValueError),
        ("n", -3, ValueError),
        ("n", 2.5, TypeError),
        ("n", True, TypeError),
        ("n", "20", TypeError),
        ("means", [[1, 2, 3], [4, 5, 6]], ValueError),
        ("means", [[1, 2]], ValueError),
        ("means", [[1, 2], [3]], ValueError),
        ("means", [[1, 2], [3, "far"]], ValueError),
        ("means", [[1, 2], [3, np.inf]], ValueError),
        ("means", [[1, 2], [np.nan, 0]], ValueError),
        ("means", None, ValueError),
        ("seed", -1, ValueError),
        ("seed", 2**32, ValueError),
        ("seed", 1.0, TypeError),
        ("seed", None, TypeError),
    ],
)
def test_two_gaussians_refuse_bad_input(argument, value, error):
    with pytest.raises(error, match=f"{argument}="):
        data.two_gaussians(**{argument: value})


# ---- imports


def test_importing_and_digits_load_nothing_slow():
    script = (
        "import sys, fastmlp.data as data\n"
        "data.digits(); data.two_gaussians()\n"
        "print(*sorted({'pooch', 'requests', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
