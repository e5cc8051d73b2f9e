"""The race hunt: whole calls under many schedules, every access watched, fresh memory poisoned.

A race is found whatever the order in which its two accesses ran; what many schedules add are the ways that a kernel
takes only in some of them, and that no result may depend on any. ``FASTMLP_CUDA_SEEDS=500`` hunts longer.
"""

import os
from unittest import mock

import cuda_simulator
import numpy as np
import pytest
from paths import PATHS, forced
from problems import RULES, copied, random_problem, run_course

from fastmlp.kernels import Network, reference
from fastmlp.kernels import cuda as backend
from fastmlp.kernels.cuda import generate, resident

SEEDS = range(int(os.environ.get("FASTMLP_CUDA_SEEDS", "4")))


def everything(problem, rule, batch_size):
    """What each function answers."""
    network, parameters, X, Y = problem.arrays
    gradients, loss = backend.backpropagation(*problem.arrays)
    trained, state = copied(parameters), network.state(rule)
    errors = np.zeros(-(-len(X) // batch_size))
    order = np.arange(len(X))[::-1].copy()
    losses = backend.train_epoch(network, rule, trained, state, X, Y, order, batch_size, errors=errors)
    updated, other = copied(parameters), network.state(rule)
    backend.update_weights(rule, updated, gradients, other)
    outputs = backend.feedforward(network, parameters, X)
    return [
        trained,
        state.slots,
        losses,
        errors,
        updated,
        gradients,
        [loss],
        *outputs,
        backend.evaluate(*problem.arrays),
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_schedule_races_and_none_changes_a_bit(path, dtype):
    network = Network.build((9, 6, 3), "tanh", dtype=dtype, l2=0.1)
    problem, first = random_problem(network, 7, labels=True), None
    for seed in SEEDS:
        cuda_simulator.seed(seed)
        cuda_simulator.settings.preempt = (0.0, 0.02, 0.3)[seed % 3]
        with forced(path):
            found = everything(problem, RULES[1], 3)
        first = first or found
        for a, b in zip(found, first, strict=True):
            np.testing.assert_array_equal(a, b, f"seed {seed}")


@pytest.mark.parametrize("path", PATHS)
def test_two_hidden_layers(path):
    network = Network.build((5, 6, 4, 3), "relu", loss="mean_squared_error")
    problem, first = random_problem(network, 6), None
    for seed in SEEDS:
        cuda_simulator.seed(seed)
        with forced(path):
            found = everything(problem, RULES[3], 4)
        first = first or found
        for a, b in zip(found, first, strict=True):
            np.testing.assert_array_equal(a, b, f"seed {seed}")


def test_the_hunt_finds_what_it_hunts():
    """Each barrier of a kernel taken out in turn: nearly all are missed, by a race or by a wrong result."""
    network, load, barriers = Network.build((9, 6, 3), "tanh", l2=0.1), generate._load, "cuda.syncthreads()"
    problem, order, unmissed, count = random_problem(network, 7, labels=True), [np.arange(7)], [], 1
    expected = run_course(reference, problem, RULES[1], order, 3).parameters

    def without(name, text):
        nonlocal count
        lines = text.split("\n")
        places = [i for i, line in enumerate(lines) if line.strip() == barriers]
        count = len(places)
        lines[places[taken]] = lines[places[taken]].replace(barriers, "pass")
        return load(name, "\n".join(lines))

    taken = 0
    with mock.patch.object(generate, "_load", without), forced("resident"):
        while taken < count:
            resident.kernel.cache_clear()
            with mock.patch.dict(generate._modules, clear=True):
                try:
                    found = run_course(backend, problem, RULES[1], order, 3).parameters
                except Exception:  # a race, a deadlock, an index out of poison
                    found = None
            if found is not None and np.allclose(found, expected, rtol=1e-3, atol=1e-5):
                unmissed.append(taken)
            taken += 1
    resident.kernel.cache_clear()
    assert count >= 6
    assert len(unmissed) <= count // 4, unmissed
