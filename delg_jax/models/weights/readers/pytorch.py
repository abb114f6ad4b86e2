"""PyTorch files: state dicts, alone or inside a training checkpoint."""

import pickle
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from delg_jax.models.weights.readers.refusal import refusal

KIND = "PyTorch file of tensors"

# Keys under which training programs store the state dict
_CONTAINERS = ("model_state", "state_dict", "model_state_dict", "model", "net")
_PARALLEL = "module."  # prefix that DataParallel adds


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file without executing code in it.

    Args:
      path: the file, in PyTorch's zip or legacy format.

    Returns:
      Arrays by name, floats of fewer than 32 bits as float32.

    Raises:
      UserError: if it holds objects other than tensors, or no table of tensors.
      Exception: of any kind, if it is damaged.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols; an error follows if one matters
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refusal(path, _why_unsafe(str(error))) from error
    if not isinstance(content, Mapping):
        raise refusal(path, f"must hold tensors by name, not one {type(content).__name__}")
    tensors = {
        str(name): value
        for name, value in _state_dict(content).items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        places = ", ".join(_CONTAINERS)
        raise refusal(path, f"must hold tensors by name, at the top or in one of {places}")
    prefix = _PARALLEL if all(name.startswith(_PARALLEL) for name in tensors) else ""
    return {name.removeprefix(prefix): _array(tensor) for name, tensor in tensors.items()}


def _why_unsafe(message: str) -> str:
    """Replaces PyTorch's message, which advises to load the file unsafely."""
    found = re.search(r"GLOBAL (\S+)", message)
    what = (
        f"code or other objects ({found[1]})" if found else "code or other objects, or is damaged"
    )
    return f"must hold tensors alone; it holds {what}, and was not executed"


def _state_dict(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The innermost container of tensors."""
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            return _state_dict(content[name])
    return content


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()  # NumPy knows no bfloat16
    return tensor.numpy()
