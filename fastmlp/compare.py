"""``fastmlp compare``: the same job in fastmlp and in PyTorch. Is it right, and how much faster is it?

First one epoch from the same weights over the same batches, where losses and weights must agree within rounding. Then
every contender trains on its own, from some seeds: test accuracy, seconds, images a second. `bench` measures more
strictly (a process for each, equal losses before any clock starts); this is the question that everybody asks first.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from fastmlp import extras, kernels
from fastmlp.callbacks import on_terminal
from fastmlp.compare_contenders import AS_IN_PYTORCH, CONTENDERS, NothingCompared, torch_threads
from fastmlp.comparison import HIDDEN, Comparison, Course, Parity, Row, Settings
from fastmlp.data import Dataset
from fastmlp.kernels.network import DTYPES
from fastmlp.mlp import Mlp
from fastmlp.torch_data import SHIFT
from fastmlp.torch_training import train_torch, working_device
from fastmlp.training_run import Say, counted

__all__ = ["NothingCompared", "check_works", "compare", "parity"]

#: Points of a curve of losses, each the mean of as many batches.
CURVE_POINTS = 120


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
        mlp = Mlp([data.n_in, *HIDDEN, data.n_classes], **AS_IN_PYTORCH, dtype="float32", seed=0, backend="numpy")
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
        **AS_IN_PYTORCH,
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
