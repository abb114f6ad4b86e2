import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.models.convention import CONVENTIONS, get_convention, preprocess
from delg_jax.models.delg import build


@pytest.mark.parametrize("name", ["slim", "keras"])
def test_tensorflow_centres_pixels(name):
    pixels = jnp.asarray([0, 128, 255], jnp.uint8).reshape(1, 1, 1, 3)
    values = preprocess(pixels, CONVENTIONS[name])
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values[0, 0, 0], [-1.0, 0.0, 127 / 128], rtol=1e-6)


def test_torchvision_takes_the_statistics_of_imagenet():
    values = preprocess(jnp.full((1, 1, 1, 3), 255, jnp.uint8), CONVENTIONS["torchvision"])
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(values[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "momentum"),
    [("slim", 0.997), ("keras", 0.99), ("keras_applications", 0.99), ("torchvision", 0.9)],
)
@pytest.mark.parametrize("given", [0.0, 0.5])
def test_batch_norm_moves_as_in_the_system_of_the_convention(
    rng, random_variables, quick_jit, name, momentum, given
):
    """Unless another momentum is given; statistics of the attention, whose input is known."""
    model = default.get_config().model
    model.update(backbone="tiny", convention=name, num_classes=2, attention_dim=4, local_dim=4)
    module = build(model, norm_momentum=given)
    maps = rng.normal(size=(2, 3, 3, 64)).astype(np.float32), np.ones((2, 2, 2, 128), np.float32)
    variables = random_variables(module, np.zeros((1, 64, 64, 3)), method="classify")
    run = quick_jit(
        lambda v: module.apply(v, *maps, train=True, method="heads", mutable=["batch_stats"])
    )
    _, changed = run(variables)
    layer = variables["params"]["attend"]["conv1"]
    mean = (maps[0] @ layer["kernel"][0, 0] + layer["bias"]).mean((0, 1, 2))
    kept = given or momentum
    expected = kept * variables["batch_stats"]["attend"]["norm1"]["mean"] + (1 - kept) * mean
    found = changed["batch_stats"]["attend"]["norm1"]["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_an_unknown_name_is_refused():
    assert get_convention("slim") is CONVENTIONS["slim"]
    with pytest.raises(UserError, match="config.model.convention = 'caffe'.*slim, keras"):
        get_convention("caffe")


def test_keras_applications_only_subtracts_the_mean():
    values = preprocess(jnp.full((1, 1, 1, 3), 128, jnp.uint8), CONVENTIONS["keras_applications"])
    np.testing.assert_allclose(values[0, 0, 0], [4.32, 11.221, 24.061], rtol=1e-5)


def test_efficientnet_centres_pixels_at_127():
    pixels = jnp.asarray([0, 127, 255], jnp.uint8).reshape(1, 1, 1, 3)
    values = preprocess(pixels, CONVENTIONS["efficientnet"])
    np.testing.assert_allclose(values[0, 0, 0], [-127 / 128, 0.0, 1.0], rtol=1e-6)
