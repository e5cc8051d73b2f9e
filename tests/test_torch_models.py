"""The PyTorch references: their layers, shapes and formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmlp.torch_models import TorchCnn, TorchMixer, TorchMlp, mixing_mlp


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# ---- TorchMlp ----


def test_the_labs_mlp():
    model = TorchMlp([784, 100, 10])
    assert count(model) == 784 * 100 + 100 + 100 * 10 + 10 == 79_510
    assert list(model.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    X = torch.rand(5, 1, 28, 28)
    first, second = model.layers
    expected = second(torch.relu(first(X.reshape(5, 784))))
    assert torch.equal(model(X), expected)
    assert torch.equal(model.predict(X), torch.softmax(expected, 1))
    assert model(X).requires_grad
    assert not model.predict(X).requires_grad


def test_weights_are_drawn_as_linear_draws_them():
    torch.manual_seed(3)
    expected = [nn.Linear(4, 3), nn.Linear(3, 2)]
    torch.manual_seed(3)
    model = TorchMlp([4, 3, 2], "tanh")
    for layer, linear in zip(model.layers, expected, strict=True):
        assert torch.equal(layer.weight, linear.weight)
        assert torch.equal(layer.bias, linear.bias)


def test_options():
    model = TorchMlp([4, 3, 2], ["sigmoid"], False, loss="mean_squared_error", dtype=torch.float64, input_shift=1.0)
    X = torch.randint(0, 9, (6, 4), dtype=torch.uint8)
    a = torch.sigmoid((X.double() + 1) @ model.layers[0].weight.T) @ model.layers[1].weight.T
    torch.testing.assert_close(model(X), a, rtol=0, atol=1e-14)
    assert "input_shift=1" in repr(model)
    assert "sigmoid" in repr(model)


def test_its_dtype_can_be_changed_as_pytorchs_modules_are():
    model = TorchMlp([4, 3]).double()
    assert model(torch.rand(2, 4)).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([4],), {}, ValueError, r"sizes=\[4\]"),
        (([4, 3], "relu", 1), {}, TypeError, "bias=1"),
        (([4, 3, 2], "gelu"), {}, ValueError, "activation='gelu'"),
        (([4, 3],), {"dtype": "float16"}, ValueError, "dtype='float16'"),
        (([4, 3],), {"loss": "nll"}, ValueError, "loss='nll'"),
        (([4, 3],), {"input_scale": "1"}, TypeError, "input_scale='1'"),
    ],
)
def test_torch_mlp_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        TorchMlp(*arguments, **options)


# ---- TorchCnn ----

#: The lab's network worked out by hand: name of the layer, shape of its output, parameters.
#: 28 - 5 + 1 = 24, halved 12; 12 - 5 + 1 = 8, halved 4; 20 * 4 * 4 = 320.
CNN_TABLE = [
    ("conv1", (3, 10, 24, 24), 10 * (1 * 5 * 5) + 10),
    ("conv2", (3, 20, 8, 8), 20 * (10 * 5 * 5) + 20),
    ("conv2_drop", (3, 20, 8, 8), 0),
    ("fc1", (3, 60), 320 * 60 + 60),
    ("fc1_drop", (3, 60), 0),
    ("fc2", (3, 10), 60 * 10 + 10),
]


def test_the_cnns_layers_against_a_table_worked_by_hand():
    model = TorchCnn()
    shapes = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape)}))
    outputs = model(torch.rand(3, 1, 28, 28))
    assert outputs.shape == (3, 10)
    assert list(shapes) == [name for name, _, _ in CNN_TABLE]
    for name, shape, parameters in CNN_TABLE:
        assert shapes[name] == shape
        assert count(getattr(model, name)) == parameters
    assert count(model) == 260 + 5_020 + 19_260 + 610 == 25_150


def test_the_cnn_computes_what_the_lab_describes():
    """Without dropout, against the operations one by one: pooling before ReLU, and flattened map by map."""
    torch.manual_seed(0)
    model, X = TorchCnn().eval(), torch.rand(4, 1, 28, 28)
    a = torch.relu(F.max_pool2d(F.conv2d(X, model.conv1.weight, model.conv1.bias), 2))
    a = torch.relu(F.max_pool2d(F.conv2d(a, model.conv2.weight, model.conv2.bias), 2)).reshape(4, 320)
    a = torch.relu(a @ model.fc1.weight.T + model.fc1.bias) @ model.fc2.weight.T + model.fc2.bias
    torch.testing.assert_close(model(X), torch.log_softmax(a, 1), rtol=0, atol=1e-5)
    for shape in ((4, 784), (4, 28, 28)):
        assert torch.equal(model(X.reshape(shape)), model(X))
    torch.testing.assert_close(model(X).exp().sum(1), torch.ones(4))


def test_the_cnn_drops_whole_maps_and_units_in_training_alone():
    model = TorchCnn().train()
    seen = {}
    for name in ("conv2_drop", "fc1_drop"):
        getattr(model, name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    X = torch.rand(200, 784)
    model(X)
    maps = seen["conv2_drop"].flatten(2)
    dropped = (maps == 0).all(2)
    assert torch.equal(dropped, (maps == 0).any(2))
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert isinstance(model.conv2_drop, nn.Dropout2d)
    assert (model.conv2_drop.p, model.fc1_drop.p) == (0.5, 0.5)
    model.eval()
    assert torch.equal(model(X), model(X))


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"X has shape \[2, 64\]; expected images of 28 × 28"):
        TorchCnn()(torch.zeros(2, 64))
    with pytest.raises(ValueError, match=r"dropout=1.0; expected 0 to below 1"):
        TorchCnn(1.0)


# ---- TorchMixer ----


@pytest.mark.parametrize(("patch_size", "tokens"), [(7, 16), (4, 49)])
def test_patches_are_the_tiles_of_the_image(patch_size, tokens):
    model = TorchMixer(patch_size)
    X = torch.arange(2 * 784.0).reshape(2, 784)
    patches = model.patches(X)
    assert patches.shape == (2, tokens, patch_size**2)
    image, across = X[1].reshape(28, 28), 28 // patch_size
    for token in (0, 1, across, tokens - 1):
        row, column = divmod(token, across)
        rows = slice(row * patch_size, (row + 1) * patch_size)
        columns = slice(column * patch_size, (column + 1) * patch_size)
        assert torch.equal(patches[1, token], image[rows, columns].flatten())


@pytest.mark.parametrize("patch_size", [7, 4])
def test_the_mixer_follows_the_papers_formula(patch_size):
    """U = X + W₂ gelu(W₁ norm(X)) over the tokens, Y = U + W₄ gelu(W₃ norm(U)) over the channels."""
    torch.manual_seed(1)
    model = TorchMixer(patch_size, channels=12, blocks=3, token_units=5, channel_units=9).double()
    images = torch.rand(4, 784, dtype=torch.float64)

    def norm(x, layer):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred**2).mean(-1, keepdim=True) + layer.eps
        return centred / spread.sqrt() * layer.weight + layer.bias

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    def mlp(x, layers):
        first, _, second = layers
        return gelu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias

    X = model.patches(images) @ model.embed.weight.T + model.embed.bias
    for block in model.blocks:
        X = X + mlp(norm(X, block.token_norm).mT, block.token_mlp).mT
        X = X + mlp(norm(X, block.channel_norm), block.channel_mlp)
    expected = norm(X, model.norm).mean(1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-12)


def test_the_mixers_size_worked_by_hand():
    """Tokens 16, channels 64, two blocks of two norms (128 each), token MLP 16-32-16, channel MLP 64-128-64."""
    block = 2 * 128 + (16 * 32 + 32 + 32 * 16 + 16) + (64 * 128 + 128 + 128 * 64 + 64)
    assert count(TorchMixer()) == (49 * 64 + 64) + 2 * block + 128 + (64 * 10 + 10) == 39_786


def test_the_mixers_pixels_all_reach_the_output():
    model = TorchMixer(4).double()
    X = torch.rand(1, 784, dtype=torch.float64, requires_grad=True)
    model(X)[0, 3].backward()
    assert (X.grad != 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patch_size": 5}, ValueError, "patch_size=5 does not divide image_size=28"),
        ({"blocks": 0}, ValueError, "blocks=0; expected 1 or more"),
        ({"channels": 2.5}, TypeError, "channels=2.5"),
    ],
)
def test_the_mixer_refuses(options, error, message):
    with pytest.raises(error, match=message):
        TorchMixer(**options)


def test_mixing_mlp_is_two_layers_with_gelu_between():
    assert [type(layer).__name__ for layer in mixing_mlp(4, 3)] == ["Linear", "GELU", "Linear"]
    assert np.shape(mixing_mlp(4, 3)[0].weight) == (3, 4)
