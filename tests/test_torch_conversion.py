"""Networks to PyTorch, from PyTorch and to ONNX: weights to the last bit, outputs to rounding, refusals by name."""

import subprocess
import sys
from collections import OrderedDict

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fastmlp import Mlp, Sgd, data, modelfile
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.torch_models import TorchMlp

DTYPES = ["float32", "float64"]
#: Relative to the largest output: some roundings of a dot product over the widest layer.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}

#: sizes, activation, loss, other options
NETWORKS = [
    ([7, 5, 3], "relu", "cross_entropy", {}),
    ([7, 5, 4, 3], ["tanh", "leaky_relu"], "cross_entropy", {"bias": False}),
    ([7, 5, 3], "sigmoid", "binary_cross_entropy", {"input_scale": 1 / 255, "input_shift": -0.5}),
    ([7, 1], "relu", "binary_cross_entropy", {"input_shift": 2.0}),
    ([7, 5, 1], "identity", "mean_squared_error", {"reg_lambda": 0.5}),
    ([7, 5, 2], "tanh", "mean_squared_error", {"output": "leaky_relu"}),
    ([7, 3], "relu", "cross_entropy", {}),
]


@pytest.fixture(params=range(len(NETWORKS)), ids=lambda i: f"{NETWORKS[i][2]}-{i}")
def network_options(request):
    sizes, activation, loss, options = NETWORKS[request.param]
    return {"size_layers": sizes, "activation": activation, "loss": loss, **options}


def built(options, dtype, **more):
    mlp = Mlp(**options, dtype=dtype, seed=3, backend="numpy", **more)
    rng = np.random.default_rng(4)
    mlp.weights = [rng.normal(size=w.shape) for w in mlp.weights]  # biases that are not zero
    return mlp


def samples(n_in, dtype, n=40):
    return np.random.default_rng(5).normal(size=(n, n_in)).astype(dtype)


