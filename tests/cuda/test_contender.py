"""The benchmark's contender for the CUDA backend: everything on the device, and the losses of the oracle."""

from dataclasses import replace

import pytest

from fastmlp.bench.contenders import contender
from fastmlp.bench.measure import TOLERANCE, largest_difference, oracle_losses
from fastmlp.bench.work import Work
from fastmlp.kernels import Rule

TINY = Work((12, 7, 4), 6, source="synthetic", samples=20, rule=Rule("momentum", 0.05, momentum=0.9))
PIXELS = Work((784, 2, 3), 2, source="synthetic", samples=4, shift=-0.5, rule=Rule("momentum", 0.05, momentum=0.9))


def off(name: str, work: Work) -> float:
    """By how much a contender's losses differ from the oracle's over a bit more than an epoch, relatively."""
    ours, chunks, told = contender(name)(work, {"threads": None}), [work.batches + 1, 2], []
    for steps in chunks:
        ours.prepare(steps)
        told.append(ours.told(ours.run(steps)))
    return largest_difference(told, chunks, oracle_losses(work, sum(chunks)))


@pytest.mark.parametrize(
    "changes", [{}, {"rule": Rule("plain", 0.05)}, {"dtype": "float64", "batch_size": 20}], ids=str
)
def test_losses_are_the_oracles(changes):
    work = replace(TINY, **changes)
    assert off("fastmlp-cuda", work) < TOLERANCE[work.dtype]


def test_losses_from_bytes_are_the_oracles():
    assert off("fastmlp-cuda-uint8", PIXELS) < TOLERANCE["float32"]


def test_nothing_but_the_order_is_sent_in_an_epoch():
    """Weights, state and samples are those of the device, changed in place."""
    ours = contender("fastmlp-cuda")(TINY, {"threads": None})
    held = ours.parameters, ours.state.slots, ours.X, ours.Y
    assert all(hasattr(array, "__cuda_array_interface__") for array in held)
    before = [array.copy_to_host() for array in held]
    ours.prepare(4)
    ours.run(4)
    after = [array.copy_to_host() for array in held]
    changed = [bool((old != new).any()) for old, new in zip(before, after, strict=True)]
    assert changed == [True, True, False, False]
    assert (ours.parameters, ours.state.slots, ours.X, ours.Y) == held
