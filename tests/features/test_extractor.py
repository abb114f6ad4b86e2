import dataclasses
import itertools

import jax
import numpy as np
import pytest

from delg_jax.features import extractor as extractor_module
from delg_jax.features import pyramid
from delg_jax.features.extractor import Extractor, _resize, in_original_pixels
from delg_jax.features.in_memory import extract_image
from delg_jax.features.pca import Pca
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.models.delg import build
from tests.photographs import draw
from tests.tiny import random_variables, retrieval_config

SIZES = [(40, 56), (64, 64), (33, 61), (90, 70), (50, 50)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = retrieval_config(tmp_path_factory.mktemp("unused")).copy_and_resolve_references()
    config.extract.batch_pixels = 4 * 128 * 128
    return config.unlock()


@pytest.fixture(scope="module")
def images():
    return [draw(number, *size) for number, size in enumerate(SIZES)]


def extraction(config, **fields):
    return dataclasses.replace(ExtractionSettings.of(config.extract), **fields)


def network(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.model.update(fields)
    module = build(config.model)
    return module, random_variables(module)


@pytest.fixture(scope="module")
def model(config):
    return network(config)


@pytest.fixture(scope="module")
def extractor(config, model):
    return Extractor(*model, ExtractionSettings.of(config.extract))


@pytest.fixture(scope="module")
def together(extractor, images):
    return extractor(images)


def assert_same(found, expected, atol=1e-5):
    np.testing.assert_allclose(found.global_descriptor, expected.global_descriptor, atol=atol)
    np.testing.assert_array_equal(found.local.mask, expected.local.mask)
    np.testing.assert_allclose(found.local.scores, expected.local.scores, rtol=1e-4, atol=atol)
    np.testing.assert_allclose(found.local.locations, expected.local.locations, atol=1e-3)
    np.testing.assert_allclose(found.local.descriptors, expected.local.descriptors, atol=atol)


def test_features_do_not_depend_on_their_company(extractor, images, together):
    for image, expected in zip(images, together, strict=True):
        assert_same(extractor([image])[0], expected)
    for found, expected in zip(extractor(images[::-1]), together[::-1], strict=True):
        assert_same(found, expected)


def test_batches_of_other_sizes_change_nothing(config, model, images, together):
    settings = extraction(config, batch_pixels=1)
    for found, expected in zip(Extractor(*model, settings)(images), together, strict=True):
        assert_same(found, expected)


def test_a_few_canvases_change_nothing(config, model, images, together):
    given = Extractor(*model, extraction(config))
    extractor = given.on_few_canvases()
    assert given.settings.shape_step == 64
    for found, expected in zip(extractor(images), together, strict=True):
        assert_same(found, expected)
    assert {key[0] for key in extractor.compiled_shapes} == {(256, 256)}


def test_after_warming_up_no_picture_compiles(config, model, rng, monkeypatch):
    # A process that other tests have filled may drop its programs at any image
    monkeypatch.setattr(extractor_module, "release_if_many", lambda: False)
    settings = extraction(config, shape_step=0, max_size=100, batch_pixels=1)
    extractor = Extractor(*model, settings)
    steps = []
    extractor.warm_up(lambda: steps.append(1))
    assert len(steps) == len(extractor.warm_up_sizes())
    programs = set(extractor.compiled_shapes)
    resizing = _resize._cache_size()
    for _ in range(8):
        extractor([draw(1, *rng.integers(20, 101, 2))])
    assert set(extractor.compiled_shapes) == programs
    assert _resize._cache_size() == resizing
    unbounded = dataclasses.replace(settings, shape_step=64)
    assert Extractor(*model, unbounded).warm_up_sizes() == []


def test_warming_up_covers_every_shape(config, model):
    scales = (0.70710677, 1.0, 1.4142135)
    settings = extraction(
        config, shape_step=0, max_size=1024, local_scales=scales, global_scales=scales
    )

    def programs(size):
        levels = (pyramid.scaled_size(size, scale) for scale in settings.local_scales)
        return {(pyramid.source_shape(size, 0), pyramid.canvas_shape(one, 0)) for one in levels}

    warm = set().union(*map(programs, Extractor(*model, settings).warm_up_sizes()))
    sides = [*range(16, 1024, 19), 362, 363, 512, 513, 724, 725, 768, 769, 1024]
    for size in itertools.product(sides, sides):
        assert programs(size) <= warm, size


def test_equals_the_network_on_the_bare_image(config, model, images):
    module, variables = model
    settings = extraction(config, local_scales=(1.0,), global_scales=(1.0,), max_features=100)
    found = Extractor(module, variables, settings)([images[0]])[0]
    outputs = jax.jit(module.apply)(variables, images[0][None])
    np.testing.assert_allclose(found.global_descriptor, outputs.global_descriptor[0], atol=1e-5)
    attention = np.asarray(outputs.attention[0])
    order = np.argsort(-attention.ravel(), kind="stable")
    count = len(order)
    assert found.local.mask.sum() == count
    np.testing.assert_allclose(found.local.scores[:count], attention.ravel()[order], rtol=1e-4)
    cells = np.stack(np.unravel_index(order, attention.shape), axis=1)
    np.testing.assert_allclose(found.local.locations[:count], 16 * cells)
    descriptors = np.asarray(outputs.local_descriptors[0]).reshape(count, -1)[order]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    np.testing.assert_allclose(found.local.descriptors[:count], descriptors, atol=1e-5)


def test_what_every_image_gets(config, together):
    for features in together:
        assert np.linalg.norm(features.global_descriptor) == pytest.approx(1, abs=1e-5)
        local, kept = features.local, features.local.mask
        assert kept.shape == (config.extract.max_features,)
        assert kept.any()
        norms = np.linalg.norm(local.descriptors[kept], axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-5)
        assert (np.diff(local.scores[kept]) <= 0).all()
        assert {round(float(scale), 4) for scale in local.scales[kept]} <= {1.0, 0.7071}


def test_locations_lie_in_the_image(images, together):
    for image, features in zip(images, together, strict=True):
        kept = features.local.locations[features.local.mask]
        assert (kept >= 0).all()
        assert (kept < np.array(image.shape[:2])).all()


def test_only_scores_above_the_threshold_count(config, model, images, together):
    threshold = float(np.median(together[1].local.scores))
    settings = extraction(config, attention_threshold=threshold)
    found = Extractor(*model, settings)([images[1]])[0].local
    expected = together[1].local.scores[together[1].local.scores >= threshold]
    assert found.mask.sum() == len(expected) < together[1].local.mask.sum()
    np.testing.assert_allclose(found.scores[found.mask], expected, rtol=1e-5)


def test_many_sizes_and_scales_share_few_shapes(config, model):
    scales = (0.5, 0.7, 1.0)
    settings = extraction(
        config, local_scales=scales, global_scales=scales, batch_pixels=4 * 64 * 64
    )
    extractor = Extractor(*model, settings)
    extractor([draw(0, 40 + 3 * i, 64 - 2 * i) for i in range(7)])
    # 21 levels fit one canvas: batches of 4, 4, 4, 4, 4 and 1
    assert list(extractor.compiled_shapes) == [((64, 64), 4, 30, True), ((64, 64), 1, 30, True)]
    assert all(seconds > 0 for seconds in extractor.compiled_shapes.values())


def test_on_a_cpu_one_level_at_a_time_is_automatic(config, model, images, together):
    settings = extraction(config, batch_pixels=0)
    extractor = Extractor(*model, settings)
    assert_same(extractor(images[:2])[1], together[1])
    assert {shape[1] for shape in extractor.compiled_shapes} == {1}


def test_the_same_chunk_gives_the_same_bits(extractor, images, together):
    for found, expected in zip(extractor(images), together, strict=True):
        np.testing.assert_array_equal(found.global_descriptor, expected.global_descriptor)
        for a, b in zip(found.local, expected.local, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_bounded_number_of_batches_waits(config, model, images, monkeypatch):
    running, most = 0, []
    start, collect = Extractor._start, Extractor._collect

    def counting_start(self, *arguments):
        nonlocal running
        running += 1
        most.append(running)
        return start(self, *arguments)

    def counting_collect(self, *arguments):
        nonlocal running
        running -= 1
        return collect(self, *arguments)

    monkeypatch.setattr(Extractor, "_start", counting_start)
    monkeypatch.setattr(Extractor, "_collect", counting_collect)
    settings = extraction(config, batch_pixels=1)
    Extractor(*model, settings)(images)
    assert len(most) == 10
    assert max(most) == 3  # one is started before the first of two is copied
    assert running == 0


def test_scales_without_a_global_descriptor_do_not_count_for_it(config, model, images, together):
    settings = extraction(config, global_scales=(1.0,))
    extractor = Extractor(*model, settings)
    (found,) = extractor(images[:1])
    settings = dataclasses.replace(settings, local_scales=(1.0,))
    (single,) = Extractor(*model, settings)(images[:1])
    np.testing.assert_allclose(found.global_descriptor, single.global_descriptor, atol=1e-6)
    np.testing.assert_allclose(found.local.scores, together[0].local.scores, rtol=1e-4)
    assert {shape[3] for shape in extractor.compiled_shapes} == {False, True}


def test_bfloat16_is_near_float32(config, model, images, together):
    settings = extraction(config, dtype="bfloat16")
    (found,) = Extractor(*model, settings)(images[1:2])
    expected = together[1]
    assert found.global_descriptor.dtype == found.local.descriptors.dtype == np.float32
    assert found.global_descriptor @ expected.global_descriptor > 0.999
    np.testing.assert_allclose(found.local.scores, expected.local.scores, rtol=0.1, atol=0.02)
    assert not np.array_equal(found.local.scores, expected.local.scores)


def test_suppression_keeps_the_best_of_a_neighbourhood(config, model, images, together):
    settings = extraction(config, nms_radius=1)
    local = Extractor(*model, settings)(images[3:4])[0].local
    expected = together[3].local
    assert local.scores[0] == pytest.approx(expected.scores[0], rel=1e-4)
    for scale in set(local.scales[local.mask]):
        cells = local.locations[local.mask & (local.scales == scale)] / (16 * scale)
        apart = np.abs(cells[:, None] - cells[None]).max(axis=2) + 9 * np.eye(len(cells))
        assert apart.min() > 1.5


def test_no_images_have_no_features(extractor):
    assert extractor([]) == []


def test_a_network_without_local_head_gives_the_global_descriptor_alone(config, images):
    settings = extraction(config, global_scales=(1.0,))
    extractor = Extractor(*network(config, local_head=False), settings)
    (features,) = extractor([images[1]])
    assert features.local is None
    assert np.linalg.norm(features.global_descriptor) == pytest.approx(1, abs=1e-5)
    assert list(extractor.compiled_shapes) == [((64, 64), 1, 0, True)]  # no local scales


def test_descriptors_go_through_the_projection(config, model, images, rng):
    settings = extraction(config, local_scales=(1.0,), global_scales=(1.0,))
    pca = Pca(rng.random(8, np.float32), rng.normal(size=(8, 3)).astype(np.float32))
    (plain,) = Extractor(*model, settings)([images[1]])
    (projected,) = Extractor(*model, settings, pca)([images[1]])
    kept = plain.local.mask
    expected = (plain.local.descriptors[kept] - pca.mean) @ pca.matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(projected.local.descriptors[kept], expected, atol=1e-4)
    np.testing.assert_array_equal(projected.local.locations, plain.local.locations)


def test_one_image_above_the_size_limit_keeps_its_own_pixels(config, model):
    image = draw(3, 128, 96)
    settings = config.extract.copy_and_resolve_references()
    settings.local_scales = settings.global_scales = (1.0,)
    settings.max_size = 64
    shrunk = extract_image(*model, image, settings)
    kept = shrunk.local.mask
    assert set(shrunk.local.locations[kept].ravel() % 32) == {0}  # stride 16 at half the size
    assert shrunk.local.locations[kept].max() == 96
    assert set(shrunk.local.scales[kept]) == {2.0}


def test_an_image_that_was_not_shrunk_is_returned_as_it_is(together):
    assert in_original_pixels(together[0], 1.0) is together[0]
