# ruff: noqa: NPY002 (the lab draws from NumPy's global generator)
import json
import math
import os
import stat
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastmlp import History, Mlp, modelfile

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
    assert loaded.history.seconds == mlp.history.seconds
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


@pytest.mark.parametrize("metadata", [{"a": {1, 2}}, {"a": np.int64(1)}, {"a": math.nan}])
def test_metadata_that_json_can_t_hold_is_refused(mlp, path, metadata):
    mlp.metadata = metadata
    with pytest.raises((TypeError, ValueError), match="metadata does not fit into JSON"):
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
    with pytest.raises(ValueError, match=message) as caught:
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


def test_no_flipped_byte_goes_unnoticed(mlp, path):
    mlp.save(path)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for place in range(header, len(content)):
        content[place] ^= 1
        with pytest.raises(ValueError, match="checksum"):
            modelfile.parse(bytes(content))
        content[place] ^= 1
    assert modelfile.parse(bytes(content)).network == mlp.network


def test_appended_bytes_are_noticed(mlp, path):
    mlp.save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 4)
    refused(path, "damaged")


def rewrite(path, change_description=None, change_tensors=None):
    """Write the file again with changes that keep it a sound safetensors file."""
    tensors = load_file(path)
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    description = json.loads(metadata["fastmlp"])
    if change_tensors:
        change_tensors(tensors)
    if change_description:
        change_description(description)
    save_file(tensors, path, {"format": "fastmlp", "fastmlp": json.dumps(description)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=2), "format version 2; this fastmlp reads 1"),
        (lambda d: d.pop("format_version"), "format version None"),
        (lambda d: d.pop("network"), "its network is described as None"),
        (lambda d: d["network"].pop("sizes"), "its network is described as"),
        (lambda d: d["network"].update(colour="red"), "its network is described as"),
        (lambda d: d["network"].update(sizes=[5, 4, 0]), "holds 0; expected positive"),
        (lambda d: d["network"].update(sizes=5), "not iterable"),
        (lambda d: d["network"].update(loss="log"), "loss='log'"),
        (lambda d: d["network"].update(activations=["relu", "relu"]), "output='relu' does not go"),
        (
            lambda d: d["network"].update(sizes=[5, 6, 3]),
            r"tensor layers.0.weight is float32 \[4, 5\]; expected .* \[6, 5\]",
        ),
        (lambda d: d["network"].update(dtype="float64"), "is float32 .*; expected float64"),
        (lambda d: d["network"].update(bias=False), "holds tensors"),
        (lambda d: d.update(init=None), "lacks init"),
        (lambda d: d.update(metadata=[]), "lacks init, metadata"),
        (lambda d: d.update(history=[1]), "lacks init, metadata or history"),
        (lambda d: d["history"].pop("loss"), r"history\['loss'\] is None"),
        (lambda d: d["history"]["loss"].pop(), "one entry an epoch"),
        (lambda d: d["history"].update(loss=["a", "b", "c"]), "holds 'a'"),
        (lambda d: d["history"].update(interrupted=1), "interrupted"),
        (lambda d: d.update(crc32=1), "its description says 1"),
    ],
)
def test_a_description_that_does_not_fit(mlp, path, change, message):
    mlp.save(path)
    rewrite(path, change)
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layers.0.bias"), "holds tensors"),
        (lambda t: t.update(extra=np.ones(1)), "holds tensors"),
        (lambda t: t.update({"layers.0.bias": np.ones(4, np.float64)}), r"layers.0.bias is float64 \[4\]"),
        (lambda t: t.update({"layers.0.bias": np.ones(4, np.float32)}), "checksum"),
    ],
)
def test_tensors_that_do_not_fit(mlp, path, change, message):
    mlp.save(path)
    rewrite(path, change_tensors=change)
    refused(path, message)


def test_a_description_that_is_no_json(path):
    for text, message in (("{", "no JSON"), ("[1]", "no JSON object")):
        save_file({"a": np.ones(1)}, path, {"fastmlp": text})
        refused(path, message)


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
