"""``fastmlp compare``: the same job in fastmlp and in PyTorch. Is it right, and how much faster is it?

First one epoch from the same weights over the same batches, where losses and weights must agree within rounding. Then
every contender trains on its own, from some seeds: test accuracy, seconds, images a second. `bench` measures more
strictly (a process for each, equal losses before any clock starts); this is the question that everybody asks first.
"""

import json
import math
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import checks, extras, kernels, system
from fastmlp.callbacks import on_terminal
from fastmlp.data import Dataset
from fastmlp.history import History
from fastmlp.kernels.names import unknown_name
from fastmlp.kernels.network import DTYPES
from fastmlp.mlp import Mlp
from fastmlp.optimizers import Sgd
from fastmlp.torch_data import SHIFT, lab_pixels, torchvision_mnist
from fastmlp.torch_training import (
    PIPELINES,
    TorchHistory,
    generator_of_its_own,
    torch_classify,
    train_torch,
    working_device,
)
from fastmlp.training_run import Say

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

__all__ = ["MODELS", "Comparison", "Course", "Parity", "Row", "Settings", "compare", "report", "save"]

#: What can be compared, with what each is.
MODELS = {
    "mlp": "fastmlp's MLP, on each backend that works here",
    "torch-mlp": "the same MLP in PyTorch, in both pipelines",
    "cnn": "the lab's convolutional network, in PyTorch",
    "mixer": "a small MLP-Mixer, in PyTorch",
}

RESULT_FILE = "compare.json"
FORMAT = "fastmlp compare 1"

#: The hidden layer of the lab's MLP.
HIDDEN = (100,)
#: What ``--quick`` sets where nothing else is given; images are those to train on.
QUICK = {"epochs": 1, "seeds": 2, "images": 3_000}
#: Steps that decide on PyTorch's number of threads.
TRIAL_STEPS = 30
#: Points of a curve of losses, each the mean of as many batches.
CURVE_POINTS = 120
#: How many wrongly classified images are shown.
SHOWN_IMAGES = 18


class NothingCompared(ValueError):
    """There is nothing to compare, or somebody could not finish an epoch; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What is compared, and how long each trains; the defaults are the lab's.

    Parameters
    ----------
    models : tuple of str
        Names in `MODELS`.
    epochs : int, default 5
    seeds : int, default 3
        How many; they count from 0. A seed draws a model's weights and its order of images.
    batch_size : int, default 5
    learning_rate, momentum : float, defaults 0.001 and 0.9
    images : int, optional
        Training images to use, the first so many; all by default.
    device : str, default "cpu"
        Where PyTorch trains.

    Raises
    ------
    TypeError, ValueError
        If one is not as described.
    """

    models: tuple[str, ...] = tuple(MODELS)
    epochs: int = 5
    seeds: int = 3
    batch_size: int = 5
    learning_rate: float = 0.001
    momentum: float = 0.9
    images: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.models:
            if name not in MODELS:
                raise unknown_name("models", name, MODELS)
        if not self.models:
            raise ValueError(f"models is empty; expected some of {', '.join(MODELS)}")
        for name in ("epochs", "seeds", "batch_size"):
            checks.whole(name, getattr(self, name))
        if self.images is not None:
            checks.whole("images", self.images)
        self.optimizer  # noqa: B018 (checks its hyperparameters)

    @property
    def optimizer(self) -> Sgd:
        """SGD with momentum."""
        return Sgd(self.learning_rate, self.momentum)


def settings_for(
    models: str,
    epochs: int | None,
    seeds: int | None,
    batch_size: int,
    learning_rate: float,
    device: str,
    quick: bool,
) -> Settings:
    """The settings that the options of the command come to; None stands for what was not given.

    Raises
    ------
    TypeError, ValueError
        If one is not as `Settings` describes it.
    """
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    given = {name: value for name, value in (("epochs", epochs), ("seeds", seeds)) if value is not None}
    lengths = {**(QUICK if quick else {}), **given}
    return Settings(models=names, batch_size=batch_size, learning_rate=learning_rate, device=device, **lengths)


