"""Writing LLVM vector instructions from Python: what the kernels' intrinsics are made with.

Numba compiles loops over scalars and leaves it to LLVM to find the vectors, which it does at half the width of
AVX-512 and not at all around exp. Here a loop of Python, run once while Numba compiles, writes the vector code that
is wanted. `Vec` carries Python's operators, so that the formulas of `fastmlp.kernels.activations`, `losses` and
`updates` write their instructions when called with `Vec` values and a `VectorMath`, as they compute arrays when called
with NumPy.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from math import factorial, ulp

from llvmlite import ir
from numba.core import cgutils
from numba.np.arrayobj import make_array

from fastmlp.kernels.arithmetic import Operators
from fastmlp.kernels.cpu.target import vector_bits

INT32, INTP = ir.IntType(32), ir.IntType(64)

#: Lets LLVM fuse a product and a sum into one instruction, and nothing more: NaN and infinity keep their meaning.
FUSE = ("contract",)
#: For sums whose order is ours to choose.
SUM = ("contract", "reassoc", "nsz")


def int_constant(value: int) -> ir.Constant:
    """An index of Numba's intp type."""
    return ir.Constant(INTP, value)


class Vec(Operators):
    """A vector of LLVM with Python's operators; numbers on the other side are spread over all lanes."""


