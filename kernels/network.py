"""The description of a network, and where its parameters lie in memory.

All parameters are in one flat array on 64-byte boundaries. A unit is a row: its bias, then its incoming weights, then
padding. The weights start on a boundary; the bias stands just before it, in a block of padding of its own:

    | 0 … 0 bias | w₀ w₁ … wₙ 0 … 0 | 0 … 0 bias | w₀ …
    ^ block      ^ boundary         ^ next row's block

So bias and weights of a layer are one strided view [units, inputs + 1] with the bias in column 0 (the lab's
``weights``), and PyTorch's ``weight`` and ``bias`` are views of the same memory. A row of samples has the same shape
with a 1 in the bias' place: the product of two rows includes the bias with no special case. Padding is zero, and
stays so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastmlp.kernels.activations import ACTIVATIONS, CODES, SOFTMAX
from fastmlp.kernels.losses import CODES as LOSS_CODES
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.names import check_name, unknown_name
from fastmlp.kernels.updates import Rule, State

ALIGNMENT = 64  #: bytes; a cache line, and the widest vector register
DTYPES = ("float32", "float64")

#: Columns of `Network.table`, a row for each layer of weights.
N_IN, N_OUT, OFFSET, STRIDE, ACTIVATION = range(5)


def aligned_zeros(size: int, dtype: np.dtype | str) -> np.ndarray:
    """A flat array of zeros that starts on a 64-byte boundary (NumPy promises 16)."""
    dtype = np.dtype(dtype)
    buffer = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size * dtype.itemsize].view(dtype)


def row_stride(units: int, dtype: np.dtype | str) -> int:
    """Elements from one row of ``units`` values to the next: a block for the bias, then whole blocks of values.

    Rows a multiple of 2 KiB apart would share few sets of the first-level cache, so such a stride gets a block more.
    """
    itemsize = np.dtype(dtype).itemsize
    block = ALIGNMENT // itemsize
    stride = block + -(-units // block) * block
    return stride + block if stride * itemsize % 2048 == 0 else stride


def check_sizes(argument: str, sizes: Sequence[int], softmax: bool) -> None:
    """Refuse what are no sizes of layers; ``argument`` is the name that the user knows them by.

    Raises
    ------
    TypeError, ValueError
        If they are not two positive whole numbers or more; or if there is one output, and that a softmax.
    """
    given = f"{argument}={list(sizes)}"
    if len(sizes) < 2:
        raise ValueError(f"{given} has {len(sizes)} entries; expected inputs and outputs at least")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"{given} holds {size!r}; expected whole numbers")
        if size < 1:
            raise ValueError(f"{given} holds {size}; expected positive numbers")
    if softmax and sizes[-1] == 1:
        raise ValueError(
            f"{given} end in 1; loss='cross_entropy' expects 2 outputs or more, as softmax over "
            "one unit is always 1 (one output goes with loss='binary_cross_entropy')"
        )


def check_holds(name: str, value: float, dtype: str, zero: bool = True) -> None:
    """Refuse a finite number that a dtype turns into infinity or, unless ``zero`` is False, into zero.

    Raises
    ------
    ValueError
        Naming it.
    """
    with np.errstate(all="ignore"):
        held = np.dtype(dtype).type(value)
    if not np.isfinite(held) or (zero and value and not held):
        kind = np.finfo(dtype)
        raise ValueError(
            f"{name}={value:g} is {held} in {dtype}; expected a magnitude within {kind.smallest_subnormal:.3g} to "
            f"{kind.max:.3g}, or dtype='float64'"
        )


@dataclass(frozen=True)
class Network:
    """What a multilayer perceptron computes, and the layout of its parameters.

    Parameters
    ----------
    sizes : tuple of int
        Inputs, units of each hidden layer, outputs; at least two.
    activations : tuple of str
        One for each layer of weights; the last is the output's.
    loss : str
        "binary_cross_entropy", "mean_squared_error" or "cross_entropy" (`fastmlp.kernels.losses`).
    bias : bool, default True
        Whether units have a bias.
    dtype : str, default "float32"
        Of parameters and arithmetic: "float32" or "float64".
    input_scale, input_shift : float, defaults 1.0 and 0.0
        A sample x enters as x * input_scale + input_shift. Pixels can so stay uint8.
    l2 : float, default 0.0
        λ of the penalty λ/(2B) Σ w² over all weights, biases spared, for a batch of B samples, or of samples whose own
        weights sum to B (Cassani's ``reg_lambda``, scikit-learn's ``alpha``). It adds λ/B w to the gradient, and
        nothing to the reported loss.

    Raises
    ------
    TypeError, ValueError
        If a part is not as described, or the output activation does not go with the loss.
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    bias: bool = True
    dtype: str = "float32"
    input_scale: float = 1.0
    input_shift: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("sizes", self.sizes, self.activations[-1:] == (SOFTMAX,))
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        check_name("loss", self.loss, OUTPUTS)
        if str(self.dtype) not in DTYPES:
            raise unknown_name("dtype", str(self.dtype), DTYPES)
        if len(self.activations) != self.layers:
            raise ValueError(
                f"activations={self.activations} has {len(self.activations)} entries; expected {self.layers}"
            )
        for name in self.activations[:-1]:
            check_name("activation", name, ACTIVATIONS)
        output = self.activations[-1]
        check_name("output", output, CODES)
        if output not in OUTPUTS[self.loss]:
            raise ValueError(
                f"output={output!r} does not go with loss={self.loss!r}; expected {' or '.join(OUTPUTS[self.loss])}"
            )
        for name in ("input_scale", "input_shift"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is not finite")
        if not (np.isfinite(self.l2) and self.l2 >= 0):
            raise ValueError(f"l2={self.l2}; expected a finite number, 0 or more")
        for name in ("input_scale", "input_shift", "l2"):
            check_holds(name, getattr(self, name), self.dtype, zero=name == "input_scale")

    @classmethod
    def build(
        cls,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        output: str | None = None,
        loss: str = "cross_entropy",
        **options,
    ) -> "Network":
        """A network from one hidden activation (or one for each hidden layer) and, by default, the loss' own output.

        Parameters
        ----------
        sizes, loss
            As for the class.
        activation : str or sequence of str, default "relu"
            Of the hidden layers.
        output : str, optional
            Of the output; by default the one that the loss is matched with: softmax for cross-entropy, sigmoid for
            binary cross-entropy, identity for the squared error.
        **options
            ``bias``, ``dtype``, ``input_scale``, ``input_shift``, ``l2`` as for the class.
        """
        check_name("loss", loss, OUTPUTS)
        hidden = max(len(sizes) - 2, 0)
        if isinstance(activation, str):
            check_name("activation", activation, ACTIVATIONS)
            names = [activation] * hidden
        else:
            try:
                names = list(activation)
            except Exception:  # no sequence: whatever an object's own iteration raises
                check_name("activation", activation, ACTIVATIONS)
            if len(names) != hidden:
                raise ValueError(
                    f"activation={names} has {len(names)} entries; expected one for each of {hidden} hidden layers"
                )
        return cls(tuple(sizes), (*names, output or OUTPUTS[loss][0]), loss, **options)

    @property
    def layers(self) -> int:
        """Number of layers of weights."""
        return len(self.sizes) - 1

    @property
    def loss_code(self) -> int:
        """The integer by which compiled code knows the loss."""
        return LOSS_CODES[self.loss]

    @cached_property
    def table(self) -> np.ndarray:
        """Int64 [layers, 5]: inputs, units, offset of the first weight, row stride (both in elements), activation."""
        table = np.zeros((self.layers, 5), np.int64)
        offset = ALIGNMENT // np.dtype(self.dtype).itemsize
        for row, n_in, n_out, activation in zip(table, self.sizes, self.sizes[1:], self.activations, strict=False):
            stride = row_stride(n_in, self.dtype)
            row[:] = n_in, n_out, offset, stride, CODES[activation]
            offset += n_out * stride
        table.setflags(write=False)
        return table

    @cached_property
    def size(self) -> int:
        """Length of the flat array, padding included."""
        last = self.table[-1]
        return int(last[OFFSET] + last[N_OUT] * last[STRIDE])

    @cached_property
    def multiply_adds(self) -> int:
        """Products of one sample's forward pass."""
        return sum(n_in * n_out for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum((n_in + self.bias) * n_out for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False))

    def zeros(self) -> np.ndarray:
        """A flat array for parameters or gradients, all zero."""
        return aligned_zeros(self.size, self.dtype)

    def state(self, rule: Rule) -> State:
        """The state of an update rule before its first step."""
        return State(aligned_zeros(rule.slots * self.size, self.dtype), np.zeros(1, np.int64))

    def rows(self, flat: np.ndarray) -> list[np.ndarray]:
        """Views of a flat array as one [n_out, n_in + 1] array a layer, bias in column 0; [n_out, n_in] without bias.

        Writing to a view writes to ``flat``.
        """
        views = []
        for n_in, n_out, offset, stride, _ in self.table.tolist():
            start = offset - 1 if self.bias else offset
            block = flat[start : start + (n_out - 1) * stride + n_in + self.bias]
            shape, steps = (n_out, n_in + self.bias), (stride * flat.itemsize, flat.itemsize)
            views.append(np.lib.stride_tricks.as_strided(block, shape, steps))
        return views
