import json

import pytest

from delg_jax import text_files
from delg_jax.errors import UserError


def written(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le"])
def test_marks_of_encodings_are_understood(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-be", "utf-16-le") else ""
    path = written(tmp_path, f"{mark}é\n".encode(encoding))
    assert text_files.read(path, "list") == "é\n"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"ok\r\ncaf\xe9\n", "UTF-8, .*byte 7, .*line 2"),
        (b"\xff\xfea", "UTF-16, .*byte 2, .*line 1"),
        ("ab".encode("utf-16-le"), "zero byte.*UTF-16"),
    ],
)
def test_invalid_utf_8_is_one_error(tmp_path, data, names):
    path = written(tmp_path, data)
    for read in (text_files.read, text_files.read_json):
        with pytest.raises(UserError, match=f"^list = '{path}': .*{names}"):
            read(path, "list")


@pytest.mark.parametrize("read", [text_files.read, text_files.read_json])
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, read):
    for path, reason in ((tmp_path / "gone", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"list = '{path}': .*{reason}"):
            read(path, "list")


def test_lines_end_where_editors_end_them():
    text = "a\rb \r\n\n \t\n c\u2028d\x85e\x0cf\x0bg\x1ch\t\n\ni"
    expected = [(1, "a"), (2, "b"), (5, "c\u2028d\x85e\x0cf\x0bg\x1ch"), (7, "i")]
    assert list(text_files.lines(text)) == expected
    assert list(text_files.lines("")) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read_as_editors_write_it(tmp_path, encoding):
    content = {"a\u2028b": ["é", 1.5, None, {"c": "😀"}]}
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False, indent=1)):
        data = (text.replace("\n", "\r\n") + "\r\n \r\n").encode(encoding)
        assert text_files.read_json(written(tmp_path, data), "file") == content


def test_names_of_odd_bytes_in_json_become_text(tmp_path):
    content = {"caf\udce9": ["caf\udce9.jpg", "😀", 1]}
    path = written(tmp_path, json.dumps(content).encode())
    assert text_files.read_json(path, "file") == {"caf\\xe9": ["caf\\xe9.jpg", "😀", 1]}


@pytest.mark.parametrize("data", [b"", b"{", b"{'a': 1}", b"[" * 100_000])
def test_invalid_json_is_one_error(tmp_path, data):
    with pytest.raises(UserError, match="file = '.*file': .*JSON"):
        text_files.read_json(written(tmp_path, data), "file")


def test_rows_of_csv_have_the_numbers_of_their_lines(tmp_path):
    path = written(tmp_path, b'a,"x\r\ny"\r\n\r\n,\r\n"b ", c\r\n')
    assert list(text_files.csv_rows(path, "file")) == [(2, ["a", "x\r\ny"]), (5, ["b ", " c"])]


def test_csv_that_is_cut_off_in_utf16_is_one_error(tmp_path):
    path = written(tmp_path, "a,b\n".encode("utf-16") + b"x")
    with pytest.raises(UserError, match="file = '.*': .*UTF-16"):
        list(text_files.csv_rows(path, "file"))


@pytest.mark.parametrize("levels", [101, 900, 100_000])
def test_json_of_many_levels_is_refused(tmp_path, levels):
    deep = '{"a":[' * levels + "]}" * levels
    with pytest.raises(UserError, match="list = '.*file': .*JSON"):
        text_files.read_json(written(tmp_path, deep.encode()), "list")
    few = '{"a":[' * 40 + "]}" * 40
    assert text_files.read_json(written(tmp_path, few.encode()), "list").keys() == {"a"}
