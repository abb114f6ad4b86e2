import pytest

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.evaluation.experiment import _check
from delg_jax.retrieval import methods, settings
from delg_jax.search import engine_choice
from tests import tiny

_MDS = ("local+mds", "local+mds+global")
_LOCAL = ("local", "local+sp", *_MDS, "local+diffusion")


@pytest.mark.parametrize(
    ("wanted", "changes", "named", "limit"),
    [
        (
            _MDS,
            {"rerank.mds.background_rank": 1001},
            "rerank.mds.background_rank = 1001",
            "search.graph_neighbours (=1000)",
        ),
        (
            _MDS,
            {"rerank.mds.background_rank": 60, "rerank.mds.short_list": 50, "eval.depth": 50},
            "rerank.mds.background_rank = 60",
            "eval.depth (=50)",
        ),
        (
            _MDS,
            {"eval.depth": 399},
            "rerank.mds.short_list = 400",
            "eval.depth (=399)",
        ),
        (
            ("global+sp", "local+sp"),
            {"rerank.sp.short_list": 100, "eval.depth": 99},
            "rerank.sp.short_list = 100",
            "eval.depth (=99)",
        ),
        (
            ("global+superglobal",),
            {"eval.depth": 100},
            "rerank.superglobal.short_list = 400",
            "eval.depth (=100)",
        ),
        (
            ("global+qe",),
            {"eval.depth": 9},
            "rerank.qe.images = 10",
            "eval.depth (=9)",
        ),
        (
            ("global+diffusion", "local+diffusion"),
            {"eval.depth": 500},
            "eval.depth = 500",
            "diffusion",
        ),
        (
            ("local+diffusion",),
            {"search.engine": "ivf", "search.candidates": 500, "search.graph_neighbours": 400},
            "search.candidates = 500",
            "local+diffusion",
        ),
        (
            ("local+sp",),
            {
                "search.engine": "ivf",
                "search.candidates": 400,
                "search.estimated": 100,
                "rerank.sp.short_list": 501,
                "search.graph_neighbours": 400,
            },
            "rerank.sp.short_list = 501",
            "search.candidates + config.search.estimated (=500)",
        ),
        (
            _MDS,
            {"search.engine": "ivf", "search.candidates": 900},
            "search.graph_neighbours = 1000",
            "search.candidates",
        ),
        (
            ("global+diffusion", "local+diffusion"),
            {"search.graph_neighbours": 50},
            "rerank.diffusion.neighbours = 50",
            "search.graph_neighbours (=50)",
        ),
        (
            ("global+superglobal",),
            {"rerank.superglobal.short_list": 9},
            "rerank.superglobal.neighbours = 9",
            "rerank.superglobal.short_list (=9)",
        ),
        (
            _MDS,
            {"rerank.mds.neighbours": 6, "rerank.mds.short_list": 6},
            "rerank.mds.neighbours = 6",
            "rerank.mds.short_list (=6)",
        ),
        (
            _MDS,
            {"rerank.mds.method": "landmark", "rerank.mds.short_list": 199},
            "rerank.mds.landmarks = 200",
            "rerank.mds.short_list (=199)",
        ),
        (
            _LOCAL,
            {"search.engine": "cann", "search.cann.axes": 9},
            "search.cann.axes = 9",
            "model.local_dim (=8)",
        ),
        (
            _LOCAL,
            {"search.engine": "cann", "search.cann.axes": 5, "extract.pca_dim": 4},
            "search.cann.axes = 5",
            "extract.pca_dim (=4)",
        ),
    ],
)
def test_truncation_is_refused(wanted, changes, named, limit):
    config = configuration.override(tiny.tiny_config(), changes)
    for method in wanted:
        with pytest.raises(UserError) as raised:
            methods.check("--method", method, config)
        assert str(raised.value).startswith(f"config.{named}: ")
        assert limit in raised.value.rule
    for method in set(methods.METHODS) - set(wanted):  # those that do not use the field
        if not config.eval.depth and not (config.search.candidates and "diffusion" in method):
            settings.refuse_contradictions(method, config)


