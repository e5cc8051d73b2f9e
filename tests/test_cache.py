"""Compiled code on disk: found again, compiled once for everything, done without; and what adding a formula takes."""

import shutil
import warnings
from pathlib import Path

import pytest
from problems import DTYPES, RULES, compilations, pixels, random_problem, run_python

import fastmlp
from fastmlp import kernels
from fastmlp.kernels import Network
from fastmlp.kernels.cpu import cache


@pytest.fixture(scope="module", autouse=True)
def warm():
    kernels.warmup()


def needs_a_folder():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if cache.folder() is None:
            pytest.skip("there is no folder here in which compiled code can be kept")


# ------------------------------------------------------------------------------------------------- once for everything
@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_of_a_dtype_is_one_compilation(dtype):
    """Depth, activation, loss, rule, batch size, targets, samples' dtype and threads are all read at run time."""
    import numpy as np

    cpu, before = kernels.backend("cpu"), compilations()
    cases = [
        ((4, 2), "relu", "cross_entropy", "uint8", True, 1),
        ((5, 4, 3, 2), "tanh", "mean_squared_error", "float32", False, 40),
        ((5, 4, 1), "sigmoid", "binary_cross_entropy", "float64", True, 7),
    ]
    for (sizes, hidden, loss, inputs, labels, batch_size), rule, threads in zip(
        cases, RULES[1:], (1, 2, 3), strict=True
    ):
        network = Network.build(sizes, hidden, loss=loss, dtype=dtype, bias=labels, **pixels(inputs))
        problem, state = random_problem(network, 50, 0, inputs, labels), network.state(rule)
        cpu.train_epoch(
            network, rule, problem.parameters, state, problem.X, problem.Y, np.arange(50), batch_size, threads=threads
        )
        cpu.feedforward(network, problem.parameters, problem.X)
        cpu.evaluate(*problem.arrays)
        gradients, _ = cpu.backpropagation(*problem.arrays)
        cpu.update_weights(rule, problem.parameters, gradients, state)
    assert compilations() == before, "something was compiled anew, or loaded a second time"


SECOND = """
from fastmlp.kernels import cpu
from fastmlp.kernels.cpu import drivers
import test_cache

assert all(cpu.is_compiled(dtype) for dtype in test_cache.DTYPES), "not seen in the cache"
assert not drivers.run.signatures
for dtype in test_cache.DTYPES:
    cpu.warmup((dtype,))
    test_cache.test_everything_of_a_dtype_is_one_compilation(dtype)
stats = drivers.run.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_a_second_process_finds_it_and_compiles_nothing():
    needs_a_folder()
    done = run_python(SECOND)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "0"], "one load for each dtype and nothing compiled were expected"


# ---------------------------------------------------------------------------------------------------------- the folder
def test_the_folder_is_in_numbas_where_that_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    path = cache.folder.__wrapped__()
    assert path.parent == tmp_path
    assert path.is_dir()
    assert not list(path.iterdir()), "the trial whether it can be written has left something"


def blocked(tmp_path: Path) -> Path:
    """A folder that nobody can make, not even an administrator: its parent is a file."""
    file = tmp_path / "file"
    file.write_text("")
    return file / "cache"


def test_a_folder_that_cannot_be_written_is_none_with_a_warning(monkeypatch, tmp_path):
    path = blocked(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(path))
    with pytest.warns(RuntimeWarning, match=r"cannot be kept in .*compiled anew.*Set NUMBA_CACHE_DIR") as caught:
        assert cache.folder.__wrapped__() is None
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)


# ----------------------------------------------------------------------------------------------- what adding one takes
#: (file of kernels/, the formula, the table, the entry): all that is written to add an activation, a rule and a loss.
ADDITIONS = [
    (
        "activations.py",
        '''
def softsign(z, m):
    """z / (1 + |z|); slope 1 / (1 + |z|)²."""
    r = 1 / (1 + abs(z))
    return z * r, r * r
''',
        "ACTIVATIONS = {",
        '"softsign": softsign,',
    ),
    (
        "updates.py",
        '''
def rmsprop(w, g, state, h, m):
    """torch.optim.RMSprop, with beta2 for its alpha."""
    s = h.beta2 * state[0] + (1 - h.beta2) * (g * g)
    return w - h.learning_rate * g / (m.sqrt(s) + h.epsilon), (s,)
''',
        "UPDATES = {",
        '"rmsprop": (rmsprop, 1),',
    ),
    (
        "losses.py",
        '''
def pseudo_huber(z, a, y, m):
    """√(1 + (a - y)²) - 1."""
    return m.sqrt(1 + (a - y) * (a - y)) - 1


def pseudo_huber_delta(a, slope, y, m):
    """Its derivative with respect to z."""
    return (a - y) / m.sqrt(1 + (a - y) * (a - y)) * slope
''',
        "LOSSES = {",
        '"pseudo_huber": (pseudo_huber, pseudo_huber_delta),',
    ),
    ("losses.py", "", "OUTPUTS = {", '"pseudo_huber": ("identity", "tanh"),'),
]

ADDED = """
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from fastmlp import kernels
    from fastmlp.kernels import Network, Rule, reference
    from fastmlp.kernels.cpu import cache, drivers
    kernels.warmup(("float32",))
    kernels.warmup(("float32",))
