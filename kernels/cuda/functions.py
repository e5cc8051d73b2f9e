"""The formulas of activations, losses and update rules as device functions.

A formula is called once while a kernel is compiled, with numbers that write the arithmetic done with them as LLVM
instructions of the kernel's dtype (as `fastmlp.kernels.cpu.vectors` does for vectors of the CPU): so constants cost no
conversion, and a choice is a choice and no branch. In the simulator it is called with NumPy's scalars.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.arithmetic import Operators
from fastmlp.kernels.cuda.records import Hyperparameters
from fastmlp.kernels.cuda.toolkit import SIMULATED, cgutils, intrinsic, ir, make_array, types
from fastmlp.kernels.losses import LOSSES
from fastmlp.kernels.updates import UPDATES

__all__ = ["activation", "activations", "loss", "loss_delta", "update"]


class Number(Operators):
    """A number of the kernel, of which Python's operators write instructions."""


class DeviceMath:
    """Elementwise functions over `Number`: the namespace ``m`` of the formulas; those of NVIDIA's libdevice.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the instructions go.
    element : llvmlite.ir.FloatType or DoubleType
    """

    def __init__(self, builder: Any, element: Any) -> None:
        self.builder, self.element, self.flags = builder, element, ("contract",)

    def value(self, x: object) -> Any:
        """The LLVM value of a number."""
        return x.value if isinstance(x, Number) else ir.Constant(self.element, float(x))  # type: ignore[arg-type]

    def call(self, name: str, x: object) -> Number:
        """Call libdevice's function of that name and this dtype."""
        kind = ir.FunctionType(self.element, [self.element])
        full = f"__nv_{name}" + ("" if isinstance(self.element, ir.DoubleType) else "f")
        function = cgutils.get_or_insert_function(self.builder.module, kind, full)
        return Number(self, self.builder.call(function, [self.value(x)]))

    def exp(self, x: object) -> Number:
        """e^x."""
        return self.call("exp", x)

    def tanh(self, x: object) -> Number:
        """Hyperbolic tangent."""
        return self.call("tanh", x)

    def log1p(self, x: object) -> Number:
        """ln(1 + x)."""
        return self.call("log1p", x)

    def sqrt(self, x: object) -> Number:
        """Square root."""
        return self.call("sqrt", x)

    def where(self, condition: Any, a: object, b: object) -> Number:
        """A where the condition holds, b elsewhere."""
        if not isinstance(a, Number) and a == b:
            return Number(self, self.value(a))
        return Number(self, self.builder.select(condition, self.value(a), self.value(b)))

    def maximum(self, a: Number, b: object) -> Number:
        """The larger of two; NaN where a is (the GPU's own max would drop it)."""
        return self.where(a < b, b, a)


def _device_function(formula: Callable, results: int, arguments: tuple[str, ...]) -> Any:
    """A formula of numbers of one dtype as a device function.

    Parameters
    ----------
    formula : callable
        From the numbers and ``m`` to a number, or to a tuple of ``results`` of them.
    results : int
        How many numbers it gives; the first alone is returned as it is.
    arguments : tuple of str
        The names of its numbers.
    """
    if SIMULATED:

        def simulated(*numbers):
            found = formula(*numbers, np)
            kind = type(numbers[0])
            return tuple(map(kind, found)) if results > 1 else kind(found)

        return simulated

    def typing(typingctx, *kinds):
        kind = kinds[0]

        def generate(context, builder, signature, values):
            m = DeviceMath(builder, context.get_data_type(kind))
            found = formula(*(Number(m, value) for value in values), m)
            if results == 1:
                return m.value(found)
            return context.make_tuple(builder, signature.return_type, [m.value(number) for number in found])

        return (types.UniTuple(kind, results) if results > 1 else kind)(*[kind] * len(kinds)), generate

    space = {"typing": typing}
    names = ", ".join(("typingctx", *arguments))
    exec(f"def function({names}):\n    return typing({names})", space)
    return intrinsic(space["function"])


