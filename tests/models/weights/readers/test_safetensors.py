import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays


def test_names_shapes_and_types_are_kept(tmp_path):
    arrays = {
        "layer1.0.conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "steps": np.asarray(7, np.int64),
        "empty": np.zeros((0, 3), np.float64),
    }
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "np"})
    found = read_arrays(str(path))
    assert set(found) == set(arrays)
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


def test_places_beyond_the_file_are_refused(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}
    text = json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(UserError, match="must be an intact safetensors file"):
        read_arrays(str(path))
