"""Networks to PyTorch and back, weights without loss: what `Mlp.to_torch`, `Mlp.from_torch` and the state dicts do."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmlp import checks, extras
from fastmlp.kernels import Network
from fastmlp.kernels.activations import LEAKY_RELU_SLOPE, SOFTMAX
from fastmlp.kernels.losses import CROSS_ENTROPY, OUTPUTS
from fastmlp.kernels.names import unknown_name
from fastmlp.kernels.network import DTYPES
from fastmlp.lab_mlp import refuse_overridden
from fastmlp.modelfile import named_views

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fastmlp.mlp import Mlp
    from fastmlp.torch_models import TorchMlp

__all__ = ["from_torch", "load_state_dict", "state_dict", "to_torch"]


class Inexpressible(ValueError):
    """A PyTorch module has something that `Mlp` does not; the message names it."""


# ---- to PyTorch ----


def to_torch(mlp: "Mlp") -> "TorchMlp":
    """The network as a PyTorch module; see `Mlp.to_torch`."""
    extras.load("torch", "torch")
    from fastmlp.torch_models import TorchMlp

    refuse_overridden(mlp, "a PyTorch module")
    net = mlp.network
    model = TorchMlp(
        net.sizes,
        net.activations[:-1],
        net.bias,
        loss=net.loss,
        output=net.activations[-1],
        dtype=net.dtype,
        input_scale=net.input_scale,
        input_shift=net.input_shift,
    )
    model.load_state_dict(state_dict(mlp))
    return model


def state_dict(mlp: "Mlp") -> "dict[str, torch.Tensor]":
    """Copies of the weights as tensors; see `Mlp.state_dict`."""
    torch = extras.load("torch", "torch")
    views = named_views(mlp.network, mlp.parameters)
    return {name: torch.from_numpy(view.copy(order="C")) for name, view in views.items()}


# ---- from PyTorch ----


def load_state_dict(mlp: "Mlp", state: Mapping[str, Any]) -> None:
    """Take the weights of a state dict; see `Mlp.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is a {type(state).__name__}; expected a state dict, from names to tensors")
    if not all(isinstance(name, str) for name in state):
        raise TypeError(f"state has the names {', '.join(map(repr, state))}; expected texts such as layers.0.weight")
    views = named_views(mlp.network, mlp.parameters)
    names = list(views) if set(state) == set(views) else names_by_layer(state, mlp.network)
    if len(names) != len(views):
        raise ValueError(f"state holds {', '.join(names) or 'nothing'}; expected {', '.join(views)}")
    arrays = {}
    for own, given in zip(views, names, strict=True):
        array = as_array(f"state[{given!r}]", state[given], mlp.network.dtype)
        if given.rpartition(".")[2] != own.rpartition(".")[2] or array.shape != views[own].shape:
            shapes = f"{list(array.shape)}; expected {own} {list(views[own].shape)}"
            raise ValueError(f"state[{given!r}] has shape {shapes}")
        arrays[own] = array
    mlp._take_in(as_rows(arrays, mlp.network.layers, mlp.network.bias))


def names_by_layer(state: Mapping[str, Any], network: Network) -> list[str]:
    """The names of a state dict in the order of the layers, of each the weight first.

    Raises
    ------
    ValueError
        If that order is left open.
    """
    layers: dict[str, list[str]] = {}
    for name in state:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    shapes = list(pairwise(network.sizes))
    orders = possible_orders(state, list(layers)) if len(layers) == len(shapes) else [list(layers)]
    if not orders and len(set(shapes)) == len(shapes):  # only one order has layers of these shapes
        by_shape = {shape_of(state.get(f"{layer}.weight")): layer for layer in layers}
        orders = [[by_shape[shape] for shape in shapes]] if set(shapes) == set(by_shape) else [list(layers)]
    fitting = [order for order in orders if [shape_of(state.get(f"{layer}.weight")) for layer in order] == shapes]
    if not orders or len(fitting) > 1:
        raise ValueError(
            f"state's names {', '.join(layers)} leave the order of the layers open, and their shapes fit several; "
            "expected a module's own state_dict(), or names with numbers: layers.0.weight, layers.0.bias, ..."
        )
    return [name for layer in (fitting or orders)[0] for name in sorted(layers[layer], reverse=True)]


def possible_orders(state: Mapping[str, Any], layers: list[str]) -> list[list[str]]:
    """The orders of the layers that a state dict may mean: that of its names' numbers, that in which it lists them.

    A module's own state dict lists its layers as the module does, and of each the weight first. One that was read from
    a file may be sorted by its names ("0", "10", "2") or in no order at all, and its listing then means nothing.
    """
    numbers = {layer: [int(digits) for digits in re.findall(r"\d+", layer)] for layer in layers}
    numbered = len({re.sub(r"\d+", "0", layer) for layer in layers}) == 1
    parts = [part for layer in layers for part in layer.split(".")]
    indexed = numbered and all(part.isdecimal() or not re.search(r"\d", part) for part in parts)  # as in a Sequential
    pairs = [name for layer in layers for name in (f"{layer}.weight", f"{layer}.bias")]
    listed = hasattr(state, "_metadata") or list(state) == pairs or len(layers) == 1
    orders = [sorted(layers, key=numbers.__getitem__)] if numbered else []
    if listed and not indexed and layers not in orders and not (numbered and layers == sorted(layers)):
        orders.append(layers)
    return orders


def shape_of(weight: Any) -> tuple[int, ...]:
    """A weight's shape as a pair of sizes, inputs first; empty for what has none."""
    return tuple(getattr(weight, "shape", ()))[::-1]


def as_array(name: str, given: Any, dtype: str) -> np.ndarray:
    """A tensor or array in that dtype, which must hold its values exactly.

    Raises
    ------
    ValueError
        If it is no float, a wider one, or not finite.
    """
    if hasattr(given, "detach"):
        import torch

        try:
            tensor = given.detach().cpu()
            given = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        except (TypeError, RuntimeError) as error:  # sparse ones, quantized ones, those without values
            raise ValueError(f"{name} can't be read as an array: {error}") from None
    array = checks.numeric(name, given)
    if array.dtype.kind != "f" or not np.can_cast(array.dtype, dtype):
        raise ValueError(f"{name} is {array.dtype}; expected {dtype}, as the network is, or a dtype that fits into it")
    return checks.finite(name, array).astype(dtype)


def as_rows(arrays: Mapping[str, np.ndarray], layers: int, bias: bool) -> list[np.ndarray]:
    """Weights and biases as the matrices of `Mlp.weights`, the bias in column 0."""
    rows = []
    for layer in range(layers):
        weight = arrays[f"layers.{layer}.weight"]
        rows.append(np.column_stack([arrays[f"layers.{layer}.bias"], weight]) if bias else weight)
    return rows


class Description(NamedTuple):
    """What a PyTorch module amounts to."""

    linears: "list[nn.Linear]"
    activations: list[str]  #: one for each of them, the last the output's; "identity" where there is none
    loss: str | None  #: where the module tells
    input_scale: float = 1.0
    input_shift: float = 0.0


def from_torch(cls: "type[Mlp]", module: "nn.Module", loss: str | None, options: dict[str, Any]) -> "Mlp":
    """An `Mlp` with the weights of a PyTorch module; see `Mlp.from_torch`."""
    extras.load("torch", "torch")
    description = describe(module)
    linears = description.linears
    dtype, bias = check_linears(linears)
    loss = description.loss if loss is None else loss
    loss, output = loss_and_output(description.activations[-1], loss, linears[-1].out_features)
    inputs = {"input_scale": description.input_scale, "input_shift": description.input_shift}
    drawn = np.random.get_state()  # noqa: NPY002 (weights that are replaced at once shall draw nothing)
    mlp = cls(
        [linears[0].in_features, *(linear.out_features for linear in linears)],
        activation=description.activations[:-1],
        output=output,
        loss=loss,
        init="torch",
        dtype=dtype,
        bias=bias,
        **{**inputs, **options},
    )
    np.random.set_state(drawn)  # noqa: NPY002
    arrays = {}
    for layer, linear in enumerate(linears):
        for name, parameter in linear.named_parameters():
            arrays[f"layers.{layer}.{name}"] = parameter.detach().cpu().numpy()
    mlp._take_in(as_rows(arrays, len(linears), bias))
    return mlp


def describe(module: "nn.Module") -> Description:
    """What a `TorchMlp` or a Sequential amounts to.

    Raises
    ------
    TypeError
        If it is no module.
    Inexpressible
        If `Mlp` lacks something that it has.
    """
    from torch import nn

    from fastmlp.torch_models import TorchMlp

    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a torch.nn.Module")
    if type(module) is TorchMlp:
        refuse_hooks("module", module)
        net = module.network
        linears = [linear_at(f"module.layers[{i}]", layer) for i, layer in enumerate(module.layers)]
        return Description(linears, list(net.activations), net.loss, net.input_scale, net.input_shift)
    if type(module) not in (nn.Sequential, nn.Linear):
        raise Inexpressible(
            f"module is a {type(module).__name__}; expected a torch.nn.Sequential of Linear and activations, a Linear "
            "or a TorchMlp"
        )
    return described_chain(list(flattened("module", module)))


def flattened(where: str, module: "nn.Module") -> "Iterator[tuple[str, nn.Module]]":
    """A Sequential's modules with where they stand, those of Sequentials within it, too."""
    from torch import nn

    refuse_hooks(where, module)
    if type(module) is not nn.Sequential:
        yield where, module
        return
    for position, child in enumerate(module):
        yield from flattened(f"{where}[{position}]", child)


def refuse_hooks(where: str, module: "nn.Module") -> None:
    """Refuse functions that run with a module's forward pass: nobody can see what they do."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise Inexpressible(f"{where} ({type(module).__name__}) has forward hooks; Mlp has none")


def described_chain(chain: "list[tuple[str, nn.Module]]") -> Description:
    """What modules one after another amount to: Linear, and after each one activation or none.

    Raises
    ------
    Inexpressible
        Naming the first that does not fit.
    """
    from torch import nn

    linears: list[nn.Linear] = []
    activations: list[str] = []  # as many as linears, once each has its own
    for where, module in chain:
        if type(module) is nn.Identity or (is_flatten(module) and not linears):
            continue
        if type(module) is nn.Linear:
            activations += ["identity"] * (len(linears) - len(activations))
            linears.append(linear_at(where, module))
            continue
        name = activation_name(where, module)
        if len(activations) >= len(linears):
            what = "after another activation" if linears else "before the first Linear"
            raise Inexpressible(f"{where} is {module} {what}; Mlp has one activation after each layer of weights")
        activations.append(name)
    if not linears:
        raise Inexpressible("module has no Linear; expected one at least")
    activations += ["identity"] * (len(linears) - len(activations))
    if SOFTMAX in activations[:-1]:
        raise Inexpressible("module has a softmax before its end; Mlp has softmax as its output alone")
    return Description(linears, activations, None)


def is_flatten(module: "nn.Module") -> bool:
    """Whether a module makes rows of samples, as `Mlp` takes them anyway."""
    from torch import nn

    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def linear_at(where: str, module: "nn.Module") -> "nn.Linear":
    """The module, if it is a plain Linear."""
    from torch import nn

    refuse_hooks(where, module)
    if type(module) is not nn.Linear:
        raise Inexpressible(f"{where} is {module}; expected a Linear")
    return module


def activation_name(where: str, module: "nn.Module") -> str:
    """The name of an activation module as `Mlp` knows it.

    Raises
    ------
    Inexpressible
        If `Mlp` has no such thing.
    """
    from torch import nn

    names: dict[type, str] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
    kind = type(module)
    if kind in names:
        return names[kind]
    if isinstance(module, nn.LeakyReLU) and module.negative_slope == LEAKY_RELU_SLOPE:
        return "leaky_relu"
    if isinstance(module, nn.Softmax | nn.LogSoftmax) and module.dim in (1, -1):
        return SOFTMAX
    known = f"Linear, ReLU, LeakyReLU({LEAKY_RELU_SLOPE:g}), Sigmoid, Tanh, Identity, and Softmax at the end"
    raise Inexpressible(f"{where} is {module}; Mlp can express {known}")


def check_linears(linears: "list[nn.Linear]") -> tuple[str, bool]:
    """The one dtype of all layers, and whether they have a bias.

    Raises
    ------
    Inexpressible
        If they differ, do not fit together, share parameters, or are of a dtype that `Mlp` lacks.
    """
    for before, after in pairwise(linears):
        if before.out_features != after.in_features:
            raise Inexpressible(f"module has {before} before {after}; expected as many inputs as units before them")
    parameters = [parameter for linear in linears for parameter in linear.parameters()]
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise Inexpressible("module uses the same parameters in several layers; Mlp shares none")
    biases = {linear.bias is not None for linear in linears}
    if len(biases) > 1:
        raise Inexpressible("module has some layers with and some without bias; in Mlp all have one, or none")
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        raise Inexpressible(f"module's parameters are {', '.join(dtypes)}; expected all {' or all '.join(DTYPES)}")
    return dtypes[0], biases.pop()


def loss_and_output(last: str, loss: str | None, n_out: int) -> tuple[str, str]:
    """The loss, and the output activation of an `Mlp` for a module that ends in this activation.

    Raises
    ------
    ValueError
        If the loss is not known, or a module that ends in one plain unit leaves it open.
    """
    if loss is not None and loss not in OUTPUTS:
        raise unknown_name("loss", loss, OUTPUTS)
    if loss is None and last == "identity" and n_out == 1:
        raise ValueError(
            "loss=None for a module that ends in one unit without activation; expected loss='binary_cross_entropy' "
            "(its outputs are logits) or loss='mean_squared_error'"
        )
    if loss is None:
        by_output = {"identity": CROSS_ENTROPY, SOFTMAX: CROSS_ENTROPY, "sigmoid": "binary_cross_entropy"}
        loss = by_output.get(last, "mean_squared_error")
    # PyTorch's modules end in logits where its loss has the softmax or sigmoid in it.
    return loss, OUTPUTS[loss][0] if last == "identity" else last
