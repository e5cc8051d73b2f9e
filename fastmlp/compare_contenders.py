"""Who competes in ``fastmlp compare``: fastmlp on each backend, and the models in PyTorch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastmlp import extras, kernels
from fastmlp.comparison import HIDDEN, Course, Row, Settings, cores
from fastmlp.data import Dataset
from fastmlp.history import History
from fastmlp.mlp import Mlp
from fastmlp.torch_data import SHIFT, lab_pixels, torchvision_mnist
from fastmlp.torch_training import PIPELINES, TorchHistory, generator_of_its_own, torch_classify, train_torch

if TYPE_CHECKING:
    from torch import nn

#: What the MLP is in fastmlp, so that it is the one in PyTorch.
AS_IN_PYTORCH: dict[str, Any] = {"activation": "relu", "loss": "cross_entropy", "init": "torch"}

#: Steps that decide on PyTorch's number of threads.
TRIAL_STEPS = 30


class NothingCompared(ValueError):
    """There is nothing to compare, or somebody could not finish an epoch; the message says why."""


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
            **AS_IN_PYTORCH,
            dtype="float32",
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
