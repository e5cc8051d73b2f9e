"""What a training kernel is given: its arrays, and its numbers."""

from typing import Any, NamedTuple

__all__ = ["Arrays", "Numbers"]


class Arrays(NamedTuple):
    """Flat arrays on the device; T is the network's dtype. Where one is not needed, any array of its dtype stands."""

    parameters: Any  #: T [network.size]
    slots: Any  #: T [slots of the rule * network.size], or one number where the rule has none
    X: Any  #: uint8, float32 or float64 [n * n_in]
    Y: Any  #: int32 labels [n], or targets T [n * n_out]
    order: Any  #: int32 [m], samples in the order of their use
    losses: Any  #: T [steps]: the mean loss of each batch before its step
    errors: Any  #: T [steps]: ½ the mean squared error likewise, where it is asked for
    corrections: Any  #: T [2 * steps]: Adam's, in turn


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
