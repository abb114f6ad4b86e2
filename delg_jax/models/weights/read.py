"""Reads files of published weights into arrays by name."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from delg_jax import system_errors, text_files
from delg_jax.errors import UserError
from delg_jax.models.weights import keras_h5, pytorch, tensorflow
from delg_jax.models.weights.refusal import refusal, require_size


class Format(NamedTuple):
    """A format of weight files.

    Attributes:
      kind: its name, for errors.
      read: returns the arrays of a file by name; raises anything if the file is damaged.
    """

    kind: str
    read: Callable[[str], dict[str, np.ndarray]]


def _read_npz(path: str) -> dict[str, np.ndarray]:
    """Reads an `.npz` archive; nothing pickled is ever loaded."""
    with open(path, "rb") as file:
        archive: Any = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise refusal(path, "must be an .npz archive of named arrays")
        members = archive.zip.infolist() if archive.zip else []
        sizes = [member.file_size for member in members]
        require_size(path, "the whole", sum(sizes))
        return {name: np.asarray(archive[name]) for name in archive.files}


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


_NPZ = Format(".npz archive of plain arrays", _read_npz)
_SAFETENSORS = Format("safetensors file", _read_safetensors)
_PYTORCH = Format("PyTorch file of tensors", pytorch.read)
_KERAS = Format("HDF5 file of Keras weights", keras_h5.read)
_TENSORFLOW = Format("TensorFlow checkpoint", tensorflow.read)
_FORMATS = {
    ".npz": _NPZ,
    ".safetensors": _SAFETENSORS,
    **dict.fromkeys((".pth", ".pt", ".pyth", ".bin", ".tar"), _PYTORCH),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
    **dict.fromkeys((".ckpt", ".index"), _TENSORFLOW),
}
_READABLE = (
    f"a file ending in {', '.join(_FORMATS)}, the prefix of a TensorFlow checkpoint, "
    "or the folder of one or of a SavedModel"
)
_NUMBERS = "fiub"  # kinds of data type: float, integer, unsigned integer, boolean
_LONGEST_REASON = 200  # characters of a library's message
# Where a file of a Vision Transformer holds several layers in one array
_IMAGE_TOWERS = ("params/img/", "img/")  # of big_vision's models of images and texts
_STACKED = "/encoderblock/"  # of big_vision, blocks along the first axis
_FUSED = ".attn.qkv."  # of DINOv2, query, key and value along the first axis
_POSITIONS = "vision_model.embeddings.position_embedding.weight"  # of Transformers, [N, D]


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads weights of any supported format without executing anything in the file.

    Args:
      path: a file, the prefix of a TensorFlow checkpoint, or a folder.

    Returns:
      Arrays by name, with one name for each layer (`split_layers`); floats of fewer than 32 bits
      become float32.

    Raises:
      UserError: if it is missing, of another format, damaged, or needs a package that is missing.
    """
    form = _format_of(path)
    try:
        arrays = form.read(path)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        rule = f"needs the package {error.name}: pip install 'delg_jax[convert]'"
        raise refusal(path, rule) from error
    except Exception as error:  # on a damaged file, the libraries can raise anything
        system_errors.reraise(error)
        raise refusal(path, f"must be an intact {form.kind} ({_line(error)})") from error
    if not arrays:
        raise refusal(path, f"must hold weights; this {form.kind} holds none")
    numbers = {name: _numbers(array, name, path) for name, array in arrays.items()}
    return split_layers(numbers)


def _format_of(path: str) -> Format:
    if os.path.isdir(path) or os.path.isfile(f"{path}.index"):
        return _TENSORFLOW
    if not os.path.isfile(path):
        raise refusal(path, f"does not exist; must be {_READABLE}")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _FORMATS:
        raise refusal(path, f"must be {_READABLE}")
    return _FORMATS[suffix]


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


def split_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits arrays that hold several layers, and leaves out big_vision's other towers.

    Args:
      arrays: as a file holds them, by name.

    Returns:
      Arrays by name, views where they were split; the same arrays for other networks.
    """
    for root in _IMAGE_TOWERS:
        if f"{root}embedding/kernel" in arrays:
            arrays = {n.removeprefix(root): a for n, a in arrays.items() if n.startswith(root)}
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if _STACKED in name and array.ndim:
            before, after = name.split(_STACKED, 1)
            found |= {f"{before}/encoderblock_{n}/{after}": one for n, one in enumerate(array)}
        elif _FUSED in name and array.ndim and len(array) % 3 == 0:
            parts = np.split(array, 3)
            found |= {
                name.replace(_FUSED, f".attn.{part}."): one
                for part, one in zip(("query", "key", "value"), parts, strict=True)
            }
        else:
            found[name] = array[None] if name == _POSITIONS and array.ndim == 2 else array
    return found


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
