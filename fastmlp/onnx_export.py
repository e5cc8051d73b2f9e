"""Networks as ONNX models, through the package onnx."""

import os
from typing import Any

import numpy as np

from fastmlp import extras
from fastmlp._version import __version__
from fastmlp.atomic import write_atomically
from fastmlp.kernels import Network
from fastmlp.kernels.activations import LEAKY_RELU_SLOPE, SOFTMAX
from fastmlp.modelfile import named_views

__all__ = ["model", "write"]

#: Version of the operators and of the file's format: old enough for every runtime of the last years to read.
OPSET, IR_VERSION = 17, 8

#: name of an activation -> ONNX's operator and its attributes
OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("Sigmoid", {}),
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_RELU_SLOPE}),
    "tanh": ("Tanh", {}),
    SOFTMAX: ("Softmax", {"axis": 1}),
}


def write(network: Network, parameters: np.ndarray, path: str | os.PathLike) -> None:
    """Write an ONNX model, whole or not at all.

    Parameters
    ----------
    network : Network
    parameters : ndarray, [network.size]
    path : path-like
        An existing file is replaced.

    Raises
    ------
    fastmlp.extras.ExtraMissing
        If the package onnx is not installed.
    OSError
        If it can't be written there.
    """
    write_atomically(path, model(network, parameters).SerializeToString(deterministic=True))


def model(network: Network, parameters: np.ndarray) -> Any:
    """The network as an onnx.ModelProto, checked by onnx; input ``X`` [n, n_in], output ``outputs`` [n, n_out]."""
    onnx = extras.load("onnx", "onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    views = named_views(network, parameters)
    constants = {name: np.ascontiguousarray(view) for name, view in views.items()}
    nodes = []

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    at = "X"
    for operator, name, value, neutral in (
        ("Mul", "input_scale", network.input_scale, 1.0),
        ("Add", "input_shift", network.input_shift, 0.0),
    ):
        if value != neutral:
            constants[name] = np.array(value, network.dtype)
            at = add(operator, [at, name], f"{name}.X")
    for layer, activation in enumerate(network.activations):
        at = add("Gemm", [at, *(name for name in views if name.startswith(f"layers.{layer}."))], f"z.{layer}", transB=1)
        if activation == "leaky_relu" and network.dtype == "float64":
            # Runtimes have LeakyRelu for float32 alone; its slope is below 1, so the larger of the two is the same.
            constants["leaky_relu.slope"] = np.array(LEAKY_RELU_SLOPE, network.dtype)
            at = add("Max", [at, add("Mul", [at, "leaky_relu.slope"], f"sloped.{layer}")], f"a.{layer}")
        elif activation != "identity":
            operator, attributes = OPERATORS[activation]
            at = add(operator, [at], f"a.{layer}", **attributes)
    add("Identity", [at], "outputs")

    element = helper.np_dtype_to_tensor_dtype(np.dtype(network.dtype))
    graph = helper.make_graph(
        nodes,
        "fastmlp",
        [helper.make_tensor_value_info("X", element, ["n", network.sizes[0]])],
        [helper.make_tensor_value_info("outputs", element, ["n", network.sizes[-1]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(
        graph,
        producer_name="fastmlp",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(made, full_check=True)
    return made
