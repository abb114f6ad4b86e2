import jax
import numpy as np

from delg_jax.models.heads import CosineClassifier, SoftmaxClassifier


def test_cosines_do_not_depend_on_the_length_of_class_vectors(rng, random_variables):
    descriptors = rng.normal(size=(3, 4)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    variables = random_variables(module, descriptors)
    kernel = variables["params"]["kernel"]
    cosines, scale = module.apply(variables, descriptors)
    expected = descriptors @ (kernel / np.linalg.norm(kernel, axis=0, keepdims=True))
    np.testing.assert_allclose(cosines, expected, rtol=1e-5, atol=1e-6)
    assert scale == variables["params"]["scale"]
    longer = {"params": {**variables["params"], "kernel": 7 * kernel}}
    np.testing.assert_allclose(module.apply(longer, descriptors)[0], cosines, atol=1e-6)


def test_gamma_starts_where_it_is_told(rng):
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    params = module.init(jax.random.key(0), np.ones((1, 4), np.float32))["params"]
    assert params["scale"] == 45.25
    assert params["scale"].shape == ()


def test_softmax_classifier_is_affine(rng, random_variables):
    features = rng.normal(size=(3, 4)).astype(np.float32)
    module = SoftmaxClassifier(num_classes=5)
    variables = random_variables(module, features)
    dense = variables["params"]["dense"]
    expected = features @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(module.apply(variables, features), expected, rtol=1e-5, atol=1e-6)