@pytest.mark.parametrize(
    "changes",
    [
        {"rerank.mds.background_rank": 1000},
        {"eval.depth": 400, "rerank.mds.background_rank": 400},
        {"rerank.mds.neighbours": 5, "rerank.mds.short_list": 6},
        {"rerank.mds.method": "landmark", "rerank.mds.short_list": 200},
        {"rerank.superglobal.short_list": 10},
        {"search.engine": "ivf", "search.ivf.count": 23},  # of 24 all are looked into
        {"search.engine": "cann", "search.cann.axes": 8},
        {"search.engine": "cann", "search.cann.axes": 9, "model.dim_reduction": "none"},
        {"rerank.mds.short_list": 3},  # dimensions that are not needed are zero
    ],
)
def test_values_at_the_limit_are_accepted(changes):
    config = configuration.override(tiny.tiny_config(), changes)
    for method in methods.METHODS:
        if not (config.eval.depth and "diffusion" in method):
            methods.check("--method", method, config)
    config = configuration.override(config, {"search.graph_neighbours": 51})
    if not config.eval.depth:
        settings.refuse_contradictions("local+diffusion", config)


def test_ranks_that_are_not_kept_are_refused():
    changes = {"eval.depth": 9, "eval.methods": ("global",)}
    config = configuration.override(tiny.tiny_config(), changes)
    names = r"config\.eval\.kappas = \(1, 5, 10\): .*config\.eval\.depth \(=9\)"
    with pytest.raises(UserError, match=names):
        _check(config)
    _check(configuration.override(config, {"eval.depth": 10}))
    changes = {"eval.methods": ("local",), "search.engine": "ivf", "search.candidates": 4}
    config = configuration.override(tiny.tiny_config(), {**changes, "search.estimated": 5})
    with pytest.raises(UserError, match=r"kappas = .*config.search.estimated \(=9\)"):
        _check(config)
    _check(configuration.override(config, {"search.estimated": 6}))
    _check(configuration.override(config, {"eval.methods": ("global",)}))


@pytest.mark.parametrize(
    ("name", "least"), [("gldv2", 100), ("gldv2_recognition", 12), ("revisited", 10)]
)
def test_a_task_needs_the_images_that_count_for_it(name, least):
    changes = {"data.name": name, "eval.recognition_top": 12, "eval.methods": ("global",)}
    config = configuration.override(tiny.tiny_config(), changes)
    for depth in (0, least):
        _check(configuration.override(config, {"eval.depth": depth}))
    if least > 10:
        with pytest.raises(UserError, match=rf"config\.eval\.depth = {least - 1}: .* {least}\b"):
            _check(configuration.override(config, {"eval.depth": least - 1}))


_CASES = [
    ("rerank.sp.short_list", 0),
    ("rerank.sp.max_distance", 2.5),
    ("rerank.sp.max_features", -1),
    ("rerank.sp.ratio", 1.5),
    ("rerank.sp.hamming", "lookup"),
    ("rerank.sp.score", "sum"),
    ("rerank.sp.model", "spline"),
    ("rerank.sp.scoring", "mlesac"),
    ("rerank.sp.hypotheses", 0),
    ("rerank.sp.inlier_threshold", 0.0),
    ("rerank.sp.pair_block", 0),
    ("rerank.mds.distance", "city"),
    ("rerank.mds.contrast", 0.0),
    ("rerank.mds.background", -0.1),
    ("rerank.mds.missing_weight", 0.0),
    ("rerank.mds.weight", 1.1),
    ("rerank.mds.dim", 0),
    ("rerank.mds.neighbours", -1),
    ("rerank.superglobal.neighbours", 0),
    ("rerank.superglobal.beta", -0.5),
    ("rerank.qe.alpha", -1.0),
    ("rerank.diffusion.spread", 1.0),
    ("rerank.diffusion.power", 0.0),
    ("rerank.diffusion.iterations", 0),
    ("search.power", -1.0),
    ("search.reach", 0.0),
    ("search.curve", 1.0),
    # As it was given, not as it is for unit vectors
    ("search.cann.first_radius", 120.0),
    ("search.cann.norm", 0.0),
    ("search.cann.grids", 0),
    ("search.ivf.rounds", -1),
]


@pytest.mark.parametrize(("field", "value"), _CASES)
def test_a_mistake_names_one_field_and_its_value(field, value):
    config = configuration.override(default.get_config(), {field: value})
    kind = settings.RerankSettings if field.startswith("rerank") else engine_choice.SearchSettings
    with pytest.raises(UserError) as raised:
        kind.of(config[field.split(".")[0]])
    assert str(raised.value).startswith(f"config.{field} = {value!r}: ")


def test_the_default_is_right():
    config = default.get_config()
    settings.RerankSettings.of(config.rerank)
    engine_choice.SearchSettings.of(config.search)
