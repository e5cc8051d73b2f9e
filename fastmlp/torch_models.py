"""The lab's PyTorch models: the MLP that judges `Mlp`, the CNN, and a small MLP-Mixer.

They are references and rivals; `Mlp` itself trains without PyTorch. Importing this module imports PyTorch, and raises
`fastmlp.extras.ExtraMissing`, an ImportError, where that is not installed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fastmlp import checks, extras
from fastmlp.kernels import Network
from fastmlp.kernels.activations import LEAKY_RELU_SLOPE, SOFTMAX
from fastmlp.kernels.losses import CROSS_ENTROPY

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import nn
else:
    torch = extras.load("torch", "torch")
    nn = torch.nn
    F = nn.functional

__all__ = ["ACTIVATIONS", "TorchCnn", "TorchMixer", "TorchMlp"]

#: The one loss whose counterpart in PyTorch takes outputs, not logits.
SQUARED_ERROR = "mean_squared_error"


def leaky_relu(z: "torch.Tensor") -> "torch.Tensor":
    """Leaky ReLU with the slope that the kernels have."""
    return F.leaky_relu(z, LEAKY_RELU_SLOPE)


def softmax(z: "torch.Tensor") -> "torch.Tensor":
    """Softmax over the units of a layer."""
    return F.softmax(z, dim=1)


def identity(z: "torch.Tensor") -> "torch.Tensor":
    """The pre-activation itself."""
    return z


#: name of an activation, as in `fastmlp.kernels.activations` -> PyTorch's own function
ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": leaky_relu,
    "tanh": torch.tanh,
    "identity": identity,
    SOFTMAX: softmax,
}


class TorchMlp(nn.Module):
    """A multilayer perceptron in PyTorch; ``TorchMlp([784, 100, 10])`` is the lab's.

    Its ``state_dict`` has the names and shapes of a model file of `Mlp.save`: ``layers.0.weight`` [n_out, n_in],
    ``layers.0.bias`` [n_out].

    Parameters
    ----------
    sizes : sequence of int
        Inputs, units of each hidden layer, outputs.
    activation : str or sequence of str, default "relu"
        Of the hidden layers, one for all or one for each, by the names of `Mlp`.
    bias : bool, default True
        Whether units have a bias.
    loss : str, default "cross_entropy"
        The loss of `Mlp` that it is trained with.
    output : str, optional
        Activation of the output; the default goes with the loss.
    dtype : {"float32", "float64"} or torch.dtype, default "float32"
        Of parameters and arithmetic.
    input_scale, input_shift : float, defaults 1.0 and 0.0
        A sample x enters as x * input_scale + input_shift.

    Attributes
    ----------
    network : fastmlp.kernels.Network
        The description that all this amounts to.
    layers : torch.nn.ModuleList of torch.nn.Linear
        Drawn as PyTorch draws them, from its global generator (``torch.manual_seed``).

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message says which, what was given and what was expected.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        bias: bool = True,
        *,
        loss: str = CROSS_ENTROPY,
        output: str | None = None,
        dtype: "str | torch.dtype" = "float32",
        input_scale: float = 1.0,
        input_shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = Network.build(
            sizes,
            activation,
            output,
            loss,
            bias=checks.flag("bias", bias),
            dtype=str(dtype).removeprefix("torch."),
            input_scale=checks.number("input_scale", input_scale),
            input_shift=checks.number("input_shift", input_shift),
        )
        torch_dtype = getattr(torch, self.network.dtype)
        self.layers = nn.ModuleList(
            nn.Linear(n_in, n_out, bias=self.network.bias, dtype=torch_dtype)
            for n_in, n_out in pairwise(self.network.sizes)
        )

    def forward(self, X: "torch.Tensor") -> "torch.Tensor":
        """What PyTorch's loss for `loss` takes.

        Parameters
        ----------
        X : tensor, [n, n_in] or [n, ...] with n_in values a sample
            Of any dtype; converted to the network's.

        Returns
        -------
        tensor, [n, n_out]
            Logits for torch.nn.CrossEntropyLoss ("cross_entropy") and torch.nn.BCEWithLogitsLoss
            ("binary_cross_entropy"); the outputs themselves for "mean_squared_error".
        """
        logits = self.logits(X)
        return (
            logits if self.network.loss != "mean_squared_error" else ACTIVATIONS[self.network.activations[-1]](logits)
        )

    def logits(self, X: "torch.Tensor") -> "torch.Tensor":
        """Pre-activations of the output, [n, n_out]."""
        net = self.network
        a = X.flatten(1).to(next(self.parameters()).dtype)  # it may have been changed since
        if (net.input_scale, net.input_shift) != (1.0, 0.0):
            a = a * net.input_scale + net.input_shift
        for layer, name in zip(self.layers[:-1], net.activations, strict=False):
            a = ACTIVATIONS[name](layer(a))
        return self.layers[-1](a)

    @torch.no_grad()
    def predict(self, X: "torch.Tensor") -> "torch.Tensor":
        """Outputs as `Mlp.predict` gives them, probabilities after softmax or sigmoid; without gradients."""
        return ACTIVATIONS[self.network.activations[-1]](self.logits(X))

    def extra_repr(self) -> str:
        """What the layers do not show."""
        net = self.network
        scaling = f", input_scale={net.input_scale:g}, input_shift={net.input_shift:g}"
        shown = scaling if (net.input_scale, net.input_shift) != (1.0, 0.0) else ""
        return f"activations={list(net.activations)}, loss={net.loss!r}{shown}"


