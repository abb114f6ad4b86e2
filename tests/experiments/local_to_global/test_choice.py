import json

import numpy as np
import pytest

from delg_jax.cli.main import main, run_experiment
from experiments.local_to_global import choice
from tests.photographs import make_revisited
from tests.tiny import command_line, retrieval_config


def data_set(gains, name="one"):
    """Two landmarks of two queries; each setting gains the same on all of them."""
    local = np.full((3, 4), 40.0)
    found = local[None] + np.asarray(gains, float)[:, None, None]
    return choice.DataSet(name, np.array([0, 0, 1, 1]), local, local + 1, found)


def test_the_criterion_prefers_what_gains_everywhere():
    gains = np.array([[30.0, 8.0, 5.0], [-5.0, 8.0, 9.0], [5.0, 8.0, 7.0]])
    found = choice.criterion(gains)
    assert found.argmax() == 1
    np.testing.assert_allclose(found, gains.mean(axis=0) - gains.std(axis=0))


def test_a_data_set_does_not_choose_its_own_setting():
    gains = np.array([[100.0, 6.0], [0.0, 6.0], [0.0, 6.0]])
    assert choice.leave_one_out(gains) == [1, 1, 1]
    gains = np.array([[-100.0, 6.0], [20.0, 6.0], [20.0, 6.0]])
    assert choice.leave_one_out(gains) == [0, 1, 1]


def test_gains_are_means_over_the_protocols_that_exist():
    one = data_set([3.0, 5.0])
    found = one.found.copy()
    found[:, 1] += 4  # Hard gains more
    np.testing.assert_allclose(one._replace(found=found).gains(), [5, 7])
    found[:, 1] = np.nan
    local = one.local.copy()
    local[1] = np.nan
    np.testing.assert_allclose(one._replace(found=found, local=local).gains(), [3, 5])
    found[:, 0, 2] = np.nan  # a query without positives
    np.testing.assert_allclose(one._replace(found=found, local=local).gains(), [3, 5])


def test_settings_are_drawn_once_and_reproducibly():
    settings = choice.draw(40, seed=3)
    assert len(set(settings)) == 40
    assert settings == choice.draw(40, seed=3)
    for one in settings:
        assert all(getattr(one, name) in values for name, values in choice.GRID.items())


def test_the_report_ranks_each_set_by_the_choice_of_the_others():
    settings = {"profile": choice.PROFILE, "other": choice.draw(1, 0)[0]}
    sets = [data_set([0, 9], "a"), data_set([6, 5], "b"), data_set([6, 5], "c")]
    result = choice.summarize(sets, settings)
    assert result["chosen"] == {"a": "profile", "b": "other", "c": "other"}
    rows = {(row["data"], row["setting"]): row for row in result["rows"]}
    assert rows["a", "best on the others"]["medium gain"]["mean"] == 0
    assert rows["b", "best on the others"]["medium gain"]["mean"] == 5
    assert rows["b", "local"]["hard"]["mean"] == 40
    assert "medium gain" not in rows["b", "local"]
    assert rows["b", "local+sp"]["hard gain"]["mean"] == 1
    assert (rows["a", "local"]["queries"], rows["a", "local"]["landmarks"]) == (4, 2)
    lines = choice.table(result).splitlines()
    assert sum(line.startswith("| a (4 of 2)") for line in lines) == 5


def test_sets_of_an_earlier_result_take_part_in_the_choice():
    settings = {"profile": choice.PROFILE, "other": choice.draw(1, 0)[0]}
    alone = choice.summarize([data_set([6, 5], "new")], settings)
    assert (alone["best"], alone["chosen"]) == ("profile", {})
    result = choice.summarize([data_set([6, 5], "new")], settings, {"old": [0.0, 9.0]})
    assert result["chosen"] == {"new": "other"}
    assert set(result["gains"]) == {"new", "old"}
    rows = {(row["data"], row["setting"]): row for row in result["rows"]}
    assert {data for data, _ in rows} == {"new"}
    assert rows["new", "best on the others"]["medium gain"]["mean"] == 5


@pytest.mark.parametrize(
    "content", [None, {"gains": {}}, {"settings": {"a": {"dimension": 3}}, "gains": {}}]
)
def test_an_earlier_result_must_be_one(tmp_path, capsys, content):
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_text(json.dumps(content))
    arguments = ["--set=a=b", f"--others={path}", f"--results={tmp_path}"]
    assert run_experiment(choice, arguments) == 2
    assert "--others" in capsys.readouterr().err


@pytest.mark.parametrize("sets", [[], ["--set=x"], ["--set=x="], ["--set=x=a", "--set=x=b"]])
def test_sets_that_are_not_named_once_are_refused(tmp_path, capsys, sets):
    assert run_experiment(choice, [*sets, f"--results={tmp_path}"]) == 2
    assert "--set" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    config = retrieval_config(make_revisited(tmp_path / "photographs"))
    for number in (1, 2):
        run = [*command_line(config), f"--workdir={tmp_path / str(number)}"]
        assert main(["evaluate", *run, f"--config.seed={number}"]) == 0
    capsys.readouterr()
    results = tmp_path / "results"
    sets = [f"--set=run{number}={tmp_path / str(number)}" for number in (1, 2)]
    assert run_experiment(choice, [*sets, "--settings=2", f"--results={results}"]) == 0
    text = (results / "local_to_global_choice.md").read_text()
    assert capsys.readouterr().out == text
    content = json.loads((results / "local_to_global_choice.json").read_text())
    assert len(content["settings"]) == 2 + len(choice.NAMED)
    assert set(content["chosen"]) == {"run1", "run2"}
