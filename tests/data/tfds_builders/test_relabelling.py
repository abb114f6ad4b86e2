import random

import pytest

from delg_jax.data.tfds_builders import relabelling
from delg_jax.errors import UserError


def images(counts):
    return [
        (f"{landmark}_{n}", landmark) for landmark, count in counts.items() for n in range(count)
    ]


def count(labelled, landmark):
    found = [image.split for image in labelled if image.landmark == landmark]
    return found.count("train"), found.count("validation")


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [
        (1, 0.2, (1, 0)),
        (2, 0.2, (1, 1)),
        (3, 0.2, (2, 1)),
        (7, 0.2, (6, 1)),
        (8, 0.2, (6, 2)),
        (10, 0.2, (8, 2)),
        (100, 0.2, (80, 20)),
        (5, 0.0, (5, 0)),
        (3, 0.9, (1, 2)),
        (1, 0.9, (1, 0)),
    ],
)
def test_the_share_of_a_class(size, share, expected):
    assert count(relabelling.relabel(images({"a": size, "b": 4}), 0, share), "a") == expected


def test_the_split_depends_on_seed_and_names_alone():
    given = images({"a": 30, "b": 20, "c": 1})
    expected = relabelling.relabel(given, 3, 0.2)
    random.Random(0).shuffle(given)
    assert relabelling.relabel(given, 3, 0.2) == expected
    assert relabelling.relabel(given, 4, 0.2) != expected
    others = [*given, *images({"d": 5})]
    assert relabelling.relabel(others, 3, 0.2)[: len(expected)] == expected


def test_labels_are_dense_and_follow_numbers_as_numbers():
    labelled = relabelling.relabel(images({"10": 2, "9": 1, "100": 1}), 0, 0.2)
    assert relabelling.classes(labelled) == ["9", "10", "100"]
    assert [image.label for image in labelled] == [0, 1, 1, 2]
    assert relabelling.classes(relabelling.relabel(images({"10": 2, "9": 1, "x": 1}), 0, 0.2)) == [
        "10",
        "9",
        "x",
    ]


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UserError, match=rf"config\.data\.validation_share = {share}: "):
        relabelling.relabel(images({"a": 2}), 0, share)


def test_the_file_reads_back(tmp_path):
    labelled = relabelling.relabel(images({"a,b": 3, 'say "c"': 2, "ü": 1}), 0, 0.2)
    path = relabelling.write(tmp_path, labelled)
    assert relabelling.read(path) == labelled
    assert path.read_text().splitlines()[0] == "id,landmark_id,label,split"


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("a,7,0,test", "split .*train, validation"),
        ("a,7,x,train", "label "),
        ("z,7,0,train", "id 'z' .* line 2"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, row, names):
    path = tmp_path / "relabelling.csv"
    path.write_text(f"id,landmark_id,label,split\nz,7,0,train\n{row}\n")
    with pytest.raises(UserError, match=f"line 3': {names}"):
        relabelling.read(path)


def test_no_images_no_classes(tmp_path):
    assert relabelling.relabel([], 0, 0.2) == []
    assert relabelling.read(relabelling.write(tmp_path, [])) == []
