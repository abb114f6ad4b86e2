"""A hundred good pictures of many kinds among a hundred files that only look like pictures."""

import concurrent.futures
import csv
import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from delg_jax.data import images, listing
from delg_jax.features.experiment import extract_images
from delg_jax.features.extraction import Loader
from tests.photographs import draw
from tests.tiny import retrieval_config

EACH = 5  # files of a kind


def picture(number):
    """Two shapes, so that few programs are compiled."""
    return Image.fromarray(draw(number, *((48, 64) if number % 2 else (64, 56))))


def encode(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def jpeg(image, **options):
    """Of the best quality, so that it can be compared with what was drawn."""
    return encode(image, "JPEG", quality=95, subsampling=0, **options)


def grey(number):
    return picture(number).convert("L")


def black_and_white(number):
    return picture(number).convert("1")


def sixteen_bit(number):
    """The upper byte holds a grey picture, the lower one noise."""
    high = np.asarray(grey(number)).astype(np.uint16)
    low = np.random.default_rng(number).integers(0, 256, high.shape, np.uint16)
    return Image.fromarray(256 * high + low)


def see_through(number):
    image = picture(number)
    image.putalpha(grey(number))
    return image


def palette(number):
    return picture(number).quantize(64)


def animation(number, form):
    frames = [palette(number + shift) for shift in (0, 2, 4)]
    return encode(frames[0], form, save_all=True, append_images=frames[1:])


def turned(number, form="PNG", **options):
    """Stored as a camera held upright does: a viewer turns it clockwise."""
    tags = Image.Exif()
    tags[0x0112] = 6
    lying = picture(number).transpose(Image.Transpose.ROTATE_90)
    return encode(lying, form, exif=tags, **options)


# Kind, with the ending of its files: their bytes, and what they show
GOOD = {
    "upright.png": (lambda n: encode(picture(n)), picture),
    "turned.png": (turned, picture),
    "turned.jpg": (lambda n: turned(n, "JPEG", quality=95, subsampling=0), picture),
    "turned.tif": (lambda n: turned(n, "TIFF"), picture),
    "baseline.jpg": (lambda n: jpeg(picture(n)), picture),
    "progressive.jpeg": (lambda n: jpeg(picture(n), progressive=True), picture),
    "grey.jpg": (lambda n: jpeg(grey(n)), grey),
    "cmyk.jpg": (lambda n: jpeg(picture(n).convert("CMYK")), picture),
    "tail.jpg": (lambda n: jpeg(picture(n)) + b"garbage" * n, picture),
    "metadata.png": (lambda n: encode(picture(n), exif=b"Exif\0\0garbage"), picture),
    "png_named.jpg": (lambda n: encode(picture(n)), picture),
    "jpeg_named.png": (lambda n: jpeg(picture(n)), picture),
    "rgba.png": (lambda n: encode(see_through(n)), picture),
    "palette.png": (lambda n: encode(palette(n), transparency=bytes(range(64))), palette),
    "sixteen.png": (lambda n: encode(sixteen_bit(n)), grey),
    "one_bit.png": (lambda n: encode(black_and_white(n)), black_and_white),
    "animated.gif": (lambda n: animation(n, "GIF"), palette),
    "animated.png": (lambda n: animation(n, "PNG"), palette),
    "lossless.webp": (lambda n: encode(picture(n), "WEBP", lossless=True), picture),
    "deflated.tiff": (lambda n: encode(picture(n), "TIFF", compression="tiff_deflate"), picture),
}


def cut(number, form, **options):
    """An interrupted download: at least a fifth is missing, so never only the unused end."""
    data = encode(picture(number), form, **options)
    return data[: int(len(data) * np.random.default_rng(number).uniform(0.05, 0.8))]


def blank(number, form):
    """A block of zeros in the middle, as a damaged file system leaves it."""
    data = bytearray(encode(picture(number), form))
    start, end = len(data) // 3, len(data) * 2 // 3
    data[start:end] = bytes(end - start)
    return bytes(data)


def noise(number, head=b""):
    return head + np.random.default_rng(number).bytes(50 + 100 * number)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10**6), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def jpeg_bomb(number):
    data = encode(picture(number), "JPEG")
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + struct.pack(">HH", 65_000, 65_000 - number) + data[size + 4 :]


def gif_bomb(number):
    data = encode(picture(number), "GIF")
    return data[:6] + struct.pack("<HH", 65_535 - number, 65_535) + data[10:]


def bmp_bomb(number):
    data = encode(picture(number), "BMP")
    return data[:18] + struct.pack("<ii", 60_000, 60_000 + number) + data[26:]


