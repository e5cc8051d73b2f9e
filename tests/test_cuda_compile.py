"""The compile check: planted faults are found, the backend's kernels have none, and the committed result is today's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastmlp.bench import cuda_compile
from fastmlp.bench.processes import environment
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.updates import UPDATES

MISSING = cuda_compile.missing()
needs_compiler = pytest.mark.skipif(MISSING is not None, reason=f"nothing can be compiled here: {MISSING}")

COMMITTED = Path(__file__).parents[1] / "bench" / "results" / "cuda_compile.json"
CLEAN = {"capability": "sm_90", "dtype": "float32", "threads": 256, "registers": 64, "fewest": 64}
CLEAN |= {"stack": 0, "spills": 0, "shared": 232_448, "float64": {}}

#: A small kernel of the backend, by its case's title, to plant faults in.
LOOK = "look for infinity in float32"
LINE = "        value = values[k]\n"
DOUBLE = f"{LINE}        value = 1.5 * value\n"  # Python's 1.5 is a float64
STACK = "        kept[k % 40] = values[k]\n        value = kept[7 * k % 40]\n"  # places that only running tells
UNKNOWN = f"{LINE}        value = no_such_function(value)\n"


def run(*arguments: object) -> int:
    return cuda_compile.main([*map(str, arguments), "--capabilities", "90", "--jobs", "1"])


# ---- judging ----


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, []),
        ({"stack": 8}, ["a stack of 8 bytes"]),
        ({"spills": 16}, ["spills of 16 bytes"]),
        ({"float64": {"fma.rn.f64": 2, "cvt.f32.f64": 1}}, ["float64: 2 fma.rn.f64, 1 cvt.f32.f64"]),
        ({"float64": {"fma.rn.f64": 2}, "dtype": "float64"}, []),
        ({"fewest": 63}, ["64 registers, 63 before"]),
        ({"threads": 1000}, []),
        ({"threads": 1000, "registers": 65, "fewest": 65}, ["73,728 registers of a block; 65,536 at most"]),
        ({"shared": 232_449}, ["232,449 bytes of shared memory; 232,448 at most"]),
        ({"capability": "sm_80"}, ["232,448 bytes of shared memory; 166,912 at most"]),
    ],
)
def test_faults_are_told(change, fault):
    assert cuda_compile.faults({**CLEAN, **change}) == fault


@needs_compiler
@pytest.mark.parametrize(
    ("line", "fault"), [(LINE, "ok"), (DOUBLE, "float64: "), (STACK, "a stack of "), (UNKNOWN, "does not compile: ")]
)
def test_faults_planted_in_a_kernel_are_refused(line, fault, monkeypatch, capsys, tmp_path):
    from fastmlp.kernels.cuda import launch, specialise

    head = "    size = uint64(values.size)\n"
    text = specialise.source("elements").replace(LINE, line)
    text = text.replace(head, f'{head}    kept = cuda.local.array(40, "float32")\n')
    monkeypatch.setattr(specialise, "source", lambda name: text)
    launch.kernel.cache_clear()
    code = run("--only", LOOK, "--out", tmp_path / "r.json")
    launch.kernel.cache_clear()
    assert f"elements: {LOOK}, sm_90: {fault}" in capsys.readouterr().out
    assert code == int(fault != "ok")
    assert ("**refused**" in (tmp_path / "r.md").read_text()) == (fault != "ok")


# ---- the command ----


@needs_compiler
def test_going_on_keeps_what_is_the_same_and_wants_no_more_registers(monkeypatch, capsys, tmp_path):
    out = tmp_path / "r.json"
    arguments = ("--only", LOOK, "--out", out, "--go-on")
    assert run(*arguments) == 0
    first = out.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(cuda_compile, "compiled", None)
        assert run(*arguments) == 0
    assert json.loads(out.read_text())["kernels"] == json.loads(first)["kernels"]
    changed = json.loads(first)
    changed["kernels"][0] |= {"digest": "of another text", "fewest": 3}
    out.write_text(json.dumps(changed))
    assert run(*arguments) == 1
    assert "registers, 3 before" in capsys.readouterr().out


@needs_compiler
def test_quick_kernels_compile_without_faults(tmp_path):
    """The command as `make gpu` runs it where there is no GPU: both kernels of the headline's network."""
    out = tmp_path / "r.json"
    options = ["--quick", "--capabilities", "90", "--out", str(out)]
    command = [sys.executable, "-m", "fastmlp.bench.cuda_compile", *options]
    environ = {**environment(), "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.rpartition(", sm_90: ")[2] for line in done.stdout.splitlines()] == ["ok"] * 3
    rows = json.loads(out.read_text())["kernels"]
    assert [row["kernel"].partition(":")[0] for row in rows] == ["persistent", "tiled", "elements"]
    assert out.with_suffix(".md").read_text() == cuda_compile.table(rows)


@needs_compiler
def test_without_a_compiler_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert run() == 2
    assert "the simulator compiles nothing" in capsys.readouterr().err
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert run() == 2
    assert "cuda.bindings" in (said := capsys.readouterr().err)
    assert "pip install 'fastmlp[cuda]'" in said


@pytest.mark.parametrize("arguments", [("--only", "no such kernel"), ("--capabilities", "90,91")])
def test_unknown_choices_are_refused(arguments, capsys, monkeypatch):
    monkeypatch.setattr(cuda_compile, "missing", lambda: None)
    with pytest.raises(SystemExit):
        cuda_compile.main(arguments)
    assert arguments[1] in capsys.readouterr().err


# ---- the committed result ----


@needs_compiler
def test_committed_result_is_of_todays_kernels():
    """Whoever changes a kernel, or how one is chosen, runs `make cuda-compile` again."""
    rows = json.loads(COMMITTED.read_text())["kernels"]
    today = [
        cuda_compile.described(case, which)[0] for which in cuda_compile.GPUS for case in cuda_compile.wanted(which)
    ]
    assert len(today) == len(rows)
    for row, expected in zip(rows, today, strict=True):
        assert row.items() >= expected.items()


def test_committed_result_has_no_faults_and_leaves_nothing_out():
    rows = json.loads(COMMITTED.read_text())["kernels"]
    assert COMMITTED.with_suffix(".md").read_text() == cuda_compile.table(rows)
    assert [row["faults"] for row in rows] == [cuda_compile.faults(row) for row in rows] == [[]] * len(rows)
    for kernel in ("persistent", "tiled"):
        made = [row["constants"] for row in rows if row["kernel"].startswith(kernel)]
        assert {(c["LOSS"], c["OUTPUT"]) for c in made} == {(loss, name) for loss in OUTPUTS for name in OUTPUTS[loss]}
        assert {c["RULE"] for c in made} == set(UPDATES)
        assert {name for c in made for name in c.get("ACTIVATIONS", [c.get("ACTIVATION")])} == set(ACTIVATIONS)
        dtypes = {("float32", "float32"), ("float32", "uint8"), ("float64", "float64"), ("float64", "uint8")}
        assert {(c["DTYPE"], c["INPUT_DTYPE"]) for c in made} == dtypes
    assert {c["JOB"] for c in made} == {"train", "predict", "evaluate", "feedforward", "gradient"}
    assert {row["capability"] for row in rows} == set(cuda_compile.GPUS)
