"""What tiles need of the GPU beyond `fastmlp.kernels.cuda.ptx`: loads under a condition, tensor cores.

A vector is 16 bytes, four float32 or two float64; of uint8 it is four bytes. Loads from shared memory are by a 32-bit
address and a constant, as its instructions have it, so that a tile's many loads share one register: `shared_address`
gives the address of an array's first element, and a load takes the array too, from which it knows the dtype. In the
simulator addresses are bytes from the array's start, and each function has its plain meaning.

The tensor cores' functions are of a whole warp: all 32 lanes must call them together. Fragments, for lane 4 g + q:

=========== ================= =============================== ============================== ======================
function    product           first operand                   second operand                 sums
=========== ================= =============================== ============================== ======================
mma_tf32    16 x 8, depth 8   (g, q) (g+8, q) (g, q+4)        (q, g) (q+4, g), as depth,     (g, 2q) (g, 2q+1)
                              (g+8, q+4), as row, depth       column                         (g+8, 2q) (g+8, 2q+1)
mma_float64 8 x 8, depth 4    (g, q)                          (q, g)                         (g, 2q) (g, 2q+1)
=========== ================= =============================== ============================== ======================

Source: PTX ISA, "Matrix multiply-accumulate operation using mma instruction".
"""

import numpy as np
from numba import cuda

from fastmlp.kernels.cuda.elementwise import SIMULATED

#: Elements of a vector access.
VECTOR = {"float32": 4, "float64": 2, "uint8": 4}

