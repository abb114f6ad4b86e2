import json
import shutil
import tarfile

import numpy as np
import pytest

from delg_jax import configuration, workdir
from delg_jax.data import open_retrieval
from delg_jax.errors import UserError
from delg_jax.evaluation import evaluate
from delg_jax.features import network, store_check
from delg_jax.features.experiment import extract, extract_images
from delg_jax.features.formats.exported import export_features
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval.searcher import Searcher
from delg_jax.search.index import build_index
from tests.folders import contents
from tests.holding import held
from tests.photographs import draw, save, truncate
from tests.tiny import retrieval_config

COUNT = 5


@pytest.fixture
def photos(tmp_path):
    for number in range(COUNT):
        save(tmp_path / "photos" / f"{number}.jpg", draw(number, 64, 64))
    return tmp_path / "photos"


@pytest.fixture
def config(tmp_path):
    config = retrieval_config(tmp_path).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    return config


def features_of(store):
    """Global descriptors and local descriptors by name of the image."""
    local = store.local_features(0)
    pooled = store.global_descriptors()
    return {
        name: (pooled[i], local.descriptors[i], local.locations[i], local.mask[i])
        for i, name in enumerate(store.names)
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        for one, other in zip(found[name], values, strict=True):
            np.testing.assert_array_equal(one, other)


def test_any_way_of_naming_the_same_pictures_gives_the_same(config, photos, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"photos/{number}.jpg\n" for number in range(COUNT)))
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    specs = {"folder": photos, "glob": photos / "*.jpg", "tar": tmp_path / "photos.tar"}
    stores = {
        kind: extract_images(config, tmp_path / kind, str(spec)) for kind, spec in specs.items()
    }
    assert stores["folder"].names == [f"{number}.jpg" for number in range(COUNT)]
    assert stores["folder"].sizes().tolist() == [[64, 64]] * COUNT
    whole, globbed, found = (contents(stores[kind].folder) for kind in ("folder", "glob", "tar"))
    for files in (whole, globbed, found):
        del files["config.json"]  # has the place of the images
    assert globbed == whole
    assert stores["tar"].digest() == stores["folder"].digest()
    origins = "origins/c.0.0", "origins/c.1.0"  # times are those of the tar
    assert {path for path in whole if found[path] != whole[path]} == {*origins}
    listed = features_of(extract_images(config, tmp_path / "list", str(listing)))
    named = {name.removeprefix("photos/"): values for name, values in listed.items()}
    assert_same(named, features_of(stores["folder"]))


def test_only_new_images_are_extracted_and_stand_behind(config, photos, tmp_path, loaded):
    store = extract_images(config, tmp_path, str(photos))
    before = features_of(store)
    assert sorted(loaded) == store.names
    loaded.clear()
    save(photos / "0b.jpg", draw(20, 64, 64))
    save(photos / "zz" / "deep.png", draw(21, 64, 64))
    store = extract_images(config, tmp_path, str(photos))
    assert sorted(loaded) == ["0b.jpg", "zz/deep.png"]
    assert store.names == [*before, "0b.jpg", "zz/deep.png"]
    found = features_of(store)
    assert_same({name: found[name] for name in before}, before)
    loaded.clear()
    whole = contents(store.folder)
    extract_images(config, tmp_path, str(photos))
    assert loaded == []
    assert contents(store.folder) == whole


def test_images_that_are_gone_are_deleted_only_if_asked_for(config, photos, tmp_path, loaded):
    store = extract_images(config, tmp_path, str(photos))
    before, wanted = contents(store.folder), features_of(store)
    (photos / "1.jpg").unlink()
    (photos / "3.jpg").unlink()
    loaded.clear()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r" 2 images .* 1\.jpg; --delete_missing"):
            extract_images(config, tmp_path, str(photos), overwrite)
    assert contents(store.folder) == before
    store = extract_images(config, tmp_path, str(photos), delete_missing=True)
    assert store.names == ["0.jpg", "2.jpg", "4.jpg"]
    assert_same(features_of(store), {name: wanted[name] for name in store.names})
    assert loaded == []
    chunks = [path for path in before if "/c." in path and not path.startswith("state/")]
    after = contents(store.folder)
    assert {path: after[path] for path in chunks} == {path: before[path] for path in chunks}


