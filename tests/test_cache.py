"""Compiled code on disk: found again, compiled once for everything, done without; and what adding a formula takes."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from problems import DTYPES, RULES, child_environment, compilations, pixels, random_problem, run_python

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


# ------------------------------------------------------------------------------------------- whatever is wrong with it
def double_all(parameters):
    """A function that is compiled in a moment, and kept as the kernels are."""
    for k in range(len(parameters)):
        parameters[k] *= 2


class Tried:
    """What one process, or what stands for one here, finds: results, warnings, and whether it had to compile."""

    def __init__(self, dtypes=("float32",)) -> None:
        function = cache.cached(double_all)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.held = [cache.holds(function, dtype) for dtype in dtypes]
            for dtype in dtypes:
                numbers = np.arange(5, dtype=dtype)
                function(numbers)
                assert numbers.tolist() == [0, 2, 4, 6, 8]
                assert cache.holds(function, dtype)
        assert {w.category for w in caught} <= {RuntimeWarning}, [str(w.message) for w in caught]
        self.warnings = [str(w.message) for w in caught]
        self.compiled = sum(function.stats.cache_misses.values())


@pytest.fixture
def fresh(monkeypatch):
    """Have the next `Tried` find the folder, and warn, as a new process would; returns the function that does it."""

    def forget():
        cache.folder.cache_clear()
        monkeypatch.setattr(cache, "_warned", [], raising=False)

    forget()
    yield forget
    cache.folder.cache_clear()


@pytest.fixture
def kept(monkeypatch, tmp_path, fresh):
    """A cache with that function in it, for float32."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    first = Tried()
    assert (first.compiled, first.warnings) == (1, [])
    fresh()
    assert Tried().compiled == 0
    fresh()
    return tmp_path / "kept" / "kernels"


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def one_warning(tried: Tried, *parts: object) -> None:
    assert len(tried.warnings) == 1, tried.warnings
    for part in parts:
        assert str(part) in tried.warnings[0]


DAMAGE = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "last byte gone": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "first bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "last bit": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    "a pickle that stops": lambda content: b"\x80\x04N.",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_anew_and_replaced_with_one_warning(kept, fresh, damage):
    files = list(kept.iterdir())
    for file in files:
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    tried = Tried()
    assert (tried.held, tried.compiled) == ([False], 1)
    one_warning(tried, files[0], "checksum", "replaced")
    fresh()
    again = Tried()
    assert (again.held, again.compiled, again.warnings) == ([True], 0, []), "it was not replaced"


def test_no_flipped_bit_goes_unnoticed(kept, fresh):
    """Looked at for many; loaded, which takes longer, for some. Nothing is unpickled of a file that is damaged."""
    flips = random.Random(7)
    for file in list(kept.iterdir()):
        content = file.read_bytes()
        for number in range(500):
            damaged = bytearray(content)
            damaged[flips.randrange(len(content))] ^= 1 << flips.randrange(8)
            file.write_bytes(damaged)
            assert not cache.holds(cache.cached(double_all), "float32")
            if number % 50 == 0:
                fresh()
                one_warning(Tried(), file)
                assert file.read_bytes() != damaged


def test_no_file_is_taken_for_another(kept, fresh):
    """Its content is whole, but stands under the name of another."""
    content = only_file(kept).read_bytes()
    Tried(("float64",))
    for file in kept.iterdir():
        file.write_bytes(content)
    fresh()
    tried = Tried(DTYPES)
    assert tried.held == [True, False]
    assert tried.compiled == 1
    one_warning(tried, kept)


def test_two_damaged_files_are_one_warning(kept, fresh):
    Tried(("float64",))
    for file in kept.iterdir():
        file.write_bytes(b"")
    fresh()
    one_warning(Tried(DTYPES), kept)
    fresh()
    assert not Tried(DTYPES).warnings


