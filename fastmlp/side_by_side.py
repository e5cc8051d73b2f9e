"""The machinery of `fastmlp.many.fit_many`: networks that share the threads of this process, or joblib's workers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from threading import Lock
from typing import Any, TypeAlias

from numpy.typing import ArrayLike

from fastmlp import checks, kernels
from fastmlp.callbacks import Callback, CallbackList, ProgressBar, callback_list
from fastmlp.fitting import Fit, checked
from fastmlp.history import History
from fastmlp.mlp import Mlp

#: What all networks of a call are given: X, y and sample_weight.
Shared: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike | None]

#: What a sample costs a network besides its multiply-adds, in these: decides in which order networks have their turns.
OVERHEAD = 500


class Data:
    """X, y and weights as `Fit` takes them: checked, and converted where needed, once for all networks of a kind."""

    def __init__(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self.X, self.y, self.sample_weight = X, y, sample_weight
        if sample_weight is not None:
            self.sample_weight = checks.converted(checks.numeric("sample_weight", sample_weight), "float64")
        self.kept: dict[tuple, Any] = {}

    def of(self, mlp: Mlp, validation: Any) -> tuple[Any, Any, tuple[Any, Any] | None]:
        """Samples, targets and validation for that network."""
        net, where = mlp.network, mlp.backend_name
        inputs = "X", where, net.sizes[0], net.dtype, net.input_scale, net.input_shift
        targets = "y", where, net.sizes[-1], net.dtype, net.loss, net.activations[-1]
        X = self._once(inputs, lambda: mlp._inputs(self.X))
        Y = self._once(targets, lambda: mlp._targets(self.y, len(X)))
        if validation is None:
            return X, Y, None
        # The pair is kept with what was made of it, so that no other one gets its number.
        _, held_out = self._once((id(validation), inputs, targets), lambda: (validation, mlp._validation(validation)))
        return X, Y, held_out

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


class Run:
    """A network's call of `Mlp.fit`: checked at once, set up when its turn comes.

    Parameters
    ----------
    mlp : Mlp
    data : Data
    options : dict
        Those of `fit_many` that a network has of its own.

    Raises
    ------
    TypeError, ValueError
        If one is not as described there; nothing has changed then.
    """

    def __init__(self, mlp: Mlp, data: Data, options: dict[str, Any]) -> None:
        options = dict(options)
        self.mlp, self.data = mlp, data
        self.samples, self.validation = options.pop("samples"), options.pop("validation")
        self.watchers = callback_list(() if (given := options.pop("callbacks")) is None else given, False)
        self.options = checked(mlp.network, **options)
        mlp._numbers.host()  # refuses weights that do not fit
        X, *_ = data.of(mlp, self.validation)
        chosen, _ = mlp._chosen(self.samples, data.sample_weight, len(X))
        self.n, self.epochs = len(X if chosen is None else chosen), self.options["epochs"]
        self.fit: Fit | None = None
        self.history, self.trouble, self.is_over = History(), "", False

    @property
    def is_compiled(self) -> bool:
        """Whether the network is trained by code that leaves the interpreter to other threads."""
        return self.mlp.backend_name == "cpu" and not self.mlp._overridden

    def work_left(self) -> float:
        """How much there is to do, in multiply-adds or so."""
        return (self.epochs - len(self.history)) * self.n * (self.mlp.network.multiply_adds + OVERHEAD)

    def go_on(self, lock: AbstractContextManager) -> bool:
        """Train for some epochs, as `Fit.go_on`, and begin before the first; callbacks are called under the lock."""
        if self.fit is None:
            given = self.data.of(self.mlp, self.validation)
            chosen, weights = self.mlp._chosen(self.samples, self.data.sample_weight, len(given[0]))
            watchers = CallbackList([InTurn(self.watchers, lock)] if self.watchers.members else [])
            fit = Fit(self.mlp, given, watchers=watchers, samples=chosen, weights=weights, **self.options)
            self.fit, self.history = fit, fit.history
            fit.begin()
        self.is_over = not self.fit.go_on()
        self.trouble = self.fit.trouble
        return not self.is_over

    def interrupt(self) -> None:
        """Say in the histories that Ctrl-C has ended it."""
        self.mlp.history = self.mlp.history or History()
        self.history.interrupted = self.mlp.history.interrupted = True

    def end(self) -> None:
        """What comes after the last epoch, and after Ctrl-C or an error."""
        if self.fit is not None:
            self.fit.end()

    def note_inputs(self, stacklevel: int = 3) -> None:
        """As `Fit.note_inputs`, where it was trained here and nothing has ended it early."""
        if self.fit is not None and self.is_over and not self.trouble:
            self.fit.note_inputs(stacklevel + 1)

    def take_over(self, trained: Mlp, history: History, trouble: str) -> None:
        """Have the training that a copy of the network has had elsewhere."""
        self.mlp._become(trained)
        self.history, self.trouble, self.is_over = history, trouble, True


def runs_of(networks: Sequence[Mlp], shared: Shared, own: Sequence[dict[str, Any]]) -> list[Run]:
    """Each network's training, of which everything is checked."""
    data, runs = Data(*shared), []
    for i, (mlp, options) in enumerate(zip(networks, own, strict=True)):
        try:
            runs.append(Run(mlp, data, options))
        except Exception as error:
            error.add_note(f"This is about networks[{i}].")
            raise
    return runs


