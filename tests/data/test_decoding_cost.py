import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from delg_jax.data import decoding_cost
from delg_jax.data.images import BadImageError, decode
from tests.hostile import repeated_profiles, repeated_scans, tiny_tiles
from tests.photographs import draw

_MOST_SCANS = 100


def test_an_image_that_goes_over_its_pixels_again_and_again_is_refused():
    few = repeated_scans(64, 50)
    assert decode(few).shape == (64, 64, 3)
    with pytest.raises(BadImageError, match="100 scans"):
        decode(repeated_scans(64, _MOST_SCANS))
    with pytest.raises(BadImageError, match="100 scans"):
        decode(repeated_scans(64, 1_000_000), min_side=65)  # counting ends early


def test_only_scans_of_the_picture_itself_count():
    """Not those of thumbnails, nor bytes of a film after the picture."""
    target = io.BytesIO()
    picture = Image.fromarray(draw(0, 40, 60))
    picture.save(target, "JPEG", comment=b"\xff\xda\0\0" * 2 * _MOST_SCANS)
    data = target.getvalue() + b"\xff\xda\0\2" * 2 * _MOST_SCANS
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_scans_are_counted_as_the_decoder_meets_them():
    """Stray bytes between segments, and markers without a length, hide nothing."""
    plain = repeated_scans(64, _MOST_SCANS)
    for stray in (b"abc", b"\xff\xff\xff", b"\xff\x01", b"\xff\xd3", b"\0\0"):
        data = plain[:-2].replace(b"\xff\xda", stray + b"\xff\xda") + plain[-2:]
        with pytest.raises(BadImageError, match="100 scans"):
            decoding_cost.check_file(data)


def test_a_png_of_many_profiles_is_refused():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    target = io.BytesIO()
    Image.new("RGB", (20, 20)).save(target, "PNG", icc_profile=profile)
    assert decode(target.getvalue()).shape == (20, 20, 3)
    with pytest.raises(BadImageError, match="colour profiles"):
        decode(repeated_profiles(11))


def test_a_tiff_of_tiny_parts_is_refused(monkeypatch):
    monkeypatch.setattr(decoding_cost, "_MOST_TILES", 99)
    assert decode(tiny_tiles(99)).shape == (99, 1, 3)
    with pytest.raises(BadImageError, match="100 parts"):
        decode(tiny_tiles(100))


def test_a_shortage_of_memory_is_not_blamed_on_the_image(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(MemoryError):
        decode(repeated_scans(64, 0))


def test_the_hostile_png_is_one_otherwise():
    data = repeated_profiles(3)
    assert zlib.crc32(data[12:29]) == struct.unpack(">I", data[29:33])[0]
    assert decode(data).shape == (20, 20, 3)
