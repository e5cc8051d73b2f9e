# ruff: noqa: NPY002 (the lab draws from NumPy's global generator)
import hashlib
import json
import math
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastmlp import History, Mlp, ModelFileError, modelfile

NETWORKS = {
    "lab": {"size_layers": [5, 4, 3]},
    "modern": {"size_layers": [5, 4, 3], "activation": "relu", "output": "softmax", "dtype": "float32"},
    "no_hidden_layer": {"size_layers": [5, 1], "loss": "binary_cross_entropy"},
    "no_bias": {"size_layers": [5, 4, 3], "activation": "tanh", "bias": False},
    "several_activations": {"size_layers": [5, 6, 4, 2], "activation": ["relu", "tanh"]},
    "everything": {
        "size_layers": [5, 6, 4, 2],
        "activation": ["leaky_relu", "tanh"],
        "loss": "mean_squared_error",
        "output": "sigmoid",
        "init": "he_normal",
        "dtype": "float64",
        "reg_lambda": 0.5,
        "input_scale": 1 / 255,
        "input_shift": -0.5,
    },
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def mlp():
    rng = np.random.default_rng(0)
    mlp = Mlp([5, 4, 3], activation="relu", loss="cross_entropy", dtype="float32", seed=1, backend="numpy")
    X, y = rng.random((30, 5)), rng.integers(0, 3, 30)
    mlp.fit(X, y, epochs=2, validation=(X, y))
    mlp.fit(X, y, epochs=1)
    mlp.metadata = {"image_shape": [28, 28], "labels": ["a", "é"], "note": None}
    return mlp


@pytest.mark.parametrize("description", NETWORKS.values(), ids=NETWORKS)
def test_what_is_saved_is_loaded(backend, path, description):
    mlp = Mlp(**description, seed=1, backend=backend)
    mlp.save(path)
    loaded = Mlp.load(path, backend=backend, threads=1)
    assert loaded.network == mlp.network
    assert loaded.init == mlp.init
    assert loaded.backend_name == backend
    assert loaded.threads == 1
    assert loaded.history is None
    assert loaded.metadata == {}
    assert np.array_equal(loaded.parameters, mlp.parameters)
    assert loaded.parameters.ctypes.data % 64 == 0
    X = np.random.default_rng(0).random((7, 5))
    np.testing.assert_allclose(loaded.predict(X), mlp.predict(X), rtol=1e-6)
    loaded.weights[0][...] = 0
    assert not loaded.network.rows(loaded.parameters)[0].any()


def test_history_and_metadata_are_in_it(mlp, path):
    mlp.save(path)
    loaded = Mlp.load(path, backend="numpy")
    assert loaded.history.loss == mlp.history.loss
    assert np.isnan([loaded.history.seconds, loaded.history.samples_per_second]).all()  # times are not in the file
    assert loaded.history.val_loss[:2] == mlp.history.val_loss[:2]
    assert math.isnan(loaded.history.val_loss[2])
    assert loaded.metadata == mlp.metadata
    loaded.fit(np.ones((4, 5)), [0, 1, 2, 0], epochs=1)
    assert len(loaded.history) == 4


def test_loading_leaves_numpy_s_global_generator_alone(path):
    Mlp([5, 3], backend="numpy").save(path)
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    Mlp.load(path, backend="numpy")
    assert np.random.rand() == expected


def test_a_loaded_network_can_be_drawn_anew(path):
    Mlp([5, 4, 3], init="he_normal", seed=1, backend="numpy").save(path)
    loaded = Mlp.load(path, backend="numpy", seed=1)
    before = loaded.parameters.copy()
    loaded.parameters[:] = 0
    loaded.initialize_weights()
    assert np.array_equal(loaded.parameters, before)


def test_an_initializer_of_one_s_own_is_not_in_the_file(path):
    Mlp([5, 3], init=lambda rng, n_out, n_in, bias: np.ones((n_out, n_in + bias)), backend="numpy").save(path)
    loaded = Mlp.load(path, backend="numpy")
    assert (loaded.weights[0] == 1).all()
    with pytest.raises(RuntimeError, match="init='custom' was a function"):
        loaded.initialize_weights()


def test_the_tensors_are_named_and_shaped_as_pytorch_s(mlp, path):
    mlp.save(path)
    tensors = load_file(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "layers.0.weight": (4, 5),
        "layers.0.bias": (4,),
        "layers.1.weight": (3, 4),
        "layers.1.bias": (3,),
    }
    assert np.array_equal(tensors["layers.0.weight"], mlp.weights[0][:, 1:])
    assert np.array_equal(tensors["layers.0.bias"], mlp.weights[0][:, 0])


def test_the_description_is_strict_json(mlp, path):
    mlp.save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    def refuse(name):
        raise AssertionError(name)

    json.loads(header["__metadata__"]["fastmlp"], parse_constant=refuse)


# ---- writing ----


def test_nothing_else_is_left_in_the_folder(mlp, path):
    mlp.save(str(path))
    mlp.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(mlp, path, monkeypatch):
    mlp.save(path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="disk full"):
                mlp.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def deep():
    innermost = made = []
    for _ in range(100_000):
        innermost.append([])
        innermost = innermost[0]
    return made


@pytest.mark.parametrize(
    "metadata", [{"a": {1, 2}}, {"a": np.int64(1)}, {"a": math.nan}, {"a": deep()}], ids=["set", "int64", "nan", "deep"]
)
def test_metadata_that_json_can_t_hold_is_refused(mlp, path, metadata):
    mlp.metadata = metadata
    with pytest.raises((TypeError, ValueError), match="metadata does not fit into JSON"):
        mlp.save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": "x" * 100_000_000}, "history and metadata take 100,0.*; a model file holds 100,000,000"),
        ({"a": [[]] * 1_000_000}, "more than 1,000,000 opening brackets"),
        (["a"], "metadata is a list; expected a dict"),
    ],
)
def test_metadata_that_could_not_be_read_again_is_refused(mlp, path, metadata, message):
    mlp.metadata = metadata
    with pytest.raises((TypeError, ValueError), match=message):
        mlp.save(path)
    assert not path.exists()


