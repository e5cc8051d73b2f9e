"""The compile check itself, on kernels with planted faults, and what it says of the CUDA backend's own."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmlp.bench import cuda_compile
from fastmlp.bench.cuda_compile import CAPABILITIES, Compiled, faults
from fastmlp.bench.processes import environment
from fastmlp.kernels.cuda.variants import Variant

MISSING = cuda_compile.missing()
needs_compiler = pytest.mark.skipif(MISSING is not None, reason=f"nothing can be compiled here: {MISSING}")

SM_90 = (9, 0)
PLAIN = Variant("plain", lambda: (None, ()), "float32", 128)
CLEAN = Compiled(64, 0, 0, 0, 1024, {"fma.rn.f32": 4}, {"FFMA": 4})


def of(**changes):
    return Compiled(**{**vars(CLEAN), **changes})


# ---- judging ----


def test_a_clean_kernel_has_no_faults():
    for capability in CAPABILITIES:
        assert faults(CLEAN, PLAIN, capability) == []


@pytest.mark.parametrize(
    ("compiled", "variant", "fault"),
    [
        (of(stack=8), PLAIN, "a stack of 8 bytes"),
        (of(spill_stores=4, spill_loads=16), PLAIN, "spills 4 and 16 bytes"),
        (of(sass={"FFMA": 4, "LDL.64": 1}), PLAIN, "uses local memory"),
        (of(ptx={"fma.rn.f64": 2, "add.f32": 1}), PLAIN, "float64: 2 fma.rn.f64"),
        (of(ptx={"cvt.rn.f32.f64": 1}), PLAIN, "float64: 1 cvt.rn.f32.f64"),
        (of(ptx={"mul.f64": 1}, float64_arrays=True), PLAIN, "float64: 1 mul.f64"),
        (of(sass={"DFMA": 3}), PLAIN, "float64: 3 machine instructions"),
        (CLEAN, PLAIN._replace(threads=1056), "1,056 threads in a block; 1,024 at most"),
        (of(registers=168), PLAIN._replace(threads=512), "86,016 registers for 1 block; 65,536 at most"),
        (CLEAN, PLAIN._replace(threads=512, blocks=4), "131,072 registers for 4 blocks; 65,536 at most"),
        (of(registers=8), PLAIN._replace(threads=1024, blocks=3), "3,072 threads at once; 2,048 at most"),
        (CLEAN, PLAIN._replace(shared=231_425), "232,449 bytes of shared memory; 232,448 at most"),
        (CLEAN, PLAIN._replace(shared=120_000, blocks=2), "121,024 bytes of shared memory for each of 2 blocks"),
    ],
)
def test_faults_are_found(compiled, variant, fault):
    assert fault in faults(compiled, variant, SM_90)


def test_limits_are_those_of_the_capability():
    full = PLAIN._replace(shared=227 * 1024 - CLEAN.static_shared)
    assert faults(CLEAN, full, SM_90) == []
    assert faults(CLEAN, full, (8, 0)) == [
        "232,448 bytes of shared memory; 166,912 at most",
        "232,448 bytes of shared memory for each of 1 block",
    ]


def test_float64_samples_may_be_loaded_and_converted():
    ptx = {"ld.global.f64": 1, "cvt.rn.f32.f64": 1, "fma.rn.f32": 1}
    assert faults(of(ptx=ptx, float64_arrays=True), PLAIN, SM_90) == []
    assert faults(of(ptx=ptx), PLAIN, SM_90) == ["float64: 1 ld.global.f64, 1 cvt.rn.f32.f64"]
    assert faults(of(ptx={"fma.rn.f64": 9}), PLAIN._replace(dtype="float64"), SM_90) == []


def test_registers_go_out_by_eight_and_by_four_warps():
    assert cuda_compile.registers_of_block(33, 128) == 40 * 128
    assert cuda_compile.registers_of_block(32, 33) == 32 * 128


def test_capabilities_that_a_kernel_is_for():
    cluster = PLAIN._replace(least=(9, 0))
    assert [cluster.is_for(capability) for capability in CAPABILITIES] == [False, True, True]
    old = PLAIN._replace(most=(8, 9))
    assert [old.is_for(capability) for capability in CAPABILITIES] == [True, False, False]


# ---- reading ----

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'kernel' for 'sm_90'
ptxas info    : Function properties for kernel
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4352 bytes smem, 600 bytes cmem[0]
ptxas info    : Function properties for helper
    48 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
"""


def test_log_is_read_with_the_worst_of_all_functions():
    assert cuda_compile.resources(LOG) == {
        "registers": 40,
        "stack": 48,
        "spill_stores": 12,
        "spill_loads": 16,
        "static_shared": 4352,
    }
    assert cuda_compile.resources(LOG.replace(", 4352 bytes smem", ""))["static_shared"] == 0
    with pytest.raises(ValueError, match="tells no registers"):
        cuda_compile.resources("info: nothing")