def check_works(settings: Settings) -> None:
    """Refuse what can't be done here, before any time is spent.

    Raises
    ------
    fastmlp.extras.ExtraMissing
        If PyTorch is not installed.
    ValueError, RuntimeError
        If PyTorch does not know the device, or it does not work here.
    """
    extras.load("torch", "torch")
    working_device(settings.device)


def in_words(settings: Settings, data: Dataset) -> str:
    """The job in one line."""
    images = min(settings.images or len(data.train_images), len(data.train_images))
    return (
        f"{counted(settings.epochs, 'epoch')} of {images:,} images in batches of {settings.batch_size}, "
        f"learning rate {settings.learning_rate:g}, momentum {settings.momentum:g}, {counted(settings.seeds, 'seed')}"
    )


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass
class Parity:
    """One epoch in fastmlp and in PyTorch from the same weights over the same batches.

    Attributes
    ----------
    what : str
        Who was compared with whom.
    dtype : str
    batches : int
    loss_difference, weight_difference : float
        The largest absolute difference of a batch's losses, and of the final weights and biases.
    loss, weight : float
        The other's largest loss and largest absolute weight, for the scale.
    curves : list of two lists of float
        Mean losses of every so many batches, of the one and of the other.
    differences : list of float
        The largest difference among the same batches.
    batches_a_point : int
    """

    what: str
    dtype: str
    batches: int
    loss_difference: float
    weight_difference: float
    loss: float
    weight: float
    curves: list[list[float]]
    differences: list[float]
    batches_a_point: int


@dataclass
class Course:
    """A contender's training from one seed.

    Attributes
    ----------
    seed : int
    test_accuracy : list of float
        After each epoch, 0 to 1.
    seconds : list of float
        Of each epoch's training alone.
    labels : ndarray of int64 [n], optional
        What it says of the test images at the end; not kept in the file.
    interrupted : bool, default False
        Whether Ctrl-C ended it: it has the epochs that were finished, perhaps none.
    """

    seed: int
    test_accuracy: list[float]
    seconds: list[float]
    labels: np.ndarray | None = field(default=None, repr=False)
    interrupted: bool = False


@dataclass
class Row:
    """A contender and what became of it.

    Attributes
    ----------
    name : str
        As people read it.
    model : str
        In `MODELS`.
    variant : str
        The backend of fastmlp, or the pipeline in PyTorch.
    threads : int or None
        PyTorch's, the fastest by trial; None for fastmlp's own choice.
    skipped : str
        Why it did not run, or empty.
    images : int
        Training images of an epoch.
    courses : list of Course
        One for each seed.
    """

    name: str
    model: str
    variant: str
    threads: int | None = None
    skipped: str = ""
    images: int = 0
    courses: list[Course] = field(default_factory=list)

    @property
    def accuracies(self) -> list[float]:
        """Final test accuracy from each seed; courses cut short count only where there is no other."""
        longest = max((len(course.seconds) for course in self.courses), default=0)
        return [course.test_accuracy[-1] for course in self.courses if len(course.seconds) == longest]

    @property
    def accuracy(self) -> float:
        """Mean of `accuracies`."""
        return statistics.fmean(self.accuracies) if self.accuracies else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of `accuracies` between seeds (n - 1); nan from one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan

    @property
    def epoch_seconds(self) -> float:
        """Median time of an epoch's training, over all epochs and seeds."""
        every = [seconds for course in self.courses for seconds in course.seconds]
        return statistics.median(every) if every else math.nan

    @property
    def images_per_second(self) -> float:
        """Training images of an epoch over its median time."""
        return self.images / self.epoch_seconds


