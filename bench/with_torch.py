"""PyTorch as people write it, as a contender."""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

from fastmlp.bench.contender import EXTRA, Contender, Missing, Settings, expect_training
from fastmlp.bench.work import Work


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
        raise Missing(f"PyTorch is not installed ({error}); {EXTRA}") from None
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
    device: ClassVar[str] = "cpu"  #: where samples and network lie

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_training(work)
        self.torch = torch = self.library()
        X, Y = (torch.from_numpy(array).to(self.device) for array in work.load(shuffled=True))
        if work.loss == "cross_entropy":
            Y = Y.long()
        self.batches = list(zip(X.split(work.batch_size), Y.split(work.batch_size), strict=True))
        self.model = torch_model(torch, work).to(self.device)
        self.criterion = torch_loss(torch, work)
        self.optimizer = torch_optimizer(torch, work, self.model.parameters(), self.fused)

    def library(self):
        """PyTorch, made ready.

        Raises
        ------
        Missing
            If it can't be.
        """
        return import_torch(self.settings["threads"])

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
        super().__init__(work, settings)
        self.compiled = compiled(self.torch, super().loss, lambda loss: loss(*self.batches[0]).backward())
        self.optimizer.zero_grad()

    def loss(self, x, y):
        """Forward, up to the loss, compiled."""
        return self.compiled(x, y)


def compiled(torch, function: Callable, try_it: Callable[[Callable], Any], mode: str | None = None) -> Callable:
    """A function through torch.compile, for the shapes of its first call.

    Parameters
    ----------
    torch : module
    function : callable
    try_it : callable
        Given the compiled function, calls it once.
    mode : str, optional
        Of torch.compile, such as "max-autotune".

    Raises
    ------
    Missing
        If its compiler does not work here.
    """
    # Its compiler's own pool of processes would go on beside the clock.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch._dynamo.reset()
    # It takes functions alone: a bound method's arguments would be looked through at every call.
    result = torch.compile(lambda *arguments: function(*arguments), dynamic=False, mode=mode)
    try:
        try_it(result)
    except Exception as error:  # whatever its compiler chain raises, there is nothing to be timed
        reason = str(error).strip().partition("\n")[0]
        raise Missing(f"torch.compile does not work here: {type(error).__name__}: {reason}") from error
    return result


class TorchAutocast(TorchFused):
    """The same under autocast to bfloat16: other arithmetic, shown apart."""

    label = "PyTorch bf16 autocast"
    family = "PyTorch bf16"
    arithmetic = "bfloat16"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        if work.dtype != "float32":
            raise Missing(f"autocast is for float32, not {work.dtype}")
        self.autocast = self.torch.autocast("cpu", self.torch.bfloat16)

    def loss(self, x, y):
        """Forward, up to the loss; backward follows what forward has cast."""
        with self.autocast:
            return super().loss(x, y)


def torch_model(torch, work: Work, number: int = 0):
    """The network of that number as a Sequential, with the initial weights; logits where the loss takes logits."""
    nn = torch.nn
    hidden = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "leaky_relu": nn.LeakyReLU}
    hidden["identity"] = nn.Identity
    dtype = getattr(torch, work.dtype)
    modules: list = []
    for n_in, n_out in pairwise(work.sizes):
        modules += [nn.Linear(n_in, n_out, dtype=dtype), hidden[work.activation]()]
    model = nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for linear, W in zip(model[::2], work.matrices(number=number), strict=True):
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
