import pytest

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.retrieval import settings
from delg_jax.search import engine_choice

_CASES = [
    ("rerank.sp.short_list", 0, "must be at least 1"),
    ("rerank.sp.max_distance", 2.5, "must lie in (0, 2], the distances of unit vectors"),
    ("rerank.sp.max_features", -1, "must not be negative"),
    ("rerank.sp.ratio", 1.5, "must lie in [0, 1]"),
    ("rerank.sp.hamming", "lookup", "must be one of popcount, products"),
    ("rerank.sp.score", "sum", "must be one of inliers, combined"),
    ("rerank.sp.model", "spline", "must be one of affine, similarity, homography"),
    ("rerank.sp.scoring", "mlesac", "must be one of inliers, msac"),
    ("rerank.sp.hypotheses", 0, "must be at least 1"),
    ("rerank.sp.inlier_threshold", 0.0, "must lie in (0, 1e+09]"),
    ("rerank.sp.pair_block", 0, "must be at least 1"),
    ("rerank.mds.distance", "city", "must be one of chord, complement, reciprocal, power"),
    ("rerank.mds.contrast", 0.0, "must be above `background` (=0.0)"),
    ("rerank.mds.background", -0.1, "must not be negative"),
    ("rerank.mds.missing_weight", 0.0, "must lie in (0, 1]"),
    ("rerank.mds.weight", 1.1, "must lie in [0, 1]"),
    ("rerank.mds.dim", 0, "must be at least 1"),
    ("rerank.mds.neighbours", -1, "must not be negative"),
    ("rerank.superglobal.neighbours", 0, "must be at least 1"),
    ("rerank.superglobal.beta", -0.5, "must be at least 0"),
    ("rerank.qe.alpha", -1.0, "must be at least 0"),
    ("rerank.diffusion.spread", 1.0, "must lie in [0, 1)"),
    ("rerank.diffusion.power", 0.0, "must lie in (0, 1000]"),
    ("rerank.diffusion.iterations", 0, "must be at least 1"),
    ("search.power", -1.0, "must lie in [0, 1000]"),
    ("search.reach", 0.0, "must be positive"),
    ("search.curve", 1.0, "must lie in (0, 1)"),
    # As it was given, not as it is for unit vectors
    ("search.cann.first_radius", 120.0, "must lie in (0, reach)"),
    ("search.cann.norm", 0.0, "must be positive"),
    ("search.cann.grids", 0, "must be at least 1"),
    ("search.ivf.rounds", -1, "must not be negative"),
]


@pytest.mark.parametrize(("field", "value", "rule"), _CASES)
def test_a_mistake_names_one_field_its_value_and_the_rule(field, value, rule):
    config = configuration.override(default.get_config(), {field: value})
    check = settings.check_rerank if field.startswith("rerank") else engine_choice.check
    with pytest.raises(UserError) as raised:
        check(config[field.split(".")[0]])
    assert str(raised.value) == f"config.{field} = {value!r}: {rule}"


def test_the_default_is_right():
    config = default.get_config()
    settings.check_rerank(config.rerank)
    engine_choice.check(config.search)
