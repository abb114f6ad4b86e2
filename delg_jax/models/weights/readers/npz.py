"""NumPy archives."""

import numpy as np

from delg_jax.models.weights.readers.refusal import refusal, require_size

KIND = ".npz archive of plain arrays"


def read(path: str) -> dict[str, np.ndarray]:
    """Reads an `.npz` archive; nothing pickled is ever loaded.

    Args:
      path: the file.

    Returns:
      Arrays by name.

    Raises:
      UserError: if it is a single array, or would fill the memory.
      Exception: of any kind, if it is damaged.
    """
    with open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise refusal(path, "must be an .npz archive of named arrays")
        members = archive.zip.infolist() if archive.zip else []
        sizes = [member.file_size for member in members]
        require_size(path, "the whole", sum(sizes))
        return {name: np.asarray(archive[name]) for name in archive.files}
