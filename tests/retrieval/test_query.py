import numpy as np
import pytest
from PIL import Image

from delg_jax.errors import UserError
from delg_jax.features import extract
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.retrieval import methods
from delg_jax.retrieval.query import search_image
from delg_jax.retrieval.searcher import Searcher
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.index import build_index
from delg_jax.training import trained_network
from tests import photographs, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration and a workdir with extracted features, of a network drawn by NumPy."""
    root = tmp_path_factory.mktemp("query")
    config = tiny.revisited_config(photographs.make_revisited(root / "data"))
    config.rerank.diffusion.spread = 0.3  # all images of a random network are alike
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        extract(config, root / "run")
        yield config, root / "run", root / "data" / "jpg"


def opened(config, workdir, picture, box=None):
    """A searcher, and the query of a picture."""
    searcher = Searcher(config, workdir)
    return searcher, searcher.query(np.asarray(Image.open(picture)), box)


@pytest.fixture(scope="module")
def asked(place):
    """A searcher, and the query of the first query's picture: `search_image` opens one each."""
    config, workdir, pictures = place
    return opened(config, workdir, pictures / "query0.jpg", (0, 0, 112, 96))


def test_a_searcher_that_is_kept_finds_the_same(place, asked):
    config, workdir, pictures = place
    box = (0, 0, 112, 96)
    for method in ("global", "local+sp"):
        hits = search_image(config, workdir, pictures / "query0.jpg", box, method, top=100)
        assert hits == asked[0].search(asked[1], method, 100).hits


def names(hits):
    return [hit.name for hit in hits]


def expected(method, config, workdir):
    """The ranking of the first query, as evaluation has it, and its scores unless inliers."""
    extracted = extract(config, workdir)
    if method.startswith("global"):
        first = methods.rank_globally(extracted, config.search.global_block)
    else:
        first = methods.rank_locally(extracted, SearchSettings.of(config.search))
    if method.endswith("+sp"):
        ranked = methods.verify(extracted, first, RerankSettings.of(config.rerank).sp, config.seed)
        order = ranked.by_protocol["all"]
        return [extracted.database.names[index] for index in order[0]], None
    kind = method.split("+")[0]
    graph = build_index(config, workdir, extracted=extracted, features=kind)
    found = methods.rerank(method, extracted, first, graph, RerankSettings.of(config.rerank))
    return [extracted.database.names[index] for index in found.images[0]], found.similarities[0]


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_query_is_ranked_as_in_evaluation(place, asked, method):
    config, workdir, _ = place
    hits = asked[0].search(asked[1], method, 100).hits
    order, scores = expected(method, config, workdir)
    assert names(hits) == order
    if scores is not None:
        np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-3, atol=1e-4)
    assert hits[0].name == "place0_near"


def test_scores_are_similarities_and_inliers(place):
    config, workdir, pictures = place
    picture = pictures / "place2_near.jpg"
    hits = search_image(config, workdir, picture, method="global", top=3)
    assert len(hits) == 3
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].score >= hits[1].score >= hits[2].score
    inliers = search_image(config, workdir, picture, method="global+sp")
    assert inliers[0].name == "place2_near"
    assert inliers[0].score == int(inliers[0].score) > 4


@pytest.fixture(scope="module")
def scored(place):
    """A searcher that lists few images, and a query."""
    config, workdir, pictures = place
    config = config.copy_and_resolve_references()
    config.rerank.mds.short_list, config.search.threshold = 3, 0.1
    config.rerank.diffusion.neighbours = 2
    workdir = workdir.parent / "scores"
    workdir.mkdir()
    (workdir / "features").symlink_to(place[1] / "features")
    return opened(config, workdir, pictures / "place1_near.jpg")


@pytest.mark.parametrize(
    "method", [name for name in methods.METHODS if "superglobal" not in name and "+sp" not in name]
)
def test_hits_carry_the_score_that_ranks_them(scored, method):
    searcher, query = scored
    scores = [hit.score for hit in searcher.search(query, method, 100).hits]
    assert scores == sorted(scores, reverse=True)
    listed = 3 if "mds" in method else len(scores)
    assert np.isfinite(scores[:listed]).all()
    assert scores[listed:] == [-np.inf] * (len(scores) - listed)
    if method != method.split("+")[0]:
        plain = searcher.search(query, method.split("+")[0], 100).hits
        assert scores != [hit.score for hit in plain]


def test_a_box_changes_what_is_looked_for(place):
    config, workdir, pictures = place
    whole = search_image(config, workdir, pictures / "query0.jpg")
    part = search_image(config, workdir, pictures / "query0.jpg", (60, 40, 110, 90))
    assert [hit.score for hit in whole] != [hit.score for hit in part]


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"image": "absent.jpg"}, "--image"),
        ({"image": "../gnd_drawn.json"}, "--image"),
        ({"box": (500, 500, 600, 600)}, "--box"),
        ({"method": "magic"}, "--method"),
        ({"top": 0}, "--top"),
    ],
)
def test_mistakes_are_named(place, changes, subject):
    config, workdir, pictures = place
    arguments = {"image": "query0.jpg"} | changes
    with pytest.raises(UserError) as raised:
        search_image(config, workdir, pictures / arguments.pop("image"), **arguments)
    assert raised.value.subject == subject


def test_a_network_without_local_head_cannot_search_locally(place):
    config, workdir, pictures = place
    config = config.copy_and_resolve_references()
    config.model.local_head = False
    with pytest.raises(UserError, match="'local': .*local features"):
        search_image(config, workdir, pictures / "query0.jpg", method="local")
    one = InMemoryFeatures([Features(np.ones(2, np.float32), None)])
    with pytest.raises(UserError, match="no local features"):
        one.local_features(3)


def test_features_in_memory_are_cut_and_rounded_as_in_a_store(rng):
    def features():
        descriptors = rng.normal(size=(4, 3)).astype(np.float32)
        scores, mask = np.array([3, 2, 1, 0], np.float32), np.array([True, True, True, False])
        return LocalFeatures(np.zeros((4, 2), np.float32), scores, scores, descriptors, mask)

    images = [Features(np.full(2, i, np.float32), features()) for i in range(2)]
    held = InMemoryFeatures(images, "float16")
    local = held.local_features(2)
    assert len(held) == 2
    assert local.mask.shape == (2, 2)
    assert local.descriptors.dtype == np.float16
    wanted = images[1].local.descriptors[:2].astype(np.float16)
    np.testing.assert_array_equal(local.descriptors[1], wanted)
    assert held.local_features(0).mask.shape == (2, 4)
    np.testing.assert_array_equal(held.global_descriptors(), [[0, 0], [1, 1]])
    pooled = InMemoryFeatures([Features(np.full(2, 0.1, np.float32), None)], "sign", "float16")
    assert pooled.global_descriptors().dtype == np.float32
    np.testing.assert_array_equal(pooled.global_descriptors(), np.float16([[0.1, 0.1]]))
