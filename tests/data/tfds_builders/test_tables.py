import pytest

from delg_jax.data.tfds_builders import tables
from delg_jax.errors import UserError


def texts(path, *columns, key=""):
    return [[row.text(c) for c in columns] for row in tables.read(path, columns, key)]


def test_columns_are_found_by_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,url,n\r\na,"x,\n""y""",3\r\nb,,4\r\n')
    assert texts(path, "n", "url") == [["3", 'x,\n"y"'], ["4", ""]]
    assert [row.integer("n") for row in tables.read(path, ("n",))] == [3, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_are_read_as_editors_write_them(tmp_path, encoding, end):
    rows = ["id, n ", 'abc ,"1 "', ' "d\u2028e\x85f\x0cg", 2', "", " ", ",", " , "]
    (tmp_path / "a.csv").write_bytes(end.join(rows).encode(encoding))
    found = list(tables.read(tmp_path / "a.csv", ("id", "n"), key="id"))
    assert [row.integer("n") for row in found] == [1, 2]
    assert found[0].name("id") == "abc"
    assert [row.text("id") for row in found] == ["abc ", ' "d\u2028e\x85f\x0cg"']


def test_what_is_written_reads_back(tmp_path):
    rows = [("a", "x\ny"), ("ü", '"'), ("", ",")]
    tables.write(tmp_path / "a.csv", ("p", "q"), rows)
    assert texts(tmp_path / "a.csv", "p", "q") == [list(row) for row in rows]
    tables.write(tmp_path / "a.csv", ("p", "q"), [])
    assert texts(tmp_path / "a.csv", "p", "q") == []


def test_the_images_of_a_large_landmark_fit(tmp_path):
    names = " ".join(f"{n:016x}" for n in range(20_000))
    (tmp_path / "a.csv").write_text(f"landmark_id,images\n1,{names}\n")
    (row,) = tables.read(tmp_path / "a.csv", ("images",))
    assert len(row.names("images")) == 20_000


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (None, r"a\.csv': .*No such file"),
        (b"", r"a\.csv': .*empty"),
        (b"id,url\n", "line 1': .* id, n; n "),
        (b"id,n\na,1\nb\n", "line 3': .*2 fields, .*1"),
        (b"id,n\na,1,2\n", "line 2': .*2 fields, .*3"),
        (b"id,n\na,1\n\nb\n", "line 4': .*2 fields, .*1"),
        (b"id;n\na;1\n", "line 1': .*; id .*';'"),
        ("id,n\na,1\n".encode("utf-16-le"), "line 1': .* id, n; id "),
        (b"id,n\na,1\nb,2\na,3\n", "line 4': id 'a' .*line 2"),
        (b"id,n\na,1\nb,2\na ,3\n", "line 4': id 'a' .*line 2"),  # a space makes no other key
        (b'id,n\na,"1\n', "line 2': .*csv"),
        (b"id,n\n\xff\xfe,1\n", r"a\.csv': .*UTF-8"),
    ],
)
def test_a_malformed_or_absent_file_is_one_error(tmp_path, content, names):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=names) as caught:
        list(tables.read(tmp_path / "a.csv", ("id", "n"), key="id"))
    assert str(tmp_path / "a.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["-1", "1.0", "", "x", "²"])
def test_whole_numbers(tmp_path, text):
    (tmp_path / "a.csv").write_text(f"id,n\na,{text}\n")
    (row,) = tables.read(tmp_path / "a.csv", ("n",))
    with pytest.raises(UserError, match="line 2'"):
        row.integer("n")


@pytest.mark.parametrize("text", ["../a", "/etc", "ab", "", "a/b/c", "a.b.c", "a\x00bc"])
def test_ids_are_no_paths(tmp_path, text):
    row = tables.Row(tmp_path / "a.csv", 2, {"id": text, "images": f"good {text or '.'}"})
    with pytest.raises(UserError, match="line 2': id "):
        row.name("id")
    with pytest.raises(UserError, match="line 2': images "):
        row.names("images")
