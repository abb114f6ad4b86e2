import json
from pathlib import Path

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.sweeps import sweep
from experiments.tables import quickstart_seeds

CONFIG = f"--config={Path(__file__).parents[3] / 'configs' / 'quickstart.py'}:smoke"
METHODS = ("global", "global+sp", "local", "local+mds")


def test_each_seed_has_an_untrained_and_a_trained_run():
    runs = quickstart_seeds.runs()
    assert len({run.name for run in runs}) == len(runs) == 6
    for run in runs:
        assert run.overrides["seed"] == run.overrides["data.synthetic.seed"]
        assert run.verbs == quickstart_seeds.GROUPS[run.group]
    assert {run.overrides["seed"] for run in runs} == {0, 1, 2}


def test_the_tables_have_a_row_for_each_method_and_gain(monkeypatch, capsys, tmp_path):
    def evaluate(config, workdir, overwrite):
        scores = {p: {"map": 10.0 * config.seed} for p in ("easy", "medium", "hard")}
        return {"methods": dict.fromkeys(METHODS, scores)}

    verbs = {"train": lambda config, workdir, overwrite: {}, "evaluate": evaluate}
    monkeypatch.setattr(sweep, "VERBS", verbs)
    arguments = [CONFIG, f"--workdir={tmp_path}", "--seed=1", "--seed=2", f"--results={tmp_path}"]
    assert run_experiment(quickstart_seeds, arguments) == 0
    output = capsys.readouterr().out
    for group in ("untrained", "trained"):
        for method in METHODS:
            assert f"| {group}, {method} " in output
        assert f"| {group}, global+sp over global " in output
    assert "15.00 ± 7.07" in output
    assert "+0.00 ± 0.00" in output
    content = json.loads((tmp_path / "quickstart_seeds.json").read_text())
    assert content["trained"]["2"]["local"]["hard"]["map"] == 20.0
    assert (tmp_path / "quickstart_seeds.md").read_text() == output


@pytest.mark.parametrize("arguments", [["--seed=a"], ["--config.data.root_=x"], ["stray"]])
def test_invalid_flags_are_one_line_errors(capsys, tmp_path, arguments):
    assert run_experiment(quickstart_seeds, [CONFIG, f"--workdir={tmp_path}", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_is_the_docstring(capsys):
    assert run_experiment(quickstart_seeds, ["--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        "python -m experiments.tables.quickstart_seeds: The quickstart with three"
    )
    assert "--seed" in output


@pytest.mark.slow
def test_two_seeds_at_smoke_size(capsys, tmp_path):
    arguments = [CONFIG, f"--workdir={tmp_path / 'runs'}", "--seed=0", "--seed=1"]
    arguments += [f"--config.data.tfds_dir={tmp_path / 'data'}", f"--results={tmp_path}"]
    assert run_experiment(quickstart_seeds, arguments) == 0
    assert capsys.readouterr().out.count("±") == 3 * (8 + 4)
    content = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert [entry["error"] for entry in content["runs"]] == [""] * 4
