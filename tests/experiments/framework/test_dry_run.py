import dataclasses
import json

import pytest

from configs import delg_r50_gld, revisited
from delg_jax import configuration
from experiments.benchmarks import bench_all
from experiments.framework import dry_run, plan
from experiments.framework.experiment import Base, Experiment, Row, Setting, Size, map_columns
from experiments.framework.plan import Options
from experiments.framework.trainings import FLOWING, JOINT

# Units per second of each case, and what it was measured at
RATES = {
    "train": (2.0, {"side": 512}),
    "extract_r50_7": (4.0, {"long": 1024, "short": 768}),
    "verify": (100.0, {}),
    "global_one": (0.5, {"images": 1000}),
    "local": (0.25, {"features": 10, "images": 40}),
}
SIZE = Size(
    about="",
    training=Base(delg_r50_gld.get_config),
    evaluation=Base(revisited.get_config),
    data={"oxford": {"data.name": "revisited_oxford"}},
    of_paper=True,
)
METHODS = ("global", "global+sp", "local")
EXPERIMENT = Experiment(
    name="toy",
    place="Table 0",
    columns=map_columns("oxford", "ROxf", ("medium",)),
    rows=(Row("a", (Setting("a", METHODS, JOINT),)), Row("b", (Setting("b", ("global",), JOINT),))),
    sizes={"paper": SIZE},
)


@pytest.fixture
def rates(tmp_path):
    for name, (speed, size) in RATES.items():
        for kind in ("Brand", "Other"):
            rate = speed if kind == "Brand" else 2 * speed
            result = {"name": name, "size": size, "implementations": [{"units_per_second": rate}]}
            result["environment"] = {"processor": kind}
            if (kind, name) != ("Other", "train"):
                bench_all.path_of(tmp_path, name, kind).write_text(json.dumps(result))
    return dry_run.Rates(tmp_path)


def options(tmp_path, **changes):
    return Options("paper", tmp_path, "DATA", "WEIGHTS", changes=changes)


def test_a_training_takes_the_time_of_its_images(tmp_path, rates, monkeypatch):
    monkeypatch.setattr(dry_run, "_parameters", lambda model: 1_000_000)  # they take no time
    step = dry_run.steps(EXPERIMENT, options(tmp_path), rates)[0]
    assert (step.name, step.images) == ("train joint_0", 24_000_000)
    assert step.epochs == pytest.approx(25)
    assert step.seconds == {"Brand": pytest.approx(12_000_000)}  # one machine lacks a case
    deep = {"model.backbone": "resnet101", "data.image_size": 1024}
    step = dry_run.steps(EXPERIMENT, options(tmp_path, **deep), rates)[0]
    assert step.seconds["Brand"] == pytest.approx(12_000_000 * 4 * 1.9)


def test_a_checkpoint_holds_parameters_and_momentum(tmp_path, rates):
    step = dry_run.steps(EXPERIMENT, options(tmp_path), rates)[0]
    classifiers = 14_951 * (2048 + 1024)
    backbone = 23.5e6 + 2048 * 2048 + 1024 * 512 + 2 * 1024 * 128
    assert step.bytes == pytest.approx(11 * 8 * (classifiers + backbone), rel=0.02)


def test_an_evaluation_extracts_once_and_ranks_by_every_method(tmp_path, rates):
    _, first, second = dry_run.steps(EXPERIMENT, options(tmp_path), rates)
    assert (first.images, second.images) == (4_993 + 70, 0)
    assert first.rankings == 4 * 70 * 4_993 * (1 + 3 + 1)  # verified for each protocol
    assert second.bytes == second.rankings == 4 * 70 * 4_993
    compared = 70 * 4_993 / 500
    assert second.seconds["Brand"] == pytest.approx(compared)
    config = configuration.override(
        plan.base(SIZE.evaluation, options(tmp_path)), {"data.name": "revisited_oxford"}
    )
    verified = 70 * 3 * config.rerank.sp.short_list * config.rerank.sp.max_features / 1000 / 100
    local = 70 * 4_993 * config.search.max_features**2 / (0.25 * 100 * 40)
    extracted = (4_993 + 70) / 4
    assert first.seconds["Brand"] == pytest.approx(extracted + compared + verified + local)


def test_lists_of_google_landmarks_are_as_long_as_its_tasks_need(tmp_path, rates):
    size = dataclasses.replace(SIZE, data={"oxford": {"data.name": "gldv2_recognition"}})
    one = dataclasses.replace(EXPERIMENT, sizes={"paper": size})
    short = {"eval.methods": ("global", "global+sp"), "rerank.sp.short_list": 30}
    step = dry_run.steps(one, options(tmp_path, **short), rates)[1]
    assert step.rankings == 4 * 117_577 * 30 * 2
    whole = {"eval.methods": ("global+diffusion",)}
    step = dry_run.steps(one, options(tmp_path, **whole), rates)[1]
    assert step.rankings == 4 * 117_577 * 4_132_914


def test_the_table_has_a_row_for_each_step_and_their_sum(tmp_path, rates):
    one = dataclasses.replace(
        EXPERIMENT, rows=(*EXPERIMENT.rows, Row("c", (Setting("c", (), FLOWING),)))
    )
    found = dry_run.steps(one, options(tmp_path), rates)
    lines = dry_run.table(one, options(tmp_path), found).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert rows[0] == ["run", "images", "epochs", "GB written", "hours, Brand"]
    assert rows[2][:3] == ["train joint_0", "24,000,000", "25.0"]
    assert rows[-1][0] == "2 trainings, 3 evaluations"
    hours = [float(row[-1].replace(",", "")) for row in rows[2:]]
    assert hours[-1] == pytest.approx(sum(hours[:-1]), abs=0.05)


def test_without_rates_there_are_no_hours(tmp_path):
    found = dry_run.steps(EXPERIMENT, options(tmp_path), dry_run.Rates(tmp_path / "none"))
    assert found[0].images == 24_000_000
    assert all(step.seconds == {} for step in found)
    assert "hours" not in dry_run.table(EXPERIMENT, options(tmp_path), found).splitlines()[2]
