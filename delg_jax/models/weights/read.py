"""Reads files of published weights into arrays by name."""

import os
import pathlib
from types import ModuleType

import jax
import numpy as np

from delg_jax import system_errors, text_files
from delg_jax.errors import UserError
from delg_jax.models.weights import blocks
from delg_jax.models.weights.readers import keras_h5, npz, pytorch, safetensors, tensorflow
from delg_jax.models.weights.readers.refusal import refusal

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
_LONGEST_REASON = 200  # characters of a library's message


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads weights of any supported format without executing anything in the file.

    Args:
      path: a file, the prefix of a TensorFlow checkpoint, or a folder.

    Returns:
      Arrays by name, with one name for each layer (`blocks.regular`); floats of fewer than 32 bits
      become float32.

    Raises:
      UserError: if it is missing, of another format, damaged, or needs a package that is missing.
    """
    reader = _reader_of(path)
    try:
        arrays = reader.read(path)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        rule = f"needs the package {error.name}: pip install 'delg_jax[convert]'"
        raise refusal(path, rule) from error
    except Exception as error:  # on a damaged file, the libraries can raise anything
        system_errors.reraise(error)
        raise refusal(path, f"must be an intact {reader.KIND} ({_line(error)})") from error
    if not arrays:
        raise refusal(path, f"must hold weights; this {reader.KIND} holds none")
    numbers = {name: _numbers(array, name, path) for name, array in arrays.items()}
    return blocks.regular(numbers)


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
    """The first line of an error message, shortened."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__


def _numbers(array: np.ndarray, name: str, path: str) -> np.ndarray:
    if jax.dtypes.issubdtype(array.dtype, np.floating) and array.dtype.itemsize < 4:
        return array.astype(np.float32)
    if array.dtype.kind not in _NUMBERS:
        raise refusal(path, f"must hold numbers; {name} is {array.dtype}")
    return array


def read_mapping(path: str) -> dict[str, str | float]:
    """Reads a JSON object from our names to a source's, such as `{"whiten/kernel": "fc/weights"}`.

    Args:
      path: the file; empty for no mapping.

    Returns:
      The source's name, or the number that fills the variable, by our name.

    Raises:
      UserError: if the file is missing or invalid.
    """
    if not path:
        return {}
    subject = "config.model.pretrained_mapping"
    content = text_files.read_json(pathlib.Path(path), subject)
    values = list(content.values()) if isinstance(content, dict) else [None]
    if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values):
        rule = "must be a JSON object from names to names or numbers"
        raise UserError(subject, path, rule)
    return content
