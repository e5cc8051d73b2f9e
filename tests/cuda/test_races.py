"""The race hunt: whole calls under many schedules, every access watched, fresh memory poisoned.

A race is found whatever the order in which its two accesses ran; what many schedules add are the ways that a kernel
takes only in some of them, and that no result may depend on any. ``FASTMLP_CUDA_SEEDS=500`` hunts longer.

And the hunt hunted: each barrier, tag, wait for copies and index of a double buffer is taken out of the kernels' text,
one at a time, and the simulator must notice every time.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import cuda_simulator
import numpy as np
import pytest
from paths import PATHS, laid_out
from problems import RULES, Course, assert_close, copied, course, random_problem, run_course

from fastmlp.kernels import Network, reference
from fastmlp.kernels import cuda as backend
from fastmlp.kernels.cuda import launch, specialise

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
        with laid_out(path, splits=2):
            found = everything(problem, RULES[1], 3)
        first = first or found
        for a, b in zip(found, first, strict=True):
            np.testing.assert_array_equal(a, b, f"seed {seed}")


def test_two_hidden_layers():
    network = Network.build((5, 6, 4, 3), "relu", loss="mean_squared_error")
    problem, first = random_problem(network, 6), None
    for seed in SEEDS:
        cuda_simulator.seed(seed)
        found = everything(problem, RULES[3], 4)
        first = first or found
        for a, b in zip(found, first, strict=True):
            np.testing.assert_array_equal(a, b, f"seed {seed}")


# ---------------------------------------------------------------------------------------------------- planted faults
#: Of each file: a pattern, and what is written in its place.
PLANTED = {
    "persistent": [
        (r"cuda\.syncthreads\(\)", "pass"),
        (r"(?m)^( +)wait_copies\(\)", r"\1pass"),
        (r"(?m)^( +)commit_copies\(\)", r"\1pass"),
        (r"\btag \^ wanted", "uint32(0)"),  # the words' tags
        (r"uint32\(step \+ 1\)", "uint32(1)"),
        (r"remainder\(step, 2\)", "int32(0)"),  # the halves of words, samples and their numbers
        (r"\b1 - half", "half"),
    ],
    "tiled": [
        (r"cuda\.syncthreads\(\)", "pass"),
        (r"(?m)^( +)meet\(own\.counter, met\)", r"\1pass"),
        (r"\bmet \+ 1", "met"),
        (r"(?m)^( +)arrive\(counter, 0, uint32\(1\)\)", r"\1pass"),
        (r"while int32\(acquire", "while False and int32(acquire"),
    ],
    "products": [
        (r"cuda\.syncthreads\(\)", "pass"),
        (r"(?m)^( +)wait_older_copies\(\)", r"\1pass"),
        (r"(?m)^( +)commit_copies\(\)", r"\1pass"),
        (r"\(STAGES - 1\)", "STAGES"),  # the stages of the staging memory, as a ring
        (r"\b(base|coming) \+ CHUNK", r"\1"),
        (r"(base|coming) == ALL_STAGES", "False"),
    ],
}


class Fault(NamedTuple):
    """A kernel's file with one place changed."""

    file: str
    line: int
    what: str  #: the line as it was
    text: str


def faults() -> Iterator[Fault]:
    """Every place that a pattern is found at, changed alone."""
    for file, changes in PLANTED.items():
        text = specialise.source(file)
        for pattern, instead in changes:
            for found in re.finditer(pattern, text):
                line = text.count("\n", 0, found.start()) + 1
                changed = text[: found.start()] + found.expand(instead) + text[found.end() :]
                yield Fault(file, line, text.splitlines()[line - 1].strip(), changed)
    text = specialise.source("persistent")
    yield Fault(
        "persistent", 0, "one half for all words", re.sub(r"remainder\(step, 2\)(?= \* BLOCKS)", "int32(0)", text)
    )


FAULTS = list(faults())

#: Networks, samples and layouts such that each place matters in one of them.
WORKS = {
    "persistent": [
        (Network.build((16, 5, 3), "tanh", l2=0.1), {"units": 1, "groups": 2}),
        (Network.build((9, 4, 3), "tanh"), {"units": 2, "groups": 1}),
    ],
    "tiled": [
        (Network.build((9, 5, 3), "tanh", l2=0.1), {"splits": 2}),
        (Network.build((6, 5, 4, 3), "tanh"), {"threads": 64, "tiles": [(4, 4, 4, 4, 16)] * 3}),
        (Network.build((40, 3, 2), "tanh"), {}),
    ],
}


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Within the block, kernels are made of the changed file."""
    original, patches = specialise.source, [mock.patch.dict(specialise._loaded, clear=True)]
    if fault.file == "products":
        changed = specialise._load_from_memory("fastmlp.kernels.cuda.products", fault.text)
        patches.append(mock.patch.dict(sys.modules, {changed.__name__: changed}))
    else:

        def changed_source(name: str) -> str:
            return fault.text if name == fault.file else original(name)

        patches.append(mock.patch.object(specialise, "source", changed_source))
    launch.kernel.cache_clear()
    with patches[0], patches[1]:
        yield
    launch.kernel.cache_clear()


def is_noticed(path: str, seed: int) -> bool:
    """Whether a kernel's works end in an error of the simulator's, or in a result that is not the oracle's."""
    for network, layout in WORKS[path]:
        cuda_simulator.seed(seed)
        orders = [np.arange(7)]
        problem, tolerances = course(random_problem(network, 7, labels=True), RULES[1], orders, 2)
        expected = run_course(reference, problem, RULES[1], orders, 2)
        try:
            with laid_out(path, **layout):
                found = run_course(backend, problem, RULES[1], orders, 2)
            for kind, a, b, tolerance in zip(Course._fields, found, expected, tolerances, strict=True):
                assert_close(a, b, tolerance, kind)
        except (AssertionError, IndexError):  # what the simulator raises; of a poisoned index, the latter
            return True
    return False


def test_every_kind_of_fault_is_there_to_be_planted():
    for file, changes in PLANTED.items():
        for pattern, _ in changes:
            assert re.search(pattern, specialise.source(file)), (file, pattern)
    assert len(FAULTS) >= 40
    for path in PATHS:
        assert not is_noticed(path, 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}:{fault.line} {fault.what}")
def test_a_planted_fault_is_noticed(fault):
    with planted(fault):
        assert any(is_noticed("persistent" if fault.file == "persistent" else "tiled", seed) for seed in range(8))
