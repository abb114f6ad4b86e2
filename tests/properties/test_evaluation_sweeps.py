import json
import math

import pytest
from hypothesis import strategies as st

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.sweeps import expansion, run_record, sweep_spec
from delg_jax.sweeps.run_record import FINISHED, Record
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import changed_json, damaged

_FIELDS = ("seed", "train.learning_rate", "train.steps", "data.flip", "eval.kappas", "data.name")
_WORDS = (
    "1",
    "0.5",
    "1e-3",
    "nan",
    "inf",
    "-1",
    "True",
    "None",
    "a",
    "",
    "(1,2)",
    "[",
    "'a'",
    "9" * 40,
)
_CALL = st.builds(
    lambda kind, arguments: f"{kind}({','.join(arguments)})",
    st.sampled_from((*sweep_spec.KINDS, "normal", "")),
    st.lists(st.sampled_from(_WORDS), max_size=3),
)
_VALUES = st.one_of(_CALL, st.lists(st.sampled_from(_WORDS), max_size=4).map(",".join))
_NAMES = st.sampled_from((*_FIELDS, *_FIELDS, "train", "zzz", "", "train.", "train.stepps"))
_TEXTS = st.one_of(
    st.builds("{}={}".format, _NAMES, _VALUES), st.text("abc.=(,)0'\"[]{}\\ \n", max_size=20)
)
_GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "draws": st.integers(-1, 5) | st.none(),
        "draw_seed": st.integers(-1, 5),
        "seeds": st.lists(st.sampled_from((0, 1, 2, -1, True, 2**70, "a")), max_size=3),
        "verbs": st.lists(st.sampled_from(("train", "evaluate", "fly")), max_size=2),
    },
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**65) | st.floats() | st.sampled_from(_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from((*_FIELDS, "uniform", "choice", "zzz")), inner)
    ),
    max_leaves=8,
)
_ATTRIBUTES = ("settings", "grid", "random", "draws", "draw_seed", "seeds", "verbs", "zzz")


@pytest.fixture(scope="module")
def base():
    return default.get_config().lock()


def _require_runs(base, runs, most):
    """Runs that can be told apart, each a whole configuration of finite values."""
    assert 0 < len(runs) <= most
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert 0 < len(run.name.encode()) <= 255
        assert not {"/", "\0", " "} & set(run.name)
        config = configuration.override(base, run.overrides)
        for value in configuration.flatten(config).values():
            for number in value if isinstance(value, list) else [value]:
                assert not isinstance(number, float) or math.isfinite(number)


def _expand(base, specs, given):
    return expansion.expand(base, sweep_spec.read(specs, given), max_runs=40)


@cases(500)
def test_any_sweep_of_the_command_line_is_expanded_or_refused(base, examples):
    def check(case):
        runs = outcome(lambda: _expand(base, *case))
        if not isinstance(runs, UserError):
            _require_runs(base, runs, 40)

    hold(examples, check, st.tuples(st.lists(_TEXTS, max_size=3), _GIVEN))


@cases(300)
def test_any_sweep_of_a_file_is_expanded_or_refused(base, tmp_path, examples):
    whole = {"settings": [{"seed": 1}], "grid": {"train.steps": [1, 2]}, "draws": 2}
    whole["random"] = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    path = tmp_path / "sweep.json"

    def check(content):
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        runs = outcome(lambda: _expand(base, [str(path)], {}))
        if not isinstance(runs, UserError):
            _require_runs(base, runs, 40)

    content = st.dictionaries(st.sampled_from(_ATTRIBUTES), _JSON, max_size=4)
    changed = st.builds(lambda name, value: {**whole, name: value},
                        st.sampled_from(_ATTRIBUTES), _JSON)  # fmt: skip
    hold(examples, check, st.one_of(content, changed, damaged((json.dumps(whole).encode(),))))


@cases(150)
def test_draws_lie_in_their_range_and_repeat(examples):
    numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)

    def check(case):
        kind, ends, seed = case
        found = outcome(lambda: sweep_spec.distribution("--sweep", kind, list(ends)))
        if isinstance(found, UserError):
            return
        values = [found.draw("train.learning_rate", seed, number) for number in range(5)]
        assert values == [found.draw("train.learning_rate", seed, n) for n in range(5)]
        assert all(ends[0] <= value <= ends[1] for value in values)

    kinds = st.sampled_from(("uniform", "loguniform", "integers"))
    hold(examples, check, st.tuples(kinds, st.tuples(numbers, numbers), st.integers(0, 9)))


@cases(60)
def test_a_changed_record_of_a_run_is_not_believed(tmp_path, examples):
    """Its run is done again, where its numbers would otherwise go into a table."""
    config, metrics = default.get_config(), {"train": {"loss": 1.5}, "evaluate": {"images": 3}}
    record = Record(FINISHED, configuration.flatten(config), ("train", "evaluate"), metrics)
    record.write(tmp_path)
    path = tmp_path / run_record.FILE
    whole = path.read_text()
    assert run_record.read(tmp_path) is not None

    def check(case):
        path.write_text(case.draw(changed_json(whole)))
        found = outcome(lambda: run_record.read(tmp_path))
        if found is not None and "checksum" in path.read_text():
            assert (found.status, found.metrics) == (record.status, record.metrics)

    hold(examples, check, st.data())
