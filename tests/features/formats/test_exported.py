import json

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate
from delg_jax.features import extract
from delg_jax.features.extractor import Extractor
from delg_jax.features.formats import delf, exported
from delg_jax.features.formats.exported import export_features
from delg_jax.training import trained_network
from tests.photographs import make_revisited, truncate
from tests.tiny import random_variables, retrieval_config

h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")

OUTPUT = {"hloc": "features.h5", "delf": "features", "ames": "ames"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration and a workdir with extracted features, of a network drawn by NumPy."""
    root = tmp_path_factory.mktemp("export")
    config = retrieval_config(make_revisited(root / "data"))
    config = changed(config, local_scales=(1.0,), global_scales=(1.0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: random_variables(module),
        )
        extract(config, root / "run")
        yield config, root / "run"


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.extract.update(fields)
    return config.lock()


def reading(config, path):
    return changed(config, imported_local=str(path), imported_global=str(path))


@pytest.fixture(scope="module")
def precise(place, tmp_path_factory):
    """As `place`, with local descriptors in float32."""
    config, workdir = changed(place[0], local_encoding="float32"), tmp_path_factory.mktemp("float")
    extract(config, workdir)
    return config, workdir


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["hloc", "delf", "ames"])
def test_exported_features_are_imported_to_the_bit(place, precise, tmp_path, kind, dtype):
    config, workdir = place if dtype == "float16" else precise
    assert config.extract.local_encoding == dtype
    path = export_features(config, workdir, kind, tmp_path / "out" / OUTPUT[kind])
    assert path == tmp_path / "out" / OUTPUT[kind]
    assert list(path.parent.iterdir()) == [path]
    one = extract(config, workdir)
    two = extract(reading(config, path), tmp_path / "other")
    for name in ("database", "queries"):
        stores = getattr(one, name), getattr(two, name)
        found, wanted = (store.global_descriptors() for store in stores)
        np.testing.assert_allclose(found, wanted, rtol=3e-7)
        for a, b in zip(*(store.local_features(0) for store in stores), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["hloc", "delf", "ames"])
def test_imported_features_give_the_metrics_of_the_network(place, tmp_path, kind):
    config, workdir = place
    expected = evaluate(config, workdir)["methods"]
    path = export_features(config, workdir, kind, tmp_path / OUTPUT[kind])
    assert evaluate(reading(config, path), tmp_path / "other")["methods"] == expected


def test_a_store_that_is_whole_is_not_extracted_again(place, tmp_path, monkeypatch):
    def refuse(self, images):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(Extractor, "__call__", refuse)
    export_features(*place, "hloc", tmp_path / "a.hdf5")


def test_sizes_are_of_the_picture_that_keypoints_lie_in(place, tmp_path):
    """The views are crops of 96 x 80 pixels of pictures of 112 x 96."""
    export_features(*place, "hloc", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["jpg"]  # names are paths in the data set, with endings, as hloc's
        assert len(file["jpg"]) == 12
        assert file["jpg/place0_near.jpg"]["image_size"][()].tolist() == [112, 96]
        assert file["jpg/place0_far.jpg"]["image_size"][()].tolist() == [96, 80]
        for group in file["jpg"].values():
            assert (group["keypoints"][()] < group["image_size"][()][None, :]).all()


def test_files_of_delf_lie_in_two_folders(place, tmp_path):
    path = export_features(*place, "delf", tmp_path / "delf")
    database, queries = (sorted((path / part).iterdir()) for part in ("database", "queries"))
    assert (len(database), len(queries)) == (16, 8)
    assert [p.name for p in queries[:2]] == ["query0.delg_global", "query0.delg_local"]
    assert len(delf.read_local(queries[1]).mask) == 30


def test_global_descriptors_alone(place, tmp_path):
    config = place[0].copy_and_resolve_references().unlock()
    config.model.local_head = False
    for kind in ("hloc", "delf"):  # of one extraction
        path = export_features(config.lock(), tmp_path / "run", kind, tmp_path / OUTPUT[kind])
        again = changed(config, imported_global=str(path))
        queries = extract(again, tmp_path / f"of {kind}").queries
        assert queries.global_descriptors().shape == (4, 16)


def test_local_features_alone_go_from_format_to_format(place, tmp_path):
    first = export_features(*place, "hloc", tmp_path / "features.h5")
    imported = changed(place[0], imported_local=str(first))
    second = export_features(imported, tmp_path / "other", "delf", tmp_path / "delf")
    assert {path.suffix for path in second.rglob("*.*")} == {".delg_local"}


def test_skipped_images_are_left_out(place, tmp_path):
    data = make_revisited(tmp_path / "data")
    truncate(data / "jpg" / "place1_far.jpg")
    config = place[0].copy_and_resolve_references().unlock()
    config.data.root, config.data.max_skipped = str(data), 1
    path = export_features(config.lock(), tmp_path / "run", "hloc", tmp_path / "a.h5")
    with h5py.File(path) as file:
        assert len(file["jpg"]) == 11
        assert "jpg/place1_far.jpg" not in file
    store = extract(reading(config, path), tmp_path / "other").database
    assert list(store.skipped()) == ["place1_far"]
    ames = export_features(config, tmp_path / "run", "ames", tmp_path / "ames")
    lines = (ames / "test_gallery.txt").read_text().splitlines()
    place = [line.partition(",")[0] for line in lines].index("jpg/place1_far.jpg")
    with h5py.File(ames / "delg_gallery_local.hdf5") as file:
        assert len(file["features"]) == len(lines) == 8  # rows stay those of the ground truth
        assert (file["features"][place, :, 3] == 1).all()
        assert not (file["features"][place - 1, :, 3] == 1).all()


def sharing(place, tmp_path, box):
    """A data set whose queries are database images, within `box`."""
    data = make_revisited(tmp_path / "data")
    truth = data / "gnd_drawn.json"
    text = truth.read_text().replace("[0, 0, 112, 96]", str(box))
    for number in range(4):
        text = text.replace(f'"query{number}"', f'"place{number}_near"')
    truth.write_text(text)
    config = place[0].copy_and_resolve_references().unlock()
    config.data.root = str(data)
    return config.lock()


def test_a_query_may_be_a_database_image_if_it_is_equal(place, tmp_path):
    config = sharing(place, tmp_path, [0, 0, 112, 96])
    path = export_features(config, tmp_path / "run", "hloc", tmp_path / "a.h5")
    with h5py.File(path) as file:
        assert len(file["jpg"]) == 8


def test_two_images_of_one_name_are_refused_by_hloc_alone(place, tmp_path):
    config = sharing(place, tmp_path, [0, 0, 64, 64])
    with pytest.raises(UserError, match=r"image = 'place0_near': .*delf"):
        export_features(config, tmp_path / "run", "hloc", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
    path = export_features(config, tmp_path / "run", "delf", tmp_path / "delf")
    imported = extract(reading(config, path), tmp_path / "other")
    expected = extract(config, tmp_path / "run")
    found = imported.queries.local_features(0).locations
    np.testing.assert_array_equal(found, expected.queries.local_features(0).locations)


@pytest.mark.parametrize("kind", ["hloc", "delf"])
def test_existing_files_are_replaced_only_if_asked_for(place, tmp_path, kind):
    path = export_features(*place, kind, tmp_path / OUTPUT[kind])
    with pytest.raises(UserError, match="--overwrite"):
        export_features(*place, kind, path)
    if kind == "delf":
        (path / "database" / "old.delg_local").write_bytes(b"")
    export_features(*place, kind, path, overwrite=True)
    assert not (path / "database" / "old.delg_local").exists()


def test_foreign_things_are_never_replaced(place, tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.jpg").write_bytes(b"")
    for kind, endings in (("delf", "delg_local .*delg_global"), ("hloc", "h5 .*hdf5")):
        with pytest.raises(UserError, match=rf"photographs.* \.{endings}"):
            export_features(*place, kind, tmp_path / "photographs", overwrite=True)
    assert (tmp_path / "photographs" / "a.jpg").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(place, tmp_path, monkeypatch):
    extracted = extract(*place)
    extracted.database.names[0] = "../../outside"
    monkeypatch.setattr(exported, "extract", lambda *_: extracted)
    with pytest.raises(UserError, match="outside"):
        export_features(*place, "delf", tmp_path / "delf")
    assert list(tmp_path.iterdir()) == []


def test_signs_are_exported_as_bits(place, tmp_path):
    config = changed(place[0], local_encoding="sign")
    path = export_features(config, tmp_path / "run", "ames", tmp_path / "ames")
    with h5py.File(path / "delg_query_local.hdf5") as file:
        assert file["features"].dtype["descriptor"].base == np.uint8
    one = extract(config, tmp_path / "run").queries.local_features(0)
    two = extract(reading(config, path), tmp_path / "other").queries.local_features(0)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_kind_is_refused(place, tmp_path):
    with pytest.raises(UserError, match="colmap.* hloc, delf, ames"):
        export_features(*place, "colmap", tmp_path / "a")


def with_names(place, tmp_path, change):
    """The configuration of a data set with another ground truth."""
    data = make_revisited(tmp_path / "data")
    content = json.loads((data / "gnd_drawn.json").read_text())
    change(content)
    (data / "gnd_drawn.json").write_text(json.dumps(content))
    config = place[0].copy_and_resolve_references().unlock()
    config.data.root = str(data)
    return config.lock()


def test_a_query_with_two_boxes_is_refused_before_anything_is_written(place, tmp_path, monkeypatch):
    def twice(content):
        content["qimlist"][1] = "query0"
        content["gnd"][1]["bbx"] = [0, 0, 60, 60]

    config = with_names(place, tmp_path, twice)
    for writer in ("_write_hloc", "_write_delf"):
        monkeypatch.setattr(exported, writer, lambda *_: 1 / 0)
    for kind in ("hloc", "delf"):  # of one extraction
        with pytest.raises(UserError, match="image = 'query0': "):
            export_features(config, tmp_path / "run", kind, tmp_path / OUTPUT[kind])
        assert not (tmp_path / OUTPUT[kind]).exists()


def test_one_picture_listed_twice_is_written_once(place, tmp_path):
    def twice(content):
        content["qimlist"][1] = "query0"

    config = with_names(place, tmp_path, twice)
    wanted = extract(config, tmp_path / "run").queries.global_descriptors()
    for kind in ("hloc", "delf"):
        path = export_features(config, tmp_path / "run", kind, tmp_path / OUTPUT[kind])
        found = extract(reading(config, path), tmp_path / f"of {kind}").queries
        assert found.names == ["query0", "query0", "query2", "query3"]
        np.testing.assert_allclose(found.global_descriptors(), wanted, rtol=3e-6, atol=1e-6)


def test_of_two_images_of_one_name_the_one_that_is_not_skipped_is_written(place, tmp_path):
    def twice(content):
        content["qimlist"][1] = "query0"
        content["gnd"][1]["bbx"] = [500, 500, 600, 600]  # outside of the picture

    config = with_names(place, tmp_path, twice).unlock()
    config.data.max_skipped = 1
    path = export_features(config, tmp_path / "run", "delf", tmp_path / "delf")
    extracted = extract(config, tmp_path / "run")
    assert list(extracted.queries.skipped_places()) == [1]
    assert extracted.queries.skipped().keys() == {"query0"}
    assert len(list((path / "queries").iterdir())) == 6