@dataclass
class Comparison:
    """All that a comparison has found.

    Attributes
    ----------
    data : Dataset
        With the training images that were used.
    settings : Settings
    parity : list of Parity
    rows : list of Row
    interrupted : bool
        Whether Ctrl-C ended it.
    finished : bool
        Whether all have trained from every seed.
    """

    data: Dataset
    settings: Settings
    parity: list[Parity] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False
    finished: bool = False

    @property
    def ran(self) -> list[Row]:
        """The rows with a result."""
        return [row for row in self.rows if row.courses]

    @property
    def models(self) -> list[Row]:
        """For each model the first of its rows that has labels of the test images."""
        first: dict[str, Row] = {}
        for row in self.ran:
            if row.courses[0].labels is not None:
                first.setdefault(row.model, row)
        return list(first.values())

    def misclassified(self) -> np.ndarray:
        """Indices of the test images that some model gets wrong, each after its first seed; in the data's order."""
        wrong = [row.courses[0].labels != self.data.test_labels for row in self.models]
        return np.flatnonzero(np.any(wrong, axis=0)) if wrong else np.zeros(0, int)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        data = self.data
        return {
            "format": FORMAT,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": system.versions(),
            "cpu": system.cpu_name(),
            "cores": cores(),
            "data": {"name": data.name, "training": len(data.train_images), "test": len(data.test_images)},
            "settings": asdict(self.settings),
            "network": [data.n_in, *HIDDEN, data.n_classes],
            "interrupted": self.interrupted,
            "finished": self.finished,
            "parity": [asdict(parity) for parity in self.parity],
            "rows": [row_as_dict(row) for row in self.rows],
            "misclassified": [self.said_of(index) for index in self.misclassified()[:SHOWN_IMAGES].tolist()],
        }

    def said_of(self, index: int) -> dict[str, Any]:
        """A test image's label, and what each model takes it for."""
        said = {row.name: int(row.courses[0].labels[index]) for row in self.models if row.courses[0].labels is not None}
        return {"test_image": index, "label": int(self.data.test_labels[index]), "said": said}


def row_as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON can hold it, with what follows from its courses."""
    kept = {name: value for name, value in vars(row).items() if name != "courses"}
    courses = [{name: value for name, value in vars(course).items() if name != "labels"} for course in row.courses]
    figures = ("accuracy", "spread", "epoch_seconds", "images_per_second")
    derived = {name: getattr(row, name) if row.courses else math.nan for name in figures}
    return {**kept, **{name: finite(value) for name, value in derived.items()}, "courses": courses}


def finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the course of it ----


def compare(
    data: Dataset, settings: Settings, say: Say, keep: Callable[[Comparison], object] | None = None
) -> Comparison:
    """Compare.

    Parameters
    ----------
    data : Dataset
    settings : Settings
    say : function
        Is told a line after each step.
    keep : function, optional
        Called with what there is whenever a contender has finished a course, so that it can be written down.

    Returns
    -------
    Comparison
        After Ctrl-C with the epochs that were finished.

    Raises
    ------
    fastmlp.extras.ExtraMissing
        If PyTorch is not installed.
    NothingCompared
        If none of the models can be trained here, or a loss becomes infinite in a first epoch.
    KeyboardInterrupt
        After Ctrl-C before any contender has begun.
    """
    extras.load("torch", "torch")
    data = first_images(data, settings.images)
    result = Comparison(data, settings)
    contenders = [
        contender for name in dict.fromkeys(settings.models) for contender in CONTENDERS[name](data, settings)
    ]
    result.rows = [contender.row for contender in contenders]
    for row in result.rows:
        if row.skipped:
            say(f"left out: {row.name}: {row.skipped}")
    running = [contender for contender in contenders if not contender.row.skipped]
    if not running:
        reasons = "; ".join(f"{row.name} {row.skipped}" for row in result.rows)
        raise NothingCompared(f"models={','.join(settings.models)!r} leaves nobody to compare: {reasons}")
    if "mlp" in settings.models:
        backends = [row.variant for row in result.rows if row.model == "mlp" and not row.skipped]
        result.parity = parity(data, settings, backends)
        for one in result.parity:
            say(parity_line(one))
    for contender in running:
        contender.prepare()
    with progress(len(running) * settings.seeds) as advance:
        # All take their turn from each seed, so that a slow minute of the machine does not fall on one of them alone.
        for seed in range(settings.seeds):
            for contender in running:
                course = contender.train(seed)
                result.interrupted = course.interrupted
                if course.seconds:
                    contender.row.courses.append(course)
                    say(course_line(contender.row, course))
                    advance()
                    if keep is not None:
                        keep(result)
                if result.interrupted:
                    return result
    result.finished = True
    return result


def first_images(data: Dataset, images: int | None) -> Dataset:
    """The data with its first training images alone."""
    if images is None:
        return data
    return replace(data, train_images=data.train_images[:images], train_labels=data.train_labels[:images])


@contextmanager
def progress(courses: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, drawn between courses only: nothing competes with what is timed."""
    if not on_terminal():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.completed:.0f}/{task.total:.0f} trained"), BarColumn(), TimeRemainingColumn())
    bar: Progress
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=courses)

        def advance() -> None:
            bar.advance(task)
            bar.refresh()

        bar.refresh()
        yield advance


