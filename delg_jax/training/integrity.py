"""Whether a checkpoint is what was saved: Orbax keeps no checksum of its arrays."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models.variables import digest
from delg_jax.training.health import first_nonfinite

_DIGEST = "digest"
_LONGEST_REASON = 200  # characters; Orbax quotes whole trees


def seal(variables: Any) -> dict[str, str]:
    """What is kept beside variables, by which `require_whole` knows them again."""
    return {_DIGEST: digest(variables)}


def require_whole(variables: Any, kept: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Raises a UserError for variables that are not those of their `seal`, or not finite.

    Args:
      variables: that were restored.
      kept: what is beside them; checkpoints of older versions have no digest.
      folder: of the checkpoints.
    """
    if kept.get(_DIGEST) not in (None, digest(variables)):
        raise UserError(
            "config.model.checkpoint",
            str(folder),
            "is damaged: holds other numbers than were saved",
        )
    tensors = traverse_util.flatten_dict(variables, sep="/")
    position = int(first_nonfinite(tensors))
    if position >= 0:
        rule = f"must hold finite numbers; {list(tensors)[position]} has others"
        raise UserError("config.model.checkpoint", str(folder), rule)


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Turns whatever Orbax raises in the block into a UserError that names the folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged checkpoint makes Orbax fail in any way
        text = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        rule = f"does not hold this network, or is damaged: {text}"
        raise UserError("config.model.checkpoint", str(folder), rule) from error
