"""Files whose decoding takes far longer than their size and their pixels explain are refused.

What a decoder does once per pixel is bounded by the limit on pixels, and what it does once per byte
by the size of the file. What is left is work on all pixels, or on much decompressed data, that a
few bytes of a file can request again and again.
"""

import re
from typing import Any

from delg_jax.data.pixels import BadImageError

_MOST_SCANS = 100  # of a JPEG, as libtiff allows; encoders write about ten
_MOST_PROFILES = 10  # of a PNG, which may have one; each decompresses to a megabyte
_MOST_TILES = 300_000  # of a TIFF, which Pillow decodes one by one

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_SCAN, _END = 0xDA, 0xD9
# In the data of a scan, 0xFF is followed by zero or by the number of a restart
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")


def check_file(data: bytes) -> None:
    """Refuses a file before it is opened.

    Args:
      data: an encoded image of any format.

    Raises:
      BadImageError: for a JPEG of too many scans, each of which goes over all pixels, and a PNG of
        too many compressed profiles.
    """
    # Thumbnails, or a film after the image, may have such bytes, too: they are counted quickly
    possible = data.count(bytes((0xFF, _SCAN))) if data.startswith(_JPEG) else 0
    if possible > _MOST_SCANS and _scans(data) > _MOST_SCANS:
        raise BadImageError(f"a JPEG of more than {_MOST_SCANS} scans")
    if data.startswith(_PNG) and data.count(b"iCCP") > _MOST_PROFILES:
        raise BadImageError(f"a PNG of more than {_MOST_PROFILES} colour profiles")


def check_opened(image: Any) -> None:
    """Refuses an image that is opened and not decoded; a BadImageError for too many tiles."""
    tiles = len(getattr(image, "tile", ()))
    if tiles > _MOST_TILES:
        raise BadImageError(f"is stored in {tiles} parts, more than {_MOST_TILES}")


def _scans(data: bytes) -> int:
    """Number of scans of the first image of a JPEG, at most one more than allowed."""
    scans, place = 0, len(_JPEG)
    while scans <= _MOST_SCANS and (found := _MARKER.search(data, place)):
        place, kind = found.end(), found[1][0]
        if kind == _END:
            break
        scans += kind == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")
    return scans
