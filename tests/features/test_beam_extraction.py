"""Extraction on Apache Beam; the rest of the flag `--runner` is in tests/cli/test_extract.py."""

import warnings

import pytest

from delg_jax.errors import UserError
from delg_jax.features.experiment import extract, extract_images
from tests.folders import contents
from tests.photographs import draw, make_revisited, save, truncate
from tests.tiny import retrieval_config

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")


@pytest.fixture
def root(tmp_path):
    return make_revisited(tmp_path / "photographs", places=2)


@pytest.fixture
def config(root):
    config = retrieval_config(root).copy_and_resolve_references()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.extract.chunk_images = 2
    return config.lock()


def test_database_and_queries_have_the_same_bytes(config, tmp_path):
    extract(config, tmp_path / "plain")
    extracted = extract(config, tmp_path / "beam", runner="DirectRunner")
    assert (len(extracted.database), len(extracted.queries)) == (4, 2)
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")


def test_bad_and_added_images_and_a_projection(config, root, tmp_path):
    config = config.copy_and_resolve_references().unlock()
    config.extract.pca_dim, config.data.max_skipped = 4, 1
    truncate(root / "jpg" / "place0_far.jpg")
    images = str(root / "jpg")
    for workdir, runner in (("plain", ""), ("beam", "DirectRunner")):
        extract_images(config, tmp_path / workdir, images, runner=runner)
    save(root / "jpg" / "added.jpg", draw(9, 64, 64))
    for workdir, runner in (("plain", ""), ("beam", "DirectRunner")):
        store = extract_images(config, tmp_path / workdir, images, runner=runner)
        assert store.names[-1] == "added.jpg"
        assert store.skipped().keys() == {"place0_far.jpg"}
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")
    before = contents(tmp_path / "beam")
    extract_images(config, tmp_path / "beam", images, runner="DirectRunner")
    assert contents(tmp_path / "beam") == before


def test_too_many_bad_images_are_refused(config, root, tmp_path):
    truncate(root / "jpg" / "query0.jpg")
    with pytest.raises(UserError, match=r"max_skipped = 0: 1 .*query0"):
        extract(config, tmp_path, runner="DirectRunner")


@pytest.mark.parametrize(
    ("runner", "names"),
    [
        ("NoSuchRunner", "NoSuchRunner.*NoSuchRunner"),
        ("DirectRunner --direct_num_workers=x", "direct_num_workers: .*'x'"),
        ("DirectRunner 'open", "quot"),
    ],
)
def test_wrong_options_are_one_line(config, tmp_path, capsys, runner, names):
    with pytest.raises(UserError, match=f"--runner = .*{names}"):
        extract(config, tmp_path, runner=runner)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the working directory is a relative path
    extract(config, "plain")
    runner = "DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
    extract(config, "beam", runner=runner)
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")
