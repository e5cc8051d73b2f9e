"""What inputs a network was trained on, roughly, so that inputs of another scale, or inverted images, are noticed.

All values are as they are given, before ``input_scale`` and ``input_shift``. A few rows, evenly spread, stand for all.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from fastmlp.kernels import Network

#: How many rows of the training data are looked at, and of what is to be predicted.
TRAINING_ROWS, ROWS = 1000, 100

#: From how many rows on one knows what to expect.
ENOUGH_ROWS = 10

#: From how many inputs on a row's mean is taken for an image's brightness.
IMAGE_INPUTS = 16

#: Inputs are of another scale if the largest of every row differ from all that was seen by more than this factor.
FACTOR = 10

#: After how many steps something should have been learned, and what is but a little more than by constant outputs: of
#: their loss, and of what their accuracy lacks.
ENOUGH_STEPS, LITTLE_LOSS, LITTLE_ACCURACY = 50, 0.2, 0.3

#: Inputs of about these magnitudes, after ``input_scale`` and ``input_shift``, suit the initial weights.
UNIT_SCALE = 0.02, 20


@dataclass(frozen=True)
class Seen:
    """The range of some inputs.

    Attributes
    ----------
    rows : int
        How many rows were looked at.
    low, high : float
        Smallest and largest value.
    least, most : float
        A row's largest magnitude: the least, but for one in a hundred, and the greatest.
    darkest, lightest : float
        The smallest and the largest mean of a row.
    """

    rows: int
    low: float
    high: float
    least: float
    most: float
    darkest: float
    lightest: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Any) -> "Seen":
        """What `to_dict` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        names = {field.name for field in fields(cls)}
        are_there = isinstance(plain, dict) and set(plain) == names
        largest = float(np.finfo(np.float64).max)
        if not are_there or not all(type(value) in (int, float) and abs(value) <= largest for value in plain.values()):
            raise ValueError(f"seen is {plain!r}; expected a finite number for each of {', '.join(sorted(names))}")
        return cls(**plain)


#: How the ranges of two sets of inputs become that of both.
JOINED = {"low": min, "high": max, "least": min, "most": max, "darkest": min, "lightest": max}


def spread(X: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly spread; a view."""
    return X[:: -(-len(X) // most)]


def largest(rows: np.ndarray) -> np.ndarray:
    """Each row's largest magnitude, float64 [n]."""
    return np.maximum(rows.max(1).astype(np.float64), -rows.min(1).astype(np.float64))


def look(X: np.ndarray, before: Seen | None = None) -> Seen:
    """What these samples [n, n_in] are like, together with those seen before."""
    rows = spread(X, TRAINING_ROWS)
    with np.errstate(all="ignore"):  # numbers near the dtype's largest
        tops, low, high = largest(rows), float(rows.min()), float(rows.max())
        means = np.clip(rows.mean(1, dtype=np.float64), low, high)
    new = Seen(
        len(rows), low, high, float(np.quantile(tops, 0.01)), float(tops.max()), float(means.min()), float(means.max())
    )
    if before is None:
        return new
    both = ((getattr(before, name), getattr(new, name)) for name in JOINED)
    return Seen(before.rows + new.rows, *(join(pair) for join, pair in zip(JOINED.values(), both, strict=True)))


def is_other_scale(seen: Seen, smallest: float, greatest: float) -> bool:
    """Whether samples whose largest magnitudes are within these bounds are of another scale than what was seen."""
    return 0 < greatest < seen.least / FACTOR or smallest > seen.most * FACTOR


def is_inverted(seen: Seen, darkest: float, lightest: float) -> bool:
    """Whether samples whose means are within these bounds are nearer to what was seen when they are inverted.

    Where all that was seen is darker than the middle of its range, all of these have to be lighter, and by half of what
    the middle and the inverted differ; and the other way round.
    """
    both = seen.low + seen.high
    middle = both / 2
    if seen.lightest < middle:
        return darkest > (middle + both - seen.lightest) / 2
    return seen.darkest > middle and lightest < (middle + both - seen.darkest) / 2


def difference(seen: Seen | None, X: np.ndarray, name: str = "X") -> str:
    """In words, how samples differ from all that was seen in training; "" if they don't, as far as one can tell.

    Mostly one row tells that there is nothing to tell, in some microseconds.
    """
    if seen is None or seen.rows < ENOUGH_ROWS:
        return ""
    of_images = X.shape[1] >= IMAGE_INPUTS
    with np.errstate(all="ignore"):  # numbers near the dtype's largest
        row = X[len(X) // 2]
        top = max(float(row.max()), -float(row.min()))
        mean = float(np.add.reduce(row, dtype=np.float64)) / len(row)
        if not is_other_scale(seen, top, top) and not (of_images and is_inverted(seen, mean, mean)):
            return ""
        rows = spread(X, ROWS)
        tops, means = largest(rows), rows.mean(1, dtype=np.float64)
    if is_other_scale(seen, tops.min(), tops.max()):
        return (
            f"{name} holds {rows.min():.4g} to {rows.max():.4g}, but the network was trained on inputs of "
            f"{seen.low:.4g} to {seen.high:.4g}; bring {name} to that scale"
        )
    if of_images and is_inverted(seen, means.min(), means.max()):
        return (
            f"{name} looks inverted: its mean is {means.mean():.3g}, where the network was trained on samples with "
            f"means of {seen.darkest:.3g} to {seen.lightest:.3g}; if these are dark digits on a light ground (or the "
            f"reverse), give {seen.low + seen.high:.4g} - {name}, or --invert at the command line"
        )
    return ""


def scale_advice(seen: Seen, network: Network) -> str:
    """What to set ``input_scale`` to, where nearly all samples are far from unit scale; "" where they are not."""
    factor, shift = abs(network.input_scale), abs(network.input_shift)
    low, high = UNIT_SCALE
    if (low <= seen.most * factor + shift and seen.least * factor - shift <= high) or not seen.most:
        return ""
    size = f"{seen.low:.4g} to {seen.high:.4g}"
    scaled = "" if (network.input_scale, network.input_shift) == (1, 0) else ", scaled and shifted"
    of_pixels = seen.low >= 0 and 100 < seen.high <= 255
    scale = "1/255" if of_pixels else f"{1 / seen.most:.2g}"
    return f"the inputs are {size}{scaled}, far from unit scale: input_scale={scale} may help"


def constant_loss(network: Network, Y: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Loss and accuracy of the best constant outputs for targets Y, rows [n, n_out], with weights [n] if any."""
    Y = Y.astype(np.float64)
    means = np.average(Y, 0, weights)
    if network.loss == "mean_squared_error":
        loss = 0.5 * np.average((Y - means) ** 2, 0, weights).sum()
    else:
        p = np.clip(means, 1e-12, 1 - 1e-12)
        loss = -(means * np.log(p)).sum()
        if network.loss == "binary_cross_entropy":
            loss -= ((1 - means) * np.log(1 - p)).sum()
    is_class = Y.shape[1] > 1 and np.count_nonzero(Y) == len(Y)
    accuracy = means.max() if is_class else np.average(((Y > 0.5) == (means > 0.5)).all(1), weights=weights)
    return float(loss), float(accuracy)