BOMBS = {
    "bomb.png": lambda n: png_bomb(60_000, 60_000 + n),
    "large_bomb.png": lambda n: png_bomb(10_001, 10_000 + n),  # over max_pixels, not over Pillow's
    "bomb.jpg": jpeg_bomb,
    "bomb.gif": gif_bomb,
    "bomb.bmp": bmp_bomb,
}
BAD = BOMBS | {
    "cut.jpg": lambda n: cut(n, "JPEG"),
    "cut_progressive.jpg": lambda n: cut(n, "JPEG", progressive=True),
    "cut.png": lambda n: cut(n, "PNG"),
    "cut.webp": lambda n: cut(n, "WEBP"),
    "cut.gif": lambda n: cut(n, "GIF"),
    "cut.tif": lambda n: cut(n, "TIFF"),
    "blank.png": lambda n: blank(n, "PNG"),
    "cut_deflated.tiff": lambda n: cut(n, "TIFF", compression="tiff_deflate"),
    "noise.jpg": noise,
    "noise_with_head.jpg": lambda n: noise(n, b"\xff\xd8\xff\xe0"),
    "empty.jpg": lambda n: b"",
    "page.jpg": lambda n: b"<!DOCTYPE html><html><title>404 Not Found</title></html>" + b"\n" * n,
    "drawing.png": lambda n: b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="%d"/></svg>' % n,
    "packed.jpg": lambda n: gzip.compress(encode(picture(n), "JPEG")),
    "small.png": lambda n: encode(picture(n).resize((64, 8))),
}


def files(kinds):
    """Bytes by name, `EACH` of each kind."""
    named = {}
    for kind, make in kinds.items():
        stem, _, ending = kind.rpartition(".")
        make = make if callable(make) else make[0]
        named |= {f"{stem}_{number}.{ending}": make(number) for number in range(EACH)}
    return named


@pytest.fixture(scope="module")
def good():
    return files(GOOD)


@pytest.fixture(scope="module")
def bad():
    return files(BAD)


@pytest.fixture(scope="module")
def folder(good, bad, tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for name, data in (good | bad).items():
        (root / name).write_bytes(data)
    return root


def test_there_are_as_many_as_said(good, bad):
    assert len(good) == len(bad) == 100
    assert len(set(bad.values())) >= 95  # only the empty ones are alike


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_picture_is_seen_as_it_is(kind):
    make, show = GOOD[kind]
    for number in range(EACH):
        data = make(number)
        expected = np.asarray(show(number).convert("RGB")).astype(int)
        found = images.decode(data, min_side=16).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() <= (3 if data.startswith(b"\xff\xd8") else 0)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_refused_with_a_reason(kind):
    for number in range(EACH):
        with pytest.raises(images.BadImageError) as caught:
            images.decode(BAD[kind](number), min_side=16)
        reason = str(caught.value)
        assert 0 < len(reason) < 300
        assert reason.isprintable()


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_there_is_room_for_its_pixels(kind, monkeypatch):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    monkeypatch.setattr(Image.core, "new", lambda *_: decoded.append(kind))
    for number in range(EACH):
        with pytest.raises(images.BadImageError, match=r"too many pixels|more than 100000000"):
            images.decode(BOMBS[kind](number))
    assert decoded == []


def test_many_threads_read_all_in_order(folder, good, bad):
    data = retrieval_config(folder).data
    source = listing.open_images(str(folder))
    assert source.names == sorted(good | bad)
    loader = Loader(source, None, 0, data.min_side, data.max_pixels)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = [image for image, _ in pool.map(loader.load, range(len(source)))]
    refused = {
        name for name, item in zip(source.names, found, strict=True) if isinstance(item, str)
    }
    assert refused == set(bad)


def test_every_good_picture_is_extracted_and_every_bad_one_listed(folder, good, bad, tmp_path):
    config = retrieval_config(folder).unlock()
    config.data.workers, config.data.max_skipped = 4, 100
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    store = extract_images(config, tmp_path / "run", str(folder))
    assert sorted(store.names) == sorted(good | bad)
    assert store.skipped().keys() == bad.keys()
    assert all(reason.isprintable() and reason.strip() for reason in store.skipped().values())
    with (store.folder / "skipped.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "reason"]
    assert len(rows) == 100
    assert dict(rows) == store.skipped()
    found = dict(zip(store.names, np.asarray(store.global_descriptors()), strict=True))
    norms = [np.linalg.norm(found[name]) for name in good]
    np.testing.assert_allclose(norms, 1, atol=1e-3)
    upright = [found[f"upright_{number}.png"] for number in range(EACH)]
    assert np.abs(upright[0] - upright[1]).max() > 1e-3
    for kind in ("turned_{}.png", "turned_{}.tif", "metadata_{}.png", "png_named_{}.jpg"):
        same = [found[kind.format(number)] for number in range(EACH)]
        np.testing.assert_allclose(same, upright, atol=1e-6)
