import importlib.util
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from delg_jax.data import open_retrieval, open_training
from delg_jax.data.tfds_builders import GoogleLandmarksV2, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import (
    contents,
    image_id,
    jpeg,
    labels,
    make_gldv2,
    place,
    settings,
    write_tar,
)


def builder(folder, part):
    return GoogleLandmarksV2(config=part, data_dir=str(folder), file_format="array_record")


@pytest.fixture
def root(tmp_path):
    make_gldv2(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize("tars", [0, 1, 3])
def test_train_from_archives_and_unpacked(tmp_path, tars):
    landmarks = make_gldv2(tmp_path / "raw", tars)
    data = open_training(settings(tmp_path / "raw", tmp_path / "tfds", "gldv2"))
    assert data.classes == ["7", "17", "27"]
    found = {**labels(data.train), **labels(data.validation)}
    assert found == {name: (landmark - 7) // 10 for name, landmark in landmarks.items()}
    assert (len(data.train), len(data.validation)) == (13, 3)
    make_gldv2(tmp_path / "unpacked", 0)
    for source in (data.train, data.validation):
        for position, name in enumerate(source.names):
            path = (tmp_path / "unpacked" / "train").joinpath(*name[:3], f"{name}.jpg")
            assert source.read(position) == path.read_bytes()


def test_archives_and_unpacked_images_are_split_alike(tmp_path):
    names = []
    for tars in (0, 3):
        make_gldv2(tmp_path / f"raw{tars}", tars)
        data = open_training(settings(tmp_path / f"raw{tars}", tmp_path / f"tfds{tars}", "gldv2"))
        names.append((sorted(data.train.names), sorted(data.validation.names)))
    assert names[0] == names[1]


def test_train_clean_has_the_images_of_its_list(tmp_path, root):
    data = open_training(settings(root, tmp_path / "tfds", "gldv2_clean"))
    found = {**labels(data.train), **labels(data.validation)}
    expected = {image_id(n): (n > 4) + (n > 5) for n in range(2, 16)}
    assert found == expected


def test_index_has_landmarks_or_none(tmp_path, root):
    prepared = prepare(builder(tmp_path / "tfds", "index"), str(root))
    records = prepared.as_data_source("index")
    found = {record["name"].decode(): int(record["label"]) for record in records}
    assert found == {image_id(100 + n): (7, 17, 27, -1)[n] for n in range(4)}


def test_test_has_the_answers_of_both_tasks(tmp_path, root):
    prepared = prepare(builder(tmp_path / "tfds", "test"), str(root))
    found = {record["name"].decode(): record for record in prepared.as_data_source("test")}
    assert set(found) == {image_id(200 + n) for n in range(4)}
    first, second, third, last = (found[image_id(200 + n)] for n in range(4))
    assert list(first["landmarks"]) == [7, 17]
    assert list(second["landmarks"]) == []
    assert [r["recognition_usage"] for r in (first, third)] == [b"Public", b"Private"]
    assert [name.decode() for name in second["relevant"]] == [image_id(103), image_id(100)]
    assert len(third["relevant"]) == 0
    assert (last["recognition_usage"], last["retrieval_usage"]) == (b"Ignored", b"Ignored")


@pytest.mark.parametrize(
    ("usage", "query", "relevant"), [("", 201, {103, 100}), ("public", 200, {102})]
)
def test_retrieval_searches_test_in_index(tmp_path, root, usage, query, relevant):
    data = settings(root, tmp_path / "tfds", "gldv2", ground_truth=usage)
    found = open_retrieval(data)
    assert found.queries.names == [image_id(query)]
    assert found.queries.read(0) == jpeg(104 + query)
    (entry,) = found.ground_truth
    assert {found.database.names[n] for n in entry["easy"]} == {image_id(n) for n in relevant}
    assert entry["bbx"] == [0, 0, 24, 20]
    assert entry["hard"] == entry["junk"] == []
    copy = pickle.loads(pickle.dumps(found.queries))
    assert copy.read(0) == found.queries.read(0)


def test_an_unknown_usage_is_refused(tmp_path, root):
    with pytest.raises(UserError, match=r"config\.data\.ground_truth = 'all'"):
        open_retrieval(settings(root, tmp_path / "tfds", "gldv2", ground_truth="all"))


def test_a_damaged_archive_is_named_before_anything_is_prepared(tmp_path, root):
    path = root / "train" / "images_001.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"archive = '.*images_001\.tar'"):
        open_training(settings(root, tmp_path / "tfds", "gldv2"))
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))


def test_what_no_archive_holds_is_skipped_and_listed(tmp_path, root):
    (root / "train" / "images_002.tar").unlink()
    write_tar(root / "train" / "images_000.tar", {f"{image_id(0)}.jpg": b"no image", "../x": b""})
    with pytest.raises(UserError, match=r"max_skipped = 0: \d+ "):
        open_training(settings(root, tmp_path / "tfds", "gldv2"))
    data = open_training(settings(root, tmp_path / "tfds", "gldv2", max_skipped=16))
    (listed,) = (tmp_path / "tfds").rglob("skipped.csv")
    rows = dict(line.split(",", 1) for line in listed.read_text().splitlines()[1:])
    assert rows.pop("images_000.tar:../x") == "has a path outside the archive"
    assert rows.pop(image_id(0)) == "not an image file"
    assert set(rows.values()) == {"in none of the archives"}
    kept = {*data.train.names, *data.validation.names}
    assert kept | set(rows) | {image_id(0)} == {image_id(n) for n in range(16)}
    assert not kept & set(rows)


