import dataclasses

import pytest

from configs import quickstart
from delg_jax.errors import UserError
from experiments.framework import plan
from experiments.framework.experiment import (
    Base,
    Claim,
    Experiment,
    Row,
    Setting,
    Size,
    Training,
    map_columns,
)
from experiments.framework.plan import Options

FIRST = Training("first", {"train.heads": "global"})
SECOND = Training(
    "second", {"train.heads": "local", "model.attention_dim": 8}, start=FIRST, share=0.5
)
SHARED = Setting("shared", ("global", "global+sp"), SECOND)
OTHER = Setting("other", ("local",), FIRST, {"search.threshold": 0.5})
SIZE = Size(
    about="here",
    training=Base(quickstart.get_config, overrides={"train.steps": 10, "train.warmup_steps": 2}),
    evaluation=Base(quickstart.get_config, "smoke"),
    data={"one": {"data.root": "{data}/photographs"}, "two": {}},
)
EXPERIMENT = Experiment(
    name="toy",
    place="Table 0: toy",
    columns=(*map_columns("one", "One", ("medium",)), *map_columns("two", "Two", ("hard",))),
    rows=(
        Row("a", (SHARED,), "global", {"One Medium": 1.0}),
        Row("b", (SHARED,), "global+sp"),
        Row("c", (OTHER,), "local"),
        Row("d", (Setting("large"),), sizes=("paper",)),
    ),
    sizes={"quick": SIZE},
    claims=(Claim("b", "a"), Claim("d", "a")),
)


def options(tmp_path, **fields):
    return Options("quick", tmp_path, data=str(tmp_path), **fields)


def test_rows_columns_and_claims_of_a_size():
    assert [row.name for row in EXPERIMENT.rows_at("quick")] == ["a", "b", "c"]
    assert EXPERIMENT.claims_at("quick") == [Claim("b", "a")]
    without = dataclasses.replace(
        EXPERIMENT, sizes={"quick": dataclasses.replace(SIZE, data={"one": {}})}
    )
    assert [column.title for column in without.columns_at("quick")] == ["One Medium"]


def test_a_network_is_trained_once_and_after_the_one_it_starts_from(tmp_path):
    runs = plan.trainings(EXPERIMENT, options(tmp_path, seeds=(0, 3)))
    assert [run.name for run in runs] == ["first_0", "first_3", "second_0", "second_3"]
    assert "model.checkpoint" not in runs[0].overrides
    assert runs[3].overrides == {
        "train.heads": "local",
        "model.attention_dim": 8,
        "seed": 3,
        "data.synthetic.seed": 3,
        "model.checkpoint": str(tmp_path / "trained" / "first_3"),
        "train.steps": 5,
    }
    runs = plan.trainings(EXPERIMENT, options(tmp_path, changes={"train.steps": 4}))
    assert [run.overrides["train.steps"] for run in runs] == [4, 2]


def test_warm_up_stays_shorter_than_a_share_of_the_steps(tmp_path):
    changes = {"train.steps": 3, "train.warmup_steps": 2}
    first, second = plan.trainings(EXPERIMENT, options(tmp_path, changes=changes))
    assert (first.overrides["train.steps"], first.overrides["train.warmup_steps"]) == (3, 2)
    assert (second.overrides["train.steps"], second.overrides["train.warmup_steps"]) == (2, 1)


def test_two_rows_with_one_setting_share_its_evaluation(tmp_path):
    found = plan.evaluations(EXPERIMENT, options(tmp_path, changes={"eval.kappas": (1,)}))
    assert list(found) == [(s, d, 0) for s in ("shared", "other") for d in ("one", "two")]
    setting, run = found["shared", "one", 0]
    assert setting is SHARED
    assert run.name == "shared_one_0"
    assert run.overrides == {
        "model.attention_dim": 8,
        "model.checkpoint": str(tmp_path / "trained" / "second_0"),
        "data.root": f"{tmp_path}/photographs",
        "seed": 0,
        "data.synthetic.seed": 0,
        "eval.methods": ("global", "global+sp"),
        "eval.kappas": (1,),
    }
    assert found["other", "two", 0][1].overrides["search.threshold"] == 0.5


def test_without_training_the_network_of_the_size_is_used(tmp_path):
    untrained = dataclasses.replace(SIZE, training=None)
    experiment = dataclasses.replace(EXPERIMENT, sizes={"quick": untrained})
    assert plan.trainings(experiment, options(tmp_path)) == []
    overrides = plan.evaluations(experiment, options(tmp_path))["shared", "two", 0][1].overrides
    assert "model.checkpoint" not in overrides
    assert overrides["model.attention_dim"] == 8


def test_data_sets_can_be_chosen(tmp_path):
    assert plan.data_sets(EXPERIMENT, options(tmp_path)) == ["one", "two"]
    assert plan.data_sets(EXPERIMENT, options(tmp_path, datasets=("two",))) == ["two"]
    with pytest.raises(UserError, match="--datasets = 'three'"):
        plan.data_sets(EXPERIMENT, options(tmp_path, datasets=("three",)))
    with pytest.raises(UserError, match="--size = 'huge'"):
        plan.data_sets(EXPERIMENT, Options("huge", tmp_path))


def test_a_missing_folder_is_reported_before_the_first_run(tmp_path):
    with pytest.raises(UserError, match="--data = .*photographs"):
        plan.check_places(EXPERIMENT, options(tmp_path))
    (tmp_path / "photographs").mkdir()
    plan.check_places(EXPERIMENT, options(tmp_path))
    weights = Setting("w", (), Training("t", {"model.pretrained": "{weights}/r50.npz"}))
    experiment = dataclasses.replace(EXPERIMENT, rows=(Row("w", (weights,)),))
    with pytest.raises(UserError, match="--weights = .*r50.npz"):
        plan.check_places(experiment, options(tmp_path, weights=str(tmp_path)))
    rule = "^--data = '': .*--size=quick: --data .*photographs and --weights .*r50.npz$"
    with pytest.raises(UserError, match=rule):
        plan.check_places(experiment, Options("quick", tmp_path))


def test_two_settings_with_one_name_are_refused():
    rows = (Row("a", (SHARED,)), Row("b", (dataclasses.replace(SHARED, methods=("local",)),)))
    with pytest.raises(ValueError, match="setting shared"):
        plan.settings(dataclasses.replace(EXPERIMENT, rows=rows), "quick")
