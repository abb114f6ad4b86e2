import json

import numpy as np
import pytest

from delg_jax.cli.main import main
from tests.photographs import make_revisited, truncate
from tests.tiny import command_line, revisited_config


@pytest.fixture
def root(tmp_path):
    return make_revisited(tmp_path / "photographs", places=2)


@pytest.fixture
def flags(root, tmp_path):
    config = revisited_config(root).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.eval.methods = ("global", "local+mds")
    return [*command_line(config), f"--workdir={tmp_path / 'run'}"]


def test_both_tables_have_a_row_for_each_method(flags, tmp_path, capsys):
    assert main(["evaluate", *flags]) == 0
    printed = capsys.readouterr().out.split("\n\n")
    tables = [part.splitlines() for part in printed if part.startswith("|")]
    assert len(tables) == 2
    for header, _, *rows in tables:
        assert header.startswith("| method")
        assert [row.split()[1] for row in rows] == ["global", "local+mds"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["global", "local+mds"]


def test_skipped_images_are_reported_below_the_tables(flags, root, tmp_path, capsys):
    truncate(root / "jpg" / "place1_near.jpg")
    truncate(root / "jpg" / "query0.jpg")
    assert main(["evaluate", *flags, "--config.data.max_skipped=1"]) == 0
    counts = "1 database images (1 times one to be found), 1 queries"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"skipped in {kind} search, and counted as not found: {counts}"
        for kind in ("global", "local")
    ]
    assert main(["report", str(tmp_path / "run"), f"--output={tmp_path / 'report.html'}"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert f"Skipped in local search, and counted as not found: {counts}." in page


def test_pairs_are_verified_where_they_are_asked_for(flags, tmp_path, capsys):
    pairs = ["--config.eval.pairs=3", "--config.eval.negative_pairs=4"]
    assert main(["evaluate", *flags, "--config.eval.methods=('global',)", *pairs]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "pairs" in last
    assert "(3 of one landmark, 4 of two): " in last
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["pairs"]
    assert 0 <= found["low"] <= found["average_precision"] <= found["high"] <= 100


def test_a_skipped_photograph_ranks_last(flags, root, tmp_path, capsys):
    truncate(root / "jpg" / "place0_far.jpg")
    assert main(["evaluate", *flags, "--config.data.max_skipped=1"]) == 0
    with np.load(tmp_path / "run" / "rankings.npz") as rankings:
        assert rankings["global"].shape == (2, 4)
        assert rankings["global"][:, -1].tolist() == [1, 1]
    assert (tmp_path / "run/features/database/skipped.csv").is_file()


def test_diffusion_needs_whole_rankings(flags, tmp_path, capsys):
    more = ["--config.eval.methods=('global+diffusion',)", "--config.eval.depth=2"]
    assert main(["evaluate", *flags, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: config.eval.depth = 2: ")
    assert "global+diffusion" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("eval.methods=('global', 'glob')", "eval.methods = 'glob'"),
        ("model.local_head=False", "eval.methods = 'local+mds'"),
        ("eval.kappas=(0, 5)", "eval.kappas = (0, 5)"),
        ("eval.depth=-1", "eval.depth = -1"),
        ("eval.recognition_top=0", "eval.recognition_top = 0"),
        ("eval.pairs=-1", "eval.pairs = -1"),
        ("seed=-1", "seed = -1"),
        ("rerank.mds.distance=city", "rerank.mds.distance = 'city'"),
        ("rerank.sp.short_list=-1", "rerank.sp.short_list = -1"),
        ("search.kernel=box", "search.kernel = 'box'"),
    ],
)
def test_wrong_settings_are_found_before_extraction(flags, tmp_path, capsys, override, named):
    assert main(["evaluate", *flags, f"--config.{override}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"delg: config.{named}: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
