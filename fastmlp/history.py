"""What a training run leaves behind: one entry an epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The lists of a `History`, each with one entry an epoch.
SERIES = ("loss", "val_loss", "val_accuracy", "seconds", "samples_per_second")
#: Those that differ from one run to an equal other.
TIMINGS = ("seconds", "samples_per_second")


@dataclass
class History:
    """The course of a training run; ``len(history)`` is the number of epochs finished.

    Attributes
    ----------
    loss : list of float
        Mean training loss of each epoch: the batches' losses, each taken before its step, weighted by their samples.
    val_loss, val_accuracy : list of float
        Loss and accuracy (0 to 1) on the validation data after each epoch; nan where there was none. The accuracy is
        nan, too, for a network that does not classify.
    seconds : list of float
        Time of each epoch's training; compilation, validation and callbacks are outside it.
    samples_per_second : list of float
        Samples used in an epoch over its seconds.
    interrupted : bool, default False
        Whether Ctrl-C ended the run.
    """

    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    samples_per_second: list[float] = field(default_factory=list)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.loss)

    def __bool__(self) -> bool:  # a history with no epoch yet is still a history
        return True

    @property
    def validated(self) -> bool:
        """Whether any epoch was followed by a validation."""
        return not all(map(math.isnan, self.val_loss))

    def append(
        self,
        *,
        loss: float,
        seconds: float,
        samples_per_second: float,
        val_loss: float = math.nan,
        val_accuracy: float = math.nan,
    ) -> None:
        """Add an epoch; the arguments are as the attributes."""
        self.loss.append(loss)
        self.val_loss.append(val_loss)
        self.val_accuracy.append(val_accuracy)
        self.seconds.append(seconds)
        self.samples_per_second.append(samples_per_second)

    def lists(self) -> list[list[float]]:
        """The lists, in the order of `SERIES`."""
        return [getattr(self, name) for name in SERIES]

    def to_dict(self) -> dict[str, Any]:
        """As a plain dict that strict JSON can hold: nan and infinity become None."""
        plain: dict[str, Any] = {
            name: [value if math.isfinite(value) else None for value in getattr(self, name)] for name in SERIES
        }
        return {**plain, "interrupted": self.interrupted}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "History":
        """The history that `to_dict` wrote; None becomes nan, and so do `TIMINGS` that were left out.

        Raises
        ------
        ValueError
            If another entry is missing, or if one is not a list of finite numbers or differs in length from the others.
        """
        lists: dict[str, list[float]] = {}
        for name in SERIES:
            values = plain.get(name)
            if name in TIMINGS and name not in plain:
                values = [None] * len(lists["loss"])
            if not isinstance(values, list):
                raise ValueError(f"history[{name!r}] is {values!r}; expected a list of numbers")
            lists[name] = [math.nan if value is None else _finite(name, value) for value in values]
        lengths = {name: len(values) for name, values in lists.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history has lists of lengths {lengths}; expected one entry an epoch in each")
        interrupted = plain.get("interrupted", False)
        if not isinstance(interrupted, bool):
            raise ValueError(f"history['interrupted'] is {interrupted!r}; expected true or false")
        return cls(**lists, interrupted=interrupted)


def _finite(name: str, value: object) -> float:
    """An entry of a list of a history, or else ValueError."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an int beyond the floats
        pass
    raise ValueError(f"history[{name!r}] holds {value!r}; expected finite numbers")
