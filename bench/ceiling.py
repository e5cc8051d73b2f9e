"""The machine's measured limits, each in a process of its own.

The rate of arithmetic is that of a large matrix product by the vendors' libraries. That of memory is measured as STREAM
does (McCalpin 1995): all threads copy, and compute a + s b, on arrays far larger than the caches.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["LIBRARIES", "MEBIBYTES", "SIZE", "measure_ceiling", "measure_memory"]

LIBRARIES = ("numpy", "torch")
SIZE = 2048  #: of the square matrices
MEBIBYTES = 128  #: of each of the three arrays that memory is measured with
LEAST, MOST = 4, 40  #: products, or passes over the arrays, of which the fastest counts, …
SECONDS = 1.0  #: … as many as fit into this time


def measure_ceiling(dtype: str, threads: int, size: int = SIZE, libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """The best rate of a matrix product.

    Parameters
    ----------
    dtype : str
    threads : int
    size : int, default 2048
        Rows and columns.
    libraries : sequence of str, default ("numpy", "torch")
        Those that are not installed are passed over.

    Returns
    -------
    dict
        ``gflops`` and ``library`` of the fastest one, ``threads``, ``size``, and ``all``: name -> GFLOP/s.

    Raises
    ------
    RuntimeError
        If none could be measured.
    """
    rates, trouble = {}, ""
    for library in libraries:
        try:
            rates[library] = _in_own_process(library, dtype, str(threads), str(size))
        except subprocess.CalledProcessError as error:
            trouble = error.stderr.strip()
    if not rates:
        raise RuntimeError(f"no matrix product could be measured: {trouble}")
    fastest = max(rates, key=lambda name: rates[name])
    return {"gflops": rates[fastest], "library": fastest, "threads": threads, "size": size, "all": rates}


def measure_memory(threads: int, mebibytes: int = MEBIBYTES) -> dict[str, Any]:
    """The best rate of memory.

    Parameters
    ----------
    threads : int
    mebibytes : int, default 128
        Of each of the three arrays.

    Returns
    -------
    dict
        ``gigabytes_per_second`` of the faster kernel, ``threads``, ``mebibytes``, and ``all``: "copy" and "triad" ->
        gigabytes read and written a second. What a cache reads of a line before it is written is not counted.
    """
    rates = {kernel: _in_own_process(kernel, str(threads), str(mebibytes)) for kernel in ("copy", "triad")}
    return {"gigabytes_per_second": max(rates.values()), "threads": threads, "mebibytes": mebibytes, "all": rates}


def _in_own_process(*arguments: str) -> float:
    from fastmlp.bench.processes import environment, python

    command = python("ceiling", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return json.loads(done.stdout.splitlines()[-1])


def best_time(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls, the first one apart."""
    call()
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < SECONDS and len(times) < MOST):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def product_rate(library: str, dtype: str, threads: int, size: int) -> float:
    """GFLOP/s of one library."""
    from fastmlp.bench.contender import limit_blas

    rng = np.random.default_rng(0)
    a, b = (rng.random((size, size)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    if library == "numpy":
        limit_blas(threads)
        seconds = best_time(lambda: np.matmul(a, b, out=out))
    else:
        import torch

        torch.set_num_threads(threads)
        ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out)
        seconds = best_time(lambda: torch.mm(ta, tb, out=tout))
    return 2 * size**3 / seconds / 1e9


def memory_rate(kernel: str, threads: int, mebibytes: int) -> float:
    """Gigabytes a second that are read and written: two arrays in a copy, three in a triad."""
    parts = [
        tuple(np.ones(mebibytes * 2**20 // 8 // threads) for _ in range(3))  # each thread's own, touched by it alone
        for _ in range(threads)
    ]
    call = (lambda part: np.copyto(part[2], part[0])) if kernel == "copy" else triad()
    with ThreadPoolExecutor(threads) as pool:
        seconds = best_time(lambda: list(pool.map(call, parts)))
    arrays = 2 if kernel == "copy" else 3
    return arrays * sum(part[0].nbytes for part in parts) / seconds / 1e9


def triad() -> Callable:
    """C = a + s b, compiled, without Python's lock."""
    import numba

    @numba.njit(nogil=True)
    def loop(a, b, c):
        for i in range(len(a)):
            c[i] = a[i] + 3.0 * b[i]

    return lambda part: loop(*part)


def main(what: str, *arguments: str) -> None:
    """Print the rate that is asked for."""
    if what in LIBRARIES:
        dtype, threads, size = arguments
        rate = product_rate(what, dtype, int(threads), int(size))
    else:
        threads, mebibytes = arguments
        rate = memory_rate(what, int(threads), int(mebibytes))
    print(json.dumps(rate))


if __name__ == "__main__":
    main(*sys.argv[1:])
