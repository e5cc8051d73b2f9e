"""Which kernel trains on a GPU, and whether its layout keeps to the GPU's limits."""

import numpy as np
import pytest

from fastmlp.kernels import Network
from fastmlp.kernels.cuda import plans
from fastmlp.kernels.cuda.plans import Given, Gpu
from fastmlp.kernels.cuda.shapes import Tile

#: Multiprocessors, and bytes of shared memory that a block may have: H100, A100, RTX 4060.
GPUS = {"H100": Gpu(132, 232_448), "A100": Gpu(108, 166_912), "RTX 4060": Gpu(24, 101_376)}

LAB = (784, 100, 10)


def given(batch: int, inputs: str = "float32", slots: int = 1) -> Given:
    return Given("momentum", slots, batch, inputs, True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5, 10, 32])
def test_the_labs_network_stays_in_the_multiprocessors_for_small_batches(batch, dtype):
    assert plans.persistent(Network.build(LAB, dtype=dtype), given(batch, "uint8"), GPUS["H100"]) is not None


@pytest.mark.parametrize(
    ("sizes", "batch"), [(LAB, 512), (LAB, 60_000), ((784, 10), 5), ((784, 60, 40, 10), 5), ((784, 100_000, 10), 5)]
)
def test_all_else_is_trained_by_tiles(sizes, batch):
    assert plans.persistent(Network.build(sizes), given(batch), GPUS["H100"]) is None
    assert plans.tiled(Network.build(sizes), "train", given(batch), GPUS["H100"])["JOB"] == "train"


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("inputs", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("sizes", [LAB, (1, 1, 1), (13, 999, 256), (3_000, 20, 2)], ids=str)
def test_persistent_layouts_keep_to_the_limits(sizes, inputs, gpu):
    for batch in (1, 3, 17, 64):
        for dtype in ("float32", "float64"):
            network = Network.build(sizes, dtype=dtype, loss="mean_squared_error")
            plan = plans.persistent(network, given(batch, inputs, 2), GPUS[gpu])
            if plan is None:
                continue
            assert plan["BLOCKS"] <= GPUS[gpu].multiprocessors
            assert plan["BLOCKS"] * plan["GROUPS"] * plan["UNITS"] >= sizes[1]
            assert (plan["BLOCKS"] - 1) * plan["GROUPS"] * plan["UNITS"] < sizes[1]  # no block is idle
            threads, vector = plan["GROUPS"] * plan["SPAN"], 16 // np.dtype(dtype).itemsize
            assert batch <= threads <= 512
            weights = plan["UNITS"] * vector * -(-sizes[0] // (vector * plan["SPAN"]))  # of a thread
            words = 4 * weights * np.dtype(dtype).itemsize // 4  # with two moments, and their gradient
            assert words + 80 <= min(250, 65_536 // threads)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [LAB, (1, 1), (784, 1_000, 1_000, 10), (3, 70_000, 2)], ids=str)
def test_tiles_keep_to_the_limits(sizes, dtype, gpu):
    network = Network.build(sizes, dtype=dtype, loss="mean_squared_error")
    for batch in (1, 128, 60_000):
        for job in ("train", "gradient", "evaluate", "predict", "feedforward"):
            plan = plans.tiled(network, job, given(batch), GPUS[gpu])
            for kind in ("FORWARD", "DELTA", "GRADIENT"):
                tile = Tile(*plan[kind])
                assert tile.squares * tile.ways(plan["THREADS"]) <= plan["THREADS"] <= 1024
                assert tile.numbers(plan["THREADS"]) * np.dtype(dtype).itemsize < GPUS[gpu].shared_memory
                assert tile.rows % tile.down == tile.columns % tile.across == 0
            assert 1 <= plan["SPLITS"] <= max(1, batch)
