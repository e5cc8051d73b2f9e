"""The description of a network, the layout of its parameters, and the names that find a backend."""

import dataclasses

import numpy as np
import pytest
from problems import DTYPES, SHAPES, padding

from fastmlp import kernels
from fastmlp.kernels import Network, Rule
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.network import ALIGNMENT, N_IN, N_OUT, OFFSET, STRIDE, aligned_zeros, row_stride

CHOICES = [(sizes, dtype, bias) for sizes in [*SHAPES, (784, 100, 10)] for dtype in DTYPES for bias in (True, False)]


def some(sizes=(3, 4, 2), **options):
    return Network.build(sizes, **{"loss": "mean_squared_error", **options})


# ------------------------------------------------------------------------------------------------------ layout
@pytest.mark.parametrize(("sizes", "dtype", "bias"), CHOICES)
def test_rows_are_disjoint_views_that_leave_the_padding_alone(sizes, dtype, bias):
    network = some(sizes, dtype=dtype, bias=bias)
    flat = network.zeros()
    assert flat.dtype == dtype
    assert flat.shape == (network.size,)
    count = 0
    for rows, n_in, n_out in zip(network.rows(flat), sizes, sizes[1:], strict=False):
        assert rows.shape == (n_out, n_in + bias)
        assert np.shares_memory(rows, flat)
        assert (rows == 0).all(), "rows of two layers overlap"
        rows[:] = np.arange(count + 1, count + rows.size + 1).reshape(rows.shape)
        count += rows.size
    # Every number written is there once, so no two rows overlap, and the rest is padding.
    np.testing.assert_array_equal(np.sort(flat[flat != 0]), np.arange(1, count + 1))
    assert network.n_parameters == count == network.size - len(padding(network, flat))


