import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from delg_jax.losses import LossWeights
from delg_jax.models import class_shards
from delg_jax.models.class_shards import ClassShards
from delg_jax.models.delg import build
from delg_jax.models.variables import digest
from delg_jax.training import optimizer
from delg_jax.training import step as train_step
from delg_jax.training.checkpoints import Checkpoints
from delg_jax.training.optimizer import OptimizerSettings
from delg_jax.training.train import module_options
from tests.photographs import draw
from tests.tiny import random_variables, training_config

CLASSES = 11  # 8 devices hold 2 each: the sixth holds one, and the last two hold none
STEPS = 3
HOSTS = {
    1: ClassShards(CLASSES, train_step.AXIS, 8),
    2: ClassShards(CLASSES, train_step.AXIS, 4, 2),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    config.model.num_classes = CLASSES
    config.unlock()
    config.train.update(clip_norm=0.5, weight_decay=0.01, learning_rate=0.05)
    return config.lock()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    pictures = np.stack([draw(seed, 64, 64) for seed in range(32)])
    valid = np.arange(32) < 29
    batch = {"image": pictures, "label": rng.integers(0, CLASSES, 32, np.int32), "valid": valid}
    return train_step.split_over_devices(batch)


def fresh_state(config):
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train))
    return optimizer.create_state(random_variables(build(config.model)), tx)


def put(state, shards):
    """As `train_step.place`, but one process plays all hosts."""
    if shards is None or shards.hosts == 1:
        return train_step.place(state, shards)
    split = class_shards.map_split(
        lambda leaf: np.tile(
            train_step.split_classes(np.asarray(leaf), shards),
            (shards.hosts, *[1] * np.ndim(leaf)),
        ),
        state,
    )
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), (train_step.AXIS,))
    spec = jax.sharding.PartitionSpec
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.device_put(
            leaf,
            jax.sharding.NamedSharding(
                mesh, spec(train_step.AXIS) if class_shards.is_split(path) else spec()
            ),
        ),
        split,
    )


def taken(state, shards):
    """As `train_step.to_host`, for `put`; all hosts must hold the same."""
    if shards is None or shards.hosts == 1:
        return train_step.to_host(state, shards)

    def first(leaf):
        hosts = leaf.reshape(shards.hosts, shards.devices, *leaf.shape[1:])
        np.testing.assert_array_equal(hosts[0], hosts[1])
        return train_step.join_classes(hosts[0], shards.classes)

    return class_shards.map_split(first, jax.device_get(state))


def run(config, batch, shards, parts=1, **options):
    """State, metrics and validation sums after some steps."""
    options = {**module_options(config.train), "freeze_norm": True, **options}
    module = build(config.model, **options, class_shards=shards)
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train), shards)
    weights, penalty = (
        LossWeights.of(config.train),
        optimizer.penalty(OptimizerSettings.of(config.train), shards),
    )
    state = put(fresh_state(config), shards)
    step = train_step.parallel_train_step(state, module, tx, weights, penalty, parts)
    inputs = {name: batch[name] for name in ("image", "label")}
    for _ in range(STEPS):
        state, metrics = step(state, inputs, True)
    sums, _ = train_step.parallel_eval_step(state, module, weights)(state, batch)
    return taken(state, shards), jax.device_get(metrics), jax.device_get(sums)


def changed(config, loss):
    config = config.copy_and_resolve_references()
    config.model.global_loss = loss
    return config


@pytest.fixture(scope="module")
def replicated(config, batch):
    return {loss: run(changed(config, loss), batch, None) for loss in ("arcface", "softmax")}


