"""The ways an epoch can be trained on the GPU, how a test takes one of them, and small layouts for the simulator."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import cuda_simulator
import numpy as np

from fastmlp.kernels.cuda import device, plans

#: The two kernels, by the names of their files.
PATHS = ("persistent", "tiled")

#: The plans that the backend makes when no test lays them out.
CHOSEN = {"persistent": plans.persistent, "tiled": plans.tiled}


def set_gpu(**attributes) -> None:
    """Give the simulated GPU other attributes: see `cuda_simulator.Settings`."""
    vars(cuda_simulator.settings).update(attributes)
    device.device().__init__(0)  # it has read them


def small_tiles(dtype: str) -> tuple[tuple[int, ...], ...]:
    """Tiles of different shapes for the three kinds of product, smaller than the networks of the tests."""
    v = 16 // np.dtype(dtype).itemsize
    return (2 * v, 2 * v, v, v, 8), (v, 2 * v, v, v, 8), (2 * v, 2 * v, v, v, 16)


@contextmanager
def laid_out(
    path: str | None = None, *, units=2, groups=1, span=32, tiles=None, splits=1, threads=32
) -> Iterator[None]:
    """Within the block, few threads share out the work, for each is one of Python's; and this kernel trains.

    Parameters
    ----------
    path : {"persistent", "tiled"}, optional
        Which kernel trains; by default the one that the rule chooses. Networks that have not one hidden layer are
        trained by the tiled one in any case.
    units, groups, span : int
        Of the persistent kernel; at least so many groups.
    tiles, splits, threads
        Of the tiled kernel, whose tiles are by default `small_tiles`.
    """

    def persistent(network, given, gpu):
        constants = CHOSEN["persistent"](network, given, gpu)
        if path == "tiled" or constants is None:
            assert path != "persistent" or network.layers != 2, "the kernel that is to be tested is not for this"
            return None
        hidden = network.sizes[1]
        many = max(groups, -(-hidden // (units * gpu.multiprocessors)), -(-given.batch // span))
        blocks = -(-hidden // (units * many))
        return {**constants, "UNITS": units, "GROUPS": many, "SPAN": span, "BLOCKS": blocks}

    def tiled(network, job, given, gpu, hits=""):
        names = ("FORWARD", "DELTA", "GRADIENT")
        shapes = dict(zip(names, tiles or small_tiles(network.dtype), strict=True))
        return {**CHOSEN["tiled"](network, job, given, gpu, hits), **shapes, "SPLITS": splits, "THREADS": threads}

    with mock.patch.multiple(plans, persistent=persistent, tiled=tiled):
        yield
