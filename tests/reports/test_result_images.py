import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageColor

from configs import default
from delg_jax.errors import UserError
from delg_jax.reports import result_images
from delg_jax.reports.result_images import Pictures, Thumbnails, Tile
from delg_jax.retrieval.searcher import Hit
from tests import photographs
from tests.photographs import draw
from tests.search_page import Source


def test_frames_have_the_colours_of_their_kinds():
    black = np.zeros((10, 20, 3), np.uint8)
    kinds = list(result_images.FRAMES)
    drawing = result_images.draw([("first", [Tile(black, kind) for kind in kinds]), ("second", [])])
    colours = {colour for _, colour in drawing.getcolors(1 << 16)}
    assert {ImageColor.getrgb(colour) for colour in result_images.FRAMES.values()} <= colours


def test_mark_changes_its_tile_alone():
    black = np.zeros((30, 30, 3), np.uint8)
    plain, marked = (
        np.asarray(result_images.draw([("", [Tile(black, "query"), Tile(black, "correct", mark)])]))
        for mark in (False, True)
    )
    columns = np.flatnonzero((plain != marked).any(axis=(0, 2)))
    assert columns.min() > plain.shape[1] // 2


def test_each_search_has_a_row_with_the_box_on_its_query():
    searcher = SimpleNamespace(source=Source(), config=default.get_config())
    picture = np.full((200, 200, 3), 255, np.uint8)
    hits = [Hit(0, "a", 0.5)]
    results = [("first", picture, hits), ("second", picture, hits * 3)]
    plain, boxed = (
        np.asarray(result_images.draw_searches(results, box, searcher))
        for box in (None, (-20.0, 50.2, 150.0, 900.0))
    )
    assert plain.shape == boxed.shape
    changed = np.argwhere((plain != boxed).any(axis=2))
    assert changed[:, 1].max() < 130  # the queries stand on the left
    blue = np.array(ImageColor.getrgb(result_images.FRAMES["query"]))
    assert (np.abs(boxed[tuple(changed.T)].astype(int) - blue[None, :]).max(axis=1) < 40).any()


def encoded(height, width, form="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(draw(0, height, width)).save(buffer, form)
    return buffer.getvalue()


def decoded(uri):
    header, _, data = uri.partition(",")
    assert header == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "small"), [((2000, 1000), (240, 120)), ((60, 90), (60, 90))])
def test_a_picture_is_shrunk_and_keeps_its_sides(size, small, form):
    thumbnails = Thumbnails(1e6)
    assert thumbnails.add("a", lambda: encoded(*size, form)) == 0
    ((uri, width, height),) = thumbnails.pictures
    assert (height, width) == small
    assert decoded(uri).size == (width, height)
    assert thumbnails.shape("a") == size
    colours = [
        np.asarray(picture.convert("RGB"), float).mean(axis=(0, 1))
        for picture in (decoded(uri), Image.open(io.BytesIO(encoded(*size))))
    ]
    np.testing.assert_allclose(*colours, atol=3)


def test_a_picture_is_stored_once_and_read_once():
    calls = []
    thumbnails = Thumbnails(1e6)
    for _ in range(3):
        assert thumbnails.add("a", lambda: calls.append(1) or encoded(50, 50)) == 0
    assert len(calls) == len(thumbnails.pictures) == 1


def test_a_picture_that_cannot_be_read_is_none():
    def lost():
        raise FileNotFoundError("gone")

    thumbnails = Thumbnails(1e6)
    assert thumbnails.add("a", lost) is None
    assert thumbnails.add("b", lambda: b"no picture") is None
    assert thumbnails.add("c", lambda: encoded(50, 50)[:300]) is None
    assert thumbnails.shape("a") is None
    assert thumbnails.left_out == 0


def test_pictures_end_at_the_limit():
    one = Thumbnails(1e6)
    one.add("a", lambda: encoded(50, 50))
    size = len(one.pictures[0][0])
    thumbnails = Thumbnails(2.5 * size)
    assert [thumbnails.add(key, lambda: encoded(50, 50)) for key in "abcd"] == [0, 1, None, None]
    assert sum(len(uri) for uri, _, _ in thumbnails.pictures) <= 2.5 * size
    assert thumbnails.left_out == 2
    assert thumbnails.shape("d") == (50, 50)


class OddSource:
    names = ["large", "small", "damaged", "gone", "tiny"]

    def __init__(self):
        self.read_again = []

    def __len__(self):
        return len(self.names)

    def read(self, index):
        self.read_again.append(index)
        if self.names[index] == "gone":
            raise FileNotFoundError(2, "No such file or directory", "/home/secret.jpg")
        if self.names[index] == "damaged":
            return b"no picture"
        sides = {"large": (400, 1200), "small": (40, 30), "tiny": (9, 9)}[self.names[index]]
        target = io.BytesIO()
        Image.fromarray(photographs.draw(1, 120, 120)).resize(sides).save(target, "JPEG")
        return target.getvalue()


@pytest.fixture
def pictures():
    data = default.get_config().data
    return Pictures(OddSource(), data.min_side, data.max_pixels)


def test_large_pictures_shrink_and_small_ones_stay(pictures):
    assert pictures.resized(0, 192).shape == (192, 64, 3)
    assert pictures.resized(0, 768).shape == (768, 256, 3)
    assert pictures.resized(1, 192).shape == (30, 40, 3)
    assert pictures.shape(0) == (1200, 400)


def test_the_page_shows_the_picture(pictures):
    shown = np.asarray(Image.open(io.BytesIO(pictures.jpeg(0, 192))), np.float32)
    original = Image.open(io.BytesIO(OddSource().read(0))).resize((64, 192), Image.Resampling.BOX)
    assert np.abs(shown - np.asarray(original, np.float32)).mean() < 9


def test_a_picture_is_encoded_once(pictures):
    assert pictures.jpeg(0, 192) == pictures.jpeg(0, 192)
    assert pictures._source.read_again == [0]


@pytest.mark.parametrize("index", [2, 3, 4, 5, -1])
def test_unusable_images_are_named_without_their_folder(pictures, index):
    for use in (pictures.shape, lambda i: pictures.jpeg(i, 192)):
        with pytest.raises(UserError) as raised:
            use(index)
        assert raised.value.subject == "image"
        assert "secret" not in str(raised.value)


def test_nothing_but_the_pixels_is_shown():
    buffer = io.BytesIO()
    picture = Image.fromarray(draw(0, 300, 300))
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    options = {"comment": b"where I live", "exif": exif, "icc_profile": b"where I live"}
    picture.save(buffer, "JPEG", **options)
    thumbnails = Thumbnails(1e6)
    thumbnails.add("a", buffer.getvalue)
    small = decoded(thumbnails.pictures[0][0])
    assert b"where I live" not in base64.b64decode(thumbnails.pictures[0][0].partition(",")[2])
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
