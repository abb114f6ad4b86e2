import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import delg_jax
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features import FeatureStore, extract, extract_image
from delg_jax.retrieval.pair_matching import match_images
from delg_jax.retrieval.query import search_image
from delg_jax.training.trained_network import load_model
from tests import tiny
from tests.photographs import make_revisited


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration with PCA, an extracted workdir, and the photographs."""
    root = tmp_path_factory.mktemp("api")
    config = tiny.retrieval_config(make_revisited(root / "photographs"))
    changes = {"extract.pca_dim": 4, "extract.local_encoding": "int8", "extract.max_size": 90}
    changes |= {"extract.local_scales": (1.0,), "extract.global_scales": (1.0,)}
    config = configuration.override(config, changes)
    extract(config, root / "run")
    return config, root / "run", sorted((root / "photographs" / "jpg").iterdir())


def test_the_package_names_every_verb_and_imports_it_late():
    code = "import sys, delg_jax; print('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
    assert delg_jax.load.__module__ == "delg_jax.api"
    for name in delg_jax.__all__:
        assert callable(getattr(delg_jax, name))
        assert name in dir(delg_jax)
    with pytest.raises(AttributeError, match="lod"):
        delg_jax.lod  # noqa: B018
    from delg_jax import training

    assert training.train_and_evaluate is delg_jax.train_and_evaluate
    assert training.convert_weights is delg_jax.convert_weights


def test_features_are_those_of_the_store(place):
    config, workdir, _ = place
    store = FeatureStore(workdir / "features" / "database")
    pca = store.read_pca()
    assert pca is not None
    model = delg_jax.load(workdir)
    folder = workdir.parent / "photographs" / "jpg"
    locals_ = store.local_features(0)
    module, variables = load_model(config, workdir)
    for row, name in enumerate(store.names[:3]):
        picture = folder / f"{name}.jpg"
        found = model.features(picture)
        np.testing.assert_allclose(
            found.global_descriptor, store.global_descriptors()[row], atol=1e-6
        )
        count = int(locals_.mask[row].sum())
        assert found.local.descriptors.shape[1] == 4
        assert int(found.local.mask.sum()) == count
        for field in ("locations", "scales", "scores"):
            one, other = (np.asarray(getattr(side, field)) for side in (found.local, locals_))
            np.testing.assert_allclose(one[:count], other[row, :count], atol=1e-4)
        np.testing.assert_allclose(
            found.local.descriptors[:count], locals_.descriptors[row, :count], atol=0.02
        )
        alone = extract_image(module, variables, model.pixels(picture), config.extract, pca)
        np.testing.assert_allclose(alone.global_descriptor, found.global_descriptor, atol=1e-6)
        np.testing.assert_allclose(
            alone.local.descriptors[:count], locals_.descriptors[row, :count], atol=0.02
        )
        np.testing.assert_array_equal(np.asarray(alone.local.mask), np.asarray(found.local.mask))


def test_a_picture_may_be_a_file_bytes_an_image_or_an_array(place):
    _, workdir, photographs = place
    model = delg_jax.load(str(workdir))
    pixels = np.asarray(Image.open(photographs[0]).convert("RGB"))
    forms = (photographs[0], str(photographs[0]), photographs[0].read_bytes(), pixels)
    first, *others = (model.features(form) for form in (*forms, Image.fromarray(pixels)))
    for other in others:
        np.testing.assert_array_equal(other.global_descriptor, first.global_descriptor)
    assert abs(
        model.features(pixels, (0, 0, 60, 60)).global_descriptor - first.global_descriptor
    ).max()


@pytest.mark.parametrize(
    "picture", ["absent.jpg", b"no picture", np.zeros((5, 5)), np.zeros((0, 5, 3), np.uint8)]
)
def test_what_is_no_picture_is_one_error(place, picture):
    with pytest.raises(UserError, match="^image = "):
        delg_jax.load(place[1]).features(picture)


def test_search_and_match_are_those_of_the_verbs(place):
    config, workdir, photographs = place
    model = delg_jax.load(workdir)
    for method in ("global", "local+sp"):
        found = model.search(photographs[1], method, top=3)
        assert found == search_image(config, workdir, photographs[1], method=method, top=3)
    pair = model.match(photographs[0], photographs[1])
    expected = match_images(config, workdir, photographs[0], photographs[1])
    np.testing.assert_array_equal(pair.verification.matches, expected.verification.matches)
    np.testing.assert_array_equal(pair.verification.inlier_mask, expected.verification.inlier_mask)
    assert delg_jax.draw(pair).size[0] > pair.images[0].shape[1]


@pytest.mark.real
def test_weights_alone_describe_and_match_but_have_no_database(shared, place):
    weights, photograph = shared / "weights" / "resnet18_imagenet.npz", place[2][0]
    model = delg_jax.load(weights)
    assert model.config.model.backbone == "resnet18"
    scales = {"extract.local_scales": (1.0,), "extract.global_scales": (1.0,)}
    model = delg_jax.load(weights, configuration.override(model.config, scales))
    pair = model.match(photograph, photograph)
    assert pair.verification.inlier_mask.mean() > 0.9
    with pytest.raises(UserError, match="delg extract"):
        model.search(photograph)


def test_sources_that_are_none_are_one_error(tmp_path, place):
    with pytest.raises(UserError, match="source"):
        delg_jax.load(tmp_path / "absent")
    unknown = tmp_path / "network.npz"
    unknown.touch()
    with pytest.raises(UserError, match="intact"):
        delg_jax.load(unknown)
    np.savez(unknown, a=np.zeros(3))
    with pytest.raises(UserError, match="backbone"):
        delg_jax.load(unknown)
    with pytest.raises(UserError):
        delg_jax.load(tmp_path)  # a folder without features or checkpoints
    config, workdir, photographs = place
    module, variables = load_model(config, workdir)
    with pytest.raises(ValueError, match="pca"):
        extract_image(
            module, variables, delg_jax.load(workdir).pixels(photographs[0]), config.extract
        )
