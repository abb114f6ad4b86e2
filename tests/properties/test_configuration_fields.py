import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks, pairs
from delg_jax.features import network
from delg_jax.models.delg import build
from delg_jax.retrieval import methods, settings
from delg_jax.search import engine_choice
from delg_jax.training import checks, optimizer
from delg_jax.training import train as training
from tests.properties.cases import cases, hold, outcome

_NUMBERS = st.one_of(
    st.integers(-2, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from((10**400, math.nan, -math.inf, 2**63, 1e-320, -0.0)),
)
_WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ("float32", "bfloat16", "gem", "cann", "synthetic", "local+mds", "tiny", "slim")
    ),
)
_SCALARS = st.one_of(
    _NUMBERS, _WORDS, st.booleans(), st.none(), st.binary(max_size=3), st.complex_numbers()
)
_ANY = st.one_of(
    _SCALARS,
    st.lists(_SCALARS, max_size=4),
    st.lists(_SCALARS, max_size=4).map(tuple),
    st.dictionaries(_WORDS, _SCALARS, max_size=2),
    st.sampled_from((np.float64(0.5), np.int32(3), np.array([1.0]), SimpleNamespace(a=1), print)),
)


@pytest.fixture(scope="module")
def base():
    return default.get_config().lock()


@pytest.fixture(scope="module")
def fields(base):
    return configuration.flatten(base)


def _changes(fields):
    names = st.one_of(
        st.sampled_from(sorted(fields)),
        st.sampled_from(("", ".", "train", "zzz", "train.stepps", "seed.x", "eval.kappas.0", "é")),
    )
    return st.dictionaries(names, _ANY, min_size=1, max_size=3)


@cases(600)
def test_any_override_is_refused_or_of_the_type_of_its_field(base, fields, examples):
    def check(changes):
        changed = outcome(lambda: configuration.override(base, changes))
        assert configuration.flatten(base) == fields
        if isinstance(changed, UserError):
            assert changed.subject.removeprefix("config.") in changes
            return
        found = configuration.flatten(changed)
        for name, before in fields.items():
            if name not in changes:
                assert found[name] == before
                continue
            assert isinstance(found[name], type(before))
            assert isinstance(found[name], bool) == isinstance(before, bool)
            for number in found[name] if isinstance(before, list) else [found[name]]:
                assert not isinstance(number, float) or math.isfinite(number)

    hold(examples, check, _changes(fields))


def _of_the_type(before):
    """Values that a field takes, whatever they mean."""
    if isinstance(before, bool):
        return st.booleans()
    if isinstance(before, int):
        return st.sampled_from((-(2**62), -1, 0, 1, 2, 3, 31, 32, 2**31, 2**62))
    if isinstance(before, float):
        return st.sampled_from((-1e308, -1.0, -1e-300, 0.0, 1e-300, 0.5, 0.75, 1.0, 2.0, 1e308))
    if isinstance(before, list):
        return st.lists(_of_the_type(before[0]), max_size=3).map(tuple)
    return _WORDS


def _check_all(config):
    """What the stages look at before they begin."""
    for method in config.eval.methods:
        methods.check("config.eval.methods", method, config)
    settings.RerankSettings.of(config.rerank)
    engine_choice.SearchSettings.of(config.search)
    network.check(config.extract)
    pairs.check(config)
    gldv2_tasks.check(config)
    checks._check_cache(configuration.override(config, {"train.cache_features": True}))
    build(config.model, **training.module_options(config.train))
    learning = optimizer.OptimizerSettings.of(config.train)
    optimizer.create_optimizer(learning)
    optimizer.penalty(learning)


@cases(500)
def test_any_values_are_fit_or_refused_by_field(base, fields, examples):
    @st.composite
    def changes(draw):
        names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3))
        return {name: draw(_of_the_type(fields[name])) for name in names}

    def check(values):
        config = configuration.override(base, values)
        found = outcome(lambda: _check_all(config))
        if isinstance(found, UserError):
            assert found.subject.startswith("config.")

    hold(examples, check, changes())
