import concurrent.futures
import io
import os
import struct
import subprocess
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from delg_jax.data import images
from delg_jax.data.images import (
    AUTO,
    BadImageError,
    EncodedImage,
    crop,
    decode,
    limit_size,
    worker_count,
)
from tests.hostile import repeated_profiles, repeated_scans, tiny_tiles
from tests.photographs import draw

_MOST_SCANS = 100
OTHER_FORMATS = ("TGA", "ICO", "PCX")  # Pillow knows them


def encode(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


@pytest.fixture
def picture():
    return draw(0, 20, 30)


def test_rgb_comes_back(picture):
    found = decode(encode(Image.fromarray(picture)))
    assert found.dtype == np.uint8
    assert found.flags.writeable
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_common_format_is_read(picture, form):
    assert decode(encode(Image.fromarray(picture), form)).shape == (20, 30, 3)


def test_grey_has_three_equal_channels(picture):
    grey = picture[:, :, 0]
    found = decode(encode(Image.fromarray(grey)))
    np.testing.assert_array_equal(found, grey[:, :, None].repeat(3, axis=2))


def test_sixteen_bit_grey_keeps_the_upper_byte(rng):
    values = rng.integers(0, 2**16, (7, 9), dtype=np.uint16)
    found = decode(encode(Image.fromarray(values)))
    np.testing.assert_array_equal(found, (values >> 8).astype(np.uint8)[:, :, None].repeat(3, 2))


def test_palette_and_transparency_become_colours():
    flat = Image.new("RGB", (4, 3), (200, 30, 60))
    for image in (flat.quantize(4), flat.convert("RGBA")):
        found = decode(encode(image))
        assert found.shape == (3, 4, 3)
        np.testing.assert_allclose(found.astype(int), [[[200, 30, 60]] * 4] * 3, atol=4)


@pytest.mark.parametrize("mode", ["CMYK", "1", "LA", "RGBA"])
def test_other_modes_become_rgb(picture, mode):
    form = "TIFF" if mode == "CMYK" else "PNG"
    expected = np.asarray(Image.fromarray(picture).convert(mode).convert("RGB"))
    found = decode(encode(Image.fromarray(picture).convert(mode), form))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (4, np.flipud),
        (5, lambda x: np.rot90(np.fliplr(x))),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(np.fliplr(x), -1)),
        (8, np.rot90),
    ],
)
def test_the_orientation_of_the_camera_is_honoured(picture, form, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(Image.fromarray(picture), form, exif=exif))
    np.testing.assert_array_equal(found, upright(picture))


def test_cmyk_jpegs_have_the_colours_of_their_ink():
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    found = decode(encode(inks, "JPEG", quality=95))
    np.testing.assert_allclose(found[8, 8].astype(int), [255, 0, 0], atol=8)


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    found = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(found[2, 2].astype(int), [250, 0, 0], atol=8)


def test_of_several_pictures_the_first_counts():
    first, second = Image.new("RGB", (24, 16), (250, 0, 0)), Image.new("RGB", (24, 16), "lime")
    for form in ("MPO", "TIFF", "PNG", "GIF", "WEBP"):
        data = encode(first.copy(), form, save_all=True, append_images=[second.copy()])
        encoded = EncodedImage(data)
        assert encoded.shape == (16, 24)
        np.testing.assert_allclose(encoded.decode()[8, 12].astype(int), [250, 0, 0], atol=8)
    smaller = EncodedImage(encode(first, "MPO", save_all=True, append_images=[second])).to_pil(2)
    assert smaller.size == (12, 8)


def test_a_single_pixel_depends_on_the_limit():
    data = encode(Image.new("RGB", (1, 1), (1, 2, 3)))
    assert decode(data, min_side=1).tolist() == [[[1, 2, 3]]]
    with pytest.raises(BadImageError, match=r"1 x 1 .*\b16"):
        decode(data, min_side=16)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    data = encode(Image.new("RGB", (40, 30)))

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(BadImageError, match=r"40 x 30 .*\b1199"):
        decode(data, max_pixels=1199)


