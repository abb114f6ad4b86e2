import json

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.search.cann import GridSettings
from delg_jax.search.ivf import IvfSettings
from experiments.local_to_global import cann_overlap


def test_overlap_by_hand():
    exact = np.array([[3, 2, 1, 0], [0, 0, 0, 0]])
    found = np.array([[9, 0, 8, 0], [5, 0, 0, 1]])
    # {0, 1} and {0, 2}; {0, 1} and {0, 3}
    assert cann_overlap.overlap(found, exact, 2) == 0.5
    assert cann_overlap.overlap(exact, exact, 3) == 1.0


def test_more_probes_find_more():
    sides = cann_overlap.plant(images=80, features=10, dim=16)
    probes = [(IvfSettings(40), count) for count in (1, 10, 40)]
    grids = (GridSettings(grids=2, approximation=3.0, axes=4),)
    rows = cann_overlap.measure(sides, 8, grids, probes)
    assert [row["engine"] for row in rows] == ["exact", "cann", "ivf", "ivf", "ivf"]
    shares = [row["overlap"] for row in rows]
    assert shares[0] == shares[4] == 1.0
    assert shares[2] < shares[3] <= shares[4]
    assert 0 < shares[1] < 1
    assert all(row["bytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    text = cann_overlap.table(rows, 8)
    assert "40 cells, 2 rounds, 10 probes | " in text
    assert len(text.strip().splitlines()) == 7


def test_images_of_a_place_share_features():
    sides = cann_overlap.plant(images=16, features=5, dim=64)
    assert sides.database.shape == (16, 5, 64)
    assert sides.queries.shape == (2, 5, 64)
    cosines = np.einsum("qfd,nfd->qnf", *(x.astype(float) for x in (sides.queries, sides.database)))
    close = (cosines > 0.5).mean(axis=2)
    same = np.arange(16) % 2 == np.arange(2)[:, None]
    assert close[same].mean() > 0.3
    assert close[~same].mean() < 0.05


def test_the_tables_are_written(tmp_path, monkeypatch, capsys):
    small = cann_overlap.plant(images=16, features=4, dim=8)
    monkeypatch.setattr(cann_overlap, "plant", lambda: small)
    rows = cann_overlap.measure(small, 5, (), ((IvfSettings(4), 2),))
    monkeypatch.setattr(cann_overlap, "measure", lambda *_: rows)
    assert run_experiment(cann_overlap, [f"--results={tmp_path}", "--top=5"]) == 0
    written = json.loads((tmp_path / "cann_overlap.json").read_text())
    assert written["database"] == [16, 4, 8]
    assert written["rows"] == rows
    assert (tmp_path / "cann_overlap.md").read_text() == capsys.readouterr().out
    assert "% of the first 5 found" in (tmp_path / "cann_overlap.svg").read_text()


@pytest.mark.parametrize("settings", cann_overlap.GRIDS)
def test_settings_are_valid(settings):
    assert 2 <= len(settings.radii()) <= 36
