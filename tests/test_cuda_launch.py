"""How a kernel is launched on a real GPU, with fakes of Numba's in its place: what the simulator has no need of."""

import importlib.util
import inspect
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("pip install '.[test]' brings numba-cuda", allow_module_level=True)

from fastmlp.kernels.cuda import device, memory
from fastmlp.kernels.cuda.toolkit import config as numba_config
from fastmlp.kernels.cuda.toolkit import driver

from numba.cuda import dispatcher  # isort: skip


class Compiled:
    """A compiled kernel: `numba.cuda.dispatcher._Kernel`."""

    cooperative = False
    shared_mem_per_block = 1024

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.library = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(handle="the function"))

    def max_cooperative_grid_blocks(self, threads: int, shared: int) -> int:
        return self.at_once


class Kernel:
    """What `numba.cuda.jit` gives."""

    def __init__(self, at_once: int = 8) -> None:
        self.compiled, self.launched = Compiled(at_once), []

    def typeof_pyval(self, argument):
        return type(argument).__name__

    def compile(self, types):
        self.types = types
        return self.compiled

    def __getitem__(self, configuration):
        if numba_config.CUDA_LOW_OCCUPANCY_WARNINGS:
            warnings.warn("Grid size 2 will likely result in GPU under-utilization", RuntimeWarning, stacklevel=2)
        return lambda *arguments: self.launched.append((configuration, self.compiled.cooperative, arguments))


@pytest.fixture
def gpu(monkeypatch):
    """A device whose attributes are known, and which notes what is asked of the driver."""
    gpu = device.Device.__new__(device.Device)
    gpu.id, gpu.name, gpu._allowed, gpu.asked = 3, "fake", device.weakref.WeakKeyDictionary(), []
    fake = SimpleNamespace(cuKernelSetAttribute=lambda *arguments: gpu.asked.append(arguments))
    monkeypatch.setattr(driver, "driver", fake)
    return gpu


def test_what_the_fakes_stand_for_is_there():
    """The names that `device` uses are Numba's."""
    for name in ("max_cooperative_grid_blocks", "shared_mem_per_block", "library"):
        assert hasattr(dispatcher._Kernel, name)
    for name in ("compile", "typeof_pyval", "configure"):
        assert hasattr(dispatcher.CUDADispatcher, name)
    assert "self.cooperative" in inspect.getsource(dispatcher._Kernel.launch)
    assert hasattr(driver.binding, "cuKernelSetAttribute")
    assert hasattr(driver.binding, "cuPointerGetAttribute")
    assert hasattr(driver.binding.CUpointer_attribute, "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL")
    for name in (
        "MULTIPROCESSOR_COUNT",
        "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
        "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
        "MAX_REGISTERS_PER_MULTIPROCESSOR",
    ):
        assert hasattr(driver.binding.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")


def test_a_launch(gpu):
    kernel, before = Kernel(), numba_config.CUDA_LOW_OCCUPANCY_WARNINGS
    gpu.launch(kernel, 2, 64, (np.uint32(1), 2.0), "a stream", 100)
    assert kernel.types == ("uint32", "float")
    assert kernel.launched == [((2, 64, "a stream", 100), False, (1, 2.0))]
    assert gpu.asked == []  # so much shared memory any block may have
    assert before == numba_config.CUDA_LOW_OCCUPANCY_WARNINGS


def test_much_shared_memory_is_asked_for_once(gpu):
    kernel = Kernel()
    attribute = driver.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    for _ in range(2):
        gpu.launch(kernel, 2, 64, (), "a stream", 48 * 1024)
    assert gpu.asked == [(attribute, 48 * 1024, "the function", 3)]
    gpu.launch(kernel, 2, 64, (), "a stream", 100_000)
    assert gpu.asked[1:] == [(attribute, 100_000, "the function", 3)]
    assert len(kernel.launched) == 3


def test_blocks_that_wait_for_one_another_are_launched_together(gpu):
    kernel = Kernel(at_once=8)
    gpu.launch(kernel, 8, 64, (), "a stream", together=True)
    assert kernel.launched[0][1]
    with pytest.raises(
        RuntimeError, match=r"9 blocks of 64 threads .* does not fit GPU 3 \(fake\): 8 run at the same time"
    ):
        gpu.launch(kernel, 9, 64, (), "a stream", together=True)
    assert gpu.blocks_at_once(kernel, 64, ()) == 8


def test_a_rehearsal_compiles_and_asks_but_does_not_launch(gpu):
    kernel = Kernel()
    with device.rehearsal():
        gpu.launch(kernel, 2, 64, (1,), "a stream", 100_000)
    assert kernel.types == ("int",)
    assert len(gpu.asked) == 1
    assert kernel.launched == []


def test_whose_memory_an_array_is_in(monkeypatch):
    array = SimpleNamespace(__cuda_array_interface__={"data": (4096, False)})
    ordinal = driver.binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    answers = {(ordinal, 4096): 1}
    monkeypatch.setattr(driver, "driver", SimpleNamespace(cuPointerGetAttribute=lambda *asked: answers[asked]))
    monkeypatch.setattr(memory.cuda, "gpus", [0, 1])
    assert memory.owner(array) == 1
    monkeypatch.setattr(memory.cuda, "gpus", [0])
    assert memory.owner(array) is None
