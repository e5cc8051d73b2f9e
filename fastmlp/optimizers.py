"""Optimizers: checked hyperparameters, and the update rule of the kernels that they stand for."""

from dataclasses import dataclass
from typing import Protocol

from fastmlp import checks
from fastmlp.kernels import Rule
from fastmlp.kernels.names import unknown_name


class Optimizer(Protocol):
    """Anything with a `fastmlp.kernels.Rule` as its ``rule``."""

    @property
    def rule(self) -> Rule:
        """The update rule."""


def check_learning_rate(value: object) -> None:
    """Refuse a learning rate that is not above 0.

    Raises
    ------
    TypeError, ValueError
        Saying what was given.
    """
    if checks.number("learning_rate", value) <= 0:
        raise ValueError(f"learning_rate={value}; expected a number above 0")


def check_decay(name: str, value: object) -> None:
    """Refuse a decay factor outside [0, 1).

    Raises
    ------
    TypeError, ValueError
        Saying what was given.
    """
    if not 0 <= checks.number(name, value) < 1:
        raise ValueError(f"{name}={value}; expected a number from 0 to below 1")


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, with momentum or without.

    Parameters
    ----------
    learning_rate : float, default 0.01
        η, above 0.
    momentum : float, default 0.0
        μ, from 0 to below 1: v ← μ v + g; w ← w - η v, as in torch.optim.SGD.
    nesterov : bool, default False
        Nesterov's form, w ← w - η (g + μ v); it wants a momentum above 0.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is not as described.
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_decay("momentum", self.momentum)
        checks.flag("nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError(f"nesterov=True with momentum={self.momentum}; expected a momentum above 0")

    @property
    def rule(self) -> Rule:
        """The update rule: "plain", "momentum" or "nesterov"."""
        kind = "nesterov" if self.nesterov else "momentum" if self.momentum else "plain"
        return Rule(kind, learning_rate=float(self.learning_rate), momentum=float(self.momentum))


#: Smaller ones vanish in float32, and the step of a weight that never had a gradient would be 0 / 0.
SMALLEST_EPSILON = 1e-30


@dataclass(frozen=True)
class Adam:
    """Adam with bias-corrected moments. Source: Kingma & Ba 2015, algorithm 1, as in torch.optim.Adam.

    Parameters
    ----------
    learning_rate : float, default 0.001
        η, above 0.
    beta1, beta2 : float, defaults 0.9 and 0.999
        Decay of the first and second moment, from 0 to below 1.
    epsilon : float, default 1e-8
        Added to the root of the second moment; 1e-30 at least.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is not as described.
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        check_decay("beta1", self.beta1)
        check_decay("beta2", self.beta2)
        if checks.number("epsilon", self.epsilon) < SMALLEST_EPSILON:
            raise ValueError(f"epsilon={self.epsilon}; expected {SMALLEST_EPSILON} or more")

    @property
    def rule(self) -> Rule:
        """The update rule "adam"."""
        return Rule(
            "adam",
            learning_rate=float(self.learning_rate),
            beta1=float(self.beta1),
            beta2=float(self.beta2),
            epsilon=float(self.epsilon),
        )


#: name -> class; a name alone means the class with its defaults
OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {"sgd": Sgd, "adam": Adam}


def optimizer(given: str | Optimizer) -> Optimizer:
    """The optimizer of that name with its defaults, or the one given.

    Parameters
    ----------
    given : {"sgd", "adam"} or Optimizer

    Raises
    ------
    TypeError
        If it is neither a name nor an optimizer.
    ValueError
        If the name is not known.
    """
    if isinstance(given, str):
        if given not in OPTIMIZERS:
            raise unknown_name("optimizer", given, OPTIMIZERS)
        return OPTIMIZERS[given]()
    if isinstance(given, type) or not isinstance(getattr(given, "rule", None), Rule):
        raise TypeError(f"optimizer={given!r}; expected a name ({', '.join(OPTIMIZERS)}) or an object such as Sgd()")
    return given
