import json
import math

import pytest

from delg_jax import json_files
from delg_jax.errors import UserError
from delg_jax.json_files import anything, count, each, every, fields, finite, known, number, text
from tests.flips import flips

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
def test_a_checked_value_is_read_unchanged(tmp_path, content):
    assert read(tmp_path, content) == content


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "JSON"),
        ({"name": "a", "values": json.loads("[" * 101 + "]" * 101)}, "100 levels"),
        ([], "object"),
        ({"values": []}, "name "),
        ({"name": 1, "values": []}, "name .*string"),
        ({"name": "a", "values": {}}, "values .*list"),
        ({"name": "a", "values": [1, "2"]}, r"values\[2\] .*number"),
        ({"name": "a", "values": [True]}, r"values\[1\] .*number"),
        ({"name": "a", "values": [10**400]}, r"values\[1\] .*number"),
        ({"name": "a", "values": [float("nan")]}, r"values\[1\] .*finite"),
        ({"name": "a", "values": [], "counts": {"x": -1}}, r"counts\.x .*count"),
        ({"name": "a", "values": [], "counts": {"x": 1.0}}, r"counts\.x .*count"),
    ],
)
def test_a_failed_check_is_named_with_its_place(tmp_path, content, names):
    with pytest.raises(UserError, match=rf"thing = .*a\.json': .*{names}.*; make it again"):
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


_CONTENT = {"name": "Zürich", "values": (1, None, -2.5e-7), "counts": {"b": 2, "a": 1}}


def test_a_checksum_is_added_and_removed(tmp_path):
    expected = {**_CONTENT, "values": list(_CONTENT["values"])}
    written = json_files.signed(_CONTENT)
    assert written.pop("checksum").startswith("crc32:")
    assert written == expected
    assert read(tmp_path, json_files.signed(_CONTENT)) == expected
    assert read(tmp_path, json_files.signed(json_files.signed(_CONTENT))) == expected
    assert read(tmp_path, _CONTENT) == expected  # of earlier versions
    special = json_files.signed({"name": "", "values": [], "far": float("inf")})
    assert read(tmp_path, special)["far"] == math.inf


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Zurich"},
        {"values": [1, None]},
        {"more": 1},
        {"checksum": ""},
        {"checksum": None},
        {"checksum": "crc32:00000000"},
    ],
)
def test_changed_content_is_noticed(tmp_path, change):
    with pytest.raises(UserError, match="checksum.*; make it again"):
        read(tmp_path, {**json_files.signed(_CONTENT), **change})


def test_every_flipped_bit_of_a_file_is_noticed_or_changes_nothing(tmp_path):
    expected = read(tmp_path, json_files.signed(_CONTENT))
    refused = 0
    for _ in flips(tmp_path / "a.json"):
        try:
            assert json_files.read(tmp_path / "a.json", "thing", anything) == expected
        except UserError:
            refused += 1
    assert refused > 500


def test_every_flipped_bit_of_lines_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "lines"
    records = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": math.inf}, {"step": 3}]
    path.write_text("".join(map(json_files.line, records)))
    assert json_files.read_lines(path, "thing", each(number)) == records
    refused = 0
    for _ in flips(path):
        try:
            assert json_files.read_lines(path, "thing", anything) == records
        except UserError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize("end", [0, 1, 9, 30])
def test_only_what_a_kill_left_of_the_last_line_is_not_read(tmp_path, end):
    path = tmp_path / "lines"
    first, second = json_files.line({"step": 1}), json_files.line({"step": 2})
    path.write_text(first + second[:end])
    assert json_files.read_lines(path, "thing", anything) == [{"step": 1}]
    path.write_text(first + second[:-1])
    assert json_files.read_lines(path, "thing", anything) == [{"step": 1}, {"step": 2}]
    path.write_text(first[:-3] + "\n" + second)
    with pytest.raises(UserError, match="line 1"):
        json_files.read_lines(path, "thing", anything)