ours = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
assert len(ours) == 1 and "cannot be kept in" in ours[0], [str(w.message) for w in caught]

import torch_twin
from problems import assert_close, course, random_problem, rounding, run_course

torch_twin.ACTIVATIONS["softsign"] = F.softsign
cpu, order = kernels.backend("cpu"), np.arange(11)

for output, labels in (("identity", True), ("softsign", False)):
    network = Network.build((17, 9, 6, 3), "softsign", output, "mean_squared_error")
    problem = random_problem(network, 11, labels=labels)
    twin, bounds = torch_twin.Twin(network, problem.parameters), rounding(problem)
    twin.backward(problem.X, problem.Y)
    for module in (cpu, reference):
        gradients, _ = module.backpropagation(*problem.arrays)
        for a, b, tolerance in zip(
            network.rows(gradients), network.rows(twin.flat(gradients=True)), bounds.gradients, strict=True
        ):
            assert_close(a, b, tolerance, f"softsign, {module.__name__}")

rule = Rule("rmsprop", 0.01, beta2=0.9, epsilon=1e-2)
network = Network.build((9, 6, 4), "softsign")
problem = random_problem(network, 11, labels=True)
problem, tolerances = course(problem, rule, [order], 4)
twin = torch_twin.Twin(network, problem.parameters)
twin.optimizer = torch.optim.RMSprop(twin.tensors, 0.01, alpha=0.9, eps=1e-2)
losses = [twin.step(problem.X[start : start + 4], problem.Y[start : start + 4]) for start in (0, 4, 8)]
for module in (cpu, reference):
    ours = run_course(module, problem, rule, [order], 4)
    assert_close(ours.parameters, twin.flat(), tolerances.parameters, f"rmsprop, {module.__name__}")
    assert_close(ours.losses, losses, tolerances.losses, f"losses with rmsprop, {module.__name__}")

for output in ("identity", "tanh"):
    network = Network.build((9, 6, 4), "tanh", output, "pseudo_huber")
    problem = random_problem(network, 11)
    twin = torch_twin.Twin(network, problem.parameters)
    values, _ = twin.activations(problem.X)
    expected = (torch.sqrt(1 + (values[-1] - torch.from_numpy(problem.Y)) ** 2) - 1).sum() / 11
    expected.backward()
    for module in (cpu, reference):
        gradients, loss = module.backpropagation(*problem.arrays)
        # Means of 11 numbers of at most about 10, from sums of 9 products, through two layers: a few hundred roundings.
        tolerance = 300 * np.finfo(np.float32).eps
        assert_close(loss, expected.item(), tolerance, f"pseudo_huber, {module.__name__}")
        assert_close(gradients, twin.flat(gradients=True), tolerance, f"pseudo_huber, {module.__name__}")

print(len(drivers.run.signatures), cache.source_digest(), kernels.__file__)
"""


def test_formulas_added_to_the_tables_work_everywhere_and_without_a_cache(tmp_path):
    """A copy of the package to which an activation, a rule and a loss are added, each its formula and its entry.

    In float32 alone, and where the cache cannot be written: it takes one compilation, warns once, and works.
    """
    package, folder = tmp_path / "copy" / "fastmlp", Path(kernels.__file__).parent
    no_caches = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(Path(fastmlp.__file__).parent, package, ignore=no_caches)
    shutil.copytree(folder, package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for name, formula, table, entry in ADDITIONS:
        file = package / "kernels" / name
        text = file.read_text(encoding="utf-8")
        assert text.count(f"\n{table}") == 1, f"{table} is not in {name} any more"
        place = text.index(f"\n{table}") + 1 + len(table)
        text = text[:place] + f"\n    {entry}" + text[place:]
        first = text.index("\n\n\ndef ") if "\n\n\ndef " in text else place
        file.write_text(text[:first] + "\n\n" + formula + text[first:], encoding="utf-8")
    done = run_python(ADDED, path=package.parent, NUMBA_CACHE_DIR=str(blocked(tmp_path)))
    assert done.returncode == 0, done.stderr
    compiled, digest, where = done.stdout.split()
    assert Path(where).is_relative_to(package.parent), "the copy was not what was tried"
    assert compiled == "1"
    assert digest != cache.source_digest(), "the cache of one version would be taken for the other's"
