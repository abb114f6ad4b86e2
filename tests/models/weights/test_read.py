"""Reading weights of all formats, errors of one line, and mappings of names."""

import json
import pathlib
import struct
import sys
import warnings
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import vit, weights
from delg_jax.models.vit import Architecture
from delg_jax.models.weights import read_arrays, read_mapping
from delg_jax.models.weights.names import NAMINGS
from delg_jax.models.weights.read import split_layers
from delg_jax.training.named_weights import find_weights
from tests.models.weights.foreign import converted, foreign, model_of
from tests.tiny import change_architecture

ARRAYS = {"conv1.weight": np.arange(600, dtype=np.float32).reshape(20, 30), "steps": np.ones(5)}


def refused(path, rule):
    with pytest.raises(UserError, match=rule) as error:
        read_arrays(str(path))
    assert error.value.subject == "config.model.pretrained"
    assert error.value.value == str(path)
    assert "\n" not in str(error.value)


def write_npz(path, arrays):
    with path.open("wb") as file:  # given a path, NumPy would append its suffix
        np.savez(file, **arrays)


def write_compressed(path, arrays):
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_safetensors(path, arrays):
    safetensors.numpy.save_file(arrays, path)


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def write_torch(path, arrays, **options):
    torch = pytest.importorskip("torch", reason="writes the file")
    table = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save({"epoch": 3, "state_dict": table}, path, **options)


def write_old_torch(path, arrays):
    write_torch(path, arrays, _use_new_zipfile_serialization=False)


def write_checkpoint(path, arrays):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf = pytest.importorskip("tensorflow", reason="writes the file")
    prefix = str(path.with_suffix(""))
    values = list(arrays.values())
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(values),
        tensors=values,
    )


WRITERS = [
    (".npz", write_npz),
    (".NPZ", write_compressed),
    (".safetensors", write_safetensors),
    (".h5", write_hdf5),
    (".hdf5", write_hdf5),
    (".keras", write_hdf5),
    (".pth", write_torch),
    (".pt", write_torch),
    (".pyth", write_torch),
    (".bin", write_old_torch),
    (".tar", write_old_torch),
    (".index", write_checkpoint),
]
SUFFIXES = [".npz", ".safetensors", ".h5", ".keras", ".pth", ".tar", ".index", ".ckpt"]


def need_reader_of(suffix):
    """Skips where the package that reads these files is absent."""
    if suffix in (".index", ".ckpt"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("tensorflow", reason="reads the file")


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_arrays_of_every_kind_come_back(tmp_path, suffix, write):
    path = tmp_path / f"weights{suffix}"
    write(path, ARRAYS)
    found = read_arrays(str(path))
    assert set(found) == set(ARRAYS)
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_truncated_files_are_refused(tmp_path, suffix, write, share):
    path = tmp_path / f"weights{suffix}"
    write(path, ARRAYS)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "intact|tensors alone")


@pytest.mark.parametrize(
    "content", [b"", b"conv1 1 2\n", b"<html>" * 99, b"PK\x03\x04", b"\x80\x04."]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_content_is_refused(tmp_path, suffix, content):
    need_reader_of(suffix)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(path, "intact|tensors alone")


@pytest.mark.parametrize(("suffix", "write"), WRITERS[:-1])  # TensorFlow writes none such
def test_no_arrays_at_all_are_refused(tmp_path, suffix, write):
    path = tmp_path / f"weights{suffix}"
    write(path, {})
    refused(path, "hold weights|hold tensors by name")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_floats_become_float32(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    array = np.array([1.5, -2.0, 0.25], dtype)
    write_safetensors(path, {"a": array, "count": np.array([7], np.int16)})
    found = read_arrays(str(path))
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], [1.5, -2.0, 0.25])
    assert found["count"].dtype == np.int16


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.zeros(2, "V2")])
def test_arrays_other_than_numbers_are_refused(tmp_path, array):
    path = tmp_path / "weights.npz"
    np.savez(path, good=np.ones(3), bad=array)
    refused(path, "numbers; bad ")


@pytest.mark.parametrize("name", ["absent.npz", "model.ckpt-7", "absent/", ""])
def test_a_missing_file_is_refused(tmp_path, name):
    path = str(tmp_path / name) + "/" * name.endswith("/") if name else ""
    refused(path, r"not exist.* \.npz, .*\.pth.*\.h5.* SavedModel")