def test_a_folder_that_is_not_there(mlp, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        mlp.save(tmp_path / "nowhere" / "model.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither this mask nor plain symbolic links")
def test_permissions_and_links_are_the_usual_ones(mlp, path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    old = os.umask(0o022)
    try:
        mlp.save(link)
    finally:
        os.umask(old)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


# ---- reading ----


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        Mlp.load(path, backend="numpy")
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Mlp.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 something else entirely", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"{}"]
)
def test_another_kind_of_file(path, content):
    path.write_bytes(content)
    refused(path, "not a")


def test_a_safetensors_file_of_somebody_else(path):
    save_file({"layers.0.weight": np.ones((2, 2))}, path)
    refused(path, "not a fastmlp model file")
    save_file({"layers.0.weight": np.ones((2, 2))}, path, {"format": "pt"})
    refused(path, "not a fastmlp model file")


@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file(mlp, path, part):
    mlp.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refused(path, "damaged")


def test_no_flipped_bit_goes_unnoticed(path):
    mlp = Mlp([3, 2, 2], activation="relu", output="softmax", backend="numpy")
    mlp.metadata = {"name": "é"}
    mlp.save(path)
    content = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * len(content)):
            for change in (1 << bit % 8, 0):
                file.seek(bit // 8)
                file.write(bytes([content[bit // 8] ^ change]))
                if change:
                    with pytest.raises(ModelFileError):
                        modelfile.read(path)
    assert modelfile.read(path).metadata == {"name": "é"}


def test_appended_bytes_are_noticed(mlp, path):
    mlp.save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 4)
    refused(path, "damaged")


VERSION_1 = Path(__file__).with_name("files") / "version1.safetensors"


def test_a_file_of_version_1_is_read():
    mlp = Mlp.load(VERSION_1, backend="numpy")
    rng = np.random.default_rng(0)
    X = rng.random((30, 5))
    np.testing.assert_allclose(mlp.predict(X[:1]), [[0.3991779, 0.3522117, 0.2486104]], rtol=1e-6)
    assert (mlp.network.l2, mlp.network.input_scale, mlp.init) == (0.25, 0.5, "torch")
    assert mlp.history.loss == [1.084723573923111, 1.0847037931283314, 1.084684145450592]
    assert mlp.history.seconds[0] == 0.0008454039998468943
    assert mlp.metadata == {"labels": ["a", "é"], "note": None}


def test_a_file_of_version_1_with_many_layers_is_read(path):
    mlp = Mlp([3] * 13, activation="tanh", output="softmax", backend="numpy")
    mlp.save(path)
    rewrite(path, 1)
    assert np.array_equal(Mlp.load(path, backend="numpy").parameters, mlp.parameters)


def sealed(content: bytes) -> bytes:
    """A file of version 2 with the checksum of what it holds."""
    key = b'"sha256":"'
    at = content.index(key) + len(key)
    blank = content[:at] + b"0" * 64 + content[at + 64 :]
    return content[:at] + hashlib.sha256(blank).hexdigest().encode() + content[at + 64 :]


def rewrite(path, version=2, change_description=None, change_tensors=None):
    """Write the file again with changes that keep it a sound safetensors file with the right checksum."""
    tensors = load_file(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"]
    description = json.loads(metadata["fastmlp"])
    if change_tensors:
        change_tensors(tensors)
    if version == 1:
        crc = zlib.crc32(b"".join(tensors[name].tobytes() for name in sorted(tensors)))
        description |= {"format_version": 1, "crc32": crc}
    if change_description:
        change_description(description)
    text = description if isinstance(description, str) else json.dumps(description)
    if version == 1:
        save_file(tensors, path, {"format": "fastmlp", "fastmlp": text})
        return
    entries, values = {"__metadata__": {**metadata, "fastmlp": text}}, b""
    for name, tensor in tensors.items():
        end = len(values) + tensor.nbytes
        kind = {"float32": "F32", "float64": "F64"}[str(tensor.dtype)]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(values), end]}
        values += tensor.tobytes()
    head = json.dumps(entries, separators=(",", ":")).encode()
    path.write_bytes(sealed(len(head).to_bytes(8, "little") + head + values))


@pytest.mark.parametrize("version", [1, 2])
def test_a_rewritten_file_is_read(mlp, path, version):
    mlp.save(path)
    rewrite(path, version)
    assert np.array_equal(Mlp.load(path, backend="numpy").parameters, mlp.parameters)


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=3), "format version 3; this fastmlp reads 1 to 2"),
        (lambda d: d.update(format_version=True), "format version True"),
        (lambda d: d.update(format_version="2"), "format version '2'"),
        (lambda d: d.pop("format_version"), "format version None"),
        (lambda d: d.pop("network"), "its description holds .*expected .*network"),
        (lambda d: d.update(colour="red"), "its description holds .*'colour'"),
        (lambda d: d.update(network=None), "its network is described as None"),
        (lambda d: d["network"].pop("sizes"), "its network is described as"),
        (lambda d: d["network"].update(colour="red"), "its network is described as"),
        (lambda d: d["network"].update(sizes=[5, 4, 0]), "holds 0; expected positive"),
        (lambda d: d["network"].update(sizes=[5, 4, -3]), "holds -3; expected positive"),
        (lambda d: d["network"].update(sizes=[5]), "expected inputs and outputs"),
        (lambda d: d["network"].update(sizes=[5, 4.0, 3]), "sizes="),
        (lambda d: d["network"].update(sizes=[5, True, 3]), "sizes="),
        (lambda d: d["network"].update(sizes="543"), "sizes="),
        (lambda d: d["network"].update(sizes=5), "sizes=5; expected a list"),
        (lambda d: d["network"].update(sizes=[5, 10**18, 3]), "its header and its length|expected float32"),
        (lambda d: d["network"].update(sizes=[5, 10**400, 3]), r"its header and its length|expected float32"),
        (
            lambda d: d["network"].update(sizes=[2] * 100_001, activations=["relu"] * 99_999 + ["softmax"]),
            "100,001 sizes, but .* bytes of values",
        ),
        (lambda d: d["network"].update(loss="log"), "loss='log'"),
        (lambda d: d["network"].update(loss=["cross_entropy"]), "loss="),
        (lambda d: d["network"].update(activations=["relu", "relu"]), "output='relu' does not go"),
        (lambda d: d["network"].update(activations=["relu", ["softmax"]]), "activations="),
        (lambda d: d["network"].update(activations={"relu": 1, "softmax": 2}), "activations="),
        (
            lambda d: d["network"].update(sizes=[5, 6, 3]),
            r"tensor layers.0.weight is float32 \[4, 5\].*; expected .* \[6, 5\]|layers.0.bias is float32 \[4\]",
        ),
        (lambda d: d["network"].update(dtype="float64"), "is float32 .*; expected float64"),
        (lambda d: d["network"].update(dtype="f4"), "dtype='f4'"),
        (lambda d: d["network"].update(dtype=["float32"]), "dtype="),
        (lambda d: d["network"].update(bias=False), "holds tensors"),
        *(
            (lambda d, bias=bias: d["network"].update(bias=bias), "bias=")
            for bias in (0, 1, 2, 100, 20_000, "yes", None)
        ),
        *(
            (lambda d, name=name, value=value: d["network"].update({name: value}), f"{name}=")
            for name in ("input_scale", "input_shift", "l2")
            for value in (True, "1", None, [1.0], 1e300, -1e300, 10**400)
        ),
        (lambda d: d["network"].update(l2=-0.5), "l2=-0.5"),
        (lambda d: d["network"].update(l2=math.nan), "no JSON .*NaN"),
        (lambda d: d["network"].update(input_scale=-math.inf), "no JSON .*-Infinity"),
        (lambda d: d.update(init=None), "lacks init"),
        (lambda d: d.update(init="noise"), "init='noise'"),
        (lambda d: d.update(metadata=[]), "lacks init, metadata"),
        (lambda d: d.update(metadata={"a": math.nan}), "no JSON"),
        (lambda d: d.update(history=[1]), "lacks init, metadata or history"),
        (lambda d: d["history"].pop("loss"), r"history\['loss'\] is None"),
        (lambda d: d["history"]["loss"].pop(), "one entry an epoch"),
        (lambda d: d["history"].update(loss=["a", "b", "c"]), "holds 'a'"),
        (lambda d: d["history"].update(loss=[True, 1.0, 1.0]), "holds True"),
        (lambda d: d["history"].update(loss=[10**400, 1, 1]), "holds 1000"),
        (lambda d: d["history"].update(loss="abc"), "expected a list"),
        (lambda d: d["history"].update(interrupted=1), "interrupted"),
    ],
)
def test_a_description_that_does_not_fit(mlp, path, change, message, version):
    mlp.save(path)
    rewrite(path, version, change)
    refused(path, message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        '{"format_version": 1e999}',
        '{"format_version": ' + "9" * 10_000 + "}",
        nested(100_000),
        '{"metadata": ' * 50_000 + "1" + "}" * 50_000,
        "[],".join(["[", *[""] * 1_000_001, "0]"]),
    ],
    ids=["empty", "cut", "word", "infinite", "digits", "lists", "objects", "many"],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_description_that_is_no_plain_json(mlp, path, text, version):
    mlp.save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if version == 1:
        save_file(load_file(path), path, {"fastmlp": text})
    else:
        header["__metadata__"]["fastmlp"] = text
        head = json.dumps(header, separators=(",", ":")).encode()
        values = content[8 + int.from_bytes(content[:8], "little") :]
        path.write_bytes(sealed(len(head).to_bytes(8, "little") + head + values))
    refused(path, "no JSON")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layers.0.bias"), "holds tensors"),
        (lambda t: t.update(extra=np.ones(1, np.float32)), "holds tensors"),
        (lambda t: t.update({"layers.0.bias": np.ones(4, np.float64)}), r"layers.0.bias is float64 \[4\]"),
        (lambda t: t.update({"layers.0.bias": np.ones((2, 2), np.float32)}), r"layers.0.bias is float32 \[2, 2\]"),
        *(
            (lambda t, bad=bad: t["layers.1.weight"].__setitem__((2, 3), bad), "weights that are nan or infinite")
            for bad in (math.nan, math.inf, -math.inf)
        ),
    ],
)
def test_tensors_that_do_not_fit(mlp, path, change, message, version):
    mlp.save(path)
    rewrite(path, version, change_tensors=change)
    refused(path, message)