class InTurn(Callback):
    """A network's callbacks, called while those of no other network are."""

    def __init__(self, watchers: CallbackList, lock: AbstractContextManager) -> None:
        self.watchers, self.lock = watchers, lock

    def on_fit_begin(self, mlp: Mlp, epochs: int) -> None:
        """Begin them."""
        with self.lock:
            self.watchers.on_fit_begin(mlp, epochs)

    def on_epoch_end(self, mlp: Mlp, history: History) -> bool:
        """Ask them."""
        with self.lock:
            return self.watchers.on_epoch_end(mlp, history)

    def on_fit_end(self, mlp: Mlp, history: History) -> None:
        """End them; who calls has the lock, or is the only thread."""
        self.watchers.on_fit_end(mlp, history)


class ManyBar(ProgressBar):
    """One progress bar for all networks."""

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__()
        self.networks, self.epochs, self.over = len(runs), sum(run.epochs for run in runs), 0

    def tell(self, run: Run, epochs: int) -> None:
        """Move on by so many epochs, and by what is left out where a network's training is over."""
        self.over += run.is_over
        left_out = run.epochs - len(run.history) if run.is_over else 0
        self.advance(epochs + left_out, f"networks {self.over}/{self.networks}")


# --------------------------------------------------------------------------------------------------------- side by side
def train(runs: Sequence[Run], threads: int | None, bar: ManyBar | None) -> None:
    """Train all to their ends, or until Ctrl-C or an error ends all."""

    def go_on(run: Run, lock: AbstractContextManager) -> bool:
        before = len(run.history)
        more = run.go_on(lock)
        if bar is not None or not more:
            with lock:
                if bar is not None:
                    bar.tell(run, len(run.history) - before)
                if not more:
                    run.end()
        return more

    try:
        if bar is not None:
            bar.on_fit_begin(runs[0].mlp, bar.epochs)
        side_by_side([run for run in runs if run.is_compiled], go_on, threads)
        for run in runs:
            while not run.is_over and go_on(run, nullcontext()):
                pass
    except KeyboardInterrupt:
        for run in runs:
            if not run.is_over:
                run.interrupt()
    finally:
        with ExitStack() as stack:  # an error in one does not keep the others from ending
            if bar is not None:
                stack.callback(bar.on_fit_end, runs[-1].mlp, runs[-1].history)
            for run in runs:
                stack.callback(run.end)


def side_by_side(runs: Sequence[Run], go_on: Callable[[Run, Lock], bool], threads: int | None) -> None:
    """Train so many at once, each in a thread of its own."""
    if not runs:
        return
    from fastmlp.kernels.cpu import team

    kernels.warmup(tuple({run.mlp.network.dtype for run in runs}))  # here: a thread that compiles can't be stopped
    most = 1 if team.is_member() else threads or team.most_threads()  # a callback of other networks has called
    members, lock = team.at_hand(min(most, len(runs))), Lock()
    queue = Queue(runs, members)
    stopped: list[bool] = []

    def work(_: int) -> None:
        while not stopped and (run := queue.take()) is not None:
            if go_on(run, lock):
                queue.put_back(run)

    team.run(members, work, lambda: stopped.append(True))


class Queue:
    """The runs that wait for a thread.

    A thread goes on with the run that it has begun, so that no more networks are under way than threads. Towards the
    end it takes whichever has most left to do, so that all threads end at about the same time.
    """

    def __init__(self, runs: Sequence[Run], threads: int) -> None:
        self.fresh = sorted(runs, key=Run.work_left)
        self.begun: list[Run] = []
        self.threads, self.lock = threads, Lock()

    def take(self) -> Run | None:
        """The next run, or None where there is none."""
        with self.lock:
            most = max(self.begun, key=Run.work_left, default=None)
            are_few = len(self.fresh) <= self.threads
            if self.fresh and (most is None or (are_few and self.fresh[-1].work_left() > most.work_left())):
                return self.fresh.pop()
            if most is not None:
                self.begun.remove(most)
            return most

    def put_back(self, run: Run) -> None:
        """Have it wait for its next turn."""
        with self.lock:
            self.begun.append(run)


# ---------------------------------------------------------------------------------------------------------------- jobs
def train_in_jobs(
    runs: Sequence[Run], shared: Shared, own: Sequence[dict[str, Any]], threads: int, bar: ManyBar | None, n_jobs: int
) -> None:
    """Train all in jobs of joblib, wherever its active backend has its workers, and take over what becomes of them."""
    from joblib import Parallel, delayed, effective_n_jobs

    jobs = min(effective_n_jobs(n_jobs), len(runs))
    parts = [range(first, len(runs), jobs) for first in range(jobs)]
    if bar is not None:
        bar.on_fit_begin(runs[0].mlp, bar.epochs)
    try:
        done = Parallel(n_jobs=n_jobs)(
            delayed(train_part)([runs[i].mlp for i in part], shared, [own[i] for i in part], threads) for part in parts
        )
        for part, ends in zip(parts, done, strict=True):
            for i, end in zip(part, ends, strict=True):
                runs[i].take_over(*end)
                if bar is not None:
                    bar.tell(runs[i], len(runs[i].history))
    finally:
        if bar is not None:
            bar.on_fit_end(runs[0].mlp, runs[0].history)


def train_part(
    networks: Sequence[Mlp], shared: Shared, own: Sequence[dict[str, Any]], threads: int
) -> list[tuple[Mlp, History, str]]:
    """Train some networks, copies of the user's; each with its history and what went wrong."""
    runs = runs_of(networks, shared, own)
    train(runs, threads, None)
    for run in runs:
        run.note_inputs()
    return [(run.mlp, run.history, run.trouble) for run in runs]
