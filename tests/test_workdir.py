import errno
import json
import os
import stat

import jax
import ml_collections
import pytest

from delg_jax import compilation_cache, json_files, migrations, workdir
from delg_jax.cli import photographs
from delg_jax.data.tfds_builders import builder
from delg_jax.errors import UserError
from delg_jax.models.weights import published
from tests.flips import flips


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "features"


def tree(dim=2, ratio=0.5):
    return ml_collections.ConfigDict({"model": {"dim": dim}, "rerank": {"ratio": ratio}})


def output(folder, config, extra=None):
    return workdir.Output.of(folder, config, ("model",), extra)


def claim(folder, config, extra=None):
    output(folder, config, extra).claim()
    (folder / "output").touch()


def kept(folder):
    """Whether the output of before is still there; a new claim would come without."""
    return (folder / "output").is_file()


def test_the_whole_configuration_is_stored(folder):
    claim(folder, tree(), extra={"weights": "abc"})
    assert json_files.read(folder / "config.json", "", json_files.anything) == {
        "format": workdir.FORMAT,
        "config": {"model.dim": 2, "rerank.ratio": 0.5},
        "sections": ["model"],
        "extra": {"weights": "abc"},
        "sources": {},
    }


def test_the_stored_configuration_is_read_back(folder):
    with pytest.raises(UserError, match="format 1"):
        workdir.stored_config(folder)
    claim(folder, tree(dim=7))
    stored = {"model.dim": 7, "rerank.ratio": 0.5}
    assert workdir.stored_config(folder) == migrations.completed(stored)


def test_the_same_configuration_finds_its_artefact(folder):
    claim(folder, tree(), extra={"weights": "abc"})
    output(folder, tree(), {"weights": "abc"}).claim()
    output(folder, tree(), {"weights": "abc"}).claim(overwrite=True)
    assert kept(folder)


def test_a_field_that_does_not_affect_the_output_may_change(folder):
    claim(folder, tree(ratio=0.5))
    output(folder, tree(ratio=0.9)).claim()
    assert kept(folder)


@pytest.mark.parametrize(
    ("config", "extra", "difference"),
    [
        (tree(dim=3), {"weights": "abc"}, "config.model.dim: 2 -> 3"),
        (tree(), {"weights": "xyz"}, "config.weights: 'abc' -> 'xyz'"),
        (tree(), None, "config.weights: 'abc' -> '(absent)'"),
    ],
)
def test_another_configuration_is_refused_or_replaces(folder, config, extra, difference):
    claim(folder, tree(), extra={"weights": "abc"})
    with pytest.raises(UserError) as error:
        output(folder, config, extra).claim()
    assert error.value.value == str(folder)
    assert difference in error.value.rule
    assert "--overwrite" in error.value.rule
    assert kept(folder)
    output(folder, config, extra).claim(overwrite=True)
    assert not kept(folder)
    output(folder, config, extra).claim()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\x80",
        '{"format": 1}',
        '{"format": 1, "config": {}}',
        '{"format": 1, "config": [], "extra": {}}',
        '{"format": 999, "config": {}, "extra": {}}',
    ],
)
def test_a_damaged_configuration_is_refused(folder, text):
    claim(folder, tree())
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json.* format 1"):
        output(folder, tree()).claim()
    assert kept(folder)
    output(folder, tree()).claim(overwrite=True)
    assert not kept(folder)
    output(folder, tree()).claim()


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.parent.mkdir()
    folder.touch()
    with pytest.raises(UserError, match="workdir = "):
        output(folder, tree()).claim()


def test_replacing_shows_the_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with workdir.replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent  # another disk could not be renamed from
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_replacing_gives_what_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        workdir.write_text(tmp_path / "file.txt", "whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o666 & ~mask


def test_replacing_flushes_the_content_before_the_name(tmp_path, monkeypatch):
    done, path = [], tmp_path / "file.txt"
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    workdir.write_text(path, "whole")
    assert done == ["fsync", "replace", "fsync"]
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "a").touch()
    workdir.flush(tmp_path / "folder")
    assert done[3:] == ["fsync"] * 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_replacing_leaves_what_was_there_after_an_exception(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with workdir.replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_is_read_back(tmp_path):
    content = {"mAP": 0.5, "names": ["Zürich", None]}
    path = tmp_path / "metrics.json"
    workdir.write_json(path, content)
    assert json_files.read(path, "", json_files.anything) == content
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written.pop("checksum").startswith("crc32:")
    assert written == content


def test_what_an_output_was_made_from_is_read_back_and_replaced(folder):
    claim(folder, tree())
    assert workdir.sources(folder) == {}
    output(folder, tree(ratio=0.9), {"weights": "a"}).describe({"database": "b"})
    assert workdir.sources(folder) == {"database": "b"}
    assert workdir.stored_config(folder)["rerank.ratio"] == 0.9
    assert output(folder, tree(), {"weights": "a"}).is_there()
    assert kept(folder)


def test_every_flipped_bit_of_a_description_is_noticed_or_changes_nothing(folder):
    claim(folder, tree(), extra={"weights": "abc"})
    output(folder, tree(), {"weights": "abc"}).describe({"database": "b"})
    expected = workdir.stored_config(folder), workdir.sources(folder)
    refused = 0
    for _ in flips(folder / "config.json"):
        try:
            found = workdir.stored_config(folder), workdir.sources(folder)
            assert output(folder, tree(), {"weights": "abc"}).is_there()
        except UserError:
            refused += 1
        else:
            assert found == expected
    assert refused > 1000


def test_deep_nesting_is_refused(folder):
    claim(folder, tree())
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json.* format 1"):
        workdir.stored_config(folder)


def test_values_outside_json_leave_no_file(tmp_path):
    with pytest.raises(TypeError):
        workdir.write_json(tmp_path / "metrics.json", {"mAP": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("done", [True, False])
def test_a_rename_that_nfs_reports_twice_counts_once(tmp_path, monkeypatch, done):
    plain = os.replace

    def replace(source, target):
        if done:
            plain(source, target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    path = tmp_path / "a.json"
    workdir.write_text(path, "before")
    monkeypatch.setattr(os, "replace", replace)
    if done:
        workdir.write_text(path, "after")
    else:
        with pytest.raises(FileNotFoundError):
            workdir.write_text(path, "after")
    assert path.read_text() == ("after" if done else "before")
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder, as of a container that runs as any number."""
    for name in ("HOME", "XDG_CACHE_HOME", "DELG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def test_who_has_no_home_names_a_folder(homeless, monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    for ask, what in (
        (lambda: builder.tfds_folder(""), "config.data.tfds_dir"),
        (workdir.user_cache, "XDG_CACHE_HOME"),
        (published.cache_folder, "XDG_CACHE_HOME"),
        (lambda: photographs.place(str(tmp_path / "photos")), "XDG_CACHE_HOME"),
    ):
        with pytest.raises(UserError, match=what):
            ask()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert workdir.user_cache() == tmp_path / "delg_jax"
    assert builder.tfds_folder("data") == "data"


def test_who_has_no_home_keeps_no_programs(homeless):
    folder = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.keep_on_disk()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
