import json

import pytest

from configs import quickstart
from delg_jax import configuration
from delg_jax.cli.main import run_experiment
from experiments.benchmarks import training_options
from tests.experiments.tables.test_quickstart_seeds import CONFIG


@pytest.mark.parametrize("option", training_options.OPTIONS)
def test_options_are_fields(option):
    base = quickstart.get_config("smoke")
    config = training_options.configured(base, training_options.OPTIONS[option])
    plain = training_options.configured(base, {})
    changed = configuration.difference(configuration.flatten(plain), configuration.flatten(config))
    assert len(changed) == len(training_options.OPTIONS[option])
    assert config.model.num_classes > 1


def test_shares_are_of_the_first_row():
    rows = {
        name: {"step_seconds": s, "images_per_second": 8 / s, "peak_bytes": b}
        for name, s, b in (("one", 0.5, 2e9), ("two", 0.25, 3e9))
    }
    assert training_options.table(rows).splitlines()[2:] == [
        "| one | 500.0 | 1.00 | 16.0 | 2000 | 1.00 |",
        "| two | 250.0 | 0.50 | 32.0 | 3000 | 1.50 |",
    ]


@pytest.mark.slow
def test_options_are_measured_in_processes_of_their_own(capsys, tmp_path):
    options = ["joint, float32", "frozen backbone, cached maps"]
    arguments = [CONFIG, f"--workdir={tmp_path}", f"--results={tmp_path}", "--steps=2"]
    assert run_experiment(training_options, [*arguments, *(f"--option={o}" for o in options)]) == 0
    content = json.loads((tmp_path / "training_options.json").read_text())
    assert list(content["options"]) == options
    for row in content["options"].values():
        assert all(value > 0 for value in row.values())
    text = (tmp_path / "training_options.md").read_text()
    assert text == capsys.readouterr().out
    assert all(f"| {option} |" in text for option in options)
