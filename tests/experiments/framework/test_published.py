"""`--download` gets what a table needs, from a server on this machine, before anything runs."""

import dataclasses
import pathlib

import numpy as np
import pytest

from delg_jax import downloads
from delg_jax.cli.main import run_experiment
from delg_jax.data import published as data_sets
from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays
from experiments.framework import plan, published
from experiments.framework.plan import Options
from experiments.tables import table3_retrieval
from tests import file_server
from tests.data.test_published import tar_of

TRUTH, PICTURES = b"truth", {"a.jpg": b"picture"}


@pytest.fixture
def server(monkeypatch):
    """A server of one small Oxford, of its distractors, and of weights that read as `conv`."""
    monkeypatch.setattr(downloads, "_pause", lambda _: 0.0)
    with file_server.running() as running:
        for name in ("roxford5k", "revisitop1m"):
            data = data_sets.PUBLISHED[name]
            files = []
            for file in data.files[:2]:
                content = tar_of(PICTURES) if file.unpack else TRUTH
                running.files[file.name] = content
                files.append(dataclasses.replace(file, url=running.url(file.name)))
            entry = dataclasses.replace(data, files=tuple(files))
            monkeypatch.setitem(data_sets.PUBLISHED, name, entry)
        for part, url in published.WEIGHTS.items():
            name = url.rpartition("/")[2]
            running.files[name] = tar_of({f"{part.removesuffix('.npz')}.ckpt": b"weights"})
            monkeypatch.setitem(published.WEIGHTS, part, running.url(name))
        monkeypatch.setattr(published, "_require_tensorflow", lambda _: None)

        def read(path):
            assert pathlib.Path(path).read_bytes() == b"weights"
            return {"conv": np.ones(3, np.float32)}

        monkeypatch.setattr(published, "read_arrays", read)
        yield running


def options(folder, size="paper"):
    folders = (str(folder / "data"), str(folder / "weights"))
    return Options(size, folder, *folders, datasets=("oxford", "oxford+1m"))


def flags_of(folder):
    return [
        "--size=paper",
        "--datasets=oxford,oxford+1m",
        f"--workdir={folder}/runs",
        f"--data={folder}/data",
        f"--weights={folder}/weights",
    ]


def test_a_dry_run_names_all_and_writes_nothing(tmp_path, server, capsys):
    argv = [*flags_of(tmp_path), "--download", "--dry_run"]
    assert run_experiment(table3_retrieval, argv) == 0
    out = capsys.readouterr().out
    for name in ("roxford5k: 2 files", "revisitop1m: 2 files", "gldv1: by hand", "resnet_v1_50"):
        assert name in out
    assert list(tmp_path.iterdir()) == []


def test_what_no_program_can_have_is_told_before_the_first_byte(tmp_path, server, capsys):
    assert run_experiment(table3_retrieval, [*flags_of(tmp_path), "--download"]) == 2
    assert "data set = 'gldv1': " in capsys.readouterr().err
    assert server.names == []


def test_afterwards_the_places_of_the_table_are_there(tmp_path, server):
    chosen = options(tmp_path)
    (tmp_path / "data" / "gldv1").mkdir(parents=True)
    with pytest.raises(UserError, match="--data = "):
        plan.check_places(table3_retrieval.EXPERIMENT, chosen)
    published.download(table3_retrieval.EXPERIMENT, chosen, 2, dry_run=False)
    plan.check_places(table3_retrieval.EXPERIMENT, chosen)
    assert (tmp_path / "data" / "roxford5k" / "jpg" / "a.jpg").read_bytes() == b"picture"
    arrays = read_arrays(str(tmp_path / "weights" / "resnet_v1_50.npz"))
    np.testing.assert_array_equal(arrays["conv"], np.ones(3))
    asked = len(server.names)
    published.download(table3_retrieval.EXPERIMENT, chosen, 2, dry_run=False)
    assert len(server.names) == asked


def test_without_tensorflow_its_checkpoints_are_refused_first(tmp_path, server, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'delg_jax\[convert\]'"):
        published._require_tensorflow(["resnet_v1_50.npz"])


def test_a_dry_run_belongs_to_a_download(tmp_path, capsys):
    assert run_experiment(table3_retrieval, [*flags_of(tmp_path), "--dry_run"]) == 2
    assert "--dry_run = True: " in capsys.readouterr().err
