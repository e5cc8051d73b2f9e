"""Instructions of the GPU that Numba has no name for, as functions to call in kernels.

Most are one line of inline PTX, wrapped in an intrinsic. In the simulator each has a meaning in plain Python, made of
what tests/cuda_simulator.py offers as ``cuda.concurrent``. Where a function takes an array and an index, it works on
that element.

Words
    How blocks exchange numbers without a barrier: an aligned 64-bit word holds a float32 and the number of the step
    that it belongs to, its *tag*. Such a word is written and read whole, so a reader that finds the tag has the value
    as well: no fence, no counter, one trip through the cache. A float64 takes two words, each with the tag.

Vectors
    16 bytes: four float32 or two float64, as a tuple. The element must be aligned to 16 bytes.
"""

import numpy as np
from numba import cuda

from fastmlp.kernels.cuda.elementwise import SIMULATED

__all__ = [
    "acquire",
    "arrive",
    "cluster_of",
    "cluster_rank",
    "cluster_sync",
    "commit_copies",
    "copy_async",
    "load_global",
    "load_shared",
    "receive",
    "receive_double",
    "receive_double_here",
    "receive_here",
    "send",
    "send_double",
    "send_double_to",
    "send_to",
    "store_global",
    "store_shared",
    "wait_copies",
]

