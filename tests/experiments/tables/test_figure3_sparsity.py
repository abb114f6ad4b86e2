import json

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.sweeps import sweep
from experiments.framework import plan, trainings
from experiments.framework.plan import Options
from experiments.tables import figure3_sparsity
from tests import charts

NAMES = ["stopped conv4", "stopped conv5", "flowing conv4", "flowing conv5"]


@pytest.mark.parametrize("size", ["paper", "quick"])
def test_networks_differ_only_in_the_gradients(size, tmp_path):
    runs = plan.trainings(figure3_sparsity.EXPERIMENT, Options(size, tmp_path, "D", "W"))
    stopped, flowing = (dict(run.overrides) for run in runs)
    assert flowing.pop("model.stop_gradient") is False
    assert "model.stop_gradient" not in stopped  # as configured
    assert stopped == flowing


def test_at_size_paper_they_are_those_of_the_tables():
    networks = figure3_sparsity.NETWORKS["paper"]
    assert networks == {"stopped": trainings.JOINT, "flowing": trainings.FLOWING}


def test_curves_come_from_the_metrics_of_the_runs(monkeypatch, capsys, tmp_path):
    def train(config, workdir, overwrite):
        (workdir / "logs").mkdir(parents=True)
        flowing = 0.0 if config.model.stop_gradient else 0.25
        later = config.seed / 100
        records = [
            {
                "step": s,
                "sparsity_conv4": s / 400 + flowing + later,
                "sparsity_conv5": 0.5 + flowing,
            }
            for s in (1, 100)
        ]
        records.append({"step": 100, "validation_loss": 1.0})
        text = "\n".join(json.dumps(record) for record in records)
        (workdir / "logs" / "metrics.jsonl").write_text(text)
        assert config.train.steps == 300
        return {}

    monkeypatch.setattr(sweep, "VERBS", {"train": train, "evaluate": None})
    results = tmp_path / "results"
    arguments = [f"--workdir={tmp_path / 'runs'}", f"--results={results}", "--size=quick"]
    assert run_experiment(figure3_sparsity, [*arguments, "--seed=0", "--seed=2"]) == 0
    content = json.loads((results / "figure3_sparsity_quick.json").read_text())
    assert list(content["curves"]) == NAMES
    found = content["curves"]["flowing conv4"]
    assert [step for step, _ in found] == [1, 100]
    assert [value for _, value in found] == pytest.approx([0.2625, 0.51])
    assert "| flowing conv5 | 75.0 % | 75.0 % |" in capsys.readouterr().out
    curves, texts = charts.read((results / "figure3_sparsity_quick.svg").read_text())
    assert len(curves) == 4
    (x1, y1), (x2, y2) = curves[2]
    assert x1 < x2
    assert y1 > y2  # upward is less
    assert [text for text in texts if text in NAMES] == NAMES


@pytest.mark.parametrize("arguments", [["--size=huge"], ["stray"]])
def test_invalid_flags_are_one_line_errors(capsys, tmp_path, arguments):
    assert run_experiment(figure3_sparsity, [f"--workdir={tmp_path}", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
