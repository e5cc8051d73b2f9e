"""The GPU, for a result's record: what it is, and the rates of a large matrix product and of its memory.

Each is found in a process of its own, so that the one that measures holds nothing on the device.
"""

import json
import shutil
import subprocess
import sys
from typing import Any

from fastmlp import kernels
from fastmlp.bench.processes import environment, python

__all__ = ["SIZE", "ceilings", "describe", "missing"]

SIZE = 8192  #: of the square matrices
PRODUCTS = 10  #: of which the fastest counts
LIMIT = 120.0  #: seconds after which such a process is ended


def missing() -> str | None:
    """Why nothing runs on a GPU here, and what to do; None where it does."""
    return kernels.available()["cuda"]


def describe() -> dict[str, Any]:
    """The GPU that fastmlp uses.

    Returns
    -------
    dict
        Of what JSON knows: name, compute_capability, multiprocessors, shared_memory (bytes a block can have), memory
        (bytes in all), driver (its version, None where nvidia-smi is not there).
    """
    return {**in_own_process("describe"), "driver": driver()}


def driver() -> str | None:
    """The version of NVIDIA's driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run([tool, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.strip().partition("\n")[0] or None


def ceilings() -> dict[str, dict[str, Any]]:
    """The rates of PyTorch's product of two large matrices, by arithmetic.

    Returns
    -------
    dict
        "float32", "tf32" -> ``gflops``, ``library``, ``size``; empty where PyTorch does not run.
    """
    try:
        rates = in_own_process("products")
    except RuntimeError:
        return {}
    return {name: {"gflops": rate, "library": "PyTorch on the GPU", "size": SIZE} for name, rate in rates.items()}


def in_own_process(what: str) -> Any:
    """What this module's command prints.

    Raises
    ------
    RuntimeError
        If it fails; the message is the end of what it wrote.
    """
    try:
        done = subprocess.run(python("gpu", what), capture_output=True, text=True, env=environment(), timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer within {LIMIT:g} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def seen_by_fastmlp() -> dict[str, Any]:
    """See `describe`."""
    from fastmlp.kernels.cuda.device import device

    gpu = device()
    return {
        "name": gpu.name,
        "compute_capability": list(gpu.compute_capability),
        "multiprocessors": gpu.multiprocessors,
        "shared_memory": gpu.shared_memory,
        "memory": gpu.memory()[1],
    }


def products() -> dict[str, float]:
    """GFLOP/s by arithmetic; see `ceilings`."""
    import torch

    rates = {}
    a, b = (torch.rand(SIZE, SIZE, device="cuda") for _ in range(2))
    out = torch.empty_like(a)
    for name, precision in (("float32", "highest"), ("tf32", "high")):
        torch.set_float32_matmul_precision(precision)
        times = []
        for _ in range(PRODUCTS + 1):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            torch.mm(a, b, out=out)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        rates[name] = 2 * SIZE**3 / min(times[1:]) / 1e9
    return rates


def main(what: str) -> None:
    """Print what is asked for, as JSON."""
    commands = {"describe": seen_by_fastmlp, "products": products}
    print(json.dumps(commands[what]()))


if __name__ == "__main__":
    main(*sys.argv[1:])
