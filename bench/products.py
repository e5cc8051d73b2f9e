"""The three products of a wide layer, ours and the vendors' libraries', in turn, on one thread.

``python -m fastmlp.bench.products`` measures those of 1,000 inputs and 1,000 units, as an epoch of large batches calls
them: forward, the delta of the layer below (times its slopes), and the gradient, stored or added to what is there.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from fastmlp.bench import machine, results
from fastmlp.bench.contender import limit_blas
from fastmlp.bench.tables import products_table
from fastmlp.kernels import Network
from fastmlp.kernels.cpu.drivers import dot_block
from fastmlp.kernels.cpu.entries import DELTA, INPUT, LANES, OUTPUT, PACKED, SLOPES, WIDE
from fastmlp.kernels.cpu.packing import packed_delta, packed_gradient
from fastmlp.kernels.cpu.plan import by_samples, chunk_samples
from fastmlp.kernels.network import N_IN, N_OUT, OFFSET, STRIDE

__all__ = ["NAME", "PRODUCTS", "main", "measure"]

NAME = "products"  #: of the result, as of a suite

SIDE = 1000  #: inputs, and units
LAYER = 1  #: of [1000, 1000, 1000]: the one that has a layer below
ROUNDS = 25
DTYPES = ("float32", "float64")
PRODUCTS = ("forward", "delta below", "gradient", "gradient added")
FORWARD, DELTA_BELOW, GRADIENT, GRADIENT_ADDED = range(4)


@njit(error_model="numpy")
def ours(product, plan, table, parameters, scratch, gradients, n):
    """A product of the second layer, its operands in scratch as `fastmlp.kernels.cpu.plan.by_samples` lays them."""
    n_in, n_out = table[LAYER, N_IN], table[LAYER, N_OUT]
    offset, stride, bias, zero = table[LAYER, OFFSET], table[LAYER, STRIDE], -plan[LANES], np.int64(0)
    x0, d0, p0 = table[LAYER, INPUT], table[LAYER, DELTA], plan[PACKED]
    if product == FORWARD:
        dot_block(table, LAYER, parameters, scratch, zero, n_out, x0, n, table[LAYER, OUTPUT], bias, n_in)
    elif product == DELTA_BELOW:
        packed_delta(
            n, n_out, scratch, d0, stride, parameters, offset, stride, scratch, table[LAYER - 1, SLOPES],
            scratch, table[LAYER - 1, DELTA], stride, zero, n_in, plan[LANES], scratch, p0,
        )  # fmt: skip
    else:
        packed_gradient(
            n_out, n, scratch, d0, stride, scratch, x0, stride, gradients, offset, stride,
            bias, n_in, plan[LANES], np.int64(product == GRADIENT_ADDED), scratch, p0,
        )  # fmt: skip


class Layer:
    """The layer with random operands, for so many samples."""

    def __init__(self, dtype: str, samples: int) -> None:
        self.network = Network.build((SIDE, SIDE, SIDE), dtype=dtype)
        self.samples = samples
        self.plan = by_samples(self.network, samples, 1)
        if not self.plan.table[LAYER, WIDE]:
            raise RuntimeError(f"a layer of {SIDE} x {SIDE} is not wide, and an epoch calls other products")
        rng = np.random.default_rng(0)
        self.parameters, self.gradients = self.network.zeros(), self.network.zeros()
        row = self.network.rows(self.parameters)[LAYER]
        row[:] = rng.normal(0, SIDE**-0.5, row.shape)
        table = self.plan.table
        self.X, self.D = self._rows(table[LAYER, INPUT]), self._rows(table[LAYER, DELTA])
        self.Z, self.E = self._rows(table[LAYER, OUTPUT]), self._rows(table[LAYER - 1, DELTA])
        self.X[:], self.D[:] = rng.normal(size=self.X.shape), rng.normal(size=self.D.shape)
        self._rows(table[LAYER - 1, SLOPES])[:] = 1
        self.W, self.G = row[:, 1:], self.network.rows(self.gradients)[LAYER][:, 1:]
        self.bias = row[:, 0]

    def _rows(self, start: int) -> np.ndarray:
        """The samples' rows of a layer in scratch, padding left out."""
        stride = int(self.plan.table[LAYER, STRIDE])
        return self.plan.scratch[start : start + self.samples * stride].reshape(self.samples, stride)[:, :SIDE]

    def ours(self, product: int) -> Callable[[], None]:
        """A call of ours, as of a compiled epoch."""
        p = self.plan
        arguments = p.plan, p.table, self.parameters, p.scratch, self.gradients, self.samples
        return lambda: ours(product, *arguments)

    def operands(self, product: int) -> tuple[np.ndarray, np.ndarray]:
        """The two matrices that a library multiplies."""
        return {FORWARD: (self.X, self.W.T), DELTA_BELOW: (self.D, self.W)}.get(product, (self.D.T, self.X))

    def libraries(self, product: int) -> dict[str, Callable[[], Any]]:
        """The bare product by NumPy's library, and by PyTorch's where that is installed, into memory that is there."""
        a, b = self.operands(product)
        out = np.zeros((len(a), b.shape[1]), a.dtype)
        calls: dict[str, Callable[[], Any]] = {"numpy": lambda: np.matmul(a, b, out=out)}
        try:
            import torch
        except ImportError:
            return calls
        torch.set_num_threads(1)
        ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out.copy())
        return {**calls, "torch": lambda: torch.mm(ta, tb, out=tout)}

    def check(self, product: int) -> None:
        """Our product is the library's.

        Raises
        ------
        RuntimeError
            If it is not, within rounding.
        """
        self.G[:] = 1
        self.ours(product)()
        a, b = self.operands(product)
        more = {FORWARD: self.bias, GRADIENT_ADDED: 1}.get(product, 0)
        expected = a.astype("float64") @ b.astype("float64") + more
        found = {FORWARD: self.Z, DELTA_BELOW: self.E}.get(product, self.G)
        limit = 8 * np.finfo(a.dtype).eps * np.sqrt(a.shape[1]) * np.abs(expected).max()
        if not np.allclose(found, expected, rtol=0, atol=limit):
            raise RuntimeError(
                f"{PRODUCTS[product]}, {self.samples} samples, {a.dtype}: not the product that it should be"
            )


