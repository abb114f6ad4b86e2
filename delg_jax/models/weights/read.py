"""Reads files of foreign weights into arrays by name."""

import pathlib
import zipfile

import numpy as np

from delg_jax.errors import UserError


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads an `.npz` file of weights; nothing pickled is ever loaded.

    Args:
      path: the file.

    Returns:
      Arrays by name.

    Raises:
      UserError: if the file is absent, of another kind, or damaged.
    """
    field = "config.model.pretrained"
    if not pathlib.Path(path).is_file():
        raise UserError(field, path, "must be an existing .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(field, path, "must be an .npz archive of named arrays")
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise UserError(
            field, path, f"must be a whole .npz archive of plain arrays ({error})"
        ) from error
