import shutil
import types

import jax
import numpy as np
import pytest

from delg_jax.data import folder, pipeline
from delg_jax.data.skips import SkipLog
from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.training import feature_cache
from delg_jax.training.train import train_and_evaluate
from delg_jax.training.trained_network import load_model
from delg_jax.workdir import Output
from tests.data.tfds_builders.published import image_id, jpeg, make_gldv1, opened, place
from tests.photographs import make_folder, truncate
from tests.tiny import random_variables, training_config


@pytest.fixture
def config(tmp_path):
    config = training_config(make_folder(tmp_path / "photographs"))
    config = config.copy_and_resolve_references().unlock()
    config.model.num_classes = 4
    config.data.crop_area = config.data.crop_aspect = (1.0, 1.0)
    config.train.freeze_backbone = config.train.cache_features = True
    config.train.tensorboard = False
    return config


def built(config, workdir):
    """The cache of the training images, and what a network without cache computes of them."""
    module = build(config.model, freeze_backbone=True)
    variables = random_variables(module)
    source = folder.training(config.data).train
    log, cache = SkipLog(workdir / "skipped.csv"), workdir / feature_cache.FOLDER
    made_of = feature_cache.made_of(variables, source)
    Output.of(cache, config, feature_cache.DECIDING_FIELDS, made_of).claim(overwrite=True)
    settings = pipeline.InputSettings.of(config.data)
    limits = config.train.batch_size, config.train.cache_gigabytes
    maps = feature_cache.build(module, variables, source, settings, *limits, cache, log)
    return maps, module, variables


def test_each_image_has_the_maps_that_the_backbone_gives(config, tmp_path):
    source = folder.training(config.data).train
    truncate(source.root / "class_1" / "2.jpg")
    maps, module, variables = built(config, tmp_path)
    (batch,) = pipeline.validation_batches(source, pipeline.InputSettings.of(config.data), 24)
    outputs = jax.jit(module.apply)(variables, batch["image"])
    for index in range(24):
        element = maps(index, None)
        if not batch["valid"][index]:
            assert element is None
            continue
        np.testing.assert_allclose(element["conv4"], outputs.conv4[index], atol=1e-4)
        np.testing.assert_allclose(element["conv5"], outputs.conv5[index], atol=1e-4)
        assert element["label"] == source.labels[index]
    assert SkipLog(tmp_path / "skipped.csv").read().keys() == {"class_1/2.jpg"}


def test_the_cache_is_built_once_for_one_backbone(config, tmp_path, monkeypatch):
    first, *_ = built(config, tmp_path)
    before = first(3, None)["conv4"]
    monkeypatch.setattr(feature_cache, "_write", lambda *_: pytest.fail("computed again"))
    again, *_ = built(config, tmp_path)
    np.testing.assert_array_equal(again(3, None)["conv4"], before)
    config.data.image_size = 96
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        built(config, tmp_path)


def test_a_replaced_image_invalidates_the_cache(config, tmp_path):
    first, *_ = built(config, tmp_path)
    before = [first(n, None)["conv4"] for n in (3, 4)]
    source = folder.training(config.data).train
    (source.root / source.names[3]).write_bytes(source.read(20))  # in this process, too
    again, *_ = built(config, tmp_path)
    assert not np.array_equal(again(3, None)["conv4"], before[0])
    np.testing.assert_array_equal(again(3, None)["conv4"], again(20, None)["conv4"])
    np.testing.assert_array_equal(again(4, None)["conv4"], before[1])


def test_images_that_moved_keep_their_cache(config, tmp_path, monkeypatch):
    first, *_ = built(config, tmp_path)
    shutil.copytree(config.data.root, tmp_path / "moved")
    shutil.rmtree(config.data.root)
    config.data.root, config.data.workers = str(tmp_path / "moved"), 1
    monkeypatch.setattr(feature_cache, "_write", lambda *_: pytest.fail("computed again"))
    again, *_ = built(config, tmp_path)
    np.testing.assert_array_equal(again(3, None)["conv4"], first(3, None)["conv4"])


def test_stored_digests_identify_prepared_images(tmp_path):
    root = tmp_path / "raw"
    make_gldv1(root)
    found = []
    for number in (None, 3):
        if number is not None:
            place(root / "train", image_id(number), jpeg(99))
        data = opened(root, tmp_path / str(number))
        digest = feature_cache._digest_of_images(data.train)
        assert digest == feature_cache._digest_of_images(opened(root, tmp_path / str(number)).train)
        without = types.SimpleNamespace(names=data.train.names, read=data.train.read)
        found.append((digest, feature_cache._digest_of_images(without)))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_a_cache_that_would_be_too_large_is_refused(config, tmp_path):
    config.train.cache_gigabytes = 1e-6
    with pytest.raises(UserError, match=r"config\.train\.cache_gigabytes = 1e-06: .* GB"):
        built(config, tmp_path)
    assert not list((tmp_path / "cache").glob("*.npy"))


@pytest.mark.parametrize(
    ("section", "field", "value", "named"),
    [
        ("train", "freeze_backbone", False, r"train\.cache_features = True: .*backbone"),
        ("data", "crop_area", (0.5, 1.0), r"data\.crop_area = \(0\.5, 1\.0\): "),
        ("data", "crop_aspect", (0.5, 1.0), r"data\.crop_aspect = \(0\.5, 1\.0\): "),
        ("data", "flip", True, r"data\.flip = True: "),
    ],
)
def test_images_that_change_are_not_cached(config, tmp_path, section, field, value, named):
    config[section][field] = value
    with pytest.raises(UserError, match=rf"^config\.{named}"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_on_cached_maps_equals_training_on_images(config, tmp_path):
    config.model.num_classes = 0
    train_and_evaluate(config, tmp_path / "cached")
    config.train.cache_features = False
    train_and_evaluate(config, tmp_path / "images")
    found, expected = (load_model(config, tmp_path / name)[1] for name in ("cached", "images"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected
    )


@pytest.mark.parametrize("name", ["conv4.npy", "good.npz"])
def test_a_flipped_bit_is_refused(config, tmp_path, name):
    built(config, tmp_path)
    path = tmp_path / "cache" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    feature_cache._open.cache_clear()
    maps = feature_cache.CachedMaps(tmp_path / "cache", np.zeros(24, int))
    with pytest.raises(UserError, match="training cache = .*damaged"):
        maps(0, None)
