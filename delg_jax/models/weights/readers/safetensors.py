"""Safetensors files."""

import numpy as np

KIND = "safetensors file"


def read(path: str) -> dict[str, np.ndarray]:
    """Reads a safetensors file.

    Args:
      path: the file.

    Returns:
      Arrays by name.

    Raises:
      Exception: of any kind, if it is damaged.
    """
    from safetensors.numpy import load_file

    return load_file(path)
