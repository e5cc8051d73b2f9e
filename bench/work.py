"""The work: what every contender does, described once.

A `Work` says it all: network, batch size, dtype, update rule, samples, and from the seed the initial weights and the
order of the samples. Two contenders that take so many steps of the same work do the same arithmetic on the same
numbers, whatever library they call.
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from fastmlp import data as datasets
from fastmlp.initializers import INITIALIZERS
from fastmlp.kernels import Network, Rule

__all__ = ["JOBS", "LEVELS", "MOMENTUM", "SHIFT", "SOURCES", "Work", "mnist_is_here", "operations"]

#: The update rule of the lab's PyTorch program.
MOMENTUM = Rule("momentum", learning_rate=0.001, momentum=0.9)

#: "train": steps of mini-batches, the loss of each before its step. "lab": the lab's full-batch iterations, after each
#: of them a prediction and its loss ½ mean((prediction - Y)²), as the lab's NumPy program reports it.
JOBS = ("train", "lab")

#: Where samples come from. "synthetic" has the shape of "mnist" where there are 784 inputs, and fits any network.
SOURCES = ("mnist", "synthetic")

LEVELS = 255  #: the largest value of a pixel
SHIFT = -0.5  #: added to a pixel of 0 … 1, as Normalize((0.5,), (1.0,)) of the lab's PyTorch program does
ZERO_PIXELS = 0.81  #: the share of MNIST's pixels that are zero


@dataclass(frozen=True)
class Work:
    """One definition of the work.

    Parameters
    ----------
    sizes : tuple of int, default (784, 100, 10)
        Inputs, units of each hidden layer, outputs.
    batch_size : int, default 5
        Samples a step; what is left over at the end of the samples is not used.
    dtype : str, default "float32"
        Of parameters and arithmetic.
    activation : str, default "relu"
        Of the hidden layers; the output's is the loss' own.
    loss : str, default "cross_entropy"
    rule : Rule, default momentum SGD with learning rate 0.001 and momentum 0.9
    source : {"mnist", "synthetic"}, default "mnist"
    samples : int, default 60,000
    init : str, default "torch"
        An initializer of `fastmlp.initializers`.
    seed : int, default 0
        Of the initial weights, the order, and synthetic samples.
    job : {"train", "lab"}, default "train"
        See `JOBS`.

    Raises
    ------
    ValueError
        If a part is not as described, or the samples don't fit the network.
    """

    sizes: tuple[int, ...] = (784, 100, 10)
    batch_size: int = 5
    dtype: str = "float32"
    activation: str = "relu"
    loss: str = "cross_entropy"
    rule: Rule = MOMENTUM
    source: str = "mnist"
    samples: int = 60_000
    init: str = "torch"
    seed: int = 0
    job: str = "train"

    def __post_init__(self) -> None:
        for name, known in (("job", JOBS), ("source", SOURCES), ("init", INITIALIZERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not 1 <= self.batch_size <= self.samples:
            raise ValueError(f"batch_size={self.batch_size}; expected 1 to samples={self.samples}")
        if self.source == "mnist" and (self.sizes[0], self.sizes[-1]) != (784, 10):
            raise ValueError(f"sizes={list(self.sizes)}; expected 784 inputs and 10 outputs with source='mnist'")
        if self.source == "mnist" and self.samples > 60_000:
            raise ValueError(f"samples={self.samples}; expected 60,000 at most with source='mnist'")
        if self.job == "lab" and (self.batch_size, self.loss) != (self.samples, "binary_cross_entropy"):
            raise ValueError("job='lab' expects batch_size=samples and loss='binary_cross_entropy'")
        self.network()  # refuses what is left

    @classmethod
    def lab(cls, **changes: Any) -> "Work":
        """The lab's own job: 10,000 raw images at once, sigmoid, float64, W ← W - gradient."""
        job = cls(
            batch_size=10_000,
            dtype="float64",
            activation="sigmoid",
            loss="binary_cross_entropy",
            rule=Rule("plain", learning_rate=1.0),
            samples=10_000,
            init="lab",
            seed=123,
            job="lab",
        )
        return replace(job, **changes)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "Work":
        """The work that `to_dict` has described."""
        return cls(**{**given, "sizes": tuple(given["sizes"]), "rule": Rule(**given["rule"])})

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON knows."""
        return {**asdict(self), "sizes": list(self.sizes)}

    @property
    def title(self) -> str:
        """The work in one line."""
        if self.job == "lab":
            return f"lab's job: {list(self.sizes)}, {self.samples:,} raw images at once, {self.dtype}"
        return f"{list(self.sizes)}, {self.activation}, batch {self.batch_size:,}, {self.dtype}"

    @property
    def batches(self) -> int:
        """Whole batches in one pass over the samples."""
        return self.samples // self.batch_size

    @property
    def has_pixels(self) -> bool:
        """Whether samples are images of uint8 pixels."""
        return self.source == "mnist" or self.sizes[0] == 784

    def network(self, dtype: str | None = None) -> Network:
        """The network, in another dtype if one is given."""
        return Network.build(self.sizes, self.activation, None, self.loss, dtype=dtype or self.dtype)

    def parameters(self, dtype: str | None = None) -> np.ndarray:
        """The initial parameters as one flat array: rounded to the work's dtype, then given in another if asked."""
        network = self.network(dtype)
        flat = network.zeros()
        # The lab draws from NumPy's old generator; the values are its own to the last bit.
        rng = np.random.RandomState(self.seed) if self.init == "lab" else np.random.default_rng(self.seed)
        for row in network.rows(flat):
            drawn = INITIALIZERS[self.init](rng, row.shape[0], row.shape[1] - 1, True)
            row[:] = drawn.astype(self.dtype)
        return flat

    def matrices(self, dtype: str | None = None) -> list[np.ndarray]:
        """The initial weights of each layer, [n_out, n_in + 1] with the biases in column 0: a copy."""
        return [np.array(row) for row in self.network(dtype).rows(self.parameters(dtype))]

    def load(self, shuffled: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The samples; the same arrays again if they were the last that this process has loaded.

        Parameters
        ----------
        shuffled : bool, default False
            Whether they lie in the order in which they are used, or in that of their source.

        Returns
        -------
        X : ndarray [n, n_in]
            In the work's dtype, pixels as pixel / 255 - ½; in the lab's job the raw pixels, uint8. n is `samples`;
            shuffled, those of whole batches alone.
        Y : ndarray
            int32 labels [n] after cross-entropy, otherwise targets [n, n_out] in the work's dtype.
        """
        ends = self.sizes[0], self.sizes[-1]
        shuffled = shuffled and self.job != "lab"
        X, Y = _load(self.source, ends, self.samples, self.loss, self.dtype, self.seed, self.job == "lab", shuffled)
        n = self.batches * self.batch_size if shuffled else self.samples
        return X[:n], Y[:n]

    def pixels(self) -> np.ndarray:
        """The images of `load` as raw pixels, uint8 [samples, 784], in the order of their source.

        Raises
        ------
        ValueError
            If samples are no images.
        """
        if not self.has_pixels:
            raise ValueError(f"{self.title} has no pixels; expected 784 inputs")
        return _images(self.source, self.samples, self.sizes[-1], self.seed)[0]

    def order(self) -> np.ndarray:
        """The order in which samples are used, int64 [batches * batch_size]; in the lab's job as they are."""
        order = np.arange(self.samples) if self.job == "lab" else permutation(self.samples, self.seed)
        return order[: self.batches * self.batch_size]


def operations(work: Work) -> float:
    """Floating-point operations of one step, those of the matrix products alone.

    A product [B, i] · [i, o] counts 2 B i o. A step has three for each layer: forward, gradient, and the deltas of the
    layer before (none for the first). The lab's job predicts once more.
    """
    pairs = list(zip(work.sizes, work.sizes[1:], strict=False))
    products = [i * o for i, o in pairs]
    passes = 3 * sum(products) - products[0] + (sum(products) if work.job == "lab" else 0)
    return 2.0 * work.batch_size * passes


def mnist_is_here() -> bool:
    """Whether MNIST is found on this machine; nothing is downloaded."""
    try:
        datasets.mnist(download=False, progress=False)
    except datasets.DataNotFound:
        return False
    return True


def permutation(samples: int, seed: int) -> np.ndarray:
    """The order of all samples, int64 [samples]."""
    return np.random.default_rng(seed).permutation(samples)


@lru_cache(maxsize=1)
def _load(
    source: str, ends: tuple[int, int], samples: int, loss: str, dtype: str, seed: int, raw: bool, shuffled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """See `Work.load`. Only the last is kept: each is some hundred megabytes."""
    n_in, n_out = ends
    if source == "mnist" or n_in == 784:
        pixels, labels = _images(source, samples, n_out, seed)
        X = pixels if raw else _scaled(pixels, dtype)
        Y = labels if loss == "cross_entropy" else np.eye(n_out, dtype=dtype)[labels]
    else:
        X, Y = _vectors(n_in, n_out, samples, loss, dtype, seed)
    if shuffled:
        order = permutation(samples, seed)
        X, Y = X[order], Y[order]
    return X, Y


@lru_cache(maxsize=1)
def _images(source: str, samples: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 [samples, 784], and labels, int32 [samples]: of MNIST, or made up like them.

    The made-up ones share MNIST's size, its share of zero pixels, and can be learnt: a class is a random picture, an
    image that picture with noise.
    """
    if source == "mnist":
        found = datasets.mnist(download=False, progress=False)
        return found.train_images[:samples], found.train_labels[:samples].astype(np.int32)
    rng = np.random.default_rng(seed)
    pictures = rng.integers(1, LEVELS + 1, (classes, 784), dtype=np.uint8)
    pictures[rng.random(pictures.shape) < ZERO_PIXELS] = 0
    labels = rng.integers(0, classes, samples, dtype=np.int32)
    pixels = pictures[labels]
    pixels[(rng.integers(0, 10, pixels.shape, dtype=np.uint8) == 0) & (pixels > 0)] = LEVELS
    return pixels, labels


def _scaled(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Pixels as pixel / 255 - ½."""
    T = np.dtype(dtype).type
    X = pixels.astype(dtype)
    X *= T(1 / LEVELS)
    X += T(SHIFT)
    return X


def _vectors(n_in: int, n_out: int, samples: int, loss: str, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal vectors, and the targets that a random linear map gives them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, n_in), np.float32)
    Z = X @ rng.standard_normal((n_in, n_out), np.float32) / np.float32(np.sqrt(n_in))
    X = X.astype(dtype, copy=False)
    if loss == "cross_entropy":
        return X, Z.argmax(1).astype(np.int32)
    return X, (Z > 0 if loss == "binary_cross_entropy" else Z).astype(dtype)