def parity_line(parity: Parity) -> str:
    """A comparison from the same weights, in words."""
    differences = f"losses differ by {parity.loss_difference:.1e} at most, weights by {parity.weight_difference:.1e}"
    return f"{parity.what}, {parity.dtype}: {differences} ({parity.batches:,} batches)"


def course_line(row: Row, course: Course) -> str:
    """A course in words."""
    taken = f"{counted(len(course.seconds), 'epoch')} in {sum(course.seconds):.1f} s"
    return f"seed {course.seed}: {row.name}: {course.test_accuracy[-1]:.2%} after {taken}"


# ---- is it right? ----


def parity(data: Dataset, settings: Settings, backends: list[str]) -> list[Parity]:
    """An epoch of the MLP in each dtype: PyTorch against each backend, and PyTorch's two dtypes against each other.

    The last tells how far rounding alone carries two runs apart.

    Parameters
    ----------
    data : Dataset
    settings : Settings
    backends : list of str
    """
    order = np.random.default_rng(0).permutation(len(data.train_images))
    images, labels = data.train_images[order], data.train_labels[order]
    found, torch_runs = [], {}
    for dtype in DTYPES:
        mlp = Mlp([data.n_in, *HIDDEN, data.n_classes], "relu", dtype="float32", seed=0, backend="numpy")
        weights = [matrix.astype(dtype) for matrix in mlp.weights]
        X = images.astype(dtype) / data.levels + SHIFT
        torch_runs[dtype] = torch_epoch(weights, X, labels, settings)
        for backend in backends:
            run = fastmlp_epoch(weights, X, labels, settings, backend)
            found.append(difference(f"fastmlp {backend} and PyTorch", dtype, run, torch_runs[dtype]))
    found.append(difference("PyTorch in float32 and in float64", "both", *(torch_runs[dtype] for dtype in DTYPES)))
    return found


#: The loss of each batch, and the final weights.
Epoch = tuple[np.ndarray, list[np.ndarray]]


def fastmlp_epoch(
    weights: list[np.ndarray], X: np.ndarray, labels: np.ndarray, settings: Settings, backend: str
) -> Epoch:
    """One epoch over the samples as they lie, with a backend's own `train_epoch`."""
    sizes = [weights[0].shape[1] - 1, *(len(matrix) for matrix in weights)]
    network = kernels.Network.build(sizes, dtype=weights[0].dtype.name)
    parameters = network.zeros()
    rows = network.rows(parameters)
    for view, matrix in zip(rows, weights, strict=True):
        view[...] = matrix
    rule = settings.optimizer.rule
    losses = kernels.backend(backend).train_epoch(
        network,
        rule,
        parameters,
        network.state(rule),
        X,
        labels.astype(np.int32),
        np.arange(len(X)),
        min(settings.batch_size, len(X)),
    )
    return losses, rows


