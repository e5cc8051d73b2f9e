"""The contenders: everybody who can do a `Work`, behind one small interface.

A rival gets its best form. Its samples lie in memory in the order in which they are used, so that a batch is a view
(fastmlp gathers them by the shuffled order, inside the clock); what can be allocated, compiled or sliced beforehand
is; and among its `settings`, numbers of threads for one, the fastest is picked for each work by trial.

To add a contender, write its class here and enter it in `CONTENDERS`. One's own, kept elsewhere, is named
"module:Class".
"""

import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from bench.work import LEVELS, SHIFT, Work
from fastmlp import kernels
from fastmlp.kernels.names import unknown_name

__all__ = ["CONTENDERS", "Contender", "Missing", "contender", "lab_loss", "limit_blas", "thread_counts"]

Settings = dict[str, Any]


class Missing(Exception):
    """A contender that can't run here, or can't do this work; the message says why."""


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads that are tried: each up to four, then powers of two, and all cores."""
    return sorted({n for n in range(1, cores + 1) if n <= 4 or n & (n - 1) == 0} | {cores})


class Contender:
    """One way to do the work, set up with the work's initial weights.

    Parameters
    ----------
    work : Work
    settings : dict
        One of `settings_for`.

    Raises
    ------
    Missing
        If it can't run here, or can't do this work.
    """

    #: Its name in tables, and the group of which tables show the fastest.
    label: ClassVar[str] = ""
    family: ClassVar[str] = ""
    #: The package whose version counts.
    package: ClassVar[str] = "fastmlp"
    #: Whether the number of threads is fixed once a process has started.
    threads_by_process: ClassVar[bool] = False
    #: The dtype it computes in, where that is not the work's.
    dtype: ClassVar[str | None] = None

    def __init__(self, work: Work, settings: Settings) -> None:
        self.work = work
        self.settings = settings
        self.step = 0  # of the batches taken so far

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """The forms to choose from."""
        return [{"threads": threads} for threads in thread_counts(cores)]

    def prepare(self, steps: int) -> None:
        """Do what the next `run` needs and a user would have done before: outside the clock."""

    def run(self, steps: int) -> Iterable[Any]:
        """Take so many steps; returns the loss of each, or for those who know no better one loss, their mean."""
        raise NotImplementedError

    def next_batches(self, steps: int) -> list[int]:
        """The numbers of the next batches, round and round."""
        first, self.step = self.step, self.step + steps
        return [number % self.work.batches for number in range(first, self.step)]


# ------------------------------------------------------------------------------------------------------------ fastmlp
class Fastmlp(Contender):
    """A backend of fastmlp, through the kernel contract's `train_epoch`."""

    family = "fastmlp"
    backend: ClassVar[str]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        _expect_training(work)
        self.kernels = kernels.backend(self.backend)
        self.network = work.network()
        self.X, self.Y = work.load()
        self.order = work.order()
        self.parameters = work.parameters()
        self.state = self.network.state(work.rule)

    def prepare(self, steps: int) -> None:
        """Lay out the order of the next samples."""
        B = self.work.batch_size
        first = self.step % self.work.batches * B
        rounds = -(-(first + steps * B) // len(self.order))
        self.next_order = np.tile(self.order, rounds)[first : first + steps * B]
        self.step += steps

    def run(self, steps: int) -> np.ndarray:
        """One call, as for an epoch."""
        return self.kernels.train_epoch(
            self.network,
            self.work.rule,
            self.parameters,
            self.state,
            self.X,
            self.Y,
            self.next_order,
            self.work.batch_size,
            threads=self.settings["threads"],
        )


class FastmlpCpu(Fastmlp):
    """The compiled backend, with the number of threads that it chooses itself."""

    label = "fastmlp"
    backend = "cpu"

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice: what users get."""
        return [{"threads": None}]


class FastmlpCpuPixels(FastmlpCpu):
    """The compiled backend on the images as they are, uint8."""

    label = "fastmlp from uint8"

    def __init__(self, work: Work, settings: Settings) -> None:
        if not work.has_pixels:
            raise Missing("samples are no images")
        super().__init__(work, settings)
        from dataclasses import replace

        self.X = work.pixels()
        self.network = replace(self.network, input_scale=1 / LEVELS, input_shift=SHIFT)


class FastmlpNumpy(Fastmlp):
    """The oracle: plain NumPy."""

    label = "NumPy oracle"
    family = "NumPy"
    package = "numpy"
    backend = "numpy"

    def __init__(self, work: Work, settings: Settings) -> None:
        limit_blas(settings["threads"])
        super().__init__(work, settings)


class FastmlpLab(Contender):
    """The lab's job through the lab's class: iterations, and the loss of the prediction after each."""

    label = "fastmlp"
    family = "fastmlp"

    def __init__(self, work: Work, settings: Settings) -> None:
        from fastmlp import Mlp

        super().__init__(work, settings)
        if work.job != "lab":
            raise Missing("does the lab's job alone")
        self.X, self.Y = work.load()
        self.mlp = Mlp(
            work.sizes,
            work.activation,
            work.loss,
            init="zeros",
            dtype=self.dtype or work.dtype,
            backend="cpu",
            threads=settings["threads"],
        )
        for own, initial in zip(self.mlp.weights, work.matrices(), strict=True):
            own[:] = initial

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice: what users get."""
        return [{"threads": None}]

    def run(self, steps: int) -> list[float]:
        """As one would write it."""
        losses: list[float] = []
        self.mlp.train(self.X, self.Y, iterations=steps, errors=losses)
        return losses


class FastmlpLabFloat32(FastmlpLab):
    """The same in single precision."""

    label = "fastmlp, float32"
    dtype = "float32"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.Y = self.Y.astype(np.float32)


def lab_loss(outputs: np.ndarray, Y: np.ndarray) -> float:
    """½ the mean squared error over all entries."""
    return float(0.5 * np.mean((outputs - Y) ** 2))


# -------------------------------------------------------------------------------------------------------------- NumPy
class NumpyLab(Contender):
    """The lab's program in plain NumPy, as its exercise has students write it."""

    label = "NumPy, lab's program"
    family = "NumPy"
    package = "numpy"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        if work.job != "lab" or work.activation != "sigmoid":
            raise Missing("does the lab's job alone, with sigmoids")
        limit_blas(settings["threads"])
        self.X, self.Y = work.load()
        self.weights = work.matrices()

    @staticmethod
    def sigmoid(z: np.ndarray) -> np.ndarray:
        """Logistic sigmoid; e^-z may overflow to infinity, which is right."""
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-z))

    def feedforward(self, X: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Activations, all but the outputs behind a column of ones; and the pre-activations of the layers after."""
        ones = np.ones((len(X), 1))
        A, Z = [np.hstack([ones, X])], []
        for layer, W in enumerate(self.weights):
            Z.append(A[-1] @ W.T)
            a = self.sigmoid(Z[-1])
            A.append(a if layer == len(self.weights) - 1 else np.hstack([ones, a]))
        return A, Z

    def backpropagation(self, X: np.ndarray, Y: np.ndarray) -> list[np.ndarray]:
        """Gradients of all weights."""
        A, Z = self.feedforward(X)
        delta = A[-1] - Y
        gradients = [delta.T @ A[-2] / len(X)]
        for layer in reversed(range(1, len(self.weights))):
            s = self.sigmoid(Z[layer - 1])
            delta = (delta @ self.weights[layer][:, 1:]) * (s * (1 - s))
            gradients.insert(0, delta.T @ A[layer - 1] / len(X))
        return gradients

    def run(self, steps: int) -> list[float]:
        """An iteration, a prediction, its loss."""
        losses = []
        for _ in range(steps):
            for W, gradient in zip(self.weights, self.backpropagation(self.X, self.Y), strict=True):
                W -= gradient
            losses.append(lab_loss(self.feedforward(self.X)[0][-1], self.Y))
        return losses


def limit_blas(threads: int) -> None:
    """Set the number of threads of NumPy's matrix library, for as long as this process lives."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(threads)


# ------------------------------------------------------------------------------------------------------------ PyTorch
def import_torch(threads: int):
    """PyTorch with this number of threads, flushing subnormals.

    Raises
    ------
    Missing
        If it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise Missing(f"PyTorch is not installed ({error})") from None
    # Threads inherit it from the one that starts them, so it comes before the first parallel operation.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    return torch


class TorchEager(Contender):
    """PyTorch as people write it: Linear layers, a loss, an optimiser; with the data as tensors in memory."""

    label = "PyTorch eager"
    family = "PyTorch"
    package = "torch"
    fused: ClassVar[bool] = False

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        _expect_training(work)
        torch = import_torch(settings["threads"])
        X, Y = (torch.from_numpy(array) for array in work.load(shuffled=True))
        if work.loss == "cross_entropy":
            Y = Y.long()
        self.batches = list(zip(X.split(work.batch_size), Y.split(work.batch_size), strict=True))
        self.model = torch_model(torch, work)
        self.criterion = torch_loss(torch, work)
        self.optimizer = torch_optimizer(torch, work, self.model.parameters(), self.fused)

    def loss(self, x, y):
        """Forward, up to the loss."""
        return self.criterion(self.model(x), y)

    def prepare(self, steps: int) -> None:
        """Choose the batches."""
        self.chosen = [self.batches[number] for number in self.next_batches(steps)]

    def run(self, steps: int) -> list:
        """The usual loop."""
        losses = []
        for x, y in self.chosen:
            self.optimizer.zero_grad()
            loss = self.loss(x, y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return losses


class TorchFused(TorchEager):
    """The same with the fused optimiser."""

    label = "PyTorch fused"
    fused = True


class TorchCompiled(TorchFused):
    """Forward, loss and backward through torch.compile, for these very shapes; with the fused optimiser."""

    label = "PyTorch compiled"

    def __init__(self, work: Work, settings: Settings) -> None:
        # Its compiler's own pool of processes would go on beside the clock.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        super().__init__(work, settings)
        import torch

        torch._dynamo.reset()
        eager = super().loss
        self.compiled = torch.compile(lambda x, y: eager(x, y), dynamic=False)
        try:
            self.compiled(*self.batches[0]).backward()
        except Exception as error:  # whatever its compiler chain raises, there is nothing to be timed
            reason = str(error).strip().partition("\n")[0]
            raise Missing(f"torch.compile does not work here: {type(error).__name__}: {reason}") from error
        self.optimizer.zero_grad()

    def loss(self, x, y):
        """Forward, up to the loss, compiled."""
        return self.compiled(x, y)


def torch_model(torch, work: Work):
    """The network as a Sequential, with the initial weights; logits where the loss takes logits."""
    nn = torch.nn
    hidden = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "leaky_relu": nn.LeakyReLU}
    hidden["identity"] = nn.Identity
    dtype = getattr(torch, work.dtype)
    modules: list = []
    for n_in, n_out in pairwise(work.sizes):
        modules += [nn.Linear(n_in, n_out, dtype=dtype), hidden[work.activation]()]
    model = nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for linear, W in zip(model[::2], work.matrices(), strict=True):
            linear.weight.copy_(torch.from_numpy(W[:, 1:].copy()))
            linear.bias.copy_(torch.from_numpy(W[:, 0].copy()))
    return model


def torch_loss(torch, work: Work):
    """The loss: its mean over samples of the sum over outputs."""
    if work.loss == "cross_entropy":
        return torch.nn.CrossEntropyLoss()
    n_out = work.sizes[-1]
    if work.loss == "binary_cross_entropy":
        mean: Callable = torch.nn.BCEWithLogitsLoss()
        return mean if n_out == 1 else lambda z, y: mean(z, y) * n_out
    mean = torch.nn.MSELoss()
    return lambda z, y: mean(z, y) * (0.5 * n_out)


def torch_optimizer(torch, work: Work, parameters, fused: bool):
    """The update rule as PyTorch has it; without ``fused``, as PyTorch chooses."""
    rule, fused_or_not = work.rule, fused or None
    if rule.kind == "adam":
        betas = (rule.beta1, rule.beta2)
        return torch.optim.Adam(parameters, rule.learning_rate, betas, rule.epsilon, fused=fused_or_not)
    momentum = 0.0 if rule.kind == "plain" else rule.momentum
    nesterov = rule.kind == "nesterov"
    return torch.optim.SGD(parameters, rule.learning_rate, momentum=momentum, nesterov=nesterov, fused=fused_or_not)


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
        """Threads, and both layouts of weights and biases."""
        return [
            {"threads": threads, "weights": weights, "bias": bias}
            for threads in thread_counts(cores)
            for weights in ("in_out", "out_in")
            for bias in ("apart", "in_weights")
        ]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        _expect_training(work)
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


# ---------------------------------------------------------------------------------------------------------------- JAX
class Jax(Contender):
    """JAX with all steps of a call in one compiled `lax.scan`."""

    label = "JAX, one scan"
    family = "JAX"
    package = "jax"
    threads_by_process = True

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Threads, and how many steps the loop's body holds."""
        unrolled = (1, 4) if work.batch_size <= 32 else (1,)
        return [{"threads": threads, "unroll": unroll} for threads in thread_counts(cores) for unroll in unrolled]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        _expect_training(work)
        if work.rule.kind not in ("plain", "momentum"):
            raise Missing(f"not written for the rule {work.rule.kind!r}")
        try:
            import jax
        except ImportError as error:
            raise Missing(f"JAX is not installed ({error})") from None
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", work.dtype == "float64")
        self.jax = jax
        X, Y = work.load(shuffled=True)
        shape = (work.batches, work.batch_size)
        self.X = jax.numpy.asarray(X.reshape(*shape, -1))
        self.Y = jax.numpy.asarray(Y.reshape(shape if Y.ndim == 1 else (*shape, -1)))
        matrices = work.matrices()
        self.parameters = [(jax.numpy.asarray(W[:, 1:].T.copy()), jax.numpy.asarray(W[:, 0].copy())) for W in matrices]
        self.velocity = jax.tree.map(jax.numpy.zeros_like, self.parameters)
        self.compiled: dict[int, Callable] = {}

    def _loss(self, parameters, x, y):
        jax, work = self.jax, self.work
        a = x
        for layer, (W, b) in enumerate(parameters):
            z = a @ W + b
            if layer < len(parameters) - 1:
                a = getattr(jax.nn, work.activation)(z)
        if work.loss == "cross_entropy":
            return -(jax.nn.log_softmax(z) * jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)).sum(-1).mean()
        if work.loss == "binary_cross_entropy":
            return (jax.numpy.maximum(z, 0) - z * y + jax.numpy.log1p(jax.numpy.exp(-abs(z)))).sum(-1).mean()
        return 0.5 * ((z - y) ** 2).sum(-1).mean()

    def _epoch(self, parameters, velocity, X, Y, numbers):
        """All steps: the batches of these numbers."""
        jax, rule = self.jax, self.work.rule

        def step(carry, number):
            p, v = carry
            x = jax.lax.dynamic_index_in_dim(X, number, keepdims=False)
            y = jax.lax.dynamic_index_in_dim(Y, number, keepdims=False)
            loss, g = jax.value_and_grad(self._loss)(p, x, y)
            v = g if rule.kind == "plain" else jax.tree.map(lambda v, g: rule.momentum * v + g, v, g)
            p = jax.tree.map(lambda p, v: p - rule.learning_rate * v, p, v)
            return (p, v), loss

        unroll = min(self.settings["unroll"], len(numbers))
        (parameters, velocity), losses = jax.lax.scan(step, (parameters, velocity), numbers, unroll=unroll)
        return parameters, velocity, losses

    def prepare(self, steps: int) -> None:
        """Choose the batches; compile for this number of steps."""
        self.numbers = self.jax.numpy.asarray(np.array(self.next_batches(steps), np.int32))
        if steps not in self.compiled:
            epoch = self.jax.jit(self._epoch, donate_argnums=(0, 1))
            arguments = (self.parameters, self.velocity, self.X, self.Y, self.numbers)
            self.compiled[steps] = epoch.lower(*arguments).compile()

    def run(self, steps: int) -> np.ndarray:
        """One call, waited for."""
        epoch = self.compiled[steps]
        self.parameters, self.velocity, losses = epoch(self.parameters, self.velocity, self.X, self.Y, self.numbers)
        self.jax.block_until_ready((self.parameters, losses))
        return np.asarray(losses)


