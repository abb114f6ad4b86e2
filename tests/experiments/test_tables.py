"""Every table of the papers: its place, its numbers, and that all its runs can be configured."""

import json

import pytest

from delg_jax import configuration
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.sweeps import sweep
from experiments import figures
from experiments.framework import dry_run, plan
from experiments.framework.experiment import SIZES
from experiments.framework.plan import Options
from experiments.local_to_global import table
from experiments.tables import (
    figure3_sparsity,
    latency_memory,
    paper_claims,
    pretrained_weights,
    table1_local_ablation,
    table2_global_ablation,
    table3_retrieval,
    table4_gldv2,
    table5_reranking,
)

MODULES = {
    "table1_local_ablation": table1_local_ablation,
    "table2_global_ablation": table2_global_ablation,
    "table3_retrieval": table3_retrieval,
    "table4_gldv2": table4_gldv2,
    "table5_reranking": table5_reranking,
    "latency_memory": latency_memory,
    "local_to_global": table,
    "paper_claims": paper_claims,
    "pretrained_weights": pretrained_weights,
}
EXPERIMENTS = [module.EXPERIMENT for module in MODULES.values()]
AT_SIZES = [(one, size) for one in EXPERIMENTS for size in one.sizes]
SMOKE = (
    "data.synthetic.size=tiny",
    "data.image_size=64",
    "train.steps=3",
    "train.warmup_steps=1",
    "train.batch_size=8",
    "train.eval_every=3",
    "train.checkpoint_every=3",
    "extract.max_features=40",
    "rerank.sp.hypotheses=20",
)
# After a step of training hardly a feature of other images is above a quantile of training's
FEW_PAIRS = ("eval.pairs=4", "eval.negative_pairs=9", "extract.attention_quantile=0.0")


def title(case):
    return f"{case[0].name}-{case[1]}"


@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_a_table_says_where_it_stands(one):
    module = MODULES[one.name]
    assert one.place
    assert f"python -m {module.__name__} --size={list(one.sizes)[-1]}" in module.__doc__
    assert "quick" in one.sizes or one is pretrained_weights.EXPERIMENT  # nothing is trained
    assert "paper" in one.sizes or not any(row.paper for row in one.rows)
    titles = [column.title for column in one.columns]
    assert len(set(titles)) == len(titles)
    for row in one.rows:
        assert set(row.paper) <= set(titles)
        assert row.settings


@pytest.mark.parametrize("changes", [{}, {"train.batch_size": 512}], ids=["recipe", "batch 512"])
def test_trainings_of_the_paper_see_its_images(changes, tmp_path):
    """1.5M updates of 16 images, and 500k for local heads that are trained separately."""
    options = Options("paper", tmp_path, str(tmp_path), str(tmp_path), changes=changes)
    seen = {}
    for one in EXPERIMENTS:
        if "paper" not in one.sizes or one.sizes["paper"].training is None:
            continue
        base = plan.base(one.sizes["paper"].training, options)
        for run in plan.trainings(one, options):
            train = configuration.override(base, run.overrides).train
            seen[run.name] = (train.heads == "local", train.steps * train.batch_size)
    assert {is_local for is_local, _ in seen.values()} == {True, False}
    for is_local, images in seen.values():
        assert images == pytest.approx(8e6 if is_local else 24e6, rel=1e-4)


@pytest.mark.parametrize("case", AT_SIZES, ids=title)
def test_rows_differ_and_claims_are_about_rows(case):
    one, size = case
    names = [row.name for row in one.rows_at(size)]
    assert names
    assert len(set(names)) == len(names)
    every = {row.name for row in one.rows}
    assert all({claim.better, claim.worse} <= every for claim in one.claims)


@pytest.mark.parametrize("case", AT_SIZES, ids=title)
def test_every_run_is_a_configuration(case, tmp_path):
    one, size = case
    options = Options(size, tmp_path, "data", "weights")
    base = plan.base(one.sizes[size].evaluation, options)
    found = plan.evaluations(one, options)
    assert len({run.name for _, run in found.values()}) == len(found)
    for _, run in found.values():
        build(configuration.override(base, run.overrides).model)
    trained = plan.trainings(one, options)
    for run in trained:
        network = plan.base(one.sizes[size].training, options)
        build(configuration.override(network, run.overrides).model)
    folders = {str(tmp_path / "trained" / run.name) for run in trained}
    for run in [run for _, run in found.values()] + trained:
        checkpoint = run.overrides.get("model.checkpoint")
        assert checkpoint is None or checkpoint in folders


@pytest.mark.parametrize("size", ["paper", "real", "quick"])
def test_tables_share_networks_of_one_name(size, tmp_path):
    known = {}
    for one in EXPERIMENTS:
        if size in one.sizes:
            for run in plan.trainings(one, Options(size, tmp_path)):
                assert known.setdefault(run.name, run) == run