def test_what_could_not_be_read_again_is_not_written(mlp, path):
    """Over a good file, least of all: weights that are no numbers, and one bracket more than is read."""
    mlp.save(path)
    before = path.read_bytes()
    most = next(n for n in range(999_960, 1_000_000) if not saves(mlp, path, {"a": "[" * n}))
    assert saves(mlp, path, {"a": "[" * (most - 1)})
    Mlp.load(path)
    path.write_bytes(before)
    mlp.metadata = {}
    mlp.weights[0][0, 0] = math.nan
    with pytest.raises(ValueError, match="weights holds nan"):
        mlp.save(path)
    assert path.read_bytes() == before


def saves(mlp, path, metadata) -> bool:
    mlp.metadata = metadata
    try:
        mlp.save(path)
    except ValueError:
        return False
    return True


def test_checksums(mlp, path):
    mlp.save(path)
    rewrite(path, 1, lambda d: d.update(crc32=1))
    refused(path, "its description says 1")
    rewrite(path, 1, lambda d: d.update(crc32=True))
    refused(path, "its description says True")
    mlp.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(path, "checksum")


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries["layers.0.weight"].update(data_offsets=[0, 84]),
        lambda entries: entries["layers.0.weight"].update(data_offsets=[-80, 0]),
        lambda entries: entries["layers.0.weight"].update(data_offsets=[2**63, 2**63 + 80]),
        lambda entries: entries["layers.0.weight"].update(data_offsets="far"),
        lambda entries: entries["layers.0.weight"].update(shape=[5, 4]),
        lambda entries: entries["layers.0.weight"].update(shape=5),
        lambda entries: entries["layers.0.weight"].update(dtype=["F32"]),
        lambda entries: entries["layers.0.weight"].update(dtype="I32"),
        lambda entries: entries["layers.0.weight"].pop("shape"),
        lambda entries: entries.update({"layers.0.weight": None}),
        lambda entries: entries["layers.0.bias"].update(data_offsets=[80, 92]),
        lambda entries: entries["layers.0.bias"].update(data_offsets=[0, 16]),
    ],
)
def test_a_header_that_lies_about_the_tensors(mlp, path, change):
    mlp.save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    head = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(sealed(len(head).to_bytes(8, "little") + head + content[8 + length :]))
    refused(path, "damaged")


