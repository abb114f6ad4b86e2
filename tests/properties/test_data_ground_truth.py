import json
import pickle

import pytest
from hypothesis import strategies as st

from delg_jax.data import ground_truth
from delg_jax.errors import UserError
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import damaged

_ENTRY = {"bbx": [1.0, 2, 30, 40.5], "easy": [0], "hard": [2], "junk": []}
_CONTENT = {
    "imlist": ["a", "b", "ü"],
    "qimlist": ["q", "r"],
    "gnd": [_ENTRY, {**_ENTRY, "easy": [1, 2]}],
}
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def _require_whole(content):
    """What every use of a ground truth relies on."""
    images = len(content["imlist"])
    assert images
    assert content["qimlist"]
    assert all(isinstance(name, str) for name in (*content["imlist"], *content["qimlist"]))
    assert len(content["gnd"]) == len(content["qimlist"])
    for entry in content["gnd"]:
        assert len(entry["bbx"]) == 4
        assert all(-1e308 <= side <= 1e308 for side in entry["bbx"])
        for name in ("easy", "hard", "junk"):
            assert all(0 <= index < images for index in entry[name])
            assert not any(isinstance(index, bool) for index in entry[name])


@pytest.fixture(scope="module")
def wholes():
    pickled = tuple(pickle.dumps(_CONTENT, protocol) for protocol in (0, 2, 4, 5))
    return (json.dumps(_CONTENT).encode(), *pickled)


@cases(500)
def test_damaged_files_are_whole_or_refused(wholes, tmp_path, examples):
    def check(case):
        data, suffix = case
        path = tmp_path / f"gnd{suffix}"
        path.write_bytes(data)
        found = outcome(lambda: ground_truth.read(path))
        if not isinstance(found, UserError):
            _require_whole(found)

    hold(examples, check, st.tuples(damaged(wholes), st.sampled_from((".pkl", ".json"))))


@cases(300)
def test_other_content_is_whole_or_refused(tmp_path, examples):
    def check(case):
        field, inner, value = case
        entry = {**_ENTRY, inner: value} if inner else _ENTRY
        content = {**_CONTENT, "gnd": [entry, _ENTRY]}
        if field:
            content[field] = value
        for suffix, dump in ((".pkl", pickle.dumps), (".json", lambda c: json.dumps(c).encode())):
            path = tmp_path / f"gnd{suffix}"
            path.write_bytes(dump(content))
            found = outcome(lambda path=path: ground_truth.read(path))
            if not isinstance(found, UserError):
                _require_whole(found)

    fields = st.sampled_from(("imlist", "qimlist", "gnd", ""))
    inner = st.sampled_from(("bbx", "easy", "hard", "junk", ""))
    numbers = st.lists(st.integers(-1, 4) | st.booleans() | st.floats(), max_size=4)
    hold(examples, check, st.tuples(fields, inner, _ANYTHING | numbers))
