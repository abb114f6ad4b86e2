import io

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from delg_jax.data import images
from tests.properties.cases import cases, hold
from tests.properties.mutations import damaged

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM")
_MOST = 250_000  # pixels


def _encoded(form: str, mode: str = "RGB", **options: object) -> bytes:
    picture = np.random.default_rng(3).integers(0, 255, (12, 17, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, form, **options)
    return file.getvalue()


def _or_reason(action):
    """What an action returns, or why not, which must fit into a line of `skipped.csv`."""
    try:
        return action()
    except images.BadImageError as error:
        reason = str(error)
    assert reason.isprintable()
    assert 0 < len(reason) < 400
    return reason


def _with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded("JPEG", exif=exif)


@pytest.fixture(scope="module")
def wholes():
    plain = [_encoded(form) for form in _FORMATS]
    modes = [_encoded("PNG", "L"), _encoded("PNG", "P"), _encoded("PNG", "RGBA")]
    others = [_encoded("JPEG", "CMYK"), _encoded("JPEG", progressive=True), _with_exif(6)]
    return (*plain, *modes, *others, _encoded("TIFF", compression="tiff_lzw"))


@cases(900)
def test_any_bytes_are_a_picture_or_a_reason(wholes, examples):
    def check(case):
        data, least, reduction = case
        image = _or_reason(lambda: images.EncodedImage(data, least, _MOST))
        pixels = image if isinstance(image, str) else _or_reason(lambda: image.to_pil(reduction))
        if isinstance(pixels, str):
            return
        pixels = np.asarray(pixels)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= _MOST
        if reduction == 1:
            assert pixels.shape[:2] == image.shape
            assert min(pixels.shape[:2]) >= least

    sides, times = st.sampled_from((1, 1, 1, 13)), st.sampled_from((1, 1, *images.REDUCTIONS))
    hold(examples, check, st.tuples(damaged(wholes), sides, times))


@cases(200)
def test_any_box_is_cut_out_or_refused(examples):
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)

    def check(box):
        part = _or_reason(lambda: images.crop(image, box))
        if isinstance(part, str):
            assert "outside" in part
            return
        assert part.size
        assert part.shape[0] <= 7
        assert part.shape[1] <= 9

    # ground truth is finite, which its reader sees to
    hold(examples, check, st.tuples(*[st.floats(-1e30, 1e30) | st.integers(-3, 12)] * 4))
