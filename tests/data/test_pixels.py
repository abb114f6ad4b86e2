import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from delg_jax.data.images import BadImageError, EncodedImage, decode

PHOTOMETRIC = {1: 1, 2: 1, 3: 2, 4: 2}  # of a TIFF by its channels


def tiff(values, order="<", deflated=False, **tags):
    """A TIFF of one strip; `tags` by number as in `t281=4095`."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflated else data
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = values.dtype.itemsize * 8
    fields = {256: width, 257: height, 258: (bits,) * channels, 259: 8 if deflated else 1}
    fields |= {262: PHOTOMETRIC[channels], 273: 8, 277: channels, 278: height, 279: len(data)}
    fields |= {339: (kind,) * channels} | ({338: 2} if channels in (2, 4) else {})
    fields |= {int(name[1:]): value for name, value in tags.items()}
    if fields[262] == 5:
        del fields[338]
    start = 8 + len(data) + len(data) % 2
    entries, rest = b"", b""
    for tag, value in sorted(fields.items()):
        items = value if isinstance(value, tuple) else (value,)
        form = "f" if isinstance(items[0], float) else "I" if tag in (273, 279) else "H"
        packed = struct.pack(f"{order}{len(items)}{form}", *items)
        if len(packed) > 4:
            place = start + 2 + 12 * len(fields) + 4 + len(rest)
            rest += packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4, "f": 11}[form], len(items))
        entries += packed.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = head + struct.pack(f"{order}I", start) + data + bytes(len(data) % 2)
    return body + struct.pack(f"{order}H", len(fields)) + entries + bytes(4) + rest


def png(values, significant=()):
    """A PNG of 16 bits, with the chunk sBIT if bits are declared."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    chunks += [(b"sBIT", bytes(significant))] if significant else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def saved(image, form, **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def grey(values):
    return np.broadcast_to(np.asarray(values)[..., None], (*np.shape(values), 3))


@pytest.fixture
def twelve(rng):
    """12-bit values that reach the largest."""
    values = rng.integers(0, 4096, (9, 14), dtype=np.uint16)
    values[0, 0] = 4095
    return values


@pytest.fixture
def colours(rng):
    values = rng.integers(0, 4096, (9, 14, 3), dtype=np.uint16)
    values[0, 0] = 4095
    return values


LAYOUTS = [("<", False), (">", False), ("<", True), (">", True)]


@pytest.mark.parametrize(("order", "deflated"), LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "factor"),
    [("u2", 1), ("u2", 16), ("i2", 1), ("i4", 1), ("i4", 2**19), ("f4", 1), ("f4", 16)],
)
def test_greys_of_every_type_have_the_bits_that_hold_the_largest(
    twelve, order, deflated, kind, factor
):
    values = (twelve.astype(np.int64) * factor).astype(kind)
    found = decode(tiff(values, order, deflated))
    exact = np.rint(twelve / 4095 * 255) if kind == "f4" else twelve >> 4
    np.testing.assert_allclose(found, grey(exact), atol=1 if kind == "f4" else 0)


@pytest.mark.parametrize("deflated", [False, True])
def test_values_of_32_bits_without_sign_reach_beyond_those_with_one(twelve, deflated):
    values = twelve.astype(np.uint32) << 20
    np.testing.assert_array_equal(decode(tiff(values, "<", deflated)), grey(twelve >> 4))


@pytest.mark.parametrize(("order", "deflated"), LAYOUTS)
def test_floating_point_numbers_from_0_to_1(twelve, order, deflated):
    values = (twelve / 4095).astype(np.float32)
    found = decode(tiff(values, order, deflated))
    np.testing.assert_array_equal(found, grey(np.rint(values * 255)))


