"""The simulator: what works on a GPU works in it, and what a GPU leaves undefined is reported."""

import cuda_simulator
import numpy as np
import pytest
from cuda_simulator import Deadlock, Divergence, Race, settings
from numba import cuda, float32, uint32, uint64

SEEDS = range(4)


@cuda.jit(device=True)
def grid_barrier(counter, target):
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.concurrent.release_add(counter, 0, uint32(1))
        while cuda.concurrent.load_acquire(counter, 0) < target:
            pass
    cuda.syncthreads()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_barrier_spans_the_grid(seed):
    @cuda.jit
    def rotate(values, counter):
        block = uint32(cuda.blockIdx.x)
        for step in range(3):
            if cuda.threadIdx.x == 0:
                values[(step + 1) * 4 + block] = values[step * 4 + (block + 1) % 4] + float32(1)
            grid_barrier(counter, uint32(4 * (step + 1)))

    settings.multiprocessors = 4
    cuda_simulator.seed(seed)
    values = np.full(16, np.nan, np.float32)
    values[:4] = 0, 10, 20, 30
    rotate[4, 3](values, np.zeros(1, np.uint32))
    np.testing.assert_array_equal(values[12:], [33, 3, 13, 23])


def test_without_the_barrier_it_is_a_race():
    @cuda.jit
    def exchange(values, out):
        block = cuda.blockIdx.x
        values[block] = float32(block)
        out[block] = values[1 - block]

    for seed in SEEDS:
        cuda_simulator.seed(seed)
        with pytest.raises(Race, match=r"block .* unordered"):
            exchange[2, 1](np.zeros(2, np.float32), np.zeros(2, np.float32))


def test_a_missing_block_barrier_is_a_race_and_its_value_depends_on_the_schedule():
    @cuda.jit
    def sum_neighbours(out):
        mine = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        mine[t] = float32(t)
        out[t] = mine[(t + 1) % 32]

    with pytest.raises(Race):
        sum_neighbours[1, 32](np.zeros(32, np.float32))
    settings.races = False
    seen = set()
    for seed in SEEDS:
        cuda_simulator.seed(seed)
        out = np.zeros(32, np.float32)
        sum_neighbours[1, 32](out)
        assert np.isnan(out).any()  # shared memory was poisoned
        seen.add(out.tobytes())
    assert len(seen) == len(SEEDS)


def test_shared_memory_is_of_the_block_and_fresh():
    @cuda.jit
    def mark(out):
        first, second = cuda.shared.array(2, float32), cuda.shared.array(2, uint32)  # two on a line
        if cuda.threadIdx.x == 0:
            out[cuda.blockIdx.x] = first[0]
            first[0] = float32(1)
            second[0] = uint32(7)
        cuda.syncthreads()
        if cuda.threadIdx.x == 1:
            out[2 + cuda.blockIdx.x] = first[0]

    out = np.zeros(4, np.float32)
    mark[2, 2](out)
    assert np.isnan(out[:2]).all()
    np.testing.assert_array_equal(out[2:], 1)


def test_dynamic_shared_memory_is_carved_and_limited():
    @cuda.jit
    def fill(out):
        whole = cuda.shared.array(0, float32)
        part = whole[4:8]
        part[cuda.threadIdx.x] = float32(cuda.threadIdx.x)
        cuda.syncthreads()
        out[cuda.threadIdx.x] = whole[4 + 3 - cuda.threadIdx.x]

    out = np.zeros(4, np.float32)
    fill[1, 4, 0, 32](out)
    np.testing.assert_array_equal(out, [3, 2, 1, 0])
    with pytest.raises(MemoryError, match="232448"):
        fill[1, 4, 0, 232_452](out)


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffles(seed):
    @cuda.jit
    def reduce(values, out):
        t = cuda.threadIdx.x
        total = values[t]
        for lanes in (16, 8, 4, 2, 1):
            total += cuda.shfl_xor_sync(uint32(0xFFFFFFFF), total, lanes)
        out[t] = total

    cuda_simulator.seed(seed)
    values = np.arange(64, dtype=np.float32)
    out = np.zeros(64, np.float32)
    reduce[1, 64](values, out)
    np.testing.assert_array_equal(out, np.repeat([values[:32].sum(), values[32:].sum()], 32))


def test_a_shuffle_does_not_order_memory_and_syncwarp_does():
    def kernel(order):
        @cuda.jit
        def swap(out):
            mine = cuda.shared.array(32, float32)
            t = cuda.threadIdx.x
            mine[t] = float32(t)
            if order:
                cuda.syncwarp()
            else:
                cuda.shfl_xor_sync(uint32(0xFFFFFFFF), t, 1)
            out[t] = mine[t ^ 1]

        return swap

    out = np.zeros(32, np.float32)
    kernel(True)[1, 32](out)
    np.testing.assert_array_equal(out, np.arange(32) ^ 1)
    with pytest.raises(Race):
        kernel(False)[1, 32](out)


def test_a_lane_missing_from_a_shuffle_is_a_deadlock():
    @cuda.jit
    def half(out):
        if cuda.threadIdx.x < 16:
            out[cuda.threadIdx.x] = cuda.shfl_xor_sync(uint32(0xFFFFFFFF), float32(1), 1)

    with pytest.raises(Deadlock, match="16 threads have ended; 16 at shfl_xor_sync"):
        half[1, 32](np.zeros(32, np.float32))


