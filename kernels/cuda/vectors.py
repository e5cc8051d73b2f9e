"""Vectors and choices for kernels that are written as text: a thread's numbers in registers, many at a time.

A vector is a tuple of as many numbers as 16 bytes hold. Each function is one call for Numba to look at and straight
code in the kernel; written out number by number, and with Python's conditional expressions, which are branches to
Numba, it would take minutes to compile.
"""

from numba import cuda

from fastmlp.kernels.cuda.elementwise import SIMULATED

__all__ = ["add", "add_scaled", "afresh", "dot", "fold", "select"]

if not SIMULATED:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    def _parts(builder, vector: ir.Value) -> list[ir.Value]:
        return [builder.extract_value(vector, i) for i in range(vector.type.count)]

    @intrinsic
    def afresh(typingctx, n):
        """The same number (uint32), of which the compiler can't tell.

        What is computed from it inside a loop is not computed once before the loop, and so takes no registers
        throughout it.
        """

        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
            return builder.call(ir.InlineAsm(kind, "mov.u32 $0, $1;", "=r,r", side_effect=True), arguments)

        return n(n), generate

    @intrinsic
    def select(typingctx, condition, a, b):
        """A number where the condition holds, else another: no branch."""

        def generate(context, builder, signature, arguments):
            condition, a, b = arguments
            return builder.select(condition, a, context.cast(builder, b, signature.args[2], signature.args[1]))

        return a(condition, a, b), generate

    @intrinsic
    def dot(typingctx, x, w, z):
        """The number z plus the sum of products of two vectors."""

        def generate(context, builder, signature, arguments):
            x, w, z = arguments
            for one, other in zip(_parts(builder, x), _parts(builder, w), strict=True):
                z = builder.fma(one, other, z)
            return z

        return z(x, w, z), generate

    @intrinsic
    def add_scaled(typingctx, g, x, d):
        """The vector g plus the vector x times the number d."""

        def generate(context, builder, signature, arguments):
            g, x, d = arguments
            sums = [builder.fma(a, d, b) for a, b in zip(_parts(builder, x), _parts(builder, g), strict=True)]
            return context.make_tuple(builder, signature.return_type, sums)

        return g(g, x, d), generate

    @intrinsic
    def add(typingctx, a, b):
        """The sum of two vectors."""

        def generate(context, builder, signature, arguments):
            a, b = arguments
            sums = [builder.fadd(one, other) for one, other in zip(_parts(builder, a), _parts(builder, b), strict=True)]
            return context.make_tuple(builder, signature.return_type, sums)

        return a(a, b), generate

else:

    def afresh(n):
        """The same number."""
        return n

    def select(condition, a, b):
        """A number where the condition holds, else another."""
        return a if condition else type(a)(b)

    def dot(x, w, z):
        """The number z plus the sum of products of two vectors."""
        for one, other in zip(x, w, strict=True):
            z = z + one * other
        return z

    def add_scaled(g, x, d):
        """The vector g plus the vector x times the number d."""
        return tuple(a + b * d for a, b in zip(g, x, strict=True))

    def add(a, b):
        """The sum of two vectors."""
        return tuple(one + other for one, other in zip(a, b, strict=True))


@cuda.jit(device=True, forceinline=True)
def fold(low, high, upper, lanes):
    """Give a partner one of two sums and add the other to what it gives: upper lanes keep the high one."""
    return select(upper, high, low) + cuda.shfl_xor_sync(0xFFFFFFFF, select(upper, low, high), lanes)
