import json

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.sweeps import sweep
from experiments.tables import figure3_sparsity
from tests import charts
from tests.experiments.tables.test_quickstart_seeds import CONFIG

NAMES = ["stopped conv4", "stopped conv5", "flowing conv4", "flowing conv5"]


def test_runs_differ_only_in_the_gradients():
    runs = figure3_sparsity.runs()
    assert [run.overrides for run in runs] == [
        {"model.stop_gradient": True},
        {"model.stop_gradient": False},
    ]
    assert {run.verbs for run in runs} == {("train",)}


def test_curves_come_from_the_metrics_of_the_runs(monkeypatch, capsys, tmp_path):
    def train(config, workdir, overwrite):
        (workdir / "logs").mkdir(parents=True)
        flowing = 0.0 if config.model.stop_gradient else 0.25
        records = [
            {"step": s, "sparsity_conv4": s / 400 + flowing, "sparsity_conv5": 0.5 + flowing}
            for s in (1, 100)
        ]
        records.append({"step": 100, "validation_loss": 1.0})
        text = "\n".join(json.dumps(record) for record in records)
        (workdir / "logs" / "metrics.jsonl").write_text(text)
        assert config.train.steps == figure3_sparsity.SIZES["quick"]["train.steps"]
        return {}

    monkeypatch.setattr(sweep, "VERBS", {"train": train, "evaluate": None})
    arguments = [CONFIG, f"--workdir={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}"]
    assert run_experiment(figure3_sparsity, [*arguments, "--size=quick"]) == 0
    content = json.loads((tmp_path / "results" / "figure3_sparsity.json").read_text())
    assert list(content["curves"]) == NAMES
    assert content["curves"]["flowing conv4"] == [[1, 0.2525], [100, 0.5]]
    assert "| flowing conv5 | 75.0 % | 75.0 % |" in capsys.readouterr().out
    curves, texts = charts.read((tmp_path / "results" / "figure3_sparsity.svg").read_text())
    assert len(curves) == 4
    (x1, y1), (x2, y2) = curves[2]
    assert x1 < x2
    assert y1 > y2  # upward is less
    assert [text for text in texts if text in NAMES] == NAMES


@pytest.mark.parametrize("arguments", [["--size=huge"], ["stray"]])
def test_invalid_flags_are_one_line_errors(capsys, tmp_path, arguments):
    assert run_experiment(figure3_sparsity, [CONFIG, f"--workdir={tmp_path}", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
