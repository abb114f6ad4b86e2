"""The file that completes what a table of names does not know."""

import pathlib

from delg_jax import text_files
from delg_jax.errors import UserError


def read_mapping(path: str) -> dict[str, str | float]:
    """Reads a JSON object of our variables to a source's, as `{"whiten/kernel": "fc/weights"}`.

    Args:
      path: the file; empty for no mapping.

    Returns:
      The source's name, or the number that fills the variable, by our name.

    Raises:
      UserError: if the file is absent or something else.
    """
    if not path:
        return {}
    subject = "config.model.pretrained_mapping"
    content = text_files.read_json(pathlib.Path(path), subject)
    values = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values):
        rule = "must be a JSON object whose values are names of variables or numbers"
        raise UserError(subject, path, rule)
    return content