# ------------------------------------------------------------------------------------------------------- scikit-learn
class ScikitLearn(Contender):
    """scikit-learn's MLPClassifier or MLPRegressor: `partial_fit` over all steps of a call at once."""

    label = "scikit-learn"
    family = "scikit-learn"
    package = "scikit-learn"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        _expect_training(work)
        limit_blas(settings["threads"])
        self.X, self.Y = work.load(shuffled=True)
        if work.loss == "mean_squared_error":
            self.Y = self.Y[:, 0] if self.Y.shape[1] == 1 else self.Y
        elif work.loss == "binary_cross_entropy":
            if work.sizes[-1] != 1:
                raise Missing("has no binary cross-entropy over several outputs that exclude one another")
            self.Y = self.Y[:, 0].astype(np.int32)
        self.model = self._model()
        self._set_weights()

    def _model(self):
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        work, rule = self.work, self.work.rule
        activations = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "identity": "identity"}
        if work.activation not in activations:
            raise Missing(f"has no activation {work.activation!r}")
        common: Settings = {
            "hidden_layer_sizes": work.sizes[1:-1],
            "activation": activations[work.activation],
            "batch_size": work.batch_size,
            "learning_rate_init": rule.learning_rate,
            "alpha": 0.0,
            "shuffle": False,
        }
        if rule.kind == "adam":
            raise Missing("adds Adam's epsilon before the bias correction, where fastmlp and PyTorch add it after")
        common |= {"solver": "sgd", "nesterovs_momentum": rule.kind == "nesterov"}
        common |= {"momentum": 0.0 if rule.kind == "plain" else rule.momentum}
        if work.loss == "mean_squared_error":
            if work.sizes[-1] != 1:
                raise Missing("takes the mean over outputs where fastmlp takes the sum")
            return MLPRegressor(**common)
        return MLPClassifier(**common)

    def _set_weights(self) -> None:
        """Have it make its arrays by one step, then put the initial weights and a fresh optimiser in their place."""
        first = self.X[: self.work.batch_size], self.Y[: self.work.batch_size]
        if self.work.loss == "mean_squared_error":
            self.model.partial_fit(*first)
        else:
            self.model.partial_fit(*first, classes=np.arange(max(self.work.sizes[-1], 2)))
        for own, bias, W in zip(self.model.coefs_, self.model.intercepts_, self.work.matrices(), strict=True):
            if own.dtype != W.dtype:
                raise Missing(f"computes in {own.dtype}")
            own[:], bias[:] = W[:, 1:].T, W[:, 0]
        for velocity in self.model._optimizer.velocities:
            velocity[:] = 0

    def prepare(self, steps: int) -> None:
        """Choose the samples: contiguous stretches of whole batches."""
        B = self.work.batch_size
        numbers = self.next_batches(steps)
        starts = [0, *(i for i in range(1, steps) if numbers[i] == 0), steps]
        self.stretches = [slice(numbers[i] * B, (numbers[i] + j - i) * B) for i, j in pairwise(starts)]

    def run(self, steps: int) -> list[float]:
        """One call for each stretch; it tells only the mean loss."""
        total = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stretch in self.stretches:
                self.model.partial_fit(self.X[stretch], self.Y[stretch])
                total += self.model.loss_ * (stretch.stop - stretch.start)
        return [total / (steps * self.work.batch_size)]


