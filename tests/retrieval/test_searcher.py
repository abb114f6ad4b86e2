import concurrent.futures

import numpy as np
import pytest
from PIL import Image

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features import network
from delg_jax.retrieval import methods, searcher
from delg_jax.retrieval.searcher import Searcher
from delg_jax.training import trained_network
from tests import photographs, tiny


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A searcher over eight pictures of four places, and the folder of the pictures."""
    root = tmp_path_factory.mktemp("searcher")
    config = tiny.revisited_config(photographs.make_revisited(root / "data"))
    config = configuration.override(config, {"extract.max_size": 256})
    loads, load = [], network.load_model

    def counted(*arguments):
        loads.append(arguments)
        return load(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        patch.setattr(network, "load_model", counted)
        made = Searcher(config, root / "run")
    assert len(loads) == 1
    return made, root / "data" / "jpg"


def picture(opened, name):
    return np.asarray(Image.open(opened[1] / f"{name}.jpg"))


def test_one_query_is_searched_by_every_method(opened):
    assert opened[0].methods == methods.METHODS
    query = opened[0].query(picture(opened, "query1"))
    for method in opened[0].methods:
        found = opened[0].search(query, method, top=3)
        if method in ("global", "local") or method.endswith("+sp"):
            assert found.hits[0].name == "place1_near", method
        assert [opened[0].source.names[hit.image] for hit in found.hits] == [
            hit.name for hit in found.hits
        ]
        assert list(found.milliseconds) == ["features", "search", "rerank"]
        assert min(found.milliseconds.values()) >= 0
        assert found.milliseconds["features"] == query.milliseconds > 0


def test_the_database_is_read_once(opened, monkeypatch):
    def search_all():
        query = opened[0].query(picture(opened, "query2"))
        return [opened[0].search(query, method).hits for method in opened[0].methods]

    before = search_all()
    for name in ("global_descriptors", "local_features"):
        monkeypatch.setattr(type(opened[0]._stored.database), name, None)
    monkeypatch.setattr(searcher, "build_index", None)
    monkeypatch.setattr(methods, "open_locally", None)
    assert search_all() == before


def test_matches_count_as_many_inliers_as_the_ranking(opened):
    query = opened[0].query(picture(opened, "query3"))
    hits = opened[0].search(query, "global+sp", top=4).hits
    assert hits[0].score > 4
    least = opened[0].config.rerank.sp.min_inliers
    for hit in hits:
        inliers = int(opened[0].matches(query, hit.image).verification.inlier_mask.sum())
        assert hit.score == (inliers if inliers >= least else 0)


def test_locations_of_a_box_are_those_in_the_whole_picture(opened):
    whole = picture(opened, "place0_near")
    query = opened[0].query(whole, (16, 8.4, 112, 96))
    assert (query.size, query.corner) == ((96, 112), (8, 16))
    found = opened[0].matches(query, opened[0].source.names.index("place0_near"))
    mask = found.verification.inlier_mask
    assert mask.sum() >= 5
    first, second = (side[mask] for side in found.locations)
    np.testing.assert_allclose(np.median(first - second, axis=0), 0, atol=8)
    assert opened[0].query(whole, (-5, -5, 50, 50)).corner == (0, 0)


def test_a_verdict_compares_inliers_with_those_of_wrong_images(opened):
    searched = opened[0]
    query = searched.query(picture(opened, "query3"))
    hits = searched.search(query, "global", top=8).hits
    verdict = searched.judge(query, hits)
    names = [hit.name for hit in hits]
    counts = [
        int(searched.matches(query, hit.image).verification.inlier_mask.sum()) for hit in hits
    ]
    assert verdict.inliers == counts
    assert verdict.levels[names.index("place3_near")] != "chance"
    assert verdict.levels.count("chance") >= 5
    assert set(verdict.levels[verdict.likely :]) <= {"chance"}
    assert verdict.levels[verdict.likely - 1] != "chance"
    assert verdict.least["strong"] > verdict.least["weak"] > 0
    assert searched.judge(query, []).likely == 0


def test_an_abandoned_search_leaves_the_device(opened, monkeypatch):
    searched, stages = opened[0], []
    query = searched.query(picture(opened, "query1"))
    monkeypatch.setattr(searched, "_rerank", lambda *_: stages.append("rerank"))
    asked = iter([True, False])
    with pytest.raises(searcher.Abandoned):
        searched.search(query, "global", 1, lambda: next(asked))
    for call in (searched.search, searched.judge):
        given = (query, "global", 1) if call == searched.search else (query, [])
        with pytest.raises(searcher.Abandoned):
            call(*given, lambda: False)
    assert stages == []
    assert not searched._device.locked()


def test_the_best_method_needs_no_graph_that_is_not_built(opened, monkeypatch):
    for built, best in ((False, "global+sp"), (True, "local+mds")):
        monkeypatch.setattr(searcher, "is_built", lambda root, kind, built=built: built)
        assert opened[0].best_method == best


def test_a_picture_of_nothing_known_is_probably_not_there(opened):
    query = opened[0].query(photographs.draw(77, 96, 112))
    verdict = opened[0].judge(query, opened[0].search(query, "local", top=8).hits)
    assert "strong" not in verdict.levels


def test_warming_up_changes_no_answer(opened, caplog):
    caplog.set_level("INFO", logger="delg_jax")
    query = opened[0].query(picture(opened, "query1"))
    before = opened[0].search(query, "local+sp", 3).hits
    opened[0].warm_up()
    assert "warm up: " in caplog.text
    programs = set(opened[0].compiled_shapes)
    assert (
        opened[0].search(opened[0].query(picture(opened, "query1")), "local+sp", 3).hits == before
    )
    for shape in ((96, 40), (130, 200), (250, 255), (300, 200)):  # of no photograph of the database
        opened[0].query(photographs.draw(5, *shape))
    assert set(opened[0].compiled_shapes) == programs


def test_threads_get_what_one_alone_gets(opened):
    names = ["query0", "query1", "place2_far"]

    def search(name):
        query = opened[0].query(picture(opened, name))
        hits = opened[0].search(query, "local+sp", 5).hits
        return hits, opened[0].matches(query, hits[0].image).verification.matches.tolist()

    alone = [search(name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(search, names * 2)) == alone * 2


def test_mistakes_are_named(opened):
    query = opened[0].query(picture(opened, "query0"))
    for subject, call in {
        "--box": lambda: opened[0].query(picture(opened, "query0"), (500, 0, 600, 9)),
        "--method": lambda: opened[0].search(query, "magic"),
        "--top": lambda: opened[0].search(query, "global", 0),
        "image": lambda: opened[0].matches(query, 8),
    }.items():
        with pytest.raises(UserError) as raised:
            call()
        assert raised.value.subject == subject


def test_a_method_that_a_mistake_leaves_out_is_named(opened, caplog):
    config = opened[0].config.copy_and_resolve_references()
    config.rerank.mds.background_rank = 1001
    found = searcher.possible_methods(config)
    assert set(methods.METHODS) - set(found) == {"local+mds", "local+mds+global"}
    fault = "config.rerank.mds.background_rank = 1001: "
    assert [fault in message for message in caplog.messages] == [True, True]


def test_methods_depend_on_the_configuration(opened):
    config = opened[0].config.copy_and_resolve_references()
    config.model.local_head = False
    found = searcher.possible_methods(config)
    assert found == ("global", "global+superglobal", "global+qe", "global+diffusion")
    config.rerank.mds.method = "magic"
    with pytest.raises(UserError, match=r"config\.rerank\.mds\.method = 'magic': .*smacof"):
        searcher.possible_methods(config)
