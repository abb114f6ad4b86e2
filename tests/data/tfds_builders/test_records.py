import hashlib
import pickle

import pytest

from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders import records
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import jpeg


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
    with pytest.raises(UserError, match="split train': .* 1 images"):
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


class Loader:
    def __init__(self, data):
        self.data = data

    def __call__(self):
        if isinstance(self.data, Exception):
            raise self.data
        return self.data


def make(folder, *data, max_skipped=9):
    items = [
        records.Item(f"n{n}", {"image": Loader(value)}, n, {"more": n})
        for n, value in enumerate(data)
    ]
    limits = records.Limits(min_side=16, max_pixels=1000, max_skipped=max_skipped)
    (group,) = records.in_shards(items)
    return records.Shard(folder, "train", 3, group, limits)


def test_examples_come_in_order_and_what_was_written_is_recorded(tmp_path):
    bad = (BadImageError("refused"), OSError(2, "gone"), jpeg(1, 60, 60))
    whole = make(tmp_path, jpeg(0), *bad, jpeg(2, 18, 30))
    examples = dict(pickle.loads(pickle.dumps(whole))())
    assert list(examples) == ["n0", "n4"]
    assert examples["n4"] == {"name": "n4", "label": 4, "more": 4, "image": jpeg(2, 18, 30)}
    digests = [hashlib.sha256(d).hexdigest()[:32] for d in (jpeg(0), jpeg(2, 18, 30))]
    assert (tmp_path / "train-00003.records.csv").read_text().splitlines() == [
        "name,label,height,width,digest",
        f"n0,0,20,24,{digests[0]}",
        f"n4,4,18,30,{digests[1]}",
    ]
    assert records.take_skipped(tmp_path) == {
        "n1": "refused",
        "n2": "gone",
        "n3": "60 x 60 pixels, more than 1000",
    }
    assert records.take_skipped(tmp_path) == {}


def test_more_bad_images_than_allowed_end_the_shard_when_all_are_listed(tmp_path):
    bad = [BadImageError(str(n)) for n in range(3)]
    assert list(make(tmp_path, *bad, max_skipped=3)()) == []
    with pytest.raises(records.TooManySkippedError, match="3 images"):
        list(make(tmp_path, *bad, max_skipped=2)())
    assert len(records.take_skipped(tmp_path)) == 3


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])]
)
def test_lists_are_cut_into_shards(monkeypatch, count, sizes):
    monkeypatch.setattr(records, "FILE_ITEMS", 4)
    items = [records.Item(str(n), {}) for n in range(count)]
    groups = records.in_shards(items)
    assert [len(group()) for group in groups] == sizes
    assert [item for group in groups for item in group()] == items


def test_progress_is_logged_from_time_to_time(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "delg_jax")
    monkeypatch.setattr(records, "_PROGRESS", records._Progress())
    list(make(tmp_path, jpeg(0), jpeg(1))())
    assert not caplog.messages
    monkeypatch.setattr(records, "_LINE_SECONDS", 0.0)
    list(make(tmp_path, jpeg(0), jpeg(1))())
    texts = [f"prepare train: shard 4 of 1, {count} images of it" for count in range(2)]
    assert caplog.messages == texts