def test_a_description_that_is_no_json(path):
    for text, message in (("{", "no JSON"), ("[1]", "no JSON object")):
        save_file({"a": np.ones(1)}, path, {"fastmlp": text})
        refused(path, message)


# ---- what reading takes ----


def empty_tensors(path):
    Mlp([5, 4, 3], activation="relu", output="softmax", backend="numpy").save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    more = (f',"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(500_000))
    head = content[8 : 8 + length].rstrip()[:-1] + "".join(more).encode() + b"}"
    path.write_bytes(sealed(len(head).to_bytes(8, "little") + head + content[8 + length :]))


def longer(path):
    Mlp([5, 4, 3], activation="relu", output="softmax", backend="numpy").save(path)
    os.truncate(path, 4 << 30)


def announced(path):
    with open(path, "wb") as file:
        file.write((4 << 30).to_bytes(8, "little") + b'{"__metadata__":{')
        file.truncate(5 << 30)


def of_its_size(path):
    """A description that fits a file of 1 GB with nothing in it."""
    Mlp([5, 4, 3], output="softmax", bias=False, dtype="float32", backend="numpy").save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    description = json.loads(header["__metadata__"]["fastmlp"])
    description["network"].update(sizes=[1 << 14, 1 << 14], activations=["softmax"])
    header["__metadata__"]["fastmlp"] = json.dumps(description)
    del header["layers.1.weight"]
    header["layers.0.weight"].update(shape=[1 << 14, 1 << 14], data_offsets=[0, 1 << 30])
    head = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 8 + len(head) + (1 << 30))


