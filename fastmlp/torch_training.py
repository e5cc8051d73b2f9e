"""Training a PyTorch model: the lab's loop over a DataLoader, and the fast form over tensors in memory.

PyTorch is imported when a function here is first called (`fastmlp.extras.ExtraMissing` where it is not installed).
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from fastmlp import checks, extras
from fastmlp.kernels.losses import CROSS_ENTROPY
from fastmlp.kernels.names import suggestion, unknown_name
from fastmlp.optimizers import Sgd

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import Dataset as TorchDataset

__all__ = ["PIPELINES", "Samples", "TorchHistory", "torch_accuracy", "torch_classify", "train_torch"]

PIPELINES = ("dataloader", "preloaded")

#: How many mini-batches the lab takes the mean loss of.
REPORT_EVERY = 2000

EVALUATION_BATCH = 1000

#: Samples and labels: a map-style data set of pairs, or the two as arrays or tensors.
Samples: TypeAlias = "TorchDataset | tuple[Any, Any]"


@dataclass
class TorchHistory:
    """The course of a run of `train_torch`; ``len(history)`` is the number of epochs finished.

    Attributes
    ----------
    batch_losses : list of ndarray, float64 [batches]
        For each epoch the loss of each mini-batch before its step.
    seconds : list of float
        Time of each epoch's training, without evaluation.
    test_accuracy : list of float
        Share of test samples classified rightly after each epoch, 0 to 1; nan without test data.
    samples_per_second : list of float
        Training samples over the seconds of each epoch.
    loading_seconds : float
        Time before the first epoch: with "preloaded", of bringing all samples into memory and onto the device.
    report_every : int, default 2000
    interrupted : bool, default False
        Whether Ctrl-C ended the run; the model is then as it was after the last epoch finished.
    """

    batch_losses: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    samples_per_second: list[float] = field(default_factory=list)
    loading_seconds: float = 0.0
    report_every: int = REPORT_EVERY
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.seconds)

    def __bool__(self) -> bool:  # a history with no epoch yet is still a history
        return True

    @property
    def running_losses(self) -> list[tuple[int, int, float]]:
        """What the lab prints: (epoch, mini-batch, mean loss of the `report_every` mini-batches up to it).

        Both count from 1. Mini-batches left over at an epoch's end are in none.
        """
        every = self.report_every
        return [
            (epoch, end, float(losses[end - every : end].mean()))
            for epoch, losses in enumerate(self.batch_losses, 1)
            for end in range(every, len(losses) + 1, every)
        ]

    @property
    def losses(self) -> list[float]:
        """Mean loss of each epoch's mini-batches."""
        return [float(losses.mean()) for losses in self.batch_losses]


