import json

import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.evaluation import sweep


@pytest.fixture
def calls(monkeypatch):
    """Replaces the verbs by ones that note what they were called with."""
    noted = []

    def train(config, workdir, overwrite):
        noted.append(("train", workdir.name, overwrite))
        if config.train.learning_rate > 1:
            raise UserError("config.train.learning_rate", config.train.learning_rate, "is high")
        return {"validation_loss": config.train.learning_rate + config.seed}

    def evaluate(config, workdir, overwrite):
        noted.append(("evaluate", workdir.name, overwrite))
        if config.seed == 13:
            raise MemoryError("no memory")
        return {"methods": {}}

    monkeypatch.setattr(sweep, "VERBS", {"train": train, "evaluate": evaluate})
    return noted


def test_a_grid_is_the_product_of_its_values():
    runs = sweep.grid(["train.learning_rate=0.1,1e-2", "seed=0,1", "data.embedded.seed=5"])
    assert [dict(run.overrides) for run in runs] == [
        {"train.learning_rate": rate, "seed": seed, "data.embedded.seed": 5}
        for rate in (0.1, 0.01)
        for seed in (0, 1)
    ]
    assert len({run.name for run in runs}) == 4
    assert runs[0].name == "train.learning_rate=0.1_seed=0_data.embedded.seed=5"
    assert [run.group for run in runs] == ["train.learning_rate=0.1"] * 2 + [
        "train.learning_rate=0.01"
    ] * 2
    assert {run.verbs for run in runs} == {("train", "evaluate")}


def test_values_are_literals_or_text():
    (run,) = sweep.grid(["extract.local_scales=(0.5,1.0)"])
    assert run.overrides == {"extract.local_scales": (0.5, 1.0)}
    values = [r.overrides["x"] for r in sweep.grid(["x=gem,avg,1,True"])]
    assert values == ["gem", "avg", 1, True]
    (run,) = sweep.grid(["data.root=a/b c"])
    assert run.name == "data.root=a-bc"
    assert sweep.grid(["seed=1"])[0].group == "all"


@pytest.mark.parametrize("specs", [["seed"], ["=1"], ["seed="], ["seed=1", "seed=2"]])
def test_wrong_grids_are_refused(specs):
    with pytest.raises(UserError, match="--grid"):
        sweep.grid(specs)


def test_runs_have_their_own_configuration_and_folder(calls, tmp_path):
    runs = sweep.grid(["train.learning_rate=0.5,1", "seed=0,3"])
    base = default.get_config().lock()
    results = sweep.run(base, runs, tmp_path, overwrite=True)
    assert [r.metrics["train"]["validation_loss"] for r in results] == [0.5, 3.5, 1.0, 4.0]
    assert calls == [(verb, run.name, True) for run in runs for verb in ("train", "evaluate")]
    assert base.seed == 0
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert [entry["run"]["name"] for entry in content["runs"]] == [run.name for run in runs]
    assert content["runs"][1]["run"]["overrides"] == {"train.learning_rate": 0.5, "seed": 3}
    sweep.require_success(results)


def test_a_failed_run_does_not_stop_the_others(calls, tmp_path):
    runs = sweep.grid(["train.learning_rate=0.5,2.0", "seed=0,13"])
    results = sweep.run(default.get_config(), runs, tmp_path)
    errors = [result.error for result in results]
    assert errors[0] == ""
    assert errors[1] == "MemoryError: no memory"
    assert errors[2].startswith("config.train.learning_rate = 2.0")
    assert results[1].metrics == {"train": {"validation_loss": 13.5}}
    assert len(json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 4
    with pytest.raises(UserError, match="3 of 4 runs") as raised:
        sweep.require_success(results)
    assert runs[1].name in str(raised.value)
    assert runs[0].name not in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "verbs", "rule"),
    [
        ({"train.learning_rat": 0.1}, ("train",), "did you mean train.learning_rate"),
        ({"train": 1}, ("train",), "no field"),
        ({"train.steps": 0.5}, ("train",), "must be of type int"),
        ({"model.pooling": 3}, ("train",), "must be of type str"),
        ({"seed": 1}, ("dance",), "must be one of train, evaluate"),
    ],
)
def test_mistakes_are_found_before_the_first_run(calls, tmp_path, overrides, verbs, rule):
    good = sweep.Run("good", {}, ("train",), "all")
    with pytest.raises(UserError, match=rule):
        sweep.run(default.get_config(), [good, sweep.Run("b", overrides, verbs, "all")], tmp_path)
    with pytest.raises(UserError, match="name of two runs"):
        sweep.run(default.get_config(), [good, good], tmp_path)
    assert calls == []
