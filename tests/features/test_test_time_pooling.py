import dataclasses

import jax
import numpy as np
import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.features import Features, extractor, network
from delg_jax.features.extractor import Extractor
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models import heads
from delg_jax.models.delg import build
from tests.photographs import draw
from tests.tiny import random_variables, retrieval_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = retrieval_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    with config.unlocked():
        config.extract.global_scales = config.extract.local_scales = (1.0,)
    return config


@pytest.fixture(scope="module")
def model(config):
    module = build(config.model)
    return module, random_variables(module)


def changed(config, **fields):
    return dataclasses.replace(ExtractionSettings.of(config.extract), **fields)


def described(config, model, image, **fields) -> Features:
    return Extractor(*model, changed(config, **fields))([image])[0]


def test_by_default_the_network_is_what_was_trained(config, model):
    assert extractor.adapted(model[0], changed(config)) == model[0]


def test_pooling_is_that_of_the_adapted_map(config, model):
    image = draw(0, 96, 128)
    fields = {"gem_power": 4.6, "regional": 0.5, "relup": 0.1}
    found = described(config, model, image, **fields).global_descriptor
    module, variables = model

    @jax.jit
    def expected(variables, images):
        outputs = module.clone(relup=0.1).apply(variables, images)
        pooled = heads.pool(heads.blend_regions(outputs.conv5, 0.5), "gem", 4.6)[0]
        if module.whitening:
            dense = variables["params"]["whiten"]
            pooled = pooled @ dense["kernel"] + dense["bias"]
        return heads.l2_normalize(pooled)

    computed = expected(variables, image[None].astype(np.float32))
    np.testing.assert_allclose(found, computed, atol=1e-5)


def test_relup_lifts_every_stage_but_the_last(model):
    module, variables = model
    image = draw(0, 96, 128)[None].astype(np.float32)
    outputs = jax.jit(module.clone(relup=0.5).apply)(variables, image)
    assert np.asarray(outputs.conv4).min() == 0.5
    assert np.asarray(outputs.conv5).min() == 0.0


@pytest.mark.parametrize("field", ["gem_power", "regional", "relup"])
def test_each_option_changes_the_global_descriptor(config, model, field):
    image = draw(1, 64, 96)
    plain = described(config, model, image).global_descriptor
    other = described(config, model, image, **{field: 0.9}).global_descriptor
    assert np.abs(plain - other).max() > 1e-4


def test_a_learned_power_is_overruled(config):
    unlocked = config.copy_and_resolve_references().unlock()
    unlocked.model.gem_learned = True
    module = build(unlocked.model)
    model = module, random_variables(module)
    model[1]["params"]["power"] = np.float32(2.0)
    fixed = module.clone(gem_learned=False, gem_power=4.6), model[1]
    image = draw(2, 64, 64)
    found = described(config, model, image, gem_power=4.6).global_descriptor
    np.testing.assert_array_equal(found, described(config, fixed, image).global_descriptor)


def test_scales_pooled_by_their_maximum(config, model):
    image, scales = draw(3, 64, 64), (0.70710677, 1.0)
    each = [
        described(config, model, image, global_scales=(scale,)).global_descriptor
        for scale in scales
    ]
    best = np.maximum(*each)
    fields = {"global_scales": scales, "scale_pooling": "max"}
    found = described(config, model, image, **fields).global_descriptor
    np.testing.assert_allclose(found, best / np.linalg.norm(best), atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale_pooling", "sum"), ("gem_power", -1.0), ("relup", float("nan")), ("regional", 1.5)],
)
def test_a_wrong_value_is_named(config, field, value):
    extract = config.extract.copy_and_resolve_references()
    with extract.unlocked():
        extract[field] = value
    with pytest.raises(UserError, match=f"config.extract.{field}"):
        network.check(extract)


@pytest.mark.parametrize("field", ["relup", "regional"])
def test_a_vision_transformer_has_no_maps_above_0(field):
    model = default.get_config().model
    model.update(backbone="dinov2_s14", convention="dinov2", conv4_stride=14)
    settings = ExtractionSettings((1.0,), (1.0,), **{field: 0.1})
    with pytest.raises(UserError, match=f"config.extract.{field} = 0.1: must be 0 with dinov2_s14"):
        extractor.adapted(build(model), settings)