@pytest.mark.parametrize("name", ["weights.onnx", "weights", "model.data-00000-of-00001"])
def test_another_suffix_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    refused(tmp_path / name, r": must .* \.npz, .*\.pth.*\.h5.* SavedModel")


@pytest.mark.parametrize(
    ("suffix", "package"),
    [
        (".safetensors", "safetensors"),
        (".h5", "h5py"),
        (".index", "tensorflow"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, suffix, package):
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"1")
    with pytest.raises(UserError) as error:
        read_arrays(str(path))
    assert f" {package}" in error.value.rule
    assert error.value.rule.endswith("pip install 'delg_jax[convert]'")


def test_a_message_of_many_lines_becomes_one_short_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("\nfirst " + "x" * 1000 + "\nsecond")

    monkeypatch.setattr(np, "load", fail)
    (tmp_path / "weights.npz").write_bytes(b"1")
    with pytest.raises(UserError, match=r"\(first x+\)$") as error:
        read_arrays(str(tmp_path / "weights.npz"))
    assert len(error.value.rule) < 300


@pytest.mark.parametrize("content", [[], ["saved_model.pb"], ["variables/other"]])
def test_a_folder_without_variables_is_refused(tmp_path, content):
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    refused(tmp_path, r"variables/variables\.index .*`checkpoint`")


def test_a_mapping_of_names_and_numbers_is_read(tmp_path):
    content = {"whiten/kernel": "fc/weights", "attend/conv1/bias": 0.5}
    (tmp_path / "map.json").write_text(json.dumps(content))
    assert read_mapping(str(tmp_path / "map.json")) == content
    assert read_mapping("") == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "No such file"),
        *(
            (text, "JSON")
            for text in ("", "{", "[1]", '{"a": null}', '{"a": true}', '{"a": ["b"]}')
        ),
    ],
)
def test_an_invalid_or_absent_mapping_is_an_error_of_one_line(tmp_path, text, word):
    if text is not None:
        (tmp_path / "map.json").write_text(text)
    with pytest.raises(UserError, match=f"pretrained_mapping = .*{word}") as error:
        read_mapping(str(tmp_path / "map.json"))
    assert "\n" not in str(error.value)


def test_a_mapping_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "mapping.json"
    path.write_bytes('\ufeff{"a/kernel": "b"}\r\n\r\n'.encode())
    assert read_mapping(str(path)) == {"a/kernel": "b"}


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"resnet/stem/kernel": "conv1.weight"}, "'resnet/stem/kernel': "),
        ({"resnet/stem_conv/kernel": "conv0.weight"}, r"'conv0\.weight': "),
    ],
)
def test_both_sides_of_a_mapping_must_exist(rng, mapping, named):
    model = model_of("tiny")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    with pytest.raises(UserError, match=rf"pretrained_mapping = {named}"):
        converted("torchvision", theirs, model, mapping)


def test_a_mapping_finds_a_renamed_array(rng):
    model = model_of("tiny")
    ours, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    theirs["stem"] = theirs.pop("conv1.weight")
    variables = converted("torchvision", theirs, model, {"resnet/stem_conv/kernel": "stem"})
    np.testing.assert_array_equal(
        variables["params"]["resnet"]["stem_conv"]["kernel"],
        ours["params", "resnet", "stem_conv", "kernel"],
    )


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (pathlib.Path.touch, (self.trace,))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_refused(tmp_path, rng, save):
    path = tmp_path / "weights.npz"
    save(path, a=rng.random(1000))
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(255 - byte for byte in content[1000:1100])
    path.write_bytes(content)
    refused(path, r"intact \.npz")


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    refused(path, r"\.npz archive")


def test_nothing_pickled_is_executed(tmp_path):
    path, trace = tmp_path / "weights.npz", tmp_path / "trace"
    np.savez(path, a=np.ones(3), b=np.array([Bomb(trace)], dtype=object))
    refused(path, r"intact \.npz")
    assert not trace.exists()
    np.load(path, allow_pickle=True)["b"]
    assert trace.exists()  # the bomb would have gone off


def test_a_zip_of_other_files_is_refused(tmp_path):
    """PyTorch's own checkpoints are such archives."""
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    refused(path, r"archive/data\.pkl")


