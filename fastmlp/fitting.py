"""One call of `Mlp.fit`, epoch by epoch or several at a time, so that many can go on side by side."""

import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmlp import checks
from fastmlp.callbacks import CallbackList
from fastmlp.history import History
from fastmlp.kernels import Network, Rule
from fastmlp.optimizers import Optimizer
from fastmlp.optimizers import optimizer as as_optimizer
from fastmlp.seen import spread

if TYPE_CHECKING:
    from fastmlp.mlp import Mlp

#: Seconds of training, and entries of drawn orders, that one call of the backend gets at most where epochs are shorter
#: and nobody watches each. Ctrl-C undoes the call that it ends.
LONGEST_CALL, LONGEST_ORDERS = 0.02, 200_000


class Diverged(ArithmeticError):
    """A loss or a weight became nan or infinite. Raised and caught in this package."""


def checked(
    network: Network, *, epochs: int, batch_size: int | None, optimizer: str | Optimizer, shuffle: bool
) -> dict[str, Any]:
    """These arguments of `Mlp.fit` as `Fit` takes them.

    Raises
    ------
    TypeError, ValueError
        If one is not as described there.
    """
    return {
        "epochs": checks.whole("epochs", epochs),
        "batch_size": None if batch_size is None else checks.whole("batch_size", batch_size),
        "rule": checks.rule(as_optimizer(optimizer).rule, network.dtype),
        "shuffle": checks.flag("shuffle", shuffle),
    }


class TrainingData(NamedTuple):
    """Samples with their targets, which of them train, and with which weights.

    Attributes
    ----------
    X, Y
        As the backend's functions take them, n samples.
    samples : ndarray of int64 [k], or None for all
    weights : ndarray of float64 [n], or None
    """

    X: Any
    Y: Any
    samples: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def n(self) -> int:
        """How many train."""
        return len(self.X if self.samples is None else self.samples)

    def some(self, most: int) -> "TrainingData":
        """At most so many of those that train, evenly spread."""
        rows = slice(None, None, -(-self.n // most)) if self.samples is None else spread(self.samples, most)
        return TrainingData(self.X[rows], self.Y[rows], None, None if self.weights is None else self.weights[rows])

    def batch_weights(self, orders: np.ndarray, batch_size: int) -> np.ndarray:
        """What batches weigh in epochs of these orders [epochs, k]: [epochs, steps]; without weights, sizes [steps]."""
        if self.weights is None:
            sizes = np.full(-(-self.n // batch_size), batch_size)
            sizes[-1] = self.n - batch_size * (len(sizes) - 1)
            return sizes
        starts = np.arange(0, self.n, batch_size)
        own = self.weights if self.samples is None else self.weights[self.samples]
        return np.add.reduceat(own[orders], starts, axis=1)


class Fit:
    """A call of `Mlp.fit`, its arguments checked: `begin`, then `go_on` until it says no, then `end`.

    Parameters
    ----------
    mlp : Mlp
    given : (X, Y, validation's X and Y or None)
        As the backend's functions take them, but where the user has them.
    rule : Rule
    watchers : CallbackList
    epochs, batch_size : int
    shuffle : bool
    samples : ndarray of int64 [k], optional
        Which samples train; all by default.
    weights : ndarray of float64 [n], optional
        One for each sample of X, above 0 for all that train.
    """

    def __init__(
        self,
        mlp: "Mlp",
        given: tuple[Any, Any, tuple[Any, Any] | None],
        rule: Rule,
        watchers: CallbackList,
        *,
        epochs: int,
        batch_size: int | None,
        shuffle: bool,
        samples: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.mlp, self.given, self.rule, self.watchers = mlp, given, rule, watchers
        self.epochs, self.shuffle = epochs, shuffle
        self.samples, self.weights = samples, weights
        self.n = len(given[0]) if samples is None else len(samples)
        self.batch_size = min(batch_size or self.n, self.n)
        self.at_once = 1  # epochs of the next call of the backend
        self.one_by_one = bool(watchers.members) or given[2] is not None
        self.problem = ""

        X, Y, held_out = given
        self.data = TrainingData(*mlp._placed(X, Y), samples, weights)
        self.held_out = None if held_out is None else mlp._placed(*held_out)
        self.state = mlp._state(rule)
        self.history, self.whole = History(), mlp.history or History()
        self.whole.interrupted = False
        mlp.history = self.whole

    def begin(self) -> None:
        """What comes before the first epoch."""
        self.watchers.on_fit_begin(self.mlp, self.epochs)
        self.mlp._prepare(self.rule, self.data, self.batch_size)

    def go_on(self) -> bool:
        """Train for an epoch, or for several short ones that nobody watches; whether there is more to do.

        An exception undoes all of them. So does a loss or weight that is not finite; they are then trained one at a
        time up to that epoch, with which the training ends.
        """
        before = len(self.history)
        count = min(self.at_once, self.epochs - before)
        start = time.perf_counter()
        try:
            self.mlp._all_or_nothing(
                lambda: self._train(count), self.state, [*self.history.lists(), *self.whole.lists()]
            )
        except Diverged as diverged:
            if count > 1:
                self.at_once, self.one_by_one = 1, True
                return True
            self.problem = f"training stopped in epoch {before + 1}, which was undone: {diverged}"
            return False
        stop = self.watchers.on_epoch_end(self.mlp, self.history)
        if not self.one_by_one and hasattr(self.mlp._backend, "train_epochs"):
            seconds = max((time.perf_counter() - start) / count, 1e-6)
            self.at_once = max(1, min(int(LONGEST_CALL / seconds), LONGEST_ORDERS // self.n))
        return not stop and len(self.history) < self.epochs

    def _train(self, count: int) -> None:
        figures = self.mlp._epochs(
            self.rule, self.state, self.data, self.batch_size, self.shuffle, self.held_out, count
        )
        for course in (self.history, self.whole):
            for one in figures:
                course.append(**one)
        self.mlp._optimizer = self.rule.kind, self.state

    def note_inputs(self, stacklevel: int = 3) -> None:
        """What `Mlp.fit` does after the last epoch of a training that nothing has ended early."""
        steps = len(self.history) * -(-self.n // self.batch_size)
        X, Y, held_out = self.given
        data = TrainingData(X, Y, self.samples, self.weights)
        self.mlp._note_inputs(data, held_out, steps=steps, stacklevel=stacklevel + 1)

    def interrupt(self) -> None:
        """Say in the histories that Ctrl-C has ended it."""
        self.history.interrupted = self.whole.interrupted = True

    def end(self) -> None:
        """What comes after the last epoch, and after Ctrl-C or an error."""
        self.mlp._numbers.host()
        self.watchers.on_fit_end(self.mlp, self.history)

    @property
    def trouble(self) -> str:
        """In words, that it has diverged; "" if it has not."""
        advice = f"a smaller learning_rate than {self.rule.learning_rate:g} may help, or a smaller input_scale"
        return f"{self.problem}; {advice}" if self.problem else ""

    def warn(self, stacklevel: int = 2) -> None:
        """Warn if it has diverged."""
        if self.trouble:
            warnings.warn(self.trouble, RuntimeWarning, stacklevel=stacklevel + 1)