def test_a_decompression_bomb_is_refused_whatever_the_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(Image.new("RGB", (40, 30)))
    with pytest.raises(BadImageError, match="too many pixels"):
        decode(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_truncated_file_is_refused(picture, form):
    data = encode(Image.fromarray(picture), form)
    with pytest.raises(BadImageError):
        decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"<svg></svg>", "not an image"),
        (bytes(99), "not an image"),
        *((encode(Image.new("RGB", (30, 20)), form), "not an image") for form in OTHER_FORMATS),
    ],
)
def test_what_is_no_image_of_the_formats_is_refused(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode(data)


def test_postscript_starts_no_other_program(monkeypatch):
    def start(*_, **__):
        raise AssertionError("started")

    for name in ("Popen", "run", "call", "check_call"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n"
    with pytest.raises(BadImageError, match="not an image"):
        decode(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_damage_anywhere_never_raises_anything_else(rng, form):
    whole = np.frombuffer(encode(Image.fromarray(draw(1, 40, 40)), form), np.uint8)
    reasons = set()
    for _ in range(100):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
        try:
            assert decode(damaged.tobytes(), max_pixels=10_000).shape[2] == 3
        except BadImageError as error:
            reasons.add(str(error))
    assert all(reason.isprintable() and 0 < len(reason) < 300 for reason in reasons)


@pytest.mark.parametrize("text", ["two\nlines\r\n \x00\x1b[31m\udc80", "long " * 9999, ""])
def test_a_reason_is_one_printable_line(picture, monkeypatch, text):
    def load(self):
        raise ValueError(text)

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(BadImageError) as caught:
        decode(encode(Image.fromarray(picture)))
    reason = str(caught.value)
    assert reason.startswith("cannot be decoded: ")
    assert reason.isprintable()
    assert len(reason) < 300
    assert any(word in reason for word in ("two lines", "long", "ValueError"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_with_damaged_metadata_is_whole(picture, form):
    image = Image.fromarray(picture)
    expected = decode(encode(image, form))
    found = decode(encode(image, form, exif=b"Exif\x00\x00no metadata"))
    np.testing.assert_array_equal(found, expected)


def test_threads_leave_the_warnings_as_they_were(rng):
    image = Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).convert("P")
    data = encode(image, transparency=bytes(range(256)))  # Pillow warns when it decodes it
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        shapes = [found.shape for found in pool.map(decode, [data] * 300)]
    assert shapes == [(64, 64, 3)] * 300
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((100, 50), 0, (100, 50)),
        ((100, 50), 100, (100, 50)),
        ((100, 50), 60, (60, 30)),
        ((33, 100), 50, (16, 50)),  # 16.5 to even
        ((1, 300), 100, (1, 100)),
        ((99, 70), 49.5, (50, 35)),
    ],
)
def test_the_longest_side_is_limited(size, limit, expected):
    image, scale = limit_size(draw(0, 120, 320)[: size[0], : size[1]], limit)
    assert image.shape[:2] == expected
    assert scale == (1.0 if expected == size else limit / max(size))


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 3, 12, 9), (3, 9), (2, 12)),
        ((1.6, 2.4, 11.5, 9.5), (2, 10), (2, 12)),  # halves to even
        ((-5, -5, 10, 10), (0, 10), (0, 10)),
        ((25, 15, 99, 99), (15, 20), (25, 30)),
    ],
)
def test_a_box_is_rounded_and_clipped(picture, box, rows, columns):
    expected = picture[slice(*rows), slice(*columns)]
    np.testing.assert_array_equal(crop(picture, box), expected)


@pytest.mark.parametrize("box", [(30, 0, 40, 20), (-9, -9, 0, 0), (5, 5, 5, 9), (9, 9, 3, 12)])
def test_a_box_without_image_is_refused(picture, box):
    with pytest.raises(BadImageError, match="box .* 30 x 20"):
        crop(picture, box)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_shape_is_known_before_the_pixels(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (40, 24)), form, exif=exif)
    image = EncodedImage(data)
    assert image.shape == ((24, 40) if orientation < 5 else (40, 24))
    assert image.decode().shape == (*image.shape, 3)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_smaller(rng, reduction):
    small = Image.fromarray(rng.integers(0, 256, (10, 14, 3), np.uint8))
    smooth = small.resize((448, 320), Image.Resampling.BICUBIC)
    data = encode(smooth, "JPEG", quality=95)
    found = np.asarray(EncodedImage(data).to_pil(reduction))
    assert found.shape == (320 // reduction, 448 // reduction, 3)
    expected = np.asarray(smooth.reduce(reduction)).astype(int)
    assert np.abs(found - expected).mean() < 3.0
    np.testing.assert_array_equal(EncodedImage(data).decode(), decode(data))


def test_other_formats_come_whole():
    data = encode(Image.new("RGB", (64, 48)))
    assert EncodedImage(data).to_pil(4).size == (64, 48)


def test_a_truncated_jpeg_is_refused_at_every_reduction(rng):
    data = encode(Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)), "JPEG")
    for reduction in (1, 2, 4, 8):
        image = EncodedImage(data[: len(data) // 2])
        with pytest.raises(BadImageError, match="truncated"):
            image.to_pil(reduction)


def test_an_image_that_goes_over_its_pixels_again_and_again_is_refused():
    few = repeated_scans(64, 50)
    assert decode(few).shape == (64, 64, 3)
    for scans, least in ((_MOST_SCANS, 1), (1_000_000, 65)):  # of many, counting ends early
        with pytest.raises(BadImageError, match="100 scans"):
            decode(repeated_scans(64, scans), min_side=least)


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
            images.check_encoded(data)


def test_a_png_of_many_profiles_is_refused():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    target = io.BytesIO()
    Image.new("RGB", (20, 20)).save(target, "PNG", icc_profile=profile)
    assert decode(target.getvalue()).shape == (20, 20, 3)
    with pytest.raises(BadImageError, match="colour profiles"):
        decode(repeated_profiles(11))


def test_a_tiff_of_tiny_parts_is_refused(monkeypatch):
    monkeypatch.setattr(images, "_MOST_TILES", 99)
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


@pytest.mark.parametrize("workers", [0, 1, 100])
def test_a_number_is_taken_as_it_is(workers):
    assert worker_count(workers) == workers


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (7, 7), (200, 32)])
def test_otherwise_there_is_one_on_each_core_that_the_process_may_use(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_count(AUTO) == expected
