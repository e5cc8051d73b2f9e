"""The work: what every contender does, described once.

A `Work` says it all: network, batch size, dtype, update rule, samples, and from the seed the initial weights and the
order of the samples. Two contenders that take so many steps of the same work do the same arithmetic on the same
numbers, whatever library they call.
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastmlp import data as datasets
from fastmlp.initializers import INITIALIZERS
from fastmlp.kernels import Network, Rule

__all__ = ["JOBS", "LAB_SHIFT", "LEVELS", "MOMENTUM", "SOURCES", "Work", "bytes_touched", "mnist_is_here", "operations"]

#: The update rule of the lab's PyTorch program.
MOMENTUM = Rule("momentum", learning_rate=0.001, momentum=0.9)

#: "train": steps of mini-batches, the loss of each before its step. "lab": the lab's full-batch iterations, after each
#: of them a prediction and its loss ½ mean((prediction - Y)²), as the lab's NumPy program reports it.
#: "predict": the outputs of a batch with the initial weights, after softmax or sigmoid; a step is one call.
#: "many": several networks, each with initial weights of its own, train on the same batches; a step is one of each, its
#: loss their mean.
JOBS = ("train", "lab", "predict", "many")

#: Where samples come from. "synthetic" has the shape of "mnist" where there are 784 inputs, and fits any network.
SOURCES = ("mnist", "synthetic")

LEVELS = 255  #: the largest value of a pixel
LAB_SHIFT = -0.5  #: added to a pixel of 0 … 1 by Normalize((0.5,), (1.0,)) of the lab's PyTorch program
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
    job : {"train", "lab", "predict", "many"}, default "train"
        See `JOBS`.
    networks : int, default 1
        How many there are in the job "many".
    shift : {0.0, -0.5}, default 0.0
        Added to pixels of 0 … 1: with 0 they are as torchvision's ToTensor gives them, and four fifths of MNIST's are
        zero; with -½ as after the lab's Normalize((0.5,), (1.0,)), and as many are -½.
    dense : bool, default False
        Whether each pixel gets noise of up to half a grey level, so that an image holds hardly a value twice, and
        nothing that arithmetic could be saved by.

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
    shift: float = 0.0
    dense: bool = False
    networks: int = 1

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
        if self.shift not in (0.0, LAB_SHIFT):
            raise ValueError(f"shift={self.shift}; expected 0.0 or {LAB_SHIFT}")
        if (self.shift or self.dense) and (self.job == "lab" or not self.has_pixels):
            raise ValueError(f"shift={self.shift}, dense={self.dense}; expected neither without scaled pixels")
        if self.networks < 1 or (self.networks > 1 and self.job != "many"):
            raise ValueError(f"networks={self.networks}; expected 1, or more with job='many'")
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
        job = {"predict": "predict, ", "many": f"{self.networks} networks, "}.get(self.job, "")
        data = f", {self.data}" if self.has_pixels else ""
        return f"{job}{list(self.sizes)}, {self.activation}, batch {self.batch_size:,}, {self.dtype}{data}"

    @property
    def data(self) -> str:
        """The samples in a few words."""
        if not self.has_pixels:
            return "made-up vectors"
        name = "MNIST" if self.source == "mnist" else "made-up images"
        if self.job == "lab":
            return f"{name}, raw pixels 0 … 255"
        low, high = self.shift, self.shift + 1
        return f"{name}, pixels {low:g} … {high:g}{' with noise' if self.dense else ''}"

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

    def parameters(self, dtype: str | None = None, number: int = 0) -> np.ndarray:
        """The initial parameters as one flat array: rounded to the work's dtype, then given in another if asked.

        Those of one of the networks, by its number.
        """
        network = self.network(dtype)
        flat = network.zeros()
        # The lab draws from NumPy's old generator; the values are its own to the last bit.
        rng = np.random.RandomState(self.seed) if self.init == "lab" else np.random.default_rng(self.seed + number)
        for row in network.rows(flat):
            drawn = INITIALIZERS[self.init](rng, row.shape[0], row.shape[1] - 1, True)
            row[:] = drawn.astype(self.dtype)
        return flat

    def matrices(self, dtype: str | None = None, number: int = 0) -> list[np.ndarray]:
        """The initial weights of each layer, [n_out, n_in + 1] with the biases in column 0: a copy."""
        return [np.array(row) for row in self.network(dtype).rows(self.parameters(dtype, number))]

    def load(self, shuffled: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The samples; the same arrays again if they were the last that this process has loaded.

        Parameters
        ----------
        shuffled : bool, default False
            Whether they lie in the order in which they are used, or in that of their source.

        Returns
        -------
        X : ndarray [n, n_in]
            In the work's dtype, pixels as pixel / 255 + shift; in the lab's job the raw pixels, uint8. n is `samples`;
            shuffled, those of whole batches alone.
        Y : ndarray
            int32 labels [n] after cross-entropy, otherwise targets [n, n_out] in the work's dtype.
        """
        ends = self.sizes[0], self.sizes[-1]
        shuffled = shuffled and self.job != "lab"
        pixels = Pixels(self.job == "lab", self.shift, self.dense)
        X, Y = _load(self.source, ends, self.samples, self.loss, self.dtype, self.seed, pixels, shuffled)
        n = self.batches * self.batch_size if shuffled else self.samples
        return X[:n], Y[:n]

    def pixels(self) -> np.ndarray:
        """The images of `load` as raw pixels, uint8 [samples, 784], in the order of their source.

        Raises
        ------
        ValueError
            If samples are no images, or have noise that bytes can't hold.
        """
        if not self.has_pixels or self.dense:
            raise ValueError(f"{self.title} has no samples of bytes; expected 784 inputs and dense=False")
        return _images(self.source, self.samples, self.sizes[-1], self.seed)[0]

    def order(self) -> np.ndarray:
        """The order in which samples are used, int64 [batches * batch_size]; in the lab's job as they are."""
        order = np.arange(self.samples) if self.job == "lab" else permutation(self.samples, self.seed)
        return order[: self.batches * self.batch_size]


