"""Python's operators over LLVM values, for the formulas: see `fastmlp.kernels.activations`."""

from typing import Any

__all__ = ["Operators"]


class Operators:
    """A value of LLVM of which Python's operators write instructions.

    Parameters
    ----------
    math
        The namespace ``m`` of the formulas. It has the ``builder`` of instructions, their ``flags``, ``value`` (x → the
        LLVM value of x, which may be a number) and ``call`` (name, x → a function's value).
    value : llvmlite.ir.Value
    """

    def __init__(self, math: Any, value: Any) -> None:
        self.math, self.value = math, value

    def _binary(self, name: str, left: object, right: object):
        m = self.math
        return type(self)(m, getattr(m.builder, name)(m.value(left), m.value(right), flags=m.flags))

    def __add__(self, other):
        return self._binary("fadd", self, other)

    def __radd__(self, other):
        return self._binary("fadd", other, self)

    def __sub__(self, other):
        return self._binary("fsub", self, other)

    def __rsub__(self, other):
        return self._binary("fsub", other, self)

    def __mul__(self, other):
        return self._binary("fmul", self, other)

    def __rmul__(self, other):
        return self._binary("fmul", other, self)

    def __truediv__(self, other):
        return self._binary("fdiv", self, other)

    def __rtruediv__(self, other):
        return self._binary("fdiv", other, self)

    def __neg__(self):
        return self._binary("fsub", -0.0, self)

    def __abs__(self):
        return self.math.call("fabs", self)

    def __gt__(self, other):
        return self.math.builder.fcmp_ordered(">", self.value, self.math.value(other))

    def __lt__(self, other):
        return self.math.builder.fcmp_ordered("<", self.value, self.math.value(other))
