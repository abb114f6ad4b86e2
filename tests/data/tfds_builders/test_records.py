import pytest

from delg_jax.data.tfds_builders import records
from delg_jax.errors import UserError


def test_parts_become_one_list_in_order(tmp_path):
    records.write_part(
        tmp_path, ("train", 0), [("b", 1, 10, 20, "d0"), ("a,ü\n", -1, 30, 40, "")], []
    )
    records.write_part(tmp_path, ("train", 1), [], [("x", "gone")])
    records.write_part(tmp_path, ("train", 2), [("c", 0, 5, 6, "d2")], [])
    assert records.merge(tmp_path, "train", 3) == {"a,ü\n", "b", "c"}
    found = records.read(tmp_path, "train")
    assert found.names == ["b", "a,ü\n", "c"]
    assert found.labels.tolist() == [1, -1, 0]
    assert found.sizes.tolist() == [[10, 20], [30, 40], [5, 6]]
    assert found.digests == ["d0", "", "d2"]
    assert records.take_skipped(tmp_path) == {"x": "gone"}
    assert list(records.take_files(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_a_split_may_be_empty(tmp_path):
    records.write_part(tmp_path, ("train", 0), [], [])
    assert records.merge(tmp_path, "train", 1) == set()
    assert records.read(tmp_path, "train").sizes.shape == (0, 2)


def test_an_image_that_two_shards_hold_is_refused(tmp_path):
    for shard in range(2):
        records.write_part(tmp_path, ("train", shard), [("a", 1, 10, 20, "")], [])
    with pytest.raises(UserError, match="split train': holds 1 images more than once"):
        records.merge(tmp_path, "train", 2)


@pytest.mark.parametrize("row", ["a,x,1,1", "a,1,-1,1", "a,1,1"])
def test_a_damaged_list_is_one_error(tmp_path, row):
    (tmp_path / "train.csv").write_text(f"name,label,height,width\n{row}\n")
    with pytest.raises(UserError, match=r"train\.csv, line 2'"):
        records.read(tmp_path, "train")


def test_a_list_of_an_earlier_version_has_no_digests(tmp_path):
    (tmp_path / "train.csv").write_text("name,label,height,width\na,1,2,3\n")
    assert records.read(tmp_path, "train").digests == [""]


def test_a_file_that_two_shards_read_is_listed_once(tmp_path):
    rows = [("a.jpg", 5, 6, "d"), ("b.jpg", -1, 0, "")]
    for shard in range(2):
        records.write_part(tmp_path, ("train", shard), [], [], rows[: 2 - shard])
    listed = list(records.take_files(tmp_path))
    assert listed == [("a.jpg", "5", "6", "d"), ("b.jpg", "-1", "0", "")]
    assert not list(tmp_path.glob("*.files.csv"))
