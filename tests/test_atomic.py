"""Files that are written whole or not at all, by every writer of the package."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastmlp import Mlp, Sgd, lab_notebook, plots
from fastmlp.bench import results

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these permissions nor pipes")


def network():
    return Mlp([5, 4, 3], output="softmax", seed=1, backend="numpy")


def save_notebook(path):
    import nbformat.v4

    lab_notebook.write(nbformat.v4.new_notebook(), path)


#: What writes a file to a path, and how a file of its kind may be called.
WRITERS = {
    "save": (lambda path: network().save(path), "model.safetensors"),
    "to_onnx": (lambda path: network().to_onnx(path), "model.onnx"),
    "save_figure": (lambda path: plots.save_figure(Figure(), path), "figure.png"),
    "notebook": (save_notebook, "lab.ipynb"),
    "result": (lambda path: results.save({"a": 1}, path), "result.json"),
}


@pytest.fixture(params=WRITERS)
def writer(request):
    return WRITERS[request.param]


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_one(writer, there, tmp_path):
    write, name = writer
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / f"target-{name}", tmp_path / name
    if there:
        target.write_bytes(b"old")
    link.symlink_to(Path("far", target.name))
    write(link)
    assert link.is_symlink()
    assert len(target.read_bytes()) > 3
    assert names(target.parent) == {target.name}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_the_mode_of_a_replaced_file_is_kept(writer, mode, tmp_path):
    write, name = writer
    path = tmp_path / name
    path.write_bytes(b"old")
    path.chmod(mode)
    if not os.access(path, os.W_OK):
        with pytest.raises(PermissionError, match=name):
            write(path)
        return
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize("letter", ["a", "é"])
def test_names_as_long_as_the_file_system_takes(writer, letter, tmp_path):
    write, name = writer
    long = letter * ((255 - len(name)) // len(letter.encode())) + name
    write(tmp_path / long)
    assert names(tmp_path) == {long}
    with pytest.raises(OSError, match=name) as caught:
        write(tmp_path / (letter * 255 + name))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_named_pipe_is_written_into(writer, tmp_path):
    write, name = writer
    path, read = tmp_path / name, []
    os.mkfifo(path)
    reader = Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    write(path)
    reader.join(30)
    assert stat.S_ISFIFO(path.stat().st_mode)
    write(tmp_path / f"plain-{name}")
    assert read == [(tmp_path / f"plain-{name}").read_bytes()]


@pytest.fixture
def devices(tmp_path):
    """A device that is full and one that takes all: of our own for root, who could replace the system's for ever."""
    if sys.platform != "linux":
        pytest.skip("these devices have other numbers here")
    if os.geteuid():
        return Path("/dev/full"), Path("/dev/null")
    folder = tmp_path / "devices"
    folder.mkdir()
    try:
        for name, number in (("full", 7), ("null", 3)):
            os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, number))
            os.close(os.open(folder / name, os.O_WRONLY))
    except PermissionError:
        pytest.skip("no devices can be made here")
    return folder / "full", folder / "null"


def test_a_device_is_written_into_and_a_full_one_named(devices, tmp_path):
    full, null = devices
    link = tmp_path / "link"
    link.symlink_to(full)
    for path in (full, link):
        with pytest.raises(OSError, match=str(path)) as caught:
            network().save(path)
        assert caught.value.errno == errno.ENOSPC
    network().save(null)
    for device in devices:
        assert stat.S_ISCHR(os.stat(device).st_mode)
    assert link.is_symlink()


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "link"])
@pytest.mark.parametrize("into", ["pipe", "file"])
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no names for open files")
def test_standard_output_is_written_into(place, into, tmp_path):
    network().save(tmp_path / "model")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import sys\nfrom fastmlp import Mlp\n"
        "print('before', flush=True)\n"
        "Mlp([5, 4, 3], output='softmax', seed=1, backend='numpy').save(sys.argv[1])\n"
        "print('after', flush=True)\n"
    )
    with open(tmp_path / "output", "wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / place if place == "link" else place],
            stdout=subprocess.PIPE if into == "pipe" else file,
            check=True,
        )
    written = done.stdout if into == "pipe" else (tmp_path / "output").read_bytes()
    assert written == b"before\n" + (tmp_path / "model").read_bytes() + b"after\n"


def test_folders_are_refused_by_name(writer, tmp_path):
    write, name = writer
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        write(tmp_path / name)
    assert names(tmp_path) == {name}
    assert not names(tmp_path / name)


@pytest.mark.parametrize("place", ["", "{}/nowhere/", "{}/a\0b"])
def test_what_names_no_file_is_refused(place, tmp_path):
    with pytest.raises((OSError, ValueError)):
        network().save(place.format(tmp_path))
    assert not names(tmp_path)


def test_a_full_disk_is_told_with_the_file_s_name(writer, tmp_path, monkeypatch):
    write, name = writer
    path = tmp_path / name
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(path)
    assert caught.value.errno == errno.ENOSPC
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {name}


KILLED = (
    "import os, signal, sys\nfrom fastmlp import Mlp\n"
    "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
    "Mlp([5, 4, 3], backend='numpy').save(sys.argv[1])\n"
)


def test_what_a_killed_process_left_is_removed(writer, tmp_path):
    write, name = writer
    others = {".notes.tmp", "model.tmp", ".fastmlp-notes.tmp", f".{name}.tmp"}
    for other in others:
        (tmp_path / other).write_bytes(b"not fastmlp's")
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / name])
        assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path) - others) == 1  # the second has removed what the first left
    write(tmp_path / f"new-{name}")
    assert names(tmp_path) == {f"new-{name}", *others}


def test_what_another_is_writing_is_not_removed(tmp_path, monkeypatch):
    at_fsync, go_on = Event(), Event()
    fsync = os.fsync

    def slow(file):
        if not at_fsync.is_set():
            at_fsync.set()
            go_on.wait(60)
        fsync(file)

    monkeypatch.setattr(os, "fsync", slow)
    first = Thread(target=lambda: network().save(tmp_path / "first"))
    first.start()
    assert at_fsync.wait(60)
    network().save(tmp_path / "second")
    go_on.set()
    first.join(60)
    assert names(tmp_path) == {"first", "second"}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_many_at_once_leave_one_whole_file(tmp_path):
    threads = [Thread(target=lambda: [network().save(tmp_path / "model") for _ in range(10)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == {"model"}
    assert np.array_equal(Mlp.load(tmp_path / "model", backend="numpy").parameters, network().parameters)


def trained(path):
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 5)), rng.integers(0, 3, 30)
    mlp = network()
    mlp.fit(X, y, epochs=3, optimizer=Sgd(0.1), validation=(X, y))
    mlp.metadata = {"a": 1, "b": [1, 2]}
    mlp.save(path)
    return path.read_bytes()


def test_equal_runs_write_equal_files(tmp_path):
    first = trained(tmp_path / "first")
    for i in range(5):
        assert trained(tmp_path / f"{i}") == first
    loaded = Mlp.load(tmp_path / "first", backend="numpy")
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == first
    for name in ("a.onnx", "b.onnx"):
        loaded.to_onnx(tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