def test_a_split_may_lack_images_in_an_archive(tmp_path, root):
    write_tar(root / "train" / "images_003.tar", {})
    data = open_training(settings(root, tmp_path / "tfds", "gldv2"))
    assert (len(data.train), len(data.validation)) == (13, 3)
    assert {data.train.read(n)[:2] for n in range(13)} == {b"\xff\xd8"}


@pytest.mark.parametrize("tars", [0, 3])
@pytest.mark.parametrize("single", [False, True])
def test_validation_may_be_empty(tmp_path, tars, single):
    make_gldv2(tmp_path / "raw", tars)
    if single:
        path = tmp_path / "raw" / "train.csv"
        rows = path.read_text().splitlines()[1:]
        path.write_text("id,landmark_id\n" + "".join(f"{r[:16]},{n}\n" for n, r in enumerate(rows)))
    share = 0.2 if single else 0.0
    for _ in range(2):  # prepared, and found
        fields = {"validation_share": share}
        data = open_training(settings(tmp_path / "raw", tmp_path / "tfds", "gldv2", **fields))
        assert (len(data.train), len(data.validation)) == (16, 0)
        assert data.validation.labels.dtype == np.int64
        assert len(data.classes) == (16 if single else 3)
        assert {data.train.read(n)[:2] for n in range(16)} == {b"\xff\xd8"}
    copy = pickle.loads(pickle.dumps(data.validation))
    assert len(copy) == 0


def test_recognition_searches_training_images_without_validation(tmp_path, root):
    fields = {"validation_share": 0.0, "ground_truth": "public"}
    data = settings(root, tmp_path / "tfds", "gldv2_recognition", **fields)
    found = open_retrieval(data)
    assert len(found.database) == 16
    assert {found.landmarks.database[n] for n in found.ground_truth[0]["easy"]} == {7, 17}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (f"99,{image_id(3)}", rf"{image_id(3)} .*train\.csv"),
        ("99,abcdef", r"abcdef .*train\.csv"),
        ("x,abcdef", "landmark_id "),
    ],
)
def test_a_wrong_line_of_the_clean_list_is_named(tmp_path, root, line, names):
    with (root / "train_clean.csv").open("a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(UserError, match=rf"csv file = '.*train_clean\.csv, line 5': .*{names}"):
        open_training(settings(root, tmp_path / "tfds", "gldv2_clean"))


@pytest.mark.parametrize(
    ("file", "line", "names"),
    [
        ("recognition_solution_v2.1.csv", "abcdef,7,Public", "abcdef .*test"),
        ("recognition_solution_v2.1.csv", f"{image_id(203)},7 x,Public", "landmarks "),
        ("retrieval_solution_v2.1.csv", f"{image_id(203)},../a,Public", "images "),
        ("retrieval_solution_v2.1.csv", f"{image_id(200)},abc,Public", "id '.*' .*line 2"),
    ],
)
def test_a_wrong_line_of_a_solution_is_named(tmp_path, root, file, line, names):
    with (root / file).open("a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(UserError, match=rf"{file}, line 5': .*{names}"):
        prepare(builder(tmp_path / "tfds", "test"), str(root))


def test_a_folder_without_the_part_is_refused(tmp_path, root):
    (root / "train").rename(root / "training")
    with pytest.raises(UserError, match=r"config\.data\.root = .*"):
        open_training(settings(root, tmp_path / "tfds", "gldv2"))


@pytest.mark.parametrize("tars", [0, 3])
@pytest.mark.filterwarnings("ignore")  # of Apache Beam and what it imports
def test_apache_beam_writes_the_same_examples(tmp_path, tars):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed (extra `beam`)")
    make_gldv2(tmp_path / "raw", tars)
    options = "--runner=DirectRunner --direct_num_workers=2"
    plain = prepare(builder(tmp_path / "plain", "train"), str(tmp_path / "raw"))
    beam = prepare(builder(tmp_path / "beam", "train"), str(tmp_path / "raw"), beam_options=options)
    assert contents(plain) == contents(beam)
    assert len(contents(beam)["train"]) == 13


@pytest.mark.filterwarnings("ignore")
def test_apache_beam_lists_and_counts_bad_images_too(tmp_path, root):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed (extra `beam`)")
    write_tar(root / "train" / "images_000.tar", {f"{image_id(0)}.jpg": b"no image"})
    with pytest.raises(UserError, match=r"config\.data\.max_skipped = 0: \d+ "):
        prepare(builder(tmp_path / "tfds", "train"), str(root), 0, "--runner=DirectRunner")
    assert len(list((tmp_path / "tfds").rglob("skipped.csv"))) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is not None, reason="Apache Beam is installed"
)
def test_without_apache_beam_its_options_are_refused(tmp_path, root):
    names = r"config\.data\.beam_options = '--runner=DirectRunner': .*`beam`"
    with pytest.raises(UserError, match=names):
        prepare(builder(tmp_path, "train"), str(root), beam_options="--runner=DirectRunner")


def test_each_part_is_a_config_of_tfds(tmp_path, root):
    place(root / "index", image_id(100), b"")  # archives win over unpacked images
    assert list(GoogleLandmarksV2.builder_configs) == ["train", "train_clean", "index", "test"]
    prepared = tfds.builder(
        "google_landmarks_v2/index", data_dir=tmp_path / "tfds", file_format="array_record"
    )
    assert prepare(prepared, str(root)).info.splits["index"].num_examples == 4
