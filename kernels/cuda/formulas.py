"""The formulas of activations, losses and updates as lines of typed Python, for the kernels that are written as text.

A formula called with `Expression` values and an `ExpressionMath` builds the tree of what it computes, as it computes
arrays when called with NumPy. Written out, every constant has the dtype of the kernel: an untyped one would turn the
arithmetic of a float32 kernel into float64, which a GPU does at a fraction of the speed. What is used more than once
becomes a line of its own, the rest nests.

>>> activation("sigmoid", "z", "float32", "t").lines
['t0 = (float32(1) / (float32(1) + exp((-z))))']

The functions that the lines call are those of `fastmlp.kernels.cuda.elementwise`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import LOSSES
from fastmlp.kernels.updates import HYPERPARAMETERS, UPDATES


class Expression:
    """A number in a kernel: a template with places for its operands, or a name, or a constant."""

    def __init__(self, math: "ExpressionMath", template: str, *operands: "Expression") -> None:
        self.math, self.template, self.operands = math, template, operands

    def _binary(self, sign: str, left: object, right: object) -> "Expression":
        return Expression(self.math, f"({{}} {sign} {{}})", self.math.term(left), self.math.term(right))

    def __add__(self, other):
        return self._binary("+", self, other)

    def __radd__(self, other):
        return self._binary("+", other, self)

    def __sub__(self, other):
        return self._binary("-", self, other)

    def __rsub__(self, other):
        return self._binary("-", other, self)

    def __mul__(self, other):
        """A product; one factor that is the constant 1 is left out, which changes no value."""
        left, right = self, self.math.term(other)
        one = self.math.term(1).template
        return right if left.template == one else left if right.template == one else self._binary("*", left, right)

    def __rmul__(self, other):
        return self.math.term(other) * self

    def __truediv__(self, other):
        return self._binary("/", self, other)

    def __rtruediv__(self, other):
        return self._binary("/", other, self)

    def __neg__(self):
        return Expression(self.math, "(-{})", self)

    def __abs__(self):
        return self.math.call("fabs", self)

    def __gt__(self, other):
        return self._binary(">", self, other)

    def __lt__(self, other):
        return self._binary("<", self, other)


class ExpressionMath:
    """Elementwise functions over `Expression`: the namespace ``m`` of the formulas.

    Parameters
    ----------
    dtype : str
        Of all numbers: "float32" or "float64".
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def term(self, x: object) -> Expression:
        """An expression as it is; a name as a value; a number as a constant of the dtype."""
        if isinstance(x, Expression):
            return x
        return Expression(self, x if isinstance(x, str) else f"{self.dtype}({x!r})")

    def call(self, function: str, x: object) -> Expression:
        """A function of one argument."""
        return Expression(self, function + "({})", self.term(x))

    def exp(self, x: object) -> Expression:
        """e^x."""
        return self.call("exp", x)

    def tanh(self, x: object) -> Expression:
        """Hyperbolic tangent."""
        return self.call("tanh", x)

    def log1p(self, x: object) -> Expression:
        """ln(1 + x)."""
        return self.call("log1p", x)

    def sqrt(self, x: object) -> Expression:
        """Square root."""
        return self.call("sqrt", x)

    def where(self, condition: Expression, a: object, b: object) -> Expression:
        """A where the condition holds, b elsewhere; without the condition where both are one constant."""
        a, b = self.term(a), self.term(b)
        if a is b or (not a.operands and a.template == b.template):
            return a
        return Expression(self, "({} if {} else {})", a, condition, b)

    def maximum(self, a: Expression, b: object) -> Expression:
        """The larger of two; NaN where a is (the GPU's own max would drop it)."""
        return self.where(a < b, b, a)


@dataclass(frozen=True)
class Written:
    """Lines of a kernel, and the texts of the results: names, constants or short expressions."""

    lines: list[str]
    results: tuple[str, ...]


def written(results: Sequence[Expression], prefix: str) -> Written:
    """Expressions as text; what is used more than once is given a name that begins with ``prefix``."""
    uses: Counter[int] = Counter()
    texts: dict[int, str] = {}
    lines: list[str] = []

    def count(e: Expression) -> None:
        uses[id(e)] += 1
        if uses[id(e)] == 1:
            for operand in e.operands:
                count(operand)

    def text(e: Expression) -> str:
        if id(e) not in texts:
            expression = e.template.format(*map(text, e.operands))
            if e.operands and uses[id(e)] > 1:
                name = f"{prefix}{len(lines)}"
                lines.append(f"{name} = {expression}")
                expression = name
            texts[id(e)] = expression
        return texts[id(e)]

    for result in results:
        count(result)
    return Written(lines, tuple(map(text, results)))


def activation(name: str, z: str, dtype: str, prefix: str = "t") -> Written:
    """Value and slope of an activation (not of softmax, which is no elementwise function).

    Parameters
    ----------
    name : str
        In `fastmlp.kernels.activations.ACTIVATIONS`.
    z : str
        The name of the pre-activation.
    dtype : str
        "float32" or "float64".
    prefix : str, default "t"
        What the names of intermediate results begin with. They may be used again later.
    """
    m = ExpressionMath(dtype)
    return written(ACTIVATIONS[name](m.term(z), m), prefix)


def loss(name: str, z: str, a: str, slope: str, y: str, dtype: str, prefix: str = "t") -> Written:
    """Value and delta of an elementwise loss (not of cross-entropy, which runs over whole rows).

    The delta is not yet divided by the number of samples. ``slope`` may be the text of a constant.
    """
    m = ExpressionMath(dtype)
    value, delta = LOSSES[name]
    z_, a_, slope_, y_ = map(m.term, (z, a, slope, y))
    return written([value(z_, a_, y_, m), delta(a_, slope_, y_, m)], prefix)


def update(kind: str, w: str, g: str, slots: Sequence[str], dtype: str, prefix: str = "t", h: str = "") -> Written:
    """The new parameter and the new slots of an update rule.

    Parameters
    ----------
    kind : str
        In `fastmlp.kernels.updates.UPDATES`.
    w, g, slots : str, str, sequence of str
        The names of a parameter, its gradient and its state.
    dtype : str
        "float32" or "float64".
    prefix : str, default "t"
        What the names of intermediate results begin with.
    h : str, default ""
        Put before the names in `fastmlp.kernels.updates.HYPERPARAMETERS`, by which the lines call them.
    """
    m = ExpressionMath(dtype)
    values = SimpleNamespace(**{name: m.term(h + name) for name in HYPERPARAMETERS})
    parameter, state = UPDATES[kind][0](m.term(w), m.term(g), tuple(map(m.term, slots)), values, m)
    return written([parameter, *state], prefix)


def uses(kind: str) -> tuple[str, ...]:
    """Which of `fastmlp.kernels.updates.HYPERPARAMETERS` an update rule reads, in their order."""
    slots = [f"slot{i}" for i in range(UPDATES[kind][1])]
    result = update(kind, "w", "g", slots, "float64", h="<>")
    text = " ".join([*result.lines, *result.results])
    return tuple(name for name in HYPERPARAMETERS if f"<>{name}" in text)
