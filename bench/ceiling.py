"""The machine's measured ceiling: a large matrix product by the vendors' libraries, in a process of its own."""

import json
import subprocess
import sys
import time
from typing import Any

__all__ = ["SIZE", "measure_ceiling"]

SIZE = 2048  #: of the square matrices
LEAST, MOST = 4, 40  #: products of which the fastest counts, …
SECONDS = 1.0  #: … as many as fit into this time


def measure_ceiling(dtype: str, threads: int, size: int = SIZE) -> dict[str, Any]:
    """The best rate of a matrix product, of NumPy's library and, where it is installed, PyTorch's.

    Parameters
    ----------
    dtype : str
    threads : int
    size : int, default 2048
        Rows and columns.

    Returns
    -------
    dict
        ``gflops`` and ``library`` of the faster one, ``threads``, ``size``, and ``all``: name -> GFLOP/s.
    """
    from fastmlp.bench.processes import environment, python

    rates = {}
    for library in ("numpy", "torch"):
        command = python("ceiling", library, dtype, str(threads), str(size))
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode == 0:
            rates[library] = json.loads(done.stdout.splitlines()[-1])
    if not rates:
        raise RuntimeError(f"no matrix product could be measured: {done.stderr.strip()}")
    fastest = max(rates, key=lambda name: rates[name])
    return {"gflops": rates[fastest], "library": fastest, "threads": threads, "size": size, "all": rates}


def rate(library: str, dtype: str, threads: int, size: int) -> float:
    """GFLOP/s of one library, the best of several products."""
    import numpy as np

    from fastmlp.bench.contender import limit_blas

    rng = np.random.default_rng(0)
    a, b = (rng.random((size, size)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    if library == "numpy":
        limit_blas(threads)

        def product() -> None:
            np.matmul(a, b, out=out)
    else:
        import torch

        torch.set_num_threads(threads)
        ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out)

        def product() -> None:
            torch.mm(ta, tb, out=tout)

    times: list[float] = []
    while len(times) < LEAST or (sum(times) < SECONDS and len(times) < MOST):
        begin = time.perf_counter()
        product()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times) / 1e9


if __name__ == "__main__":
    print(json.dumps(rate(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
