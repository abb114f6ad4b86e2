import numpy as np
import pytest
from PIL import Image

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.retrieval.pair_matching import match_images
from delg_jax.training import trained_network
from tests import photographs, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration, a workdir without outputs, and a folder of pictures."""
    root = tmp_path_factory.mktemp("pair")
    config = tiny.revisited_config(photographs.make_revisited(root / "data"))
    config.rerank.sp.inlier_threshold = 3.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        yield config, root / "run", root / "data" / "jpg"


def test_a_crop_is_found_where_it_was_cut(place):
    config, workdir, pictures = place
    pair = match_images(config, workdir, pictures / "place0_near.jpg", pictures / "place0_far.jpg")
    assert [picture.shape for picture in pair.images] == [(96, 112, 3), (80, 96, 3)]
    found = pair.verification
    assert found.inlier_mask.sum() >= 5
    first, second = (places[found.inlier_mask] for places in pair.locations)
    # Cut at (8, 8); cells are 16 pixels wide
    np.testing.assert_allclose(np.median(first - second, axis=0), 8, atol=8)
    assert not (workdir / "features").exists()


def test_an_image_matches_itself(place):
    config, workdir, pictures = place
    pair = match_images(config, workdir, *[pictures / "place1_near.jpg"] * 2)
    np.testing.assert_array_equal(*pair.locations)
    assert pair.verification.inlier_mask.all()
    np.testing.assert_allclose(pair.verification.transform, np.eye(3)[:2], atol=1e-3)


def test_a_large_photograph_is_verified_as_its_smaller_copy(place, tmp_path):
    config, workdir, pictures = place
    near, far = pictures / "place0_near.jpg", pictures / "place0_far.jpg"
    with Image.open(near) as picture:
        picture.resize((4 * picture.width, 4 * picture.height)).save(tmp_path / "large.png")
    small = match_images(config, workdir, near, far)
    limited = configuration.override(config, {"extract.max_size": 112})
    large = match_images(limited, workdir, tmp_path / "large.png", far)
    counts = [pair.verification.inlier_mask.sum() for pair in (small, large)]
    assert abs(int(counts[0]) - int(counts[1])) <= 0.3 * counts[0]  # resizing changes some
    first, second = (places[large.verification.inlier_mask] for places in large.locations)
    transform = large.verification.transform
    ones = np.ones((len(second), 1))
    mapped = np.concatenate([second, ones], axis=1) @ transform.T
    assert np.linalg.norm(mapped - first, axis=1).max() < 4 * config.rerank.sp.inlier_threshold
    assert first.max() > 112  # in pixels of the large photograph


@pytest.mark.parametrize(
    ("names", "subject"),
    [(("absent.jpg", "query0.jpg"), "A"), (("query0.jpg", "../gnd_drawn.json"), "B")],
)
def test_pictures_that_cannot_be_used_are_named(place, names, subject):
    config, workdir, pictures = place
    with pytest.raises(UserError) as raised:
        match_images(config, workdir, *(pictures / name for name in names))
    assert raised.value.subject == subject


@pytest.mark.parametrize(
    ("field", "value", "subject"),
    [
        ("model.local_head", False, "config.model.local_head"),
        ("extract.imported_local", "a.h5", "config.extract.imported_local"),
        ("rerank.sp.model", "spline", "config.rerank.sp.model"),
        ("extract.pca_dim", 5, "config.extract.pca_dim"),
    ],
)
def test_incomparable_configurations_are_named(place, field, value, subject):
    config, workdir, pictures = place
    config = config.copy_and_resolve_references()
    section, _, name = field.rpartition(".")
    config.update_from_flattened_dict({f"{section}.{name}": value})
    config.extract.local_encoding = "sign"  # whose bits are packed by eight
    with pytest.raises(UserError) as raised:
        match_images(config, workdir, *[pictures / "query0.jpg"] * 2)
    assert raised.value.subject == subject
