import base64
import io

import numpy as np
import pytest
from PIL import Image

from delg_jax.reports.thumbnails import Thumbnails
from tests.photographs import draw


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
