"""The machine and its software, for a result's record."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastmlp import __version__
from fastmlp.system import cpu_name

__all__ = ["PACKAGES", "cores", "describe", "graphics_card", "load"]

#: The folder above: in a checkout its root.
ROOT = Path(__file__).resolve().parent.parent

#: Packages whose versions are recorded where they are installed.
PACKAGES = (
    *("numpy", "numba", "llvmlite", "torch", "jax", "jaxlib", "scikit-learn"),
    *("numba-cuda", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink", "triton", "jax-cuda13-plugin"),
)


def describe() -> dict[str, Any]:
    """CPU, cores, vector width, system, versions, commit, date and load.

    Returns
    -------
    dict
        Of what JSON knows. ``load`` is the load average of the last minute, None where the system has none.
    """
    from fastmlp.kernels.cpu.target import vector_bits

    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "vector_bits": vector_bits(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": load(),
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Versions of Python, fastmlp and the packages that are installed."""
    found = {"python": platform.python_version(), "fastmlp": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with "+" if files that git tracks have changed since; "unknown" outside a checkout."""
    if not (ROOT / ".git").exists():  # installed; git would tell of any repository around that place
        return "unknown"
    try:
        head = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def graphics_card() -> dict[str, str] | None:
    """Name, driver's version and memory of the GPU, by nvidia-smi; None where it tells of none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    number = os.environ.get("FASTMLP_CUDA_DEVICE") or "0"
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "-i", number]
    done = subprocess.run(query, capture_output=True, text=True)
    values = done.stdout.strip().split(", ")
    return None if done.returncode else dict(zip(("name", "driver", "memory"), values, strict=False))
