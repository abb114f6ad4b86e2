import dataclasses

import numpy as np
import pytest
from PIL import Image

from delg_jax.data.images import crop, prepare
from delg_jax.data.sources import FileSource
from delg_jax.errors import UserError
from delg_jax.features.extraction import Loader, extract_to_store
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress
from tests.folders import contents
from tests.photographs import draw, save, truncate
from tests.tiny import retrieval_config

SIZES = [(64, 96), (80, 40), (200, 100), (96, 96), (33, 77)]


class SizeExtractor:
    """Gives each image its height and width as features, at a fixed place."""

    compiled_shapes, images_at_once = (), 2

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.extend(images)
        return [self._features(image) for image in images]

    def _features(self, image):
        size = np.array(image.shape[:2], np.float32)
        local = LocalFeatures(
            locations=np.array([[10, 20], [0, 0]], np.float32),
            scales=np.array([2, 0], np.float32),
            scores=np.array([1, 0], np.float32),
            descriptors=np.stack([size, size]),
            mask=np.array([True, False]),
        )
        return Features(size, local)


@pytest.fixture
def source(tmp_path):
    for number, size in enumerate(SIZES):
        save(tmp_path / "jpg" / f"{number}.jpg", draw(number, *size))
    names = [str(number) for number in range(len(SIZES))]
    return FileSource(tmp_path / "jpg", names, np.full(len(SIZES), -1), ".jpg")


@pytest.fixture
def data(tmp_path):
    return retrieval_config(tmp_path).data.copy_and_resolve_references().unlock()


def extract_missing(source, data, store, extractor=None, boxes=None, max_size=0):
    loader = Loader(source, boxes, max_size, data.min_side, data.max_pixels)
    extractor = extractor or SizeExtractor()
    extract_to_store(loader, extractor, store, data.workers, data.max_skipped)
    return store


def run(source, data, folder, extractor=None, boxes=None, max_size=0):
    store = FeatureStore.prepare(folder, source.names, Layout(2, max_features=2))
    return extract_missing(source, data, store, extractor, boxes, max_size)


def test_features_stand_in_the_order_of_the_images(source, data, tmp_path):
    store = run(source, data, tmp_path / "store")
    assert store.is_whole()
    np.testing.assert_array_equal(store.global_descriptors(), SIZES)
    assert not (tmp_path / "store" / "skipped.csv").exists()


def test_only_missing_chunks_are_extracted(source, data, tmp_path):
    whole = run(source, data, tmp_path / "store")
    before = contents(whole.folder)
    whole.discard("global", range(2, 4))
    assert contents(whole.folder) != before
    extractor = SizeExtractor()
    run(source, data, whole.folder, extractor)
    assert [image.shape[:2] for image in extractor.seen] == SIZES[2:4]
    assert contents(whole.folder) == before


def test_images_are_found_by_name_after_others_were_deleted_and_added(source, data, tmp_path):
    first = dataclasses.replace(source, names=["0", "1", "2"])
    store = run(first, data, tmp_path / "store")
    store.delete(["1"])
    store.append(["4", "3"])
    extract_missing(source, data, store)
    assert store.names == ["0", "2", "4", "3"]
    wanted = [SIZES[number] for number in (0, 2, 4, 3)]
    np.testing.assert_array_equal(store.global_descriptors(), wanted)
    np.testing.assert_array_equal(store.sizes(), wanted)


