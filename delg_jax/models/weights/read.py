"""Reads files of foreign weights into arrays by name."""

import os
import pathlib
from types import ModuleType

import jax
import numpy as np

from delg_jax import text_files
from delg_jax.errors import UserError
from delg_jax.models.weights.readers import keras_h5, npz, pytorch, safetensors, tensorflow
from delg_jax.models.weights.readers.refusal import refusal


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


_READERS = {
    ".npz": npz,
    ".safetensors": safetensors,
    ".pth": pytorch,
    ".pt": pytorch,
    ".pyth": pytorch,
    ".bin": pytorch,
    ".tar": pytorch,
    ".h5": keras_h5,
    ".hdf5": keras_h5,
    ".keras": keras_h5,
    ".ckpt": tensorflow,
    ".index": tensorflow,
}
_READABLE = (
    f"a file ending in {', '.join(_READERS)}, the prefix of a TensorFlow checkpoint, "
    "or the folder of one or of a SavedModel"
)
_NUMBERS = "fiub"  # kinds of data type: float, integer, unsigned integer, boolean
_MOST_SHOWN = 200  # characters of a library's message


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads weights of any known format; nothing in a file is ever executed.

    Args:
      path: a file, the prefix of a TensorFlow checkpoint, or a folder.

    Returns:
      Arrays by name; floats of fewer than 32 bits become float32.

    Raises:
      UserError: if it is absent, of another kind, damaged, or needs a package that is absent.
    """
    reader = _reader_of(path)
    try:
        arrays = reader.read(path)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        rule = f"needs the package {error.name}: pip install 'delg_jax[convert]'"
        raise refusal(path, rule) from error
    except Exception as error:  # a damaged file makes the libraries fail in any way
        raise refusal(path, f"must be a whole {reader.KIND} ({_line(error)})") from error
    if not arrays:
        raise refusal(path, f"must hold weights; this {reader.KIND} holds none")
    return {name: _numbers(array, name, path) for name, array in arrays.items()}


def _reader_of(path: str) -> ModuleType:
    if os.path.isdir(path) or os.path.isfile(f"{path}.index"):
        return tensorflow
    if not os.path.isfile(path):
        raise refusal(path, f"does not exist; must be {_READABLE}")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _READERS:
        raise refusal(path, f"must be {_READABLE}")
    return _READERS[suffix]


def _line(error: Exception) -> str:
    """What a library said, as part of one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:_MOST_SHOWN] if lines else type(error).__name__


def _numbers(array: np.ndarray, name: str, path: str) -> np.ndarray:
    if jax.dtypes.issubdtype(array.dtype, np.floating) and array.dtype.itemsize < 4:
        return array.astype(np.float32)
    if array.dtype.kind not in _NUMBERS:
        raise refusal(path, f"must hold numbers; {name} is {array.dtype}")
    return array
