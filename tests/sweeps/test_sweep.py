import dataclasses
import json

import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.locks import exclusive
from delg_jax.sweeps import run_record, sweep
from delg_jax.sweeps.sweep import Result, Run

BOTH = ("train", "evaluate")


def runs_of(rates, seeds, verbs=BOTH):
    return [
        Run(f"r{rate}_s{seed}", {"train.learning_rate": rate, "seed": seed}, verbs, f"r{rate}")
        for rate in rates
        for seed in seeds
    ]


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


def test_runs_have_their_own_configuration_and_folder(calls, tmp_path):
    runs = runs_of((0.5, 1.0), (0, 3))
    base = default.get_config().lock()
    results = sweep.run(base, runs, tmp_path, overwrite=True)
    assert [r.metrics["train"]["validation_loss"] for r in results] == [0.5, 3.5, 1.0, 4.0]
    assert calls == [(verb, run.name, True) for run in runs for verb in BOTH]
    assert base.seed == 0
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert [entry["run"]["name"] for entry in content["runs"]] == [run.name for run in runs]
    assert content["runs"][1]["run"]["overrides"] == {"train.learning_rate": 0.5, "seed": 3}
    assert content["missing"] == []
    sweep.require_success(results)


def test_a_failed_run_does_not_stop_the_others(calls, tmp_path):
    runs = runs_of((0.5, 2.0), (0, 13))
    results = sweep.run(default.get_config(), runs, tmp_path)
    errors = [result.error for result in results]
    assert errors[0] == ""
    assert "Cannot allocate memory" in errors[1]
    assert errors[2].startswith("config.train.learning_rate = 2.0")
    assert results[1].metrics == {"train": {"validation_loss": 13.5}}
    assert len(json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 4
    with pytest.raises(UserError, match="3 of 4 runs") as raised:
        sweep.require_success(results)
    assert runs[1].name in str(raised.value)
    assert runs[0].name not in str(raised.value)


def test_a_second_call_repeats_only_failed_runs(calls, tmp_path):
    runs = runs_of((0.5,), (0, 13, 1))
    first = sweep.run(default.get_config(), runs, tmp_path)
    calls.clear()
    assert sweep.run(default.get_config(), runs, tmp_path) == first
    assert calls == [(verb, runs[1].name, False) for verb in BOTH]


def test_a_run_with_more_verbs_is_not_finished(calls, tmp_path):
    sweep.run(default.get_config(), runs_of((0.5,), (0,), ("train",)), tmp_path)
    (result,) = sweep.run(default.get_config(), runs_of((0.5,), (0,)), tmp_path)
    assert set(result.metrics) == set(BOTH)


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit])
def test_a_stopped_run_is_repeated(calls, monkeypatch, tmp_path, leaves):
    def stop(config, workdir, overwrite):
        assert run_record.read(workdir).metrics["train"]
        raise leaves(0)

    runs, config = runs_of((0.5,), (0, 1)), default.get_config()
    expected = sweep.run(config, runs, tmp_path / "whole")
    monkeypatch.setitem(sweep.VERBS, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(config, runs, tmp_path / "stopped")
    results, missing = sweep.gather(config, runs, tmp_path / "stopped")
    assert missing == [run.name for run in runs]
    assert [result.error for result in results] == ["not finished", "not started"]
    monkeypatch.setitem(sweep.VERBS, "evaluate", lambda *_: {"methods": {}})
    assert sweep.run(config, runs, tmp_path / "stopped") == expected


def test_a_finished_run_of_another_configuration_is_refused_before_the_first(calls, tmp_path):
    config = default.get_config()
    runs = runs_of((0.5,), (0, 1))
    sweep.run(config, runs[1:], tmp_path)
    calls.clear()
    config.train.steps = 7
    with pytest.raises(UserError, match="config.train.steps: 1500000 -> 7"):
        sweep.run(config, runs, tmp_path)
    assert calls == []
    results, missing = sweep.gather(config, runs, tmp_path)
    assert missing == [run.name for run in runs]
    assert "another configuration" in results[1].error
    assert not any(r.error for r in sweep.run(config, runs, tmp_path, overwrite=True))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_finished_run_whose_data_changed_is_repeated(calls, tmp_path, caplog, kind):
    caplog.set_level("INFO")
    config, runs = default.get_config(), runs_of((0.5,), (0, 1))
    data = tmp_path / "data"
    if kind == "file":
        config.extract.imported_local = str(data)
    else:
        config.data.root, data = str(data), data / "sub" / "gnd.json"
        data.parent.mkdir(parents=True)
    data.write_text("before")
    first = sweep.run(config, runs, tmp_path)
    calls.clear()
    assert sweep.run(config, runs, tmp_path) == first
    assert calls == []
    data.write_text("after that")
    assert sweep.gather(config, runs, tmp_path)[1] == [run.name for run in runs]
    caplog.clear()
    sweep.run(config, runs, tmp_path)
    assert calls == [(verb, run.name, False) for run in runs for verb in BOTH]
    lines = [record.message for record in caplog.records if "changed" in record.message]
    field = "config.extract.imported_local" if kind == "file" else "config.data.root"
    named = [
        (f"{tmp_path / r.name}: " in line, field in line)
        for r, line in zip(runs, lines, strict=True)
    ]
    assert named == [(True, True)] * len(runs)
    calls.clear()
    data.unlink()  # what is gone may only be out of reach
    if kind == "folder":
        data.parent.rmdir()
        data.parent.parent.rmdir()
    assert not any(result.error for result in sweep.run(config, runs, tmp_path))
    assert calls == []


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_a_run_from_other_weights_is_refused_unless_overwritten(calls, tmp_path, status):
    config, seed = default.get_config(), 0 if status == "finished" else 13
    weights = tmp_path / "trained" / "checkpoints" / "1" / "array"
    weights.parent.mkdir(parents=True)
    weights.write_text("before")
    config.model.checkpoint = str(tmp_path / "trained")
    (one,) = runs = runs_of((0.5,), (seed,))
    sweep.run(config, runs, tmp_path / "sweep")
    (tmp_path / "trained" / "metrics.json").write_text("{}")  # no part of the checkpoint
    copied = weights.read_text()
    weights.write_text(copied)  # other times, same content
    sweep.run(config, runs, tmp_path / "sweep")
    weights.write_text("after!")
    calls.clear()
    with pytest.raises(UserError, match=r"weights.*config\.model\.checkpoint"):
        sweep.run(config, runs, tmp_path / "sweep")
    assert calls == []
    (tmp_path / "sweep" / one.name / "checkpoints").mkdir()
    sweep.run(config, runs, tmp_path / "sweep", overwrite=True)
    assert calls == [(verb, one.name, True) for verb in BOTH]
    assert not (tmp_path / "sweep" / one.name / "checkpoints").exists()
    calls.clear()
    sweep.run(config, runs, tmp_path / "sweep")
    assert bool(calls) == (status == "failed")


def test_a_run_of_another_job_is_left_to_it(calls, tmp_path):
    (one,) = runs_of((0.5,), (0,))
    config = default.get_config()
    with exclusive(tmp_path / one.name):
        result = sweep.run_one(one, config, tmp_path / one.name)
    assert "another job" in result.error
    assert calls == []
    assert run_record.read(tmp_path / one.name) is None


def test_results_are_gathered_while_others_are_missing(calls, tmp_path):
    config, runs = default.get_config(), runs_of((0.5,), (0, 13, 1))
    done = sweep.run(config, runs[:2], tmp_path)
    results, missing = sweep.gather(config, runs, tmp_path)
    assert missing == [runs[2].name]
    assert results == [*done, Result(runs[2], {}, "not started")]
    sweep.write(tmp_path, results, missing)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["missing"] == missing
    assert content["runs"][1] == json.loads(json.dumps(dataclasses.asdict(done[1])))


@pytest.mark.parametrize(
    ("name", "overrides", "verbs", "names"),
    [
        ("b", {"train.learning_rat": 0.1}, ("train",), r"config\.train\.learning_rat = 0\.1: "),
        ("b", {"model.pooling": 3}, ("train",), r"config\.model\.pooling = 3: "),
        ("b", {"seed": 1}, ("dance",), "'dance': .*train, evaluate"),
        ("good", {"seed": 1}, ("train",), "sweep = 'good': .*two runs"),
    ],
)
def test_mistakes_are_found_before_the_first_run(calls, tmp_path, name, overrides, verbs, names):
    runs = [Run("good", {}, ("train",), "all"), Run(name, overrides, verbs, "all")]
    with pytest.raises(UserError, match=names):
        sweep.run(default.get_config(), runs, tmp_path)
    assert calls == []
