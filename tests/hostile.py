"""Small files that cost a decoder much."""

import io
import struct
import zlib

from PIL import Image


def repeated_scans(side: int, repeats: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    target = io.BytesIO()
    Image.new("RGB", (side, side)).save(target, "JPEG", progressive=True, quality=20)
    data = target.getvalue()
    end = data[-2:]
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * repeats + end


def repeated_profiles(count: int) -> bytes:
    """A PNG with colour profiles that decompress to nearly a megabyte each."""
    target = io.BytesIO()
    Image.new("RGB", (20, 20)).save(target, "PNG")
    data = target.getvalue()
    place = data.index(b"IDAT") - 4
    body = b"iCCP" + b"a\0\0" + zlib.compress(bytes(900_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:place] + chunk * count + data[place:]


def tiny_tiles(count: int) -> bytes:
    """A TIFF of one column, each pixel of which is stored by itself."""
    data = b"II*\0" + bytes(4) + b"a\0"
    offsets, data = len(data), data + struct.pack(f"<{count}I", *[8] * count)
    counts, data = len(data), data + struct.pack(f"<{count}I", *[1] * count)
    tags = {256: (4, 1, 1), 257: (4, 1, count), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, count, offsets), 277: (3, 1, 1), 278: (4, 1, 1), 279: (4, count, counts)}
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    place = len(data)
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    return data[:4] + struct.pack("<I", place) + data[8:]


def large_png(side: int) -> bytes:
    """A PNG of a few kilobytes and many pixels."""
    target = io.BytesIO()
    Image.new("RGB", (side, side)).save(target, "PNG", compress_level=9)
    return target.getvalue()
