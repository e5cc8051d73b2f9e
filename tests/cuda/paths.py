"""The ways an epoch can be trained on the GPU, and how a test takes one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from fastmlp.kernels.cuda import resident

#: Weights kept in the multiprocessors, and phases over tiles.
PATHS = ("resident", "large")


@contextmanager
def forced(path: str | None) -> Iterator[None]:
    """Train by this path, whatever the rule would choose; None leaves it to the rule."""
    if path is None:
        yield
        return
    suits = resident.suits if path == "resident" else lambda *arguments: False
    with mock.patch.object(resident, "suits", suits):
        yield
