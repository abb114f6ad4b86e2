"""Images and queries without features: last in every ranking, worth nothing, counted."""

import numpy as np
import pytest

from delg_jax.data.sources import FileSource, Landmarks, RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks, revisited
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.extractor import Features
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval import methods, ranking
from delg_jax.retrieval.ranking import Ranked
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search.engine_choice import SearchSettings, engine
from delg_jax.search.graph import SimilarityGraph
from tests import tiny

COUNT, GONE, LOST = 14, 5, 1  # images; one that was skipped; a query that was skipped
QUERIES = 3


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def image(rng):
    ones = np.ones(8, np.float32)
    places = rng.uniform(0, 99, (8, 2)).astype(np.float32)
    return Features(unit(rng, 16), LocalFeatures(places, ones, ones, unit(rng, 8, 16), ones > 0))


def source(names):
    return FileSource(None, names, np.full(len(names), -1))


def made(folder, encoding="float32", without=()):
    """Random features of which one image and one query were skipped, or left out."""
    rng = np.random.default_rng(3)
    rows = [image(rng) for _ in range(COUNT + QUERIES)]
    rows[GONE] = rows[COUNT + LOST] = "truncated"
    numbers = [n for n in range(COUNT) if n not in without]
    stores, sources = [], []
    for part, mine in (("database", numbers), ("queries", range(COUNT, COUNT + QUERIES))):
        names = [f"image{n}" for n in mine]
        layout = Layout(4, local_encoding=encoding, max_features=8)
        store = FeatureStore.prepare(folder / part, names, layout)
        for start in range(0, len(names), 4):
            block = range(start, min(start + 4, len(names)))
            store.write(block, [rows[mine[place]] for place in block])
        stores.append(store)
        sources.append(source(names))
    truth = [{"bbx": [0] * 4, "easy": [0], "hard": [1], "junk": [2]} for _ in range(QUERIES)]
    return Extracted(RetrievalData(*sources, truth), *stores, "drawn")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Of all images, for tests that write nothing."""
    return made(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    """Without the image that was skipped."""
    return made(tmp_path_factory.mktemp("rest"), without=(GONE,))


def settings(**search):
    config = tiny.tiny_config()
    config.search.threshold = 0.0
    for name, value in search.items():
        config.search[name] = value
    config.rerank.sp.hypotheses, config.rerank.sp.min_inliers = 50, 1
    config.rerank.sp.pair_block = 2  # on each of eight devices
    config.rerank.mds.dim = 4
    config.rerank.qe.images = 20  # more than there are
    config.rerank.diffusion.neighbours = config.rerank.diffusion.query_neighbours = 20
    return config


def graph_of(kind, extracted, config):
    if kind == "global":
        descriptors = extracted.database.global_descriptors()
        similarities = descriptors @ descriptors.T
    else:
        local = extracted.database.local_features(0, config.search.packed)
        search = engine(local, SearchSettings.of(config.search))
        similarities = search(local.descriptors, local.mask)
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


def ranks_of(method, extracted, config, depth=0):
    first = methods.search(method, extracted, SearchSettings.of(config.search), depth=depth)
    if method.endswith("+sp"):
        return methods.verify(extracted, first, RerankSettings.of(config.rerank).sp, 0).by_protocol[
            "all"
        ]
    graph = None
    if methods.graph_name(method, config.rerank.mds):
        graph = graph_of(method.split("+")[0], extracted, config)
    return methods.rerank(method, extracted, first, graph, RerankSettings.of(config.rerank)).images


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_skipped_image_is_last_and_changes_nothing_else(extracted, rest, method):
    config = settings()
    found = ranks_of(method, extracted, config)
    assert found[:, -1].tolist() == [GONE] * QUERIES
    if not method.endswith("+sp"):  # whose random draws go by the numbers of the images
        others = ranks_of(method, rest, config)
        others = others + (others >= GONE)
        asked = np.arange(QUERIES) != LOST
        np.testing.assert_array_equal(found[asked, :-1], others[asked])
    np.testing.assert_array_equal(np.sort(found), [range(COUNT)] * QUERIES)


@pytest.mark.parametrize("method", [name for name in methods.METHODS if "diffusion" not in name])
def test_a_short_ranking_has_it_only_if_nothing_else_is_left(extracted, method):
    config = settings()
    for depth in (COUNT - 1, 6):
        assert GONE not in ranks_of(method, extracted, config, depth)


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_short_list_does_not_hold_it(extracted, method):
    config = settings()
    for name in ("sp", "superglobal", "mds"):
        config.rerank[name].short_list = COUNT
    assert ranks_of(method, extracted, config)[:, -1].tolist() == [GONE] * QUERIES


@pytest.mark.parametrize(
    ("encoding", "search"),
    [
        ("float32", {"engine": "exact", "local_block": 3}),
        ("float16", {"engine": "exact", "query_block": 2, "idf_images": 4}),
        ("int8", {"engine": "exact"}),
        ("int8", {"engine": "exact", "packed": True}),
        ("sign", {"engine": "exact", "packed": True}),
        ("float32", {"engine": "ivf"}),
        ("int8", {"engine": "ivf"}),
        ("float32", {"engine": "cann"}),
        ("float32", {"engine": "ivf", "candidates": COUNT, "idf_images": 4}),
        ("sign", {"engine": "cann"}),
    ],
)
def test_every_engine_puts_it_last(tmp_path, encoding, search):
    config = settings(**search)
    if search["engine"] == "ivf":
        config.search.ivf.count = 4
    found = methods.rank_locally(made(tmp_path, encoding), SearchSettings.of(config.search))
    assert found.images[:, -1].tolist() == [GONE] * QUERIES
    assert (found.similarities[:, -1] == -np.inf).all()
    assert np.isfinite(found.similarities[:, :-1]).all()


@pytest.mark.parametrize("block", [1, 3, 5, 65_536])
def test_global_search_puts_it_behind_negative_cosines(extracted, block):
    config = settings(global_block=block)
    found = methods.rank_globally(extracted, config.search.global_block)
    assert (found.similarities[[0, 2], -2] < 0).all()
    assert found.images[:, -1].tolist() == [GONE] * QUERIES


def test_rankings_are_marked_where_nothing_was_compared(extracted):
    first = methods.rank_globally(extracted, settings().search.global_block)
    given = {"all": first.images, "hard": first.images[:, ::-1]}
    found = ranking.mark_skipped(Ranked(given, first.similarities), extracted, "global")
    asked = np.arange(QUERIES) != LOST
    for name, ranks in found.by_protocol.items():
        assert (ranks[LOST] == -1).all()
        expected = np.where(given[name] == GONE, -1, given[name])[asked]
        np.testing.assert_array_equal(ranks[asked], expected)
    assert (found.similarities[LOST] == -np.inf).all()
    np.testing.assert_array_equal(found.similarities[asked], first.similarities[asked])


def test_a_skipped_query_scores_zero_and_skipped_positives_are_not_found(extracted):
    truth = [{"easy": [GONE, GONE + 1], "hard": [], "junk": []}] * QUERIES
    perfect = [n for n in range(COUNT) if n not in (GONE, GONE + 1)]
    images = np.array([[GONE + 1, *perfect, GONE]] * QUERIES)
    marked = ranking.mark_skipped(Ranked({"all": images}), extracted, "local")
    found = revisited.by_protocol(marked.by_protocol, truth, (1, 5))
    assert found.average_precisions["easy"] == [50, 0, 50]
    assert found.metrics["easy"]["mp@5"] == pytest.approx(100 * (1 / 5 + 0 + 1 / 5) / 3)
    whole = revisited.evaluate(np.array([[GONE, *perfect[:-1], GONE + 1]] * QUERIES).T, truth)
    assert found.metrics["easy"]["map"] < 100 * whole["easy"]["map"]


def test_skips_are_counted(extracted):
    truth = [
        {"easy": [GONE], "hard": [1], "junk": [2]},
        {"easy": [3], "hard": [GONE], "junk": []},
        {"easy": [3], "hard": [], "junk": [GONE]},
    ]
    data = RetrievalData(extracted.data.database, extracted.data.queries, truth)
    counted = ranking.count_skipped(extracted._replace(data=data), "global")
    assert counted == {"images": 1, "queries": 1, "positives": 2}
    names = extracted.data.queries.names
    answers = {names[0]: ["image5", "image6", "elsewhere"], names[1]: ["image1"]}
    answers |= {names[2]: ["image2"], "unprepared": ["image5"]}
    data = RetrievalData(*extracted.data.__dict__.values())
    data = RetrievalData(data.database, data.queries, truth, None, answers, 7)
    counted = ranking.count_skipped(extracted._replace(data=data), "global")
    assert counted == {"images": 8, "queries": 2, "positives": 3}


def test_the_line_says_what_was_skipped():
    nothing = {"images": 0, "queries": 0, "positives": 0}
    assert ranking.skipped_line({}) == ranking.skipped_line({"skipped": {"global": nothing}}) == ""
    result = {"skipped": {"global": nothing, "local": {"images": 2, "queries": 1, "positives": 3}}}
    assert ranking.skipped_line(result) == (
        "skipped in local search, and counted as not found: 2 database images (3 times one to be "
        "found), 1 queries"
    )


def test_predictions_leave_out_what_was_skipped(extracted):
    landmarks = Landmarks(np.arange(COUNT), [[0]] * QUERIES)
    data = RetrievalData(extracted.data.database, extracted.data.queries, [], landmarks)
    first = methods.rank_globally(extracted, settings().search.global_block)
    ranked = ranking.mark_skipped(
        Ranked({"all": first.images}, first.similarities), extracted, "global"
    )
    said = gldv2_tasks.predictions("retrieval", ranked, data, 1)
    assert list(said) == ["image14", "image16"]
    assert all(len(row) == COUNT - 1 and "image5" not in row for row in said.values())
    said = gldv2_tasks.predictions("recognition", ranked, data, COUNT)
    assert list(said) == ["image14", "image16"]
    assert all(one["class"] != GONE for one in said.values())


@pytest.mark.parametrize("part", ["database", "queries"])
@pytest.mark.parametrize("kind", ["global", "local"])
def test_nothing_to_compare_is_an_error(extracted, tmp_path, part, kind):
    names = ["a", "b"]
    store = FeatureStore.prepare(tmp_path / "bare", names, Layout(4, max_features=8))
    bare = image(np.random.default_rng(0))
    empty = LocalFeatures(*(field[:0] for field in bare.local))
    store.write(range(2), [Features(np.zeros(16, np.float32), empty)] * 2)
    extracted = extracted._replace(**{part: store})
    with pytest.raises(UserError, match=f"features = '{part}': .* no {kind} features"):
        methods.search(kind, extracted, SearchSettings.of(settings().search))
