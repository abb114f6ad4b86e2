import json

import pytest

from delg_jax.errors import UserError
from delg_jax.features.storage.index import read_index
from delg_jax.features.storage.rows import Layout

WHOLE = {
    "format": 2,
    "images": 3,
    "name_bytes": 64,
    "deleted": False,
    "finished": True,
    "layout": Layout()._asdict(),
}


def write(folder, content):
    (folder / "store.json").write_text(content)
    return folder


def test_an_index_comes_back(tmp_path):
    whole = {**WHOLE, "digest": "abc"}
    assert read_index(write(tmp_path, json.dumps(whole))) == whole


def test_an_index_of_an_earlier_version_has_no_digest(tmp_path):
    assert read_index(write(tmp_path, json.dumps(WHOLE))) == {**WHOLE, "digest": ""}


@pytest.mark.parametrize("length", [0, 1, 30, 100, 200])
def test_an_index_that_was_cut_is_refused(tmp_path, length):
    with pytest.raises(UserError, match="JSON.* --overwrite"):
        read_index(write(tmp_path, json.dumps(WHOLE)[:length]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", "3"),
        ("name_bytes", None),
        ("deleted", 1),
        ("finished", "yes"),
        ("format", 3),
        ("digest", 1),
    ],
)
def test_an_index_of_other_values_is_refused(tmp_path, name, value):
    content = json.dumps({**WHOLE, name: value})
    with pytest.raises(UserError, match="feature store = .* --overwrite"):
        read_index(write(tmp_path, content))


def without(name):
    return {key: value for key, value in WHOLE.items() if key != name}


@pytest.mark.parametrize(
    "content",
    [
        *([], 3, "text", {}),
        *(without(name) for name in WHOLE),
        {**WHOLE, "layout": {**WHOLE["layout"], "colour": 1}},
    ],
    ids=str,
)
def test_a_file_that_is_no_index_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="feature store = "):
        read_index(write(tmp_path, json.dumps(content)))
