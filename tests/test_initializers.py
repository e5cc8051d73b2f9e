# ruff: noqa: NPY002 (weights follow NumPy's global generator)
import math

import numpy as np
import pytest

from fastmlp import Mlp
from fastmlp.initializers import INITIALIZERS, initializer

N_IN, N_OUT = 300, 200
#: name -> (variance of the weights, limit of their absolute value, whether the biases are drawn like the weights)
EXPECTED = {
    "lab": (16 * 6 / (N_IN + N_OUT) / 3, 4 * math.sqrt(6 / (N_IN + N_OUT)), True),
    "glorot_uniform": (2 / (N_IN + N_OUT), math.sqrt(6 / (N_IN + N_OUT)), False),
    "glorot_normal": (2 / (N_IN + N_OUT), math.inf, False),
    "he_uniform": (2 / N_IN, math.sqrt(6 / N_IN), False),
    "he_normal": (2 / N_IN, math.inf, False),
    "torch": (1 / N_IN / 3, 1 / math.sqrt(N_IN), True),
    "cassani": (2 / (N_IN * N_OUT), math.inf, False),
    "zeros": (0, 0, False),
}


def test_every_initializer_is_tested():
    assert set(EXPECTED) == set(INITIALIZERS)


@pytest.mark.parametrize("name", EXPECTED)
def test_distribution(name):
    variance, limit, bias_drawn = EXPECTED[name]
    drawn = INITIALIZERS[name](np.random.default_rng(5), N_OUT, N_IN, True)
    weights, biases = drawn[:, 1:], drawn[:, 0]
    assert drawn.shape == (N_OUT, N_IN + 1)
    assert drawn.dtype == np.float64
    deviation = math.sqrt(variance)
    assert abs(weights.mean()) <= 5 * deviation / math.sqrt(weights.size)
    assert weights.std() == pytest.approx(deviation, rel=0.01)
    assert abs(weights).max() <= limit
    if math.isfinite(limit):
        assert abs(weights).max() >= 0.999 * limit
    if bias_drawn:
        assert biases.std() == pytest.approx(deviation, rel=0.2)
    else:
        assert not biases.any()


@pytest.mark.parametrize("name", EXPECTED)
def test_without_bias(name):
    assert INITIALIZERS[name](np.random.default_rng(5), 4, 3, False).shape == (4, 3)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_by_name_in_a_network(name, dtype):
    mlp = Mlp([5, 4, 3], init=name, dtype=dtype, seed=7, backend="numpy")
    again = Mlp([5, 4, 3], init=name, dtype=dtype, seed=7, backend="numpy")
    rng = np.random.RandomState(7)
    for weights, n_in, n_out in zip(mlp.weights, (5, 4), (4, 3), strict=True):
        assert np.array_equal(weights, INITIALIZERS[name](rng, n_out, n_in, True).astype(dtype))
    assert np.array_equal(mlp.parameters, again.parameters)
    assert mlp.init == name


@pytest.mark.parametrize("init", [*EXPECTED, lambda rng, n_out, n_in, bias: rng.normal(size=(n_out, n_in + bias))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_seed_draws_what_numpy_s_global_generator_does(init, dtype):
    np.random.seed(7)
    following_global = [Mlp([5, 4, 3], init=init, dtype=dtype, backend="numpy") for _ in range(2)]
    after = np.random.rand()
    np.random.seed(7)
    seeded = Mlp([5, 4, 3], init=init, dtype=dtype, seed=7, backend="numpy")
    assert np.random.rand() == np.random.RandomState(7).rand()  # left alone
    assert np.array_equal(seeded.parameters, following_global[0].parameters)
    seeded.initialize_weights()
    assert np.array_equal(seeded.parameters, following_global[1].parameters)
    assert after != np.random.RandomState(7).rand() or init == "zeros"


def test_hidden_layers_of_several_kinds_are_each_drawn_by_their_own():
    mlp = Mlp([5, 4, 3, 6, 2], activation=["relu", "sigmoid", "tanh"], seed=7, backend="numpy")
    assert mlp.init == "auto"
    rng = np.random.RandomState(7)
    names = ["he_uniform", "lab", "glorot_uniform", "glorot_uniform"]
    for weights, name, n_in, n_out in zip(mlp.weights, names, (5, 4, 3, 6), (4, 3, 6, 2), strict=True):
        assert np.array_equal(weights, INITIALIZERS[name](rng, n_out, n_in, True))
    assert Mlp([5, 4, 3, 2], activation=["relu", "leaky_relu"], backend="numpy").init == "he_uniform"


def test_seeds_differ_and_drawing_again_differs():
    mlp = Mlp([5, 4, 3], init="torch", seed=1, backend="numpy")
    other = Mlp([5, 4, 3], init="torch", seed=2, backend="numpy")
    assert not np.array_equal(mlp.parameters, other.parameters)
    before = mlp.parameters.copy()
    mlp.initialize_weights()
    assert not np.array_equal(mlp.parameters, before)


def test_a_function_is_asked_layer_by_layer():
    asked = []

    def ones(rng, n_out, n_in, bias):
        asked.append((type(rng), n_out, n_in, bias))
        return np.ones((n_out, n_in + bias))

    mlp = Mlp([5, 4, 3], init=ones, backend="numpy")
    assert asked == [(np.random.RandomState, 4, 5, True), (np.random.RandomState, 3, 4, True)]
    assert all((w == 1).all() for w in mlp.weights)
    assert mlp.init == "custom"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rng, n_out, n_in, bias: np.ones((n_in, n_out)), r"\[5, 4\].*expected \[4, 6\]"),
        (lambda rng, n_out, n_in, bias: np.full((n_out, n_in + bias), np.nan), "nan or infinity"),
        (lambda rng, n_out, n_in, bias: None, "init gave object"),
    ],
)
def test_a_function_that_gives_something_else(function, message):
    with pytest.raises(ValueError, match=message):
        Mlp([5, 4, 3], init=function, backend="numpy")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"init='he_norml' is not known.*did you mean 'he_normal'"):
        Mlp([2, 2], init="he_norml", backend="numpy")


def test_neither_name_nor_function():
    with pytest.raises(TypeError, match="init=3"):
        initializer(3)