def train_torch(
    model: "nn.Module",
    train: "Samples",
    test: "Samples | None" = None,
    *,
    pipeline: str = "dataloader",
    device: "str | torch.device" = "cpu",
    epochs: int = 5,
    batch_size: int = 5,
    learning_rate: float = 0.001,
    momentum: float = 0.9,
    seed: int | None = 0,
    shuffle: bool = True,
    report_every: int = REPORT_EVERY,
    say: Callable[[str], None] | None = None,
    on_epoch_end: Callable[[TorchHistory], None] | None = None,
) -> TorchHistory:
    """Train a PyTorch model with SGD; the defaults are the lab's.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and moved to the device. A `TorchMlp` is trained with its own loss, any other model with
        cross-entropy.
    train, test : torch Dataset or (X, y)
        Pairs of a sample and its label, such as `fastmlp.torch_data.torchvision_mnist` returns; or all samples
        [n, ...] and labels [n] as arrays or tensors, with values as the model is to see them. Without test data no
        accuracy is taken.
    pipeline : {"dataloader", "preloaded"}, default "dataloader"
        The lab's loop: samples fetched and put together one by one by a DataLoader. Or the fast form: all samples in
        memory on the device, shuffled by one gather an epoch, batches are views, the optimiser's step is fused, and
        losses are fetched once an epoch.
    device : str or torch.device, default "cpu"
        "cpu", "cuda", "cuda:1" …
    epochs : int, default 5
    batch_size : int, default 5
        The last batch of an epoch may be smaller.
    learning_rate, momentum : float, defaults 0.001 and 0.9
        Of torch.optim.SGD.
    seed : int, optional, default 0
        Of PyTorch's global generator for the time of the run, and so of shuffling and dropout; None leaves the
        generator as it is. The model's weights are drawn before and not affected.
    shuffle : bool, default True
        Whether each epoch draws a new order of the samples.
    report_every : int, default 2000
        How many mini-batches `TorchHistory.running_losses` takes the mean of.
    say : function, optional
        Is told each running loss and accuracy in a line, as ``print`` would be.
    on_epoch_end : function, optional
        Called with the history after each epoch.

    Returns
    -------
    TorchHistory

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the model is as it was.
    RuntimeError
        If the device does not work here.
    fastmlp.extras.ExtraMissing
        If PyTorch is not installed.

    Warns
    -----
    RuntimeWarning
        If the loss becomes nan or infinite: training stops, and the model is as it was after the last good epoch.

    Notes
    -----
    Ctrl-C ends the run as with `Mlp.fit`: the epoch under way is undone and the history returned.
    """
    torch = extras.load("torch", "torch")
    if pipeline not in PIPELINES:
        raise unknown_name("pipeline", pipeline, PIPELINES)
    epochs = checks.whole("epochs", epochs)
    batch_size = checks.whole("batch_size", batch_size)
    report_every = checks.whole("report_every", report_every)
    rule = Sgd(learning_rate, momentum).rule
    seed, shuffle = checks.seed(seed), checks.flag("shuffle", shuffle)
    place = working_device(device)
    check_samples("train", train)
    if test is not None:
        check_samples("test", test)
    dtype = dtype_of(model)

    model.to(place)
    history = TorchHistory(report_every=report_every)
    start = time.perf_counter()
    data: Pipeline
    if pipeline == "dataloader":
        data = LabPipeline(train, place, dtype, batch_size, shuffle, report_every, say)
    else:
        data = FastPipeline(train, place, dtype, batch_size, shuffle)
    history.loading_seconds = time.perf_counter() - start
    held_out = None if test is None else load(test, place, dtype)
    loss_function = loss_of(model)
    optimizer = torch.optim.SGD(model.parameters(), rule.learning_rate, rule.momentum, fused=data.fused or None)

    with generator_of_its_own(seed):
        for epoch in range(1, epochs + 1):
            before = copy.deepcopy(model.state_dict())
            try:
                model.train()
                start = time.perf_counter()
                losses = data.train_epoch(model, loss_function, optimizer, epoch)
                seconds = time.perf_counter() - start
                check_losses(losses)
                accuracy = math.nan if held_out is None else accuracy_on(model, *held_out)
            except KeyboardInterrupt:
                model.load_state_dict(before)
                history.interrupted = True
                break
            except Diverged as diverged:
                model.load_state_dict(before)
                advice = f"a smaller learning_rate than {learning_rate:g} may help, or inputs of smaller scale"
                warnings.warn(
                    f"training stopped in epoch {epoch}, which was undone: {diverged}; {advice}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                break
            history.batch_losses.append(losses)
            history.seconds.append(seconds)
            history.samples_per_second.append(data.n / max(seconds, 1e-9))
            history.test_accuracy.append(accuracy)
            if say is not None:
                tell_epoch(history, say, with_running_losses=pipeline == "preloaded")
            if on_epoch_end is not None:
                on_epoch_end(history)
    return history


class Diverged(ArithmeticError):
    """A loss became nan or infinite. Raised and caught in this module."""


def check_losses(losses: np.ndarray) -> None:
    """Diverged if one is nan or infinite."""
    if not checks.is_finite(losses):
        raise Diverged(f"the loss became {losses[~np.isfinite(losses)][0]}")


def tell_epoch(history: TorchHistory, say: Callable[[str], None], with_running_losses: bool) -> None:
    """Say what the last epoch has come to."""
    epoch = len(history)
    for which, batch, loss in history.running_losses if with_running_losses else []:
        if which == epoch:
            say(running_loss_line(epoch, batch, loss))
    accuracy = history.test_accuracy[-1]
    told = "" if math.isnan(accuracy) else f", test accuracy {accuracy:.2%}"
    say(f"epoch {epoch}: {history.seconds[-1]:.1f} s{told}")


def running_loss_line(epoch: int, batch: int, loss: float) -> str:
    """A running loss as it is told."""
    return f"[{epoch}, {batch:5d}] loss: {loss:.3f}"


# ---- the pipelines ----


class Pipeline(Protocol):
    """How samples come to the model in an epoch."""

    n: int  #: training samples
    fused: bool  #: whether the optimiser takes its steps in one fused call

    def train_epoch(self, model: "nn.Module", loss_function: "LossFunction", optimizer: Any, epoch: int) -> np.ndarray:
        """One step for each mini-batch; returns the loss of each before its step, float64 [batches]."""


class LabPipeline:
    """The lab's loop: a DataLoader fetches each sample and puts the batches together; the loss is read every step."""

    fused = False

    def __init__(
        self,
        train: "Samples",
        place: "torch.device",
        dtype: "torch.dtype",
        batch_size: int,
        shuffle: bool,
        report_every: int,
        say: Callable[[str], None] | None,
    ) -> None:
        self.loader = data_loader(train, batch_size, shuffle)
        self.n = len(self.loader.dataset)
        self.place, self.dtype = place, dtype
        self.report_every, self.say = report_every, say

    def train_epoch(self, model: "nn.Module", loss_function: "LossFunction", optimizer: Any, epoch: int) -> np.ndarray:
        """One step for each mini-batch; tells the running loss as it goes."""
        losses = []
        for batch, (X, y) in enumerate(self.loader, 1):
            X, y = as_model_takes(X, y, self.place, self.dtype)
            optimizer.zero_grad()
            loss = loss_function(model(X), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if self.say is not None and batch % self.report_every == 0:
                self.say(running_loss_line(epoch, batch, float(np.mean(losses[-self.report_every :]))))
        return np.array(losses)


class FastPipeline:
    """All samples in memory on the device; an epoch gathers them once by its order, and batches are views."""

    def __init__(
        self, train: "Samples", place: "torch.device", dtype: "torch.dtype", batch_size: int, shuffle: bool
    ) -> None:
        self.X, self.y = load(train, place, dtype)
        self.n = len(self.X)
        self.batch_size, self.shuffle = batch_size, shuffle
        self.fused = place.type in ("cpu", "cuda")

    def train_epoch(self, model: "nn.Module", loss_function: "LossFunction", optimizer: Any, epoch: int) -> np.ndarray:
        """One step for each mini-batch; the losses are fetched at the end."""
        import torch

        X, y = self.X, self.y
        if self.shuffle:
            order = torch.randperm(self.n).to(X.device)
            X, y = X[order], y[order]
        losses = []
        for X_batch, y_batch in zip(X.split(self.batch_size), y.split(self.batch_size), strict=True):
            optimizer.zero_grad()
            loss = loss_function(model(X_batch), y_batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).double().cpu().numpy()  # this waits for the device


# ---- samples ----


def check_samples(name: str, samples: "Samples") -> None:
    """Refuse what is neither a map-style data set nor a pair of as many samples as labels.

    Raises
    ------
    TypeError, ValueError
        Saying what was given.
    """
    if isinstance(samples, (tuple, list)):
        if len(samples) != 2 or not all(hasattr(part, "__len__") for part in samples):
            raise TypeError(f"{name} has {len(samples)} entries; expected a Dataset or a pair (X, y)")
        n, n_labels = map(len, samples)
        if n != n_labels or not n:
            raise ValueError(f"{name} has {n} samples and {n_labels} labels; expected as many, and at least one")
    elif not (hasattr(samples, "__getitem__") and hasattr(samples, "__len__")):
        raise TypeError(f"{name} is a {type(samples).__name__}; expected a Dataset with a length or a pair (X, y)")
    elif not len(samples):
        raise ValueError(f"{name} is empty; expected at least one sample")


def data_loader(samples: "Samples", batch_size: int, shuffle: bool) -> Any:
    """A DataLoader over them, in this process as in the lab."""
    from torch.utils.data import DataLoader, TensorDataset

    dataset = TensorDataset(*as_tensors(*samples)) if isinstance(samples, (tuple, list)) else samples
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)


def as_tensors(X: Any, y: Any) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Arrays or tensors as tensors, without a copy where that can be."""
    import torch

    return torch.as_tensor(X), torch.as_tensor(y)


def load(samples: "Samples", place: "torch.device", dtype: "torch.dtype") -> tuple["torch.Tensor", "torch.Tensor"]:
    """All samples and labels as two tensors on the device."""
    import torch

    if isinstance(samples, (tuple, list)):
        X, y = as_tensors(*samples)
    else:
        parts = list(data_loader(samples, EVALUATION_BATCH, shuffle=False))
        X, y = (torch.cat(part) for part in zip(*parts, strict=True))
    return as_model_takes(X, y, place, dtype)


def as_model_takes(
    X: "torch.Tensor", y: "torch.Tensor", place: "torch.device", dtype: "torch.dtype"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Samples in the model's dtype, labels as int64, other targets in the model's dtype; all on the device."""
    import torch

    return X.to(place, dtype), y.to(place, dtype if y.is_floating_point() else torch.int64)


# ---- the model ----

#: From a model's outputs and the targets of a batch to its loss.
LossFunction: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"


def working_device(device: "str | torch.device") -> "torch.device":
    """The device, if it works here.

    Raises
    ------
    ValueError
        If there is no such kind of device.
    RuntimeError
        If it does not work here.
    """
    import torch

    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        hint = suggestion(device, ("cpu", "cuda", "mps"))
        raise ValueError(
            f"device={device!r} is not known to PyTorch; expected such as 'cpu' or 'cuda'{hint}"
        ) from error
    try:
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"device={str(device)!r} does not work here: {reason}") from error
    return place


