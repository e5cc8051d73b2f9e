"""What a contender is, and what several of them share.

A rival gets its best form. Its samples lie in memory in the order in which they are used, so that a batch is a view
(fastmlp gathers them by the shuffled order, inside the clock; a contender of its own has them as the rivals do); what
can be allocated, compiled or sliced beforehand is; and among its `settings`, numbers of threads for one, the fastest is
picked for each work by trial.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from fastmlp.bench.work import Work

__all__ = [
    "EXTRA",
    "Contender",
    "Missing",
    "Settings",
    "expect_training",
    "lab_loss",
    "limit_blas",
    "thread_counts",
]

#: What a user types to get the rivals.
EXTRA = "pip install 'fastmlp[bench]'"

Settings = dict[str, Any]


class Missing(Exception):
    """A contender that can't run here, or can't do this work; the message says why."""


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads that are tried: each up to four, then powers of two, and all cores."""
    return sorted({n for n in range(1, cores + 1) if n <= 4 or n & (n - 1) == 0} | {cores})


class Contender:
    """One way to do the work, set up with the work's initial weights.

    Parameters
    ----------
    work : Work
    settings : dict
        One of `settings_for`.

    Raises
    ------
    Missing
        If it can't run here, or can't do this work.
    """

    #: Its name in tables, and the group of which tables show the fastest.
    label: ClassVar[str] = ""
    family: ClassVar[str] = ""
    #: The package whose version counts.
    package: ClassVar[str] = "fastmlp"
    #: Whether the number of threads is fixed once a process has started.
    threads_by_process: ClassVar[bool] = False
    #: The dtype it computes in, where that is not the work's.
    dtype: ClassVar[str | None] = None
    #: The name of its arithmetic, where that is coarser than its dtype.
    arithmetic: ClassVar[str | None] = None
    #: Steps that it takes in a turn at most: of one so slow that more would only take time.
    most_steps: ClassVar[int | None] = None
    #: Seconds that its device took for the last `run`, by the device's own clock; None where that is not told.
    device_seconds: float | None = None

    def __init__(self, work: Work, settings: Settings) -> None:
        self.work = work
        self.settings = settings
        self.step = 0  # of the batches taken so far

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """The forms to choose from."""
        return [{"threads": threads} for threads in thread_counts(cores)]

    def prepare(self, steps: int) -> None:
        """Do what the next `run` needs and a user would have done before: outside the clock."""

    def run(self, steps: int) -> Iterable[Any]:
        """Take so many steps; returns the loss of each, or for those who know no better one loss, their mean."""
        raise NotImplementedError

    def told(self, result: Any) -> list[float]:
        """What `run` has returned, as numbers."""
        return [float(loss) for loss in result]

    def next_batches(self, steps: int) -> list[int]:
        """The numbers of the next batches, round and round."""
        first, self.step = self.step, self.step + steps
        return [number % self.work.batches for number in range(first, self.step)]


def expect_training(work: Work) -> None:
    """Refuse any other job.

    Raises
    ------
    Missing
    """
    if work.job != "train":
        raise Missing(f"does the job 'train' alone, not {work.job!r}")


def lab_loss(outputs: np.ndarray, Y: np.ndarray) -> float:
    """½ the mean squared error over all entries."""
    return float(0.5 * np.mean((outputs - Y) ** 2))


def limit_blas(threads: int) -> None:
    """Set the number of threads of NumPy's matrix library, for as long as this process lives."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
