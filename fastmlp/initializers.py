"""Initializers: how the weights of a layer are drawn.

An initializer is a function ``f(rng, n_out, n_in, bias)`` that returns float64 [n_out, n_in + 1] with the biases in
column 0; or [n_out, n_in] where ``bias`` is False. ``rng`` is a `numpy.random.RandomState`, with ``random``,
``uniform``, ``normal`` and the rest: the one behind ``np.random.seed`` and ``np.random.rand``, or one of the network's
own if it was given a seed. So ``Mlp(sizes, seed=7)`` draws the numbers that ``np.random.seed(7); Mlp(sizes)`` draws.

To add one, write its function here and enter it in `INITIALIZERS`; a function of one's own can be given to `Mlp`
directly.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from fastmlp.kernels.names import unknown_name

Rng: TypeAlias = np.random.RandomState | np.random.Generator  # those below ask for what both have
Initializer: TypeAlias = Callable[[Rng, int, int, bool], np.ndarray]


def generator(seed: int | None) -> np.random.RandomState:
    """The generator that weights are drawn from: one of its own with a seed, NumPy's global one without."""
    # np.random's functions are methods of this object; NumPy has no public name for it.
    return np.random.mtrand._rand if seed is None else np.random.RandomState(seed)


def with_zero_bias(weights: np.ndarray, bias: bool) -> np.ndarray:
    """The weights behind a column of zeros, or alone where there is no bias."""
    return np.hstack([np.zeros((len(weights), 1)), weights]) if bias else weights


def lab(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """The lab's: weights and biases uniform within ±4√6 / √(n_in + n_out).

    Four times Glorot's limit, which is what Glorot & Bengio's reasoning gives for the sigmoid.
    """
    epsilon = 4 * np.sqrt(6) / np.sqrt(n_in + n_out)
    return epsilon * (2 * rng.random((n_out, n_in + bias)) - 1)


def glorot_uniform(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights uniform within ±√(6 / (n_in + n_out)), biases 0. Source: Glorot & Bengio 2010, equation 16."""
    limit = math.sqrt(6 / (n_in + n_out))
    return with_zero_bias(rng.uniform(-limit, limit, (n_out, n_in)), bias)


def glorot_normal(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights normal with variance 2 / (n_in + n_out), biases 0. Source: Glorot & Bengio 2010, equation 12."""
    return with_zero_bias(rng.normal(0, math.sqrt(2 / (n_in + n_out)), (n_out, n_in)), bias)


def he_uniform(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights uniform within ±√(6 / n_in), biases 0: the variance of `he_normal`."""
    limit = math.sqrt(6 / n_in)
    return with_zero_bias(rng.uniform(-limit, limit, (n_out, n_in)), bias)


def he_normal(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights normal with variance 2 / n_in, biases 0. Source: He et al. 2015, equation 10."""
    return with_zero_bias(rng.normal(0, math.sqrt(2 / n_in), (n_out, n_in)), bias)


def torch(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """PyTorch's default for Linear: weights and biases uniform within ±1 / √n_in. Source: torch.nn.Linear."""
    limit = 1 / math.sqrt(n_in)
    return rng.uniform(-limit, limit, (n_out, n_in + bias))


def cassani(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights normal with variance 2 / (n_in n_out), biases 0: what Cassani's program calls "He", and is not."""
    return with_zero_bias(rng.normal(0, math.sqrt(2 / (n_in * n_out)), (n_out, n_in)), bias)


def zeros(rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """Weights and biases 0; for networks without a hidden layer, since equal hidden units stay equal."""
    return np.zeros((n_out, n_in + bias))


#: name -> initializer
INITIALIZERS: dict[str, Initializer] = {
    "lab": lab,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "torch": torch,
    "cassani": cassani,
    "zeros": zeros,
}

#: hidden activation -> the initializer that keeps the variance of what it passes on about the same
SUITABLE = {
    "sigmoid": "lab",
    "tanh": "glorot_uniform",
    "identity": "glorot_uniform",
    "relu": "he_uniform",
    "leaky_relu": "he_uniform",
}

#: What an initializer that is in no table is called in a model file.
CUSTOM = "custom"

#: Each layer by what suits the activation that it feeds, the output's by what suits the last hidden one.
AUTO = "auto"


def suitable(hidden: Sequence[str]) -> str:
    """The initializer that follows from the hidden activations: "auto" where no single one suits them all."""
    names = {SUITABLE[activation] for activation in hidden}
    return names.pop() if len(names) == 1 else AUTO


def by_layer(name: str, function: Initializer | None, activations: Sequence[str]) -> list[Initializer]:
    """The initializer of each layer of weights.

    Parameters
    ----------
    name : str
        In `INITIALIZERS`, or "custom" or "auto".
    function : Initializer or None
        The function of a "custom" one.
    activations : sequence of str
        Of each layer, the output's at the end.

    Raises
    ------
    RuntimeError
        If it was a function, and is not there any more.
    """
    if name == AUTO:
        *hidden, _ = activations
        return [INITIALIZERS[SUITABLE[activation]] for activation in (*hidden, *(hidden[-1:] or ["sigmoid"]))]
    function = INITIALIZERS.get(name, function)
    if function is None:
        raise RuntimeError(f"init={name!r} was a function, which a model file does not hold; build a new Mlp")
    return [function] * len(activations)


def initializer(given: str | Initializer) -> tuple[str, Initializer | None]:
    """Name and function of an initializer: "custom" and the function itself where that is the user's own.

    Raises
    ------
    TypeError
        If it is neither a name nor callable.
    ValueError
        If the name is not known.
    """
    if isinstance(given, str):
        if given not in (AUTO, *INITIALIZERS):
            raise unknown_name("init", given, [AUTO, *INITIALIZERS])
        return given, None
    if not callable(given):
        raise TypeError(f"init={given!r}; expected a name ({', '.join(INITIALIZERS)}) or f(rng, n_out, n_in, bias)")
    return CUSTOM, given


def draw(function: Initializer, rng: Rng, n_out: int, n_in: int, bias: bool) -> np.ndarray:
    """What the initializer draws for one layer, checked.

    Raises
    ------
    ValueError
        If it is not a finite array of numbers of the right shape.
    """
    drawn = function(rng, n_out, n_in, bias)
    try:
        weights = np.asarray(drawn)
    except Exception as error:  # whatever an object's own conversion raises
        raise ValueError(f"init gave a {type(drawn).__name__} that is no array of numbers: {error}") from None
    expected = (n_out, n_in + bias)
    if weights.dtype.kind not in "biuf" or weights.shape != expected:
        given = f"{weights.dtype} {list(weights.shape)}"
        raise ValueError(f"init gave {given} for n_out={n_out}, n_in={n_in}, bias={bias}; expected {list(expected)}")
    if not np.isfinite(weights).all():
        raise ValueError(f"init gave nan or infinity for n_out={n_out}, n_in={n_in}; expected finite numbers")
    return weights
