"""The ways an epoch can be trained on the GPU, how a test takes one of them, and small layouts for the simulator."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np

from fastmlp.kernels.cuda import plans

#: The two kernels, by the names of their files.
PATHS = ("persistent", "tiled")

_persistent, _tiled = plans.persistent, plans.tiled


def small_tiles(dtype: str) -> tuple[tuple[int, ...], ...]:
    """Tiles of different shapes for the three kinds of product, smaller than the networks of the tests."""
    v = 16 // np.dtype(dtype).itemsize
    return (2 * v, v, v, v, 8), (v, 2 * v, v, v, 8), (v, v, v, v, 16)


@contextmanager
def laid_out(path: str | None = None, *, units=2, groups=1, span=32, tiles=None, splits=2, threads=32) -> Iterator[None]:
    """Within the block, few threads share out the work, for each is one of Python's; and this kernel trains.

    Parameters
    ----------
    path : {"persistent", "tiled"}, optional
        Which kernel trains; by default the one that the rule chooses. A network that is not for the persistent kernel is
        trained by the other all the same.
    units, groups, span : int
        Of the persistent kernel; as many groups as it takes.
    tiles, splits, threads
        Of the tiled kernel, whose tiles are by default `small_tiles`.
    """

    def persistent(network, given, gpu):
        constants = _persistent(network, given, gpu)
        if path == "tiled" or constants is None:
            return None
        hidden = network.sizes[1]
        many = max(groups, -(-hidden // (units * gpu.multiprocessors)), -(-given.batch // span))
        blocks = -(-hidden // (units * many))
        return {**constants, "UNITS": units, "GROUPS": many, "SPAN": span, "BLOCKS": blocks}

    def tiled(network, job, given, gpu, hits=""):
        names = ("FORWARD", "DELTA", "GRADIENT")
        shapes = dict(zip(names, tiles or small_tiles(network.dtype), strict=True))
        return {**_tiled(network, job, given, gpu, hits), **shapes, "SPLITS": splits, "THREADS": threads}

    with mock.patch.multiple(plans, persistent=persistent, tiled=tiled):
        yield


#: Train by this path, whatever the rule would choose; None leaves it to the rule.
forced = laid_out
