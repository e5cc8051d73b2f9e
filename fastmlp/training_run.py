"""A training run from the command line: its data, its network, its course and its report."""

import math
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.callbacks import Callback, ProgressBar, in_notebook, on_terminal
from fastmlp.data import DataNotFound, Dataset, digits, mnist
from fastmlp.history import History
from fastmlp.kernels.names import suggestion
from fastmlp.mlp import Evaluation, Mlp
from fastmlp.presets import LAB, Preset

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

MODEL_FILE = "model.safetensors"
CURVES_FILE = "curves.png"

#: How many of MNIST's images the lab trains with.
LAB_IMAGES = 10_000

NOT_YET = Evaluation(math.nan, math.nan)

#: Says a line to the user.
Say = Callable[[str], None]


class NothingTrained(ValueError):
    """Not one epoch came to its end, since weights or loss became infinite."""


@dataclass
class Run:
    """What is to be trained, and what has become of it.

    Attributes
    ----------
    data : Dataset
    settings : Preset
    mlp : Mlp
    X, y : ndarray
        The training images and labels in use.
    compiles : bool
        Whether the kernels are going to be compiled, rather than loaded as they were compiled before.
    history : History
        Of the epochs finished: in the lab's job ½ the mean squared error after each, and the training accuracy in
        the place of the validation's.
    compile_seconds, training_seconds, evaluation_seconds : float
        Compiling or loading compiled code; training; evaluating in between.
    training, test : Evaluation
        Of the final network.
    """

    data: Dataset
    settings: Preset
    mlp: Mlp
    X: np.ndarray
    y: np.ndarray
    compiles: bool = False
    history: History = field(default_factory=History)
    compile_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    training: Evaluation = NOT_YET
    test: Evaluation = NOT_YET

    @property
    def training_seconds(self) -> float:
        """Seconds of all epochs."""
        return sum(self.history.seconds)

    @property
    def samples_per_second(self) -> float:
        """Training images times epochs, over the seconds that they took."""
        return len(self.history) * len(self.X) / max(self.training_seconds, 1e-9)


# ---- before ----


#: What `load_data` takes for a data set even where a folder has that name.
DATA_NAMES = ("mnist", "digits")


def load_data(name: str | None, say: Say) -> Dataset:
    """MNIST, the digits, or a folder with MNIST's files.

    Parameters
    ----------
    name : str, optional
        "mnist", "digits" or a folder. Left out, it is MNIST, or, where that can't be had, the digits.
    say : function
        Is told if it became the digits.

    Raises
    ------
    DataNotFound, DataDamaged, FileNotFoundError
        If what was named is not there, or is damaged.
    """
    if name == "digits":
        return digits()
    if name == "mnist":
        return mnist()
    if name is not None:
        if not os.path.isdir(name):
            hint = suggestion(name, DATA_NAMES)
            raise FileNotFoundError(f"data={name!r} is neither 'mnist' nor 'digits' nor a folder{hint}")
        return mnist(name)
    try:
        return mnist()
    except DataNotFound:
        say(
            "MNIST was neither found nor could it be fetched: training on scikit-learn's digits instead "
            "(--data mnist tells where it was sought)"
        )
        return digits()


