import shutil

import numpy as np
import pytest
from hypothesis import strategies as st

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.retrieval import methods
from tests.properties import worlds
from tests.properties.cases import cases, hold, outcome

_WHOLE = st.sampled_from((-(2**63) + 1, -1, 0, 1, 2, 3, 5))
_REAL = st.sampled_from((-1e30, -1.0, -1e-9, 0.0, 1e-30, 0.5, 0.99, 1.0, 2.0, 1e30))
_TEXT = st.sampled_from(
    ("", "zzz", "identity", "power", "cann", "ivf", "exact", "products", "complement", "smacof")
    + ("reciprocal", "landmark", "largest", "row_minimum", "similarity", "homography")
    + ("msac", "combined")
)
_SEARCHED = ("search", "rerank")


def _value(field):
    if isinstance(field, bool):
        return st.booleans()
    return {int: _WHOLE, float: _REAL, str: _TEXT}[type(field)]


@st.composite
def _changes(draw, config):
    fields = configuration.flatten(config, _SEARCHED)
    names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True))
    return {name: draw(_value(fields[name])) for name in names}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    rng = np.random.default_rng(4)
    database = [worlds.image(rng, count) for count in (4, 0, 2, 1, 4)]
    return worlds.extracted(
        tmp_path_factory.mktemp("world"), database, [worlds.image(rng), worlds.image(rng, 0)]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("search.global_block", 0),
        ("search.graph_block", 0),
        ("search.graph_neighbours", 0),
        ("search.power", -1.0),
        ("search.power", 1e30),
        ("search.cann.seed", -1),
        ("search.ivf.seed", -1),
        ("rerank.sp.max_features", -1),
        ("rerank.sp.max_distance", 1e30),
        ("rerank.sp.inlier_threshold", 1e30),
        ("rerank.diffusion.power", 1e30),
    ],
)
def test_values_that_once_came_through_are_refused(field, value):
    config = configuration.override(worlds.small_config(), {field: value})
    with pytest.raises(UserError, match=f"config.{field.rpartition('.')[0]}"):
        methods.check("--method", "local+mds", config)


@cases(96)
def test_any_search_is_refused_at_once_or_ranks_every_image(found, monkeypatch, tmp_path, examples):
    base = worlds.small_config()

    def check(changes):
        config = outcome(lambda: configuration.override(base, changes))
        assert not isinstance(config, UserError), "of the right type, and finite"
        shutil.rmtree(tmp_path / "w", ignore_errors=True)
        got = outcome(lambda: worlds.evaluate(monkeypatch, config, found, tmp_path / "w"))
        if isinstance(got, UserError):
            assert not (tmp_path / "w").exists(), "refused before any work is done"
            return
        worlds.require_sound(*got, len(found.queries), len(found.database))

    hold(examples, check, _changes(base))
