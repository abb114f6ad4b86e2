import logging

import pytest

from delg_jax.data import open_retrieval
from delg_jax.data.tfds_builders import gldv2_files
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import image_id, jpeg, make_gldv2, settings, write_tar


@pytest.fixture
def root(tmp_path):
    make_gldv2(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize(
    ("usage", "queries", "landmarks"),
    [("", [201, 202], [[], [27]]), ("public", [200], [[7, 17]])],
)
def test_recognition_searches_test_in_the_training_images(
    root, tmp_path, usage, queries, landmarks
):
    name = "gldv2_recognition"
    found = open_retrieval(settings(root, tmp_path / "tfds", name, ground_truth=usage))
    assert found.queries.names == [image_id(query) for query in queries]
    assert found.landmarks.queries == landmarks
    assert sorted(found.database.names) == sorted(image_id(n) for n in range(16))
    shown = dict(zip(found.database.names, found.landmarks.database.tolist(), strict=True))
    expected = [7] * 5 + [17] + [27] * 10
    assert shown == {image_id(n): landmark for n, landmark in enumerate(expected)}
    for entry, wanted in zip(found.ground_truth, landmarks, strict=True):
        assert entry["easy"] == sorted(set(entry["easy"]))
        relevant = {found.database.names[n] for n in entry["easy"]}
        assert relevant == {name for name, landmark in shown.items() if landmark in wanted}
        assert entry["bbx"] == [0, 0, 24, 20]


def test_the_cleaned_training_images_are_fewer(root, tmp_path):
    found = open_retrieval(settings(root, tmp_path / "tfds", "gldv2_clean_recognition"))
    assert sorted(found.database.names) == sorted(image_id(n) for n in range(2, 16))
    assert sorted(found.landmarks.database.tolist()) == [7] * 3 + [17] + [27] * 10


def test_retrieval_knows_no_landmarks(root, tmp_path):
    assert open_retrieval(settings(root, tmp_path / "tfds", "gldv2")).landmarks is None


def test_a_query_that_was_skipped_is_left_out_and_counted(root, tmp_path, caplog):
    for number in range(3):
        write_tar(root / "test" / f"images_{number:03d}.tar", {})
    write_tar(root / "test" / "images_000.tar", {f"{image_id(202)}.jpg": jpeg(1)})
    data = settings(root, tmp_path / "tfds", "gldv2_recognition", max_skipped=3)
    with caplog.at_level(logging.WARNING):
        found = open_retrieval(data)
    assert (found.queries.names, found.landmarks.queries) == ([image_id(202)], [[27]])
    assert "1 queries" in caplog.text


@pytest.mark.parametrize("name", ["gldv2", "gldv2_recognition"])
def test_a_usage_without_queries_is_refused(root, tmp_path, name):
    task = "retrieval" if name == "gldv2" else "recognition"
    path = root / f"{task}_solution_v2.1.csv"
    path.write_text(path.read_text().replace("Public", "Ignored"))
    data = settings(root, tmp_path / "tfds", name, ground_truth="public")
    with pytest.raises(UserError, match="ground_truth = 'public': .*none"):
        open_retrieval(data)


def test_a_usage_whose_queries_were_all_skipped_is_refused(root, tmp_path):
    for number in range(3):
        write_tar(root / "test" / f"images_{number:03d}.tar", {})
    write_tar(root / "test" / "images_000.tar", {f"{image_id(202)}.jpg": jpeg(1)})
    data = settings(root, tmp_path / "tfds", "gldv2", max_skipped=3)
    with pytest.raises(UserError, match="ground_truth = 'private': .* 1 .*skipped"):
        open_retrieval(data)


def test_all_that_was_asked_stays_in_the_answers(root, tmp_path):
    for number in range(3):
        write_tar(root / "test" / f"images_{number:03d}.tar", {})
        write_tar(root / "index" / f"images_{number:03d}.tar", {})
    write_tar(root / "test" / "images_000.tar", {f"{image_id(201)}.jpg": jpeg(1)})
    write_tar(root / "index" / "images_000.tar", {f"{image_id(103)}.jpg": jpeg(2)})
    solution = root / "retrieval_solution_v2.1.csv"
    solution.write_text(solution.read_text().replace("None,Ignored", f"{image_id(102)},Private"))
    found = open_retrieval(settings(root, tmp_path / "tfds", "gldv2", max_skipped=3))
    assert found.queries.names == [image_id(201)]
    assert found.ground_truth[0]["easy"] == [0]
    assert found.answers == {
        image_id(201): [image_id(103), image_id(100)],
        image_id(202): [image_id(102)],
    }
    assert found.skipped == 3


def test_distractors_are_not_for_recognition(root, tmp_path):
    data = settings(root, tmp_path / "tfds", "gldv2_recognition", distractors=str(tmp_path))
    with pytest.raises(UserError, match=r"config\.data\.distractors = '"):
        open_retrieval(data)


def test_answers_are_read_as_written(tmp_path):
    common = {"relevant": [], "landmarks": []}
    entries = {
        "aaa": (-1, {**common, "landmarks": [3, 5], "recognition_usage": "Public"}),
        "bbb": (-1, {**common, "recognition_usage": "Private", "relevant": ["xxx", "yyy"]}),
        "ccc": (-1, {**common, "recognition_usage": "Ignored"}),
    }
    for name, (_, features) in entries.items():
        features["retrieval_usage"] = "Private" if name == "bbb" else "Ignored"
    gldv2_files.write_answers(tmp_path, entries)
    assert gldv2_files.read_recognition(tmp_path, "Public") == {"aaa": [3, 5]}
    assert gldv2_files.read_recognition(tmp_path, "Private") == {"bbb": []}
    assert gldv2_files.read_retrieval(tmp_path, "Private") == {"bbb": ["xxx", "yyy"]}
    assert gldv2_files.read_retrieval(tmp_path, "Public") == {}
