import dataclasses

import pytest

from delg_jax.errors import UserError
from delg_jax.reports.explorer import Explorer, PageSettings
from delg_jax.reports.method_results import RIGHT, UNKNOWN, collect_results
from delg_jax.reports.workdir_results import read
from tests.reports import workdirs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("explorer")
    return read(workdirs.make(root / "run", root / "data"))


def content(runs, **settings):
    results = {f"{result.run}: {result.method}": result for result in collect_results(runs)}
    return Explorer(runs, results, PageSettings(**settings)).content()


def test_every_query_has_its_results_pictures_and_matches(run):
    page = content([run], top=3)
    assert sorted(query["name"] for query in page["queries"]) == [f"query{i}" for i in range(4)]
    assert [(result["firstStage"], result["baseline"]) for result in page["methods"]] == [
        (None, None),
        (0, None),
        (None, None),
    ]
    for query in page["queries"]:
        number = query["number"]
        hits = query["found"][page["protocols"].index("medium")][1]
        best = page["images"][hits[0][0]]
        assert best == f"place{number}_near"
        assert hits[0][1:] == [RIGHT, 1, 7]
        assert page["pictures"][query["picture"]][0].startswith("data:image/jpeg")
        assert query["box"] == [0, 0, 1000, 1000]
        found = page["matches"][f"0/{number}/{hits[0][0]}"]
        assert found["inliers"] == 30
        assert page["spots"][f"0/q{number}"]
        assert page["spots"][f"0/{hits[0][0]}"]
    pictured = set(page["imagePictures"])
    assert pictured == set(range(len(page["images"])))


def test_two_runs_share_pictures_and_not_matches(run):
    one, two = content([run]), content([run, run])
    assert len(two["pictures"]) == len(one["pictures"])
    assert set(two["matches"]) == {f"{n}{key[1:]}" for key in one["matches"] for n in (0, 1)}
    assert [result["baseline"] for result in two["methods"]] == [None, None, None, 0, 1, 2]


def test_settings_bound_what_goes_in(run):
    page = content([run], top=2, queries=3, pictures=1, megabytes=0)
    assert len(page["queries"]) == 3
    assert page["pictures"] == []
    assert page["leftOut"] > 0
    assert {key.split("/")[1] for key in page["matches"]} == {str(page["queries"][0]["number"])}
    assert "picture" not in page["queries"][1]
    assert all(len(hits) == 2 for by_method in page["queries"][2]["found"] for hits in by_method)


def test_without_data_or_features_there_is_still_a_list(run):
    page = content([dataclasses.replace(run, data=None)])
    assert page["pictures"] == []
    assert page["matches"]
    assert page["queries"][0]["box"] is None
    kinds = {hit[1] for hits in page["queries"][0]["found"][0] for hit in hits}
    assert kinds == {UNKNOWN}
    page = content([dataclasses.replace(run, database=None, queries=None)])
    assert page["pictures"]
    assert page["matches"] == page["spots"] == {}


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"queries": -1}, {"pictures": -1}, {"megabytes": float("nan")}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        PageSettings(**wrong)
