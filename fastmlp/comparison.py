"""What ``fastmlp compare`` compares and what it finds: settings, results, their tables and their file."""

import json
import math
import os
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import checks, system
from fastmlp.atomic import write_atomically
from fastmlp.data import Dataset
from fastmlp.kernels.names import unknown_name
from fastmlp.optimizers import Sgd
from fastmlp.training_run import counted

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MODELS", "Comparison", "Course", "Parity", "Row", "Settings", "report", "save"]

#: What can be compared, with what each is.
MODELS = {
    "mlp": "fastmlp's MLP, on each backend that works here",
    "torch-mlp": "the same MLP in PyTorch, in both pipelines",
    "cnn": "the lab's convolutional network, in PyTorch",
    "mixer": "a small MLP-Mixer, in PyTorch",
}

RESULT_FILE = "compare.json"
FORMAT = "fastmlp compare 1"

#: The column of the tables that says how much faster than PyTorch a model trains; see its caption.
SPEED_UP = "speed-up over PyTorch"

#: The hidden layer of the lab's MLP.
HIDDEN = (100,)
#: What ``--quick`` sets where nothing else is given; images are those to train on.
QUICK = {"epochs": 1, "seeds": 2, "images": 3_000}
#: How many wrongly classified images are shown.
SHOWN_IMAGES = 18


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
    if not names:
        raise ValueError(f"--models is empty; expected some of {', '.join(MODELS)}")
    given = {name: value for name, value in (("epochs", epochs), ("seeds", seeds)) if value is not None}
    lengths = {**(QUICK if quick else {}), **given}
    return Settings(models=names, batch_size=batch_size, learning_rate=learning_rate, device=device, **lengths)


def in_words(settings: Settings, data: Dataset) -> str:
    """The job in one line."""
    images = min(settings.images or len(data.train_images), len(data.train_images))
    return (
        f"{counted(settings.epochs, 'epoch')} of {images:,} images in batches of {settings.batch_size}, "
        f"learning rate {settings.learning_rate:g}, momentum {settings.momentum:g}, {counted(settings.seeds, 'seed')}"
    )


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
    for name in ("threads", "test accuracy", "s an epoch", "images/s", SPEED_UP):
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
            f"{yardstick.epoch_seconds / row.epoch_seconds:.3g}" if comparable and yardstick else "",
        )
    if yardstick is not None:
        table.caption = f"{SPEED_UP}: the time an epoch of PyTorch, preloaded, divided by the row's"
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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULT_FILE
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())
    return path
