import collections
import os
import pickle
import zipfile

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays

torch = pytest.importorskip("torch", reason="writes and reads the files")

WEIGHT = torch.arange(6.0).reshape(2, 3)
TABLE = collections.OrderedDict(
    {"conv1.weight": WEIGHT, "bn1.num_batches_tracked": torch.tensor(7)}
)
OLD = {"_use_new_zipfile_serialization": False}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (os.mkdir, (self.trace,))


def read_back(tmp_path, content, **options):
    path = tmp_path / "weights.pth"
    torch.save(content, path, **options)
    return read_arrays(str(path))


def refused(path, rule):
    with pytest.raises(UserError, match=rule) as error:
        read_arrays(str(path))
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)  # no advice to read it with less care


@pytest.mark.parametrize("options", [{}, OLD])
@pytest.mark.parametrize(
    "nest",
    [
        lambda table: table,
        lambda table: {"epoch": 90, "model_state": table, "optimizer_state": {"state": {}}},
        lambda table: {"state_dict": table, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        lambda table: {"model_state_dict": table, "loss": torch.tensor(1.0)},
        lambda table: {"model": table, "cfg": "text"},
        lambda table: {"net": {"state_dict": table, "best": 0.5}},
    ],
)
def test_state_dicts_are_found_inside_training_checkpoints(tmp_path, nest, options):
    found = read_back(tmp_path, nest(TABLE), **options)
    assert set(found) == set(TABLE)
    assert found["conv1.weight"].dtype == np.float32
    np.testing.assert_array_equal(found["conv1.weight"], [[0, 1, 2], [3, 4, 5]])
    assert found["bn1.num_batches_tracked"] == 7


def test_a_real_module_with_gradients_is_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    table = {"0.weight": module[0].weight, "1.running_var": module[1].running_var}
    found = read_back(tmp_path, table)
    assert found["0.weight"].shape == (3, 2, 1, 1)
    np.testing.assert_array_equal(found["1.running_var"], np.ones(3))


@pytest.mark.parametrize("names", [("module.a", "module.b"), ("module.a", "b"), ("a", "b")])
def test_the_dataparallel_prefix_is_removed_if_all_names_have_it(tmp_path, names):
    found = read_back(tmp_path, {name: WEIGHT for name in names})
    assert set(found) == ({"a", "b"} if names[1] == "module.b" else set(names))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_short_floats_become_float32(tmp_path, dtype):
    found = read_back(tmp_path, {"a": torch.tensor([1.5, -2.0]).to(dtype)})
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], [1.5, -2.0])


def test_views_are_read_as_their_values(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    found = read_back(tmp_path, {"turned": whole.T, "part": whole[1:, ::2]})
    np.testing.assert_array_equal(found["turned"], whole.numpy().T)
    np.testing.assert_array_equal(found["part"], [[4, 6], [8, 10]])


@pytest.mark.parametrize("options", [{}, OLD])
@pytest.mark.parametrize("inside", [lambda bomb: bomb, lambda bomb: {"a": WEIGHT, "b": bomb}])
def test_code_is_named_and_not_executed(tmp_path, inside, options):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save(inside(Bomb(trace)), path, **options)
    refused(path, r"\(posix\.mkdir\)")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the bomb would have gone off


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_is_not_executed(tmp_path, protocol):
    path, trace = tmp_path / "weights.bin", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
    refused(path, "other objects")
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, r"\(torch\.nn\.modules\.linear\.Linear\)")


@pytest.mark.parametrize("content", [WEIGHT, [WEIGHT], 3])
def test_tensors_without_names_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "not one (Tensor|list|int)")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}, "a": WEIGHT}])
def test_tables_without_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "model_state, state_dict")


def test_another_zip_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "text")
    refused(path, "intact PyTorch file")