def torch_epoch(weights: list[np.ndarray], X: np.ndarray, labels: np.ndarray, settings: Settings) -> Epoch:
    """The same in PyTorch."""
    mlp = Mlp(
        [weights[0].shape[1] - 1, *(len(matrix) for matrix in weights)],
        "relu",
        dtype=weights[0].dtype,
        backend="numpy",
    )
    mlp.weights = weights
    model = mlp.to_torch()
    with torch_threads(1):
        history = train_torch(
            model,
            (X, labels),
            pipeline="preloaded",
            epochs=1,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            shuffle=False,
        )
    if history.interrupted:
        raise KeyboardInterrupt
    if not len(history):
        raise NothingCompared(f"learning_rate={settings.learning_rate}: the loss became infinite in the first epoch")
    mlp.load_state_dict(model.state_dict())
    return history.batch_losses[0], mlp.weights


def difference(what: str, dtype: str, one: Epoch, other: Epoch) -> Parity:
    """How far two runs are apart."""
    each = max(1, len(one[0]) // CURVE_POINTS)
    points = len(one[0]) // each * each
    losses = [run[0][:points].reshape(-1, each) for run in (one, other)]
    weights = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(one[1], other[1], strict=True)]
    return Parity(
        what,
        dtype,
        batches=len(one[0]),
        loss_difference=float(abs(one[0] - other[0]).max()),
        weight_difference=float(max(abs(a - b).max() for a, b in weights)),
        loss=float(other[0].max()),
        weight=float(max(abs(b).max() for _, b in weights)),
        curves=[run.mean(1).tolist() for run in losses],
        differences=abs(losses[0] - losses[1]).max(1).tolist(),
        batches_a_point=each,
    )


# ---- who competes ----


class Contender:
    """Somebody who trains a model: its row, and `train`."""

    def __init__(self, row: Row, data: Dataset, settings: Settings) -> None:
        self.row, self.data, self.settings = row, data, settings
        row.images = len(data.train_images)

    def prepare(self) -> None:
        """Do what only a first run needs, before any clock starts."""

    def train(self, seed: int) -> Course:
        """Train from that seed.

        Raises
        ------
        NothingCompared
            If the loss becomes infinite in the first epoch.
        """
        raise NotImplementedError

    def initial(self, seed: int, backend: str = "numpy") -> Mlp:
        """The MLP before its first step: all contenders start from the same weights."""
        data = self.data
        return Mlp(
            [data.n_in, *HIDDEN, data.n_classes],
            "relu",
            seed=seed,
            backend=backend,
            input_scale=1 / data.levels,
            input_shift=SHIFT,
        )


class Fastmlp(Contender):
    """The MLP on a backend of fastmlp."""

    def prepare(self) -> None:
        """Compile, or load what was compiled, and start the threads."""
        some, settings = slice(0, TRIAL_STEPS * self.settings.batch_size), self.settings
        self.initial(0, self.row.variant).fit(
            self.data.train_images[some],
            self.data.train_labels[some],
            epochs=1,
            batch_size=settings.batch_size,
            optimizer=settings.optimizer,
            progress=False,
        )

    def train(self, seed: int) -> Course:
        """Train as users do, with `Mlp.fit`, from the uint8 images."""
        data, settings = self.data, self.settings
        mlp = self.initial(seed, self.row.variant)
        history = mlp.fit(
            data.train_images,
            data.train_labels,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            optimizer=settings.optimizer,
            validation=(data.test_images, data.test_labels),
            progress=False,
        )
        check_trained(self.row.name, history)
        labels = mlp.classify(data.test_images)
        return Course(seed, history.val_accuracy, history.seconds, labels, history.interrupted)


def check_trained(name: str, history: History | TorchHistory) -> None:
    """Refuse a course that has finished no epoch because its loss became infinite."""
    if not len(history) and not history.interrupted:
        raise NothingCompared(f"{name} finished no epoch: its loss became infinite; a smaller learning rate may help")