@cache
def activation(name: str) -> Any:
    """The device function z → (value, slope) of an activation; of softmax, z → (z, 1), as it runs over whole rows."""
    formula = ACTIVATIONS.get(name, ACTIVATIONS["identity"])
    return _device_function(formula, 2, ("z",))


@cache
def activations(names: tuple[str, ...]) -> Any:
    """The device function (layer, z) → (value, slope) of the activation that a hidden layer has.

    Where layers differ all are computed, and one is chosen.
    """
    formulas = [ACTIVATIONS[name] for name in names] or [ACTIVATIONS["identity"]]
    distinct = list(dict.fromkeys(formulas))
    if SIMULATED:

        def simulated(layer, z):
            value, slope = formulas[int(layer)](z, np)
            return type(z)(value), type(z)(slope)

        return simulated

    def typing(typingctx, layer, z):
        def generate(context, builder, signature, arguments):
            number, z = arguments
            m = DeviceMath(builder, context.get_data_type(signature.args[1]))
            results = {formula: formula(Number(m, z), m) for formula in distinct}
            value, slope = results[formulas[0]]
            for k, formula in enumerate(formulas):
                if len(distinct) > 1 and k:
                    here = builder.icmp_signed("==", number, ir.Constant(number.type, k))
                    value, slope = (m.where(here, a, b) for a, b in zip(results[formula], (value, slope), strict=True))
            return context.make_tuple(builder, signature.return_type, [m.value(value), m.value(slope)])

        return types.UniTuple(z, 2)(layer, z), generate

    return intrinsic(typing)


@cache
def loss(name: str) -> Any:
    """The device function (z, a, y) → loss of an output unit; of cross-entropy, which runs over whole rows, 0."""
    formula = LOSSES[name][0] if name in LOSSES else lambda z, a, y, m: 0 * z
    return _device_function(formula, 1, ("z", "a", "y"))


@cache
def loss_delta(name: str) -> Any:
    """The device function (a, slope, y) → ∂loss/∂z of an output unit, not yet divided by the number of samples."""
    formula = LOSSES[name][1] if name in LOSSES else lambda a, slope, y, m: a - y
    return _device_function(formula, 1, ("a", "slope", "y"))


@cache
def update(kind: str) -> Any:
    """A rule as the device function (w, k, slots, s, stride, g, h): w[k] and its state take a step by the gradient g.

    The state is slots[s], slots[s + stride], ...; ``h`` are `fastmlp.kernels.cuda.records.Hyperparameters`.
    """
    formula, count = UPDATES[kind]
    if SIMULATED:

        def simulated(w, k, slots, s, stride, g, h):
            state = tuple(slots[s + n * stride] for n in range(count))
            w[k], new = formula(w[k], g, state, h, np)
            for n, value in enumerate(new):
                slots[s + n * stride] = value

        return simulated

    def step(typingctx, w, k, slots, s, stride, g, h):
        def generate(context, builder, signature, arguments):
            _, k, _, s, stride, g, h = arguments
            m = DeviceMath(builder, context.get_data_type(signature.args[0].dtype))

            def place(array: int, index: Any, kind: Any) -> Any:
                number = context.cast(builder, index, kind, types.int64)
                data = make_array(signature.args[array])(context, builder, arguments[array]).data
                return builder.gep(data, [number])

            places = [place(0, k, signature.args[1])]
            first = context.cast(builder, s, signature.args[3], types.int64)
            further = context.cast(builder, stride, signature.args[4], types.int64)
            for n in range(count):
                index = builder.add(first, builder.mul(further, ir.Constant(ir.IntType(64), n)))
                places.append(place(2, index, types.int64))
            now, *state = (Number(m, builder.load(there)) for there in places)
            values = Hyperparameters(*(Number(m, x) for x in cgutils.unpack_tuple(builder, h)))
            new, after = formula(now, Number(m, g), tuple(state), values, m)
            for there, number in zip(places, (new, *after), strict=True):
                builder.store(m.value(number), there)
            return context.get_dummy_value()

        return types.void(w, k, slots, s, stride, w.dtype, h), generate

    return intrinsic(step)