def median_times(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each call, all in turn, the first round apart."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(each) for name, each in times.items()}


def measure(dtypes: Sequence[str], rounds: int = ROUNDS) -> dict[str, Any]:
    """Check, then measure, every product with as many samples as an epoch takes at a time, and with four times as many.

    Returns
    -------
    dict
        A result for `fastmlp.bench.results.save`; under ``products`` a row each: dtype, samples, product, and the
        GFLOP/s of "ours" and of each library.
    """
    limit_blas(1)
    rows = []
    for dtype in dtypes:
        chunk = chunk_samples(Network.build((SIDE, SIDE, SIDE), dtype=dtype))
        for samples in (chunk, 4 * chunk):
            layer = Layer(dtype, samples)
            for product, name in enumerate(PRODUCTS):
                layer.check(product)
                times = median_times({"ours": layer.ours(product), **layer.libraries(product)}, rounds)
                gflops = {who: 2e-9 * samples * SIDE**2 / seconds for who, seconds in times.items()}
                rows.append({"dtype": dtype, "samples": samples, "product": name, "gflops": gflops})
    return {
        "format": results.FORMAT,
        "suite": NAME,
        "summary": f"products of {SIDE:,} × {SIDE:,} weights beside the vendors' libraries, one thread",
        "machine": machine.describe(),
        "interrupted": False,
        "ceilings": {},
        "memory": None,
        "measurements": [],
        "rounds": rounds,
        "products": rows,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.products", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each; by default {ROUNDS}")
    parser.add_argument("--out", type=Path, help="the result file (JSON) to write")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error(f"--rounds={given.rounds}; expected 1 at least")
    result = measure(DTYPES, given.rounds)
    print("\n".join(products_table(result)))
    if given.out is not None:
        results.save(result, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