def assert_same(found, expected):
    flat = traverse_util.flatten_dict(expected.variables)
    for path, value in traverse_util.flatten_dict(found.variables).items():
        assert value.shape == flat[path].shape, path
        np.testing.assert_allclose(value, flat[path], atol=1e-5, rtol=1e-5, err_msg=str(path))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
        found.opt_state,
        expected.opt_state,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "hosts", "parts"),
    [("arcface", 1, 1), ("softmax", 1, 1), ("arcface", 2, 1), ("arcface", 1, 2)],
)
def test_shards_learn_what_whole_classifiers_do(config, batch, replicated, loss, hosts, parts):
    """With clipping, weight decay, padded classes; also over hosts and sub-batches."""
    state, metrics, sums = run(changed(config, loss), batch, HOSTS[hosts], parts)
    expected, expected_metrics, expected_sums = replicated[loss]
    assert_same(state, expected)
    assert metrics.keys() == expected_metrics.keys()
    for name, value in expected_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for name, value in expected_sums.items():
        assert sums[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.slow
def test_shards_learn_in_bfloat16(config, batch):
    options = {"dtype": jnp.bfloat16}
    state, metrics, _ = run(config, batch, HOSTS[1], **options)
    whole, whole_metrics, _ = run(config, batch, None, **options)
    assert_same(state, whole)
    assert metrics["loss"] == pytest.approx(float(whole_metrics["loss"]), rel=1e-4)


@pytest.mark.slow
def test_a_tensor_that_is_not_finite_is_found_on_any_device(config, batch):
    state = fresh_state(config)
    kernel = state.params["local_classifier"]["dense"]["kernel"]
    kernel = kernel.at[0, CLASSES - 1].set(jnp.nan)
    state.params["local_classifier"]["dense"]["kernel"] = kernel
    shards = HOSTS[1]
    module = build(config.model, freeze_norm=True, class_shards=shards)
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train), shards)
    placed = train_step.place(state, shards)
    weights = LossWeights.of(config.train)
    step = train_step.parallel_train_step(placed, module, tx, weights)
    _, metrics = step(placed, {name: batch[name] for name in ("image", "label")}, True)
    assert int(metrics["nonfinite"]) == 0  # attention_loss, the first by name


@pytest.mark.parametrize("shards", [None, HOSTS[1]], ids=["whole", "shards"])
def test_taking_a_state_from_the_devices_is_the_inverse_of_placing_it(config, shards):
    state = fresh_state(config)
    back = train_step.to_host(train_step.place(state, shards), shards)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_checkpoints_are_the_same_with_and_without_shards(config, tmp_path):
    state, found = fresh_state(config), []
    for name, shards in (("whole", None), ("shards", HOSTS[1])):
        with Checkpoints(tmp_path / name, config.model, keep=1) as checkpoints:
            checkpoints.save(train_step.to_host(train_step.place(state, shards), shards), "")
        with Checkpoints(tmp_path / name, config.model, keep=1) as checkpoints:
            restored, _ = checkpoints.restore(state)
        jax.tree.map(np.testing.assert_array_equal, restored, state)
        found.append(digest(restored.variables))
        back = train_step.place(restored, HOSTS[1])
        assert back.params["global_classifier"]["kernel"].shape == (8, 16, 2)
    assert found[0] == found[1]


def test_each_device_holds_its_classes_and_their_momentum(config):
    placed = train_step.place(fresh_state(config), HOSTS[1])
    kernel = placed.params["global_classifier"]["kernel"]
    assert kernel.shape == (8, 16, 2)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(1, 16, 2)}
    shapes = {leaf.shape for leaf in jax.tree.leaves(placed.opt_state)}
    assert (16, CLASSES) not in shapes
    assert kernel.shape in shapes
    assert placed.params["global_classifier"]["scale"].shape == ()


@pytest.mark.parametrize(("classes", "devices"), [(11, 8), (16, 8), (3, 8), (5, 1)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_splitting_keeps_the_order_of_classes(rng, classes, devices, shape):
    shards = ClassShards(classes, train_step.AXIS, devices)
    array = rng.normal(size=(*shape, classes)).astype(np.float32)
    split = train_step.split_classes(array, shards)
    assert split.shape == (devices, *shape, shards.per_device)
    np.testing.assert_array_equal(train_step.join_classes(split, classes), array)
    np.testing.assert_array_equal(split[0], array[..., : shards.per_device])
    assert np.count_nonzero(split) == array.size


def test_classifiers_are_split_if_asked_for():
    assert train_step.class_shards(CLASSES, split=False) is None
    assert train_step.class_shards(CLASSES, split=True) == HOSTS[1]