def dtype_of(model: "nn.Module") -> "torch.dtype":
    """The dtype of a model's parameters.

    Raises
    ------
    TypeError, ValueError
        If it is no model, or has no parameters.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    first = next(model.parameters(), None)
    if first is None:
        raise ValueError("model has no parameters; expected one that can be trained")
    return first.dtype


def loss_of(model: "nn.Module") -> "LossFunction":
    """The loss that a model is trained with: mean over the samples, as `fastmlp.kernels.losses` has it."""
    import torch.nn.functional as F

    from fastmlp.torch_models import TorchMlp

    name = model.network.loss if isinstance(model, TorchMlp) else CROSS_ENTROPY
    if name == CROSS_ENTROPY:
        return F.cross_entropy
    if name == "binary_cross_entropy":
        return lambda z, y: F.binary_cross_entropy_with_logits(z, as_rows(y, z), reduction="sum") / len(z)
    return lambda a, y: F.mse_loss(a, as_rows(y, a), reduction="sum") / (2 * len(a))


def as_rows(y: "torch.Tensor", outputs: "torch.Tensor") -> "torch.Tensor":
    """Targets shaped like the outputs: labels of several classes become one-hot rows."""
    import torch.nn.functional as F

    if y.ndim == 1:
        y = F.one_hot(y, outputs.shape[1]) if outputs.shape[1] > 1 else y[:, None]
    return y.to(outputs.dtype)


@contextmanager
def generator_of_its_own(seed: int | None) -> Iterator[None]:
    """Within it PyTorch's generators start from the seed; afterwards they go on as if nothing had been drawn."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def torch_classify(model: "nn.Module", X: Any) -> np.ndarray:
    """Labels that a model gives, int64 [n]: the largest output's index; of a single output, 1 where it is above ½.

    Parameters
    ----------
    model : torch.nn.Module
        It is put into evaluation mode for the time.
    X : array-like or tensor, [n, ...]
        With values as the model is to see them.

    Raises
    ------
    TypeError, ValueError
        If model is no model with parameters.
    """
    import torch

    dtype = dtype_of(model)
    place = next(model.parameters()).device
    return classify(model, torch.as_tensor(X).to(place, dtype)).cpu().numpy()


