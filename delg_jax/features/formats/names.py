"""Names of images in files of other systems, which may carry a suffix that ours lack."""

import posixpath

from delg_jax.data.formats import SUFFIXES
from delg_jax.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")


class AbsentImageError(UserError):
    """A file of features lacks an image; `rule` is the reason, fit for `skipped.csv`."""


def spellings(name: str) -> list[str]:
    """How an image may be called elsewhere: as it is, with an image suffix, without its own."""
    stem, suffix = posixpath.splitext(name)
    return [
        name,
        *(name + more for more in _SUFFIXES),
        *([stem] if suffix.lower() in SUFFIXES else []),
    ]
