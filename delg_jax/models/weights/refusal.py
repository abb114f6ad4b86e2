"""Errors and size limits for files of weights."""

import os

from delg_jax.errors import UserError

_MAX_SIZE = 2**34  # bytes
_SUSPECT = 2**30  # bytes above which the compression ratio is limited
_MAX_RATIO = 100  # weights compress to half at best; a decompression bomb to a thousandth


def refusal(path: str, rule: str) -> UserError:
    """The error, to be raised, for a file of weights that breaks a rule."""
    return UserError("config.model.pretrained", path, rule)


def require_size(path: str, name: str, size: int) -> None:
    """Refuses decompression bombs before they are unpacked.

    Args:
      path: of the file.
      name: of the array or member in it.
      size: bytes that the file declares for it.

    Raises:
      UserError: if it is larger than 2^34 bytes, or than 2^30 and 100 times the file.
    """
    if size > _MAX_SIZE:
        raise refusal(path, f"must hold at most {_MAX_SIZE} bytes; {name} has {size}")
    if size > _SUSPECT and size > _MAX_RATIO * os.path.getsize(path):
        rule = f"must not unpack to more than {_MAX_RATIO} times its own size; {name} has {size}"
        raise refusal(path, f"{rule} bytes")
