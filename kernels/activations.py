"""Activations: each formula once, for every backend.

A formula takes the pre-activation ``z`` and a namespace ``m`` of elementwise functions (``exp``, ``tanh``,
``maximum``, ``where``, ...), and returns the value and the slope: a = σ(z) and dσ/dz. With NumPy as ``m`` it is the
oracle's; with `fastmlp.kernels.cpu.vectors.VectorMath` it writes the LLVM vector instructions of the CPU's kernels.
Both are returned together because they share their costly part, and because a backend that keeps the slope needs to
know nothing about the activation on the way back.

To add an activation, write its formula here and enter it in `ACTIVATIONS`: every backend, check and test finds it
there.
"""

LEAKY_RELU_SLOPE = 0.01  #: slope of leaky ReLU below zero, PyTorch's default


def sigmoid(z, m):
    """Logistic sigmoid, 1 / (1 + e^-z); slope a (1 - a)."""
    a = 1 / (1 + m.exp(-z))
    return a, a * (1 - a)


def relu(z, m):
    """Rectified linear unit, max(z, 0); slope 1 above zero and 0 elsewhere."""
    return m.maximum(z, 0), m.where(z > 0, 1, 0)


def leaky_relu(z, m):
    """Leaky ReLU, z above zero and 0.01 z elsewhere."""
    slope = m.where(z > 0, 1, LEAKY_RELU_SLOPE)
    return z * slope, slope


def tanh(z, m):
    """Hyperbolic tangent; slope 1 - a²."""
    a = m.tanh(z)
    return a, 1 - a * a


def identity(z, m):
    """The pre-activation itself; slope 1."""
    return z, m.where(z > 0, 1, 1)


ACTIVATIONS = {
    "sigmoid": sigmoid,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "identity": identity,
}

#: The output that goes with cross-entropy. It is no elementwise function, so it has no formula above: a backend
#: leaves the logits as they are and normalises them where it computes the loss.
SOFTMAX = "softmax"

#: Position of each name: the integer by which compiled code knows it.
CODES = {name: code for code, name in enumerate([*ACTIVATIONS, SOFTMAX])}
