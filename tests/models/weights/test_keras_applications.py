"""Our network against Keras applications' ResNet-50, with random weights; skipped without it."""

import numpy as np
import pytest

from configs import default
from delg_jax.models import delg, weights

pytestmark = [
    pytest.mark.slow,  # imports TensorFlow and builds two networks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of TensorFlow's own imports
]


def test_conv5_is_equal(rng, tmp_path, quick_jit):
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    tensorflow.random.set_seed(0)
    network = keras.applications.ResNet50(weights=None, include_top=False)
    for variable in network.weights:
        if variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(rng.uniform(-0.1, 0.1, variable.shape))
        elif variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(rng.uniform(0.5, 0.7, variable.shape))
    image = rng.integers(0, 256, (96, 131, 3), np.uint8)
    prepared = keras.applications.resnet50.preprocess_input(image[None].astype(np.float32))
    expected = network(prepared, training=False).numpy()[0]
    network.save(tmp_path / "weights.h5")  # the layout of the published files
    model = default.get_config().model
    model.update(backbone="resnet50", convention="keras_applications", conv4_stride=16)
    model.update(whitening=False, local_head=False)
    arrays = weights.read_arrays(str(tmp_path / "weights.h5"))
    assert weights.convention_of("keras", arrays, model.backbone) == "keras_applications"
    variables = weights.convert("keras", arrays, delg.build(model), classifiers=False)
    found = quick_jit(delg.build(model).apply)(variables, image[None]).conv5[0]
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
