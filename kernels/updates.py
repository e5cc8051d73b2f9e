"""Update rules: each formula once, for every backend.

A formula takes parameters ``w``, their gradient ``g``, a tuple ``state`` of arrays shaped like them, the
hyperparameters ``h`` (an object with the attributes named in `HYPERPARAMETERS`) and a namespace ``m`` as in
`fastmlp.kernels.activations`; it returns the new w and the new state. The formulas are PyTorch's: the learning rate
multiplies after the momentum sum.

To add a rule, write its formula here and enter it in `UPDATES` with the number of its state arrays; a hyperparameter
of its own goes into `HYPERPARAMETERS` and `Rule`.
"""

from dataclasses import dataclass

import numpy as np

from fastmlp.kernels.names import unknown_name


def plain(w, g, state, h, m):
    """Gradient descent, w ← w - η g: the lab's step."""
    return w - h.learning_rate * g, ()


def momentum(w, g, state, h, m):
    """SGD with momentum, v ← μ v + g; w ← w - η v. Source: torch.optim.SGD."""
    v = h.momentum * state[0] + g
    return w - h.learning_rate * v, (v,)


def nesterov(w, g, state, h, m):
    """Nesterov's momentum, v ← μ v + g; w ← w - η (g + μ v). Source: torch.optim.SGD(nesterov=True)."""
    v = h.momentum * state[0] + g
    return w - h.learning_rate * (h.momentum * v + g), (v,)


def adam(w, g, state, h, m):
    """Adam, both moments bias-corrected. Source: Kingma & Ba 2015, algorithm 1, as in torch.optim.Adam."""
    first = h.beta1 * state[0] + (1 - h.beta1) * g
    second = h.beta2 * state[1] + (1 - h.beta2) * (g * g)
    step = h.learning_rate / h.correction1 * first
    return w - step / (m.sqrt(second / h.correction2) + h.epsilon), (first, second)


#: name -> (formula, number of state arrays)
UPDATES = {
    "plain": (plain, 0),
    "momentum": (momentum, 1),
    "nesterov": (nesterov, 1),
    "adam": (adam, 2),
}

#: Position of each name: the integer by which compiled code knows it.
CODES = {name: code for code, name in enumerate(UPDATES)}

#: What a formula finds in ``h``. The corrections, 1 - βᵗ at step t, are the kernels' to compute.
HYPERPARAMETERS = ("learning_rate", "momentum", "beta1", "beta2", "epsilon", "correction1", "correction2")


@dataclass(frozen=True)
class Rule:
    """An update rule with its hyperparameters.

    Parameters
    ----------
    kind : str
        A name in `UPDATES`.
    learning_rate : float, default 1.0
        η.
    momentum : float, default 0.0
        μ; used by "momentum" and "nesterov".
    beta1, beta2, epsilon : float, defaults 0.9, 0.999, 1e-8
        Used by "adam".

    Raises
    ------
    ValueError
        If ``kind`` is not known.
    """

    kind: str
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.kind not in UPDATES:
            raise unknown_name("kind", self.kind, UPDATES)

    @property
    def code(self) -> int:
        """The integer by which compiled code knows the rule."""
        return CODES[self.kind]

    @property
    def slots(self) -> int:
        """Number of state arrays, each as long as the parameters."""
        return UPDATES[self.kind][1]


@dataclass
class State:
    """What a rule keeps between steps.

    Attributes
    ----------
    slots : ndarray, [slots * parameters]
        The rule's state arrays one after another, in the network's dtype; zeros at the start.
    step : ndarray of int64, [1]
        The number of steps taken.
    """

    slots: np.ndarray
    step: np.ndarray
