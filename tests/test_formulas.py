"""The formulas of activations, losses and updates, called with NumPy, against PyTorch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import DTYPES, OUTPUT_LOSSES, RULES, assert_close, copied
from torch_twin import ACTIVATIONS as TORCH_ACTIVATIONS
from torch_twin import optimizer

from fastmlp.kernels import Rule, State
from fastmlp.kernels.activations import ACTIVATIONS, LEAKY_RELU_SLOPE
from fastmlp.kernels.losses import CROSS_ENTROPY, LOSSES
from fastmlp.kernels.network import aligned_zeros
from fastmlp.kernels.reference import activate, update_weights
from fastmlp.kernels.updates import UPDATES

#: Small and large, on both sides of every kink, and beyond where e^z ends in float32 and in float64.
MAGNITUDES = np.concatenate([[0.0, 1e-300, 1e-30, 1e-8, 1e-3], np.linspace(0.01, 6, 60), [20, 36, 88, 104, 709, 1e4]])
Z = np.unique(np.concatenate([-MAGNITUDES, MAGNITUDES, np.random.default_rng(1).normal(0, 3, 200)]))

RULE_NAMES = [rule.kind for rule in RULES]


def value_tolerance(value, dtype):
    """A few ulps (exp and its neighbours to 1 ulp each, on both sides), and nothing below the normal range."""
    return 8 * np.finfo(dtype).eps * abs(value) + 4 * np.finfo(dtype).tiny


def test_every_activation_has_its_twin():
    assert set(TORCH_ACTIVATIONS) == set(ACTIVATIONS), "enter PyTorch's function for it in tests/torch_twin.py"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_slope_are_pytorchs(name, dtype):
    z = Z.astype(dtype)
    value, slope = activate(name, z)
    tensor = torch.tensor(z, requires_grad=True)
    expected = TORCH_ACTIVATIONS[name](tensor)
    expected.sum().backward()
    assert value.dtype == slope.dtype == dtype
    expected = expected.detach().numpy()
    assert_close(value, expected, value_tolerance(expected, dtype), f"{name} {dtype} value")
    # a (1 - a) and 1 - a² have a rounding of 1 in them where a is nearly 1.
    assert_close(slope, tensor.grad.numpy(), 4 * np.finfo(dtype).eps, f"{name} {dtype} slope")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative(name):
    """By central differences, away from kinks; h² and eps/h are both about 1e-10."""
    z, h = Z[(abs(Z) > 1e-2) & (abs(Z) < 50)], 1e-5
    (low, _), (high, _), (_, slope) = (ACTIVATIONS[name](x, np) for x in (z - h, z + h, z))
    assert_close(slope, (high - low) / (2 * h), 1e-9 * np.maximum(1, abs(z)), name)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_formula_takes_infinity_and_passes_nan_on(name):
    z = np.array([-np.inf, np.inf, np.nan])
    with np.errstate(over="ignore", invalid="ignore"):
        value, _ = ACTIVATIONS[name](z, np)
    expected = TORCH_ACTIVATIONS[name](torch.tensor(z)).numpy()
    np.testing.assert_array_equal(value, expected)


def test_leaky_relu_has_pytorchs_slope():
    assert F.leaky_relu(torch.tensor(-1.0, dtype=torch.float64)).item() == -LEAKY_RELU_SLOPE == -0.01


TORCH_LOSSES = {
    "binary_cross_entropy": lambda z, a, y: F.binary_cross_entropy_with_logits(z, y, reduction="none"),
    "mean_squared_error": lambda z, a, y: F.mse_loss(a, y, reduction="none") / 2,
}


@pytest.mark.parametrize(("output", "loss"), [pair for pair in OUTPUT_LOSSES if pair[1] != CROSS_ENTROPY])
def test_loss_and_delta_are_pytorchs(output, loss):
    eps = np.finfo(np.float64).eps
    z = np.concatenate([Z[abs(Z) < 800]] * 4)
    rng = np.random.default_rng(2)
    y = rng.uniform(0, 1, len(z))
    y[::3], y[1::7] = 0, 1
    a, slope = activate(output, z)
    value_formula, delta_formula = LOSSES[loss]
    value, delta = value_formula(z, a, y, np), delta_formula(a, slope, y, np)
    tensor = torch.tensor(z, requires_grad=True)
    expected = TORCH_LOSSES[loss](tensor, TORCH_ACTIVATIONS[output](tensor), torch.tensor(y))
    expected.sum().backward()
    expected, size = expected.detach().numpy(), np.maximum(1, abs(z))
    # Both are differences of numbers of the size of z and y, or squares of such differences.
    scale = size if loss == "binary_cross_entropy" else size**2
    assert_close(value, expected, 8 * eps * scale, f"{loss} after {output}")
    assert_close(delta, tensor.grad.numpy(), 8 * eps * size, f"delta of {loss} after {output}")


def test_binary_cross_entropy_is_its_definition():
    """-Σ y ln a + (1 - y) ln(1 - a), by other means than the form that does not overflow."""
    z, y = np.linspace(-5, 5, 41), np.linspace(0, 1, 41)
    a = 1 / (1 + np.exp(-z))
    value = LOSSES["binary_cross_entropy"][0](z, a, y, np)
    # 1 - a has a rounding of 1 in it, and is e^-5 at least.
    assert_close(value, -(y * np.log(a) + (1 - y) * np.log1p(-a)), 4 * np.finfo(float).eps * np.exp(5), "definition")


def test_mean_squared_error_is_half_the_square():
    a, y = np.array([3.0, -1.0, 0.5]), np.array([1.0, 1.0, 0.5])
    np.testing.assert_array_equal(LOSSES["mean_squared_error"][0](None, a, y, np), [2.0, 2.0, 0.0])
    np.testing.assert_array_equal(
        LOSSES["mean_squared_error"][1](a, np.array([1.0, 3.0, 1.0]), y, np), [2.0, -6.0, 0.0]
    )


def test_every_rule_is_tried():
    assert set(RULE_NAMES) == set(UPDATES), "enter the new rule in tests/problems.py"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rule",
    [*RULES, Rule("momentum", 0.1, momentum=0.0), Rule("adam", 1e-3)],
    ids=lambda rule: f"{rule.kind}-{rule.momentum}",
)
def test_rule_takes_twenty_steps_as_torch_optim_does(rule, dtype):
    """The gradients are given, so that only the rule's own rounding adds up: a few eps of the largest number a step."""
    rng = np.random.default_rng(3)
    w = copied(rng.normal(0, 1, 50).astype(dtype))
    tensor = torch.tensor(w, requires_grad=True)
    twin = optimizer(rule, [tensor])
    state = State(aligned_zeros(rule.slots * 50, dtype), np.zeros(1, np.int64))
    for step in range(20):
        g = copied(rng.normal(0, 1, 50).astype(dtype))
        update_weights(rule, w, g, state)
        tensor.grad = torch.tensor(g)
        twin.step()
        # A step is η times a velocity of at most 1 / (1 - μ) gradients of about 3, or about η with Adam.
        largest = max(1, abs(w).max(), rule.learning_rate * 3 / (1 - rule.momentum))
        assert_close(
            w, tensor.detach().numpy(), 4 * (step + 1) * np.finfo(dtype).eps * largest, f"{rule} step {step + 1}"
        )
    assert state.step[0] == 20