def brackets(path):
    with open(path, "wb") as file:
        head = b'{"__metadata__":' + b"[" * 90_000_000
        file.write(len(head).to_bytes(8, "little") + head)


def memory_and_outcome(path):
    """The most memory in KiB that reading a file took in a process of its own, and what came of it."""
    code = (
        "import re, sys, fastmlp.modelfile as m\n"
        "def most():\n    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = most()\n"
        "try:\n    outcome = type(m.read(sys.argv[1]))\n"
        "except m.ModelFileError as error:\n    outcome = error\n"
        "print(most() - before, outcome)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    taken, _, outcome = done.stdout.partition(" ")
    return int(taken), outcome


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the most memory taken is read from /proc")


@LINUX
@pytest.mark.parametrize("make", [empty_tensors, longer, announced, of_its_size, brackets])
def test_a_file_that_asks_for_memory_is_refused_within_little(make, path):
    make(path)
    taken, outcome = memory_and_outcome(path)
    assert str(path) in outcome
    assert taken < 250_000


@LINUX
def test_a_large_model_is_read_in_little_more_than_it_takes(path):
    mlp = Mlp([4000, 4000], dtype="float32", backend="numpy")  # 64 MB
    mlp.save(path)
    taken, outcome = memory_and_outcome(path)
    assert "Model" in outcome
    assert taken < 90_000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_and_a_folder_are_refused_at_once(path, tmp_path):
    os.mkfifo(path)
    refused(path, "not a regular file")
    with pytest.raises(IsADirectoryError):
        Mlp.load(tmp_path)


def test_a_refusal_is_one_short_line(mlp, path):
    mlp.save(path)
    rewrite(path, 2, lambda d: d["network"].update(sizes=["a\nb"] * 10_000))
    with pytest.raises(ModelFileError) as caught:
        Mlp.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


# ---- histories ----


def test_a_history_goes_through_a_plain_dict():
    history = History(interrupted=True)
    history.append(loss=0.5, seconds=1.0, samples_per_second=10.0)
    history.append(loss=0.25, seconds=1.0, samples_per_second=10.0, val_loss=math.inf, val_accuracy=0.5)
    plain = history.to_dict()
    assert plain["val_loss"] == [None, None]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    again = History.from_dict(plain)
    assert again.loss == [0.5, 0.25]
    assert again.interrupted
    assert math.isnan(again.val_accuracy[0])
    assert again.val_accuracy[1] == 0.5
    assert not again.validated
    again.append(loss=0.2, seconds=1.0, samples_per_second=10.0, val_loss=0.3)
    assert again.validated


def test_an_empty_history_is_still_one():
    assert len(History()) == 0
    assert History()
    assert not History().validated
