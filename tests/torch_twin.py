"""PyTorch's answer to what the kernels are asked: the same network, loss, gradients and steps, written with torch."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fastmlp.kernels import Network, Rule
from fastmlp.kernels.losses import CROSS_ENTROPY

torch.set_num_threads(1)  # the problems are tiny, and the machine's cores are our kernels'

#: A new activation's own function in PyTorch is entered here.
ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


class Twin:
    """A network's parameters as PyTorch's own tensors."""

    def __init__(self, network: Network, parameters: np.ndarray, rule: Rule | None = None) -> None:
        self.network = network
        self.layers = []  # (weight, bias or None)
        for rows in network.rows(parameters):
            bias = torch.tensor(rows[:, 0], requires_grad=True) if network.bias else None
            self.layers.append((torch.tensor(rows[:, int(network.bias) :], requires_grad=True), bias))
        self.tensors = [tensor for layer in self.layers for tensor in layer if tensor is not None]
        self.optimizer = None if rule is None else optimizer(rule, self.tensors)

    def activations(self, X: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Of every layer; and the logits."""
        a = torch.from_numpy(X).to(self.layers[0][0].dtype) * self.network.input_scale + self.network.input_shift
        values = []
        for (weight, bias), name in zip(self.layers, self.network.activations, strict=True):
            z = F.linear(a, weight, bias)
            a = torch.softmax(z, 1) if name == "softmax" else ACTIVATIONS[name](z)
            values.append(a)
        return values, z

    def loss(self, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None = None) -> torch.Tensor:
        """Mean over the samples of the sum over the outputs; with weights Σ wᵢ · / Σ wᵢ."""
        values, logits = self.activations(X)
        n, n_out = logits.shape
        y, weighted = torch.from_numpy(Y), weights is not None
        if self.network.loss == CROSS_ENTROPY:
            loss = F.cross_entropy(logits, y.long() if y.ndim == 1 else y, reduction="none" if weighted else "mean")
            return mean_of(loss, weights) if weighted else loss
        if y.ndim == 1:
            y = (F.one_hot(y.long(), n_out) if n_out > 1 else y[:, None]).to(logits.dtype)
        how = "none" if weighted else "sum"
        if self.network.loss == "binary_cross_entropy":
            loss = F.binary_cross_entropy_with_logits(logits, y, reduction=how)
            return mean_of(loss.sum(1), weights) if weighted else loss / n
        loss = F.mse_loss(values[-1], y, reduction=how)
        return mean_of(loss.sum(1), weights) / 2 if weighted else loss / (2 * n)

    def backward(self, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Fill the gradients of loss and penalty; returns the loss alone."""
        for tensor in self.tensors:
            tensor.grad = None
        loss, many = self.loss(X, Y, weights), len(X) if weights is None else weights.sum()
        penalty = sum((weight**2).sum() for weight, _ in self.layers) * (self.network.l2 / (2 * many))
        (loss + penalty).backward()
        return loss.item()

    def step(self, X: np.ndarray, Y: np.ndarray) -> float:
        """One step of the optimiser; returns the loss before it."""
        loss = self.backward(X, Y)
        self.optimizer.step()
        return loss

    def flat(self, gradients: bool = False) -> np.ndarray:
        """Parameters, or gradients, as the kernels lay them out."""
        flat = self.network.zeros()
        for rows, (weight, bias) in zip(self.network.rows(flat), self.layers, strict=True):
            rows[:, int(self.network.bias) :] = (weight.grad if gradients else weight.detach()).numpy()
            if bias is not None:
                rows[:, 0] = (bias.grad if gradients else bias.detach()).numpy()
        return flat


def mean_of(losses: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """The mean of the samples' losses with these weights."""
    w = torch.from_numpy(weights).to(losses.dtype)
    return (losses * w).sum() / w.sum()


def optimizer(rule: Rule, tensors: list[torch.Tensor]) -> Any:
    """torch.optim's optimiser for a rule."""
    if rule.kind == "adam":
        return torch.optim.Adam(tensors, rule.learning_rate, (rule.beta1, rule.beta2), rule.epsilon)
    return torch.optim.SGD(tensors, rule.learning_rate, rule.momentum, nesterov=rule.kind == "nesterov")
