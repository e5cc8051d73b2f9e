"""What the CPU that Numba compiles for offers: the width of its vectors, and how many registers hold them."""

import platform
import re
from functools import cache

import llvmlite.binding as llvm
from numba.core import config
from numba.core.registry import cpu_target

_PROBE = """
define void @probe(ptr %p) {
  %v = load <16 x float>, ptr %p
  %w = fadd <16 x float> %v, %v
  store <16 x float> %w, ptr %p
  ret void
}
"""


def cpu_name() -> str:
    """LLVM's name of the CPU that is compiled for: NUMBA_CPU_NAME, or this machine's."""
    return config.CPU_NAME or llvm.get_host_cpu_name()


def _assembly() -> str:
    """What LLVM makes of adding two vectors of 512 bits on Numba's target: the names of the registers tell."""
    cpu_target.target_context  # noqa: B018 (initialises LLVM's native target)
    features = config.CPU_FEATURES
    if features is None:
        features = "" if config.CPU_NAME else llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=cpu_name(), features=features, opt=2)
    return machine.emit_assembly(llvm.parse_assembly(_PROBE))


@cache
def vector_bits() -> int:
    """Width of a vector register in bits: 512, 256 or 128.

    A CPU whose name is forced by NUMBA_CPU_NAME is asked about by that name. On anything unknown 128: vectors that
    the hardware lacks are split by LLVM, so this decides speed, not correctness.
    """
    code = _assembly()
    for register, bits in (("zmm", 512), ("ymm", 256)):
        if re.search(rf"\b%?{register}\d", code):
            return bits
    return 128


@cache
def vector_registers() -> int:
    """Number of vector registers: 32 with AVX-512 and on 64-bit Arm, 16 on other x86."""
    return 32 if vector_bits() == 512 or platform.machine() in ("aarch64", "arm64") else 16
