import copy
from pathlib import Path

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.training import integrity

VARIABLES = {
    "params": {"conv": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {"norm": {"mean": np.ones(3, np.float32)}},
}


def changed(value):
    variables = copy.deepcopy(VARIABLES)
    variables["params"]["conv"]["kernel"][1, 2] = value
    return variables


def test_what_was_saved_is_whole():
    integrity.require_whole(VARIABLES, integrity.seal(VARIABLES), Path("run"))


def test_one_other_number_is_damage():
    with pytest.raises(UserError, match=r"config.model.checkpoint = 'run': .*other numbers"):
        integrity.require_whole(changed(-5.0), integrity.seal(VARIABLES), Path("run"))


def test_checkpoints_of_before_have_no_digest():
    integrity.require_whole(changed(-5.0), {"input": ""}, Path("run"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_tensor_that_is_not_finite_is_named(value):
    variables = changed(value)
    with pytest.raises(UserError, match="finite numbers; params/conv/kernel has"):
        integrity.require_whole(variables, integrity.seal(variables), Path("run"))


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("x"), RuntimeError(), IndexError(3)]
)
def test_whatever_is_raised_becomes_one_line(error):
    reading = integrity.reading(Path("run"))
    with pytest.raises(UserError, match="config.model.checkpoint = 'run'") as caught, reading:
        raise error
    assert "\n" not in str(caught.value)


def test_a_mistake_of_the_user_goes_through():
    mistake = UserError("config.model.checkpoint", "x", "holds another network")
    with pytest.raises(UserError) as caught, integrity.reading(Path("run")):
        raise mistake
    assert caught.value is mistake