def test_a_folder_in_a_files_place_is_told_and_left(kept, fresh):
    files = list(kept.iterdir())
    for file in files:
        file.unlink()
        file.mkdir()
    for _ in range(2):
        tried = Tried()
        assert tried.compiled == 1
        one_warning(tried, files[0], "not an ordinary file", "replaced", "NUMBA_CACHE_DIR")
        fresh()
    assert all(file.is_dir() for file in files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_in_a_files_place_does_not_hang(kept, fresh):
    file = only_file(kept)
    file.unlink()
    os.mkfifo(file)
    one_warning(Tried(), file, "not an ordinary file")
    fresh()
    assert Tried().compiled == 0


def refuse_writing(monkeypatch, number: int) -> None:
    """Have the system refuse to open for writing, with that error, whatever way is taken; reading works."""
    opened, opened_low = open, os.open

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    def high(path, mode="r", *arguments, **options):
        return refuse(path) if set(mode) & set("wxa+") else opened(path, mode, *arguments, **options)

    def low(path, flags, *arguments, **options):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return refuse(path) if writes else opened_low(path, flags, *arguments, **options)

    monkeypatch.setattr("builtins.open", high)
    monkeypatch.setattr("io.open", high)
    monkeypatch.setattr(os, "open", low)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_can_only_be_read_is_read(kept, monkeypatch, number):
    refuse_writing(monkeypatch, number)
    tried = Tried()
    assert (tried.held, tried.compiled, tried.warnings) == ([True], 0, [])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_cannot_be_written_is_compiled_with_one_warning(kept, monkeypatch, number):
    refuse_writing(monkeypatch, number)
    one_warning(Tried(("float64", "int32")), kept, os.strerror(number), "compiled anew", "NUMBA_CACHE_DIR")


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_disk_that_is_full_later_on_leaves_nothing_behind(monkeypatch, tmp_path, fresh, call):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    before = Tried(("float64",))
    fresh()
    assert before.compiled == 1
    files = sorted(file.name for file in (tmp_path / "kernels").iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "replace":
        monkeypatch.setattr(os, "replace", full)
    else:
        opened = open

        def open_full(path, mode="r", *arguments, **options):
            file = opened(path, mode, *arguments, **options)
            return FullFile(file, full) if "b" in mode and set(mode) & set("wx") else file

        monkeypatch.setattr("builtins.open", open_full)
    one_warning(Tried(), tmp_path, os.strerror(errno.ENOSPC))
    monkeypatch.undo()
    assert sorted(file.name for file in (tmp_path / "kernels").iterdir()) == files


KILLED = """
import os, signal
import test_cache

os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
test_cache.Tried()
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there is no SIGKILL here")
def test_what_a_killed_process_left_is_removed_after_a_while(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert run_python(KILLED, NUMBA_CACHE_DIR=str(tmp_path)).returncode == -signal.SIGKILL
    left = only_file(tmp_path / "kernels")
    of_others = left.with_name("notes.tmp")
    of_others.write_text("")
    os.utime(of_others, (0, 0))

    assert Tried().compiled == 1
    assert left.exists(), "it may still be written"
    two_hours_ago = time.time() - 7200
    os.utime(left, (two_hours_ago, two_hours_ago))
    fresh()
    tried = Tried(("float64",))
    assert (tried.compiled, tried.warnings) == (1, [])
    assert not left.exists()
    assert of_others.exists()


class FullFile:
    """A file on a full disk."""

    def __init__(self, file, write) -> None:
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_damaged_file_that_cannot_be_replaced_is_one_warning(kept, monkeypatch):
    file = only_file(kept)
    file.write_bytes(b"")
    refuse_writing(monkeypatch, errno.EROFS)
    one_warning(Tried(), file, "checksum", os.strerror(errno.EROFS), "NUMBA_CACHE_DIR")


def test_a_folder_that_vanished_is_made_anew(kept, fresh):
    assert cache.folder() == kept
    shutil.rmtree(kept.parent)
    tried = Tried()
    assert (tried.held, tried.compiled, tried.warnings) == ([False], 1, [])
    fresh()
    assert Tried().compiled == 0


def test_a_folder_that_became_a_file_is_told(kept):
    assert cache.folder() == kept
    shutil.rmtree(kept)
    kept.write_text("")
    one_warning(Tried(), kept)


def test_a_relative_folder_stays_where_it_is(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "relative")
    monkeypatch.chdir(tmp_path)
    assert cache.folder() == tmp_path / "relative" / "kernels"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert not Tried().warnings
    assert not list(Path().iterdir())
    fresh()
    monkeypatch.chdir(tmp_path)
    assert Tried().compiled == 0


@pytest.mark.skipif(os.name == "nt", reason="a current folder can't be removed on Windows")
def test_a_relative_folder_in_one_that_is_gone_is_told(monkeypatch, tmp_path, fresh):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "relative")
    one_warning(Tried(), "relative", "NUMBA_CACHE_DIR")


@pytest.mark.skipif(os.name == "nt", reason="Windows always knows a home folder")
@pytest.mark.parametrize("missing", [(), ("platformdirs",)], ids=["", "no platformdirs"])
def test_without_a_home_folder_one_warning_is_all(missing, monkeypatch, tmp_path, fresh):
    import pwd

    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    one_warning(Tried(DTYPES), "home folder", "NUMBA_CACHE_DIR")
    assert not list(tmp_path.iterdir()), "a folder was made where nobody looks for one"


@pytest.mark.skipif(os.name == "nt", reason="the variables are those of other systems")
def test_without_platformdirs_the_users_cache_is_where_its_variables_say(monkeypatch, tmp_path, fresh):
    """In a checkout it may be missing."""
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value, place in (("", "home/.cache"), ("relative", "home/.cache"), (str(tmp_path / "other"), "other")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        fresh()
        assert Tried().warnings == []
        assert cache.folder() == tmp_path / place / "fastmlp" / "kernels"
        assert list(cache.folder().glob("double_all-float32-*.nbc"))


WRITER = """
import test_cache
from fastmlp.kernels.cpu import cache

for _ in range(5):
    for file in cache.folder().glob("*double_all*"):  # not what the other is still writing
        file.unlink(missing_ok=True)
    tried = test_cache.Tried(test_cache.DTYPES)
    assert not tried.warnings, tried.warnings
"""


def test_processes_that_write_at_once_do_not_disturb_each_other(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-W", "error", "-c", WRITER]
    both = [subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert Tried(DTYPES).compiled == 0
    assert len(list((tmp_path / "kernels").iterdir())) == 2


def test_what_changes_the_compiled_code_changes_where_it_is_kept():
    settings = [{}, {"NUMBA_OPT": "0"}, {"NUMBA_OPT": "max"}, {"NUMBA_BOUNDSCHECK": "1"}]
    settings += [{"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features} for features in ("", "+sse3")]
    code = "from fastmlp.kernels.cpu import cache; print(cache.source_digest())"
    digests = [run_python(code, **setting).stdout.strip() for setting in settings]
    assert all(digests)
    assert len(set(digests)) == len(settings), digests


# ------------------------------------------------------------------------------------------ the kernels, start to end
def trained(tmp_path: Path, **environment: str) -> tuple[list[str], list[str]]:
    """What the command says of a short training, apart from times, and its warnings."""
    done = subprocess.run(
        [sys.executable, "-m", "fastmlp", "train", "--data=digits", "--epochs=1", "--seed=3", "--out=out"],
        env=child_environment(**environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "accuracy" in line], done.stderr.splitlines()


def test_damaged_kernels_train_as_whole_ones_do(tmp_path):
    """From the command line: one warning, the same losses, and then no warning more."""
    needs_a_folder()
    shutil.copytree(cache.folder(), tmp_path / "kept" / "kernels")
    place = str(tmp_path / "kept")
    expected, said = trained(tmp_path, NUMBA_CACHE_DIR=place)
    assert not said
    for file in (tmp_path / "kept" / "kernels").iterdir():
        if file.is_file():
            file.write_bytes(file.read_bytes()[:1000])
    found, said = trained(tmp_path, NUMBA_CACHE_DIR=place)
    assert found == expected
    assert len(said) == 1, said
    assert said[0].startswith(f"warning: the compiled kernels in {place}")
    assert trained(tmp_path, NUMBA_CACHE_DIR=place) == (expected, [])


UNOPTIMIZED = """
import sys
import warnings

import numpy as np
from fastmlp import kernels
from fastmlp.kernels import reference
from problems import RULES, assert_close, course, random_problem, rounding, run_course

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kernels.warmup(("float32",))
assert [w.category for w in caught] == [RuntimeWarning], [str(w.message) for w in caught]
assert "NUMBA_OPT=0" in str(caught[0].message)

network = kernels.Network.build((17, 9, 6, 3), "tanh")
for batch_size in (4, 60):
    problem, tolerances = course(random_problem(network, 70, labels=True), RULES[1], [np.arange(70)], batch_size)
    ours, theirs = (
        run_course(module, problem, RULES[1], [np.arange(70)], batch_size)
        for module in (kernels.backend("cpu"), reference)
    )
    assert_close(ours.parameters, theirs.parameters, tolerances.parameters, "parameters")
    assert_close(ours.losses, theirs.losses, tolerances.losses, "losses")
"""


def test_kernels_without_optimisation_are_right_and_warn_once(tmp_path):
    done = run_python(UNOPTIMIZED, NUMBA_OPT="0", NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


UNCOMPILED = """
import sys
import warnings

if "imported" in reason:
    sys.modules["numba"] = None

import numpy as np
import pytest
from fastmlp import Mlp, cli, kernels

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    mlp = Mlp([4, 3, 2])
    Mlp([4, 2])
assert [w.category for w in caught] == [RuntimeWarning]
assert reason in str(caught[0].message)
assert mlp.backend_name == "numpy"
assert mlp.predict(np.ones((2, 4))).shape == (2, 2)
for call in (lambda: Mlp([4, 3, 2], backend="cpu"), kernels.warmup):
    with pytest.raises(RuntimeError, match=f"backend='cpu' does not work here: {reason}"):
        call()
with pytest.raises(ImportError, match="(?i)numba"):
    import fastmlp.kernels.cpu
assert cli.main(["info"]) == 0
assert cli.main(["train", "--data=digits", "--epochs=1", "--backend=cpu"]) == 2
"""


@pytest.mark.parametrize("reason", ["NUMBA_DISABLE_JIT is set", "Numba can't be imported"])
def test_without_numbas_compiler_numpy_computes_and_it_is_said_in_words(tmp_path, reason):
    code = f"reason = {reason!r}\n{UNCOMPILED}"
    done = run_python(code, NUMBA_DISABLE_JIT=str(int("set" in reason)), NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"backend='cpu' does not work here: {reason}" in line


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
