"""CPUs other than this one: the kernels compiled for them, and run where this one can.

Each is a process of its own, because Numba takes the CPU to compile for from its environment. All run at once.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding as llvm
from problems import child_environment

from fastmlp.kernels.cpu.target import vector_bits

#: Some options against the oracle, small batches and large, samples that are mostly zero and others.
COMPARE = """
import numpy as np
from fastmlp import kernels
from fastmlp.kernels import Network, reference
from fastmlp.kernels.cpu import target
from problems import RULES, Course, assert_close, course, forced, random_problem, run_course

cpu, orders = kernels.backend("cpu"), [np.arange(23)]
print(target.vector_bits(), target.vector_registers())
for sizes, hidden, loss in (((33, 31, 4), "tanh", "cross_entropy"), ((17, 5, 1), "sigmoid", "binary_cross_entropy")):
    for rule in RULES:
        for way in ("units", "samples"):
            for sparse in (False, True):
                problem = random_problem(Network.build(sizes, hidden, loss=loss), 23, seed=3)
                problem.X[np.random.default_rng(1).random(problem.X.shape) < 0.7] = 0
                problem, tolerances = course(problem, rule, orders, 5)
                expected = run_course(reference, problem, rule, orders, 5)
                with forced(way, always_threads=True, sparse=sparse):
                    ours = run_course(cpu, problem, rule, orders, 5, 2)
                for kind, a, b, tolerance in zip(Course._fields, ours, expected, tolerances, strict=True):
                    assert_close(a, b, tolerance, f"{kind} of {sizes} {rule} {way} sparse={sparse}")
print("equal")
"""

#: A processor of which nothing is known: no instruction of x86 or Arm is called by name. What LLVM got is kept.
UNKNOWN = "import platform\nplatform.machine = lambda: 'unknown'\n" + COMPARE
KEEP = """
from pathlib import Path
from fastmlp.kernels.cpu import drivers
(text,) = drivers.run.inspect_llvm().values()
Path("run.ll").write_text(text)
"""

#: AVX-512 can't be run everywhere, but compiled: its own instruction brings values to the front of a list.
AVX512 = """
import numpy as np
from numba import config, float32, int32, intp, njit
from fastmlp.kernels.cpu import lists, target, tiles

print(target.vector_bits(), target.vector_registers(), lists.HAS_COMPRESS)
run = njit("intp(float32[::1], float32[::1], int32[::1])")(
    lambda X, values, places: lists.compress(X, intp(0), len(X), intp(0), values, intp(0), places, intp(0))
)
(text,) = run.inspect_asm().values()
print(text.count("vpcompressd") >= 2)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each program printed, and the folder in which it ran."""
    programs = {"haswell": COMPARE, "x86-64": UNKNOWN + KEEP, "skylake-avx512": AVX512}
    if llvm.get_host_cpu_features().get("avx2") is None:
        pytest.skip(
            f"this machine is {llvm.get_host_cpu_name()}, no x86: its programs can't be compiled for x86 and run"
        )
    if not llvm.get_host_cpu_features().get("avx2"):
        del programs["haswell"]
    running = {}
    for cpu, program in programs.items():
        folder = tmp_path_factory.mktemp(cpu)
        environment = child_environment(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(folder))
        if cpu == "haswell":
            environment["NUMBA_CPU_FEATURES"] = "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt"
        running[cpu] = folder, subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    found = {}
    for cpu, (folder, process) in running.items():
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{cpu}: {errors}"
        found[cpu] = folder, output
    return found


def test_avx2(results):
    if "haswell" not in results:
        pytest.skip("this machine has no AVX2")
    assert results["haswell"][1] == "256 16\nequal\n"


def test_a_cpu_of_which_nothing_is_known(results):
    assert results["x86-64"][1] == "128 16\nequal\n"


#: LLVM ends the process where it finds something that it can't translate.
TRANSLATE = """
from llvmlite import binding as llvm

of_this_one = ("target triple", "target datalayout", "attributes")
text = "".join(line for line in open("run.ll") if not line.startswith(of_this_one))
# Numba's own count of references, which LLVM has already made x86's.
text = text.replace("@llvm.x86.atomic.sub.cc.i64", "@count_down")
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="neoverse-n1", opt=2)
module = llvm.parse_assembly(text)
module.triple, module.data_layout = machine.triple, str(machine.target_data)
print(machine.emit_assembly(module).count("fmla\\tv") > 100)
"""


def test_the_same_code_compiles_for_arm(results):
    """LLVM's instructions for the unknown CPU, with the names of this one's taken off, translated for 64-bit Arm."""
    folder, _ = results["x86-64"]
    done = subprocess.run([sys.executable, "-c", TRANSLATE], cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_avx512(results):
    assert results["skylake-avx512"][1] == "512 32 True\nTrue\n"


#: A CPU for each width of vectors in bits, and what a machine must have to run its code; and the tests whose problems
#: follow the width.
WIDTHS = {"x86-64-v2": (128, "sse4.2"), "haswell": (256, "avx2"), "skylake-avx512": (512, "avx512vl")}
OF_A_WIDTH = "few_inputs or who_has or fewest"


@pytest.mark.parametrize("cpu", WIDTHS)
def test_tests_hold_for_every_width(cpu, tmp_path):
    """At the widths that this machine's vectors have not, where it can run such code."""
    bits, needed = WIDTHS[cpu]
    if not llvm.get_host_cpu_features().get(needed):
        pytest.skip(f"this machine is {llvm.get_host_cpu_name()}, which can't run {cpu}'s code: it has no {needed}")
    if vector_bits() == bits:
        pytest.skip(f"vectors have {bits} bits in all tests of this run")
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", OF_A_WIDTH]
    done = subprocess.run(
        [*command, str(here / "test_background.py")],
        env=child_environment(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path)),
        cwd=here.parent, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"{cpu}:\n{done.stdout}\n{done.stderr}"