if not SIMULATED:
    from llvmlite import ir
    from numba.core.errors import RequireLiteralValue
    from numba.cuda import types
    from numba.cuda.cache_hints import _get_element_pointer
    from numba.cuda.extending import intrinsic

    FLOAT, DOUBLE, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(32)
    #: dtype -> elements, LLVM type, constraint, PTX type, what a masked load gives
    KINDS = {
        types.float32: (4, FLOAT, "f", "f32", "mov.f32 ${}, 0f00000000;"),
        types.float64: (2, DOUBLE, "d", "f64", "mov.f64 ${}, 0d0000000000000000;"),
        types.uint8: (4, INT, "r", "u8", "mov.u32 ${}, 0;"),
    }

    def _assembly(builder, returns, text: str, constraints: str, values: list):
        """One piece of PTX; it may touch memory, and stays where it is."""
        function = ir.FunctionType(returns, [v.type for v in values])
        return builder.call(ir.InlineAsm(function, text, constraints, side_effect=True), values)

    def _several(context, builder, signature, texts_of, dtype, constraints: str, values: list):
        """PTX with as many results as a vector has elements, as a tuple."""
        n, element, letter, *_ = KINDS[dtype]
        outputs = ",".join([f"=&{letter}"] * n)
        found = _assembly(builder, ir.LiteralStructType([element] * n), texts_of, f"{outputs},{constraints}", values)
        elements = [builder.extract_value(found, i) for i in range(n)]
        return context.make_tuple(builder, signature.return_type, elements)

    def _result(dtype):
        return types.UniTuple(types.uint32 if dtype == types.uint8 else dtype, KINDS[dtype][0])

    def _names(first: int, n: int) -> str:
        return "{" + ", ".join(f"${first + i}" for i in range(n)) + "}"

    def _pointer(context, builder, signature, arguments):
        pointer = _get_element_pointer(
            context, builder, signature.args[1], arguments[1], signature.args[0], arguments[0]
        )
        return builder.ptrtoint(pointer, ir.IntType(64))

    @intrinsic
    def load_if(typing, array, index, valid):
        """The vector that begins at an index, or zeros where it is not valid (nothing is read then)."""
        dtype = array.dtype

        def generate(context, builder, signature, arguments):
            n, _, _, ptx, zero = KINDS[dtype]
            zeros = " ".join(zero.format(i) for i in range(n))
            text = (
                f"{{ .reg .pred p; setp.ne.u32 p, ${n + 1}, 0; {zeros} "
                f"@p ld.global.v{n}.{ptx} {_names(0, n)}, [${n}]; }}"
            )
            values = [_pointer(context, builder, signature, arguments), builder.zext(arguments[2], INT)]
            return _several(context, builder, signature, text, dtype, "l,r,~{memory}", values)

        return _result(dtype)(array, index, types.boolean), generate

    @intrinsic
    def shared_address(typing, array):
        """The address of a shared array's first element."""

        def generate(context, builder, signature, arguments):
            pointer = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
            return builder.ptrtoint(builder.addrspacecast(pointer, pointer.type.pointee.as_pointer(3)), INT)

        return types.uint32(array), generate

    def _literal(offset) -> int:
        if not isinstance(offset, types.IntegerLiteral):
            raise RequireLiteralValue("the offset must be a constant")
        return offset.literal_value

    @intrinsic
    def load_at(typing, array, address, offset):
        """The vector at an address plus a constant, in bytes."""
        dtype, constant = array.dtype, _literal(offset)

        def generate(context, builder, signature, arguments):
            n, _, _, ptx, _ = KINDS[dtype]
            text = f"ld.shared.v{n}.{ptx} {_names(0, n)}, [${n}+{constant}];"
            return _several(context, builder, signature, text, dtype, "r,~{memory}", [arguments[1]])

        return _result(dtype)(array, types.uint32, offset), generate

    @intrinsic
    def load_one_at(typing, array, address, offset):
        """The element at an address plus a constant, in bytes."""
        dtype, constant = array.dtype, _literal(offset)

        def generate(context, builder, signature, arguments):
            _, element, letter, ptx, _ = KINDS[dtype]
            text = f"ld.shared.{ptx} $0, [$1+{constant}];"
            return _assembly(builder, element, text, f"={letter},r,~{{memory}}", [arguments[1]])

        return dtype(array, types.uint32, offset), generate

    @intrinsic
    def tf32(typing, x):
        """A float32 rounded to the 10 bits of fraction that TF32 has, still a float32."""

        def generate(context, builder, signature, arguments):
            rounded = _assembly(builder, INT, "cvt.rna.tf32.f32 $0, $1;", "=r,f", [arguments[0]])
            return builder.bitcast(rounded, FLOAT)

        return types.float32(types.float32), generate

    @intrinsic
    def mma_tf32(typing, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """Sums plus the product of two fragments whose numbers are TF32."""

        def generate(context, builder, signature, arguments):
            text = (
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
            )
            values = [builder.bitcast(x, INT) for x in arguments[:6]] + list(arguments[6:])
            constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
            found = _assembly(builder, ir.LiteralStructType([FLOAT] * 4), text, constraints, values)
            elements = [builder.extract_value(found, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(types.float32, 4)(*[types.float32] * 10), generate

    @intrinsic
    def mma_float64(typing, a, b, c0, c1):
        """Sums plus the product of two fragments, in float64."""

        def generate(context, builder, signature, arguments):
            text = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {$0,$1}, {$2}, {$3}, {$4,$5};"
            found = _assembly(
                builder, ir.LiteralStructType([DOUBLE] * 2), text, "=d,=d,d,d,d,d", list(arguments)
            )
            elements = [builder.extract_value(found, i) for i in range(2)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(types.float64, 2)(*[types.float64] * 4), generate

else:

    def load_if(array, index, valid):
        """The vector that begins at an index, or zeros where it is not valid (nothing is read then)."""
        n = VECTOR[array.dtype.name]
        kind = np.uint32 if array.dtype == np.uint8 else array.dtype.type
        if not valid:
            return (kind(0),) * n
        cuda.concurrent.check_aligned(array, index, n * array.dtype.itemsize)
        return tuple(kind(array[int(index) + i]) for i in range(n))

    def shared_address(array):
        """The address of a shared array's first element."""
        return np.uint32(0)

    def _place(array, address, offset) -> int:
        start, rest = divmod(int(address) + offset, array.dtype.itemsize)
        if rest:
            raise ValueError(f"address {address} + {offset} is no element's")
        return start

    def load_at(array, address, offset):
        """The vector at an address plus a constant, in bytes."""
        n, start = VECTOR[array.dtype.name], _place(array, address, offset)
        cuda.concurrent.check_aligned(array, start, n * array.dtype.itemsize)
        return tuple(array[start + i] for i in range(n))

    def load_one_at(array, address, offset):
        """The element at an address plus a constant, in bytes."""
        return array[_place(array, address, offset)]

    def tf32(x):
        """A float32 rounded to the 10 bits of fraction that TF32 has, still a float32: to nearest, ties away."""
        if not np.isfinite(x):
            return np.float32(x)
        bits = np.float32(x).view(np.uint32)
        return np.uint32((int(bits) + 0x1000) & 0xFFFFE000).view(np.float32)

    def _gather(values, places: list, shape: tuple) -> np.ndarray:
        """A matrix from what each lane holds of it."""
        matrix = np.empty(shape)
        for lane, held in enumerate(values):
            for (row, column), x in zip(places[lane], held, strict=True):
                matrix[row, column] = x
        return matrix

    LANES = [(lane // 4, lane % 4) for lane in range(32)]

    def _mma(shape, first, second, sums, values):
        """The warp's product: exact, rounded once a sum. The hardware's own sums have a few bits less."""
        rows, columns, depth = shape
        lanes = cuda.concurrent.warp(values)
        a, b = len(first(0, 0)), len(second(0, 0))
        A = _gather([v[:a] for v in lanes], [first(g, q) for g, q in LANES], (rows, depth))
        B = _gather([v[a : a + b] for v in lanes], [second(g, q) for g, q in LANES], (depth, columns))
        C = _gather([v[a + b :] for v in lanes], [sums(g, q) for g, q in LANES], (rows, columns))
        result, kind = C + A @ B, type(values[0])
        lane = next(i for i, v in enumerate(lanes) if v is values)
        return tuple(kind(result[place]) for place in sums(*LANES[lane]))

    def mma_tf32(*values):
        """Sums plus the product of two fragments whose numbers are TF32."""
        for x in values[:6]:
            if np.isfinite(x) and np.float32(x).view(np.uint32) & 0x1FFF:
                raise ValueError(f"{x!r} is no TF32 number")
        return _mma(
            (16, 8, 8),
            lambda g, q: [(g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4)],
            lambda g, q: [(q, g), (q + 4, g)],
            lambda g, q: [(g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1)],
            values,
        )

    def mma_float64(*values):
        """Sums plus the product of two fragments, in float64."""
        return _mma(
            (8, 8, 4),
            lambda g, q: [(g, q)],
            lambda g, q: [(q, g)],
            lambda g, q: [(g, 2 * q), (g, 2 * q + 1)],
            values,
        )