def test_locations_are_in_pixels_of_the_original(source, data, tmp_path):
    store = run(source, data, tmp_path / "store", max_size=50)
    local = store.local_features(0)
    shrunk = [50 / max(size) for size in SIZES]
    np.testing.assert_allclose(local.locations[:, 0], [[10 / s, 20 / s] for s in shrunk], rtol=1e-6)
    np.testing.assert_allclose(local.scales[:, 0], [2 / s for s in shrunk], rtol=1e-6)
    assert store.global_descriptors().max(axis=1).tolist() == [50] * 5


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_bad_images_are_listed_and_counted(source, data, tmp_path, limit):
    truncate(source.root / "1.jpg")
    (source.root / "4.jpg").write_text("no image")
    data.max_skipped = limit
    folder = tmp_path / "store"
    if limit < 2:
        with pytest.raises(UserError, match=rf"config\.data\.max_skipped = {limit}: 2 .* 1 \("):
            run(source, data, folder)
    else:
        store = run(source, data, folder)
        assert store.skipped().keys() == {"1", "4"}
        assert not store.global_descriptors()[[1, 4]].any()
    rows = (folder / "skipped.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["image", "1", "4"]
    assert rows[2].startswith("4,not an image")


def test_an_absent_file_is_skipped(source, data, tmp_path):
    (source.root / "2.jpg").unlink()
    data.max_skipped = 1
    assert "No such file" in run(source, data, tmp_path / "store").skipped()["2"]


def test_images_below_the_smallest_side_are_skipped(source, data, tmp_path):
    data.min_side, data.max_skipped = 40, 5
    assert run(source, data, tmp_path / "store").skipped().keys() == {"4"}


def test_queries_are_cropped_to_their_boxes(source, data, tmp_path):
    boxes = [(0, 0, 30, 20), (5, 6, 25, 46), (0, 0, 100, 200), (90, 90, 200, 200), (0, 0, 77, 33)]
    store = run(source, data, tmp_path / "store", boxes=boxes)
    expected = [(20, 30), (40, 20), (200, 100), (6, 6), (33, 77)]
    np.testing.assert_array_equal(store.global_descriptors(), expected)


def test_a_box_beside_the_image_is_skipped(source, data, tmp_path):
    data.max_skipped = 1
    boxes = [(0, 0, 30, 20)] * 4 + [(500, 500, 600, 600)]
    assert "lies outside" in run(source, data, tmp_path / "store", boxes=boxes).skipped()["4"]


@pytest.mark.parametrize(
    ("box", "max_size", "size", "scale"),
    [
        (None, 0, (200, 100), 1.0),
        (None, 100, (100, 50), 0.5),
        ((0, 0, 100, 100), 0, (100, 100), 1.0),
        ((0, 0, 100, 100), 100, (50, 50), 0.5),  # as the full image: its limit is 50 pixels
        ((10, 20, 30, 60), 100, (20, 10), 0.5),
        ((0, 0, 50, 50), 400, (50, 50), 1.0),
    ],
)
def test_the_size_limit_shrinks_with_the_crop(box, max_size, size, scale):
    image = draw(0, 200, 100)
    prepared, found, original = prepare(image, box, max_size)
    assert prepared.shape[:2] == size
    assert found == pytest.approx(scale)
    assert original == (image if box is None else crop(image, box)).shape[:2]


def enlarged(tmp_path, size):
    """A photograph of four times the size, as a JPEG and as a PNG."""
    picture = Image.fromarray(draw(1, *size)).resize((4 * size[1], 4 * size[0]))
    for ending in ("jpg", "png"):
        picture.save(tmp_path / f"big.{ending}", quality=95)
    return FileSource(tmp_path, ["big.jpg", "big.png"], np.full(2, -1))


@pytest.mark.parametrize("box", [None, (101.0, 40.0, 301.0, 240.0)])
def test_a_jpeg_that_is_decoded_smaller_is_described_in_its_own_pixels(tmp_path, box):
    source = enlarged(tmp_path, (75, 100))
    boxes = None if box is None else [box] * 2
    whole = [Loader(source, boxes, 100, 1, 10**6).load(image)[0] for image in (0, 1)]
    reduced = [Loader(source, boxes, 100, 1, 10**6, True).load(image)[0] for image in (0, 1)]
    np.testing.assert_array_equal(reduced[1].image, whole[1].image)  # PNG
    assert reduced[0].size == whole[0].size == ((300, 400) if box is None else (200, 200))
    assert np.isclose(reduced[0].scale, whole[0].scale, rtol=0.02)
    assert reduced[0].image.shape == whole[0].image.shape
    difference = reduced[0].image.astype(int) - whole[0].image.astype(int)
    assert 0 < np.abs(difference).mean() < 8


def test_progress_counts_each_image(source, data, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(Progress, "advance", lambda self, count=1: counts.append(count))
    run(source, data, tmp_path / "store")
    assert counts == [2, 2, 1]  # as many as the extractor takes at once
    alone = SizeExtractor()
    alone.images_at_once = 1
    counts.clear()
    run(source, data, tmp_path / "other", alone)
    assert counts == [1] * 5
    found, wanted = (FeatureStore(tmp_path / name) for name in ("other", "store"))
    assert found.digest() == wanted.digest()
