"""What happens between epochs: the callbacks of `Mlp.fit`, the progress bar among them."""

import importlib
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastmlp.history import History

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from fastmlp.mlp import Mlp


class Callback:
    """A base with nothing in it: override what is wanted."""

    def on_fit_begin(self, mlp: "Mlp", epochs: int) -> None:
        """Before the first epoch, and before anything is compiled.

        Parameters
        ----------
        mlp : Mlp
        epochs : int
            How many epochs are to come, unless something ends the run.
        """

    def on_epoch_end(self, mlp: "Mlp", history: History) -> bool | None:
        """After each epoch.

        Parameters
        ----------
        mlp : Mlp
        history : History
            Of this run, the epoch just finished included.

        Returns
        -------
        bool or None
            True ends the run here.
        """

    def on_fit_end(self, mlp: "Mlp", history: History) -> None:
        """After the last epoch, and likewise after Ctrl-C or an error."""


#: A callback object, or just a function ``f(mlp, history)`` in the part of its ``on_epoch_end``.
CallbackLike: TypeAlias = Callback | Callable[["Mlp", History], bool | None]


class EpochFunction(Callback):
    """A plain function as a callback."""

    def __init__(self, function: Callable[["Mlp", History], bool | None]) -> None:
        self.function = function

    def on_epoch_end(self, mlp: "Mlp", history: History) -> bool | None:
        """Call the function."""
        return self.function(mlp, history)


def as_callback(given: CallbackLike) -> Callback:
    """The callback itself, or a function made one.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(given, Callback):
        return given
    if isinstance(given, type) or not callable(given):
        raise TypeError(f"callbacks holds {given!r}; expected Callback objects or functions f(mlp, history)")
    return EpochFunction(given)


class CallbackList(Callback):
    """Several callbacks as one: each hook calls all of them in turn."""

    def __init__(self, members: Iterable[Callback]) -> None:
        self.members = list(members)
        self.begun: list[Callback] = []

    def on_fit_begin(self, mlp: "Mlp", epochs: int) -> None:
        """Begin each."""
        for member in self.members:
            self.begun.append(member)
            member.on_fit_begin(mlp, epochs)

    def on_epoch_end(self, mlp: "Mlp", history: History) -> bool:
        """True if any of them wants to stop; all of them are asked."""
        answers = [member.on_epoch_end(mlp, history) for member in self.members]
        return any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)

    def on_fit_end(self, mlp: "Mlp", history: History) -> None:
        """End each that has begun, the last first; an error in one does not keep the others from ending."""
        try:
            while self.begun:
                self.begun.pop().on_fit_end(mlp, history)
        finally:
            if self.begun:
                self.on_fit_end(mlp, history)


def callback_list(callbacks: Iterable[CallbackLike] | CallbackLike, progress: bool | Callback | None) -> CallbackList:
    """What `Mlp.fit` was given as ``callbacks`` and ``progress``, as one callback.

    Raises
    ------
    TypeError
        If ``callbacks`` holds something else, or ``progress`` is neither None, a bool nor a Callback.
    """
    given = [callbacks] if isinstance(callbacks, Callback) or callable(callbacks) else callbacks
    try:
        given = list(given)
    except Exception:  # whatever an object's own iteration raises
        raise TypeError(f"callbacks={callbacks!r}; expected a sequence of callbacks") from None
    members = [as_callback(one) for one in given]
    if progress is None:
        progress = in_notebook() or on_terminal()
    if isinstance(progress, Callback):
        members.insert(0, progress)
    elif not isinstance(progress, bool):
        raise TypeError(f"progress={progress!r}; expected None, True, False or a Callback")
    elif progress:
        members.insert(0, ProgressBar())
    return CallbackList(members)


def on_terminal() -> bool:
    """Whether standard error goes to a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether this is a notebook's kernel: IPython runs, and its shell has one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class ProgressBar(Callback):
    """Epoch, loss, accuracy (where there is validation), samples a second and time left, in one line.

    It is drawn from the training thread between epochs, ten times a second at most, so no thread of its own competes
    with the kernels. On a terminal, and anywhere but in a notebook, it goes to standard error.
    """

    SECONDS_BETWEEN = 0.1

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._display: Any = None
        self._drawn = 0.0

    def on_fit_begin(self, mlp: "Mlp", epochs: int) -> None:
        """Draw the empty bar."""
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(*self._columns(), console=Console(stderr=True), auto_refresh=False)
        self._task = self._progress.add_task("", total=epochs, figures="")
        if in_notebook():
            display = importlib.import_module("IPython.display").display
            self._display = display(self._progress, display_id=True)
        else:
            self._progress.start()
        self._draw()

    def on_epoch_end(self, mlp: "Mlp", history: History) -> None:
        """Move the bar on, and draw it if the last time is long enough ago."""
        self.advance(1, figures(history))

    def advance(self, epochs: int, figures: str) -> None:
        """Move the bar on by so many epochs, with these figures beside it."""
        assert self._progress is not None
        self._progress.update(self._task, advance=epochs, figures=figures)
        if time.monotonic() - self._drawn >= self.SECONDS_BETWEEN:
            self._draw()

    def on_fit_end(self, mlp: "Mlp", history: History) -> None:
        """Draw the bar for the last time and leave it standing."""
        if self._progress is not None:
            self._draw()
            if self._display is None:
                self._progress.stop()
            self._progress = self._display = None

    @staticmethod
    def _columns() -> "list[ProgressColumn]":
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.table import Column

        def text(template: str) -> TextColumn:  # figures stay whole on a narrow terminal: the bar gives way
            return TextColumn(template, table_column=Column(no_wrap=True))

        return [
            text("epoch {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=10),
            text("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        ]

    def _draw(self) -> None:
        assert self._progress is not None
        self._drawn = time.monotonic()
        if self._display is not None:
            self._display.update(self._progress)
        else:
            self._progress.refresh()


def figures(history: History) -> str:
    """The last epoch in words: loss, accuracy where known (or else the validation's loss), samples a second."""
    parts = [f"loss {history.loss[-1]:.4f}"]
    if not math.isnan(history.val_accuracy[-1]):
        parts.append(f"val_accuracy {history.val_accuracy[-1]:.2%}")
    elif not math.isnan(history.val_loss[-1]):
        parts.append(f"val_loss {history.val_loss[-1]:.4f}")
    parts.append(f"{history.samples_per_second[-1]:,.0f} samples/s")
    return "  ".join(parts)