if not SIMULATED:
    from llvmlite import ir
    from numba.core.errors import RequireLiteralValue
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic
    from numba.cuda.np.arrayobj import make_array

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

    _PACK = "mov.b64 w, {{$1, $2}}; {store} [{place}], w;"
    _PACK_DOUBLE = (
        "mov.b64 {{lo, hi}}, $1; mov.b64 w, {{lo, $2}}; {store} [{place}], w; "
        "mov.b64 w, {{hi, $2}}; {store} [{place}+8], w;"
    )
    _UNPACK = "{load} w, [$2]; mov.b64 {{$0, $1}}, w;"
    _UNPACK_DOUBLE = (
        "{load} w, [$2]; {load} v, [$2+8]; mov.b64 {{lo, ta}}, w; mov.b64 {{hi, tb}}, v; mov.b64 $0, {{lo, hi}}; "
        "setp.eq.u32 p, ta, tb; selp.u32 $1, ta, 0, p;"
    )
    _SCRATCH = "{{ .reg .b64 w, v; .reg .b32 lo, hi, ta, tb, peer; .reg .pred p; {0} }}"
    _FAR = "mapa.shared::cluster.u32 peer, $0, $3; "
    _STORE, _LOAD = "st.relaxed.gpu.global.b64", "ld.relaxed.gpu.global.b64"
    _STORE_TO, _LOAD_HERE = "st.relaxed.cluster.shared::cluster.b64", "ld.relaxed.cluster.shared::cta.b64"

    def _scratch(text: str, **names: str) -> str:
        return _SCRATCH.format(text.format(**names))

    send = ptx(
        "send",
        "Put a float32 and its tag into a word.",
        _scratch(_PACK, store=_STORE, place="$0"),
        "l,f,r,~{memory}",
        types.void,
        [GLOBAL, F32, U32],
    )
    send_double = ptx(
        "send_double",
        "Put a float64 and its tag into two words.",
        _scratch(_PACK_DOUBLE, store=_STORE, place="$0"),
        "l,d,r,~{memory}",
        types.void,
        [GLOBAL, F64, U32],
    )
    receive = ptx(
        "receive",
        "The float32 and the tag that are in a word now.",
        _scratch(_UNPACK, load=_LOAD),
        "=f,=r,l,~{memory}",
        (F32, U32),
        [GLOBAL],
    )
    receive_double = ptx(
        "receive_double",
        "The float64 and the tag that are in two words now; 0 for a tag where they don't agree.",
        _scratch(_UNPACK_DOUBLE, load=_LOAD),
        "=d,=r,l,~{memory}",
        (F64, U32),
        [GLOBAL],
    )
    send_to = ptx(
        "send_to",
        "Put a float32 and its tag into a word in the shared memory of another block of the cluster.",
        _scratch(_FAR + _PACK, store=_STORE_TO, place="peer"),
        "r,f,r,r,~{memory}",
        types.void,
        [SHARED, F32, U32, U32],
    )
    send_double_to = ptx(
        "send_double_to",
        "Put a float64 and its tag into two words in the shared memory of another block of the cluster.",
        _scratch(_FAR + _PACK_DOUBLE, store=_STORE_TO, place="peer"),
        "r,d,r,r,~{memory}",
        types.void,
        [SHARED, F64, U32, U32],
    )
    receive_here = ptx(
        "receive_here",
        "The float32 and the tag that are in a word of this block's shared memory now.",
        _scratch(_UNPACK, load=_LOAD_HERE),
        "=f,=r,r,~{memory}",
        (F32, U32),
        [SHARED],
    )
    receive_double_here = ptx(
        "receive_double_here",
        "The float64 and the tag that are in two words of this block's shared memory now.",
        _scratch(_UNPACK_DOUBLE, load=_LOAD_HERE),
        "=d,=r,r,~{memory}",
        (F64, U32),
        [SHARED],
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
    cluster_rank = ptx(
        "cluster_rank", "The number of this block in its cluster.", "mov.u32 $0, %cluster_ctarank;", "=r", U32, []
    )
    cluster_sync = ptx(
        "cluster_sync",
        "A barrier of all threads of the cluster.",
        "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
        "~{memory}",
        types.void,
        [],
    )

    @intrinsic
    def cluster_of(typingctx, blocks):
        """Have the kernel launched in clusters of so many blocks: a literal, in the kernel itself, once."""
        if not isinstance(blocks, types.IntegerLiteral):
            raise RequireLiteralValue("cluster_of takes a literal")
        count = blocks.literal_value

        def generate(context, builder, signature, arguments):
            module = builder.module
            notes = cgutils.get_or_insert_named_metadata(module, "nvvm.annotations")
            for axis, size in zip("xyz", (count, 1, 1), strict=True):
                key = ir.MetaDataString(module, f"cluster_dim_{axis}")
                notes.add(module.add_metadata([builder.function, key, ir.Constant(ir.IntType(32), size)]))
            return context.get_dummy_value()

        return types.void(blocks), generate

    def _vector(builder, pointer: ir.Value) -> tuple[ir.Value, int]:
        """A pointer to a vector of 16 bytes where that pointer to a float points, and its lanes."""
        lanes = 2 if isinstance(pointer.type.pointee, ir.DoubleType) else 4
        kind = ir.VectorType(pointer.type.pointee, lanes)
        return builder.bitcast(pointer, kind.as_pointer(pointer.type.addrspace)), lanes

    def _loader(space: int):
        def typing(typingctx, array, index):
            lanes = 16 // (array.dtype.bitwidth // 8)

            def generate(context, builder, signature, arguments):
                array, index = zip(signature.args, arguments, strict=True)
                pointer, _ = _vector(builder, _pointer(context, builder, array, index, space))
                vector = builder.load(pointer)
                vector.align = 16
                parts = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(lanes)]
                return context.make_tuple(builder, signature.return_type, parts)

            return types.UniTuple(array.dtype, lanes)(array, index), generate

        return typing

    def _storer(space: int):
        def typing(typingctx, array, index, values):
            def generate(context, builder, signature, arguments):
                array, index, _ = zip(signature.args, arguments, strict=True)
                pointer, lanes = _vector(builder, _pointer(context, builder, array, index, space))
                vector = ir.Constant(pointer.type.pointee, ir.Undefined)
                for i in range(lanes):
                    part = builder.extract_value(arguments[2], i)
                    vector = builder.insert_element(vector, part, ir.Constant(ir.IntType(32), i))
                store = builder.store(vector, pointer)
                store.align = 16
                return context.get_dummy_value()

            return types.void(array, index, values), generate

        return typing

    _load_shared, _load_global = _loader(SHARED), _loader(GLOBAL)
    _store_shared, _store_global = _storer(SHARED), _storer(GLOBAL)

    @intrinsic
    def load_shared(typingctx, array, index):
        """A vector of shared memory."""
        return _load_shared(typingctx, array, index)

    @intrinsic
    def load_global(typingctx, array, index):
        """A vector of global memory."""
        return _load_global(typingctx, array, index)

    @intrinsic
    def store_shared(typingctx, array, index, values):
        """Put a vector, given as a tuple, into shared memory."""
        return _store_shared(typingctx, array, index, values)

    @intrinsic
    def store_global(typingctx, array, index, values):
        """Put a vector, given as a tuple, into global memory."""
        return _store_global(typingctx, array, index, values)

