import dataclasses
import types

import numpy as np
import pytest

from delg_jax.data import RetrievalData
from delg_jax.errors import UserError
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.rerank import SpatialSettings
from delg_jax.retrieval import methods
from delg_jax.retrieval.ranking import Ranking
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
        with pytest.raises(UserError, match="local features"):
            methods.check("--method", method, without_local)
    if method in ("local", "local+sp", "local+mds", "local+diffusion"):
        methods.check("--method", method, without_global)
    else:
        with pytest.raises(UserError, match="global descriptors.*imported_global"):
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
    section = path.rpartition("__")[0].replace("__", ".")
    with pytest.raises(UserError, match=rf"^config\.{section}\.\w+ = {value!r}: "):
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
    excluded = methods.junk_by_protocol(extracted.data.ground_truth)
    found = methods.verify(
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


INLIERS = np.array([5, 40, 0, 20, 60, 30], np.int32)  # by image


@pytest.fixture
def settings():
    """The settings, with a short list of three images."""
    return SpatialSettings(short_list=3)


@pytest.fixture
def asked(monkeypatch):
    """Candidates of each query that are verified; their inliers are as above."""
    found = []

    def counter(*_):
        def count(number, candidates):
            found.append((number, sorted(candidates.tolist())))
            return np.where(np.isin(np.arange(6), candidates), INLIERS, 0)

        return count

    monkeypatch.setattr(methods, "inlier_counter", counter)
    return found


def ranking(*rows):
    images = np.array([[image for image, _ in row] for row in rows], np.int32)
    return Ranking(images, np.array([[value for _, value in row] for row in rows], np.float32))


ROW = ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6), (4, 0.5), (5, 0.4))


def test_the_short_list_is_sorted_by_inliers_with_what_belongs_to_it(settings, asked):
    found = methods.verify(types.SimpleNamespace(), ranking(ROW), settings, 0)
    assert found.by_protocol["all"].tolist() == [[1, 0, 2, 3, 4, 5]]
    np.testing.assert_allclose(found.similarities, [[0.8, 0.9, 0.7, 0.6, 0.5, 0.4]])
    assert found.inliers.tolist() == [[40, 5, 0]]
    assert asked == [(0, [0, 1, 2])]


def test_each_protocol_clears_its_own_short_list(settings, asked):
    excluded = [{"easy": [1, 2], "hard": []}, {"easy": [], "hard": [5, 4, 3]}]
    rows = ROW, ROW[::-1]
    found = methods.verify(None, ranking(*rows), settings, 0, excluded).by_protocol
    assert found["easy"].tolist() == [[4, 3, 0, 5, 1, 2], [4, 5, 3, 2, 1, 0]]
    assert found["hard"].tolist() == [[1, 0, 2, 3, 4, 5], [1, 0, 2, 5, 4, 3]]
    assert found["all"].tolist() == [[1, 0, 2, 3, 4, 5], [4, 5, 3, 2, 1, 0]]
    assert asked == [(0, [0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4, 5])]


@pytest.mark.usefixtures("asked")
def test_the_combined_score_takes_effect(settings):
    row = ((0, 1.6), (3, 1.5), (2, 0.7), (1, 0.6), (4, 0.5), (5, 0.4))
    found = methods.verify(None, ranking(row), settings, 0)
    assert found.by_protocol["all"][0, :3].tolist() == [3, 0, 2]
    settings = dataclasses.replace(settings, score="combined")  # 1.6 + 5 / 70 and 1.5 + 20 / 70
    assert methods.verify(None, ranking(row), settings, 0).by_protocol["all"][0, 0] == 3
    row = ((0, 1.9), (3, 1.5), *row[2:])
    assert methods.verify(None, ranking(row), settings, 0).by_protocol["all"][0, 0] == 0


def test_images_without_features_are_not_verified_and_stay_last(settings, asked):
    row = (*ROW[:2], (3, 0.6), (5, 0.4), (2, -np.inf), (4, -np.inf))
    settings = dataclasses.replace(settings, short_list=400)
    found = methods.verify(None, ranking(row), settings, 0, [{"easy": [1]}])
    assert found.by_protocol["all"].tolist() == [[1, 5, 3, 0, 2, 4]]
    assert found.by_protocol["easy"].tolist() == [[5, 3, 0, 1, 2, 4]]
    assert found.inliers.tolist() == [[40, 30, 20, 5, 0, 0]]
    assert asked == [(0, [0, 1, 3, 5])]


@pytest.mark.usefixtures("asked")
def test_no_query_gives_nothing(settings):
    nothing = Ranking(np.zeros((0, 6), np.int32), np.zeros((0, 6), np.float32))
    found = methods.verify(None, nothing, settings, 0, [])
    assert found.by_protocol["all"].shape == (0, 6)
    assert found.inliers.shape == (0, 3)