@pytest.mark.parametrize("size", ["paper", "real", "quick"])
def test_a_network_is_evaluated_as_it_was_trained(size, tmp_path):
    for one in EXPERIMENTS:
        if size not in one.sizes or one.sizes[size].training is None:
            continue
        options = Options(size, tmp_path)
        networks = plan.base(one.sizes[size].training, options)
        base = plan.base(one.sizes[size].evaluation, options)
        trained = {
            str(tmp_path / "trained" / run.name): run for run in plan.trainings(one, options)
        }
        for _, run in plan.evaluations(one, options).values():
            origin = trained[run.overrides["model.checkpoint"]]
            models = [
                configuration.flatten(configuration.override(tree, each.overrides).model)
                for tree, each in ((networks, origin), (base, run))
            ]
            free = ("checkpoint", "pretrained", "pretrained_source")
            shown = [{n: v for n, v in model.items() if n not in free} for model in models]
            assert shown[0] == shown[1], run.name


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("table1_local_ablation", "PCA", "pairs AP", 51.48),
        ("table1_local_ablation", "AE, λ = 10", "pairs AP", 54.21),
        ("table1_local_ablation", "AE, λ = 10, joint", "pairs AP", 37.05),
        ("table2_global_ablation", "SPoC, softmax", "RPar Hard", 47.7),
        ("table2_global_ablation", "GeM, ArcFace, joint", "RPar Medium", 78.9),
        ("table2_global_ablation", "GeM, ArcFace, joint, stopped", "ROxf Hard", 45.1),
        ("table3_retrieval", "R50 global", "ROxf+1M Medium", 55.0),
        ("table3_retrieval", "R50 global", "RPar+1M Hard", 34.1),
        ("table3_retrieval", "R50-DELG", "ROxf Hard", 53.7),
        ("table3_retrieval", "R50-DELG*", "ROxf+1M Hard", 35.3),
        ("table3_retrieval", "R101-DELG, 3 scales", "RPar Hard", 62.7),
        ("table3_retrieval", "R101-DELG*", "RPar+1M Medium", 62.4),
        ("table4_gldv2", "R50-DELG", "recognition GAP", 56.8),
        ("table4_gldv2", "R101 global", "retrieval mAP@100", 21.7),
        ("table5_reranking", "SIFT", "ROxf Hard", 44.4),
        ("table5_reranking", "DELG", "ROxf Medium", 75.4),
        ("latency_memory", "R101-DELG, 7 scales", "ms an image", 383.0),
        ("latency_memory", "R50-DELG, 7 scales", "GB, global and local float", 485.0),
    ],
)
def test_numbers_are_those_of_the_paper(name, row, column, value):
    rows = {row.name: row for row in MODULES[name].EXPERIMENT.rows_at("paper")}
    assert rows[row].paper[column] == value


def test_numbers_that_the_paper_lacks_are_not_there():
    rows = {row.name: row for row in MODULES["table3_retrieval"].EXPERIMENT.rows}
    assert set(rows["R50-DELG*"].paper) == {
        f"{data}+1M {protocol}" for data in ("ROxf", "RPar") for protocol in ("Medium", "Hard")
    }
    assert not rows["R50-DELG, 3 scales"].paper


@pytest.mark.parametrize("name", [*MODULES, "figure3_sparsity"])
def test_the_plan_of_every_table_at_its_largest_size(name, capsys, tmp_path, monkeypatch):
    """It opens and writes nothing, and nothing is trained twice or ranked without bound."""
    # Tracing every network takes seconds; see tests/experiments/framework/test_dry_run.py
    monkeypatch.setattr(dry_run, "_parameters", lambda model: 1_000_000)
    module = MODULES.get(name, figure3_sparsity)
    one = module.EXPERIMENT
    size = next(size for size in SIZES if size in one.sizes)
    flags = [f"--workdir={tmp_path / 'w'}", f"--size={size}", "--plan"]
    assert run_experiment(module, flags) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"# {one.place}, size {size}: plan")
    options = Options(size, tmp_path, "DATA", "WEIGHTS")
    steps = dry_run.steps(one, options, dry_run.Rates(figures.RESULTS))
    trained = [step for step in steps if step.epochs is not None]
    assert f"| {len(trained)} trainings, {len(steps) - len(trained)} evaluations " in output
    assert all(step.images > 0 and step.bytes > 0 for step in trained)
    assert sum(step.rankings for step in steps) < 30e9  # bytes
    assert list(tmp_path.iterdir()) == []
    if size == "paper":
        by_start = {"local": 8e6, "joint": 24e6, "global": 24e6}
        for step in trained:
            kind = step.name.removeprefix("train ").partition("_")[0]
            assert step.images == pytest.approx(by_start[kind], rel=1e-4)


def test_table_1_trains_one_global_network_and_compares_pairs_of_google_landmarks(tmp_path):
    one, options = table1_local_ablation.EXPERIMENT, Options("paper", tmp_path, "D", "W")
    names = [run.name for run in plan.trainings(one, options)]
    assert [name for name in names if name.startswith("global")] == ["global_0"]
    base = plan.base(one.sizes["paper"].evaluation, options)
    for _, run in plan.evaluations(one, options).values():
        config = configuration.override(base, run.overrides)
        assert (config.data.name, config.data.root) == ("gldv1", "D/gldv1")
        assert (config.eval.pairs, config.eval.negative_pairs) == (1000, 199_000)


