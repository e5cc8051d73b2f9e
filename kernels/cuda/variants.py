"""What the compile check asks of each path: the kernels that it can choose, and what each needs of a device."""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Variant"]

Capability = tuple[int, int]


class Variant(NamedTuple):
    """A kernel that the dispatcher can choose.

    Each path's ``variants()`` yields its own, by the same plan and text that a launch would get, so that what is
    checked is what runs.

    Parameters
    ----------
    name : str
        Unique, and telling: path, sizes, batch, dtype, rule and whatever else the text depends on.
    build : callable
        Without arguments, to the kernel (a dispatcher of `numba.cuda.jit`, or the function given to it) and its
        signature (a tuple of Numba types, as the launch passes them). Called only when the kernel is compiled.
    dtype : {"float32", "float64"}
        Of the arithmetic. A kernel in float32 must hold none in float64.
    threads : int
        Of a block.
    shared : int, default 0
        Bytes of dynamic shared memory of a block.
    least, most : tuple of int, defaults (8, 0) and None
        Compute capabilities that it is for.
    blocks : int, default 1
        Blocks that must fit on one multiprocessor at once.
    quick : bool, default False
        Whether the tests compile it.
    """

    name: str
    build: Callable[[], tuple[Any, tuple]]
    dtype: str
    threads: int
    shared: int = 0
    least: Capability = (8, 0)
    most: Capability | None = None
    blocks: int = 1
    quick: bool = False

    def is_for(self, capability: Capability) -> bool:
        """Whether the dispatcher can choose it on a device of that compute capability."""
        return self.least <= capability and (self.most is None or capability <= self.most)