def test_a_barrier_in_a_branch_is_reported():
    @cuda.jit
    def branch():
        if cuda.threadIdx.x < 2:
            cuda.syncthreads()
        else:
            cuda.syncthreads()

    with pytest.raises(Divergence, match="block's barrier"):
        branch[1, 4]()


def test_waiting_for_nobody_is_a_deadlock():
    @cuda.jit
    def wait(counter):
        while cuda.concurrent.load_acquire(counter, 0) < uint32(1):
            pass

    with pytest.raises(Deadlock, match="nobody can go on: 0 threads have ended; 2 waiting at"):
        wait[1, 2](np.zeros(1, np.uint32))


def test_more_blocks_than_fit_cannot_meet():
    @cuda.jit
    def meet(counter, blocks):
        grid_barrier(counter, blocks)

    settings.multiprocessors = 2
    meet[2, 1](np.zeros(1, np.uint32), 2)
    with pytest.raises(Deadlock, match="3 blocks; 2 are resident"):
        meet[3, 1](np.zeros(1, np.uint32), 3)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_is_an_error(index):
    @cuda.jit
    def read(values):
        values[index] = values[index]

    with pytest.raises(IndexError, match=rf"index {index} outside an array of \[4\]") as error:
        read[1, 1](np.zeros(4, np.float32))
    assert error.value.__notes__ == [f"in thread (0, 0, 0) of block (0, 0, 0), seed {settings.seed}"]


@pytest.mark.parametrize("seed", SEEDS)
def test_atomics_count(seed):
    @cuda.jit
    def count(total):
        cuda.atomic.add(total, 0, uint32(1))

    cuda_simulator.seed(seed)
    total = np.zeros(1, np.uint32)
    count[3, 40](total)
    assert total[0] == 120


@pytest.mark.parametrize("seed", SEEDS)
def test_tagged_words_carry_themselves_and_nothing_else(seed):
    def kernel(look_aside):
        @cuda.jit
        def send(words, aside, out):
            if cuda.blockIdx.x == 0:
                aside[0] = float32(5)
                cuda.concurrent.store_relaxed(words, 0, uint64(7))
            else:
                word = uint64(0)
                while word == uint64(0):
                    word = cuda.concurrent.load_relaxed(words, 0)
                out[0] = word
                if look_aside:
                    out[0] = aside[0]

        return send

    cuda_simulator.seed(seed)
    out = np.zeros(1, np.float32)
    kernel(False)[2, 1](np.zeros(1, np.uint64), np.zeros(1, np.float32), out)
    assert out[0] == 7
    with pytest.raises(Race):
        kernel(True)[2, 1](np.zeros(1, np.uint64), np.zeros(1, np.float32), out)


@pytest.mark.parametrize("seed", SEEDS)
def test_asynchronous_copies_land_at_the_wait(seed):
    @cuda.jit
    def copy(source, out):
        buffer = cuda.shared.array(8, float32)
        t = cuda.threadIdx.x
        cuda.concurrent.async_copy(buffer, 4 * t, source, 4 * t, 4)
        cuda.concurrent.async_commit()
        cuda.concurrent.async_wait(0)
        cuda.syncthreads()
        for i in range(4):
            out[4 * t + i] = buffer[7 - 4 * t - i]

    cuda_simulator.seed(seed)
    out = np.zeros(8, np.float32)
    copy[1, 2](np.arange(8, dtype=np.float32), out)
    np.testing.assert_array_equal(out, np.arange(8)[::-1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", ["no wait", "no barrier", "target in use"])
def test_asynchronous_copies_used_wrongly_are_races(seed, fault):
    @cuda.jit
    def copy(source, out):
        buffer = cuda.shared.array(8, float32)
        t = cuda.threadIdx.x
        if fault == "target in use":
            buffer[4 * t] = float32(0)
            cuda.syncthreads()
            out[t] = buffer[4 - 4 * t]
        cuda.concurrent.async_copy(buffer, 4 * t, source, 4 * t, 4)
        cuda.concurrent.async_commit()
        if fault != "no wait":
            cuda.concurrent.async_wait(0)
        if fault != "no barrier":
            cuda.syncthreads()
        out[t] = buffer[4 - 4 * t]
        cuda.concurrent.async_wait(0)

    cuda_simulator.seed(seed)
    with pytest.raises(Race):
        copy[1, 2](np.arange(8, dtype=np.float32), np.zeros(2, np.float32))


def test_a_misaligned_copy_is_an_error():
    @cuda.jit
    def copy(source):
        buffer = cuda.shared.array(8, float32)
        cuda.concurrent.async_copy(buffer, 0, source, 1, 4)

    with pytest.raises(ValueError, match="16 bytes at index 1 of float32, not aligned"):
        copy[1, 1](np.zeros(8, np.float32))


def test_device_arrays_are_poisoned_counted_and_limited():
    settings.total_memory = 1 << 20
    free = cuda.current_context().get_memory_info().free
    array = cuda.device_array(1000, np.float32)
    assert np.isnan(array.copy_to_host()).all()
    assert cuda.current_context().get_memory_info().free == free - 4000
    with pytest.raises(MemoryError, match="OUT_OF_MEMORY"):
        cuda.device_array(1 << 20, np.float32)
    del array
    assert cuda.current_context().get_memory_info().free == free


def test_a_schedule_comes_back_with_its_seed():
    @cuda.jit
    def order(counter, out):
        out[cuda.grid(1)] = cuda.atomic.add(counter, 0, uint32(1))

    def run(seed):
        cuda_simulator.seed(seed)
        out = np.zeros(24, np.uint32)
        order[3, 8](np.zeros(1, np.uint32), out)
        return out.tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)
