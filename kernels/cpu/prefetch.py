"""Asking for memory before it is wanted, where no hardware could guess what comes next."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastmlp.kernels.cpu.vectors import INT32, VectorMath, int_constant, loop

#: Bytes of a line of the cache.
LINE = 64


def ask_for(b: ir.IRBuilder, address: ir.Value) -> None:
    """Have the line at an address brought into the caches; any address will do, nothing is read from it."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), INT32, INT32, INT32])
    prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    options = [ir.Constant(INT32, number) for number in (0, 3, 1)]  # to read, into all levels, data
    b.call(prefetch, [b.bitcast(address, ir.IntType(8).as_pointer()), *options])


def ask_for_vectors(m: VectorMath, array: ir.Value, places: list[ir.Value]) -> None:
    """Ask for the lines of vectors side by side, at these offsets in an array."""
    per_line = max(LINE // (m.lanes * m.bits // 8), 1)
    for place in dict.fromkeys([*places[::per_line], places[-1]]):  # the last may be in a line that no other is in
        ask_for(m.builder, m.builder.gep(array, [place]))


@intrinsic
def ask_for_bytes(typing, address, size):
    """Have so many bytes at an address brought into the caches."""

    def generate(context, builder, signature, arguments):
        address, size = arguments

        def line(k, _):
            ask_for(builder, builder.inttoptr(builder.add(address, k), ir.IntType(8).as_pointer()))
            return []

        loop(builder, int_constant(0), size, LINE, [], line)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate
