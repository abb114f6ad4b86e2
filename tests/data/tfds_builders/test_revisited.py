import json
import pickle

import pytest

from delg_jax.data import open_retrieval
from delg_jax.data.tfds_builders import (
    PreparedSource,
    RevisitedDistractors,
    RevisitedOxford,
    prepare,
)
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import make_distractors, make_oxford, settings
from tests.photographs import truncate


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw"


@pytest.mark.parametrize(
    ("name", "file"),
    [("revisited_oxford", "gnd_roxford5k"), ("revisited_paris", "gnd_rparis6k")],
)
@pytest.mark.parametrize("ending", ["json", "pkl"])
def test_images_and_ground_truth_keep_their_order(tmp_path, root, name, file, ending):
    content = make_oxford(root, file)
    content["gnd"][0]["bbx"] = [0.1, 17.05, 111.7, 95.3]  # not exact in single precision
    (root / f"{file}.json").write_text(json.dumps(content))
    if ending == "pkl":
        (root / f"{file}.json").unlink()
        (root / f"{file}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    found = open_retrieval(settings(root, tmp_path / "tfds", name))
    assert found.database.names == content["imlist"]
    assert found.queries.names == content["qimlist"]
    assert found.ground_truth == content["gnd"]
    for source in (found.database, found.queries):
        for position, image in enumerate(source.names):
            assert source.read(position) == (root / "jpg" / f"{image}.jpg").read_bytes()


def test_a_pickle_with_code_is_refused(tmp_path, root):
    make_oxford(root)
    (root / "gnd_roxford5k.pkl").write_bytes(b"cos\nsystem\n(S'touch never'\ntR.")
    with pytest.raises(UserError, match=r"ground truth = '.*roxford5k\.pkl'"):
        open_retrieval(settings(root, tmp_path / "tfds", "revisited_oxford"))


def test_without_ground_truth_the_published_name_is_asked_for(tmp_path, root):
    make_oxford(root, "gnd_other")
    with pytest.raises(UserError, match=r"'.*gnd_roxford5k\.pkl'"):
        open_retrieval(settings(root, tmp_path / "tfds", "revisited_oxford"))


def test_a_bad_image_is_refused_whatever_may_be_skipped(tmp_path, root):
    make_oxford(root)
    (root / "jpg" / "place0_near.jpg").unlink()
    truncate(root / "jpg" / "query2.jpg")
    with pytest.raises(UserError, match=r"json': .* 2 images .*place0_near \(No such file"):
        open_retrieval(settings(root, tmp_path / "tfds", "revisited_oxford", max_skipped=9))
    (listed,) = (tmp_path / "tfds").rglob("skipped.csv")
    assert len(listed.read_text().splitlines()) == 3
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))


def test_queries_of_the_ground_truth_cannot_leave_the_folder(tmp_path, root):
    make_oxford(root)
    text = (root / "gnd_roxford5k.json").read_text()
    (root / "gnd_roxford5k.json").write_text(text.replace('"query1"', '"../gnd_roxford5k"'))
    with pytest.raises(UserError, match=r"qimlist .*'\.\./gnd_roxford5k'"):
        open_retrieval(settings(root, tmp_path / "tfds", "revisited_oxford"))


def test_features_of_queries_and_of_database_images(tmp_path, root):
    make_oxford(root)
    builder = RevisitedOxford(data_dir=tmp_path / "tfds", file_format="array_record")
    prepared = prepare(builder, str(root))
    query = prepared.as_data_source("query")[1]
    assert query["bbx"].tolist() == [0, 0, 112, 96]
    assert [list(query[name]) for name in ("easy", "hard", "junk")] == [[2], [3], []]
    record = prepared.as_data_source("database")[0]
    assert record["bbx"].tolist() == [0, 0, 0, 0]
    assert [len(record[name]) for name in ("easy", "hard", "junk")] == [0, 0, 0]
    assert record["label"] == -1


@pytest.mark.parametrize("name", ["revisited", "revisited_oxford"])
def test_distractors_follow_the_database(tmp_path, root, name):
    content = make_oxford(root)
    names = make_distractors(tmp_path / "r1m")
    plain = open_retrieval(settings(root, tmp_path / "tfds", name))
    data = settings(root, tmp_path / "tfds", name, distractors=str(tmp_path / "r1m"))
    found = open_retrieval(data)
    assert found.database.names == content["imlist"] + names
    assert found.ground_truth == plain.ground_truth
    assert len(found.database) == len(found.database.labels) == len(names) + 6
    assert found.database.read(5) == plain.database.read(5)
    last = (tmp_path / "r1m" / "jpg" / f"{names[-1]}.jpg").read_bytes()
    assert pickle.loads(pickle.dumps(found.database)).read(8) == last


def test_a_distractor_named_as_a_database_image_is_refused(tmp_path, root):
    make_oxford(root)
    make_distractors(tmp_path / "r1m")
    (tmp_path / "r1m" / "revisitop1m.txt").write_text("0000/d0\nplace1_far\n")
    image = (root / "jpg" / "place1_far.jpg").read_bytes()
    (tmp_path / "r1m" / "jpg" / "place1_far.jpg").write_bytes(image)
    data = settings(root, tmp_path / "tfds", "revisited", distractors=str(tmp_path / "r1m"))
    with pytest.raises(UserError, match="1 names.* place1_far"):
        open_retrieval(data)


def opened(folder, root, max_skipped=0):
    builder = RevisitedDistractors(data_dir=folder, file_format="array_record")
    return PreparedSource(prepare(builder, str(root), max_skipped), "database")


def test_images_keep_the_order_of_the_list(tmp_path):
    names = make_distractors(tmp_path / "raw", 5)
    source = opened(tmp_path / "tfds", tmp_path / "raw")
    assert source.names == names
    assert source.labels.tolist() == [-1] * 5
    for position, name in enumerate(names):
        path = tmp_path / "raw" / "jpg" / f"{name}.jpg"
        assert source.read(position) == path.read_bytes()


def test_a_list_of_an_editor_is_read(tmp_path):
    names = make_distractors(tmp_path / "raw", 5)
    text = "\ufeff" + " \r\n".join([*names, "", ""])
    (tmp_path / "raw" / "revisitop1m.txt").write_text(text, encoding="utf-8", newline="")
    assert opened(tmp_path / "tfds", tmp_path / "raw").names == names


def test_absent_images_and_paths_that_lead_out_are_skipped(tmp_path):
    make_distractors(tmp_path / "raw")
    secret = (tmp_path / "raw" / "jpg" / "0000" / "d0.jpg").read_bytes()
    (tmp_path / "secret.jpg").write_bytes(secret)
    with (tmp_path / "raw" / "revisitop1m.txt").open("a") as file:
        file.write(f"\n../../secret\n{tmp_path / 'secret'}\nabsent.jpg\n")
    source = opened(tmp_path / "tfds", tmp_path / "raw", max_skipped=3)
    assert len(source) == 3
    (listed,) = (tmp_path / "tfds").rglob("skipped.csv")
    rows = listed.read_text()
    assert rows.count("inside the folder") == 2
    assert "absent.jpg,No such file or directory" in rows


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\nb\na\n", r"revisitop1m\.txt, line 3': .*'a', .*line 1"),
        (b"\xff", "UTF-8, .*byte 0, .*line 1"),
        (b"\n", "split database of revisited_distractors"),
    ],
)
def test_a_wrong_list_is_one_error(tmp_path, content, names):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "revisitop1m.txt").write_bytes(content)
    with pytest.raises(UserError, match=names):
        opened(tmp_path / "tfds", tmp_path / "raw")
