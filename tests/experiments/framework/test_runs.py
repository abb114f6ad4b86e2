import dataclasses

import pytest

from configs import quickstart
from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.sweeps import sweep
from experiments.framework import runs
from experiments.framework.experiment import Base, Row, Setting, Size
from experiments.framework.plan import Options
from tests.experiments.framework.test_plan import EXPERIMENT
from tests.photographs import make_revisited
from tests.tiny import revisited_config

BASE = quickstart.get_config("smoke")


@pytest.fixture
def stubs(monkeypatch):
    """Replaces the verbs by functions that record their calls."""
    noted = []

    def train(config, workdir, overwrite):
        noted.append(("train", workdir.parent.name, workdir.name))
        if config.train.heads == "local":
            raise UserError("config.train.heads", "local", "is out of order")
        return {}

    def evaluate(config, workdir, overwrite):
        noted.append(("evaluate", workdir.parent.name, workdir.name))
        assert (workdir / "features").resolve().name == runs.digest(config)
        return {"methods": {}}

    monkeypatch.setattr(sweep, "VERBS", {"train": train, "evaluate": evaluate})
    return noted


def options(tmp_path):
    (tmp_path / "photographs").mkdir(exist_ok=True)
    return Options("quick", tmp_path, data=str(tmp_path))


def test_networks_are_trained_before_the_evaluations(stubs, tmp_path):
    results, trained = runs.execute(EXPERIMENT, options(tmp_path))
    assert stubs == [
        ("train", "trained", "first_0"),
        ("train", "trained", "second_0"),
        ("evaluate", "evaluated", "shared_one_0"),
        ("evaluate", "evaluated", "shared_two_0"),
        ("evaluate", "evaluated", "other_one_0"),
        ("evaluate", "evaluated", "other_two_0"),
    ]
    assert [bool(result.error) for result in trained] == [False, True]
    assert set(results) == {(s, d, 0) for s in ("shared", "other") for d in ("one", "two")}


def test_finished_runs_are_not_repeated(stubs, tmp_path):
    runs.execute(EXPERIMENT, options(tmp_path))
    done = len(stubs)
    results, _ = runs.execute(EXPERIMENT, options(tmp_path))
    assert stubs[done:] == [("train", "trained", "second_0")]  # which had failed
    assert all(result.metrics["evaluate"] == {"methods": {}} for result in results.values())


def test_a_measure_replaces_the_evaluation(stubs, tmp_path):
    measured = dataclasses.replace(
        EXPERIMENT, measure=lambda config: {"threshold": config.search.threshold}
    )
    results, _ = runs.execute(measured, options(tmp_path))
    assert results["other", "one", 0].metrics == {"evaluate": {"threshold": 0.5}}
    assert not [note for note in stubs if note[0] == "evaluate"]


def test_settings_that_differ_only_in_matching_share_features(tmp_path):
    root = make_revisited(tmp_path / "photographs")
    config = revisited_config(root)
    fields = {"rerank.sp.one_bit": True, "rerank.sp.max_distance": 1.2}
    size = Size("here", Base(lambda argument: config), {"one": {}})
    rows = (
        Row("float", (Setting("float", ("global+sp",)),), "global+sp"),
        Row("bit", (Setting("bit", ("global+sp",), None, fields),), "global+sp"),
    )
    one = dataclasses.replace(EXPERIMENT, rows=rows, sizes={"quick": size}, claims=())
    results, trained = runs.execute(one, Options("quick", tmp_path / "run"))
    assert trained == []
    assert [result.error for result in results.values()] == ["", ""]
    (shared,) = (tmp_path / "run" / "features").iterdir()
    assert {path.name for path in shared.iterdir() if path.is_dir()} == {"database", "queries"}
    folders = [tmp_path / "run" / "evaluated" / f"{name}_one_0" for name in ("float", "bit")]
    assert {(folder / "features").resolve() for folder in folders} == {shared.resolve()}
    first, folder = runs.first_evaluation(one, Options("quick", tmp_path / "run"))
    assert folder == folders[0]
    assert configuration.difference(
        configuration.flatten(first), configuration.flatten(config)
    ) == ["config.eval.methods: ['global+sp'] -> ['global', 'global+sp', 'local', 'local+mds']"]


def changed(**fields):
    return configuration.override(BASE, {f.replace("__", "."): v for f, v in fields.items()})


def test_the_digest_depends_only_on_fields_that_decide_features():
    name = runs.digest(BASE)
    same = changed(rerank__sp__one_bit=True, search__threshold=0.1, eval__methods=("local",))
    assert runs.digest(same) == name
    for other in (
        changed(model__checkpoint="elsewhere"),
        changed(seed=1),
        changed(extract__max_features=7),
        changed(data__root="elsewhere"),
    ):
        assert runs.digest(other) != name


def test_a_field_that_a_version_adds_keeps_the_digest():
    earlier = BASE.copy_and_resolve_references().unlock()
    del earlier.extract.relup
    assert runs.digest(earlier) == runs.digest(BASE)
    assert runs.digest(changed(extract__relup=0.5)) != runs.digest(BASE)


def test_features_are_linked_by_configuration(tmp_path):
    shared = tmp_path / "features"
    runs.link(BASE, tmp_path / "a", shared)
    runs.link(changed(rerank__sp__ratio=0.9), tmp_path / "b", shared)
    (tmp_path / "a" / "features" / "database").mkdir()
    assert (tmp_path / "b" / "features" / "database").is_dir()
    runs.link(changed(seed=1), tmp_path / "b", shared)
    assert not (tmp_path / "b" / "features" / "database").exists()
    assert len(list(shared.iterdir())) == 2


def test_features_extracted_in_place_are_kept(tmp_path):
    (tmp_path / "a" / "features" / "database").mkdir(parents=True)
    runs.link(BASE, tmp_path / "a", tmp_path / "features")
    assert not (tmp_path / "a" / "features").is_symlink()
