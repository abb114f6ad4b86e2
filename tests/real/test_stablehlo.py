"""An exported model gives the same features of a real photograph as the extractor."""

import jax
import numpy as np
import pytest
from PIL import Image

from configs import revisited
from delg_jax.features.in_memory import extract_image
from delg_jax.features.stablehlo import export_model
from delg_jax.training.trained_network import load_model

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_a_photograph_has_the_features_of_the_extractor(shared, tmp_path):
    weights = shared / "weights" / "resnet18_imagenet.npz"
    photographs = sorted((shared / "data" / "roxford5k_1614" / "jpg").glob("*.jpg"))
    if not weights.is_file() or not photographs:
        pytest.skip(f"there is no {weights.name}, or there are no photographs")
    config = revisited.get_config("real").unlock()
    config.model.backbone, config.model.pretrained = "resnet18", str(weights)
    config.extract.pca_dim = 0
    picture = Image.open(photographs[0]).convert("RGB")
    picture.thumbnail((320, 320))
    picture = np.asarray(picture)
    canvas = np.zeros((320, 320, 3), np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture

    path = export_model(config, tmp_path, tmp_path / "model.stablehlo", canvas.shape[:2])
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    found = exported.call(canvas, np.array(picture.shape[:2], np.int32))

    expected = extract_image(*load_model(config, tmp_path), picture, config.extract)
    assert expected.local.mask.sum() > 500
    np.testing.assert_allclose(
        found["global_descriptor"], expected.global_descriptor, atol=1e-5, rtol=0
    )
    for name in ("mask", "locations", "scales"):
        np.testing.assert_array_equal(found[name], getattr(expected.local, name))
    np.testing.assert_allclose(found["scores"], expected.local.scores, rtol=1e-5)
    np.testing.assert_allclose(found["descriptors"], expected.local.descriptors, atol=1e-5, rtol=0)