def test_a_declared_huge_size_is_refused(tmp_path):
    """The size stands in the directory at the end of the file; nothing need be behind it."""
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(3))
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    huge = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content[: entry + 24] + huge + content[entry + 28 :])
    refused(path, "unpack")


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
    refused(path, "intact safetensors")


BARE = {"local_head": False, "whitening": False, "num_classes": 0}


def small(monkeypatch, convention, name):
    """Sizes of a published architecture, of few channels under its name."""
    spec = Architecture(convention, 16, 3, 8, 12, 2, 16)
    change_architecture(monkeypatch, vit.ARCHITECTURES, name, spec)
    return model_of(name, convention, conv4_stride=16, **BARE)


def test_arrays_of_other_networks_stay_the_same(rng):
    arrays = {"conv1.weight": rng.normal(size=(3, 2)), "stem/kernel": rng.normal(size=4)}
    found = split_layers(arrays)
    assert list(found) == list(arrays)
    assert all(found[name] is array for name, array in arrays.items())


@pytest.mark.parametrize("stacked", [False, True])
def test_an_archive_of_big_vision(rng, tmp_path, monkeypatch, stacked):
    """Two towers, heads of the attention as axes, a head, and perhaps stacked blocks."""
    model = small(monkeypatch, "siglip", "siglip2_b16_224")
    ours, theirs = foreign(NAMINGS["siglip"][0], model, rng)
    for name, array in theirs.items():
        if "MultiHead" in name:
            shape = (2, 4, 8) if "out/kernel" in name else (*array.shape[:-1], 2, 4)
            theirs[name] = array if "out/bias" in name else array.reshape(shape)
    if stacked:
        layers = [{n: a for n, a in theirs.items() if f"block_{i}/" in n} for i in range(12)]
        for parts in zip(*(sorted(layer) for layer in layers), strict=True):
            name = parts[0].replace("block_0/", "block/")
            theirs[name] = np.stack([theirs.pop(part) for part in parts])
    theirs["MAPHead_0/probe"] = np.zeros((1, 1, 8), np.float32)
    towers = {f"params/img/{name}": array for name, array in theirs.items()}
    towers |= {"params/txt/Embed_0/embedding": np.zeros((5, 8)), "params/t": np.zeros(1)}
    path = tmp_path / "siglip2.npz"
    np.savez(path, **towers)
    found = find_weights(str(path))
    assert found.fields["backbone"] == "siglip2_b16_224"
    assert found.fields["convention"] == "siglip"
    assert found.fields["conv4_stride"] == 16
    variables = converted(found.source, weights.read_arrays(str(path)), model)
    variables = traverse_util.flatten_dict(variables)
    assert set(variables) == set(ours)
    for key, values in variables.items():
        np.testing.assert_array_equal(values, ours[key], err_msg=str(key))


def test_query_key_and_value_in_one_array(rng, monkeypatch):
    model = small(monkeypatch, "dinov2", "dinov2_s14")
    ours, theirs = foreign(NAMINGS["dinov2"][1], model, rng)
    for block in range(12):
        for leaf in ("weight", "bias"):
            names = [f"blocks.{block}.attn.{part}.{leaf}" for part in ("query", "key", "value")]
            fused = np.concatenate([theirs.pop(name) for name in names])
            theirs[f"blocks.{block}.attn.qkv.{leaf}"] = fused
    theirs["mask_token"] = np.zeros((1, 8), np.float32)
    variables = converted("dinov2", split_layers(theirs), model)
    for key, values in traverse_util.flatten_dict(variables).items():
        np.testing.assert_array_equal(values, ours[key], err_msg=str(key))


def test_architectures_of_equal_names_are_told_apart_by_shapes(rng, monkeypatch):
    """The base model has the names of the small one, and so has that of another grid."""
    _, theirs = foreign(NAMINGS["dinov2"][0], small(monkeypatch, "dinov2", "dinov2_b14"), rng)
    assert weights.identify(theirs) == weights.Identity("dinov2", "dinov2_b14", "dinov2")
    theirs["embeddings.position_embeddings"] = np.zeros((1, 5, 8), np.float32)
    assert weights.identify(theirs) is None
    with pytest.raises(UserError, match="position_embeddings"):
        converted("dinov2", theirs, small(monkeypatch, "dinov2", "dinov2_b14"))
