"""Instructions of the GPU that Numba has no name for, as functions to call in kernels.

Most are one line of inline PTX, wrapped in an intrinsic. In the simulator each has a meaning in plain Python, made of
what tests/cuda_simulator.py offers as ``cuda.concurrent``. Where a function takes an array and an index, it works on
that element.

Words
    How blocks exchange numbers without a barrier: an aligned 64-bit word holds a float32 and the number of the step
    that it belongs to, its *tag*. Such a word is written and read whole, so a reader that finds the tag has the value
    as well: no fence, no counter, one trip through the cache. A float64 takes two words, each with the tag.

Whole numbers
    Numba adds and multiplies two of 32 bits to one of 64, which takes a GPU several instructions. Kernels therefore
    put ``int32()`` around a whole expression: only its low bits are then worked out.

Vectors
    16 bytes: four float32 or two float64, as a tuple. The element must be aligned to 16 bytes.
"""

import numpy as np

from fastmlp.kernels.cuda.toolkit import SIMULATED, cuda, int32, intrinsic, ir, make_array, types, uint32

__all__ = [
    "acquire",
    "afresh",
    "arrive",
    "commit_copies",
    "copy_async",
    "load_shared",
    "quotient",
    "receive",
    "receive_double",
    "remainder",
    "send",
    "send_double",
    "wait_copies",
    "wait_older_copies",
]

if not SIMULATED:
    F32, F64, U32 = types.float32, types.float64, types.uint32
    LLVM = {F32: ir.FloatType(), F64: ir.DoubleType(), U32: ir.IntType(32), types.void: ir.VoidType()}
    SHARED = 3  # address spaces of LLVM's NVPTX
    GLOBAL = 1

    def _pointer(context, builder, array: tuple, index: tuple, space: int) -> ir.Value:
        """The address of an element, in an address space; array and index each with its Numba type before it."""
        number = context.cast(builder, index[1], index[0], types.int64)
        element = builder.gep(make_array(array[0])(context, builder, array[1]).data, [number])
        return builder.addrspacecast(element, element.type.pointee.as_pointer(space))

    def _address(context, builder, array: tuple, index: tuple, space: int) -> ir.Value:
        """The address of an element as a number: 32 bits in shared memory, 64 elsewhere."""
        pointer = _pointer(context, builder, array, index, space)
        return builder.ptrtoint(pointer, ir.IntType(32 if space == SHARED else 64))

    def ptx(name: str, doc: str, asm: str, constraints: str, result, parameters: list):
        """An intrinsic that is one piece of inline PTX.

        Parameters
        ----------
        name, doc : str
            Of the function.
        asm, constraints : str
            As LLVM takes them: $0, $1, ... are results, then parameters.
        result : type or tuple of types
            `types.void` for none; a tuple for several.
        parameters : list
            Numba types; or SHARED or GLOBAL for an element of an array there, of which its address is passed.
        """
        names = ", ".join(
            f"array{i}, index{i}" if p in (SHARED, GLOBAL) else f"value{i}" for i, p in enumerate(parameters)
        )
        returns = types.Tuple(result) if isinstance(result, tuple) else result

        def typing(typingctx, *arguments):
            given, kinds = list(arguments), []
            for parameter in parameters:
                kinds += [given.pop(0), given.pop(0)] if parameter in (SHARED, GLOBAL) else [given.pop(0) and parameter]
            return returns(*kinds), generate

        def generate(context, builder, signature, arguments):
            given, values = list(zip(signature.args, arguments, strict=True)), []
            for parameter in parameters:
                if parameter in (SHARED, GLOBAL):
                    values.append(_address(context, builder, given.pop(0), given.pop(0), parameter))
                else:
                    values.append(given.pop(0)[1])
            several = isinstance(result, tuple)
            kind = ir.LiteralStructType([LLVM[r] for r in result]) if several else LLVM[result]
            function = ir.FunctionType(kind, [value.type for value in values])
            out = builder.call(ir.InlineAsm(function, asm, constraints, side_effect=True), values)
            if several:
                parts = [builder.extract_value(out, i) for i in range(len(result))]
                return context.make_tuple(builder, signature.return_type, parts)
            return context.get_dummy_value() if result is types.void else out

        space = {"typing": typing}
        arguments = f"typingctx, {names}" if names else "typingctx"
        exec(f"def {name}({arguments}):\n    {doc!r}\n    return typing({arguments})", space)
        return intrinsic(space[name])

    arrive = ptx(
        "arrive",
        "Add to a counter (uint32); all that this block wrote before is seen by who acquires the sum.",
        "red.release.gpu.global.add.u32 [$0], $1;",
        "l,r,~{memory}",
        types.void,
        [GLOBAL, U32],
    )
    acquire = ptx(
        "acquire",
        "A counter (uint32), read so that all that its writers wrote before is seen.",
        "ld.acquire.gpu.global.u32 $0, [$1];",
        "=r,l,~{memory}",
        U32,
        [GLOBAL],
    )
    send = ptx(
        "send",
        "Put a float32 and its tag into a word.",
        "{ .reg .b64 w; mov.b64 w, {$1, $2}; st.relaxed.gpu.global.b64 [$0], w; }",
        "l,f,r,~{memory}",
        types.void,
        [GLOBAL, F32, U32],
    )
    send_double = ptx(
        "send_double",
        "Put a float64 and its tag into two words.",
        "{ .reg .b64 w; .reg .b32 lo, hi; mov.b64 {lo, hi}, $1; mov.b64 w, {lo, $2}; "
        "st.relaxed.gpu.global.b64 [$0], w; mov.b64 w, {hi, $2}; st.relaxed.gpu.global.b64 [$0+8], w; }",
        "l,d,r,~{memory}",
        types.void,
        [GLOBAL, F64, U32],
    )
    receive = ptx(
        "receive",
        "The float32 and the tag that are in a word now.",
        "{ .reg .b64 w; ld.relaxed.gpu.global.b64 w, [$2]; mov.b64 {$0, $1}, w; }",
        "=f,=r,l,~{memory}",
        (F32, U32),
        [GLOBAL],
    )
    receive_double = ptx(
        "receive_double",
        "The float64 and the tag that are in two words now; 0 for a tag where they don't agree.",
        "{ .reg .b64 w, v; .reg .b32 lo, hi, ta, tb; .reg .pred p; ld.relaxed.gpu.global.b64 w, [$2]; "
        "ld.relaxed.gpu.global.b64 v, [$2+8]; mov.b64 {lo, ta}, w; mov.b64 {hi, tb}, v; mov.b64 $0, {lo, hi}; "
        "setp.eq.u32 p, ta, tb; selp.u32 $1, ta, 0, p; }",
        "=d,=r,l,~{memory}",
        (F64, U32),
        [GLOBAL],
    )
    copy_async = ptx(
        "copy_async",
        "Start copying 16 bytes from an element in global memory to one in shared memory; both aligned to 16 bytes.",
        "cp.async.cg.shared.global [$0], [$1], 16;",
        "r,l,~{memory}",
        types.void,
        [SHARED, GLOBAL],
    )
    commit_copies = ptx(
        "commit_copies",
        "Close the group of copies that this thread has started.",
        "cp.async.commit_group;",
        "~{memory}",
        types.void,
        [],
    )
    wait_copies = ptx(
        "wait_copies",
        "Wait for all groups of copies of this thread.",
        "cp.async.wait_group 0;",
        "~{memory}",
        types.void,
        [],
    )

    wait_older_copies = ptx(
        "wait_older_copies",
        "Wait for all groups of copies of this thread but the latest.",
        "cp.async.wait_group 1;",
        "~{memory}",
        types.void,
        [],
    )

    @intrinsic
    def afresh(typingctx, n):
        """The same int32, of which the compiler can't tell.

        What is computed from it inside a loop is not computed once before the loop, where it would take registers
        throughout.
        """

        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
            return builder.call(ir.InlineAsm(kind, "mov.u32 $0, $1;", "=r,r", side_effect=True), arguments)

        return n(n), generate

    @intrinsic
    def load_shared(typingctx, array, index):
        """A vector of shared memory."""
        lanes = 16 // (array.dtype.bitwidth // 8)

        def generate(context, builder, signature, arguments):
            array, index = zip(signature.args, arguments, strict=True)
            element = _pointer(context, builder, array, index, SHARED)
            kind = ir.VectorType(element.type.pointee, lanes)
            vector = builder.load(builder.bitcast(element, kind.as_pointer(SHARED)))
            vector.align = 16
            parts = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(lanes)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(array.dtype, lanes)(array, index), generate