@pytest.mark.parametrize(("order", "deflated"), LAYOUTS)
@pytest.mark.parametrize("factor", [1, 4, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_have_the_bits_that_hold_the_largest(
    colours, order, deflated, factor, channels
):
    opaque = np.full((*colours.shape[:2], channels - 3), 65535, np.uint16)
    values = np.concatenate([colours * factor, opaque], axis=2)
    np.testing.assert_array_equal(decode(tiff(values, order, deflated)), colours >> 4)
    np.testing.assert_array_equal(decode(png(values)), colours >> 4)


@pytest.mark.parametrize("factor", [1, 4, 16])
def test_greys_of_16_bits_in_a_png(twelve, factor):
    values = twelve * factor
    np.testing.assert_array_equal(decode(png(values)), grey(twelve >> 4))
    opaque = np.full_like(values, 65535)
    np.testing.assert_array_equal(decode(png(np.stack([values, opaque], 2))), grey(twelve >> 4))


@pytest.mark.parametrize("largest", [100, 255, 256, 1023, 1024, 4096, 16383, 16384, 65535])
def test_the_largest_value_decides_the_bits(largest):
    values = np.array([[0, largest // 2, largest]], np.uint16)
    bits = {100: 8, 255: 8, 256: 10, 1023: 10, 1024: 12, 4096: 14, 16383: 14}.get(largest, 16)
    for data in (png(values), tiff(values), tiff(values.astype(np.int32))):
        np.testing.assert_array_equal(decode(data), grey(values >> bits - 8))


def test_what_is_declared_comes_before_what_is_found(twelve):
    dark = twelve // 4  # which would be 10 bits
    for data in (png(dark, [12]), tiff(dark, t281=4095), tiff(dark, t341=4095)):
        np.testing.assert_array_equal(decode(data), grey(dark >> 4))
    three = np.stack([dark] * 3, 2)
    for data in (png(three, [12, 12, 12]), tiff(three, t281=(4095,) * 3)):
        np.testing.assert_array_equal(decode(data), grey(dark >> 4))
    np.testing.assert_array_equal(
        decode(tiff(twelve, t281=4999)), grey(twelve.astype(int) * 256 // 5000)
    )
    np.testing.assert_array_equal(decode(png(three * 20, [15] * 3)), grey(dark * 20 >> 7))
    halves = (twelve / 4095 / 2).astype(np.float32)
    np.testing.assert_array_equal(decode(tiff(halves, t341=2.0)), grey(np.rint(halves * 127.5)))


def test_twelve_bits_a_sample_are_declared(twelve):
    dark = twelve // 4
    first, second = dark[:, ::2], dark[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 2)
    data = tiff(packed.reshape(len(dark), -1).astype(np.uint8), t256=dark.shape[1], t258=12)
    np.testing.assert_array_equal(decode(data), grey(dark >> 4))


def test_a_declaration_that_values_exceed_or_that_says_nothing_does_not_count(twelve):
    for data in (png(twelve, [8]), png(twelve, [16]), tiff(twelve, t281=255)):
        np.testing.assert_array_equal(decode(data), grey(twelve >> 4))
    np.testing.assert_array_equal(decode(tiff(twelve, t281=65535)), grey(twelve >> 4))
    scaled = twelve << 4 | twelve >> 8  # as PNG asks for
    np.testing.assert_array_equal(decode(png(scaled, [12])), grey(twelve >> 4))


def pnm(values, largest):
    kind = 6 if values.ndim == 3 else 5
    head = f"P{kind} {values.shape[1]} {values.shape[0]} {largest}\n"
    return head.encode() + values.astype(">u2").tobytes()


def test_a_pnm_declares_its_largest_value(twelve, colours):
    for values in (twelve // 3, colours // 3):
        expected = values if values.ndim == 3 else grey(values)
        np.testing.assert_allclose(decode(pnm(values, 4095)), expected >> 4, atol=1)
        np.testing.assert_allclose(decode(pnm(values * 16, 65535)), expected >> 4, atol=1)


def test_zero_may_be_white(twelve):
    np.testing.assert_array_equal(decode(tiff(twelve, t262=0)), grey(255 - (twelve >> 4)))


def test_pfm_is_floating_point(twelve):
    values = (twelve / 4095).astype(np.float32)
    data = saved(Image.fromarray(values), "PPM")
    np.testing.assert_array_equal(decode(data), grey(np.rint(values * 255)))


def test_what_resampling_leaves_outside_of_the_range_is_clipped():
    values = np.array([[-0.01, 0.5, 1.01]], np.float32)
    assert decode(tiff(values))[0, :, 0].tolist() == [0, 128, 255]
    assert decode(tiff(values * 255))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("f4", [0.0, np.nan, np.inf], "2 of 3 .*NaN"),
        ("f4", [0.0, -0.5, 1.0], r"negative .* -0\.5"),
        ("f4", [0.0, 0.5, 1.5], r"float.* 1\.5"),
        ("f4", [0.0, 1.0, 1e9], r"float.* 1e\+09"),
        ("f4", [0.0, 0.01, 0.02], r" 0\.02 in 32 bits .* 5 of 255"),
        ("f4", [-3.0, -2.0, -1.0], "negative .* -3"),
        ("i4", [-5, 0, 70_000], "negative .* -5"),
        ("i2", [-1, 0, 300], "negative .* -1"),
        ("i1", [-1, 0, 100], "negative .* -1"),
        ("u2", [0, 1, 3], " 3 in 16 bits .* 3 of 255"),
        ("f8", [0.0, 0.5, 1.0], "pixel mode"),  # Pillow's error
    ],
)
def test_values_without_a_range_are_refused_with_the_reason(kind, values, names):
    with pytest.raises(BadImageError, match=names):
        decode(tiff(np.array([values], kind)))


def test_dark_colours_of_16_bits_are_refused(colours):
    for data in (png(colours // 300), tiff(colours // 300), pnm(colours // 300, 4095)):
        with pytest.raises(BadImageError, match=r"up to \d+ .* of 255"):
            decode(data)


def test_separate_planes_of_16_bits_are_refused(colours):
    with pytest.raises(BadImageError, match="separate planes"):
        decode(tiff(colours, t284=2))


@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_an_image_of_one_value_follows_the_rule(kind):
    values = np.full((4, 5), 200, kind)
    assert np.unique(decode(tiff(values))).tolist() == [200]
    assert np.unique(decode(tiff(np.zeros_like(values)))).tolist() == [0]


def test_signed_values_of_8_bits_are_half_a_range():
    values = np.array([[0, 50, 127]], np.int8)
    assert decode(tiff(values))[0, :, 0].tolist() == [0, 100, 254]


def test_inks_of_16_bits(colours):
    inks = np.concatenate([colours, colours[..., :1]], axis=2)
    expected = Image.fromarray((inks >> 4).astype(np.uint8), "CMYK").convert("RGB")
    for values in (inks, inks * 16):
        np.testing.assert_array_equal(decode(tiff(values, t262=5)), np.asarray(expected))


def test_greys_that_are_multiplied_by_their_opacity():
    values = np.array([[[60, 128], [100, 255]]], np.uint8)
    assert decode(tiff(values, t338=1))[0, :, 0].tolist() == [119, 100]


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "TIFF"),
        ("L", "TIFF"),
        ("LA", "TIFF"),
        ("P", "GIF"),
        ("PA", "TIFF"),
        ("RGBA", "WEBP"),
        ("RGBX", "TIFF"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("LAB", "TIFF"),
    ],
)
def test_every_mode_of_8_bits_has_its_colours(mode, form):
    colour = Image.new("RGB", (16, 12), (180, 90, 40))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(colour, *profiles, outputMode="LAB")
    elif mode in ("P", "PA"):
        image = colour.quantize(4).convert(mode)
    else:
        image = colour.convert(mode)
    data = saved(image, form, **({"lossless": True} if form == "WEBP" else {}))
    if mode == "1":
        expected = np.asarray(image.convert("RGB"))
    elif mode in ("L", "LA"):
        expected = np.asarray(colour.convert("L").convert("RGB"))
    else:
        expected = np.asarray(colour)
    np.testing.assert_allclose(decode(data).astype(int), expected, atol=4)


def test_wide_values_are_turned_upright(twelve):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(twelve), "PNG", exif=exif)
    assert EncodedImage(data).shape == (14, 9)
    np.testing.assert_array_equal(decode(data), grey(np.rot90(twelve >> 4, -1)))
