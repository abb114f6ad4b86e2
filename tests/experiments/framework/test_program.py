import pytest
from absl import flags

from configs import quickstart
from delg_jax import configuration
from delg_jax.errors import UserError
from experiments.framework import program
from tests.experiments.framework.test_plan import EXPERIMENT


def parsed(*argv):
    values = flags.FlagValues()
    program.define_flags(EXPERIMENT, values, list(argv))
    values(["program", *argv])
    return values


def test_flags_become_options(tmp_path):
    arguments = [f"--workdir={tmp_path}", "--seed=1", "--seed=2", "--datasets=one,two"]
    arguments += ["--set=train.steps=4", "--set=data.root=a=b", "--set=extract.local_scales=(1.0,)"]
    found = program.options(parsed(*arguments, "--data=photographs", "--overwrite"))
    assert found.workdir == tmp_path
    assert found.seeds == (1, 2)
    assert found.datasets == ("one", "two")
    assert found.changes == {
        "train.steps": 4,
        "data.root": "a=b",
        "extract.local_scales": (1.0,),
    }
    assert (found.size, found.data, found.overwrite) == ("quick", "photographs", True)


def test_home_directories_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    folders = ("workdir", "data", "weights", "results")
    values = parsed(*(f"--{name}=~/{name}" for name in folders), "--set=data.root=~/photographs")
    assert [values[name].value for name in folders] == [f"/home/me/{name}" for name in folders]
    changed = configuration.override(quickstart.get_config(), program.options(values).changes)
    assert changed.data.root == "/home/me/photographs"


@pytest.mark.parametrize("changes", [["seed"], ["seed=1", "seed=2"]])
def test_invalid_changes_are_refused(tmp_path, changes):
    arguments = [f"--workdir={tmp_path}", *(f"--set={change}" for change in changes)]
    with pytest.raises(UserError, match="--set"):
        program.options(parsed(*arguments))


def test_a_program_belongs_to_its_experiment(tmp_path):
    define_flags, _ = program.program(EXPERIMENT)
    values = flags.FlagValues()
    define_flags(values, [])
    values(["program", f"--workdir={tmp_path}"])
    assert values.size == "quick"
    assert values.seed == [0]
