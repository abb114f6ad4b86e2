import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from delg_jax.losses import LossWeights
from delg_jax.models.delg import build
from delg_jax.models.variables import initialize
from delg_jax.training import health, optimizer
from delg_jax.training import step as train_step
from delg_jax.training.optimizer import OptimizerSettings
from delg_jax.training.step import place
from delg_jax.training.train import module_options
from tests.photographs import draw
from tests.tiny import random_variables, training_config

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


def fresh_state(config):
    """Before the first step; what `config.train` decides does not change the initial values."""
    variables = initialize(build(config.model), jax.random.key(0))
    return optimizer.create_state(
        variables, optimizer.create_optimizer(OptimizerSettings.of(config.train))
    )


def run(config, batch, devices, steps=3, parts=1, variables=None, every=False, **options):
    """The state after some steps on the first `devices` devices, and the metrics of the last.

    With `every`, the metrics of each step instead.
    """
    module = build(config.model, **{**module_options(config.train), **options})
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train))
    weights = LossWeights.of(config.train)
    penalty = optimizer.penalty(OptimizerSettings.of(config.train))
    split = {n: x.reshape(devices, len(x) // devices, *x.shape[1:]) for n, x in batch.items()}
    state = fresh_state(config) if variables is None else optimizer.create_state(variables, tx)
    if devices > 1:
        state = place(state)
    step = train_step.parallel_train_step(state, module, tx, weights, penalty, parts)
    records = []
    for _ in range(steps):
        state, metrics = step(state, split, True)
        records.append(jax.device_get(metrics))
    return jax.device_get(state), *(records if every else records[-1:])


@pytest.fixture(scope="module")
def of_all_terms(config):
    """The configuration of a loss with a margin and decay, and BatchNorm fixed."""
    return changed(config, weight_decay=0.5, arcface_margin=0.3, batch_norm="frozen")


@pytest.fixture(scope="module")
def start(config):
    """Variables whose statistics are no round numbers."""
    return random_variables(build(config.model))


@pytest.fixture(scope="module")
def on_eight(of_all_terms, batch, start):
    """The state after three steps on all devices, and the metrics of each step."""
    devices = jax.device_count()
    state, *records = run(of_all_terms, batch, devices, variables=start, every=True)
    return state, records


def test_eight_devices_learn_what_one_learns(of_all_terms, on_eight, batch, start):
    alone = run(of_all_terms, batch, 1, variables=start)
    assert_equal_learning(alone, (on_eight[0], on_eight[1][-1]))


def test_frozen_statistics_of_all_devices_stay_as_they_are(on_eight, start):
    """Bit by bit: a mean over eight devices of equal numbers is not always that number."""
    pairs = (jax.tree.leaves(tree) for tree in (start["batch_stats"], on_eight[0].batch_stats))
    for old, new in zip(*pairs, strict=True):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()


@pytest.mark.slow
def test_eight_devices_with_shared_statistics_learn_what_one_learns(config, batch):
    runs = (run(config, batch, n, norm_axis=train_step.AXIS) for n in (1, jax.device_count()))
    assert_equal_learning(*runs)


def assert_equal_learning(alone, together):
    (one, one_metrics), (eight, eight_metrics) = alone, together
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


@pytest.mark.parametrize(
    ("options", "parts", "cached"),
    [
        pytest.param({"freeze_backbone": True}, 1, False, id="backbone"),
        pytest.param({"freeze_backbone": True}, 1, True, id="maps"),
        pytest.param({"freeze_backbone": True}, 2, False, id="parts"),
        pytest.param({"freeze_norm": True}, 1, False, id="norm"),
    ],
)
@pytest.mark.slow
def test_frozen_statistics_stay_as_they_are(config, batch, options, parts, cached):
    """Bit by bit: a mean over eight devices of equal numbers is not always that number."""
    module = build(config.model)
    before = random_variables(module)
    if cached:
        outputs = jax.jit(module.apply)(before, batch["image"])
        batch = {"conv4": outputs.conv4, "conv5": outputs.conv5, "label": batch["label"]}
    state, _ = run(config, batch, jax.device_count(), parts=parts, variables=before, **options)
    for name, tree in before["batch_stats"].items():
        frozen = "freeze_norm" in options or name == "resnet"
        for old, new in zip(*map(jax.tree.leaves, (tree, state.batch_stats[name])), strict=True):
            assert (np.asarray(old).tobytes() == np.asarray(new).tobytes()) == frozen, name


@pytest.fixture(scope="module")
def compiled(config):
    """A step of the configuration on all devices, compiled once."""
    module = build(config.model, **module_options(config.train))
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train))
    weights, state = LossWeights.of(config.train), fresh_state(config)
    return train_step.parallel_train_step(state, module, tx, weights)


