import pytest

from experiments.framework.ablation import ablate, ablation_table
from tests.photographs import make_revisited
from tests.tiny import retrieval_config


@pytest.mark.slow
def test_each_field_has_its_values(tmp_path):
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    rerank, search = {"weight": (0.0, 1.0), "dim": (2, 4)}, {"threshold": (0.5, 0.6)}
    found = dict(ablate(config, tmp_path / "run", rerank, search, graphs=True))
    assert list(found) == ["base", "rerank.mds.weight", "rerank.mds.dim", "search.threshold"]
    weights = found["rerank.mds.weight"]
    # Without weight the embedding changes nothing
    assert weights["0.0"]["local+mds"] == weights["0.0"]["local"]
    assert weights["0.0"]["local"] == weights["1.0"]["local"]
    thresholds = found["search.threshold"]
    assert thresholds["0.6"] == found["base"]["as configured"]
    assert list(thresholds["0.5"]) == ["local", "local+mds", "local+mds+global"]


def test_the_table_marks_the_configured_value():
    scores = {"local": {"easy": 1.0, "medium": 2.0, "hard": 3.0}}
    empty = {"local": {"easy": 1.0, "medium": 2.0, "hard": None}}
    text = ablation_table("search.threshold", {"0.5": scores, "0.6": empty}, "0.6")
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert found[0] == ["search.threshold", "local M / H"]
    assert found[2:] == [["0.5", "2.00 / 3.00"], ["0.6 *", "2.00 / -"]]
