"""What a training kernel is given: its arrays, and its numbers."""

from typing import Any, NamedTuple

__all__ = ["Arrays", "Hyperparameters", "Numbers", "Scratch"]


class Arrays(NamedTuple):
    """Flat arrays on the device; T is the network's dtype. Where one is not needed, any array of its dtype stands."""

    parameters: Any  #: T [network.size]
    slots: Any  #: T [slots of the rule * network.size], or one number where the rule has none
    X: Any  #: uint8, float32 or float64 [n * n_in]
    Y: Any  #: int32 labels [n], or targets T [n * n_out]
    order: Any  #: int32 [m], samples in the order of their use
    losses: Any  #: T [steps]: the mean loss of each batch before its step
    errors: Any  #: T [steps]: ½ the mean squared error likewise
    corrections: Any  #: T [2 * steps]: Adam's, in turn
    shares: Any  #: T [m]: of a batch's weight, as `fastmlp.kernels.contract.Shares` has them
    decays: Any  #: T [steps]: λ / Σ wᵢ of each batch


class Hyperparameters(NamedTuple):
    """What an update rule's formula finds in ``h``: `fastmlp.kernels.updates.HYPERPARAMETERS` in the kernel's dtype."""

    learning_rate: Any
    momentum: Any
    beta1: Any
    beta2: Any
    epsilon: Any
    correction1: Any
    correction2: Any


class Numbers(NamedTuple):
    """Numbers of the kernel's dtype."""

    learning_rate: Any
    momentum: Any
    beta1: Any
    beta2: Any
    epsilon: Any
    input_scale: Any
    input_shift: Any
    l2: Any


class Scratch(NamedTuple):
    """Flat arrays of the tiled kernel's own on the device; the contents of all but the counter do not matter."""

    values: Any  #: T [batch * numbers of a sample between the layers]
    deltas: Any  #: T, as long
    parts: Any  #: T [SPLITS * SIZE], where there are splits
    sums: Any  #: T [2 * blocks]: loss and error of the samples that a block had
    counter: Any  #: uint32 [1], zero: blocks that have come to a barrier
    results: Any  #: T: outputs [n * OUTPUTS] of predictions, or the gradients [SIZE]
    hits: Any  #: uint32 [1], zero
