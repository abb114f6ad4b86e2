"""Files that the official code wrote, with what it put into them."""

import numpy as np
import pytest

from delg_jax.features.formats import delf

pytestmark = pytest.mark.real


@pytest.fixture
def files(shared):
    folder = shared / "goldens" / "official_files"
    if not folder.is_dir():
        pytest.skip("there is no folder official_files among the goldens")
    return folder


@pytest.fixture
def expected(files):
    with np.load(files / "expected.npz") as arrays:
        return dict(arrays)


def test_local_features_are_read_to_the_bit(files, expected):
    local = delf.read_local(files / "example.delg_local")
    pairs = {
        "locations_yx": local.locations,
        "scales": local.scales,
        "attention": local.scores,
        "descriptors": local.descriptors,
    }
    for name, found in pairs.items():
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected[name].astype(np.float32))
    assert local.mask.all()


def test_the_global_descriptor_is_read_to_the_bit(files, expected):
    found = delf.read_global(files / "example.delg_global")
    np.testing.assert_array_equal(found, expected["global_descriptor"])


def test_official_files_are_written_back_to_the_byte(files, tmp_path):
    """The orientations of the example are 0, as are all that we write."""
    delf.write_local(tmp_path / "a.delg_local", delf.read_local(files / "example.delg_local"))
    delf.write_global(tmp_path / "a.delg_global", delf.read_global(files / "example.delg_global"))
    for kind in ("local", "global"):
        written = (tmp_path / f"a.delg_{kind}").read_bytes()
        assert written == (files / f"example.delg_{kind}").read_bytes()