def test_a_step_keeps_the_sharding_of_the_state(config, compiled, batch):
    before = place(fresh_state(config))
    placed = before.step.sharding
    after, _ = compiled(before, train_step.split_over_devices(batch), True)
    assert placed == after.step.sharding  # another would compile the step a second time


def test_evaluation_sums_over_valid_images_only(config, batch):
    module = build(config.model)
    weights = LossWeights.of(config.train)
    state = fresh_state(config)
    evaluate = train_step.parallel_eval_step(state, module, weights)
    valid = np.arange(16) < 5
    spoilt = {**batch, "image": np.where(valid[:, None, None, None], batch["image"], 255)}
    sums, scores = evaluate(state, train_step.split_over_devices({**spoilt, "valid": valid}))
    assert scores.shape == (8, 2, 2, 2)  # devices, images, positions of conv4
    each = [
        evaluate(
            state,
            train_step.split_over_devices(
                {name: np.repeat(x[i : i + 1], 8, axis=0) for name, x in batch.items()}
                | {"valid": np.arange(8) == 0}
            ),
        )[0]
        for i in np.flatnonzero(valid)
    ]
    assert float(sums["count"]) == 5
    for name in ("loss", "global_loss", "attention_loss", "reconstruction_loss"):
        assert float(sums[name]) == pytest.approx(sum(float(e[name]) for e in each), rel=1e-4)


def test_losses_of_training_and_validation_are_the_same_function(
    of_all_terms, on_eight, batch, start
):
    """With BatchNorm fixed, the same images give the same loss, margin and decay included."""
    config, learned = of_all_terms, on_eight[1][0]
    module = build(config.model, **module_options(config.train))
    weights = LossWeights.of(config.train)
    penalty = optimizer.penalty(OptimizerSettings.of(config.train))
    tx = optimizer.create_optimizer(OptimizerSettings.of(config.train))
    state = place(optimizer.create_state(start, tx))
    evaluate = train_step.parallel_eval_step(state, module, weights, penalty)
    valid = {**batch, "valid": np.ones(16, bool)}
    sums, _ = evaluate(state, train_step.split_over_devices(valid))
    found = {name: float(value) / 16 for name, value in sums.items() if name != "count"}
    assert {n for n in learned if n.endswith("loss")} == {n for n in found if n.endswith("loss")}
    assert found["decay_loss"] > 1
    for name, value in found.items():
        assert value == pytest.approx(float(learned[name]), rel=1e-4), name


def test_splitting_keeps_the_order():
    split = train_step.split_over_devices({"label": np.arange(16)})
    assert split["label"].tolist() == [[i, i + 1] for i in range(0, 16, 2)]


def test_splitting_refuses_a_rest():
    with pytest.raises(ValueError, match=r"batch \(=9\) .* 8"):
        train_step.split_over_devices({"label": np.arange(9)})


@pytest.mark.parametrize(
    ("heads", "expected"), [("joint", (2, 3, 4)), ("global", (2, 0, 0)), ("local", (0, 3, 4))]
)
def test_a_head_that_does_not_learn_has_no_loss(config, heads, expected):
    train = config.train.copy_and_resolve_references().unlock()
    train.heads = heads
    train.global_weight, train.reconstruction_weight, train.attention_weight = 2.0, 3.0, 4.0
    weights = LossWeights.of(train)
    assert (weights.global_loss, weights.reconstruction, weights.attention) == expected


