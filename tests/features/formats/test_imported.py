import os
import pathlib

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate
from delg_jax.features import extract, network
from delg_jax.features.formats import delf, hloc
from delg_jax.features.formats.imported import ImportedFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval.query import search_image
from tests.photographs import make_revisited
from tests.tiny import retrieval_config

pytest.importorskip("h5py", reason="HDF5 files need h5py")

PLACES = 3
DATABASE = [f"place{place}_{view}" for place in range(PLACES) for view in ("near", "far")]
QUERIES = [f"query{place}" for place in range(PLACES)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_revisited(tmp_path_factory.mktemp("photographs"), PLACES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def load_model(*_):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(network, "load_model", load_model)


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    for name, value in fields.items():
        section = config.data if name == "max_skipped" else config.extract
        section[name] = str(value) if name.startswith("imported") else value
    return config.lock()


def local_of(place, count=12, dim=6):
    """Features of a place, the same from each view; scores in an order of their own."""
    rng = np.random.default_rng(place)
    return LocalFeatures(
        locations=80 * rng.random((count, 2), np.float32),
        scales=1 + rng.random(count, np.float32),
        scores=rng.random(count, np.float32),
        descriptors=5 * rng.normal(size=(count, dim)).astype(np.float32),
        mask=np.ones(count, bool),
    )


def global_of(place, dim=8):
    return 3 * np.random.default_rng(100 + place).normal(size=dim).astype(np.float32)


def place_of(name):
    return int(name.removeprefix("place").removeprefix("query").split("_")[0])


def write_hdf5(path, local=local_of, descriptor=global_of, names=(*DATABASE, *QUERIES)):
    with hloc.writing(path) as writer:
        for name in names:
            if local is not None:
                writer.write(f"jpg/{name}.jpg", local(place_of(name)))
            if descriptor is not None:
                writer.write_global(f"jpg/{name}.jpg", descriptor(place_of(name)))
    return path


def write_folder(folder, parts=("", "")):
    for part, names in zip(parts, (DATABASE, QUERIES), strict=True):
        for name in names:
            delf.write_local(folder / part / f"{name}.delg_local", local_of(place_of(name)))
            delf.write_global(folder / part / f"{name}.delg_global", global_of(place_of(name)))
    return folder


@pytest.fixture
def features(tmp_path):
    return write_hdf5(tmp_path / "features.h5")


@pytest.fixture
def config(photographs, features):
    plain = retrieval_config(photographs)
    return changed(plain, imported_local=features, imported_global=features, chunk_images=2)


def test_a_store_has_unit_descriptors_best_first(config, tmp_path):
    extracted = extract(changed(config, local_encoding="float32", max_features=5), tmp_path / "run")
    assert extracted.database.names == DATABASE
    local = extracted.database.local_features(0)
    assert local.mask.shape == (2 * PLACES, 5)
    assert local.mask.all()
    for index, name in enumerate(DATABASE):
        source = local_of(place_of(name))
        order = np.argsort(-source.scores)[:5]
        unit = source.descriptors / np.linalg.norm(source.descriptors, axis=1)[:, None]
        np.testing.assert_allclose(local.descriptors[index], unit[order], rtol=1e-6)
        np.testing.assert_array_equal(local.locations[index], source.locations[order])
        np.testing.assert_array_equal(local.scales[index], source.scales[order])
        np.testing.assert_array_equal(local.scores[index], source.scores[order])
        wanted = global_of(place_of(name)) / np.linalg.norm(global_of(place_of(name)))
        found = extracted.database.global_descriptors()[index]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert extracted.queries.names == QUERIES
    assert extract(config, tmp_path / "half").queries.local_features(0).descriptors.dtype == "f2"


def test_zero_vectors_stay_zero(config, tmp_path):
    def local(place):
        source = local_of(place)
        source.descriptors[source.scores.argmax()] = 0
        return source

    write_hdf5(tmp_path / "features.h5", local, lambda place: np.zeros(8, np.float32))
    store = extract(config, tmp_path / "run").database
    assert not store.local_features(0).descriptors[:, 0].any()
    assert not store.global_descriptors().any()


@pytest.mark.parametrize("parts", [("", ""), ("database", "queries")])
def test_a_folder_gives_the_store_of_an_hdf5_file(config, tmp_path, parts):
    folder = write_folder(tmp_path / "delf", parts)
    other = changed(config, imported_local=folder, imported_global=folder)
    stores = [extract(config, tmp_path / "a"), extract(other, tmp_path / "b")]
    for name in ("database", "queries"):
        one, two = (getattr(extracted, name) for extracted in stores)
        np.testing.assert_array_equal(one.global_descriptors(), two.global_descriptors())
        for a, b in zip(one.local_features(0), two.local_features(0), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_method_finds_the_place(config, tmp_path):
    result = evaluate(config, tmp_path / "run")
    assert set(result["methods"]) == {"global", "global+sp", "local", "local+mds"}
    for method, table in result["methods"].items():
        assert table["easy"]["map"] == table["medium"]["map"] == 100, method


def methods(config, *names):
    config = config.copy_and_resolve_references().unlock()
    config.eval.methods = names
    return config.lock()


def test_local_features_alone_serve_local_methods(config, tmp_path):
    alone = changed(config, imported_global="")
    result = evaluate(methods(alone, "local", "local+mds"), tmp_path / "run")
    assert result["methods"]["local"]["medium"]["map"] == 100
    for method in ("global", "global+sp"):
        with pytest.raises(UserError, match=r"config\.extract\.imported_global"):
            evaluate(methods(alone, method), tmp_path / "run")
    store = extract(alone, tmp_path / "run").database
    with pytest.raises(UserError, match="global descriptors"):
        store.global_descriptors()


def test_global_descriptors_alone_serve_the_global_method(config, tmp_path):
    alone = changed(config, imported_local="")
    result = evaluate(methods(alone, "global"), tmp_path / "run")
    assert result["methods"]["global"]["medium"]["map"] == 100
    for method in ("global+sp", "local", "local+mds"):
        with pytest.raises(UserError, match=r"config\.extract\.imported_local"):
            evaluate(methods(alone, method), tmp_path / "run")
    with pytest.raises(UserError, match="local features"):
        extract(alone, tmp_path / "run").database.local_features(0)


def test_a_new_picture_cannot_be_searched(config, tmp_path, photographs):
    with pytest.raises(UserError, match="config.extract.imported_local = ") as caught:
        search_image(config, tmp_path / "run", photographs / "jpg" / "query0.jpg")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_absent_images_are_skipped_with_the_reason(config, tmp_path):
    write_hdf5(tmp_path / "features.h5", names=(*DATABASE[1:], *QUERIES))
    with pytest.raises(UserError, match=r"max_skipped = 0: 1 .*place0_near"):
        extract(config, tmp_path / "run")
    store = extract(changed(config, max_skipped=1), tmp_path / "run").database
    assert list(store.skipped()) == ["place0_near"]
    assert not store.local_features(0).mask[0].any()
    assert "features.h5" in (store.folder / "skipped.csv").read_text()


def test_damage_is_not_skipped(config, tmp_path):
    def local(place):
        source = local_of(place)
        return source._replace(scores=source.scores * np.nan) if place == 1 else source

    write_hdf5(tmp_path / "features.h5", local)
    with pytest.raises(UserError, match=r"features\.h5'.* image place1_near: scores"):
        extract(changed(config, max_skipped=9), tmp_path / "run")


def test_images_without_features_fit_the_others(config, tmp_path):
    """Neither file format need tell the length of descriptors that are not there."""
    folder = write_folder(tmp_path / "delf")
    for name in (*DATABASE[:3], QUERIES[0]):
        (folder / f"{name}.delg_local").write_bytes(b"")
    other = changed(config, imported_local=folder, imported_global=folder)
    local = extract(other, tmp_path / "run").database.local_features(0)
    assert local.mask.any(axis=1).tolist() == [False] * 3 + [True] * 3
    assert local.descriptors.shape == (6, 12, 6)
    assert evaluate(other, tmp_path / "run")["queries"] == PLACES


@pytest.mark.parametrize("kind", ["local", "global"])
def test_lengths_of_descriptors_agree_over_all_images(config, tmp_path, kind):
    if kind == "local":
        write_hdf5(tmp_path / "features.h5", lambda place: local_of(place, dim=6 + (place == 2)))
    else:
        write_hdf5(tmp_path / "features.h5", local_of, lambda place: global_of(place, 8 + place))
    names = {"local": "7 .*place2_near.* 6", "global": "9 .*place1_near.* 8"}
    with pytest.raises(UserError, match=f"imported_{kind} = .* {names[kind]}"):
        extract(config, tmp_path / "run")


def test_an_empty_global_descriptor_is_refused(config, tmp_path):
    write_hdf5(tmp_path / "features.h5", local_of, lambda place: global_of(place, 0))
    with pytest.raises(UserError, match="imported_global = .*empty .*place"):
        extract(config, tmp_path / "run")


def test_a_resumed_import_knows_the_length_of_the_first(config, tmp_path):
    """The database is whole when the queries turn out not to fit; they never do."""
    folder = write_folder(tmp_path / "delf")
    for name in QUERIES:
        delf.write_local(folder / f"{name}.delg_local", local_of(0, dim=9))
    other = changed(config, imported_local=folder, imported_global=folder)
    for _ in range(2):
        with pytest.raises(UserError, match=" 9 .*query0.* 6"):
            extract(other, tmp_path / "run")
    assert FeatureStore(tmp_path / "run" / "features" / "database").is_whole()


def test_complete_imports_are_not_read_again(config, tmp_path, monkeypatch):
    first = extract(config, tmp_path / "run")
    before = first.database.global_descriptors()
    first.database.discard("global", range(2, 4))
    read = []
    plain = ImportedFeatures._read
    monkeypatch.setattr(
        ImportedFeatures, "_read", lambda *args: (read.append(args[2]), plain(*args))[1]
    )
    again = extract(config, tmp_path / "run")
    assert read == [DATABASE[0], *DATABASE[2:4]]  # the first tells the length
    np.testing.assert_array_equal(again.database.global_descriptors(), before)


def test_other_files_are_refused_and_other_networks_are_not(config, tmp_path):
    first = extract(config, tmp_path / "run")
    other_network = config.copy_and_resolve_references().unlock()
    other_network.model.backbone, other_network.extract.pca_dim = "resnet101", 4
    assert extract(other_network.lock(), tmp_path / "run").weights == first.weights
    write_hdf5(tmp_path / "features.h5", lambda place: local_of(place + 7))
    with pytest.raises(UserError, match=r"weights: '\w{64}' -> '\w{64}'"):
        extract(config, tmp_path / "run")
    extract(config, tmp_path / "run", overwrite=True)


def test_a_changed_file_changes_the_digest_of_a_folder(config, tmp_path):
    folder = write_folder(tmp_path / "delf")
    other = changed(config, imported_local=folder, imported_global="")

    def digest():
        return ImportedFeatures(other.extract.imported_local, "", Layout(), {}).digest()

    before = digest()
    delf.write_global(folder / "place0_near.delg_global", global_of(5))  # is not imported
    assert digest() == before
    path = folder / "place0_near.delg_local"
    os.utime(path, ns=(1, 1))
    assert digest() != before
    path.unlink()
    assert digest() != before


@pytest.mark.parametrize("kind", ["local", "global"])
def test_an_absent_source_is_refused(config, tmp_path, kind):
    (tmp_path / "features.txt").write_text("")
    for name in ("absent.h5", "absent", "features.txt"):
        wrong = changed(config, **{f"imported_{kind}": tmp_path / name})
        with pytest.raises(UserError, match=rf"imported_{kind} = '.*{name}'"):
            extract(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def config_of_one_file(tmp_path):
    root = make_revisited(tmp_path / "photographs", PLACES)
    features = write_hdf5(tmp_path / "features.h5")
    return changed(retrieval_config(root), imported_local=features, imported_global=features)


def test_queries_of_one_name_with_two_boxes_are_refused(config_of_one_file, tmp_path):
    root = tmp_path / "photographs"
    text = (root / "gnd_drawn.json").read_text().replace('"query1"', '"query0"')
    (root / "gnd_drawn.json").write_text(text)
    assert extract(config_of_one_file, tmp_path / "same").queries.names == [
        "query0",
        "query0",
        "query2",
    ]
    (root / "gnd_drawn.json").write_text(text.replace("[0, 0, 112, 96]", "[0, 0, 60, 60]", 1))
    names = r"image = 'query0': .*\[0, 0, 60, 60\] .*\[0, 0, 112, 96\]"
    with pytest.raises(UserError, match=names):
        extract(config_of_one_file, tmp_path / "run")


def test_where_files_lie_decides_nothing(config_of_one_file, tmp_path):
    before = extract(config_of_one_file, tmp_path / "run").database.digest()
    path = pathlib.Path(config_of_one_file.extract.imported_local)
    path.rename(tmp_path / f"moved{path.suffix}")
    moved = changed(
        config_of_one_file,
        imported_local=tmp_path / f"moved{path.suffix}",
        imported_global=tmp_path / f"moved{path.suffix}",
    )
    assert extract(moved, tmp_path / "run").database.digest() == before
