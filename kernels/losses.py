"""Losses: each formula once, for every backend.

The loss of a batch is the mean over its samples of the sum over the output units. With a sum over the units (and not
a mean) the gradient at the output is δ = ∂loss/∂z = A - Y, divided by the number of samples, for each matched pair of
output and loss: sigmoid with binary cross-entropy, softmax with cross-entropy, identity with half the squared error.

An elementwise loss has two formulas over a namespace ``m`` as in `fastmlp.kernels.activations`: its value from the
pre-activation z, the output a and the target y, and its delta from a, the slope dσ/dz and y. Cross-entropy runs over
whole rows and is written out by each backend: value Σ y (ln Σ e^z - z), delta a - y with a = softmax(z).

To add an elementwise loss, write its two formulas here, enter it in `LOSSES` and say in `OUTPUTS` which output
activations it goes with.
"""

from fastmlp.kernels.activations import ACTIVATIONS, SOFTMAX
from fastmlp.kernels.names import check_name


def binary_cross_entropy(z, a, y, m):
    """-Σ y ln a + (1 - y) ln(1 - a) with a = sigmoid(z), in the form that does not overflow.

    Source: max(z, 0) - z y + ln(1 + e^-|z|), as in TensorFlow's sigmoid_cross_entropy_with_logits.
    """
    return m.maximum(z, 0) - z * y + m.log1p(m.exp(-abs(z)))


def binary_cross_entropy_delta(a, slope, y, m):
    """A - y: the slope of the sigmoid cancels against the denominator a (1 - a)."""
    return a - y


def mean_squared_error(z, a, y, m):
    """½ (a - y)²: half, so that its derivative with respect to a is a - y."""
    return 0.5 * (a - y) * (a - y)


def mean_squared_error_delta(a, slope, y, m):
    """(a - y) dσ/dz."""
    return (a - y) * slope


CROSS_ENTROPY = "cross_entropy"

#: name -> (value, delta) of the elementwise losses
LOSSES = {
    "binary_cross_entropy": (binary_cross_entropy, binary_cross_entropy_delta),
    "mean_squared_error": (mean_squared_error, mean_squared_error_delta),
}

#: name -> the output activations that it may follow; the first is the default
OUTPUTS = {
    "binary_cross_entropy": ("sigmoid",),
    "mean_squared_error": ("identity", *(name for name in ACTIVATIONS if name != "identity")),
    CROSS_ENTROPY: (SOFTMAX,),
}

#: output -> the loss that it is matched with, δ = A - Y; an output matched with none has the squared error
MATCHED = {outputs[0]: loss for loss, outputs in OUTPUTS.items()}

#: Position of each name: the integer by which compiled code knows it.
CODES = {name: code for code, name in enumerate([*LOSSES, CROSS_ENTROPY])}


def output_and_loss(output: str | None, loss: str | None) -> tuple[str, str]:
    """Output and loss, each following from the other where it is None; the lab's where both are.

    Raises
    ------
    TypeError, ValueError
        If one of them is no known name.
    """
    if output is not None:
        check_name("output", output, [*ACTIVATIONS, SOFTMAX])
    if loss is not None:
        check_name("loss", loss, OUTPUTS)
    if output is None:
        loss = loss or "binary_cross_entropy"
        return OUTPUTS[loss][0], loss
    return output, loss or MATCHED.get(output, "mean_squared_error")
