import json
from pathlib import Path

import pytest

from configs import default
from delg_jax import configuration, upgrades, workdir
from delg_jax.errors import UserError

# Fields of the oldest version of tests/upgrades
FIRST = Path(__file__).parent / "upgrades" / "fields_1.json"
CHANGED_BY_DEFAULT = {
    "data.reduced_decode": True,
    "train.best_metric": "validation_global_accuracy",
    "search.cells.rounds": 2,
}


def test_every_field_since_the_first_format_has_what_was_done_without_it():
    fields = configuration.flatten(default.get_config())
    assert set(upgrades.ADDED) == set(fields) - set(json.loads(FIRST.read_text(encoding="utf-8")))
    defaults = {name: fields[name] for name in upgrades.ADDED}
    # What has become the default is not what was done
    assert defaults == {**upgrades.ADDED, **CHANGED_BY_DEFAULT}


def test_an_artefact_of_before_is_found_unless_a_new_field_changes_it(tmp_path):
    config = default.get_config()
    workdir.claim(tmp_path, config, ("extract",))
    path = tmp_path / workdir.CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"] = {n: v for n, v in content["config"].items() if n not in upgrades.ADDED}
    workdir.write_json(path, content)
    workdir.claim(tmp_path, config, ("extract",))
    assert workdir.is_of(tmp_path, config, ("extract",))
    other = configuration.override(config, {"extract.relup": 0.014})
    with pytest.raises(UserError, match=r"config\.extract\.relup: 0\.0 -> 0\.014"):
        workdir.claim(tmp_path, other, ("extract",))


def test_what_is_stored_wins():
    assert upgrades.completed({"extract.relup": 0.5})["extract.relup"] == 0.5
