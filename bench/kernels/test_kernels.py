"""How long the CPU backend's functions take, one by one: ``pytest bench/ --benchmark-enable``.

`fastmlp.bench` compares the whole with rivals; this tells a developer which function got slower. Without
``--benchmark-enable`` each runs once and is only checked for working.
"""

import numpy as np
import pytest

from fastmlp.bench.work import LAB_SHIFT, Work
from fastmlp.kernels import Network, cpu

#: (sizes, samples at once): the lab's network from one sample to its whole job, and one with large products.
SHAPES = [((784, 100, 10), 1), ((784, 100, 10), 128), ((784, 100, 10), 10_000), ((784, 1000, 1000, 10), 512)]
BATCHES = [1, 5, 32, 128, 512, 4096]
STEPS_SAMPLES = 4096  #: that a call of `train_epoch` goes through


def shape_id(shape: tuple[tuple[int, ...], int]) -> str:
    """A shape as part of a test's name."""
    sizes, samples = shape
    return "-".join(map(str, sizes)) + f"x{samples}"


def prepared(shape: tuple[tuple[int, ...], int], dtype: str) -> tuple[Network, np.ndarray, np.ndarray, np.ndarray]:
    """Network, parameters, samples and labels."""
    sizes, samples = shape
    work = Work(sizes, batch_size=1, dtype=dtype, source="synthetic", samples=samples, shift=LAB_SHIFT)
    X, labels = work.load()
    return work.network(), work.parameters(), X, labels


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Each dtype in turn."""
    return request.param


@pytest.fixture(params=SHAPES, ids=shape_id)
def shape(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], int]:
    """Each shape in turn."""
    return request.param


@pytest.mark.benchmark(group="predict")
def test_predict(benchmark, shape, dtype) -> None:
    """Outputs of all samples."""
    network, parameters, X, _ = prepared(shape, dtype)
    outputs = benchmark(cpu.predict, network, parameters, X)
    assert outputs.shape == (len(X), 10)


@pytest.mark.benchmark(group="evaluate")
def test_evaluate(benchmark, shape, dtype) -> None:
    """Loss and hits over all samples."""
    loss, hits = benchmark(cpu.evaluate, *prepared(shape, dtype))
    assert np.isfinite(loss)
    assert 0 <= hits <= shape[1]


@pytest.mark.benchmark(group="backpropagation")
def test_backpropagation(benchmark, shape, dtype) -> None:
    """Gradients of one batch."""
    gradients, loss = benchmark(cpu.backpropagation, *prepared(shape, dtype))
    assert np.isfinite(loss)
    assert gradients.any()


@pytest.mark.benchmark(group="update_weights")
@pytest.mark.parametrize("sizes", [(784, 100, 10), (784, 1000, 1000, 10)], ids=lambda sizes: str(sum(sizes)))
def test_update_weights(benchmark, sizes, dtype) -> None:
    """One step of momentum SGD from gradients."""
    work = Work(sizes, dtype=dtype, source="synthetic", samples=5)
    network, parameters = work.network(), work.parameters()
    state = network.state(work.rule)
    gradients = network.zeros()
    gradients[:] = parameters
    benchmark(cpu.update_weights, work.rule, parameters, gradients, state)
    assert state.step[0] > 0


@pytest.mark.benchmark(group="train_epoch")
@pytest.mark.parametrize("threads", [1, None], ids=["one thread", "own choice"])
@pytest.mark.parametrize("batch_size", BATCHES)
def test_train_epoch(benchmark, batch_size, dtype, threads) -> None:
    """Steps over 4,096 samples."""
    work = Work(batch_size=batch_size, dtype=dtype, source="synthetic", samples=STEPS_SAMPLES, shift=LAB_SHIFT)
    network, parameters = work.network(), work.parameters()
    state = network.state(work.rule)
    X, Y = work.load()
    order = work.order()
    arguments = (network, work.rule, parameters, state, X, Y, order, batch_size)
    losses = benchmark(cpu.train_epoch, *arguments, threads=threads)
    assert np.isfinite(losses).all()
    assert len(losses) == len(order) // batch_size
