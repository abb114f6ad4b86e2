import io

import numpy as np
import pytest
from PIL import Image

from configs import default
from delg_jax.errors import UserError
from delg_jax.reports.thumbnails import Pictures
from tests import photographs


class Source:
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
    return Pictures(Source(), default.get_config().data)


def test_large_pictures_shrink_and_small_ones_stay(pictures):
    assert pictures.resized(0, 192).shape == (192, 64, 3)
    assert pictures.resized(0, 768).shape == (768, 256, 3)
    assert pictures.resized(1, 192).shape == (30, 40, 3)
    assert pictures.shape(0) == (1200, 400)


def test_what_is_shown_is_the_picture(pictures):
    shown = np.asarray(Image.open(io.BytesIO(pictures.jpeg(0, 192))), np.float32)
    original = Image.open(io.BytesIO(Source().read(0))).resize((64, 192), Image.Resampling.BOX)
    assert np.abs(shown - np.asarray(original, np.float32)).mean() < 9


def test_a_picture_is_encoded_once(pictures):
    assert pictures.jpeg(0, 192) == pictures.jpeg(0, 192)
    assert pictures._source.read_again == [0]


@pytest.mark.parametrize("index", [2, 3, 4, 5, -1])
def test_what_cannot_be_shown_is_named_without_its_place(pictures, index):
    for use in (pictures.shape, lambda i: pictures.jpeg(i, 192)):
        with pytest.raises(UserError) as raised:
            use(index)
        assert raised.value.subject == "image"
        assert "secret" not in str(raised.value)