else:

    def arrive(counter, index, value):
        """Add to a counter (uint32)."""
        cuda.concurrent.release_add(counter, index, value)

    def acquire(counter, index):
        """A counter (uint32)."""
        return cuda.concurrent.load_acquire(counter, index)

    def _packed(value, tag) -> list[np.uint64]:
        """A number as words: each half of its bits, the tag above."""
        bits = np.asarray(value).reshape(1).view(np.uint32)
        return [np.uint64(int(tag) << 32 | int(half)) for half in bits]

    def _unpacked(words: list, dtype) -> tuple:
        tags = {int(word) >> 32 for word in words}
        bits = np.array([int(word) & 0xFFFFFFFF for word in words], np.uint32)
        return bits.view(dtype)[0], np.uint32(tags.pop() if len(tags) == 1 else 0)

    def _put(words, index, value, tag) -> None:
        for k, word in enumerate(_packed(value, tag)):
            cuda.concurrent.store_relaxed(words, int(index) + k, word)

    def _get(words, index, dtype) -> tuple:
        count = np.dtype(dtype).itemsize // 4
        return _unpacked([cuda.concurrent.load_relaxed(words, int(index) + k) for k in range(count)], dtype)

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

    def send_to(words, index, value, tag, rank):
        """Put a float32 and its tag into a word of another block of the cluster."""
        send(cuda.concurrent.peer(words, rank), index, value, tag)

    def send_double_to(words, index, value, tag, rank):
        """Put a float64 and its tag into two words of another block of the cluster."""
        send_double(cuda.concurrent.peer(words, rank), index, value, tag)

    receive_here, receive_double_here = receive, receive_double

    def copy_async(target, index, source, origin):
        """Start copying 16 bytes."""
        cuda.concurrent.async_copy(target, index, source, origin, 16 // target.dtype.itemsize)

    def commit_copies():
        """Close the group of copies that this thread has started."""
        cuda.concurrent.async_commit()

    def wait_copies():
        """Wait for all groups of copies of this thread."""
        cuda.concurrent.async_wait(0)

    def cluster_of(blocks):
        """Launched in clusters of so many blocks."""
        cuda.concurrent.cluster_dims(blocks)

    def cluster_rank():
        """The number of this block in its cluster."""
        return cuda.concurrent.cluster_rank()

    def cluster_sync():
        """A barrier of all threads of the cluster."""
        cuda.concurrent.cluster_sync()

    def load_shared(array, index):
        """A vector of shared memory."""
        cuda.concurrent.check_aligned(array, index, 16)
        return tuple(array[int(index) + i] for i in range(16 // array.dtype.itemsize))

    load_global = load_shared

    def store_shared(array, index, values):
        """Put a vector, given as a tuple, into shared memory."""
        cuda.concurrent.check_aligned(array, index, 16)
        for i, value in enumerate(values):
            array[int(index) + i] = value

    store_global = store_shared