@pytest.mark.slow
def test_computing_in_bfloat16_keeps_weights_in_float32(config, batch):
    state, metrics = run(config, batch, 1, steps=1, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {np.dtype(np.float32)}
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize(
    ("part", "expected"), [("local_classifier", "attention_loss"), ("whiten", "global_loss")]
)
def test_the_first_tensor_that_is_not_finite_is_found(config, compiled, batch, part, expected):
    state = fresh_state(config)
    flat = traverse_util.flatten_dict(state.params)
    path = next(path for path in flat if path[0] == part and path[-1] == "bias")
    flat[path] = flat[path].at[0].set(jnp.nan)
    state = place(state.replace(params=traverse_util.unflatten_dict(flat)))
    state, metrics = compiled(state, train_step.split_over_devices(batch), True)
    names = list(health.watched(metrics, state.params, state.variables))
    assert names[int(metrics["nonfinite"])] == expected


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.train.update(fields)
    return config.lock()


def assert_learned_the_same(found, expected, rtol=1e-5):
    flat = traverse_util.flatten_dict(expected.variables)
    for path, value in traverse_util.flatten_dict(found.variables).items():
        scale = max(np.linalg.norm(flat[path]), 1e-3)
        assert np.linalg.norm(value - flat[path]) < rtol * scale, path


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "devices"), [(2, 1), (8, 1), (2, 8)])
def test_accumulating_gradients_learns_what_the_whole_batch_does(config, batch, parts, devices):
    whole, whole_metrics = run(config, batch, 1, freeze_norm=True)
    accumulated, metrics = run(config, batch, devices, parts=parts, freeze_norm=True)
    assert_learned_the_same(accumulated, whole)
    assert metrics.keys() == whole_metrics.keys()
    for name, value in whole_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_each_accumulated_part_moves_the_statistics(config, batch):
    once, _ = run(config, batch, 1, steps=1)
    twice, _ = run(config, batch, 1, steps=1, parts=2)
    a, b = (s.batch_stats["resnet"]["stem_norm"]["mean"] for s in (once, twice))
    # From 0, a running mean goes a tenth of the way, twice that is 0.19
    assert np.median(b / a) == pytest.approx(1.9, rel=0.05)