class VectorMath:
    """Elementwise functions over `Vec`: the namespace ``m`` of the formulas.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the instructions go.
    element : llvmlite.ir.FloatType or DoubleType
        Type of a lane.
    lanes : int, optional
        Number of lanes; by default as many as fill a register.
    """

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, lanes: int | None = None) -> None:
        self.builder, self.element, self.flags = builder, element, FUSE
        self.double = isinstance(element, ir.DoubleType)
        self.bits = 64 if self.double else 32
        self.lanes = lanes or vector_bits() // self.bits
        self.type = ir.VectorType(element, self.lanes)
        self.int_type = ir.VectorType(ir.IntType(self.bits), self.lanes)

    def constant(self, number: float) -> ir.Constant:
        """A number in all lanes."""
        return ir.Constant(self.type, [float(number)] * self.lanes)

    def value(self, x: object) -> ir.Value:
        """The LLVM value of a `Vec`, or of a number spread over all lanes."""
        return x.value if isinstance(x, Vec) else self.constant(x)  # type: ignore[arg-type]

    def spread(self, scalar: ir.Value) -> ir.Value:
        """A scalar in all lanes."""
        one = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), scalar, ir.Constant(INT32, 0))
        mask = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), mask)

    def intrinsic(self, name: str, arguments: int, result: ir.Type | None = None) -> ir.Function:
        """LLVM's own function of that name over whole vectors."""
        kind = ir.FunctionType(result or self.type, [self.type] * arguments)
        full = f"llvm.{name}.v{self.lanes}f{self.bits}"
        return cgutils.get_or_insert_function(self.builder.module, kind, full)

    def call(self, name: str, *arguments: object) -> Vec:
        """Call LLVM's own function of that name."""
        function = self.intrinsic(name, len(arguments))
        return Vec(self, self.builder.call(function, [self.value(x) for x in arguments]))

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """A b + c in one instruction, on LLVM values."""
        return self.builder.call(self.intrinsic("fma", 3), [a, b, c])

    def where(self, mask: ir.Value, a: object, b: object) -> Vec:
        """A where the mask is set, b elsewhere."""
        return Vec(self, self.builder.select(mask, self.value(a), self.value(b)))

    def maximum(self, a: Vec, b: object) -> Vec:
        """The larger of two; NaN where a is.

        LLVM's own function: of a choice between a number and the vector that lies where the result goes, LLVM makes a
        masked store, which took ten cycles on AMD's Zen 3.
        """
        function = self.intrinsic("maximum", 2)
        return Vec(self, self.builder.call(function, [self.value(a), self.value(b)], fastmath=("nsz",)))

    def sqrt(self, x: Vec) -> Vec:
        """Square root."""
        return self.call("sqrt", x)

    def _ints(self, number: int) -> ir.Constant:
        return ir.Constant(self.int_type, [number] * self.lanes)

    def _split_exponent(self, x: Vec) -> tuple[Vec, ir.Value]:
        """R and n with x = n ln 2 + r, |r| ≤ ½ ln 2.

        Adding 1½ · 2^mantissa leaves n = round(x / ln 2) in the low bits of the sum. ln 2 is subtracted in two parts,
        the first short enough for n times it to be exact (Cody & Waite).
        """
        mantissa = 52 if self.double else 23
        magic = 1.5 * 2.0**mantissa
        shifted = x * float(1 / _LN2) + magic
        n = shifted - magic
        high = _round_to_bits(float(_LN2), mantissa - 12)
        r = x - n * high - n * float(_LN2 - Decimal(high))
        bits = self.builder.bitcast(shifted.value, self.int_type)
        start = self.builder.bitcast(self.constant(magic), self.int_type)
        return r, self.builder.sub(bits, start)

    def _power_of_two(self, n: ir.Value) -> Vec:
        """2ⁿ as a number, for n from -126 to 127 (float32) or -1022 to 1023 (float64)."""
        mantissa, bias = (52, 1023) if self.double else (23, 127)
        bits = self.builder.shl(self.builder.add(n, self._ints(bias)), self._ints(mantissa))
        return Vec(self, self.builder.bitcast(bits, self.type))

    def _expm1_polynomial(self, r: Vec) -> Vec:
        """e^r - 1 for |r| ≤ ½ ln 2: Taylor's series up to the term below half an ulp."""
        degree = 13 if self.double else 7
        return self._polynomial(r, [1 / factorial(k) for k in range(1, degree + 1)]) * r

    def _polynomial(self, x: Vec, coefficients: Sequence[float]) -> Vec:
        """Σ cₖ xᵏ, neighbours put together first (Estrin): fewer steps wait for one another than term after term.

        The first term comes last, so that what the powers are off by counts for little where the others are small.
        """
        first, *rest = coefficients
        terms, power = [Vec(self, self.constant(c)) for c in rest], x
        while len(terms) > 1:
            pairs = [high * power + low for low, high in zip(terms[::2], terms[1::2], strict=False)]
            terms, power = pairs + terms[2 * len(pairs) :], power * power
        return terms[0] * x + first

    def exp(self, x: Vec) -> Vec:
        """e^x: e^r 2ⁿ, the power in two steps so that neither overflows before the product does."""
        low, high = (-746.0, 710.0) if self.double else (-104.0, 89.0)
        inside = self.where(x < low, low, self.where(x > high, high, x))
        r, n = self._split_exponent(inside)
        p = self._expm1_polynomial(r) + 1
        b = self.builder
        # n >> 1 rounding down: AVX2 has no arithmetic shift of 64-bit lanes, so shift a positive number.
        half = b.sub(b.lshr(b.add(n, self._ints(2048)), self._ints(1)), self._ints(1024))
        return p * self._power_of_two(half) * self._power_of_two(b.sub(n, half))

    def tanh(self, x: Vec) -> Vec:
        """Hyperbolic tangent: -t / (2 + t) with t = e^(-2|x|) - 1, which loses nothing near zero."""
        top = 22.0 if self.double else 10.0
        a = abs(x)
        r, n = self._split_exponent(-2 * self.where(a > top, top, a))
        s = self._power_of_two(n)
        t = s * self._expm1_polynomial(r) + (s - 1)
        magnitude = -t / (2 + t)
        return self.where(x < 0, -magnitude, magnitude)

    def log1p(self, x: Vec) -> Vec:
        """ln(1 + x) for 0 ≤ x ≤ 1, all that the losses need: 2 artanh(s), s = x / (2 + x) ≤ ⅓, by its series."""
        s = x / (2 + x)
        square = s * s
        terms = 17 if self.double else 8
        return 2 * s * self._polynomial(square, [1 / (2 * k + 1) for k in range(terms)])

    def sum(self, x: ir.Value) -> ir.Value:
        """The sum of all lanes, a scalar."""
        kind = ir.FunctionType(self.element, [self.element, self.type])
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f{self.bits}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [ir.Constant(self.element, -0.0), x], fastmath=SUM)

    def largest(self, x: ir.Value) -> ir.Value:
        """The largest lane, a scalar."""
        kind = ir.FunctionType(self.element, [self.type])
        name = f"llvm.vector.reduce.fmax.v{self.lanes}f{self.bits}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [x])

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask that is set in the lanes below ``count`` (an intp)."""
        indices, limit = self._indices_and(count)
        return self.builder.icmp_signed("<", indices, limit)

    def lane(self, number: ir.Value) -> ir.Value:
        """A mask that is set in lane ``number`` (an intp), and nowhere if there is none."""
        return self.builder.icmp_signed("==", *self._indices_and(number))

    def all_bits(self, truth: ir.Value) -> ir.Value:
        """All bits of all lanes set where ``truth`` (one bit) is, none elsewhere; as integers."""
        bits, undefined = self.builder.sext(truth, self.int_type.element), ir.Constant(self.int_type, ir.Undefined)
        one = self.builder.insert_element(undefined, bits, ir.Constant(INT32, 0))
        mask = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, mask)

    def _indices_and(self, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The number of each lane, and in all lanes the given one, as 32-bit integers."""
        b, indices = self.builder, ir.Constant(ir.VectorType(INT32, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(indices.type, ir.Undefined)
        one = b.insert_element(undefined, b.trunc(number, INT32), ir.Constant(INT32, 0))
        return indices, b.shuffle_vector(one, undefined, ir.Constant(indices.type, [0] * self.lanes))

    def load(self, pointer: ir.Value, offset: ir.Value, aligned: bool = True) -> ir.Value:
        """A vector from an offset in elements."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        vector = self.builder.load(place)
        vector.align = self.lanes * self.bits // 8 if aligned else self.bits // 8
        return vector

    def store(self, vector: ir.Value, pointer: ir.Value, offset: ir.Value, aligned: bool = True) -> None:
        """A vector to an offset in elements."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        instruction = self.builder.store(vector, place)
        instruction.align = self.lanes * self.bits // 8 if aligned else self.bits // 8

    def store_first(self, vector: ir.Value, pointer: ir.Value, offset: ir.Value, mask: ir.Value) -> None:
        """The lanes of a mask, unaligned; the memory of the others is not touched."""
        place = self.builder.bitcast(self.builder.gep(pointer, [offset]), self.type.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [self.type, place.type, INT32, ir.VectorType(ir.IntType(1), self.lanes)])
        name = f"llvm.masked.store.v{self.lanes}f{self.bits}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        self.builder.call(function, [vector, place, ir.Constant(INT32, self.bits // 8), mask])


with localcontext() as _context:
    _context.prec = 50
    _LN2 = Decimal(2).ln()


def _round_to_bits(x: float, bits: int) -> float:
    """X with its mantissa cut to so many bits."""
    unit = ulp(x) * 2.0 ** (52 - bits)
    return x // unit * unit


def fold(m: VectorMath, vectors: list[ir.Value]) -> ir.Value:
    """The sums of n vectors (n a power of two, at most the lanes) as one vector of n lanes.

    Each step puts the halves of two vectors side by side and adds: n vectors become n/2, each lane now the sum of
    two, until one is left, with n segments, which is then halved n-wise. A sum of all by about 2n instructions.
    """
    b, lanes, n = m.builder, m.lanes, len(vectors)

    def pick(u: ir.Value, v: ir.Value, mask: list[int]) -> ir.Value:
        return b.shuffle_vector(u, v, ir.Constant(ir.VectorType(INT32, len(mask)), mask))

    segment = lanes
    while len(vectors) > 1:
        half, middle = segment // 2, len(vectors) // 2
        low = [v * lanes + s + i for s in range(0, lanes, segment) for v in (0, 1) for i in range(half)]
        high = [i + half for i in low]
        pairs = zip(vectors[:middle], vectors[middle:], strict=True)
        vectors = [b.fadd(pick(u, v, low), pick(u, v, high), flags=SUM) for u, v in pairs]
        segment = half
    (vector,) = vectors
    while segment > 1:
        half = segment // 2
        low = [s + i for s in range(0, n * segment, segment) for i in range(half)]
        vector = b.fadd(pick(vector, vector, low), pick(vector, vector, [i + half for i in low]), flags=SUM)
        segment = half
    return vector


def pointer(context, builder: ir.IRBuilder, kind, array: ir.Value) -> ir.Value:
    """The address of a Numba array's first element."""
    return make_array(kind)(context, builder, array).data


def loop(
    builder: ir.IRBuilder,
    start: ir.Value,
    stop: ir.Value,
    step: int,
    initial: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """A counted loop whose accumulators stay in registers.

    ``body(k, accumulators)`` writes one turn and returns the new accumulators; the result is the last ones.
    """
    before = builder.block
    head, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", start, stop), head, after)
    builder.position_at_end(head)
    k = builder.phi(start.type)
    accumulators = [builder.phi(x.type) for x in initial]
    new = list(body(k, list(accumulators)))
    end, following = builder.block, builder.add(k, ir.Constant(start.type, step))
    k.add_incoming(start, before)
    k.add_incoming(following, end)
    for phi, first, later in zip(accumulators, initial, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
    builder.cbranch(builder.icmp_signed("<", following, stop), head, after)
    builder.position_at_end(after)
    results = []
    for first, later in zip(initial, new, strict=True):
        phi = builder.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
        results.append(phi)
    return results


def loop_while(
    builder: ir.IRBuilder,
    initial: Sequence[ir.Value],
    condition: Callable[[list[ir.Value]], ir.Value],
    body: Callable[[list[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """Repeat ``body`` on values in registers while ``condition`` of them holds; returns the last values.

    LLVM can't foresee how often, and so leaves the loop as it is: for a few turns, the pieces that it makes of a
    counted loop (eight turns at once, then the rest one by one) are mispredicted more often than they save.
    """
    before = builder.block
    head, turn = builder.append_basic_block("while"), builder.append_basic_block("turn")
    after = builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    values = [builder.phi(x.type) for x in initial]
    builder.cbranch(condition(list(values)), turn, after)
    builder.position_at_end(turn)
    new = list(body(list(values)))
    for phi, first, later in zip(values, initial, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return list(values)


def cases(builder: ir.IRBuilder, code: ir.Value, bodies: Sequence[Callable[[], None]]) -> None:
    """Run the body at position ``code``: how compiled code chooses a formula, once for many values."""
    after = builder.append_basic_block("chosen")
    switch = builder.switch(code, after)
    for position, body in enumerate(bodies):
        block = builder.append_basic_block(f"case{position}")
        switch.add_case(ir.Constant(code.type, position), block)
        builder.position_at_end(block)
        body()
        builder.branch(after)
    builder.position_at_end(after)