def test_an_image_that_comes_back_is_extracted_again(config, photos, tmp_path, loaded):
    wanted = features_of(extract_images(config, tmp_path, str(photos)))
    shutil.move(photos / "1.jpg", tmp_path)
    extract_images(config, tmp_path, str(photos), delete_missing=True)
    shutil.move(tmp_path / "1.jpg", photos)
    loaded.clear()
    store = extract_images(config, tmp_path, str(photos))
    assert loaded == ["1.jpg"]
    assert store.names == ["0.jpg", "2.jpg", "3.jpg", "4.jpg", "1.jpg"]
    for one, other in zip(features_of(store)["1.jpg"], wanted["1.jpg"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_an_image_that_came_back_is_there_once_after_a_repair(config, photos, tmp_path, loaded):
    extract_images(config, tmp_path, str(photos))
    shutil.move(photos / "1.jpg", tmp_path)
    extract_images(config, tmp_path, str(photos), delete_missing=True)
    shutil.move(tmp_path / "1.jpg", photos)
    store = extract_images(config, tmp_path, str(photos))
    wanted, names = features_of(store), store.names
    for chunk in (store.folder / "state").glob("c.*"):
        chunk.unlink()
    damages = list(store_check.verify(FeatureStore(store.folder)))
    assert store_check.repair(FeatureStore(store.folder), damages) == COUNT + 1
    loaded.clear()
    store = extract_images(config, tmp_path, str(photos))
    assert store.names == names
    assert sorted(loaded) == sorted(names)
    found = features_of(store)
    for name in names:
        for one, other in zip(found[name], wanted[name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_store_of_listed_images_is_read_while_another_job_holds_it(config, photos, tmp_path):
    store = extract_images(config, tmp_path, str(photos))
    with held(store.folder):
        assert len(extract_images(config, tmp_path, str(photos))) == COUNT
        save(photos / "new.jpg", draw(9, 64, 64))
        with pytest.raises(UserError, match="another job"):
            extract_images(config, tmp_path, str(photos))


def test_bad_images_are_skipped_up_to_the_limit(config, photos, tmp_path):
    truncate(photos / "2.jpg")
    config.data.max_skipped = 1
    store = extract_images(config, tmp_path, str(photos))
    assert store.skipped().keys() == {"2.jpg"}
    assert not store.global_descriptors()[2].any()
    config.data.max_skipped = 0
    with pytest.raises(UserError, match=r"max_skipped = 0: 1 .* 2\.jpg"):
        extract_images(config, tmp_path, str(photos))


def test_other_weights_are_refused(config, photos, tmp_path, monkeypatch):
    extract_images(config, tmp_path, str(photos))
    monkeypatch.setattr(network, "digest", lambda variables: "other")
    with pytest.raises(UserError, match=r"weights: '\w{64}' -> 'other'"):
        extract_images(config, tmp_path, str(photos))


def test_data_sets_do_not_matter(config, photos, tmp_path):
    extract_images(config, tmp_path, str(photos))
    config.data.name, config.data.root = "folder", "/no/such/folder"
    assert len(extract_images(config, tmp_path, str(photos))) == COUNT


def test_the_projection_is_fitted_once(config, photos, tmp_path):
    config.extract.pca_dim, config.extract.pca_images = 3, 5
    store = extract_images(config, tmp_path, str(photos))
    assert store.local_features(0).descriptors.shape[2] == 3
    before, wanted = contents(store.folder)["pca.npz"], features_of(store)
    save(photos / "new.jpg", draw(9, 64, 64))
    store = extract_images(config, tmp_path, str(photos))
    assert contents(store.folder)["pca.npz"] == before
    found = features_of(FeatureStore(store.folder))
    assert_same({name: found[name] for name in wanted}, wanted)


def test_another_folder_with_the_same_names_is_extracted(config, photos, tmp_path, loaded):
    extract_images(config, tmp_path, str(photos))
    for number in range(COUNT):
        save(tmp_path / "other" / f"{number}.jpg", draw(50 + number, 64, 64))
    shutil.copy(photos / "2.jpg", tmp_path / "other" / "2.jpg")
    loaded.clear()
    store = extract_images(config, tmp_path, str(tmp_path / "other"))
    assert sorted(loaded) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    wanted = features_of(extract_images(config, tmp_path / "new", str(tmp_path / "other")))
    for name, values in features_of(store).items():
        for one, other in zip(values, wanted[name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_images_that_a_list_names_and_that_are_gone_stay_searchable(
    config, photos, tmp_path, caplog
):
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"photos/{number}.jpg\n" for number in range(COUNT)))
    before = extract_images(config, tmp_path, str(listing)).digest()
    photos.rename(tmp_path / "elsewhere")
    assert extract_images(config, tmp_path, str(listing)).digest() == before
    assert "photos/0.jpg" in caplog.text


def of_images(config, photos, **changes):
    """The configuration of the data set `images`."""
    place = {"data.name": "images", "data.root": str(photos)}
    return configuration.override(config, place | {f"data.{k}": v for k, v in changes.items()})


def ground_truth(folder, names):
    """Queries 1 and 4, drawn as the images of those names, in a folder beside the ground truth."""
    entries = []
    for number in (1, 4):
        save(folder / f"q{number}.png", draw(number, 64, 64))
        easy = [names.index(f"{number}.jpg")]
        entries.append({"bbx": [0, 0, 64, 64], "easy": easy, "hard": [], "junk": []})
    content = {"imlist": names, "qimlist": ["q1.png", "q4.png"], "gnd": entries}
    (folder / "answers.json").write_text(json.dumps(content))
    return folder / "answers.json"


def test_other_verbs_use_what_was_extracted(config, photos, tmp_path, loaded):
    extract_images(config, tmp_path, str(photos))
    loaded.clear()
    ours = of_images(config, photos)
    searcher = Searcher(ours, tmp_path)
    hits = searcher.search(searcher.query(draw(3, 64, 64)), "global+sp", 2).hits
    assert hits[0].name == "3.jpg"
    assert build_index(ours, tmp_path).indices.shape == (COUNT, COUNT)
    export_features(ours, tmp_path, "delf", tmp_path / "out")
    assert loaded == []
    assert len(list((tmp_path / "out" / "database").glob("*.delg_local"))) == COUNT
    assert not (tmp_path / "features" / "queries").exists()
    # whose images another verb finds by what is stored
    stored = workdir.stored_config(tmp_path / "features" / "images")
    assert (stored["data.name"], stored["data.root"]) == ("images", str(photos))


def test_images_that_were_added_later_are_evaluated_in_their_place(
    config, photos, tmp_path, loaded
):
    (photos / "1.jpg").rename(tmp_path / "1.jpg")
    extract_images(config, tmp_path / "run", str(photos))
    shutil.copy(tmp_path / "1.jpg", photos / "1.jpg")
    answers = ground_truth(tmp_path / "queries", ["4.jpg", "2.jpg", "1.jpg"])
    ours = of_images(config, photos, ground_truth=str(answers))
    loaded.clear()
    result = evaluate(ours, tmp_path / "run")
    assert loaded == ["1.jpg", "q1.png", "q4.png"]
    assert result["methods"]["global+sp"]["easy"]["mp@1"] == 100
    extracted = extract(ours, tmp_path / "run")
    names = extracted.data.database.names
    assert names == extracted.database.names == ["0.jpg", "2.jpg", "3.jpg", "4.jpg", "1.jpg"]
    assert [names[entry["easy"][0]] for entry in extracted.data.ground_truth] == ["1.jpg", "4.jpg"]
    assert extracted.data.database.read(4) == (photos / "1.jpg").read_bytes()
    with pytest.raises(UserError, match=r"config\.data\.ground_truth = ''"):
        evaluate(of_images(config, photos), tmp_path / "run", overwrite=True)
    extract(of_images(config, photos), tmp_path / "run")  # leaves the queries as they are


def test_the_data_set_follows_its_files(config, photos, tmp_path, loaded, caplog):
    config.extract.pca_dim, config.extract.pca_images = 3, 5
    ours = of_images(config, photos)
    before = features_of(extract(ours, tmp_path / "run").database)
    loaded.clear()
    save(photos / "1.jpg", draw(71, 64, 64))
    (photos / "2.jpg").unlink()
    save(photos / "deeper" / "5.jpg", draw(5, 64, 64))
    store = extract(ours, tmp_path / "run").database
    assert sorted(loaded) == ["1.jpg", "deeper/5.jpg"]  # although the PCA was fitted to 1.jpg
    assert store.names == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "deeper/5.jpg"]
    found = features_of(store)
    kept = {name: before[name] for name in ("0.jpg", "3.jpg", "4.jpg")}
    assert_same({name: found[name] for name in kept}, kept)
    assert not np.array_equal(found["1.jpg"][0], before["1.jpg"][0])


def test_a_store_that_is_current_is_used_while_another_job_writes(config, photos, tmp_path):
    extract_images(config, tmp_path / "run", str(photos))
    save(photos / "00.jpg", draw(9, 64, 64))  # sorts before those that are stored
    extract(of_images(config, photos), tmp_path / "run")
    with held(tmp_path / "run" / "features" / "images"):
        assert len(extract(of_images(config, photos), tmp_path / "run").database) == COUNT + 1


def test_a_folder_that_moved_is_remembered(config, photos, tmp_path, loaded):
    extract_images(config, tmp_path / "run", str(photos))
    moved = photos.rename(tmp_path / "moved")
    loaded.clear()
    extract(of_images(config, moved), tmp_path / "run")
    assert loaded == []
    stored = workdir.stored_config(tmp_path / "run" / "features" / "images")
    assert stored["data.root"] == str(moved)


def test_a_ground_truth_that_does_not_fit_is_refused(config, photos, tmp_path):
    answers = ground_truth(tmp_path / "queries", ["4.jpg", "nowhere.jpg", "1.jpg"])
    data = of_images(config, photos, ground_truth=str(answers)).data
    with pytest.raises(UserError, match=r" 1 images .*: nowhere\.jpg$"):
        open_retrieval(data)
    answers = ground_truth(tmp_path / "queries", ["4.jpg", "1.jpg"])
    (tmp_path / "queries" / "q1.png").unlink()
    with pytest.raises(UserError, match=r" 1 images .*: q1\.png$"):
        open_retrieval(data)
    with pytest.raises(UserError, match=r"config\.data\.root = ''"):
        open_retrieval(of_images(config, "").data)
