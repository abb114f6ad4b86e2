import json

import pytest

from delg_jax import json_files
from delg_jax.errors import UserError
from delg_jax.json_files import count, each, every, fields, finite, known, number, text

_SHAPE = fields({"name": text, "values": every(known)}, {"counts": each(count), "far": number})


def read(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return json_files.read(path, "thing", _SHAPE, "make it again")


@pytest.mark.parametrize(
    "content",
    [
        {"name": "", "values": []},
        {"name": "a", "values": [1, None, -2.5], "counts": {}, "more": [{}]},
        {"name": "a", "values": [], "counts": {"x": 0}, "far": float("inf")},
    ],
)
def test_what_passes_is_read_as_it_is(tmp_path, content):
    assert read(tmp_path, content) == content


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "must be whole JSON"),
        ("[" * 100_000, "must be whole JSON"),
        ([], "all of it must be an object"),
        ({"values": []}, "name must be there"),
        ({"name": 1, "values": []}, "name must be a text"),
        ({"name": "a", "values": {}}, "values must be a list"),
        ({"name": "a", "values": [1, "2"]}, r"values\[2\] must be a number"),
        ({"name": "a", "values": [True]}, r"values\[1\] must be a number"),
        ({"name": "a", "values": [10**400]}, r"values\[1\] must be a number"),
        ({"name": "a", "values": [float("nan")]}, r"values\[1\] must be finite"),
        ({"name": "a", "values": [], "counts": {"x": -1}}, "counts.x must be a count"),
        ({"name": "a", "values": [], "counts": {"x": 1.0}}, "counts.x must be a count"),
    ],
)
def test_what_does_not_pass_is_named_with_its_place(tmp_path, content, rule):
    with pytest.raises(UserError, match=f"thing = .*a.json.*{rule}.*; make it again"):
        read(tmp_path, content)


def test_an_absent_file_is_none_and_has_no_lines(tmp_path):
    assert json_files.read(tmp_path / "none", "thing", finite) is None
    assert json_files.read_lines(tmp_path / "none", "thing", finite) == []


def test_half_a_line_at_the_end_is_not_read(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert json_files.read_lines(path, "thing", each(finite)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("line", ['{"a": "x"}', "a}", '{"a": 1}{"a": 1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2"):
        json_files.read_lines(path, "thing", each(finite))