else:

    def afresh(n):
        """The same number."""
        return n

    def arrive(counter, index, value):
        """Add to a counter (uint32)."""
        cuda.concurrent.release_add(counter, index, value)

    def acquire(counter, index):
        """A counter (uint32)."""
        return cuda.concurrent.load_acquire(counter, index)

    def _put(words, index, value, tag) -> None:
        """A number into words: each half of its bits, the tag above."""
        for k, half in enumerate(np.asarray(value).reshape(1).view(np.uint32)):
            cuda.concurrent.store_relaxed(words, int(index) + k, np.uint64(int(tag) << 32 | int(half)))

    def _get(words, index, dtype) -> tuple:
        count = np.dtype(dtype).itemsize // 4
        found = [int(cuda.concurrent.load_relaxed(words, int(index) + k)) for k in range(count)]
        tags = {word >> 32 for word in found}
        bits = np.array([word & 0xFFFFFFFF for word in found], np.uint32)
        return bits.view(dtype)[0], np.uint32(tags.pop() if len(tags) == 1 else 0)

    def send(words, index, value, tag):
        """Put a float32 and its tag into a word."""
        _put(words, index, np.float32(value), tag)

    def send_double(words, index, value, tag):
        """Put a float64 and its tag into two words."""
        _put(words, index, np.float64(value), tag)

    def receive(words, index):
        """The float32 and the tag that are in a word now."""
        return _get(words, index, np.float32)

    def receive_double(words, index):
        """The float64 and the tag that are in two words now."""
        return _get(words, index, np.float64)

    def copy_async(target, index, source, origin):
        """Start copying 16 bytes."""
        cuda.concurrent.async_copy(target, index, source, origin, 16 // target.dtype.itemsize)

    def commit_copies():
        """Close the group of copies that this thread has started."""
        cuda.concurrent.async_commit()

    def wait_copies():
        """Wait for all groups of copies of this thread."""
        cuda.concurrent.async_wait(0)

    def wait_older_copies():
        """Wait for all groups of copies of this thread but the latest."""
        cuda.concurrent.async_wait(1)

    def load_shared(array, index):
        """A vector of shared memory."""
        cuda.concurrent.check_aligned(array, index, 16)
        return tuple(array[int(index) + i] for i in range(16 // array.dtype.itemsize))


@cuda.jit(device=True, forceinline=True)
def quotient(a, n):
    """The int32 a // n of numbers that are not negative: a multiplication and a shift, with no rules for signs."""
    return int32(uint32(a) // uint32(n))


@cuda.jit(device=True, forceinline=True)
def remainder(a, n):
    """The int32 a % n, likewise."""
    return int32(uint32(a) % uint32(n))
