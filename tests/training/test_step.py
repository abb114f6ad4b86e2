import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.models import variables as model_variables
from delg_jax.models.delg import build
from delg_jax.training import state as train_state
from delg_jax.training import step as train_step
from delg_jax.training.loop import module_options
from tests.photographs import draw
from tests.tiny import training_config

CLASSES = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    config.model.num_classes = CLASSES
    return config


@pytest.fixture(scope="module")
def batch():
    """Sixteen pictures, so that BatchNorm of each device sees two."""
    pictures = np.stack([draw(seed, 64, 64) for seed in range(16)])
    return {"image": pictures, "label": np.arange(16, dtype=np.int32) % CLASSES}


def fresh_state(config, module):
    variables = model_variables.initialize(module, jax.random.key(0))
    return train_state.create(variables, train_state.optimizer(config.train))


def run(config, batch, devices, steps=3, **options):
    """The state and the metrics after some steps on the first `devices` devices."""
    module = build(config.model, **{**module_options(config.train), **options})
    tx = train_state.optimizer(config.train)
    step = train_step.parallel_train_step(module, tx, train_step.loss_weights(config.train))
    split = {n: x.reshape(devices, len(x) // devices, *x.shape[1:]) for n, x in batch.items()}
    state = fresh_state(config, module)
    if devices > 1:
        state = train_step.replicate(state)
    for _ in range(steps):
        state, metrics = step(state, split)
    return jax.device_get(state), jax.device_get(metrics)


@pytest.mark.parametrize(
    "norm",
    [
        pytest.param({"freeze_norm": True}, id="frozen"),
        pytest.param({"norm_axis": train_step.AXIS}, id="sync", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_learn_what_one_learns(config, batch, norm):
    one, one_metrics = run(config, batch, 1, **norm)
    eight, eight_metrics = run(config, batch, jax.device_count(), **norm)
    assert int(one.step) == int(eight.step) == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.variables, eight.variables
    )
    for name, value in one_metrics.items():
        assert eight_metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_statistics_of_each_device_differ_without_sync(config, batch):
    alone, _ = run(config, batch, 1, steps=1)
    apart, _ = run(config, batch, jax.device_count(), steps=1)
    one = alone.batch_stats["resnet"]["conv5_unit1"]["norm1"]["var"]
    eight = apart.batch_stats["resnet"]["conv5_unit1"]["norm1"]["var"]
    assert np.abs(one - eight).max() > 1e-3


def test_the_state_after_a_step_lies_where_it_began(config, batch):
    module = build(config.model, **module_options(config.train))
    tx = train_state.optimizer(config.train)
    step = train_step.parallel_train_step(module, tx, train_step.loss_weights(config.train))
    before = train_step.replicate(fresh_state(config, module))
    placed = before.step.sharding
    after, _ = step(before, train_step.split_over_devices(batch))
    assert placed == after.step.sharding  # another would compile the step a second time


def test_evaluation_sums_over_valid_images_only(config, batch):
    module = build(config.model)
    weights = train_step.loss_weights(config.train)
    evaluate = train_step.parallel_eval_step(module, weights)
    state = fresh_state(config, module)
    valid = np.arange(16) < 11
    spoilt = {**batch, "image": np.where(valid[:, None, None, None], batch["image"], 255)}
    sums = evaluate(state, train_step.split_over_devices({**spoilt, "valid": valid}))
    each = [
        evaluate(
            state,
            train_step.split_over_devices(
                {name: np.repeat(x[i : i + 1], 8, axis=0) for name, x in batch.items()}
                | {"valid": np.arange(8) == 0}
            ),
        )
        for i in np.flatnonzero(valid)
    ]
    assert float(sums["count"]) == 11
    for name in ("loss", "global_loss", "attention_loss", "reconstruction_loss"):
        assert float(sums[name]) == pytest.approx(sum(float(e[name]) for e in each), rel=1e-4)


def test_splitting_keeps_the_order():
    split = train_step.split_over_devices({"label": np.arange(16)})
    assert split["label"].tolist() == [[i, i + 1] for i in range(0, 16, 2)]


def test_splitting_refuses_a_rest():
    with pytest.raises(ValueError, match=r"batch \(=9\) must be a multiple of the 8"):
        train_step.split_over_devices({"label": np.arange(9)})


@pytest.mark.parametrize(
    ("heads", "expected"), [("joint", (2, 3, 4)), ("global", (2, 0, 0)), ("local", (0, 3, 4))]
)
def test_a_head_that_does_not_learn_has_no_loss(config, heads, expected):
    train = config.train.copy_and_resolve_references().unlock()
    train.heads = heads
    train.global_weight, train.reconstruction_weight, train.attention_weight = 2.0, 3.0, 4.0
    weights = train_step.loss_weights(train)
    assert (weights.global_loss, weights.reconstruction, weights.attention) == expected


@pytest.mark.slow
def test_computing_in_bfloat16_keeps_weights_in_float32(config, batch):
    state, metrics = run(config, batch, 1, steps=1, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {np.dtype(np.float32)}
    assert np.isfinite(metrics["loss"])
