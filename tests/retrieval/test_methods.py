import numpy as np
import pytest

from delg_jax.data import RetrievalData
from delg_jax.errors import UserError
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.retrieval import methods, verification
from delg_jax.retrieval.methods import Ranking
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search import SimilarityGraph
from tests import tiny


def changed(**values):
    config = tiny.tiny_config()
    for path, value in values.items():
        tree, names = config, path.split("__")
        for name in names[:-1]:
            tree = tree[name]
        tree[names[-1]] = value
    return config


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_default_suits_all_methods(method):
    methods.check("--method", method, changed())


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_need_the_features_that_they_compare(method):
    without_local = changed(model__local_head=False)
    without_global = changed(extract__imported_local="features.h5")
    without_global.model.local_head = True
    if method in ("global", "global+superglobal", "global+qe", "global+diffusion"):
        methods.check("--method", method, without_local)
    else:
        with pytest.raises(UserError, match="needs local features"):
            methods.check("--method", method, without_local)
    if method in ("local", "local+sp", "local+mds", "local+diffusion"):
        methods.check("--method", method, without_global)
    else:
        with pytest.raises(UserError, match=r"needs global descriptors.*imported_global"):
            methods.check("--method", method, without_global)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rerank__superglobal__short_list", 0),
        ("rerank__superglobal__neighbours", 0),
        ("rerank__superglobal__beta", -0.1),
        ("rerank__mds__background", 1.0),
        ("rerank__qe__images", 0),
        ("rerank__qe__alpha", -1.0),
        ("rerank__diffusion__spread", 1.0),
        ("search__kernel", "cosine"),
    ],
)
def test_wrong_values_are_found_before_the_work(path, value):
    with pytest.raises(UserError, match="config." + path.split("__")[0]):
        methods.check("--method", "global", changed(**{path: value}))


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_graph_is_of_the_features_of_the_search(method):
    needing = ("global+diffusion", "local+mds", "local+mds+global", "local+diffusion")
    rerank = changed().rerank
    stored = method.split("+")[0] if method in needing else ""
    assert methods.graph_name(method, rerank.mds) == stored
    rerank.mds.graph = "on_the_fly"
    assert methods.graph_name(method, rerank.mds) == ("pairs" if "mds" in method else stored)


def test_scores_sort_a_short_list_and_the_rest_follows():
    first = Ranking(np.array([[4, 2, 0, 1], [0, 1, 2, 4]]), np.ones((2, 4), np.float32))
    found = first.by_scores(np.array([[0.5, 0.75, 0.5], [3, 2, 1]], np.float32))
    assert found.images.tolist() == [[2, 4, 0, 1], [0, 1, 2, 4]]
    assert found.similarities.tolist() == [[0.75, 0.5, 0.5, -np.inf], [3, 2, 1, -np.inf]]
    assert first.images[0].tolist() == [4, 2, 0, 1]


def test_unknown_methods_are_named():
    with pytest.raises(UserError, match=r"local\+mds\+global"):
        methods.check("--method", "global+magic", changed())


def seen(rng):
    """Features that match no others."""
    descriptors = rng.normal(size=(12, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    ones, places = np.ones(12, np.float32), rng.uniform(0, 500, (12, 2)).astype(np.float32)
    return Features(np.ones(1), LocalFeatures(places, ones, ones, descriptors, ones > 0))


def test_the_short_list_is_cleared_of_the_junk_of_each_protocol(rng):
    rows, query = [seen(rng) for _ in range(6)], seen(rng)
    rows[3] = rows[5] = query
    truth = [{"easy": [3], "hard": [1], "junk": [0]}]
    stores = InMemoryFeatures(rows), InMemoryFeatures([query])
    extracted = Extracted(RetrievalData(None, None, truth), *stores, "drawn")
    config = changed(rerank__sp__short_list=2, rerank__sp__hypotheses=50)
    config.rerank.sp.min_inliers = 4
    first = Ranking(
        np.arange(6, dtype=np.int32)[None, :], np.linspace(1, 0, 6, dtype=np.float32)[None, :]
    )
    excluded = verification.junk(extracted.data.ground_truth)
    found = verification.verify(
        extracted, first, RerankSettings.of(config.rerank).sp, 0, excluded
    ).by_protocol
    assert {name: ranks[0].tolist() for name, ranks in found.items()} == {
        "all": [0, 1, 2, 3, 4, 5],  # verifies 0 and 1
        "easy": [3, 2, 4, 5, 0, 1],  # 2 and 3
        "medium": [1, 2, 3, 4, 5, 0],  # 1 and 2
        "hard": [1, 2, 4, 5, 0, 3],  # 1 and 2; 3 is ignored
    }


@pytest.mark.parametrize("method", ["local+mds", "local+mds+global"])
def test_global_descriptors_join_the_embedding_if_the_method_names_them(rng, method):
    # Locally nothing resembles the query; globally image 3 does
    rows = [Features(vector, seen(rng).local) for vector in np.eye(4, dtype=np.float32)]
    stores = InMemoryFeatures(rows), InMemoryFeatures([rows[3]])
    images = np.arange(4, dtype=np.int32)
    first = Ranking(images[None, :], np.zeros((1, 4), np.float32))
    ranks = np.stack([np.roll(images, -image) for image in images])
    graph = SimilarityGraph(ranks, np.eye(4, dtype=np.float32)[[0] * 4])
    config = changed(rerank__mds__dim=2, rerank__mds__concat_weight=0.5)
    extracted = Extracted(None, *stores, "drawn")
    found = methods.rerank(method, extracted, first, graph, RerankSettings.of(config.rerank))
    assert found.images[0, 0] == (3 if "global" in method else 0)