class TorchCnn(nn.Module):
    """The lab's convolutional network for 28 × 28 images and ten classes.

    Convolution 1 → 10 (5 × 5), max-pooling by 2, ReLU; convolution 10 → 20 (5 × 5), dropout of whole maps, max-pooling
    by 2, ReLU; flattened to 320; linear to 60, ReLU, dropout; linear to 10; log-softmax.

    Parameters
    ----------
    dropout : float, default 0.5
        The share that both dropouts drop in training, 0 to below 1; the default is PyTorch's, which the lab leaves.
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        if not 0 <= checks.number("dropout", dropout) < 1:
            raise ValueError(f"dropout={dropout}; expected 0 to below 1")
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(320, 60)
        self.fc1_drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(60, 10)

    def forward(self, X: "torch.Tensor") -> "torch.Tensor":
        """Log-probabilities.

        Parameters
        ----------
        X : tensor, [n, 1, 28, 28], [n, 28, 28] or [n, 784]

        Returns
        -------
        tensor, [n, 10]
            For torch.nn.NLLLoss, or for torch.nn.CrossEntropyLoss: log-softmax leaves them as they are.
        """
        a = F.relu(F.max_pool2d(self.conv1(as_images(X, 28)), 2))
        a = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(a)), 2))
        a = self.fc1_drop(F.relu(self.fc1(a.flatten(1))))
        return F.log_softmax(self.fc2(a), dim=1)


class TorchMixer(nn.Module):
    """A small MLP-Mixer: images cut into patches, and nothing but MLPs over them.

    Each patch is embedded by one linear map. A block mixes over the patches (tokens), then over the channels, each
    time layer norm, an MLP with GELU, and a skip connection. After the blocks a layer norm, the mean over the patches,
    and a linear classifier. Source: Tolstikhin et al., MLP-Mixer, NeurIPS 2021, figure 1 and equation 1.

    Parameters
    ----------
    patch_size : int, default 7
        Side of a patch; a divisor of image_size, for MNIST 7 or 4.
    channels : int, default 64
        Width of an embedded patch.
    blocks : int, default 2
        How often tokens and channels are mixed.
    token_units, channel_units : int, defaults 32 and 128
        Hidden units of the two MLPs of a block.
    image_size : int, default 28
    classes : int, default 10

    Raises
    ------
    TypeError, ValueError
        If an argument is not a positive whole number, or patches do not tile the image.
    """

    def __init__(
        self,
        patch_size: int = 7,
        channels: int = 64,
        blocks: int = 2,
        token_units: int = 32,
        channel_units: int = 128,
        *,
        image_size: int = 28,
        classes: int = 10,
    ) -> None:
        super().__init__()
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name, value in given.items():
            checks.whole(name, value)
        if image_size % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size}")
        self.image_size, self.patch_size = image_size, patch_size
        tokens = (image_size // patch_size) ** 2
        self.embed = nn.Linear(patch_size**2, channels)
        self.blocks = nn.Sequential(
            *(MixerBlock(tokens, channels, token_units, channel_units) for _ in range(blocks)),
        )
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def patches(self, X: "torch.Tensor") -> "torch.Tensor":
        """Images [n, ...] as [n, patches, pixels of a patch], row by row."""
        side, patch = self.image_size // self.patch_size, self.patch_size
        tiles = as_images(X, self.image_size).reshape(-1, side, patch, side, patch)
        return tiles.transpose(2, 3).reshape(-1, side**2, patch**2)

    def forward(self, X: "torch.Tensor") -> "torch.Tensor":
        """Logits.

        Parameters
        ----------
        X : tensor, [n, 1, side, side], [n, side, side] or [n, side * side]

        Returns
        -------
        tensor, [n, classes]
        """
        tokens = self.blocks(self.embed(self.patches(X)))
        return self.head(self.norm(tokens).mean(1))


class MixerBlock(nn.Module):
    """One layer of an MLP-Mixer: tokens mixed, then channels."""

    def __init__(self, tokens: int, channels: int, token_units: int, channel_units: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.token_mlp = mixing_mlp(tokens, token_units)
        self.channel_norm = nn.LayerNorm(channels)
        self.channel_mlp = mixing_mlp(channels, channel_units)

    def forward(self, X: "torch.Tensor") -> "torch.Tensor":
        """Tokens [n, tokens, channels] to tokens of the same shape."""
        U = X + self.token_mlp(self.token_norm(X).transpose(1, 2)).transpose(1, 2)
        return U + self.channel_mlp(self.channel_norm(U))


def mixing_mlp(width: int, hidden: int) -> "nn.Sequential":
    """Two linear maps over the last axis with GELU between."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def as_images(X: "torch.Tensor", side: int) -> "torch.Tensor":
    """Samples as [n, 1, side, side].

    Raises
    ------
    ValueError
        If a sample has another number of values.
    """
    if X.ndim < 2 or X[0].numel() != side * side:
        raise ValueError(f"X has shape {list(X.shape)}; expected images of {side} × {side}, [n, 1, {side}, {side}]")
    return X.reshape(-1, 1, side, side)
