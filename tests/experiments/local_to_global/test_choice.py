import json

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from experiments.local_to_global import choice
from tests.photographs import make_revisited
from tests.tiny import command_line, retrieval_config


def test_a_group_does_not_choose_its_own_setting():
    # Setting 0 is perfect for group 0 alone, setting 1 is fair everywhere
    found = np.array([[[100.0, 100, 0, 0, 0, 0]] * 2, [[60.0] * 6] * 2])
    groups = np.array([0, 0, 1, 1, 2, 2])
    result = choice.cross_validate(found, groups)
    assert result.chosen == [1, 1, 1]
    np.testing.assert_array_equal(result.average_precisions, found[1])
    found[0, :, 2:4] = 100  # now it is better on the queries of every two groups
    result = choice.cross_validate(found, groups)
    assert (result.chosen, result.best) == ([1, 1, 0], 0)
    np.testing.assert_array_equal(result.average_precisions[0], [60, 60, 60, 60, 0, 0])


def test_queries_without_positives_are_ignored():
    found = np.array([[[50.0, np.nan], [50, 50]], [[40, np.nan], [40, 40]]])
    result = choice.cross_validate(found, np.array([0, 1]))
    assert result.best == 0
    assert np.isnan(result.average_precisions[0, 1])


def test_settings_are_drawn_once_and_reproducibly():
    settings = choice.draw(40, seed=3)
    assert len(set(settings)) == 40
    assert settings == choice.draw(40, seed=3)
    for one in settings:
        assert all(getattr(one, name) in values for name, values in choice.GRID.items())


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    arguments = [*command_line(config), f"--workdir={tmp_path / 'run'}", "--settings=4"]
    results = tmp_path / "results"
    assert run_experiment(choice, [*arguments, "--group=2", f"--results={results}"]) == 0
    text = (results / "local_to_global_choice.md").read_text()
    assert capsys.readouterr().out == text
    content = json.loads((results / "local_to_global_choice.json").read_text())
    assert (content["settings"], content["groups"], len(content["chosen"])) == (4, 2, 2)
    for name in choice.PROTOCOLS:
        assert 0 <= content["protocols"][name]["cross_validated"]["mean"] <= 100
        assert f"| {name} |" in text
