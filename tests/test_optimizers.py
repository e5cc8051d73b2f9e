import dataclasses
import math

import numpy as np
import pytest

from fastmlp import Adam, Sgd
from fastmlp.kernels import Rule
from fastmlp.optimizers import optimizer


def test_defaults_are_plain_sgd_and_the_paper_s_adam():
    assert Sgd().rule == Rule("plain", learning_rate=0.01)
    assert Adam().rule == Rule("adam", learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8)


def test_sgd_picks_the_rule():
    assert Sgd(0.1, momentum=0.9).rule == Rule("momentum", learning_rate=0.1, momentum=0.9)
    assert Sgd(0.1, momentum=0.9, nesterov=True).rule == Rule("nesterov", learning_rate=0.1, momentum=0.9)


def test_numbers_of_numpy_become_plain_floats():
    rule = Sgd(np.float32(0.5), np.float64(0.25)).rule
    assert type(rule.learning_rate) is float
    assert type(rule.momentum) is float
    assert type(Adam(learning_rate=1).rule.learning_rate) is float


@pytest.mark.parametrize("make", [Sgd, Adam])
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
def test_learning_rate_out_of_range(make, value):
    with pytest.raises(ValueError, match="learning_rate="):
        make(learning_rate=value)


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1]])
def test_learning_rate_of_a_wrong_type(value):
    with pytest.raises(TypeError, match=r"learning_rate=.*expected a number"):
        Sgd(learning_rate=value)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (Sgd, "momentum", 1),
        (Sgd, "momentum", -0.1),
        (Adam, "beta1", 1.0),
        (Adam, "beta2", 1.5),
        (Adam, "epsilon", 0),
        (Adam, "epsilon", 1e-50),
    ],
)
def test_other_hyperparameters_out_of_range(make, name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        make(**{name: value})


def test_nesterov_wants_a_bool_and_a_momentum():
    with pytest.raises(ValueError, match="momentum=0"):
        Sgd(nesterov=True)
    with pytest.raises(TypeError, match="nesterov=1"):
        Sgd(momentum=0.9, nesterov=1)


def test_optimizers_are_frozen_and_compare_by_value():
    assert Sgd(0.1) == Sgd(learning_rate=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sgd().learning_rate = 1.0


def test_by_name():
    assert optimizer("sgd") == Sgd()
    assert optimizer("adam") == Adam()
    mine = Adam(0.1)
    assert optimizer(mine) is mine


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"optimizer='addam' is not known.*did you mean 'adam'"):
        optimizer("addam")


@pytest.mark.parametrize("given", [Sgd, None, 0.1])
def test_neither_name_nor_optimizer(given):
    with pytest.raises(TypeError, match="optimizer="):
        optimizer(given)
