import pytest

from delg_jax.data.tfds_builders import PreparedSource, RevisitedDistractors, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import make_distractors


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
    assert rows.count("must be a path inside the folder") == 2
    assert "absent.jpg,No such file or directory" in rows


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a\nb\na\n", r"revisitop1m\.txt, line 3': names 'a', as line 1 does"),
        (b"\xff", "must be text in UTF-8, which its byte 0, in line 1, is not"),
        (b"\n", "leaves the split database of revisited_distractors without images"),
    ],
)
def test_a_wrong_list_is_one_error(tmp_path, content, rule):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "revisitop1m.txt").write_bytes(content)
    with pytest.raises(UserError, match=rule):
        opened(tmp_path / "tfds", tmp_path / "raw")
