import os

import numpy as np
import pytest

from delg_jax import hdf5_files
from delg_jax.errors import UserError
from delg_jax.features.formats import hloc
from delg_jax.models.weights.read import read_arrays

h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")

_PLACE = "a/global_descriptor"


def read_features(path):
    with hloc.reading(path) as reader:
        return reader.read_global("a")


def read_weights(path):
    return read_arrays(str(path))


@pytest.fixture
def secret(tmp_path):
    """A file that nobody wants to be read."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file[_PLACE] = np.ones(4, np.float32)
        file["numbers"] = np.ones(4, np.float32)
    return path


def _external(file, secret):
    file.create_dataset(_PLACE, (16,), "float32", external=[(str(secret), 0, 64)])


def _external_link(file, secret):
    file[_PLACE] = h5py.ExternalLink(str(secret), "numbers")


def _external_group(file, secret):
    file["a"] = h5py.ExternalLink(str(secret), "a")


def _pipe_link(file, secret):
    os.mkfifo(secret.with_name("pipe"))
    file[_PLACE] = h5py.ExternalLink(str(secret.with_name("pipe")), "numbers")


def _soft_link(file, secret):
    file["far"] = h5py.ExternalLink(str(secret), "numbers")
    file[_PLACE] = h5py.SoftLink("/far")


def _virtual(file, secret):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(str(secret), "numbers", (4,))
    file.create_virtual_dataset(_PLACE, layout)


def _declared(file, _):
    file.create_dataset(_PLACE, (2**29,), "float32", chunks=True, compression="gzip")


def _declared_whole(file, _):
    file.create_dataset(_PLACE, (2**29,), "float32")


def _complex(file, _):
    file[_PLACE] = np.ones(4, np.complex64)


def _words(file, _):
    file[_PLACE] = "words"


def _records(file, _):
    file[_PLACE] = np.zeros(4, [("x", "f4"), ("y", "f4")])


@pytest.mark.parametrize(
    "write",
    [
        _external,
        _external_link,
        _external_group,
        _pipe_link,
        _soft_link,
        _virtual,
        _declared,
        _declared_whole,
        _complex,
        _words,
        _records,
    ],
)
@pytest.mark.parametrize("read", [read_features, read_weights])
def test_only_numbers_of_the_file_itself_are_read(tmp_path, secret, write, read):
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        write(file, secret)
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_features, read_weights])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint32", "bool"])
def test_real_numbers_of_any_type_are_read(tmp_path, read, dtype):
    values = np.array([1, 0, 1, 1]).astype(dtype)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file[_PLACE] = values
    found = read(tmp_path / "file.h5")
    found = found if read is read_features else found["a/global_descriptor"]
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("read", [read_features, read_weights])
def test_a_pipe_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(UserError, match=r"pipe\.h5"):
        read(tmp_path / "pipe.h5")


def test_what_compresses_well_is_read(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("zeros", data=np.zeros((1000, 1000)), compression="gzip")
    with hdf5_files.reading(tmp_path / "file.h5") as file:
        zeros = hdf5_files.member(file, "zeros")
        assert zeros.id.get_storage_size() < zeros.nbytes / 500
        assert hdf5_files.read(zeros, "zeros").shape == (1000, 1000)
        assert hdf5_files.member(file, "zeros/more") is None
        assert hdf5_files.member(file, "absent") is None


def test_texts_are_read_and_rows_alone(tmp_path):
    names = ["a.jpg", "caf\xe9/\u6771.jpg", ""] * 40
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("long", data=names, dtype=h5py.string_dtype())
        file.create_dataset("fixed", data=np.array([b"ab", b"c"]))
        file["numbers"] = np.arange(12.0).reshape(6, 2)
        file["records"] = np.zeros(3, [("x", "f4", 2), ("bits", "u1")])
    with hdf5_files.reading(tmp_path / "file.h5") as file:
        assert hdf5_files.read_texts(file["long"], "long") == names
        assert hdf5_files.read_texts(file["fixed"], "fixed") == ["ab", "c"]
        rows = hdf5_files.read(file["numbers"], "numbers", slice(4, 9))
        assert rows.tolist() == [[8, 9], [10, 11]]
        assert len(hdf5_files.read(file["records"], "records", slice(2), fields=True)) == 2
        with pytest.raises(ValueError, match="numbers"):
            hdf5_files.read_texts(file["numbers"], "numbers")


def _declared_texts(file, secret):
    file.create_dataset("index", (2**29,), "S8", chunks=True, compression="gzip")


def _declared_long_texts(file, secret):
    file.create_dataset("index", (2**33,), h5py.string_dtype(), chunks=True, compression="gzip")


def _external_texts(file, secret):
    file.create_dataset("index", (2,), "S4", external=[(str(secret), 0, 8)])


@pytest.mark.parametrize("write", [_declared_texts, _declared_long_texts, _external_texts])
def test_texts_of_other_files_or_of_no_file_are_refused(tmp_path, secret, write):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        write(file, secret)
    with hdf5_files.reading(tmp_path / "file.h5") as file, pytest.raises(ValueError, match="index"):
        hdf5_files.read_texts(file["index"], "index")
