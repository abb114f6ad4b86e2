from pathlib import Path

import pytest

from delg_jax.cli.main import main
from delg_jax.errors import UserError
from delg_jax.evaluation import sweep

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


@pytest.fixture(autouse=True)
def _train(monkeypatch):
    def train(config, workdir, overwrite):
        if config.seed == 13:
            raise UserError("config.seed", 13, "brings bad luck")
        return {"validation_loss": config.train.learning_rate + config.seed}

    monkeypatch.setattr(sweep, "VERBS", {"train": train})


def test_a_row_for_each_setting_is_printed(capsys, tmp_path):
    grid = ["--grid=train.learning_rate=1,2", "--grid=seed=0,2"]
    assert main(["sweep", CONFIG, f"--workdir={tmp_path}", "--verbs=train", *grid]) == 0
    *_, first, second = capsys.readouterr().out.splitlines()
    assert "2.00 ± 1.41" in first
    assert "3.00 ± 1.41" in second
    assert (tmp_path / "sweep.json").is_file()


def test_the_status_says_that_a_run_failed(capsys, tmp_path):
    arguments = [CONFIG, f"--workdir={tmp_path}", "--verbs=train", "--grid=seed=0,13"]
    assert main(["sweep", *arguments]) == 2
    output = capsys.readouterr()
    assert "1/2" in output.out
    assert "1 of 2 runs" in output.err
    assert "brings bad luck" in output.err


def test_a_wrong_field_is_refused(capsys, tmp_path):
    assert main(["sweep", CONFIG, f"--workdir={tmp_path}", "--grid=train.step=1"]) == 2
    assert "did you mean train.steps" in capsys.readouterr().err
