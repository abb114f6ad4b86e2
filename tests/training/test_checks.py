import math

import pytest

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.training import train
from delg_jax.training.checks import (
    CHANGEABLE,
    CHOICES,
    RANGES,
    Range,
    best_metric,
    changed_on_resume,
    check_fields,
    metric_names,
    without_effect,
)
from tests.tiny import training_config

SECTIONS = ("seed", "model", "data", "train")
FIELDS = configuration.flatten(default.get_config(), SECTIONS)
NUMBERS = sorted(
    path
    for path, value in FIELDS.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
)
# Checked by the package that reads them
CHOSEN_ELSEWHERE = {
    "data.name",
    *("model.backbone", "model.convention", "model.pooling", "model.global_loss"),
    *("model.attention", "model.attention_pooling", "model.dim_reduction"),
}
FREE_TEXT = {
    *("model.pretrained", "model.pretrained_mapping", "model.checkpoint", "data.root"),
    *("data.ground_truth", "data.distractors", "data.exclude", "data.tfds_dir"),
    *("data.beam_options", "train.wandb"),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return training_config(tmp_path_factory.mktemp("photographs"))


def changed(config, fields):
    """Sets fields without the checks of the command line."""
    config = config.copy_and_resolve_references().unlock()
    for path, value in fields.items():
        *sections, name = path.split(".")
        tree = config
        for section in sections:
            tree = tree[section]
        with tree.ignore_type():
            tree[name] = value
    return config.lock()


def test_the_default_and_the_smallest_configuration_are_valid(valid):
    check_fields(valid)
    check_fields(default.get_config())


def test_every_number_has_a_range():
    assert set(RANGES) == set(NUMBERS)
    for path, allowed in RANGES.items():
        assert allowed.holds(FIELDS[path]), path


def test_every_text_is_checked():
    texts = {path for path, value in FIELDS.items() if isinstance(value, str)}
    checked = {*CHOICES, *CHOSEN_ELSEWHERE, "train.best_metric", "train.resume_with"}
    assert checked | FREE_TEXT == texts


def nonsense():
    """Each number with values that it may not have."""
    for path in NUMBERS:
        allowed, kind = RANGES[path], type(FIELDS[path])
        yield from ((path, value) for value in (math.nan, math.inf, -math.inf))
        yield path, kind(allowed.low - 1)
        if allowed.above:
            yield path, kind(allowed.low)
        if allowed.high < math.inf:
            yield path, kind(allowed.high if allowed.below else allowed.high + 1)


@pytest.mark.parametrize(("path", "value"), list(nonsense()))
def test_a_number_outside_its_range_is_refused(valid, path, value):
    with pytest.raises(UserError, match=rf"config\.{path} = {value}: "):
        check_fields(changed(valid, {path: value}))


@pytest.mark.parametrize("path", sorted({*CHOICES, *CHOSEN_ELSEWHERE}))
def test_an_unknown_choice_is_refused(valid, path):
    with pytest.raises(UserError, match=rf"config\.{path} = 'zzz': "):
        check_fields(changed(valid, {path: "zzz"}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"train.momentum": 1.5}, r"train\.momentum = 1\.5: "),
        ({"train.arcface_margin": 100.0}, r"train\.arcface_margin = 100\.0: .*1\.57"),
        ({"train.batch_size": 12}, r"train\.batch_size = 12: .*8 devices"),
        (
            {"train.accumulation_steps": 3},
            r"train\.batch_size = 8: .*8 devices .*config\.train\.accumulation_steps=3",
        ),
        ({"train.warmup_steps": 6}, r"train\.warmup_steps = 6: .*config\.train\.steps \(=6\)"),
        ({"train.heads": "local", "model.local_head": False}, r"train\.heads = 'local': .*local"),
        (
            {f"train.{n}_weight": 0.0 for n in ("global", "attention", "reconstruction")},
            r"train\.global_weight = 0\.0: .*attention_weight, reconstruction_weight",
        ),
        ({"train.heads": "global", "train.global_weight": 0.0}, r"train\.global_weight = 0\.0: "),
        (
            {"train.heads": "local", "train.attention_weight": 0.0, "model.dim_reduction": "fc"},
            r"train\.attention_weight = 0\.0: ",
        ),
        ({"train.best_metric": "accuracy"}, r"train\.best_metric = 'accuracy': .*validation_"),
        (
            {"train.best_metric": "validation_global_accuracy", "train.heads": "local"},
            r"train\.best_metric = 'validation_global_accuracy': ",
        ),
        (
            {"train.best_metric": "validation_attention_loss", "model.local_head": False},
            r"train\.best_metric = 'validation_attention_loss': ",
        ),
        ({"train.cache_features": True}, r"train\.cache_features = True: .*backbone"),
        ({"train.resume_with": "train.batch_size"}, r"train\.resume_with = 'train.batch_size': "),
        ({"data.crop_area": (0.5, 1.5)}, r"data\.crop_area = \(0\.5, 1\.5\): "),
        ({"data.crop_area": (math.nan, 1.0)}, r"data\.crop_area = \(nan, 1\.0\): "),
        ({"data.crop_aspect": (0.0, 1.0)}, r"data\.crop_aspect = \(0\.0, 1\.0\): "),
        ({"model.conv4_stride": 16}, r"model\.conv4_stride = 16: .*32 .*slim"),
        ({"data.name": "revisited"}, r"data\.name = 'revisited': .*gldv2_clean"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(valid, fields, named):
    with pytest.raises(UserError, match=rf"^config\.{named}"):
        check_fields(changed(valid, fields))


@pytest.mark.parametrize(
    ("heads", "local_head", "metric"),
    [
        ("joint", True, "validation_global_accuracy"),
        ("global", True, "validation_global_accuracy"),
        ("joint", False, "validation_global_accuracy"),
        ("local", True, "validation_attention_accuracy"),
    ],
)
def test_the_best_metric_follows_the_heads(valid, heads, local_head, metric):
    config = changed(valid, {"train.heads": heads, "model.local_head": local_head})
    assert best_metric(config) == metric
    assert metric in metric_names(config)
    assert best_metric(changed(config, {"train.best_metric": "loss"})) == "loss"
    assert best_metric(changed(config, {"train.best_metric": ""})) == ""


def test_fields_to_change_on_resume_are_a_list(valid):
    assert changed_on_resume(valid) == ()
    text = "config.train.learning_rate, train.steps,"
    config = changed(valid, {"train.resume_with": text})
    assert changed_on_resume(config) == ("train.learning_rate", "train.steps")
    check_fields(config)
    assert set(CHANGEABLE) <= set(FIELDS)


WITHOUT_EFFECT = [
    ({"model.pooling": "avg"}, {"model.gem_power": 2.0, "model.gem_learned": True}),
    ({"model.whitening": False}, {"model.global_dim": 17}),
    (
        {"model.local_head": False},
        {
            "model.attention": "norm",
            "model.attention_dim": 9,
            "model.local_dim": 9,
            "model.dim_reduction": "fc",
            "model.stop_gradient": False,
            "train.attention_weight": 2.0,
            "train.reconstruction_weight": 2.0,
        },
    ),
    ({"model.attention": "norm"}, {"model.attention_dim": 9}),
    ({"model.dim_reduction": "none"}, {"model.local_dim": 9, "train.reconstruction_weight": 2.0}),
    ({"train.freeze_backbone": True}, {"model.stop_gradient": False}),
    ({"train.heads": "local"}, {"train.arcface_margin": 0.2, "train.global_weight": 2.0}),
    ({"train.heads": "global"}, {"train.attention_weight": 2.0}),
    ({"model.checkpoint": "run"}, {"model.pretrained": "weights.npz"}),
    ({"model.pretrained": ""}, {"model.pretrained_mapping": "names.json"}),
    (
        {"model.global_loss": "softmax"},
        {
            "train.arcface_margin": 0.2,
            "train.arcface_scale": 30.0,
            "train.arcface_scale_learned": False,
        },
    ),
    ({"train.batch_norm": "frozen"}, {"train.norm_momentum": 0.5}),
    ({}, {"train.cache_gigabytes": 9.0}),
    ({"data.name": "folder"}, {"data.validation_share": 0.1, "data.tfds_dir": "x"}),
    ({"data.name": "gldv1"}, {"data.synthetic.seed": 3}),
    ({"data.name": "synthetic"}, {"data.root": "photographs", "data.split_seed": 3}),
    ({}, {"data.ground_truth": "private"}),
    ({"train.steps": 10}, {"train.chance_after": 11}),
]


@pytest.mark.parametrize(("cause", "fields"), WITHOUT_EFFECT, ids=lambda x: "-".join(x) or "any")
def test_fields_without_effect_are_said(cause, fields):
    before = changed(default.get_config(), {"data.name": "gldv1"} | cause)
    assert not {line.split()[0] for line in without_effect(before)} & {
        f"config.{path}" for path in fields
    }
    after = without_effect(changed(before, fields))
    assert {line.split()[0] for line in after} >= {f"config.{path}" for path in fields}
    assert len(after) == len({line.split()[0] for line in after})


@pytest.mark.parametrize("name", ["default", "delg_r50_gld", "landmarks", "quickstart"])
def test_our_configs_set_no_field_without_effect(name):
    assert without_effect(configuration.load(name)) == []


def test_fields_with_an_effect_are_not_said(valid):
    fields = {
        "model.gem_power": 2.0,
        "model.local_dim": 9,
        "train.arcface_margin": 0.2,
        "train.reconstruction_weight": 1.0,
    }
    for line in without_effect(changed(default.get_config(), fields)):
        pytest.fail(line)


def test_what_has_no_effect_is_logged_once(valid, caplog):
    caplog.set_level("INFO")
    check_fields(changed(valid, {"model.pooling": "max", "model.gem_power": 2.0}))
    assert caplog.text.count("config.model.gem_power") == 1


def test_a_wrong_field_is_refused_before_weights_and_data(valid, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "require_start", lambda _: pytest.fail("weights were read"))
    monkeypatch.setattr(train, "open_training", lambda _: pytest.fail("data were opened"))
    for path, value in {"train.momentum": 1.5, "model.local_dim": 0, "data.workers": -9}.items():
        with pytest.raises(UserError, match=rf"config\.{path} = "):
            train.train_and_evaluate(changed(valid, {path: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["model.pretrained", "model.checkpoint"])
def test_missing_weights_are_refused_before_data(valid, tmp_path, monkeypatch, field):
    monkeypatch.setattr(train, "open_training", lambda _: pytest.fail("data were opened"))
    with pytest.raises(UserError, match=f"^config.{field} = '/absent"):
        train.train_and_evaluate(changed(valid, {field: "/absent.npz"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "rule"),
    [
        (Range(1), (1, 5), (0, math.nan, math.inf), "must be at least 1"),
        (Range(0, above=True), (1e-9,), (0, -1), "must be above 0"),
        (Range(0, 1, below=True), (0, 0.5), (1, -0.1), "must be from 0 to below 1"),
        (Range(0, 255), (0, 255), (256,), "must be from 0 to 255"),
    ],
)
def test_ranges(allowed, inside, outside, rule):
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, outside))
    assert str(allowed) == rule
