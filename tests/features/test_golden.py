"""The seven-scale extraction against that of the official code, with weights made from names."""

import numpy as np
import pytest

from configs import default
from delg_jax.features import Extractor, pyramid_level
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models import delg, weights
from tests.models.test_goldens import seeded

pytestmark = [pytest.mark.real, pytest.mark.slow]  # compiles ResNet-50 for seven sizes


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "goldens" / "extraction_s32.npz"))


@pytest.fixture(scope="module")
def features(shared, golden):
    config = default.get_config()
    config.model.update(convention="keras", conv4_stride=32, pretrained_source="keras")
    config.extract.max_features = int(golden["max_feature_num"])
    config.extract.attention_threshold = float(golden["score_threshold"])
    config.extract.batch_pixels = 1
    arrays = seeded(shared / "goldens" / "delg_keras_variables.json")
    module = delg.build(config.model)
    variables = weights.convert("keras", arrays, module, classifiers=False)
    settings = ExtractionSettings.of(config.extract)
    return Extractor(module, variables, settings)([golden["image"]])[0]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_same_regions_are_chosen(features, golden):
    local = features.local
    assert local.mask.sum() == len(golden["boxes"])
    boxes = pyramid_level.boxes(local.locations, local.scales)
    np.testing.assert_allclose(boxes, golden["boxes"], atol=0.05)
    np.testing.assert_allclose(local.scales, golden["feature_scales"], rtol=1e-5)


def test_scores_and_descriptors_are_equal(features, golden):
    np.testing.assert_allclose(features.local.scores, golden["scores"][:, 0], rtol=1e-4)
    distances = np.linalg.norm(features.local.descriptors - unit(golden["descriptors"]), axis=1)
    assert distances.max() < 1e-3


def test_the_global_descriptor_is_the_mean_of_its_scales(features, golden):
    expected = unit(unit(golden["global_descriptors"]).mean(axis=0))
    assert np.linalg.norm(features.global_descriptor - expected) < 1e-4
