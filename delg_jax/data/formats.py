"""Which formats of images are decoded, and by which endings their files are found."""

import importlib.util

from PIL import features

# Pictures of cameras and of the web. Pillow knows more, but some it recognises in random bytes,
# and for PostScript it starts another program.
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "HEIF": (".heic", ".heif", ".hif"),
}
_LIBRARIES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # of Pillow, by its names
_HEIF_PACKAGE = "pillow_heif"


def _is_decodable(form: str) -> bool:
    if form == "HEIF":
        return importlib.util.find_spec(_HEIF_PACKAGE) is not None
    return form not in _LIBRARIES or bool(features.check(_LIBRARIES[form]))


def _remedy(form: str) -> str:
    if form == "HEIF":
        return "the package pillow-heif decodes them"
    return f"this Pillow was built without {_LIBRARIES[form]}"


FORMATS = tuple(form for form in ENDINGS if _is_decodable(form))
# In any letter case; what a file holds, not its ending, decides how it is decoded
SUFFIXES = tuple(ending for form in FORMATS for ending in ENDINGS[form])
# Ending: what is needed to decode such files here
UNDECODABLE = {
    ending: _remedy(form)
    for form, endings in ENDINGS.items()
    if form not in FORMATS
    for ending in endings
}

if "HEIF" in FORMATS:
    importlib.import_module(_HEIF_PACKAGE).register_heif_opener()
