import math

import pytest

from delg_jax.errors import UserError
from delg_jax.sweeps import sweep_spec
from delg_jax.sweeps.sweep_spec import Distribution


def draws(kind, *arguments, field="a", seed=0, count=400):
    chances = sweep_spec.distribution("x", kind, list(arguments))
    return [chances.draw(field, seed, number) for number in range(count)]


def test_draws_fill_their_range_evenly():
    uniform = draws("uniform", -2, 3)
    assert -2 <= min(uniform) < -1.9
    assert 2.9 < max(uniform) <= 3
    assert abs(sum(uniform) / len(uniform) - 0.5) < 0.25
    logs = [math.log10(value) for value in draws("loguniform", 1e-4, 1e-2)]
    assert -4 <= min(logs) < -3.95
    assert -2.05 < max(logs) <= -2
    assert abs(sum(logs) / len(logs) + 3) < 0.1
    integers = draws("integers", 1, 4)
    assert {type(value) for value in integers} == {int}
    assert all(abs(integers.count(value) - 100) < 40 for value in (1, 2, 3, 4))
    assert set(integers) == {1, 2, 3, 4}
    assert set(draws("choice", "gem", 2, None)) == {"gem", 2, None}


def test_draws_depend_on_seed_field_and_number_alone():
    assert draws("uniform", 0, 1, count=5) == draws("uniform", 0, 1, count=9)[:5]
    assert draws("uniform", 0, 1) != draws("uniform", 0, 1, seed=1)
    assert draws("uniform", 0, 1) != draws("uniform", 0, 1, field="b")
    # The same on every machine and in every version of Python
    assert draws("uniform", 0, 1, count=3) == [0.512226, 0.482933, 0.327494]


def test_a_rounded_draw_stays_within_its_range():
    ends = (0.12345678, 0.12345679)
    assert all(ends[0] <= value <= ends[1] for value in draws("uniform", *ends))


@pytest.mark.parametrize(
    ("text", "kind", "arguments"),
    [
        ("loguniform(1e-4,1e-2)", "loguniform", (1e-4, 1e-2)),
        ("integers(1, 4)", "integers", (1, 4)),
        ("choice(gem,avg)", "choice", ("gem", "avg")),
        ("choice((0.5,1.0),(1.0,))", "choice", ((0.5, 1.0), (1.0,))),
    ],
)
def test_a_call_is_read(text, kind, arguments):
    assert sweep_spec.parse("x", text) == Distribution(kind, arguments)


@pytest.mark.parametrize("text", ["gem", "1,2", "(1,2)", "normal(0,1)", "uniform", "uniform(1,2"])
def test_what_is_no_call_is_left(text):
    assert sweep_spec.parse("x", text) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("uniform(1)", "two numbers"),
        ("uniform(2,1)", "smaller one first"),
        ("uniform(1,1)", "smaller one first"),
        ("uniform(a,b)", "two numbers"),
        ("uniform(0,True)", "two numbers"),
        ("uniform(0,1e999)", "two numbers"),
        ("integers(0.5,2)", "two whole numbers"),
        ("loguniform(0,1)", "above 0"),
        ("choice()", "needs values"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(text, rule):
    with pytest.raises(UserError, match=rule):
        sweep_spec.parse("x", text)
    with pytest.raises(UserError, match="must be one of uniform"):
        sweep_spec.distribution("x", "normal", [0, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,1e-2", [0.1, 0.01]),
        ("gem,avg,1,True", ["gem", "avg", 1, True]),
        ("(0.5,1.0)", [(0.5, 1.0)]),
        ("'a,b',c", ["'a", "b'", "c"]),
        ("'a,b','c'", ["a,b", "c"]),
        ("a/b c", ["a/b c"]),
        ("", []),
    ],
)
def test_values_are_literals_or_text(text, expected):
    assert sweep_spec.values(text) == expected
