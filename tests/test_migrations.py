import json
import re
from pathlib import Path

import pytest

from configs import default
from delg_jax import configuration, migrations, workdir
from delg_jax.cli import arguments
from delg_jax.errors import UserError, require_choice

# Fields of the oldest version of tests/upgrades
FIRST = Path(__file__).parent / "upgrades" / "fields_1.json"
CHANGED_BY_DEFAULT = {
    "train.norm_momentum": 0.0,
    "data.reduced_decode": True,
    "train.best_metric": "auto",
    "train.eval_images": 50_000,
    "train.interrupted_status": 75,
    "search.ivf.rounds": 2,
    "search.estimated": 10_000,
}


def _first():
    return set(migrations.renamed(dict.fromkeys(json.loads(FIRST.read_text(encoding="utf-8")))))


def test_every_field_since_the_first_format_has_what_was_done_without_it():
    fields = configuration.flatten(default.get_config())
    assert set(migrations.ADDED) == set(fields) - _first()
    defaults = {name: fields[name] for name in migrations.ADDED}
    # What has become the default is not what was done
    assert defaults == {**migrations.ADDED, **CHANGED_BY_DEFAULT}


def test_an_older_output_is_used_unless_a_new_field_changes_it(tmp_path):
    config = default.get_config()
    workdir.Output.of(tmp_path, config, ("extract",)).claim()
    path = tmp_path / workdir.CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"] = {n: v for n, v in content["config"].items() if n not in migrations.ADDED}
    workdir.write_json(path, content)
    workdir.Output.of(tmp_path, config, ("extract",)).claim()
    assert workdir.Output.of(tmp_path, config, ("extract",)).is_there()
    other = configuration.override(config, {"extract.relup": 0.014})
    with pytest.raises(UserError, match=r"config\.extract\.relup: 0\.0 -> 0\.014"):
        workdir.Output.of(tmp_path, other, ("extract",)).claim()


def test_the_stored_configuration_wins():
    assert migrations.completed({"extract.relup": 0.5})["extract.relup"] == 0.5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"search.cells.count": 7}, {"search.ivf.count": 7}),
        ({"search.rarity_images": 3}, {"search.idf_images": 3}),
        ({"rerank.sp.residual": 2.0}, {"rerank.sp.inlier_threshold": 2.0}),
        ({"extract.suppression": 1}, {"extract.nms_radius": 1}),
        (
            {"data.name": "embedded", "data.embedded.size": "tiny"},
            {"data.name": "synthetic", "data.synthetic.size": "tiny"},
        ),
        ({"search.engine": "cells"}, {"search.engine": "ivf"}),
        ({"search.engine": "cann"}, {"search.engine": "cann"}),
    ],
)
def test_stored_fields_get_the_names_of_now(old, new):
    assert migrations.renamed(old) == new


def test_every_new_name_is_a_field_or_section_and_no_old_one_is():
    fields = configuration.flatten(default.get_config())
    for old, new in migrations.RENAMED.items():
        assert configuration.within(fields, (new,))
        assert not configuration.within(fields, (old,))


def test_an_output_from_before_the_renaming_is_found(tmp_path):
    config = configuration.override(
        default.get_config(), {"rerank.sp.inlier_threshold": 3.0, "search.ivf.count": 7}
    )
    workdir.Output.of(tmp_path, config, ("rerank", "search", "data")).claim()
    path = tmp_path / workdir.CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    old = {new: before for before, new in migrations.RENAMED.items()}
    for name in list(content["config"]):
        section = next((new for new in old if name == new or name.startswith(f"{new}.")), None)
        if section:
            content["config"][old[section] + name.removeprefix(section)] = content["config"].pop(
                name
            )
    content["config"]["data.name"] = "embedded"
    workdir.write_json(path, {name: v for name, v in content.items() if name != "checksum"})
    assert "rerank.sp.residual" in path.read_text(encoding="utf-8")
    assert workdir.Output.of(tmp_path, config, ("rerank", "search", "data")).is_there()
    assert workdir.stored_config(tmp_path)["search.ivf.count"] == 7


@pytest.mark.parametrize("old", [*migrations.RENAMED, "search.cells.count"])
def test_an_old_name_is_refused_with_the_new_one(old):
    old_name, new_name = (re.escape(f"config.{name}") for name in (old, migrations.new_name(old)))
    with pytest.raises(UserError, match=rf"{old_name} = 1: .*{new_name}\b"):
        configuration.override(default.get_config(), {old: 1})


@pytest.mark.parametrize("field", migrations.REMOVED)
def test_a_removed_field_is_refused_when_set_and_ignored_when_stored(tmp_path, field):
    config = default.get_config()
    rule = f"config.{field} = 'eigh': was removed: {migrations.REMOVED[field]}"
    with pytest.raises(UserError, match=re.escape(rule)):
        configuration.override(config, {field: "eigh"})
    argv = [f"--config.{field}=eigh"]
    error = arguments.explain(AttributeError(repr(field.rpartition(".")[2])), "delg evaluate", argv)
    assert str(error) == rule
    section = field.partition(".")[0]
    workdir.Output.of(tmp_path, config, (section,)).claim()
    path = tmp_path / workdir.CONFIG_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"][field] = "eigh"
    workdir.write_json(path, {name: v for name, v in content.items() if name != "checksum"})
    assert field in path.read_text(encoding="utf-8")
    assert workdir.Output.of(tmp_path, config, (section,)).is_there()
    assert field not in workdir.stored_config(tmp_path)


@pytest.mark.parametrize(("field", "old"), list(migrations.RENAMED_VALUES))
def test_an_old_value_is_refused_with_the_new_one(field, old):
    new = migrations.RENAMED_VALUES[field, old]
    with pytest.raises(UserError, match=rf"config\.{field} = '{old}': .*{new}$"):
        require_choice(f"config.{field}", old, (new, "other"))
