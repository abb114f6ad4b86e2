"""A folder of feature files of the official code, read by image name."""

import pathlib

import numpy as np

from delg_jax import file_names
from delg_jax.features.formats import delf
from delg_jax.features.formats.image_order import AbsentImageError, best_first, spellings
from delg_jax.features.local_features import LocalFeatures

LOCAL_SUFFIX, GLOBAL_SUFFIX = ".delg_local", ".delg_global"


class DelfFolder:
    """Files `NAME.delg_local` and `NAME.delg_global`, whatever image suffix NAME has.

    Args:
      folder: of the files; names with slashes are in subfolders.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def read_local(self, name: str) -> LocalFeatures:
        """LocalFeatures [K] of an image, best first; a UserError if it cannot be read."""
        return best_first(delf.read_local(self._find(name, LOCAL_SUFFIX)))

    def read_global(self, name: str) -> np.ndarray:
        """Global descriptor float32 [D] of an image; a UserError if it cannot be read."""
        return delf.read_global(self._find(name, GLOBAL_SUFFIX))

    def _find(self, name: str, suffix: str) -> pathlib.Path:
        for spelling in spellings(name):
            path = file_names.to_path(self._folder, f"{spelling}{suffix}")
            if path.is_file():
                return path
        raise AbsentImageError("image", name, f"has no {suffix} file in {self._folder}")