def operations(work: Work) -> float:
    """Floating-point operations of one step, those of the matrix products alone.

    A product [B, i] · [i, o] counts 2 B i o. A step has three for each layer: forward, gradient, and the deltas of the
    layer before (none for the first). The lab's job predicts once more. A prediction is the forward products alone.
    """
    pairs = list(zip(work.sizes, work.sizes[1:], strict=False))
    products = [i * o for i, o in pairs]
    if work.job == "predict":
        return 2.0 * work.batch_size * sum(products)
    passes = 3 * sum(products) - products[0] + (sum(products) if work.job == "lab" else 0)
    return 2.0 * work.networks * work.batch_size * passes


def bytes_touched(work: Work) -> float:
    """Bytes that one step can't do without: its samples read once; parameters and velocity (or moments) read and
    written once.

    A prediction reads its samples and the parameters. What comes between the layers is left out: it need never leave
    the first caches.
    """
    size = np.dtype(work.dtype).itemsize
    parameters = sum((i + 1) * o for i, o in zip(work.sizes, work.sizes[1:], strict=False))
    sample = work.sizes[0] * (1 if work.job == "lab" else size)
    passes = {"plain": 2, "adam": 6}.get(work.rule.kind, 4)
    if work.job == "predict":
        passes = 1
    return float(work.networks * (work.batch_size * sample + passes * parameters * size))


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


class Pixels(NamedTuple):
    """How pixels become inputs, see `Work`."""

    raw: bool
    shift: float
    dense: bool


@lru_cache(maxsize=1)
def _load(
    source: str, ends: tuple[int, int], samples: int, loss: str, dtype: str, seed: int, how: Pixels, shuffled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """See `Work.load`. Only the last is kept: each is some hundred megabytes."""
    n_in, n_out = ends
    if source == "mnist" or n_in == 784:
        pixels, labels = _images(source, samples, n_out, seed)
        X = pixels if how.raw else _scaled(pixels, dtype, how, seed)
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


def _scaled(pixels: np.ndarray, dtype: str, how: Pixels, seed: int) -> np.ndarray:
    """Pixels as pixel / 255 + shift; dense, with noise of up to half a level."""
    T = np.dtype(dtype).type
    X = pixels.astype(dtype)
    if how.dense:
        X += np.random.default_rng(seed).random(X.shape, np.float32) - np.float32(0.5)
    X *= T(1 / LEVELS)
    X += T(how.shift)
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