# ---------------------------------------------------------------------------------------------------------- by name
#: name -> contender
CONTENDERS: dict[str, type[Contender]] = {
    "fastmlp-cpu": FastmlpCpu,
    "fastmlp-cpu-uint8": FastmlpCpuPixels,
    "fastmlp-numpy": FastmlpNumpy,
    "fastmlp-lab": FastmlpLab,
    "fastmlp-lab-float32": FastmlpLabFloat32,
    "numpy-lab": NumpyLab,
    "torch-eager": TorchEager,
    "torch-fused": TorchFused,
    "torch-compiled": TorchCompiled,
    "torch-by-hand": TorchByHand,
    "jax": Jax,
    "scikit-learn": ScikitLearn,
}


def contender(name: str) -> type[Contender]:
    """The contender of that name, or the class that "module:Class" names.

    Raises
    ------
    ValueError
        If there is none.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name not in CONTENDERS:
        raise unknown_name("contender", name, CONTENDERS)
    return CONTENDERS[name]


def _expect_training(work: Work) -> None:
    if work.job != "train":
        raise Missing("does not do the lab's job")


def as_floats(losses: Iterable[Any] | Sequence[Any]) -> list[float]:
    """The losses that `Contender.run` has returned, as numbers."""
    return [float(loss) for loss in losses]
