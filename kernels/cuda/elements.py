"""Kernels over single numbers: a lone step of an update rule, and the look for nan and infinity."""

from fastmlp.kernels.cuda.functions import update
from fastmlp.kernels.cuda.toolkit import cuda, uint32, uint64

RULE = "momentum"

step_of = update(RULE)


def update_weights(parameters, gradients, slots, h):
    """One step of the rule for every parameter; ``h`` are `fastmlp.kernels.cuda.records.Hyperparameters`."""
    size = uint64(parameters.size)
    k, stride = uint64(cuda.grid(1)), uint64(cuda.gridsize(1))
    while k < size:
        step_of(parameters, k, slots, k, size, gradients[k], h)
        k += stride


def look(values, found):
    """Set found[0] if a value is nan or infinite."""
    size = uint64(values.size)
    k, stride = uint64(cuda.grid(1)), uint64(cuda.gridsize(1))
    while k < size:
        value = values[k]
        if value - value != value - value:  # of nan and infinity that is nan, which equals nothing
            cuda.atomic.max(found, 0, uint32(1))
        k += stride


def count_up(order):
    """Fill with 0, 1, 2, ..."""
    size = uint64(order.size)
    k, stride = uint64(cuda.grid(1)), uint64(cuda.gridsize(1))
    while k < size:
        order[k] = k
        k += stride
