import json

import numpy as np
import pytest

from delg_jax.cli.main import main, run_experiment
from delg_jax.search import asmk, engines
from delg_jax.search.asmk import AsmkScoring, AsmkSettings
from experiments.local_to_global import candidates
from tests.photographs import make_revisited
from tests.search.test_ivf import halves
from tests.tiny import command_line, retrieval_config


def test_rows_change_one_field_at_a_time():
    names = [row.name for row in candidates.rows(ablate=True)]
    assert len(set(names)) == len(names)
    assert [row.name for row in candidates.rows(ablate=False)] == names[:4]
    for row in candidates.rows(ablate=True)[4:-2]:  # the last two are settings that go together
        assert len(row.fields) == 1


def test_the_share_of_the_first_images_is_that_of_exact_search():
    found = {
        "exact": {"images": [[1, 2], [3, 4]], "map": {}, "milliseconds": {}},
        "other": {"images": [[2, 9], [4, 3]], "map": {}, "milliseconds": {}},
    }
    rows = candidates.summarized(found)
    assert [row["found_of_first"] for row in rows.values()] == [1.0, 0.75]
    assert "75.0 %" in candidates.table(rows)


def test_the_package_ranks_as_asmk_does(rng):
    pytest.importorskip("faiss")  # which the package imports
    pytest.importorskip("asmk")
    descriptors, mask = halves(rng, 30, 20, 64)
    index = asmk.build(descriptors, mask, AsmkSettings(words=16, aggregate=True))
    scoring = AsmkScoring(3, 0.0, 3.0, "words", normalize=True)
    ours = engines.AsmkSearch(index, scoring)
    found = candidates.PackageSearch(ours, descriptors, mask)(descriptors[:4], mask[:4])
    np.testing.assert_allclose(found, ours(descriptors[:4], mask[:4]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_all_images_as_candidates_rank_exactly(tmp_path, capsys, monkeypatch):
    folder = make_revisited(tmp_path / "photographs", places=3)
    config = retrieval_config(folder)
    assert main(["extract", *command_line(config), f"--workdir={tmp_path / 'run'}"]) == 0
    monkeypatch.setattr(
        candidates,
        "ABLATION",
        {"search.asmk.words": (2,), "search.candidates": (3,)},
    )
    monkeypatch.setattr(candidates, "ON_THE_FLY", {"rerank.mds.graph": "on_the_fly"})
    flags = [
        f"--features={tmp_path / 'run'}",
        f"--work={tmp_path / 'work'}",
        f"--results={tmp_path}",
        "--candidates=6",
        "--estimated=0",
        "--ablate",
        "--field=search.asmk.words=4",
        "--field=rerank.mds.short_list=4",
    ]
    assert run_experiment(candidates, flags) == 0
    result = tmp_path / "local_to_global_candidates.json"
    found = json.loads(result.read_text())["rows"]
    assert found["candidates"]["map"] == found["exact"]["map"]
    assert found["graph on the fly"]["map"] == found["exact"]["map"]
    assert found["candidates"]["found_of_first"] == 1.0
    assert found["candidates=3"]["found_of_first"] == 0.5
    assert set(found["ASMK*"]["map"]) == {"local"}
    assert found["scores of signs"]["found_of_first"] == 1.0
    monkeypatch.setattr(candidates, "measure", None)  # what is measured is not measured again
    assert run_experiment(candidates, flags) == 0
    assert json.loads(result.read_text())["rows"] == found
    capsys.readouterr()
    for wrong in ("--field=search.nothing=1", "--field=search.candidates=many"):
        assert run_experiment(candidates, [*flags, wrong]) == 2
        assert "--field" in capsys.readouterr().err
