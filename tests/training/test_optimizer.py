import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.training import optimizer
from delg_jax.training.optimizer import OptimizerSettings
from tests.tiny import training_config

LOCAL = {"attend", "reduce", "local_classifier"}
GLOBAL = {"resnet", "whiten", "global_classifier"}


@pytest.fixture
def train(tmp_path):
    return training_config(tmp_path).train.copy_and_resolve_references().unlock()


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Ones under the names of the tiny network's parameters, two of each."""
    module = build(training_config(tmp_path_factory.mktemp("unused")).model)
    image = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(
        lambda key: module.init(key, image, method="classify"), jax.random.key(0)
    )
    return jax.tree.map(lambda _: jnp.ones(2), shapes["params"])


def updates(train, params, gradients):
    """The first update, flat by path, as largest absolute value."""
    tx = optimizer.create_optimizer(OptimizerSettings.of(train))
    tree, _ = tx.update(gradients, tx.init(params), params)
    flat = traverse_util.flatten_dict(tree)
    return {path: float(jnp.abs(leaf).max()) for path, leaf in flat.items()}


def moved(train, params):
    """Paths of the parameters that learn, given a gradient everywhere."""
    return {path for path, size in updates(train, params, params).items() if size > 0}


def test_learning_rate_falls_linearly_to_zero(train):
    train.steps, train.learning_rate = 10, 0.4
    rates = [
        float(optimizer.learning_rate(OptimizerSettings.of(train))(step))
        for step in (0, 1, 5, 10, 11)
    ]
    np.testing.assert_allclose(rates, [0.4, 0.36, 0.2, 0.0, 0.0], atol=1e-7)


def test_learning_rate_warms_up_first(train):
    train.steps, train.warmup_steps, train.learning_rate = 10, 4, 0.4
    rates = [
        float(optimizer.learning_rate(OptimizerSettings.of(train))(step))
        for step in (0, 2, 4, 7, 10)
    ]
    np.testing.assert_allclose(rates, [0.0, 0.2, 0.4, 0.2, 0.0], atol=1e-7)


@pytest.mark.parametrize("steps", [-1, 6, 7])
def test_a_warm_up_as_long_as_training_is_refused(train, steps):
    train.warmup_steps = steps
    with pytest.raises(UserError, match=rf"config\.train\.warmup_steps = {steps}: .*\(=6\)"):
        OptimizerSettings.of(train)


@pytest.mark.parametrize(
    ("heads", "frozen", "parts"),
    [
        ("joint", False, LOCAL | GLOBAL),
        ("joint", True, LOCAL | GLOBAL - {"resnet"}),
        ("global", False, GLOBAL),
        ("global", True, GLOBAL - {"resnet"}),
        ("local", False, LOCAL),
        ("local", True, LOCAL),
    ],
)
def test_only_the_chosen_parts_learn(train, params, heads, frozen, parts):
    train.heads, train.freeze_backbone = heads, frozen
    expected = {path for path in traverse_util.flatten_dict(params) if path[0] in parts}
    assert moved(train, params) == expected


def test_a_fixed_arcface_scale_is_not_updated(train, params):
    learned = moved(train, params)
    train.arcface_scale_learned = False
    assert learned - moved(train, params) == {("global_classifier", "scale")}


@pytest.mark.parametrize("heads", ["joint", "local"])
def test_weight_decay_applies_to_kernels_that_learn(train, params, heads):
    train.heads, train.weight_decay = heads, 0.1
    penalty, pull = optimizer.penalty(OptimizerSettings.of(train))(params)
    flat = traverse_util.flatten_dict(pull)
    pulled = {path: leaf for path, leaf in flat.items() if leaf.any()}
    assert {path[-1] for path in pulled} == {"kernel"}
    assert {path[0] for path in pulled} == (LOCAL if heads == "local" else LOCAL | GLOBAL)
    np.testing.assert_allclose(list(pulled.values()), 0.1, rtol=1e-6)  # weight * 1
    assert float(penalty) == pytest.approx(0.1 / 2 * 2 * len(pulled), rel=1e-6)


def test_without_weight_decay_there_is_no_penalty(train):
    assert optimizer.penalty(OptimizerSettings.of(train)) is None


def test_a_negative_weight_decay_is_refused(train):
    train.weight_decay = -0.1
    with pytest.raises(UserError, match=r"config\.train\.weight_decay = -0\.1: "):
        OptimizerSettings.of(train)


def test_gradients_are_clipped_to_the_norm_of_those_that_learn(train, params):
    train.heads, train.clip_norm, train.learning_rate = "local", 2.0, 1.0
    tx = optimizer.create_optimizer(OptimizerSettings.of(train))
    tree, _ = tx.update(params, tx.init(params), params)
    assert float(optax.tree.norm(tree)) == pytest.approx(2.0, rel=1e-5)


def test_momentum_sums_updates(train, params):
    train.clip_norm, train.momentum, train.learning_rate, train.steps = 1e9, 0.5, 1.0, 1000
    tx = optimizer.create_optimizer(OptimizerSettings.of(train))
    state = tx.init(params)
    for expected in (-1.0, -1.5 * 0.999, -1.75 * 0.998):
        tree, state = tx.update(params, state, params)
        assert float(tree["whiten"]["bias"][0]) == pytest.approx(expected, rel=1e-5)


def test_unknown_heads_are_refused(train):
    train.heads = "both"
    with pytest.raises(UserError, match=r"config\.train\.heads = 'both': "):
        OptimizerSettings.of(train)


def test_a_fresh_state_has_made_no_step(train, params):
    state = optimizer.create_state(
        {"params": params, "batch_stats": {}},
        optimizer.create_optimizer(OptimizerSettings.of(train)),
    )
    assert int(state.step) == 0
    assert state.variables == {"params": state.params, "batch_stats": {}}