@pytest.mark.parametrize(("sizes", "dtype", "bias"), CHOICES)
def test_weights_start_on_a_boundary_and_the_bias_just_before(sizes, dtype, bias):
    network = some(sizes, dtype=dtype, bias=bias)
    flat = network.zeros()
    itemsize = flat.itemsize
    assert flat.ctypes.data % ALIGNMENT == 0
    for rows, row in zip(network.rows(flat), network.table, strict=True):
        for j in range(len(rows)):
            first_weight = rows[j, bias:].ctypes.data
            assert first_weight % ALIGNMENT == 0
            assert (first_weight - flat.ctypes.data) // itemsize == row[OFFSET] + j * row[STRIDE]
            if bias:
                assert rows[j, :1].ctypes.data == first_weight - itemsize
        # The block of the bias and the weights' last vector hold nothing of another row.
        assert row[STRIDE] * itemsize >= ALIGNMENT + -(-row[N_IN] * itemsize // ALIGNMENT) * ALIGNMENT
    last = network.table[-1]
    assert last[OFFSET] + last[N_OUT] * last[STRIDE] == network.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_stride_is_a_multiple_of_2_kib(dtype):
    itemsize = np.dtype(dtype).itemsize
    for units in range(1, 3000):
        stride = row_stride(units, dtype) * itemsize
        assert stride % ALIGNMENT == 0
        assert stride % 2048, units
        assert units * itemsize + ALIGNMENT <= stride < units * itemsize + 4 * ALIGNMENT, units


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorchs_weight_and_bias_are_views_of_the_same_memory(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = some((5, 3, 2), dtype=dtype)
    flat = network.zeros()
    rows = network.rows(flat)[0]
    linear = torch.nn.Linear(5, 3)
    linear.weight = torch.nn.Parameter(torch.from_numpy(rows[:, 1:]))
    linear.bias = torch.nn.Parameter(torch.from_numpy(rows[:, 0]))
    with torch.no_grad():
        linear.weight[2, 4], linear.bias[1] = 7.0, 3.0
    assert rows[2, 5] == 7
    assert rows[1, 0] == 3
    assert sorted(flat[flat != 0]) == [3, 7]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_aligned_zeros(size, dtype):
    for _ in range(5):
        array = aligned_zeros(size, dtype)
        assert array.shape == (size,)
        assert array.dtype == dtype
        assert size == 0 or array.ctypes.data % ALIGNMENT == 0
        assert not array.any()
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_state_has_the_rules_slots():
    network = some()
    for kind, slots in (("plain", 0), ("momentum", 1), ("nesterov", 1), ("adam", 2)):
        state = network.state(Rule(kind))
        assert state.slots.shape == (slots * network.size,)
        assert state.slots.dtype == network.dtype
        assert not state.slots.any()
        assert state.step.tolist() == [0]


# ------------------------------------------------------------------------------------------------- description
def test_build_matches_output_to_loss():
    assert Network.build([3, 4, 5, 2]).activations == ("relu", "relu", "softmax")
    assert Network.build([3, 2], loss="binary_cross_entropy").activations == ("sigmoid",)
    assert Network.build([3, 4, 2], "tanh", loss="mean_squared_error").activations == ("tanh", "identity")
    assert Network.build([3, 4, 5, 2], ["tanh", "sigmoid"]).activations == ("tanh", "sigmoid", "softmax")
    assert Network.build([3, 4, 2], output="relu", loss="mean_squared_error").activations == ("relu", "relu")


def test_sizes_become_plain_integers():
    sizes = Network.build(np.array([3, 4, 2])).sizes
    assert sizes == (3, 4, 2)
    assert all(type(size) is int for size in sizes)


def test_a_network_is_frozen_and_compares_by_value():
    assert some() == some()
    assert hash(some()) == hash(some())
    assert some() != some(l2=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        some().loss = "cross_entropy"
    with pytest.raises(ValueError, match="read-only"):
        some().table[0, 0] = 1


MATCHED = {(output, loss) for loss, outputs in OUTPUTS.items() for output in outputs}
PAIRS = [(output, loss) for output in [*ACTIVATIONS, "softmax"] for loss in OUTPUTS]


def test_the_pairs_that_go_together():
    squared = {(name, "mean_squared_error") for name in ACTIVATIONS}
    assert {("sigmoid", "binary_cross_entropy"), ("softmax", "cross_entropy"), *squared} == MATCHED


@pytest.mark.parametrize(("output", "loss"), [pair for pair in PAIRS if pair not in MATCHED])
def test_an_output_that_does_not_go_with_the_loss_is_refused(output, loss):
    """A - Y is then not the loss' derivative: a relu output with cross-entropy would train, and train wrongly."""
    with pytest.raises(
        ValueError, match=rf"output='{output}' does not go with loss='{loss}'; expected '?{OUTPUTS[loss][0]}"
    ):
        Network.build([3, 4, 2], output=output, loss=loss)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"sizes": [3]}, r"sizes=\[3\] has 1 entries; expected inputs and outputs"),
        (ValueError, {"sizes": []}, r"sizes=\[\] has 0 entries"),
        (ValueError, {"sizes": [3, 0, 2]}, r"sizes=\[3, 0, 2\] holds 0; expected positive"),
        (ValueError, {"sizes": [3, -4, 2]}, r"sizes=\[3, -4, 2\] holds -4; expected positive"),
        (TypeError, {"sizes": [3, 4.0, 2]}, r"holds 4.0; expected whole numbers"),
        (TypeError, {"sizes": [3, True, 2]}, r"holds True; expected whole numbers"),
        (TypeError, {"sizes": [3, "4", 2]}, r"holds '4'; expected whole numbers"),
        (ValueError, {"loss": "mean_square_error"}, r"loss='mean_square_error'.*did you mean 'mean_squared_error'"),
        (ValueError, {"activation": "rellu"}, r"activation='rellu' is not known.*did you mean 'relu'"),
        (ValueError, {"activation": ["rellu"]}, r"activation='rellu' is not known"),
        (ValueError, {"activation": "softmax"}, r"activation='softmax' is not known"),
        (ValueError, {"activation": ["softmax"]}, r"activation='softmax' is not known"),
        (ValueError, {"activation": ["relu", "relu"]}, r"has 2 entries; expected one for each of 1 hidden"),
        (ValueError, {"output": "identify"}, r"output='identify' is not known.*did you mean 'identity'"),
        (ValueError, {"dtype": "float16"}, r"dtype='float16' is not known; expected one of float32, float64"),
        (ValueError, {"sizes": [3, 1], "loss": "cross_entropy"}, r"sizes=\[3, 1\] end in 1.*binary_cross_entropy"),
        (ValueError, {"input_scale": np.nan}, r"input_scale=nan is not finite"),
        (ValueError, {"input_shift": np.inf}, r"input_shift=inf is not finite"),
        (ValueError, {"l2": -0.1}, r"l2=-0.1; expected a finite number, 0 or more"),
        (ValueError, {"l2": np.nan}, r"l2=nan; expected a finite number"),
    ],
)
def test_a_wrong_description_is_refused(error, options, message):
    with pytest.raises(error, match=message):
        some(**options)


def test_activations_of_the_wrong_number_are_refused():
    with pytest.raises(ValueError, match=r"activations=\('relu',\) has 1 entries; expected 2"):
        Network((3, 4, 2), ("relu",), "mean_squared_error")


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"kind='adamm' is not known; expected one of plain, .*did you mean 'adam'"):
        Rule("adamm")


# ------------------------------------------------------------------------------------------------------- names
def test_auto_is_the_fastest_that_works():
    assert kernels.backend() is kernels.backend("auto") is kernels.backend("cpu")
    assert kernels.backend("numpy") is not kernels.backend("cpu")


def test_what_is_available_says_why_where_it_is_not():
    reasons = kernels.available()
    assert set(reasons) == set(kernels.BACKENDS)
    assert reasons["cpu"] is None
    assert reasons["numpy"] is None
    for name, reason in reasons.items():
        if reason is not None:
            with pytest.raises(RuntimeError, match=f"backend='{name}' does not work here: "):
                kernels.backend(name)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend='gpu' is not known; expected one of auto, cpu, numpy, cuda"):
        kernels.backend("gpu")


@pytest.mark.parametrize("name", [name for name, reason in kernels.available().items() if reason is None])
def test_every_backend_has_the_contracts_functions(name):
    module = kernels.backend(name)
    for function in ("feedforward", "predict", "evaluate", "backpropagation", "update_weights", "train_epoch"):
        assert callable(getattr(module, function)), function


def test_warmup_says_how_long_it_took():
    seconds = kernels.warmup()
    assert seconds >= 0
    assert kernels.warmup() <= max(1.0, seconds)
