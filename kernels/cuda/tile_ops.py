"""What tiles need of the GPU beyond `fastmlp.kernels.cuda.ptx`: loads under a condition, and addresses.

A vector is 16 bytes, four float32 or two float64; of uint8 it is as many bytes as the arithmetic has numbers. Shared
memory has addresses of 32 bits; in the simulator they are bytes from an array's start.
"""

import numpy as np
from numba import cuda

from fastmlp.kernels.cuda.elementwise import SIMULATED

#: Elements of a vector access.
VECTOR = {"float32": 4, "float64": 2}


def device(function):
    """A function of a kernel, inlined where it is called."""
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


if not SIMULATED:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.cache_hints import _get_element_pointer
    from numba.cuda.extending import intrinsic

    FLOAT, DOUBLE, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(32)
    #: dtype -> LLVM type, constraint, PTX type, what a masked load gives
    KINDS = {
        types.float32: (FLOAT, "f", "f32", "mov.f32 ${}, 0f00000000;"),
        types.float64: (DOUBLE, "d", "f64", "mov.f64 ${}, 0d0000000000000000;"),
        types.uint8: (INT, "r", "u8", "mov.u32 ${}, 0;"),
    }

    def _assembly(builder, returns, text: str, constraints: str, values: list):
        """One piece of PTX; it may touch memory, and stays where it is."""
        function = ir.FunctionType(returns, [v.type for v in values])
        return builder.call(ir.InlineAsm(function, text, constraints, side_effect=True), values)

    def _several(context, builder, signature, text: str, dtype, n: int, constraints: str, values: list):
        """PTX with n results, as a tuple."""
        element, letter, *_ = KINDS[dtype]
        outputs = ",".join([f"=&{letter}"] * n)
        found = _assembly(builder, ir.LiteralStructType([element] * n), text, f"{outputs},{constraints}", values)
        elements = [builder.extract_value(found, i) for i in range(n)]
        return context.make_tuple(builder, signature.return_type, elements)

    def _names(first: int, n: int) -> str:
        return "{" + ", ".join(f"${first + i}" for i in range(n)) + "}"

    def _pointer(context, builder, signature, arguments):
        pointer = _get_element_pointer(
            context, builder, signature.args[1], arguments[1], signature.args[0], arguments[0]
        )
        return builder.ptrtoint(pointer, ir.IntType(64))

    def _load_if(n: int, array, index):
        """What an intrinsic gives that loads n elements, or zeros."""
        dtype = array.dtype

        def generate(context, builder, signature, arguments):
            *_, ptx, zero = KINDS[dtype]
            zeros = " ".join(zero.format(i) for i in range(n))
            text = (
                f"{{ .reg .pred p; setp.ne.u32 p, ${n + 1}, 0; {zeros} "
                f"@p ld.global.v{n}.{ptx} {_names(0, n)}, [${n}]; }}"
            )
            values = [_pointer(context, builder, signature, arguments), builder.zext(arguments[2], INT)]
            return _several(context, builder, signature, text, dtype, n, "l,r,~{memory}", values)

        element = types.uint32 if dtype == types.uint8 else dtype
        return types.UniTuple(element, n)(array, index, types.boolean), generate

    @intrinsic
    def load_four_if(typing, array, index, valid):
        """The four elements that begin at an index, or zeros where it is not valid (nothing is read then)."""
        return _load_if(4, array, index)

    @intrinsic
    def load_two_if(typing, array, index, valid):
        """The two elements that begin at an index, or zeros where it is not valid (nothing is read then)."""
        return _load_if(2, array, index)

    @intrinsic
    def forget(typing, number):
        """The same number (uint32), but the compiler does not know that it is.

        What is computed from it is then computed where it is used, and not once before all loops around, to be kept in
        registers until it is needed.
        """

        def generate(context, builder, signature, arguments):
            return _assembly(builder, INT, "mov.u32 $0, $1;", "=r,r", [arguments[0]])

        return types.uint32(types.uint32), generate

    @intrinsic
    def shared_address(typing, array):
        """The address of a shared array's first element."""

        def generate(context, builder, signature, arguments):
            pointer = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
            return builder.ptrtoint(builder.addrspacecast(pointer, pointer.type.pointee.as_pointer(3)), INT)

        return types.uint32(array), generate

else:

    def _load_if(n, array, index, valid):
        kind = np.uint32 if array.dtype == np.uint8 else array.dtype.type
        if not valid:
            return (kind(0),) * n
        cuda.concurrent.check_aligned(array, index, n * array.dtype.itemsize)
        return tuple(kind(array[int(index) + i]) for i in range(n))

    def load_four_if(array, index, valid):
        """The four elements that begin at an index, or zeros where it is not valid (nothing is read then)."""
        return _load_if(4, array, index, valid)

    def load_two_if(array, index, valid):
        """The two elements that begin at an index, or zeros where it is not valid (nothing is read then)."""
        return _load_if(2, array, index, valid)

    def forget(number):
        """The same number."""
        return number

    def shared_address(array):
        """The address of a shared array's first element."""
        return np.uint32(0)


#: The load under a condition of a vector, by the dtype of the arithmetic; of uint8 too.
LOAD_IF = {"float32": "load_four_if", "float64": "load_two_if"}