@pytest.mark.parametrize("case", AT_SIZES, ids=title)
def test_columns_of_other_data_do_not_have_the_titles_of_the_paper(case):
    one, size = case
    if one.sizes[size].of_paper or one.name == "latency_memory":
        return
    published = {title for row in one.rows for title in row.paper}
    published |= {column.title for column in one.columns if column.title[:4] in ("ROxf", "RPar")}
    assert published.isdisjoint(column.title for column in one.columns_at(size))


def stub(config, workdir, overwrite):
    scores = {p: {"map": 10.0} for p in ("easy", "medium", "hard")}
    aps = {p: [8.0, 12.0] for p in ("easy", "medium", "hard")}
    methods = config.eval.methods
    return {
        "methods": dict.fromkeys(methods, scores),
        "average_precisions": dict.fromkeys(methods, aps),
        "query_landmarks": list(range(len(next(iter(aps.values()))))),
    }


@pytest.fixture
def instant(monkeypatch):
    verbs = {"train": lambda config, workdir, overwrite: {}, "evaluate": stub}
    monkeypatch.setattr(sweep, "VERBS", verbs)


@pytest.mark.parametrize("name", ["table2_global_ablation", "local_to_global"])
def test_a_table_is_printed_and_written(instant, name, capsys, tmp_path):
    arguments = [f"--workdir={tmp_path}", f"--results={tmp_path}", "--size=quick", "--seed=1"]
    assert run_experiment(MODULES[name], arguments) == 0
    output = capsys.readouterr().out
    assert "10.00 [8.00, 12.00]" in output
    assert output == (tmp_path / f"{name}_quick.md").read_text()
    content = json.loads((tmp_path / f"{name}_quick.json").read_text())
    assert content["seeds"] == [1]
    assert not content["failures"]


def test_sift_without_opencv_is_one_line_at_the_end(instant, monkeypatch, capsys, tmp_path):
    def absent():
        raise UserError("package", "opencv-python-headless", "is not installed")

    monkeypatch.setattr("delg_jax.features.formats.sift.require_opencv", absent)
    arguments = [f"--workdir={tmp_path}", f"--results={tmp_path}", "--size=quick"]
    assert run_experiment(table5_reranking, arguments) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert "16 of" in last
    assert "opencv" in last
    assert "| DELG " in captured.out


@pytest.mark.parametrize(
    "mistake",
    ["--size=huge", "--set=seed", "--set=train.stepz=1", "--datasets=paris", "--seed=a", "stray"],
)
def test_invalid_flags_are_one_line_errors(capsys, tmp_path, mistake):
    arguments = [f"--workdir={tmp_path}", "--size=quick", mistake]
    assert run_experiment(table, arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_folder_of_images_is_a_one_line_error(capsys, tmp_path):
    folders = [f"--data={tmp_path}", f"--weights={tmp_path}"]
    assert run_experiment(table, [f"--workdir={tmp_path}", "--size=real", *folders]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"delg: --data = {str(tmp_path)!r}: ")
    assert "roxford5k_1614" in line


@pytest.mark.parametrize(
    "case",
    [(one, size) for one, size in AT_SIZES if size != "quick" and one.name != "latency_memory"],
    ids=title,
)
def test_no_default_folder_is_used(case, instant, capsys, tmp_path, monkeypatch):
    one, size = case
    sets = ("roxford5k_1614", "landmarks_35", "roxford5k", "rparis6k", "revisitop1m", "gldv1")
    for name in (*sets, "gldv2", "test"):  # beside the folder in which the program is run
        (tmp_path / "shared" / "data" / name).mkdir(parents=True)
    (tmp_path / "shared" / "weights").mkdir()
    for name in ("resnet18_imagenet", "resnet50_imagenet", "resnet_v1_50", "resnet_v1_101"):
        (tmp_path / "shared" / "weights" / f"{name}.npz").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run_experiment(MODULES[one.name], ["--workdir=w", f"--size={size}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"delg: --data = '': is required with --size={size}: --data a folder")
    assert error.count("\n") == 1
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_it_runs_at_size_quick(name, capsys, tmp_path):
    if name == "table5_reranking":
        pytest.importorskip("cv2", reason="SIFT needs OpenCV")
    arguments = [f"--workdir={tmp_path}", f"--results={tmp_path}", "--size=quick"]
    more = FEW_PAIRS if name == "table1_local_ablation" else ()
    arguments += [f"--set={change}" for change in SMOKE + more]
    assert run_experiment(MODULES[name], arguments) == 0
    content = json.loads((tmp_path / f"{name}_quick.json").read_text())
    assert not content["failures"]
    # The queries of the tiny data are too few for a rule chosen on some and measured on others
    if name not in ("latency_memory", "table5_reranking"):
        assert all(cell["ours"] is not None for cell in content["cells"])