def torch_accuracy(model: "nn.Module", samples: "Samples") -> float:
    """Share of samples that a model classifies rightly, 0 to 1; nan if it does not classify.

    Parameters
    ----------
    model : torch.nn.Module
        It is put into evaluation mode for the time.
    samples : torch Dataset or (X, y)
        As for `train_torch`.
    """
    check_samples("samples", samples)
    dtype = dtype_of(model)
    return accuracy_on(model, *load(samples, next(model.parameters()).device, dtype))


def accuracy_on(model: "nn.Module", X: "torch.Tensor", y: "torch.Tensor") -> float:
    """`torch_accuracy` for tensors on the model's device; what is right is as for `fastmlp.Mlp.evaluate`."""
    from fastmlp.torch_models import TorchMlp

    if isinstance(model, TorchMlp):
        net = model.network
        if net.loss == "mean_squared_error" and net.activations[-1] != "sigmoid":
            return math.nan
        if net.activations[-1] == "sigmoid" and y.ndim == 2 and not checks.is_one_hot(y.cpu().numpy()):
            return float(((outputs_of(model, X) > 0.5) == (y > 0.5)).all(1).double().mean())
    labels = classify(model, X)
    if y.ndim == 2:
        y = y.argmax(1) if y.shape[1] > 1 else y[:, 0] > 0.5
    return float((labels == y).double().mean())


def classify(model: "nn.Module", X: "torch.Tensor") -> "torch.Tensor":
    """`torch_classify` for tensors on the model's device."""
    outputs = outputs_of(model, X)
    return outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5).long()


def outputs_of(model: "nn.Module", X: "torch.Tensor") -> "torch.Tensor":
    """What a model predicts, in evaluation mode; of a `TorchMlp` that is probabilities."""
    import torch

    from fastmlp.torch_models import TorchMlp

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model.predict if isinstance(model, TorchMlp) else model
            return torch.cat([output(part) for part in X.split(EVALUATION_BATCH)])
    finally:
        model.train(training)
