import json

import pytest

from delg_jax import configuration
from delg_jax.cli.main import run_experiment
from experiments import local_to_global
from tests.photographs import make_revisited
from tests.tiny import command_line, retrieval_config


def test_every_value_is_one_that_the_configuration_takes(tmp_path):
    config = retrieval_config(tmp_path)
    for section, fields in (
        ("search", local_to_global.SEARCH),
        ("rerank.mds", local_to_global.RERANK),
    ):
        for field, values in fields.items():
            assert len(set(values)) == len(values) > 1
            for value in values:
                configuration.override(config, {f"{section}.{field}": value})


def test_the_table_marks_what_is_configured():
    scores = {"local": {"easy": 1.0, "medium": 2.0, "hard": 3.0}}
    text = local_to_global.table("search.threshold", {"0.5": scores, "0.6": scores}, "0.6")
    assert text.splitlines()[2:] == ["| 0.5 | 2.00 / 3.00 |", "| 0.6 * | 2.00 / 3.00 |"]


@pytest.mark.slow
def test_each_field_has_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local_to_global, "SEARCH", {"threshold": (0.5, 0.6)})
    monkeypatch.setattr(local_to_global, "RERANK", {"weight": (0.0, 1.0), "dim": (2, 4)})
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    results = tmp_path / "results"
    arguments = [*command_line(config), f"--workdir={tmp_path / 'run'}", f"--results={results}"]
    assert run_experiment(local_to_global, [*arguments, "--graphs"]) == 0
    found = json.loads((results / "local_to_global.json").read_text())
    fields = ["base", "rerank.mds.weight", "rerank.mds.dim", "search.threshold"]
    assert list(found) == fields
    weights = found["rerank.mds.weight"]
    # Without weight the embedding changes nothing
    assert weights["0.0"]["local+mds"] == weights["0.0"]["local"]
    assert weights["0.0"]["local"] == weights["1.0"]["local"]
    for field in fields:
        assert f"| {field} |" in capsys.readouterr().out or field in found
