"""The search of a picture ranks as `evaluate` ranks the same query, whatever the options."""

import numpy as np
import pytest
from PIL import Image

from delg_jax import configuration
from delg_jax.evaluation import evaluate
from delg_jax.features import extract
from delg_jax.retrieval.methods import METHODS
from delg_jax.retrieval.searcher import Searcher
from delg_jax.training import trained_network
from tests import photographs, tiny

GLOBAL, LOCAL, SPATIAL = METHODS[:5], METHODS[5:], ("global+sp", "local+sp")
MDS = ("local+mds", "local+mds+global")
ASKED = 2  # of the four queries

# Methods, and fields of `config`: together they change every field of `rerank` and `search`
OPTIONS = {
    "as configured": (METHODS, {}),
    "few features, counted by matches": (
        SPATIAL,
        {
            "rerank.sp.max_features": 9,
            "rerank.sp.ratio": 0.95,
            "rerank.sp.mutual": True,
            "rerank.sp.hypotheses": 30,
            "rerank.sp.min_inliers": 2,
            "rerank.sp.pair_block": 1,
            "rerank.sp.short_list": 3,
        },
    ),
    "combined, and other votes": (
        ("global+sp", *LOCAL),
        {
            "rerank.sp.score": "combined",
            "rerank.sp.min_inliers": 0,
            "rerank.sp.short_list": 400,
            "rerank.sp.inlier_threshold": 5.0,
            "rerank.sp.max_distance": 0.8,
            "search.kernel": "power",
            "search.threshold": 0.2,
            "search.power": 2.0,
            "search.max_features": 11,
            "search.idf_images": 4,
            "search.local_block": 2,
            "search.query_block": 1,
        },
    ),
    "signs": (SPATIAL, {"rerank.sp.one_bit": True, "rerank.sp.hamming": "products"}),
    "guided": (
        SPATIAL,
        {
            "rerank.sp.guided": True,
            "rerank.sp.model": "similarity",
            "rerank.sp.scoring": "msac",
            "rerank.sp.local_optimization": True,
        },
    ),
    "smacof": (
        MDS,
        {
            "rerank.mds.short_list": 6,
            "rerank.mds.dim": 3,
            "rerank.mds.distance": "power",
            "rerank.mds.power": 0.7,
            "rerank.mds.contrast": 0.9,
            "rerank.mds.scale_neighbours": 2,
            "rerank.mds.keep_first": 2,
            "rerank.mds.background": 0.1,
            "rerank.mds.missing": "row_minimum",
            "rerank.mds.method": "smacof",
            "rerank.mds.iterations": 3,
            "rerank.mds.missing_weight": 0.5,
            "rerank.mds.query_block": 2,
            "search.graph_neighbours": 5,
            "search.graph_block": 3,
            "search.graph_features": 12,
        },
    ),
    "landmarks": (
        MDS,
        {
            "rerank.mds.method": "landmark",
            "rerank.mds.landmarks": 5,
            "rerank.mds.background_rank": 4,
            "rerank.mds.neighbours": 2,
            "rerank.mds.beta": 0.6,
            "rerank.mds.weight": 0.8,
            "rerank.mds.concat_weight": 0.3,
        },
    ),
    "others": (
        GLOBAL,
        {
            "rerank.superglobal.short_list": 5,
            "rerank.superglobal.neighbours": 2,
            "rerank.superglobal.beta": 0.4,
            "rerank.qe.images": 3,
            "rerank.qe.alpha": 0.0,
            "rerank.diffusion.neighbours": 3,
            "rerank.diffusion.query_neighbours": 2,
            "rerank.diffusion.power": 2.0,
            "rerank.diffusion.spread": 0.6,
            "rerank.diffusion.iterations": 4,
            "search.global_block": 3,
        },
    ),
    "votes of distances": (
        ("local", "local+mds"),
        {"search.kernel": "cann", "search.reach": 0.9, "search.curve": 0.3},
    ),
    "ivf": (
        ("local", "local+mds"),
        {
            "search.engine": "ivf",
            "search.ivf.count": 5,
            "search.ivf.probes": 2,
            "search.ivf.seed": 3,
            "search.ivf.rounds": 1,
        },
    ),
    "candidates": (
        LOCAL[:-1],  # diffusion re-ranks the whole database
        {
            "search.engine": "ivf",
            "search.ivf.count": 5,
            "search.candidates": 5,
            "search.estimated": 2,
            "eval.kappas": (1,),
            "search.idf_images": 4,
            "search.graph_neighbours": 5,
            "rerank.mds.short_list": 6,
            "rerank.sp.short_list": 6,
        },
    ),
    "one-bit lists": (
        ("local", "local+mds"),
        {
            "search.engine": "asmk",
            "search.asmk.words": 6,
            "search.asmk.aggregate": True,
            "search.asmk.rounds": 1,
            "search.asmk.seed": 3,
            "search.asmk.assignments": 2,
            "search.asmk.threshold": 0.0,
            "search.asmk.power": 2.0,
            "search.asmk.idf": "words",
            "search.asmk.normalize": True,
            "rerank.mds.graph": "on_the_fly",
            "search.graph_neighbours": 7,
        },
    ),
    "weighted words": (
        LOCAL[:-1],
        {
            "search.engine": "asmk",
            "search.asmk.words": 6,
            "search.candidates": 5,
            "search.estimated": 3,
            "eval.kappas": (1,),
            "search.idf_images": 4,
            "search.idf_of": "words",
            "search.idf_power": 2.0,
            "search.graph_neighbours": 5,
            "rerank.mds.short_list": 6,
            "rerank.mds.background_rank": 5,
            "rerank.mds.graph": "on_the_fly",
        },
    ),
    "grids": (
        ("local", "local+sp"),
        {
            "search.engine": "cann",
            "search.cann.norm": 100.0,
            "search.cann.first_radius": 30.0,
            "search.cann.reach": 110.0,
            "search.cann.curve": 0.3,
            "search.cann.approximation": 1.3,
            "search.cann.grids": 2,
            "search.cann.axes": 3,
            "search.cann.width": 2.0,
            "search.cann.seed": 5,
        },
    ),
    "codes": (
        ("global", "local", "local+mds"),
        {
            "extract.local_encoding": "sign",
            "extract.global_dtype": "float16",
            "search.packed": True,
            "search.hamming": "products",
        },
    ),
    "the first images": (
        ("global", "global+sp", "global+superglobal", "global+qe", "local+mds"),
        {
            "eval.depth": 4,
            "eval.kappas": (1,),
            "rerank.sp.short_list": 3,
            "rerank.superglobal.short_list": 4,
            "rerank.superglobal.neighbours": 2,
            "rerank.qe.images": 2,
            "rerank.mds.short_list": 4,
        },
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration, a folder for workdirs, and the pictures of the queries."""
    root = tmp_path_factory.mktemp("parity")
    config = tiny.revisited_config(photographs.make_revisited(root / "data"))
    config = configuration.override(config, {"rerank.diffusion.spread": 0.3, "seed": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        extract(config, root / "features_only")
        yield config, root


def evaluated(place, name, changes, methods):
    """The configuration, a new workdir, and images [Q, N] by method as evaluation has them."""
    config, root = place
    config = configuration.override(config, {**changes, "eval.methods": methods})
    workdir = root / name.replace(" ", "_")
    workdir.mkdir()
    if not any(field.startswith("extract.") for field in changes):
        (workdir / "features").symlink_to(root / "features_only" / "features")
    evaluate(config, workdir)
    with np.load(workdir / "rankings.npz") as file:
        return config, workdir, {method: file[method] for method in methods}


def searched(config, workdir, pictures, methods):
    """Images [`ASKED`, N] by method, as the search of the first queries has them."""
    searcher, found = Searcher(config, workdir), {method: [] for method in methods}
    for query in extract(config, workdir).queries.names[:ASKED]:
        picture = np.asarray(Image.open(pictures / f"{query}.jpg"))
        asked = searcher.query(picture, (0, 0, 112, 96))
        for method in methods:
            hits = searcher.search(asked, method, top=100).hits
            found[method].append([hit.image for hit in hits])
    return found


def _slow_unless_quick(name):
    quick = ("as configured", "combined, and other votes", "codes", "the first images")
    return name if name in quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_slow_unless_quick(name) for name in OPTIONS])
def test_every_method_ranks_a_picture_as_evaluation_does(place, name):
    methods, changes = OPTIONS[name]
    config, workdir, expected = evaluated(place, name, changes, methods)
    found = searched(config, workdir, place[1] / "data" / "jpg", methods)
    for method in methods:
        np.testing.assert_array_equal(found[method], expected[method][:ASKED], method)
        depth = changes.get("eval.depth", 8)
        if "search.candidates" in changes:
            depth = min(depth, changes["search.candidates"] + changes["search.estimated"])
        assert np.shape(found[method]) == (ASKED, depth)


def test_the_combined_score_is_another_ranking_than_inliers(place):
    _, changes = OPTIONS["combined, and other votes"]
    changes = {field: value for field, value in changes.items() if field.startswith("rerank.")}
    *_, combined = evaluated(place, "again", changes, SPATIAL)
    changes = {**changes, "rerank.sp.score": "inliers"}
    *_, inliers = evaluated(place, "by inliers", changes, SPATIAL)
    for method in SPATIAL:
        assert (combined[method] != inliers[method]).any()


def test_every_option_is_among_those_tried(place):
    plain = configuration.flatten(place[0])
    changed = {
        field
        for _, changes in OPTIONS.values()
        for field, value in changes.items()
        if value != plain[field]
    }
    wanted = {field for field in plain if field.startswith(("rerank.", "search."))}
    assert wanted <= changed
