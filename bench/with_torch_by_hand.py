"""PyTorch's operations called by hand, as a contender."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastmlp.bench.contender import Contender, Missing, Settings, expect_training, thread_counts
from fastmlp.bench.with_torch import import_torch
from fastmlp.bench.work import Work


class TorchByHand(Contender):
    """PyTorch's operations called by hand: no autograd, nothing allocated, as few calls as was found possible.

    Products write into preallocated tensors; v ← μ v + g is the gradient's product itself (``beta`` of ``addmm_``), so
    that no gradient is stored; w ← w - η v is one call over one flat tensor that holds all parameters. The losses are
    taken from the kept logits once at the end. Forms to choose from: weights stored [in, out] or [out, in]; biases
    apart, or as a row of the weights with a column of ones beside the samples.
    """

    label = "PyTorch by hand"
    family = "PyTorch by hand"
    package = "torch"

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Threads, and both layouts of weights and biases: threads, which matter most, before patience can be over."""
        return [
            {"threads": threads, "weights": weights, "bias": bias}
            for weights in ("in_out", "out_in")
            for bias in ("apart", "in_weights")
            for threads in thread_counts(cores)
        ]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_training(work)
        if work.rule.kind not in ("plain", "momentum"):
            raise Missing(f"not written by hand for the rule {work.rule.kind!r}")
        if work.activation not in ("relu", "sigmoid", "tanh"):
            raise Missing(f"not written by hand for the activation {work.activation!r}")
        self.torch = import_torch(settings["threads"])
        with self.torch.inference_mode():
            self._allocate()
            self._write_tape()

    def _rows(self, count: int, width: int):
        """Zeros [count, width], and the same with a column of ones behind them where biases are rows of the weights."""
        dtype = getattr(self.torch, self.work.dtype)
        if self.settings["bias"] == "apart":
            values = self.torch.zeros(count, width, dtype=dtype)
            return values, values
        whole = self.torch.zeros(count, self._whole_blocks(width + 1), dtype=dtype)
        whole[:, width] = 1
        return whole[:, :width], whole[:, : width + 1]

    def _whole_blocks(self, width: int) -> int:
        """A row's length in whole blocks of 64 bytes."""
        block = 64 // np.dtype(self.work.dtype).itemsize
        return -(-width // block) * block

    def _allocate(self) -> None:
        torch, work = self.torch, self.work
        B = work.batch_size
        dtype = getattr(torch, work.dtype)
        X, Y = (torch.from_numpy(array) for array in work.load(shuffled=True))
        samples, inputs = self._rows(*X.shape)
        samples.copy_(X)
        self.inputs = inputs.split(B)
        self.labels = Y
        targets = torch.nn.functional.one_hot(Y.long(), work.sizes[-1]).to(dtype) if Y.ndim == 1 else Y
        self.targets = targets.split(B)
        self.hidden = [self._rows(B, size) for size in work.sizes[1:-1]]
        self.deltas = [torch.zeros(B, size, dtype=dtype) for size in work.sizes[1:]]
        self.ones = torch.ones(B, dtype=dtype)
        self.logits = torch.zeros(0, dtype=dtype)
        total = sum((self._whole_blocks(n_in + 1) + 1) * n_out for n_in, n_out in pairwise(work.sizes))
        self.parameters, self.velocity = torch.zeros(total, dtype=dtype), torch.zeros(total, dtype=dtype)
        self.W, self.b = self._views(self.parameters)
        self.vW, self.vb = self._views(self.velocity)
        for layer, matrix in enumerate(work.matrices()):
            bias, weights = torch.from_numpy(matrix[:, 0].copy()), torch.from_numpy(matrix[:, 1:].copy())
            self.W[layer][: weights.shape[1]].copy_(weights.t())
            (self.b[layer] if self.b else self.W[layer][-1]).copy_(bias)

    def _views(self, flat) -> tuple[list, list]:
        """Weights as [in, out] (or [in + 1, out] with the bias as last row) and biases as views of a flat tensor."""
        apart, out_in = self.settings["bias"] == "apart", self.settings["weights"] == "out_in"
        weights, biases, start = [], [], 0
        for n_in, n_out in pairwise(self.work.sizes):
            rows = n_in if apart else n_in + 1
            if out_in:  # a unit's weights in a row, which starts on a boundary if the first does
                stride = self._whole_blocks(rows)
                weights.append(flat[start : start + n_out * stride].view(n_out, stride)[:, :rows].t())
                start += n_out * stride
            else:
                weights.append(flat[start : start + rows * n_out].view(rows, n_out))
                start += rows * n_out
        for n_out in self.work.sizes[1:] if apart else ():
            biases.append(flat[start : start + n_out])
            start += n_out
        return weights, biases

    def _product(self, layer: int, out) -> Callable:
        """The forward product of a layer, waiting for its inputs."""
        if not self.b:
            return lambda a, out=out, mm=self.torch.mm, W=self.W[layer]: mm(a, W, out=out)
        return lambda a, out=out, addmm=self.torch.addmm, W=self.W[layer], b=self.b[layer]: addmm(b, a, W, out=out)

    def _gradient(self, layer: int) -> Callable:
        """Momentum's v ← μ v + aᵀ δ / B of a layer (or at once w ← w - η aᵀ δ / B), waiting for aᵀ."""
        rule, B = self.work.rule, self.work.batch_size
        if rule.kind == "plain":
            target, beta, alpha = self.W[layer], 1.0, -rule.learning_rate / B
        else:
            target, beta, alpha = self.vW[layer], rule.momentum, 1.0 / B
        return partial(_addmm_late, target.addmm_, self.deltas[layer], beta, alpha)

    def _write_tape(self) -> None:
        """The step as lists of calls, bound to their tensors: all but what changes from step to step."""
        torch, aten, last = self.torch, self.torch.ops.aten, len(self.W) - 1
        activate = {"relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": torch.tanh_}[self.work.activation]
        slope = {
            "relu": lambda d, a: partial(aten.threshold_backward.grad_input, d, a, 0, grad_input=d),
            "sigmoid": lambda d, a: partial(aten.sigmoid_backward.grad_input, d, a, grad_input=d),
            "tanh": lambda d, a: partial(aten.tanh_backward.grad_input, d, a, grad_input=d),
        }[self.work.activation]
        rule, B = self.work.rule, self.work.batch_size
        self.first = self._product(0, self.hidden[0][0]) if last else None
        self.forward: list[Callable] = []
        for layer in range(last):
            if layer:
                product = self._product(layer, self.hidden[layer][0])
                self.forward.append(partial(product, self.hidden[layer - 1][1]))
            self.forward.append(partial(activate, self.hidden[layer][0]))
        self.output = [partial(torch.addmm, self.b[last])] if self.b else [torch.mm]
        self.backward: list[Callable] = []
        for layer in range(last, 0, -1):
            n_in = self.work.sizes[layer]
            weights, delta = self.W[layer][:n_in].t(), self.deltas[layer - 1]
            self.backward.append(partial(torch.mm, self.deltas[layer], weights, out=delta))
            self.backward.append(slope(delta, self.hidden[layer - 1][0]))
        for layer in range(last, 0, -1):
            self.backward.append(partial(self._gradient(layer), self.hidden[layer - 1][1].t()))
        self.first_gradient = self._gradient(0)
        self.finish: list[Callable] = []
        for layer, b in enumerate(self.b):
            across = self.deltas[layer].t()
            if rule.kind == "plain":
                call = partial(b.addmv_, across, self.ones, beta=1.0, alpha=-rule.learning_rate / B)
            else:
                call = partial(self.vb[layer].addmv_, across, self.ones, beta=rule.momentum, alpha=1.0 / B)
            self.finish.append(call)
        if rule.kind == "momentum":
            self.finish.append(partial(self.parameters.add_, self.velocity, alpha=-rule.learning_rate))

    def prepare(self, steps: int) -> None:
        """Choose the batches; make room for the logits of all steps."""
        with self.torch.inference_mode():
            numbers = self.next_batches(steps)
            shape = (steps, self.work.batch_size, self.work.sizes[-1])
            if self.logits.shape != shape:
                self.logits = self.torch.zeros(shape, dtype=self.parameters.dtype)
            inputs = [self.inputs[number] for number in numbers]
            targets = [self.targets[number] for number in numbers]
            self.chosen = list(zip(inputs, [x.t() for x in inputs], targets, self.logits.unbind(), strict=True))
            B = self.work.batch_size
            self.chosen_labels = self.torch.cat([self.labels[number * B : (number + 1) * B] for number in numbers])

    def run(self, steps: int) -> Any:
        """The tape, over and over."""
        with self.torch.inference_mode():
            self._steps()
            return self._losses()

    def _steps(self) -> None:
        torch, last = self.torch, len(self.W) - 1
        first, forward, backward, finish = self.first, self.forward, self.backward, self.finish
        output, W, first_gradient = self.output[0], self.W[last], self.first_gradient
        delta, softmax, sub, sigmoid = self.deltas[last], torch.softmax, torch.sub, torch.sigmoid
        a, loss = self.hidden[-1][1] if last else None, self.work.loss
        for x, across, target, z in self.chosen:
            if first is not None:
                first(x)
                for call in forward:
                    call()
                output(a, W, out=z)
            else:
                output(x, W, out=z)
            if loss == "cross_entropy":
                softmax(z, 1, out=delta)
                delta.sub_(target)
            elif loss == "binary_cross_entropy":
                sigmoid(z, out=delta)
                delta.sub_(target)
            else:
                sub(z, target, out=delta)
            for call in backward:
                call()
            first_gradient(across)
            for call in finish:
                call()

    def _losses(self):
        F, steps, n_out = self.torch.nn.functional, len(self.chosen), self.work.sizes[-1]
        z, labels = self.logits.view(-1, n_out), self.chosen_labels
        if self.work.loss == "cross_entropy":
            each = F.cross_entropy(z, labels.long(), reduction="none")
        elif self.work.loss == "binary_cross_entropy":
            each = F.binary_cross_entropy_with_logits(z, labels, reduction="none").sum(1)
        else:
            each = (z - labels).square_().sum(1).mul_(0.5)
        return each.view(steps, -1).mean(1)


def _addmm_late(addmm_: Callable, delta, beta: float, alpha: float, across) -> None:
    """``target.addmm_(across, delta)`` with the first factor last, for `functools.partial`."""
    addmm_(across, delta, beta=beta, alpha=alpha)
