import io
import zipfile

import h5py
import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def write(path, places, root=""):
    """Writes an array of another value to each place, and returns the value by place."""
    values = {place: np.full(2, index, np.float32) for index, place in enumerate(places)}
    with h5py.File(path, "w") as file:
        for place, value in values.items():
            file[root + place] = value
    return values


def names_of(tmp_path, places, **options):
    """What each place is called by the reader."""
    path = tmp_path / "weights.h5"
    values = write(path, places, **options)
    found = {int(array[0]): name for name, array in read_arrays(str(path)).items()}
    assert len(found) == len(values)
    return [found[index] for index in range(len(places))]


@pytest.mark.parametrize("root", ["", "model_weights/"])
@pytest.mark.parametrize("end", ["", ":0"])
def test_keras2_names_lose_repetition_and_output_number(tmp_path, root, end):
    places = ["conv1/conv1/kernel", "conv1/conv1/bias", "attention/attention/attn_conv1/kernel"]
    places += [f"bn_conv1/bn_conv1/{leaf}" for leaf in NORM]
    names = names_of(tmp_path, [place + end for place in places], root=root)
    assert names[:3] == ["conv1/kernel", "conv1/bias", "attention/attn_conv1/kernel"]
    assert names[3:] == [f"bn_conv1/{leaf}" for leaf in NORM]


def test_names_without_repetition_are_kept(tmp_path):
    places = ["attention/attn_conv1/kernel:0", "a/b/a/kernel:0", "alone:0"]
    assert names_of(tmp_path, places) == ["attention/attn_conv1/kernel", "a/b/a/kernel", "alone"]


@pytest.mark.parametrize("end", ["", "_1", "_1:0", "_12:0", ":0"])
def test_keras1_leaves_get_keras2_names(tmp_path, end):
    old = ("gamma", "beta", "running_mean", "running_std")
    places = [f"conv1/conv1_W{end}", f"conv1/conv1_b{end}"]
    places += [f"bn_conv1/bn_conv1_{leaf}{end}" for leaf in old]
    names = names_of(tmp_path, places)
    assert names == ["conv1/kernel", "conv1/bias", *(f"bn_conv1/{leaf}" for leaf in NORM)]


def test_keras1_endings_after_another_layer_are_kept(tmp_path):
    assert names_of(tmp_path, ["conv1/other_W:0", "fc/W:0"]) == ["conv1/other_W", "fc/W"]


def test_layers_without_weights_and_the_optimiser_are_left_out(tmp_path):
    path = tmp_path / "model.h5"
    write(path, ["model_weights/conv1/conv1/kernel:0", "optimizer_weights/SGD/iter:0"])
    with h5py.File(path, "a") as file:
        file["model_weights"].attrs["layer_names"] = [b"input_1", b"conv1"]
        file["model_weights"].create_group("input_1").attrs["weight_names"] = np.zeros(0)
    assert set(read_arrays(str(path))) == {"conv1/kernel"}


def keras3(file):
    """The layout of `.weights.h5`: layers by class, their names beside numbered variables."""
    layers = {
        "layers/conv2d": ("conv1", 2),
        "layers/batch_normalization": ("bn_conv1", 4),
        "layers/flatten": ("flatten", 0),
        "layers/attention": ("attention", 0),
        "layers/attention/conv2d": ("attn_conv1", 1),
        "layers/normalization": (None, 3),
        "optimizer": ("sgd", 2),
    }
    with h5py.File(file, "w") as opened:
        opened.create_group("vars").attrs["name"] = "model"
        for place, (name, count) in layers.items():
            variables = opened.create_group(f"{place}/vars")
            if name is not None:
                variables.attrs["name"] = name
            for index in range(count):
                variables[str(index)] = np.full(2, index, np.float32)


@pytest.mark.parametrize("packed", [False, True])
def test_keras3_numbers_become_names(tmp_path, packed):
    path = tmp_path / ("model.keras" if packed else "model.weights.h5")
    if packed:
        keras3(content := io.BytesIO())
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", content.getvalue())
    else:
        keras3(path)
    found = {name: int(array[0]) for name, array in read_arrays(str(path)).items()}
    assert found == {
        "conv1/kernel": 0,
        "conv1/bias": 1,
        **{f"bn_conv1/{leaf}": index for index, leaf in enumerate(NORM)},
        "attention/attn_conv1/kernel": 0,
        **{f"normalization/{index}": index for index in range(3)},
    }


def write_twice(path):
    write(path, ["conv1/conv1_W:0", "conv1/conv1_W_1:0"])


def write_names_alone(path):
    with h5py.File(path, "w") as file:
        file.create_group("conv1").attrs["weight_names"] = [b"conv1/kernel:0"]


def write_text(path):
    with h5py.File(path, "w") as file:
        file["notes"] = "text"


def write_bomb(path):
    """A few bytes declare four terabytes."""
    with h5py.File(path, "w") as file:
        file.create_dataset("conv1/kernel", (2**20, 2**20), "float32", chunks=True)


def write_archive_without_weights(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


@pytest.mark.parametrize(
    ("file", "writer", "names"),
    [
        ("weights.h5", write_twice, "conv1/kernel .*twice"),
        ("weights.h5", write_names_alone, "hold weights"),
        ("weights.h5", write_text, "notes .*numbers"),
        ("weights.h5", write_bomb, "at most .* conv1/kernel"),
        ("model.keras", write_archive_without_weights, "HDF5"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, file, writer, names):
    path = tmp_path / file
    writer(path)
    with pytest.raises(UserError, match=f" = '{path}': .*{names}"):
        read_arrays(str(path))