def close(got, expected, dtype):
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, abs(expected).max()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_torch_has_the_weights_and_the_outputs(network_options, dtype):
    mlp = built(network_options, dtype)
    X = samples(7, dtype)
    model = mlp.to_torch()
    for layer, weights in zip(model.layers, mlp.weights, strict=True):
        assert np.array_equal(layer.weight.detach().numpy(), weights[:, int(mlp.network.bias) :])
        if mlp.network.bias:
            assert np.array_equal(layer.bias.detach().numpy(), weights[:, 0])
    outputs = model.predict(torch.from_numpy(X)).numpy()
    assert outputs.dtype == dtype
    close(outputs, mlp.predict(X), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back_is_the_same_network_to_the_last_bit(network_options, dtype):
    mlp = built(network_options, dtype)
    back = Mlp.from_torch(mlp.to_torch(), backend="numpy", reg_lambda=mlp.network.l2)
    assert back.network == mlp.network
    assert np.array_equal(back.parameters, mlp.parameters)


def test_what_is_converted_is_a_copy():
    mlp = built({"size_layers": [3, 2], "activation": "relu"}, "float32")
    before = mlp.parameters.copy()
    model = mlp.to_torch()
    back = Mlp.from_torch(model, backend="numpy")
    with torch.no_grad():
        model.layers[0].weight.zero_()
    mlp.state_dict()["layers.0.bias"].zero_()
    assert np.array_equal(mlp.parameters, before)
    assert np.array_equal(back.parameters, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_called_it_gives_what_pytorchs_loss_takes(network_options, dtype):
    """PyTorch's loss of the module equals the kernels' loss."""
    mlp = built(network_options, dtype)
    X = samples(7, dtype)
    outputs = mlp.to_torch()(torch.from_numpy(X))
    n_out, loss = mlp.network.sizes[-1], mlp.network.loss
    rng = np.random.default_rng(6)
    if loss == "cross_entropy":
        y = rng.integers(0, n_out, len(X))
        theirs = nn.CrossEntropyLoss()(outputs, torch.from_numpy(y))
    else:
        y = rng.random((len(X), n_out)).astype(dtype)
        criterion = nn.BCEWithLogitsLoss() if loss == "binary_cross_entropy" else nn.MSELoss()
        scale = n_out if loss == "binary_cross_entropy" else n_out / 2  # PyTorch takes the mean over the outputs, too
        theirs = criterion(outputs, torch.from_numpy(y)) * scale
    assert theirs.item() == pytest.approx(mlp.evaluate(X, y).loss, rel=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_a_sequential(dtype):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(7, 6), nn.Identity(), nn.Tanh()),
        nn.Linear(6, 5),
        nn.Linear(5, 4),
        nn.LeakyReLU(),
        nn.Linear(4, 3),
        nn.Softmax(dim=1),
    ).to(getattr(torch, dtype))
    mlp = Mlp.from_torch(module, backend="numpy", seed=9)
    assert mlp.network.activations == ("tanh", "identity", "leaky_relu", "softmax")
    assert (mlp.network.sizes, mlp.network.loss, mlp.network.dtype) == ((7, 6, 5, 4, 3), "cross_entropy", dtype)
    X = samples(7, dtype)
    close(mlp.predict(X), module(torch.from_numpy(X)).detach().numpy(), dtype)


@pytest.mark.parametrize(
    ("end", "loss", "expected"),
    [
        ([], None, ("cross_entropy", "softmax")),
        ([], "binary_cross_entropy", ("binary_cross_entropy", "sigmoid")),
        ([], "mean_squared_error", ("mean_squared_error", "identity")),
        ([nn.LogSoftmax(dim=-1)], None, ("cross_entropy", "softmax")),
        ([nn.Sigmoid()], None, ("binary_cross_entropy", "sigmoid")),
        ([nn.Sigmoid()], "mean_squared_error", ("mean_squared_error", "sigmoid")),
        ([nn.Tanh()], None, ("mean_squared_error", "tanh")),
    ],
)
def test_the_loss_follows_from_the_end(end, loss, expected):
    mlp = Mlp.from_torch(nn.Sequential(nn.Linear(4, 2), *end), loss, backend="numpy")
    assert (mlp.network.loss, mlp.network.activations[-1]) == expected


def test_from_torch_takes_the_options_of_the_class():
    mlp = Mlp.from_torch(
        nn.Linear(4, 2, bias=False), backend="numpy", threads=1, reg_lambda=2.0, input_scale=0.5, input_shift=1.0
    )
    assert (mlp.network.bias, mlp.network.l2, mlp.threads) == (False, 2.0, 1)
    assert (mlp.network.input_scale, mlp.network.input_shift) == (0.5, 1.0)


def test_training_goes_on_where_pytorch_has_ended_and_back(backend):
    """A step in PyTorch, one in fastmlp, one in PyTorch: as three in PyTorch."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(30, 6)), rng.integers(0, 3, 30)
    torch.manual_seed(0)
    alone = TorchMlp([6, 5, 3], "tanh", dtype="float64")

    def step(model):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(y)).backward()
        optimizer.step()
        optimizer.zero_grad()
        return model

    mlp = Mlp.from_torch(alone, backend=backend)
    for _ in range(3):
        step(alone)
    mlp.fit(X, y, epochs=1, batch_size=None, optimizer=Sgd(0.1))
    model = step(mlp.to_torch())
    mlp = Mlp.from_torch(model, backend=backend)
    mlp.fit(X, y, epochs=1, batch_size=None, optimizer=Sgd(0.1))
    np.testing.assert_allclose(mlp.parameters, Mlp.from_torch(alone, backend="numpy").parameters, rtol=0, atol=1e-14)


class Wrapped(nn.Sequential):
    """Might do anything in its forward pass."""


def hooked():
    module = nn.Sequential(nn.Linear(4, 2))
    module[0].register_forward_hook(lambda *_: None)
    return module


def tied():
    first = nn.Linear(4, 4)
    return nn.Sequential(first, nn.ReLU(), first)


LINEARS = nn.Linear(4, 3), nn.Linear(3, 2)
REFUSED = [
    (nn.Sequential(LINEARS[0], nn.Dropout(0.5), LINEARS[1]), r"module\[1\] is Dropout\(p=0.5"),
    (nn.Sequential(nn.Conv2d(1, 2, 3)), r"module\[0\] is Conv2d"),
    (nn.Sequential(LINEARS[0], nn.GELU()), r"module\[1\] is GELU"),
    (nn.Sequential(LINEARS[0], nn.LeakyReLU(0.2)), r"LeakyReLU\(negative_slope=0.2\); .*LeakyReLU\(0.01\)"),
    (nn.Sequential(LINEARS[0], nn.ReLU(), nn.Tanh()), r"module\[2\] is Tanh\(\) after another activation"),
    (nn.Sequential(nn.ReLU(), LINEARS[0]), r"module\[0\] is ReLU\(\) before the first Linear"),
    (nn.Sequential(LINEARS[0], nn.Softmax(dim=1), LINEARS[1]), "softmax before its end"),
    (nn.Sequential(LINEARS[0], nn.Softmax(dim=0)), r"Softmax\(dim=0\)"),
    (nn.Sequential(LINEARS[0], nn.BatchNorm1d(3)), r"module\[1\] is BatchNorm1d"),
    (nn.Sequential(LINEARS[0], nn.Flatten()), r"module\[1\] is Flatten"),
    (nn.Sequential(nn.Linear(4, 3), nn.Linear(2, 2)), "in_features=4.* before .*in_features=2"),
    (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)), "with and some without bias"),
    (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).double()), "float32, float64; expected all"),
    (nn.Sequential(nn.Linear(4, 3)).half(), "float16; expected all float32 or all float64"),
    (nn.Sequential(), "no Linear"),
    (tied(), "same parameters"),
    (hooked(), r"module\[0\] \(Linear\) has forward hooks"),
    (Wrapped(nn.Linear(4, 2)), "module is a Wrapped"),
    (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))), r"module\[0\] is ParametrizedLinear"),
    (nn.Linear(4, 1), "loss=None for a module that ends in one unit"),
]


@pytest.mark.parametrize(("module", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_mlp_lacks_is_refused_by_name(module, message):
    with pytest.raises(ValueError, match=message):
        Mlp.from_torch(module, backend="numpy")


def test_from_torch_refuses_what_is_no_module_and_wrong_losses():
    with pytest.raises(TypeError, match="module is a list"):
        Mlp.from_torch([1])
    with pytest.raises(ValueError, match="loss='mse' is not known"):
        Mlp.from_torch(nn.Linear(4, 2), "mse")
    with pytest.raises(ValueError, match="output='sigmoid' does not go with loss='cross_entropy'"):
        Mlp.from_torch(nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), "cross_entropy")
    broken = nn.Linear(4, 2)
    with torch.no_grad():
        broken.weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match="holds nan"):
        Mlp.from_torch(broken)


# ---- state dicts ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_state_dicts_go_both_ways(dtype, bias):
    mlp, other = (
        Mlp([5, 4, 3], activation="tanh", loss="cross_entropy", dtype=dtype, bias=bias, seed=s, backend="numpy")
        for s in (1, 2)
    )
    model = TorchMlp([5, 4, 3], "tanh", bias, dtype=dtype)
    model.load_state_dict(mlp.state_dict())
    X = samples(5, dtype)
    close(model.predict(torch.from_numpy(X)).numpy(), mlp.predict(X), dtype)
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other.parameters, mlp.parameters)


def test_state_dict_of_a_sequential_and_of_arrays():
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    mlp = Mlp([5, 4, 3], activation="relu", loss="cross_entropy", dtype="float32", seed=1, backend="numpy")
    mlp.load_state_dict(module.state_dict())
    expected = Mlp.from_torch(module, backend="numpy").parameters
    assert np.array_equal(mlp.parameters, expected)
    mlp.initialize_weights()
    mlp.load_state_dict(OrderedDict(sorted((name, t.numpy()) for name, t in module.state_dict().items())))
    assert np.array_equal(mlp.parameters, expected)


def test_names_of_many_layers_are_taken_by_number_not_by_alphabet():
    sizes = [3] * 13
    one, two = (
        Mlp(sizes, activation="tanh", loss="cross_entropy", dtype="float32", seed=s, backend="numpy") for s in (1, 2)
    )
    two.load_state_dict(dict(sorted(one.state_dict().items())))
    assert np.array_equal(one.parameters, two.parameters)


def test_its_names_are_those_of_a_model_file():
    mlp = Mlp([5, 4, 3], activation="relu", loss="cross_entropy", dtype="float32", backend="numpy")
    names = list(modelfile.named_views(mlp.network, mlp.parameters))
    assert list(mlp.state_dict()) == names == list(mlp.to_torch().state_dict())


def test_float32_goes_into_float64_exactly_and_not_the_other_way():
    narrow, wide = (Mlp([5, 3], loss="cross_entropy", dtype=dtype, seed=1, backend="numpy") for dtype in DTYPES)
    wide.load_state_dict(narrow.state_dict())
    assert np.array_equal(wide.weights[0], narrow.weights[0])
    state = {name: tensor.bfloat16() for name, tensor in narrow.state_dict().items()}
    narrow.load_state_dict(state)
    assert np.array_equal(narrow.weights[0][:, 1:], state["layers.0.weight"].float().numpy())
    before = narrow.parameters.copy()
    with pytest.raises(ValueError, match=r"state\['layers.0.weight'\] is float64; expected float32"):
        narrow.load_state_dict(wide.state_dict())
    assert np.array_equal(narrow.parameters, before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state holds nothing; expected layers.0.weight, layers.0.bias"),
        ({"0.weight": np.zeros((3, 5))}, "state holds 0.weight; expected"),
        ({"0.weight": np.zeros((5, 3)), "0.bias": np.zeros(3)}, r"state\['0.weight'\] has shape \[5, 3\]; expected"),
        ({"0.weight": np.zeros((3, 5)), "0.running_mean": np.zeros(3)}, "running_mean"),
        ({"0.weight": np.zeros((3, 5), int), "0.bias": np.zeros(3)}, "is int64; expected float64"),
        ({"0.weight": np.full((3, 5), np.inf), "0.bias": np.zeros(3)}, "holds inf"),
    ],
)
def test_other_state_dicts_are_refused_and_change_nothing(state, message):
    mlp = Mlp([5, 3], loss="cross_entropy", dtype="float64", seed=1, backend="numpy")
    before = mlp.parameters.copy()
    with pytest.raises(ValueError, match=message):
        mlp.load_state_dict(state)
    assert np.array_equal(mlp.parameters, before)


def square(layers=7, bias=True):
    """A Sequential whose layers could stand in any order, and the network of it."""
    torch.manual_seed(0)
    linears = [nn.Linear(4, 4, bias=bias) for _ in range(layers)]
    module = nn.Sequential(*(part for linear in linears for part in (linear, nn.Tanh())))
    return module, Mlp.from_torch(module, "mean_squared_error", backend="numpy")


def rearranged(state, order):
    """The entries of a state dict as a file may list them."""
    names = {
        "sorted": sorted(state),
        "reversed": list(state)[::-1],
        "shuffled": np.random.default_rng(1).permutation(list(state)).tolist(),
        "as they are": list(state),
    }[order]
    return {name: state[name] for name in names}


def renamed(state, names):
    """A state dict with other names for its layers, in their order."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {f"{names[layers.index(old.rpartition('.')[0])]}.{old.rpartition('.')[2]}": state[old] for old in state}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["as they are", "sorted", "reversed", "shuffled"])
@pytest.mark.parametrize("form", ["{}", "net.{}", "blocks.{}.linear", "layers.{}", "0.{}"])
def test_layers_with_an_index_are_taken_by_it(form, order, bias):
    module, expected = square(7, bias)
    mlp = Mlp.from_torch(square(7, bias)[0], "mean_squared_error", backend="numpy", seed=3)
    mlp.initialize_weights()
    state = renamed(module.state_dict(), [form.format(2 * i) for i in range(7)])
    mlp.load_state_dict(rearranged(state, order))
    assert np.array_equal(mlp.parameters, expected.parameters)


@pytest.mark.parametrize("order", ["as they are", "sorted"])
def test_names_that_end_in_numbers_are_taken_by_these(order):
    module, expected = square(12)
    mlp = square(12)[1]
    mlp.initialize_weights()
    state = renamed(module.state_dict(), [f"fc{i}" for i in range(1, 13)])
    mlp.load_state_dict(rearranged(state, order))
    assert np.array_equal(mlp.parameters, expected.parameters)


def test_a_safetensors_file_of_a_sequential(tmp_path):
    from safetensors.torch import load, load_file, save_file

    module, expected = square()
    save_file(module.state_dict(), tmp_path / "module.safetensors")
    for state in (load_file(tmp_path / "module.safetensors"), load((tmp_path / "module.safetensors").read_bytes())):
        mlp = square()[1]
        mlp.initialize_weights()
        mlp.load_state_dict(state)
        assert np.array_equal(mlp.parameters, expected.parameters)


class Named(nn.Module):
    """Layers whose names have another order than they themselves."""

    def __init__(self, sizes, bias=True):
        super().__init__()
        self.inputs = nn.Linear(*sizes[:2], bias=bias)
        self.hidden = nn.Linear(*sizes[1:3], bias=bias)
        self.output = nn.Linear(*sizes[2:], bias=bias)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_without_numbers_are_taken_as_the_module_has_them(bias):
    torch.manual_seed(0)
    module = Named([4, 4, 4, 4], bias)
    mlp = Mlp([4, 4, 4, 4], bias=bias, dtype="float32", backend="numpy")
    mlp.load_state_dict(module.state_dict())
    for weights, layer in zip(mlp.weights, (module.inputs, module.hidden, module.output), strict=True):
        assert np.array_equal(weights[:, int(bias) :], layer.weight.detach().numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_layers_without_numbers_are_told_by_their_shapes_or_refused(bias):
    module = Named([4, 5, 6, 7], bias)
    mlp = Mlp([4, 5, 6, 7], bias=bias, dtype="float32", backend="numpy")
    mlp.load_state_dict(rearranged(module.state_dict(), "sorted"))
    assert np.array_equal(mlp.weights[1][:, int(bias) :], module.hidden.weight.detach().numpy())
    mlp = Mlp([4, 4, 4, 4], bias=bias, dtype="float32", backend="numpy")
    before = mlp.parameters.copy()
    for order in ("sorted", "reversed", "shuffled"):
        with pytest.raises(ValueError, match=r"hidden.* leave the order of the layers open"):
            mlp.load_state_dict(rearranged(Named([4, 4, 4, 4], bias).state_dict(), order))
    assert np.array_equal(mlp.parameters, before)


def test_numbers_that_count_against_the_module_are_refused():
    module, _ = square(3)
    state = renamed(module.state_dict(), ["up3", "up2", "up1"])
    with pytest.raises(ValueError, match="up3, up2, up1 leave the order of the layers open"):
        square(3)[1].load_state_dict(state)


def test_what_is_no_state_dict_of_plain_tensors():
    mlp = Mlp([5, 3], dtype="float32", backend="numpy")
    with pytest.raises(TypeError, match="names 0"):
        mlp.load_state_dict({0: np.zeros((3, 5))})
    for weight in (torch.zeros(3, 5).to_sparse(), torch.zeros(3, 5, device="meta")):
        with pytest.raises(ValueError, match=r"state\['0.weight'\] can't be read"):
            mlp.load_state_dict({"0.weight": weight, "0.bias": torch.zeros(3)})


def test_a_state_dict_is_a_dict():
    with pytest.raises(TypeError, match="state is a list"):
        Mlp([5, 3], loss="cross_entropy", dtype="float32", backend="numpy").load_state_dict([1])


# ---- ONNX ----


def onnx_outputs(path, X):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["X"]
    (outputs,) = session.run(["outputs"], {"X": X})
    return outputs


@pytest.mark.parametrize("dtype", DTYPES)
def test_onnx_computes_what_predict_does(network_options, dtype, tmp_path):
    mlp = built(network_options, dtype)
    mlp.to_onnx(tmp_path / "model.onnx")
    for n in (1, 40):
        X = samples(7, dtype, n)
        outputs = onnx_outputs(tmp_path / "model.onnx", X)
        assert outputs.dtype == dtype
        close(outputs, mlp.predict(X), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_goes_to_onnx_and_to_torch(activation, dtype, tmp_path):
    mlp = built(
        {"size_layers": [7, 5, 3], "activation": activation, "loss": "mean_squared_error", "output": activation}, dtype
    )
    X = samples(7, dtype)
    mlp.to_onnx(tmp_path / "model.onnx")
    close(onnx_outputs(tmp_path / "model.onnx", X), mlp.predict(X), dtype)
    close(mlp.to_torch().predict(torch.from_numpy(X)).numpy(), mlp.predict(X), dtype)


def test_onnx_of_a_trained_network_on_images(tmp_path):
    digits = data.digits()
    mlp = Mlp(
        [64, 20, 10],
        activation="relu",
        loss="cross_entropy",
        dtype="float32",
        seed=0,
        input_scale=1 / 16,
        backend="numpy",
    )
    mlp.fit(digits.train_images, digits.train_labels, epochs=3, optimizer=Sgd(0.1, 0.9), progress=False)
    mlp.to_onnx(tmp_path / "digits.onnx")
    outputs = onnx_outputs(tmp_path / "digits.onnx", digits.test_images.astype("float32"))
    assert np.mean(outputs.argmax(1) == digits.test_labels) == mlp.score(digits.test_images, digits.test_labels) > 0.8


def test_an_onnx_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    mlp = Mlp([3, 2], loss="cross_entropy", dtype="float32", backend="numpy")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def broken(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", broken)
        with pytest.raises(OSError, match="disk full"):
            mlp.to_onnx(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("model.onnx", b"old")]
    mlp.to_onnx(path)
    assert path.read_bytes() != b"old"
    with pytest.raises(FileNotFoundError, match="no folder"):
        mlp.to_onnx(tmp_path / "nowhere" / "model.onnx")


# ---- without the extras ----


@pytest.mark.parametrize(
    ("package", "extra", "action"),
    [
        ("torch", "torch", lambda mlp, path: mlp.to_torch()),
        ("torch", "torch", lambda mlp, path: mlp.state_dict()),
        ("torch", "torch", lambda mlp, path: Mlp.from_torch(nn.Linear(2, 2))),
        ("onnx", "onnx", lambda mlp, path: mlp.to_onnx(path)),
    ],
)
def test_without_the_package_the_extra_is_named(package, extra, action, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package} is not installed.*pip install 'fastmlp\[{extra}\]'"):
        action(Mlp([3, 2], loss="cross_entropy", dtype="float32", backend="numpy"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_importing_the_models_without_torch_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import fastmlp, fastmlp.torch_training, fastmlp.torch_data\n"
        "try:\n    import fastmlp.torch_models\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fastmlp[torch]'" in done.stdout


def test_training_needs_no_torch_and_imports_none():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from fastmlp import Mlp\n"
        "mlp = Mlp([2, 3, 2], activation='relu', loss='cross_entropy', dtype='float32', backend='numpy')\n"
        "mlp.fit([[0, 1], [1, 0]], [0, 1], epochs=1)\n"
        "mlp.load_state_dict({'a.weight': mlp.weights[0][:, 1:], 'a.bias': mlp.weights[0][:, 0],\n"
        "                     'b.weight': mlp.weights[1][:, 1:], 'b.bias': mlp.weights[1][:, 0]})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_inside_an_installed_package_is_not_hidden(monkeypatch):
    from fastmlp import extras

    def failing(name):
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr(extras.importlib, "import_module", failing)
    with pytest.raises(ModuleNotFoundError) as caught:
        extras.load("torch", "torch")
    assert caught.type is ModuleNotFoundError