class Torch(Contender):
    """A model in PyTorch, in one of the pipelines."""

    def __init__(
        self, row: Row, data: Dataset, settings: Settings, build: "Callable[[Contender, int], nn.Module]"
    ) -> None:
        super().__init__(row, data, settings)
        self.build = build
        self.train_pixels = lab_pixels(data.train_images, data.levels)
        self.test_pixels = lab_pixels(data.test_images, data.levels)

    def samples(self) -> Any:
        """The training samples: for the lab's loop torchvision's own class where the data are MNIST."""
        if self.row.variant != "dataloader" or self.data.name != "mnist":
            return self.train_pixels, self.data.train_labels
        from torch.utils.data import Subset

        train, _ = torchvision_mnist(folder_of(self.data))
        return Subset(train, range(self.row.images)) if self.row.images < len(train) else train

    def train(self, seed: int) -> Course:
        """Train with `train_torch`."""
        settings = self.settings
        with generator_of_its_own(seed):
            model = self.build(self, seed)
        with torch_threads(self.row.threads or 1):
            history = train_torch(
                model,
                self.samples(),
                (self.test_pixels, self.data.test_labels),
                pipeline=self.row.variant,
                device=settings.device,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                momentum=settings.momentum,
                seed=seed,
            )
            labels = torch_classify(model, self.test_pixels)
        check_trained(self.row.name, history)
        return Course(seed, history.test_accuracy, history.seconds, labels, history.interrupted)

    def prepare(self) -> None:
        """Find the number of threads with which some steps of this model take the least time."""
        counts = sorted({1, cores()})
        self.row.threads = min(counts, key=self.trial_seconds)

    def trial_seconds(self, threads: int) -> float:
        """The shorter of two short runs."""
        some = slice(0, TRIAL_STEPS * self.settings.batch_size)
        with torch_threads(threads):
            history = train_torch(
                self.build(self, 0),
                (self.train_pixels[some], self.data.train_labels[some]),
                pipeline="preloaded",
                device=self.settings.device,
                epochs=2,
                batch_size=self.settings.batch_size,
            )
        if history.interrupted:
            raise KeyboardInterrupt
        return min(history.seconds)


def folder_of(data: Dataset) -> str | None:
    """The folder that MNIST was loaded from, or None for the one that is found first: see `Dataset.source`."""
    return data.source if os.path.isdir(data.source) else None


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it PyTorch has so many threads, and takes subnormal numbers for zero, which is faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def fastmlp_contenders(data: Dataset, settings: Settings) -> list[Contender]:
    """One for each backend."""
    return [
        Fastmlp(Row(f"fastmlp, {name}", "mlp", name, skipped=reason or ""), data, settings)
        for name, reason in kernels.available().items()
    ]


def torch_mlp_contenders(data: Dataset, settings: Settings) -> list[Contender]:
    """One for each pipeline, the fast one first."""

    def build(contender: Contender, seed: int) -> "nn.Module":
        from fastmlp.torch_models import TorchMlp

        mlp = contender.initial(seed)
        model = TorchMlp(mlp.network.sizes)  # no scaling of its own: its pixels are scaled before the clock starts
        model.load_state_dict(mlp.state_dict())
        return model

    rows = [Row(f"PyTorch, {pipeline}", "torch-mlp", pipeline) for pipeline in reversed(PIPELINES)]
    for row in rows:
        if row.variant == "dataloader" and data.name == "mnist":
            row.skipped = missing("torchvision")
    return [Torch(row, data, settings, build) for row in rows]


def missing(package: str) -> str:
    """Why a package of PyTorch's extra can't be had, or an empty string."""
    try:
        extras.load(package, "torch")
    except extras.ExtraMissing as error:
        return str(error)
    return ""


def cnn_contenders(data: Dataset, settings: Settings) -> list[Contender]:
    """The CNN, where the images are its size."""

    def build(contender: Contender, seed: int) -> "nn.Module":
        from fastmlp.torch_models import TorchCnn

        return TorchCnn()

    return [Torch(Row("CNN, preloaded", "cnn", "preloaded", skipped=not_28(data)), data, settings, build)]


