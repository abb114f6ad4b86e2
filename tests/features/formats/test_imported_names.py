"""Imports by names and places of files that could be mistaken."""

import pathlib

import pytest

from delg_jax.errors import UserError
from delg_jax.features import extract
from tests.features.formats.test_imported import PLACES, changed, write_hdf5
from tests.photographs import make_revisited
from tests.tiny import retrieval_config

pytest.importorskip("h5py", reason="HDF5 files need h5py")


@pytest.fixture
def config(tmp_path):
    root = make_revisited(tmp_path / "photographs", PLACES)
    features = write_hdf5(tmp_path / "features.h5")
    return changed(retrieval_config(root), imported_local=features, imported_global=features)


def test_queries_of_one_name_with_two_boxes_are_refused(config, tmp_path):
    root = tmp_path / "photographs"
    text = (root / "gnd_drawn.json").read_text().replace('"query1"', '"query0"')
    (root / "gnd_drawn.json").write_text(text)
    assert extract(config, tmp_path / "same").queries.names == ["query0", "query0", "query2"]
    (root / "gnd_drawn.json").write_text(text.replace("[0, 0, 112, 96]", "[0, 0, 60, 60]", 1))
    rule = r"image = 'query0': is a query with the boxes \[0, 0, 60, 60\] and \[0, 0, 112, 96\]"
    with pytest.raises(UserError, match=rule):
        extract(config, tmp_path / "run")


def test_where_files_lie_decides_nothing(config, tmp_path):
    before = extract(config, tmp_path / "run").database.digest()
    path = pathlib.Path(config.extract.imported_local)
    path.rename(tmp_path / f"moved{path.suffix}")
    moved = changed(
        config,
        imported_local=tmp_path / f"moved{path.suffix}",
        imported_global=tmp_path / f"moved{path.suffix}",
    )
    assert extract(moved, tmp_path / "run").database.digest() == before
