"""How a file of weights that cannot be read is refused."""

import os

from delg_jax.errors import UserError

_LARGEST = 2**34  # bytes
_SUSPECT = 2**30  # bytes from which on a file must not unpack to far more than its own
_MOST_TIMES = 100  # weights compress to half at best; a bomb to a thousandth


def refusal(path: str, rule: str) -> UserError:
    """Makes the error, to be raised, that names the field, the file and the rule it breaks."""
    return UserError("config.model.pretrained", path, rule)


def require_size(path: str, name: str, size: int) -> None:
    """Refuses what would fill the memory, before anything of it is unpacked.

    Args:
      path: of the file.
      name: of what is in it.
      size: bytes that it says it has, which a small file can say of any size.

    Raises:
      UserError: if it is larger than 2^34 bytes, or than 2^30 and 100 times the file.
    """
    if size > _LARGEST:
        raise refusal(path, f"must hold at most {_LARGEST} bytes; {name} has {size}")
    if size > _SUSPECT and size > _MOST_TIMES * os.path.getsize(path):
        rule = f"must not unpack to more than {_MOST_TIMES} times its own size; {name} has {size}"
        raise refusal(path, f"{rule} bytes")
