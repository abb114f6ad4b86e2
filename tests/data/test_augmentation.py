import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from delg_jax.data import augmentation
from delg_jax.data.augmentation import CropSettings, random_crop, squash
from delg_jax.data.images import EncodedImage
from tests.photographs import draw

SETTINGS = CropSettings(size=32, area=(0.08, 1.0), aspect=(0.75, 4 / 3), flip=False)


def encoded(image, file_format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format)
    return EncodedImage(buffer.getvalue())


@pytest.fixture
def boxes(monkeypatch):
    """The boxes that are cut out, as they are drawn."""
    drawn = []
    resize = augmentation._resize

    def note(image, box, settings):
        drawn.append(box)
        return resize(image, box, settings)

    monkeypatch.setattr(augmentation, "_resize", note)
    return drawn


@pytest.mark.parametrize("size", [(80, 100), (300, 40)])
def test_boxes_keep_to_their_ranges(rng, boxes, size):
    image = draw(0, *size)
    for _ in range(300):
        assert random_crop(encoded(image), SETTINGS, rng).shape == (32, 32, 3)
    whole = (0, 0, size[1], size[0])
    drawn = np.array([box for box in boxes if box != whole])
    left, top, right, bottom = drawn.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size[1]).all()
    assert (bottom <= size[0]).all()
    width, height = right - left, bottom - top
    slack = 1 / np.minimum(width, height)  # sides are rounded to pixels
    area = width * height / (size[0] * size[1])
    assert (area > 0.08 * (1 - slack)).all()
    assert (width / height > 0.75 * (1 - slack)).all()
    assert (width / height < 4 / 3 * (1 + slack)).all()
    assert area.min() < 0.15
    assert len(drawn) > 100


def test_areas_are_uniform(rng, boxes):
    settings = CropSettings(8, (0.2, 0.6), (1.0, 1.0), flip=False)
    for _ in range(1000):
        random_crop(encoded(draw(0, 100, 100)), settings, rng)
    areas = np.array([(right - left) ** 2 / 1e4 for left, _, right, _ in boxes])
    counts, _ = np.histogram(areas, bins=4, range=(0.2, 0.6))
    assert counts.min() > 200


def test_wide_boxes_are_as_likely_as_tall_ones(rng, boxes):
    settings = CropSettings(8, (0.1, 0.2), (0.5, 2.0), flip=False)
    image = encoded(draw(0, 100, 100))
    for _ in range(1000):
        random_crop(image, settings, rng)
    left, top, right, bottom = np.array(boxes).T
    aspects = np.log((right - left) / (bottom - top))
    assert abs(aspects.mean()) < 0.06  # a uniform aspect has 0.155
    counts, _ = np.histogram(aspects, bins=4, range=(-np.log(2), np.log(2)))
    assert counts.min() > 200


def test_the_whole_image_where_no_box_fits(rng):
    line = draw(0, 200, 200)[:, :5]  # no box of half its area has an aspect near 1
    settings = CropSettings(32, (0.5, 1.0), (0.9, 1.1), flip=False)
    np.testing.assert_array_equal(
        random_crop(encoded(line), settings, rng), squash(encoded(line), settings)
    )


def test_the_whole_area_undistorted_is_the_image(rng):
    image = draw(0, 32, 32)
    settings = CropSettings(32, (1.0, 1.0), (1.0, 1.0), flip=False)
    np.testing.assert_array_equal(random_crop(encoded(image), settings, rng), image)


def test_half_of_the_images_are_mirrored(rng):
    image = draw(0, 32, 32)
    settings = CropSettings(32, (1.0, 1.0), (1.0, 1.0), flip=True)
    mirrored = 0
    for _ in range(200):
        found = random_crop(encoded(image), settings, rng)
        mirrored += np.array_equal(found, image[:, ::-1])
        assert np.array_equal(found, image) or np.array_equal(found, image[:, ::-1])
    assert 70 < mirrored < 130


def test_the_same_generator_cuts_the_same():
    image = draw(0)
    one, other = (random_crop(encoded(image), SETTINGS, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_squash_takes_the_whole_image():
    image = draw(0, 90, 60)
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(squash(encoded(image), SETTINGS), np.asarray(expected))


def test_squash_leaves_a_fitting_square_alone():
    image = draw(0, 32, 32)
    np.testing.assert_array_equal(squash(encoded(image), SETTINGS), image)


@pytest.mark.parametrize(("side", "reduction"), [(63, 1), (64, 2), (127, 2), (128, 4), (9999, 8)])
def test_a_reduced_box_has_pixels_enough(side, reduction):
    assert augmentation._reduction((5, 7, 5 + side, 7 + 2 * side), 32) == reduction
    assert augmentation._reduction((5, 7, 5 + 2 * side, 7 + side), 32) == reduction


def test_a_reduced_crop_shows_the_same(rng):
    """Odd sizes, where a reduced JPEG is a little larger than its share."""
    image = draw(0, 1001, 777)
    reduced = dataclasses.replace(SETTINGS, size=64, area=(0.3, 0.9), reduced=True)
    plain = dataclasses.replace(reduced, reduced=False)
    for seed in range(20):
        small, whole = (
            random_crop(encoded(image, "JPEG"), s, np.random.default_rng(seed)).astype(int)
            for s in (reduced, plain)
        )
        assert np.abs(small - whole).mean() < 5.0
    assert (small != whole).any()
