"""Reads files of foreign weights into arrays by name."""

import pathlib
import zipfile
import zlib

import numpy as np

from delg_jax.errors import UserError

_NUMBERS = "fiub"  # kinds of data type: float, integer, unsigned integer, boolean


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
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UserError(field, path, "must be an .npz archive of named arrays")
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        rule = f"must be a whole .npz archive of plain arrays ({error})"
        raise UserError(field, path, rule) from error
    for name, array in arrays.items():
        if array.dtype.kind not in _NUMBERS:
            raise UserError(field, path, f"must hold numbers; {name} is {array.dtype}")
    return arrays
