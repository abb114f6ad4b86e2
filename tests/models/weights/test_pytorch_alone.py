"""PyTorch files are read where PyTorch is not installed; `test_pytorch.py` has files of its own."""

import sys

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays
from tests.models.weights import torch_files

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "half": np.array([1.5, -2.0], np.float16),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch):
    for module in ["torch", *(name for name in sys.modules if name.startswith("torch."))]:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nest", [lambda table: table, lambda table: {"epoch": 3, "model": table}])
def test_tensors_come_back(tmp_path, legacy, nest):
    path = tmp_path / "weights.pth"
    torch_files.write(path, nest(ARRAYS), legacy)
    found = read_arrays(str(path))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == (np.float32 if name == "half" else array.dtype)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "named", [("os", "system"), ("builtins", "eval"), ("torch.nn", "Linear"), ("torch", "load")]
)
def test_whatever_else_is_named_is_refused(tmp_path, legacy, named):
    path = tmp_path / "weights.pth"
    torch_files.write(path, {"a": ARRAYS["half"], "b": torch_files.name(*named)}, legacy)
    with pytest.raises(UserError, match=rf"\({'.'.join(named)}\)"):
        read_arrays(str(path))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_is_cut_off_is_refused(tmp_path, legacy):
    path = tmp_path / "weights.pth"
    torch_files.write(path, ARRAYS, legacy)
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="intact PyTorch file"):
            read_arrays(str(path))
