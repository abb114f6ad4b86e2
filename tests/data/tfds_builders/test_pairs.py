import numpy as np
import pytest
import tensorflow_datasets as tfds

from delg_jax.data.tfds_builders import LandmarkPairs, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import jpeg, place


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("abc1", "abd2", "bcd3")):
        place(tmp_path / "raw" / "images", name, jpeg(number))
    rows = ["image1,image2,label", "abd2,abc1,1", "abc1,bcd3,0", "abc1,abcd,0"]
    (tmp_path / "raw" / "pairs.csv").write_text("\n".join(rows))
    return tmp_path / "raw"


def prepared(folder, root, max_skipped=0):
    builder = LandmarkPairs(data_dir=folder, file_format="array_record")
    return prepare(builder, str(root), max_skipped)


def test_pairs_keep_their_order_and_bad_ones_are_listed(tmp_path, root):
    builder = prepared(tmp_path / "tfds", root, max_skipped=1)
    skip = tfds.decode.SkipDecoding()
    records = builder.as_data_source("test", decoders={"image1": skip, "image2": skip})
    assert [record["name"] for record in records] == [b"abd2 abc1", b"abc1 bcd3"]
    assert [int(record["label"]) for record in records] == [1, 0]
    assert (records[1]["image1_id"], records[1]["image2_id"]) == (b"abc1", b"bcd3")
    assert (records[1]["image1"], records[1]["image2"]) == (jpeg(0), jpeg(2))
    (listed,) = (tmp_path / "tfds").rglob("skipped.csv")
    assert listed.read_text().splitlines()[1:] == ["abc1 abcd,image2: No such file or directory"]
    assert np.asarray(builder.as_data_source("test")[0]["image2"]).shape == (20, 24, 3)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("abc1,abd2,2", "label must be 0 or 1, not '2'"),
        ("abd2,abc1,0", "the pair abd2 abc1 occurs twice"),
        ("abc1,abd2,0", "the label must be that of the pair abd2 abc1"),
        ("abc1,abc1,0", "the label of abc1 and itself must be 1"),
        ("../a,abd2,1", "image1 must be 3 or more of letters"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, root, line, rule):
    with (root / "pairs.csv").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UserError, match=rf"pairs\.csv, line 5': {rule}"):
        prepared(tmp_path / "tfds", root)