@pytest.mark.slow
def test_weight_decay_is_in_the_loss_and_in_what_is_clipped(config, batch):
    frozen = {"freeze_norm": True, "freeze_backbone": True}
    plain_state, plain = run(changed(config, clip_norm=0.5), batch, 1, steps=1, **frozen)
    decay = 30.0
    decayed = changed(config, clip_norm=0.5, weight_decay=decay, freeze_backbone=True)
    state, metrics = run(decayed, batch, 1, steps=1, **frozen)
    start = fresh_state(config).params
    kernels = [
        leaf
        for path, leaf in traverse_util.flatten_dict(start).items()
        if path[-1] == "kernel" and path[0] != "resnet"
    ]
    expected = decay / 2 * sum(float(jnp.sum(jnp.square(leaf))) for leaf in kernels)
    assert metrics["decay_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["loss"] == pytest.approx(plain["loss"] + expected, rel=1e-5)
    assert metrics["gradient_norm"] != pytest.approx(plain["gradient_norm"], rel=1e-3)
    # The first momentum is the clipped gradient, so the pull of the decay was clipped as well
    assert metrics["gradient_norm"] > 0.5
    assert metrics["momentum_norm"] == pytest.approx(0.5, rel=1e-4)
    assert int(plain_state.step) == int(state.step) == 1


@pytest.fixture(scope="module")
def moved(config, batch):
    """A function that gives the parameters that one step moves, by the losses that count."""

    def compute(losses, stop_gradient):
        module = build(changed_model(config, stop_gradient).model, freeze_norm=True)
        before = fresh_state(config)
        weights = [float(name in losses) for name in ("global", "ae", "attention")]
        step = compiled(module, LossWeights(*weights, 0.1))
        after, _ = step(before, jax.tree.map(lambda x: x[None], batch))
        old, new = (traverse_util.flatten_dict(s.params) for s in (before, after))
        return {path for path in old if (np.asarray(old[path]) != np.asarray(new[path])).any()}

    tx = optax.sgd(1.0, momentum=0.0)

    @functools.cache
    def compiled(module, weights):
        def step(state, part):
            state = state.replace(opt_state=tx.init(state.params))
            return train_step.train_step(state, part, True, module, tx, weights)

        return jax.pmap(step, train_step.AXIS, in_axes=(None, 0), out_axes=None)

    return compute


def changed_model(config, stop_gradient):
    config = config.copy_and_resolve_references()
    config.model.stop_gradient = stop_gradient
    return config


LOCAL = {"attend", "reduce", "local_classifier"}


@pytest.mark.slow
def test_with_stopped_gradients_a_step_for_local_losses_leaves_the_backbone_as_it_is(moved):
    assert {path[0] for path in moved(("ae",), True)} == {"reduce"}
    assert {path[0] for path in moved(("attention",), True)} == LOCAL
    assert {path[0] for path in moved(("ae", "attention"), True)} == LOCAL


@pytest.mark.slow
def test_with_flowing_gradients_a_step_for_local_losses_moves_the_backbone(moved):
    before_conv5 = {
        path
        for path in moved(("global",), False)
        if path[0] == "resnet" and not path[1].startswith("conv5")
    }
    for loss in ("ae", "attention"):
        assert before_conv5 <= moved((loss,), False)


@pytest.mark.slow
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_step_for_the_global_loss_leaves_the_local_head_as_it_is(moved, stop_gradient):
    parts = {path[0] for path in moved(("global",), stop_gradient)}
    assert parts == {"resnet", "whiten", "global_classifier"}


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 7, 2, 3)])
def test_the_attention_summary_equals_numpy(rng, shape):
    scores = rng.gamma(2.0, size=shape).astype(np.float32)
    found = train_step.attention_summary(jnp.asarray(scores))
    expected = {f"attention_p{q}": np.percentile(scores, q) for q in (25, 50, 75)}
    expected |= {f"attention_{name}": getattr(scores, name)() for name in ("min", "mean", "max")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name


def test_sparsity_is_the_share_of_zeros():
    maps = jnp.asarray([[0.0, 1.0], [0.0, 0.0]])
    assert float(train_step.sparsity(maps)) == 0.75


def test_logging_does_not_change_a_step(config, compiled, batch):
    """Bit by bit; without it, only the losses are looked at."""
    found = {}
    parts = train_step.split_over_devices(batch)
    for logs in (True, False):
        state = place(fresh_state(config))
        state, metrics = compiled(state, parts, logs)
        found[logs] = jax.device_get((state, metrics))
    jax.tree.map(np.testing.assert_array_equal, found[True][0], found[False][0])
    logged, plain = found[True][1], found[False][1]
    assert logged.keys() == plain.keys()
    details = {name for name in logged if name in train_step.DETAILS}
    assert details == set(train_step.DETAILS)
    assert all(np.isfinite(logged[name]) and np.isnan(plain[name]) for name in details)
    kept = plain.keys() - details
    assert {name: plain[name] for name in kept} == {name: logged[name] for name in kept}
    assert {"loss", "nonfinite"} <= kept


@pytest.fixture(scope="module")
def one_step(config, batch):
    """A function that takes a step of some heads, with NaN in parts of the network."""

    def take(which, spoilt=()):
        chosen = changed(config, heads=which)
        module = build(chosen.model, **module_options(chosen.train))
        tx = optimizer.create_optimizer(OptimizerSettings.of(chosen.train))
        weights = LossWeights.of(chosen.train)
        state = fresh_state(chosen)
        params = {
            name: jax.tree.map(lambda x: x * np.nan, tree) if name in spoilt else tree
            for name, tree in state.params.items()
        }
        state = place(state.replace(params=params))
        step = train_step.parallel_train_step(state, module, tx, weights)
        parts = train_step.split_over_devices(batch)
        flops = step.lower(state, parts, True).cost_analysis()["flops"]
        state, metrics = step(state, parts, True)
        return jax.device_get(state), jax.device_get(metrics), flops

    return take


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "other"),
    [("global", LOCAL), ("local", {"whiten", "global_classifier"})],
)
def test_a_head_that_does_not_learn_is_not_computed(one_step, which, other):
    """NaN in its parameters changes nothing, and its operations are not in the program."""
    good, good_metrics, flops = one_step(which)
    state, metrics, _ = one_step(which, other)
    assert metrics["nonfinite"] >= 0  # the parameters themselves are looked at
    for name, value in good_metrics.items():
        if name not in ("nonfinite", "parameter_norm"):
            assert metrics[name] == value, name
    assert any(name.startswith("attention") for name in metrics) == (which == "local")
    for name in set(state.params) - other:
        jax.tree.map(np.testing.assert_array_equal, state.params[name], good.params[name])
    _, _, joint = one_step("joint")
    # The local head is the smaller: 2 images, 4 positions, 3 layers of 64 x 8, and a gradient
    assert joint - flops > 2 * (2 * 2 * 4 * 3 * 64 * 8)
