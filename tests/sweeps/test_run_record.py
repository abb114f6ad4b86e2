import dataclasses
import json

import pytest

from configs import default
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.sweeps import run_record
from delg_jax.sweeps.run_record import FILE, FINISHED, Record

CONFIG = default.get_config()


def finished(config=CONFIG, verbs=("train",)):
    return dataclasses.replace(
        Record.begin(config, verbs), status=FINISHED, metrics={"train": {"loss": 0.1}}
    )


def test_written_values_are_read_back(tmp_path):
    record = dataclasses.replace(finished(), error="é")
    record.write(tmp_path / "new")
    assert run_record.read(tmp_path / "new") == record
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


def test_a_record_of_an_earlier_version_has_no_sources(tmp_path):
    record = finished()
    record.write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    del content["sources"], content["checksum"]
    for checksum in ({}, {"checksum": record.checksum}):
        (tmp_path / FILE).write_text(json.dumps(content | checksum))
        assert run_record.read(tmp_path) == record


def test_the_digest_is_of_configuration_and_verbs():
    record = Record.begin(CONFIG, ("train",))
    assert record.digest == finished().digest == Record.begin(CONFIG, ["train"]).digest
    other = CONFIG.copy_and_resolve_references()
    other.train.steps += 1
    assert Record.begin(other, ("train",)).digest != record.digest
    assert Record.begin(CONFIG, ("train", "evaluate")).digest != record.digest


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"config": {"seed": 1}}, {"verbs": 3}, {"verbs": ["evaluate"]}]
)
def test_a_record_that_is_damaged_or_changed_does_not_count(tmp_path, change):
    assert run_record.read(tmp_path) is None
    finished().write(tmp_path)
    path = tmp_path / FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | change))
    assert run_record.read(tmp_path) is None
    for text in ("", "[]", "{}", json.dumps(content)[:-5]):
        path.write_text(text)
        assert run_record.read(tmp_path) is None
    path.write_bytes(b"\xff")
    assert run_record.read(tmp_path) is None


def test_only_a_finished_run_of_another_configuration_is_kept(tmp_path):
    other = CONFIG.copy_and_resolve_references()
    other.train.steps = 7
    wanted = Record.begin(other, ("train",))
    run_record.require_unchanged(tmp_path, wanted)
    Record.begin(CONFIG, ("train",)).write(tmp_path)
    run_record.require_unchanged(tmp_path, wanted)
    finished().write(tmp_path)
    run_record.require_unchanged(tmp_path, Record.begin(CONFIG, ("train", "evaluate")))
    with pytest.raises(UserError, match="config.train.steps: 1500000 -> 7"):
        run_record.require_unchanged(tmp_path, wanted)


def test_fields_that_are_new_or_of_another_engine_change_nothing(tmp_path):
    """A sweep resumes after an upgrade, unless a field that decides something is another."""
    before = {name: value for name, value in finished().config.items() if "search.ivf" not in name}
    dataclasses.replace(finished(), config=before).write(tmp_path)
    found = run_record.read(tmp_path)
    assert found.is_of(finished())
    assert not found.is_of(Record.begin(CONFIG, ("train", "evaluate")))
    ivf = configuration.override(CONFIG, {"search.engine": "ivf"})
    both = ("train", "evaluate")
    changes = found.changes(Record.begin(ivf, both))
    assert any("search.engine: 'exact' -> 'ivf'" in change for change in changes)
    old = dataclasses.replace(found, config={**before, "search.engine": "ivf"})
    (change,) = old.changes(Record.begin(ivf, both))
    assert change == "config.search.ivf.rounds: 0 -> 2"


@pytest.mark.parametrize(
    ("verbs", "changes", "same"),
    [
        (
            ("train",),
            {"data.workers": 3, "search.query_block": 7, "train.tensorboard": False},
            True,
        ),
        (("train",), {"train.learning_rate": 0.5}, False),
        (("train",), {"rerank.mds.weight": 0.5, "search.power": 3.0}, True),
        (("evaluate",), {"train.learning_rate": 0.5}, True),
        (("train", "evaluate"), {"train.learning_rate": 0.5}, False),
        (("evaluate",), {"search.max_features": 7}, False),
    ],
)
def test_fields_that_no_result_depends_on_never_refuse_a_run(tmp_path, verbs, changes, same):
    before = Record.begin(CONFIG, verbs)
    after = Record.begin(configuration.override(CONFIG, changes), verbs)
    assert before.is_of(after) == same
    dataclasses.replace(before, status=FINISHED).write(tmp_path)
    if same:
        run_record.require_unchanged(tmp_path, after)
    else:
        with pytest.raises(UserError, match=next(iter(changes))):
            run_record.require_unchanged(tmp_path, after)