def hidden_layers(text: str, data: Dataset) -> tuple[int, ...]:
    """The hidden layers in an option such as "100", "128,64" or "none".

    A list that begins with the number of inputs and ends with the number of classes is the whole network.

    Raises
    ------
    ValueError
        If it is not a list of positive whole numbers.
    """
    inner = text.strip().removeprefix("[").removesuffix("]").strip()
    if inner.lower() in ("", "none"):
        return ()
    parts = [part.strip() for part in inner.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", part) and int(part) > 0 for part in parts):
        raise ValueError(f"layers={text!r}; expected positive whole numbers such as 100 or 128,64, or none")
    units = tuple(int(part) for part in parts)
    if len(units) > 1 and (units[0], units[-1]) == (data.n_in, data.n_classes):
        return units[1:-1]
    return units


def with_layers(settings: Preset, layers: str | None, data: Dataset) -> Preset:
    """The settings with the hidden layers of the option, if it was given."""
    return settings if layers is None else replace(settings, hidden=hidden_layers(layers, data))


def prepare(data: Dataset, settings: Preset, *, backend: str = "auto", threads: int | None = None) -> Run:
    """Build the network and choose the training images.

    In the lab's job the draws come from NumPy's global generator: the seed first, then the images, then the weights.

    Parameters
    ----------
    data : Dataset
    settings : Preset
    backend, threads
        As for `Mlp`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `Mlp` and the optimizers raise them.
    """
    settings.optimizer_at(1.0)
    if not 0 <= settings.seed < 2**32:
        raise ValueError(f"seed={settings.seed}; expected 0 to {2**32 - 1}")
    X, y = data.train_images, data.train_labels
    if settings.lab:
        np.random.seed(settings.seed)  # noqa: NPY002 (the lab's own numbers)
        if data.name == "mnist":
            chosen = np.random.choice(len(X), size=LAB_IMAGES)  # noqa: NPY002
            X, y = X[chosen], y[chosen]
    sizes = [data.n_in, *settings.hidden, data.n_classes]
    mlp = Mlp(
        sizes,
        activation=settings.activation,
        output="sigmoid" if settings.loss == "mean_squared_error" else None,
        loss=settings.loss,
        init=settings.init,
        dtype=settings.dtype,
        seed=None if settings.lab else settings.seed,
        backend=backend,
        threads=threads,
        input_scale=1 / data.levels if settings.scaled else 1.0,
        input_shift=settings.input_shift,
    )
    return Run(data, settings, mlp, X, y, needs_compiling(mlp))


def needs_compiling(mlp: Mlp) -> bool:
    """Whether the backend is going to compile rather than load what it has compiled before."""
    if mlp.backend_name != "cpu":
        return False
    from fastmlp.kernels import cpu

    return not cpu.is_compiled(mlp.network.dtype)


# ---- the course ----


class RunBar(ProgressBar):
    """One progress bar over the several calls of `Mlp.fit` that a run may take."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs: int | None = epochs

    def on_fit_begin(self, mlp: Mlp, epochs: int) -> None:
        """Begin at the first call, with the epochs of all."""
        if self._epochs is not None:
            super().on_fit_begin(mlp, self._epochs)
            self._epochs = None

    def on_fit_end(self, mlp: Mlp, history: History) -> None:
        """Nothing yet: `close` ends it."""

    def close(self, mlp: Mlp) -> None:
        """End it, if it has begun."""
        super().on_fit_end(mlp, History())


class LabCourse(Callback):
    """After each epoch of the lab's job under another rule, ½ the mean squared error and the training accuracy."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.Y = np.eye(run.data.n_classes)[run.y]

    def on_epoch_end(self, mlp: Mlp, history: History) -> None:
        """Predict, and note both."""
        loss, accuracy = lab_evaluation(mlp.predict(self.run.X), self.Y)
        self.run.history.append(
            loss=loss,
            seconds=history.seconds[-1],
            samples_per_second=history.samples_per_second[-1],
            val_accuracy=accuracy,
        )


def lab_evaluation(outputs: np.ndarray, Y: np.ndarray) -> Evaluation:
    """½ the mean squared error over all entries, which the lab draws, and the accuracy."""
    hits = outputs.argmax(1) == Y.argmax(1)
    error = (outputs - Y).ravel()
    return Evaluation(float(error @ error / (2 * error.size)), float(hits.mean()))


def train(run: Run) -> None:
    """Train to the end, or to Ctrl-C; afterwards `run` holds the course and the final evaluations.

    Parameters
    ----------
    run : Run
        As `prepare` returns it.

    Raises
    ------
    NothingTrained
        If weights or loss became infinite in the first epoch.
    """
    epochs = run.settings.epochs
    bar = RunBar(epochs) if on_terminal() or in_notebook() else None
    start = time.perf_counter()
    try:
        if run.settings.lab and run.settings.optimizer_at() == LAB.optimizer_at() and run.settings.batch_size is None:
            train_lab(run, bar)
        elif run.settings.final_rate == 1.0 or epochs == 1:
            fit(run, epochs, 1.0, bar)
        else:
            fit(run, epochs - 1, 1.0, bar)
            if len(run.history) == epochs - 1 and not run.history.interrupted:
                fit(run, 1, run.settings.final_rate, bar)
        if len(run.history):
            run.evaluation_seconds = time.perf_counter() - start - run.compile_seconds - run.training_seconds
            run.training = evaluate(run, run.X, run.y)
            run.test = evaluate(run, run.data.test_images, run.data.test_labels)
    except KeyboardInterrupt:  # between two epochs, or while the last network is evaluated
        run.history.interrupted = True
    finally:
        if bar is not None:
            bar.close(run.mlp)


#: Iterations of the lab's job between two looks at the clock, for the progress bar and Ctrl-C.
LAB_ITERATIONS = 25


def train_lab(run: Run, bar: RunBar | None) -> None:
    """The lab's job with the lab's own step: some iterations at a time, their errors by the way.

    Raises
    ------
    NothingTrained
        If weights or loss became infinite in the first iterations.
    """
    from fastmlp import kernels

    mlp, Y = run.mlp, np.eye(run.data.n_classes)[run.y]
    if bar is not None:
        bar.on_fit_begin(mlp, run.settings.epochs)
    try:
        if mlp.backend_name == "cpu":
            run.compile_seconds = kernels.warmup((mlp.network.dtype,))
        while len(run.history) < run.settings.epochs:
            steps = min(LAB_ITERATIONS, run.settings.epochs - len(run.history))
            errors: list[float] = []
            start = time.perf_counter()
            mlp.train(run.X, Y, steps, errors=errors)
            seconds = (time.perf_counter() - start) / steps
            if len(errors) < steps:
                raise NothingTrained("training stopped: the weights became infinite")
            for error in errors:
                run.history.append(loss=error, seconds=seconds, samples_per_second=len(run.X) / seconds)
                if bar is not None:
                    bar.on_epoch_end(mlp, run.history)
    except KeyboardInterrupt:
        run.history.interrupted = True


def fit(run: Run, epochs: int, part: float, bar: RunBar | None) -> None:
    """Train for so many epochs with this part of the learning rate, and add them to the run's history."""
    settings, data = run.settings, run.data
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            history = run.mlp.fit(
                run.X,
                run.y,
                epochs=epochs,
                batch_size=settings.batch_size,
                optimizer=settings.optimizer_at(part),
                validation=None if settings.lab else (data.test_images, data.test_labels),
                shuffle=not settings.lab,
                callbacks=[LabCourse(run)] if settings.lab else [],
                progress=bar or False,
            )
        finally:  # a Ctrl-C as the last epoch ends must not cost the ones before
            if not settings.lab:
                run.history = run.mlp.history or run.history
    run.compile_seconds += run.mlp.compile_seconds
    if settings.lab:
        run.history.interrupted = history.interrupted
    for warning in caught:
        if not len(run.history) and "training stopped" in str(warning.message):
            raise NothingTrained(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def evaluate(run: Run, X: np.ndarray, y: np.ndarray) -> Evaluation:
    """Loss, the lab's own in its job, and accuracy of the network as it is."""
    if run.settings.lab:
        return lab_evaluation(run.mlp.predict(X), np.eye(run.data.n_classes)[y])
    return run.mlp.evaluate(X, y)


# ---- after ----


def loss_name(settings: Preset) -> str:
    """What the losses of the report are."""
    return "½ mean squared error" if settings.lab else settings.loss.replace("_", " ")


def data_name(data: Dataset) -> str:
    """A data set's name as people write it."""
    return "MNIST" if data.name == "mnist" else data.name


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def epoch_name(settings: Preset) -> str:
    """What an epoch is called."""
    return "iteration" if settings.lab else "epoch"


def title(run: Run) -> str:
    """Data and network in one line."""
    net = run.mlp.network
    return f"{data_name(run.data)}, {list(net.sizes)}, {', '.join(dict.fromkeys(net.activations))}"


def report(run: Run) -> "Table":
    """The run in a table."""
    from rich import box
    from rich.table import Table

    data, settings, mlp = run.data, run.settings, run.mlp
    net = mlp.network
    rate = f"learning rate {settings.learning_rate:g}"
    if settings.final_rate != 1.0 and settings.epochs > 1:
        rate += f" (last epoch {settings.learning_rate * settings.final_rate:g})"
    batch = "all images at once" if settings.batch_size is None else f"batches of {settings.batch_size}"
    momentum = f", momentum {settings.momentum:g}" if settings.optimizer == "sgd" else ""
    stopped = " (interrupted)" if run.history.interrupted else ""

    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("data", f"{data_name(data)}: {len(run.X):,} training and {len(data.test_images):,} test images")
    table.add_row("found in", data.source)
    table.add_row("network", f"{list(net.sizes)}, {net.n_parameters:,} parameters, {net.dtype}")
    table.add_row("", f"{', '.join(net.activations)}; {net.loss.replace('_', ' ')}")
    table.add_row("training", f"{settings.optimizer}, {rate}{momentum}")
    table.add_row("", f"{counted(len(run.history), epoch_name(settings))} of {batch}{stopped}, seed {settings.seed}")
    table.add_row("backend", backend_line(mlp))
    table.add_section()
    loaded = "" if run.compiles or not run.compile_seconds else ": loading what was compiled before"
    table.add_row("compiling", f"{run.compile_seconds:.2f} s{loaded}")
    table.add_row("training", f"{run.training_seconds:.2f} s, {run.samples_per_second:,.0f} samples a second")
    table.add_row("evaluating", f"{run.evaluation_seconds:.2f} s, after each {epoch_name(settings)}")
    table.add_section()
    for name, result in (("training data", run.training), ("test data", run.test)):
        table.add_row(name, f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}")
    table.add_row("", f"(loss: {loss_name(settings)})")
    return table


def backend_line(mlp: Mlp) -> str:
    """Backend, and threads or GPU, in words."""
    if mlp.backend_name == "cuda":
        from fastmlp.kernels import cuda

        return f"cuda, {cuda.describe(mlp.device)['gpu']}"
    if mlp.backend_name != "cpu":
        return f"{mlp.backend_name}, with the threads of NumPy's own libraries"
    if mlp.threads is None:
        from fastmlp.kernels import cpu

        return f"cpu, {counted(int(cpu.describe()['threads'].split()[0]), 'thread')}"
    most = "at most " if mlp.threads > 1 else ""  # as many of them as there is work for
    return f"cpu, {most}{counted(mlp.threads, 'thread')}"


def curves(run: Run) -> "Figure":
    """The picture of the run's course."""
    from fastmlp.plots import history_figure

    settings = run.settings
    return history_figure(
        run.history,
        title(run),
        epoch_name=epoch_name(settings),
        loss_name=loss_name(settings),
        accuracy_of="training" if settings.lab else "test",
    )


def check_folder(
    folder: Path | None,
    files: Sequence[str] = (MODEL_FILE, CURVES_FILE),
    is_ours: Callable[[Path], bool] | None = None,
) -> None:
    """Refuse a folder that the results can't go to, before any time is spent on them.

    Parameters
    ----------
    folder : Path, optional
        As the user has named it. It need not exist. Files of these names in it must be an earlier run's.
    files : sequence of str
        The names of the results; the first is the file by which an earlier run is known.
    is_ours : function, optional
        Tells whether that file is an earlier run's; by default `is_model`.

    Raises
    ------
    OSError, ValueError
        Saying what is in the way.
    """
    place = (folder or Path("runs")).absolute()
    try_to_write(place)
    if folder is None:
        return
    taken = [place / name for name in files if (place / name).exists()]
    for path in taken:
        if path.is_dir() or not (is_ours or is_model)(place / files[0]):
            raise FileExistsError(f"out={str(folder)!r} holds {path.name}, which is not an earlier run's; name another")


#: Bytes that `try_to_write` writes: a disk that is full takes an empty file.
TRIAL_BYTES = 4096


def try_to_write(folder: Path, argument: str = "out", given: Path | None = None) -> None:
    """Make a folder, write a file in it, and take away again what was made: permissions alone don't tell.

    Parameters
    ----------
    folder : Path
        It need not exist, nor need the folders above it.
    argument : str, default "out"
        What it was given as, for the message.
    given : Path, optional
        The whole of what was given, if that is not the folder but a file in it.

    Raises
    ------
    OSError
        Saying what is in the way.
    """
    for is_last in (False, True):
        made: list[Path] = []
        path = folder
        try:
            for path in (*reversed(folder.absolute().parents), folder):
                if made_by_us(path):
                    made.append(path)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(TRIAL_BYTES))
            return
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not is_last:
                continue  # another command may just have taken away again a folder that it had made
            in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
            reason = "is not a folder" if in_the_way else f"can't be written to ({error.strerror})"
            raise type(error)(f"{argument}={str(given or folder)!r}: {path} {reason}") from None
        finally:
            for path in reversed(made):
                with suppress(OSError):  # another command's results are in it by now
                    path.rmdir()


def made_by_us(folder: Path) -> bool:
    """Make a folder if it is not there; returns whether that was needed, and no other command was quicker."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def is_model(path: Path) -> bool:
    """Whether a file is a model of this package."""
    from fastmlp import modelfile

    try:
        modelfile.read(path)
    except (OSError, ValueError):
        return False
    return True


def new_folder(data: Dataset, kind: str = "") -> Path:
    """Make a folder named after the time, the data and the kind of run, in ``runs`` under the current one."""
    stem = f"{datetime.now():%Y-%m-%d-%H%M%S}-{data.name}{kind and '-' + kind}"
    for name in (stem, *(f"{stem}-{n}" for n in range(2, 1000))):
        folder = Path("runs", name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"there is no free name beside {Path('runs', stem)}")


def make_folder(run: Run, folder: Path | None) -> Path:
    """Make the folder for the results; left out, it is a `new_folder`. OSError if it can't be made."""
    if folder is None:
        return new_folder(run.data)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_model(run: Run, folder: Path) -> Path:
    """Write the model; returns its path. OSError if it can't be written."""
    mlp = run.mlp
    mlp.metadata = {
        "data": run.data.name,
        "levels": run.data.levels,
        "image_shape": list(run.data.image_shape),
        "settings": {name: value for name, value in vars(run.settings).items() if name != "summary"},
        "training": finite(run.training),
        "test": finite(run.test),
    }
    if run.settings.lab:
        mlp.metadata["lab_loss"] = run.history.loss
    path = folder / MODEL_FILE
    mlp.save(path)
    return path


def save_curves(run: Run, folder: Path) -> Path:
    """Write the picture of the run's curves; returns its path. OSError if it can't be written."""
    from fastmlp.plots import save_figure

    path = folder / CURVES_FILE
    save_figure(curves(run), path)
    return path


def finite(result: Evaluation) -> dict[str, float | None]:
    """An evaluation as JSON can hold it."""
    return {name: value if math.isfinite(value) else None for name, value in result._asdict().items()}
