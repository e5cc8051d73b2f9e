"""What ``fastmlp info`` tells: versions, the machine, the backends."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastmlp import kernels
from fastmlp._version import __version__

__all__ = ["backends", "machine", "versions"]

#: Packages whose version is told, without importing them.
PACKAGES = ("numpy", "numba", "llvmlite")
OPTIONAL = ("torch", "torchvision", "onnx", "numba-cuda")


def versions() -> dict[str, str]:
    """Versions of fastmlp, Python and the packages that matter."""
    told = {"fastmlp": __version__, "python": f"{platform.python_version()}, {platform.platform()}"}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            told[name] = version(name)
        except PackageNotFoundError:
            told[name] = "not installed" + (" (optional)" if name in OPTIONAL else "")
    return told


def machine() -> dict[str, str]:
    """CPU, vector width, threads, cache folder and GPU, as the compiled backends see them."""
    told = {"cpu": cpu_name(), "cores": str(os.cpu_count())}
    try:
        from fastmlp.kernels import cpu, cuda
    except ImportError:  # `backends` tells why
        return told
    seen = cpu.describe()
    return {**told, **seen, "cpu": f"{told['cpu']} ({seen['cpu']})", **cuda.describe()}


def cpu_name() -> str:
    """The CPU's name, as Linux tells it; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def backends() -> dict[str, str]:
    """Each backend of `fastmlp.kernels`, and whether it works here or else why not."""
    return {f"backend {name}": reason or "works here" for name, reason in kernels.available().items()}