PTX = """
//
.version 9.0
.target sm_90
.visible .entry kernel(.param .u64 p) .maxntid 128, 1, 1
{
    .reg .f32 %f<4>; // add.f64 is but a remark
    .shared .align 4 .b8 room[256];
$L__BB0_1:
    @%p1 bra $L__BB0_2;
    ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];
    fma.rn.f32 %f1, %f2, %f3, %f4; fma.rn.f32 %f1, %f2, %f3, %f4;
    { red.release.gpu.global.add.u32 [%rd1], %r1;
    }
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2}, {%r1}, {%r2}, {%f1};
    @!%p2 add.f64 %fd1, %fd2, %fd3;
    ret;
}
"""


def test_instructions_of_ptx_are_counted():
    assert cuda_compile.opcodes(PTX) == {
        "fma.rn.f32": 2,
        "bra": 1,
        "ld.global.v4.f32": 1,
        "red.release.gpu.global.add.u32": 1,
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": 1,
        "add.f64": 1,
        "ret": 1,
    }


def test_machine_instructions_are_grouped():
    sass = {"FFMA": 5, "HMMA.1688.F32.TF32": 2, "LDS.128": 3, "IADD3": 4, "LDGSTS.E.BYPASS.128": 1, "LDG.E.128": 2}
    mix = {"float32": 5, "other": 4, "shared": 3, "mma": 2, "global": 2, "copy": 1}
    assert cuda_compile.grouped(sass) == mix


def row(**changes):
    plain = {"kernel": "k", "capability": "sm_90", "dtype": "float32", "threads": 128, "blocks": 1}
    return {**plain, "dynamic_shared": 512, **vars(CLEAN), "mix": {"float32": 4}, "faults": [], **changes}


def test_table_tells_all_and_what_is_wrong():
    text = cuda_compile.table([row(), row(sass=None), row(faults=["a stack of 8 bytes"])])
    lines = text.splitlines()
    assert lines[2] == "| k | sm_90 | 128 | 64 | 0 | 0 | 1,536 | 4 | float32 4 | ok |"
    assert "PTX: fma.rn.f32 4" in lines[3]
    assert "**refused**" in lines[4]
    assert lines[-1] == "k for sm_90: a stack of 8 bytes"
    failed = {key: value for key, value in row().items() if key not in vars(CLEAN)}
    short = cuda_compile.table([{**failed, "faults": ["does not compile: x"]}]).splitlines()
    assert short[2].count("|") == short[0].count("|")


# ---- the command ----


def test_without_a_compiler_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert cuda_compile.main([]) == 2
    assert "the simulator compiles nothing" in capsys.readouterr().err
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    monkeypatch.setattr(cuda_compile.importlib.util, "find_spec", lambda name: None)
    assert cuda_compile.main([]) == 2
    assert "numba-cuda is not installed; pip install 'fastmlp[cuda]'" in capsys.readouterr().err


def test_unknown_choices_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(cuda_compile, "missing", lambda: None)
    monkeypatch.setattr(cuda_compile, "all_variants", lambda: {"plain": PLAIN})
    assert cuda_compile.main(["--only", "no such kernel"]) == 2
    assert "leaves no kernel" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cuda_compile.main(["--capabilities", "90,91"])
    assert "'90,91'" in capsys.readouterr().err


# ---- compiling, with planted faults ----


def shares(a, b, n):
    """Clean: shared memory, a barrier, an exponential in float32."""
    room = cuda.shared.array(64, float32)
    i = cuda.grid(1)
    room[cuda.threadIdx.x & 63] = a[i]
    cuda.syncthreads()
    if i < n:
        b[i] = room[(cuda.threadIdx.x + 1) & 63] + math.exp(a[i])


def widens(a, b, n):
    """The constants are float64, and so is what is computed with them."""
    i = cuda.grid(1)
    if i < n:
        b[i] = 1.0 / (1.0 + math.exp(-a[i]))


def stacks(a, b, n):
    """An array with an index that is not known beforehand lies on the stack."""
    room = cuda.local.array(40, float32)
    for k in range(n):
        room[k % 40] = a[k]
    for k in range(n):
        b[k] = room[(7 * k) % 40]


def hungry(a, b, n):
    """Forty values that are all needed to the end."""
    t = a[n], a[n + 1], a[n + 2], a[n + 3], a[n + 4], a[n + 5], a[n + 6], a[n + 7], a[n + 8], a[n + 9]
    u = a[n + 10], a[n + 11], a[n + 12], a[n + 13], a[n + 14], a[n + 15], a[n + 16], a[n + 17], a[n + 18], a[n + 19]
    v = a[n + 20], a[n + 21], a[n + 22], a[n + 23], a[n + 24], a[n + 25], a[n + 26], a[n + 27], a[n + 28], a[n + 29]
    w = a[n + 30], a[n + 31], a[n + 32], a[n + 33], a[n + 34], a[n + 35], a[n + 36], a[n + 37], a[n + 38], a[n + 39]
    cuda.syncthreads()
    for one in (t, u, v, w):
        for value in one:
            b[n] = b[n] * value
            cuda.syncthreads()


