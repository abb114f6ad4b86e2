"""What only reads works where nothing can be written."""

import numpy as np
import pytest

from delg_jax.evaluation import evaluate
from delg_jax.features.formats.exported import export_features
from delg_jax.reports.html import write_report
from delg_jax.retrieval import searcher
from tests.folders import read_only
from tests.photographs import make_revisited
from tests.tiny import revisited_config

METHODS = ("global", "local", "local+mds", "global+sp")


@pytest.fixture(scope="module", params=["exact", "ivf"])
def place(request, tmp_path_factory):
    """A configuration, a workdir with all outputs, and its metrics."""
    root = tmp_path_factory.mktemp("read_only")
    config = revisited_config(make_revisited(root / "photographs"))
    config = config.copy_and_resolve_references().unlock()
    config.eval.methods, config.search.engine = METHODS, request.param
    config.search.ivf.count = config.search.ivf.probes = 4
    return config.lock(), root / "run", evaluate(config, root / "run")


def test_complete_outputs_are_evaluated(place, caplog):
    config, workdir, before = place
    with read_only(workdir):
        assert evaluate(config, workdir)["methods"] == before["methods"]
    assert "metrics.json and rankings.npz: not written" in caplog.text


def test_a_database_is_searched(place):
    config, workdir, _ = place
    with read_only(workdir):
        opened = searcher.Searcher(config, workdir)
        picture = np.random.default_rng(0).integers(0, 256, (96, 112, 3), np.uint8)
        query = opened.query(picture)
        for method in METHODS:
            assert len(opened.search(query, method, 3).hits) == 3, method


@pytest.mark.parametrize(("kind", "name"), [("hloc", "a.h5"), ("delf", "a")])
def test_features_are_exported(place, tmp_path, kind, name):
    if kind == "hloc":
        pytest.importorskip("h5py", reason="HDF5 files need h5py")
    with read_only(place[1]):
        assert export_features(*place[:2], kind, tmp_path / name).exists()


def test_a_report_is_written_elsewhere(place, tmp_path):
    with read_only(place[1]):
        write_report([place[1]], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 0
