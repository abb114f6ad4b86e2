"""Converts every kind of pixels that Pillow decodes to 8-bit RGB, or gives the reason why not.

8-bit colours and greys are kept; transparency, colour profiles and gamma are ignored. Other values
are scaled from their range to 0 to 255. The range is

- what the file declares, if that is smaller than the range of the type and holds all values: the
  significant bits of a PNG (sBIT), MaxSampleValue or 12 bits a sample of a TIFF, the largest value
  of a PGM or PPM;
- else, for integers, the smallest of 8, 10, 12, ... bits, up to those of the type, that holds the
  largest value: 12-bit values stored in 16 bits have 12 bits. A 16-bit image that reaches a quarter
  of its range keeps its upper bytes;
- else, for floating point numbers, 0 to 1, or 0 to the largest integer of 8, 10, ... 16 bits.
  Values outside by less than `_OVERSHOOT` of the range, which resampling produces, are clipped.

An image without such a range is refused: one with negative values, NaN or infinity, with floating
point numbers whose largest lies between 1 and 16 or above 65535, or so dark that its largest value
would be below 16 of 255.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_LEAST_BITS, _MOST_BITS = 8, 16  # of a range that is found by content; floating point at most
_OVERSHOOT = 1 / 64  # of the range
_DARK = 16  # of 255; an image whose largest value is below is refused as too dark
_TAGS = {"bits": 258, "photometric": 262, "maximum": 281, "planes": 284, "format": 339, "most": 341}
_SIGNED, _FLOAT = 2, 3  # sample formats of TIFF
_NATIVE = "L" if sys.byteorder == "little" else "B"
_SWAPPED = {"L": "B", "B": "L"}
_OF_LIBTIFF = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
_OF_LIBTIFF |= {"F;32F": "F;32NF", "I;32S": "I;32NS", "I;16S": "I;16NS"}
_CHANNELS = {"LA;16B": 1, "CMYK": 4}  # without transparency, by layout; others have 3


class BadImageError(Exception):
    """An image that cannot be used; its text is the reason, fit for `skipped.csv`."""


_Opened = Any  # an image of a file, with attributes of its format that Pillow's types lack


@dataclasses.dataclass(frozen=True)
class Samples:
    """How a file stores the values of an image.

    Attributes:
      raw: Pillow's name of the layout, such as `RGB;16B`.
      bits: of the type of the values, without a sign.
      maximum: the largest value as declared; 0 if nothing is declared.
      inverted: whether zero is white.
      separate: whether each channel is stored by itself.
      tiles: where Pillow finds the pixels.
    """

    raw: str
    bits: int
    maximum: float = 0
    inverted: bool = False
    separate: bool = False
    tiles: tuple = ()

    @property
    def are_wide_colours(self) -> bool:
        """Whether Pillow would keep only the upper byte of colours of 16 bits."""
        return ";16" in self.raw and not self.raw.startswith("I;")


def samples(image: _Opened, data: bytes) -> Samples:
    """How an opened image, which is not decoded yet, stores its values.

    Args:
      image: as `Image.open` gives it.
      data: its file.

    Returns:
      The layout and range of its values.
    """
    if image.format == "TIFF":
        _correct_byte_order(image)
    tiles = tuple(getattr(image, "tile", ()))
    args = tiles[0].args if tiles else ()
    first = args[0] if isinstance(args, tuple) and args else args
    raw = first if isinstance(first, str) else image.mode
    if image.format == "TIFF":
        return dataclasses.replace(_samples_of_tiff(image.tag_v2, raw), tiles=tiles)
    bits = 16 if ";16" in raw else 32 if image.mode in ("I", "F") else 8
    if image.format == "PNG" and bits == 16:
        maximum = 2 ** _significant_bits(data) - 1
        return Samples(raw, bits, maximum * (maximum < 2**bits - 1), tiles=tiles)
    if image.format == "PPM" and image.mode in ("I", "RGB"):
        return _samples_of_ppm(image, raw, bits)
    return Samples(raw, bits, tiles=tiles)


def _correct_byte_order(image: _Opened) -> None:
    """Fixes layouts: Pillow forgets that libtiff decodes to the byte order of the machine."""
    image.tile = [
        tile._replace(args=(_OF_LIBTIFF.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff"
        else tile
        for tile in image.tile
    ]


def _samples_of_ppm(image: _Opened, raw: str, bits: int) -> Samples:
    (tile,) = image.tile
    if image.mode == "I":  # Pillow has scaled them to 65535, whatever was declared
        return Samples(raw, 16, 65535 * tile.codec_name.startswith("ppm"))
    if tile.codec_name != "ppm" or tile.args[1] <= 255:
        return Samples(raw, bits)
    # Pillow would convert them to 8 bits value by value
    raw, maximum = "RGB;16B", tile.args[1]
    image.tile = [tile._replace(codec_name="raw", args=(raw, 0, 1))]
    return Samples(raw, 16, maximum * (maximum < 65535), tiles=tuple(image.tile))


def _samples_of_tiff(tags, raw: str) -> Samples:
    bits = int(max(_numbers(tags, "bits"), default=1))
    kind = max(_numbers(tags, "format"), default=1)
    whole = _numbers(tags, "maximum") if kind != _FLOAT else []
    declared = max([*whole, *_numbers(tags, "most"), 0])
    if bits == 12:  # Pillow decodes them to 16
        bits, declared = 16, declared or 4095
    bits -= kind == _SIGNED
    if kind != _FLOAT and declared >= 2**bits - 1:
        declared = 0  # no more than the range of the type
    inverted = _numbers(tags, "photometric")[:1] == [0] and bits > 8
    separate = _numbers(tags, "planes")[:1] == [2]
    if bits == 16 and separate and ";16" not in raw:
        raw = f"{raw};16"
    return Samples(raw, bits, declared, inverted, separate)


def _numbers(tags, name: str) -> list[float]:
    value = tags.get(_TAGS[name], ())
    values = value if isinstance(value, tuple) else (value,)
    return [number for number in values if isinstance(number, int | float)]


def _significant_bits(data: bytes) -> int:
    """The most bits that the chunk sBIT of a PNG declares for a colour; 0 without one."""
    place = 8
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"sBIT":
            bits = data[place + 8 : place + 8 + min(size, 3)]
            return max(bits, default=0) if max(bits, default=0) <= 16 else 0
        if kind == b"IDAT":
            break
        place += size + 12
    return 0


def to_rgb(image: Image.Image, stored: Samples, again: Callable[[], Image.Image]) -> Image.Image:
    """Converts decoded pixels to 8-bit colours.

    Args:
      image: decoded.
      stored: of `samples`.
      again: opens the same file again, not decoded.

    Returns:
      An image of the mode RGB.

    Raises:
      BadImageError: if the values have no range, see above.
    """
    if stored.are_wide_colours:
        return _of_wide_colours(image, stored, again)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "I" and stored.bits == 32:  # Pillow reads them as signed
            values = values.view(np.uint32)
        return _grey(values, stored)
    if image.mode == "L" and stored.bits == 7:
        return _grey(np.asarray(image).view(np.int8), stored)
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        colours = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        if colours is None:
            raise BadImageError("has LAB colours that cannot be converted")
        return colours
    if image.mode in ("La", "RGBa"):  # colours multiplied by their opacity
        image = image.convert(f"{image.mode[:-1]}A")
    return image if image.mode == "RGB" else image.convert("RGB")  # `convert` would copy


def _grey(values: np.ndarray, stored: Samples) -> Image.Image:
    return Image.fromarray(to_8_bits(values, stored)).convert("RGB")


def _of_wide_colours(
    image: Image.Image, stored: Samples, again: Callable[[], Image.Image]
) -> Image.Image:
    """As `to_rgb`, for colours of which Pillow has kept only the upper bytes."""
    if stored.separate:
        raise BadImageError("a TIFF with 16-bit colours in separate planes is not decoded")
    if stored.raw.startswith("RGBa"):
        raise BadImageError("16-bit colours multiplied by their opacity are not decoded")
    kind = image.mode if image.mode == "CMYK" else stored.raw
    channels = _CHANNELS.get(kind, 3)
    upper = np.asarray(image)[..., :channels]
    reached = int(upper.max(initial=0)) << 8
    if reached < 2 ** (stored.bits - 2) or reached <= stored.maximum:
        lower = np.asarray(_lower_bytes(again(), stored))
        if stored.raw == "LA;16B":  # upper and lower byte of L, then of A
            values = lower[..., 0].astype(np.uint16) << 8 | lower[..., 1]
            return _grey(values, stored)
        upper = to_8_bits(upper.astype(np.uint16) << 8 | lower[..., :channels], stored)
        return Image.fromarray(upper, "CMYK" if channels == 4 else "RGB").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _lower_bytes(image: _Opened, stored: Samples) -> Image.Image:
    """Decodes 16-bit colours with their bytes swapped, so that Pillow keeps the lower ones."""
    if stored.raw == "LA;16B":
        raw = "RGBA"
    else:
        raw = stored.raw[:-1] + _SWAPPED[stored.raw[-1].replace("N", _NATIVE)]
    image.tile = [
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
        for tile in stored.tiles
    ]
    image.load()
    return image


def to_8_bits(values: np.ndarray, stored: Samples) -> np.ndarray:
    """Values of any type scaled to uint8 as described above; a BadImageError if they cannot be."""
    if values.dtype.kind == "f":
        if bad := int((~np.isfinite(values)).sum()):
            raise BadImageError(f"{bad} of {values.size} values are NaN or infinite")
        levels, top = _of_floats(values.astype(np.float32), stored)
    else:
        levels, top = _of_whole_numbers(values, stored)
    if values.any() and top < _DARK:
        rule = f"would leave {top} of 255 grey levels, almost black"
        raise BadImageError(f"values up to {values.max():g} in {stored.bits} bits {rule}")
    return 255 - levels if stored.inverted else levels


def _of_whole_numbers(values: np.ndarray, stored: Samples) -> tuple[np.ndarray, int]:
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    if least < 0:
        raise BadImageError(f"has negative values, the least {least}, which have no grey level")
    size = int(stored.maximum) + 1
    if size == 1 or most >= size:
        bits = max(_LEAST_BITS, most.bit_length() + most.bit_length() % 2)
        size = 2 ** min(bits, stored.bits)
    shift = size.bit_length() - _LEAST_BITS - 1
    if size == 256 << max(shift, 0):
        levels: np.ndarray = values >> shift  # the upper byte
    else:
        levels = values.astype(np.uint64) * 256 // size
    return levels.astype(np.uint8), most * 256 // size


def _of_floats(values: np.ndarray, stored: Samples) -> tuple[np.ndarray, int]:
    least, most = float(values.min(initial=0)), float(values.max(initial=0))
    ranges = [1.0, *(2.0**bits - 1 for bits in range(_LEAST_BITS, _MOST_BITS + 1, 2))]
    if stored.maximum > 0 and most <= stored.maximum * (1 + _OVERSHOOT):
        ranges = [float(stored.maximum)]
    size = next((size for size in ranges if most <= size * (1 + _OVERSHOOT)), 0.0)
    if not size or (size > 1 and len(ranges) > 1 and most < _DARK):
        rule = "are in no known range: 0 to 1, 0 to 255, or up to 65535"
        raise BadImageError(f"floating point values up to {most:g} {rule}")
    if least < -size * _OVERSHOOT:
        raise BadImageError(
            f"has negative values, the least {least:g}, which cannot be grey levels"
        )
    scaled = np.rint(values * np.float32(255 / size)).clip(0, 255)
    return scaled.astype(np.uint8), int(min(max(np.rint(most * 255 / size), 0), 255))