if MISSING is None:
    from numba import cuda, float32, uint32

    SIGNATURE = (float32[::1], float32[::1], uint32)


@needs_compiler
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_clean_kernel_compiles(capability):
    compiled = cuda_compile.compile_kernel(shares, SIGNATURE, capability, (128, 1))
    assert compiled.static_shared == 256
    assert compiled.ptx["bar.sync"] == 1
    assert faults(compiled, PLAIN, capability) == []
    if compiled.sass is not None:
        assert cuda_compile.grouped(compiled.sass)["barrier"] >= 1


@needs_compiler
@pytest.mark.parametrize(("kernel", "fault"), [(widens, "float64: "), (stacks, "a stack of ")])
def test_planted_faults_are_found(kernel, fault):
    compiled = cuda_compile.compile_kernel(kernel, SIGNATURE, SM_90, (128, 1))
    assert any(found.startswith(fault) for found in faults(compiled, PLAIN, SM_90))


@needs_compiler
def test_launch_bounds_are_kept():
    """Few registers are left to a thread where two blocks of 1,024 threads must fit."""
    bounded = cuda.jit(launch_bounds=(1024, 2))(hungry)
    assert cuda_compile.compile_kernel(hungry, SIGNATURE, SM_90, (128, 1)).registers > 32
    assert cuda_compile.compile_kernel(bounded, SIGNATURE, SM_90, (128, 1)).registers <= 32


@needs_compiler
def test_kernel_that_does_not_compile_is_a_fault(monkeypatch):
    def broken():
        raise TypeError("no such type")

    monkeypatch.setattr(cuda_compile, "all_variants", lambda: {"broken": PLAIN._replace(build=broken)})
    assert cuda_compile.check("broken", SM_90)["faults"] == ["does not compile: TypeError: no such type"]


@needs_compiler
def test_known_rows_of_the_same_text_are_kept(monkeypatch):
    """And judged anew; another text is compiled."""
    built = PLAIN._replace(build=lambda: (shares, SIGNATURE))
    monkeypatch.setattr(cuda_compile, "all_variants", lambda: {"shares": built})
    first = cuda_compile.check("shares", SM_90)
    assert first["static_shared"] == 256
    known = {("shares", "sm_90"): {**first, "stack": 24, "faults": []}}
    again = cuda_compile.check("shares", SM_90, known)
    assert again["faults"] == ["a stack of 24 bytes"]
    monkeypatch.setattr(cuda_compile, "fingerprint", lambda kernel: "another")
    assert cuda_compile.check("shares", SM_90, known)["faults"] == []


# ---- the backend's own kernels ----


@needs_compiler
def test_each_path_has_kernels_for_each_capability():
    for path in cuda_compile.PATHS:
        module = __import__(f"fastmlp.kernels.cuda.{path}", fromlist=["variants"])
        variants = list(module.variants())
        for capability in CAPABILITIES:
            assert any(variant.is_for(capability) for variant in variants), (path, capability)
        assert {variant.dtype for variant in variants} == {"float32", "float64"}
        assert any(variant.quick for variant in variants), path
    assert len(cuda_compile.all_variants()) > 10  # and no name twice


@needs_compiler
def test_quick_kernels_compile_without_faults(tmp_path):
    """The command as `make cuda-compile` runs it, with the few that are quick."""
    out = tmp_path / "r.json"
    environ = {**environment(), "NUMBA_ENABLE_CUDASIM": "0"}
    command = [sys.executable, "-m", "fastmlp.bench.cuda_compile", "--quick", "--jobs", "2", "--out", str(out)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    rows = result["kernels"]
    assert {found["capability"] for found in rows} == {"sm_80", "sm_90", "sm_100"}
    assert all(found["faults"] == [] for found in rows)
    assert all(found["registers"] > 0 for found in rows)
    assert result["left"]
    assert out.with_suffix(".md").read_text() == done.stdout
    assert sorted(os.listdir(tmp_path)) == ["r.json", "r.md"]


def test_committed_table_is_that_of_the_committed_result():
    path = Path(__file__).parent.parent / "bench" / "results" / "cuda_compile.json"
    result = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == cuda_compile.table(result["kernels"]) + "\n"
    assert all(found["faults"] == [] for found in result["kernels"])


@needs_compiler
def test_committed_result_is_of_all_kernels_as_they_are():
    """Whoever changes a kernel's text, or what it imports, runs `make cuda-compile` again."""
    result = json.loads((Path(__file__).parent.parent / "bench" / "results" / "cuda_compile.json").read_text())
    texts = {
        name: cuda_compile.fingerprint(variant.build()[0]) for name, variant in cuda_compile.all_variants().items()
    }
    every = {
        (name, f"sm_{major}{minor}", texts[name])
        for name, variant in cuda_compile.all_variants().items()
        for major, minor in CAPABILITIES
        if variant.is_for((major, minor))
    }
    assert result["left"] == []
    assert {(found["kernel"], found["capability"], found["fingerprint"]) for found in result["kernels"]} == every
