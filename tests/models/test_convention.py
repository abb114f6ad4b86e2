import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.convention import CONVENTIONS, get_convention, preprocess


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


def test_an_unknown_name_is_refused():
    assert get_convention("slim") is CONVENTIONS["slim"]
    with pytest.raises(UserError, match="config.model.convention = 'caffe'.*slim, keras"):
        get_convention("caffe")


def test_keras_applications_only_subtracts_the_mean():
    values = preprocess(jnp.full((1, 1, 1, 3), 128, jnp.uint8), CONVENTIONS["keras_applications"])
    np.testing.assert_allclose(values[0, 0, 0], [4.32, 11.221, 24.061], rtol=1e-5)
