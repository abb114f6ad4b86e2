import pytest

from delg_jax import configuration, json_files
from delg_jax.cli.main import run_experiment
from experiments.local_to_global import table as table_module
from tests.experiments.test_tables import SMOKE
from tests.tiny import retrieval_config


def test_every_value_of_the_ablation_is_valid(tmp_path):
    config = retrieval_config(tmp_path)
    for section, fields in (
        ("search", table_module.SEARCH),
        ("rerank.mds", table_module.RERANK),
    ):
        for field, values in fields.items():
            assert len(set(values)) == len(values) > 1
            for value in values:
                configuration.override(config, {f"{section}.{field}": value})


@pytest.mark.slow
def test_the_ablation_reuses_the_features_of_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(table_module, "SEARCH", {"threshold": (0.5, 0.6)})
    monkeypatch.setattr(table_module, "RERANK", {"weight": (0.0, 1.0)})
    arguments = [f"--workdir={tmp_path}", f"--results={tmp_path}", "--size=quick", "--ablate"]
    arguments += [f"--set={change}" for change in SMOKE]
    assert run_experiment(table_module, arguments) == 0
    found = json_files.read(
        (tmp_path / "local_to_global_ablation_quick.json"), "results", json_files.anything
    )
    table = json_files.read(
        (tmp_path / "local_to_global_quick.json"), "results", json_files.anything
    )
    whole = {(cell["row"], cell["column"]): cell["ours"] for cell in table["cells"]}
    base = found["base"]["as configured"]["local"]["medium"]
    assert base == pytest.approx(whole["local", "rendered Medium"])
    assert list(found) == ["base", "rerank.mds.weight", "search.threshold"]
    assert "| search.threshold |" in capsys.readouterr().out
    assert len(list((tmp_path / "features").iterdir())) == 1
    monkeypatch.setattr(table_module, "SEARCH", {"threshold": (0.5, 0.7)})
    assert run_experiment(table_module, [*arguments, "--fields=search.threshold"]) == 0
    again = json_files.read(
        (tmp_path / "local_to_global_ablation_quick.json"), "results", json_files.anything
    )
    assert list(again) == list(found)
    assert again["rerank.mds.weight"] == found["rerank.mds.weight"]
    assert list(again["search.threshold"]) == ["0.5", "0.7"]


def test_an_unknown_field_is_named(tmp_path, capsys):
    arguments = [f"--workdir={tmp_path}", "--ablate", "--fields=rerank.mds.wieght"]
    assert run_experiment(table_module, arguments) == 2
    assert "--fields = 'rerank.mds.wieght': " in capsys.readouterr().err