def mixer_contenders(data: Dataset, settings: Settings) -> list[Contender]:
    """The MLP-Mixer, where the images are its size."""

    def build(contender: Contender, seed: int) -> "nn.Module":
        from fastmlp.torch_models import TorchMixer

        return TorchMixer()

    return [Torch(Row("MLP-Mixer, preloaded", "mixer", "preloaded", skipped=not_28(data)), data, settings, build)]


def not_28(data: Dataset) -> str:
    """Why images of another size than MNIST's won't do, or an empty string."""
    rows, columns = data.image_shape
    return (
        "" if (rows, columns) == (28, 28) else f"needs images of 28 × 28; those of {data.name} are {rows} × {columns}"
    )


#: name of a model -> those who train it
CONTENDERS: dict[str, Callable[[Dataset, Settings], list[Contender]]] = {
    "mlp": fastmlp_contenders,
    "torch-mlp": torch_mlp_contenders,
    "cnn": cnn_contenders,
    "mixer": mixer_contenders,
}


# ---- afterwards ----


def report(result: Comparison) -> "list[Table]":
    """What was found, as tables: from the same weights, and trained."""
    return [*([parity_table(result)] if result.parity else []), *([row_table(result)] if result.rows else [])]


def parity_table(result: Comparison) -> "Table":
    """The largest differences over an epoch."""
    from rich import box
    from rich.table import Table

    batches = result.parity[0].batches
    table = Table(
        title=f"The same weights, the same {batches:,} batches of {result.settings.batch_size}: largest differences",
        box=box.ROUNDED,
        title_justify="left",
    )
    table.add_column("compared")
    for name in ("dtype", "of losses", "of weights"):
        table.add_column(name, justify="right")
    for one in result.parity:
        table.add_row(one.what, one.dtype, f"{one.loss_difference:.1e}", f"{one.weight_difference:.1e}")
    return table


def row_table(result: Comparison) -> "Table":
    """Accuracy and time of each contender."""
    from rich import box
    from rich.table import Table

    settings = result.settings
    yardstick = next((row for row in result.ran if (row.model, row.variant) == ("torch-mlp", "preloaded")), None)
    table = Table(title=f"Trained: {in_words(settings, result.data)}", box=box.ROUNDED, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("threads", "test accuracy", "s an epoch", "images/s", "times PyTorch"):
        table.add_column(name, justify="right")
    for row in result.rows:
        if not row.courses:
            continue
        comparable = yardstick is not None and row.model in ("mlp", "torch-mlp")
        table.add_row(
            row.name,
            "own choice" if row.threads is None else str(row.threads),
            accuracy_text(row),
            f"{row.epoch_seconds:.2f}",
            f"{row.images_per_second:,.0f}",
            f"{row.images_per_second / yardstick.images_per_second:.3g}" if comparable and yardstick else "",
        )
    if yardstick is not None:
        table.caption = "times PyTorch: images a second, over those of PyTorch, preloaded"
        table.caption_justify = "left"
    return table


def accuracy_text(row: Row) -> str:
    """Mean accuracy in per cent, with the spread between seeds where there is one."""
    spread = "" if math.isnan(row.spread) else f" ± {100 * row.spread:.2f}"
    return f"{100 * row.accuracy:.2f}{spread} %"


def is_comparison(path: Path) -> bool:
    """Whether a file is a result of this module."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def save(result: Comparison, folder: Path) -> Path:
    """Write the result as JSON, whole or not at all; returns its path.

    Parameters
    ----------
    result : Comparison
    folder : Path
        Made if it is not there.

    Raises
    ------
    OSError
        If it can't be written.
    """
    from fastmlp.modelfile import write_then_rename

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULT_FILE
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    write_then_rename(path, f"{text}\n".encode())
    return path
