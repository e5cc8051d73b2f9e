"""Result files, and the figures that follow from their raw times."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.atomic import write_atomically
from fastmlp.bench.work import LAB_SHIFT, Work, operations

__all__ = ["ONE_THREAD", "Figures", "SpeedUp", "fastest_of_family", "figures", "load", "save", "speed_up"]

FORMAT = 2
RESAMPLES = 2000  #: of a bootstrap
LEVEL = 0.95  #: of its interval


def save(result: dict[str, Any], path: str | os.PathLike[str], *, compact: bool = False) -> None:
    """Write a result as JSON, whole or not at all.

    Parameters
    ----------
    result : dict
        As `fastmlp.bench.measure.measure_suite` returns it.
    path : path-like
        An existing file is replaced; the folder is made if it is not there.
    compact : bool, default False
        Whether it is written without line breaks and spaces, for what nobody reads as it stands.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 1}
    write_atomically(path, f"{json.dumps(result, ensure_ascii=False, **layout)}\n".encode())


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result file.

    Raises
    ------
    OSError
        If it can't be read.
    ValueError
        If it is no result file, or one of another format.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no result file: {error}") from None
    if not isinstance(result, dict) or result.get("format") not in (1, FORMAT):
        raise ValueError(f"{path} is no result file of format 1 or {FORMAT}")
    return of_format_2(result) if result["format"] == 1 else result


def of_format_2(result: dict[str, Any]) -> dict[str, Any]:
    """A result of format 1, which did not say that it trained on the lab's pixels less ½."""
    for measurement in result["measurements"]:
        work = measurement["work"]
        if work["job"] == "train" and work["sizes"][0] == 784:
            work["shift"] = LAB_SHIFT
    return {**result, "format": FORMAT, "interrupted": False, "memory": None}


@dataclass(frozen=True)
class Figures:
    """What a contender's raw times of one work say.

    Parameters
    ----------
    microseconds : float
        Of a step: the median over rounds.
    spread : float
        Their interquartile range, in microseconds.
    samples_per_second : float
    gflops : float
        Of the matrix products alone, see `fastmlp.bench.work.operations`.
    share : float or None
        Of the measured ceiling of the contender's dtype, where there is one.
    """

    microseconds: float
    spread: float
    samples_per_second: float
    gflops: float
    share: float | None


def figures(result: dict[str, Any], measurement: dict[str, Any], name: str) -> Figures:
    """The figures of a contender.

    Parameters
    ----------
    result : dict
        The whole of a result file, for its ceilings.
    measurement : dict
        One of its measurements.
    name : str
        One of that measurement's contenders.
    """
    work = Work.from_dict(measurement["work"])
    raw = measurement["contenders"][name]
    low, median, high = np.percentile(np.array(raw["seconds"]) / measurement["steps"], [25, 50, 75])
    gflops = operations(work) / median / 1e9
    ceiling = result["ceilings"].get(raw["dtype"])
    share = gflops / ceiling["gflops"] if ceiling else None
    return Figures(median * 1e6, (high - low) * 1e6, work.networks * work.batch_size / median, gflops, share)


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster one contender is than another.

    Parameters
    ----------
    ratio : float
        Of the medians.
    low, high : float
        The bootstrap's interval of 95 %.
    """

    ratio: float
    low: float
    high: float


def speed_up(ours: Sequence[float], theirs: Sequence[float]) -> SpeedUp:
    """The ratio of their median time to ours, and its interval.

    The interval is the percentile bootstrap's (Efron & Tibshirani 1993, chapter 13), with rounds drawn whole: the times
    of one round share whatever disturbed the machine then.

    Parameters
    ----------
    ours, theirs : sequence of float [rounds]
        Seconds.
    """
    both = np.array([ours, theirs])
    rounds = np.random.default_rng(0).integers(0, both.shape[1], (RESAMPLES, both.shape[1]))
    medians = np.median(both[:, rounds], axis=2)
    low, high = np.percentile(medians[1] / medians[0], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return SpeedUp(float(np.median(theirs) / np.median(ours)), float(low), float(high))


ONE_THREAD = "fastmlp-threads-1"  #: the contender that others with threads given are set against


def fastest_of_family(measurement: dict[str, Any], family: str) -> str | None:
    """The name of the family's fastest contender in a measurement, by the median; None if none took part."""
    contenders = measurement["contenders"]
    names = [name for name in contenders if contenders[name]["family"] == family]
    return min(names, key=lambda name: float(np.median(contenders[name]["seconds"])), default=None)
