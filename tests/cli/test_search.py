import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from delg_jax import configuration, json_files, workdir
from delg_jax.cli.main import main
from delg_jax.retrieval import searcher
from delg_jax.retrieval.searcher import Found, Hit
from tests import search_page

CONFIG_FILE = Path(__file__).parents[2] / "configs" / "quickstart.py"
CONFIG = f"--config={CONFIG_FILE}:smoke"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(search_page.jpeg())
    return str(path)


@pytest.fixture
def calls(monkeypatch):
    """What the searcher was asked."""
    noted = []

    class Searcher(search_page.QuickSearcher):
        def __init__(self, config, folder, overwrite):
            super().__init__()
            noted.append((folder, overwrite))
            self.config = config

        def warm_up(self):
            noted.append("warm")

        def query(self, picture, box):
            noted.append((picture.shape, box))
            return SimpleNamespace()

        def search(self, query, method, top):
            noted.append((method, top))
            return Found([Hit(0, "arch", 12.0), Hit(0, "bridge", 0.25)], {})

    monkeypatch.setattr(searcher, "Searcher", Searcher)
    return noted


@pytest.fixture
def index(tmp_path):
    """A workdir with the configuration of features, and nothing else."""
    config = configuration.load(CONFIG_FILE, "smoke")
    config = configuration.override(config, {"extract.max_features": 77, "seed": 5})
    workdir.Output.of(tmp_path / "run" / "features" / "database", config, ("extract",)).claim()
    return str(tmp_path / "run")


def error(capsys, *arguments):
    """The one line of a command that is refused."""
    assert main(["search", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("delg: ")


@pytest.mark.parametrize("named", [["--image={}"], ["{}"]])
def test_hits_are_printed(calls, capsys, picture, named):
    flags = ["--box=1,2,30.5,40", "--method=global+sp", "--top=2", *named]
    flags = [flag.format(picture) for flag in flags]
    assert main(["search", CONFIG, "--workdir=w", *flags]) == 0
    assert calls == [("w", False), ((40, 60, 3), (1, 2, 30.5, 40)), ("global+sp", 2)]
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["|", "rank", "|", "image", "|", "inliers", "|"]
    assert first.split() == ["|", "1", "|", "arch", "|", "12", "|"]
    assert second.split() == ["|", "2", "|", "bridge", "|", "0.25", "|"]


@pytest.mark.parametrize(
    ("levels", "likely", "words"),
    [
        (["strong", "chance"], 1, ["strong", "unlikely", "chance"]),
        (["weak", "strong"], 2, ["weak", "strong"]),
        (["chance", "chance"], 0, ["chance", "chance", "probably"]),
    ],
)
def test_a_line_divides_likely_from_unlikely(
    calls, capsys, monkeypatch, picture, levels, likely, words
):
    verdict = searcher.Verdict([90, 7], levels, likely, {"strong": 50, "weak": 20}, 1.0)
    monkeypatch.setattr(searcher.Searcher, "judge", lambda *_: verdict)
    assert main(["search", CONFIG, "--workdir=w", picture, "--method=local+mds"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.replace("|", " ").split()[2:] == ["score", "inliers", "match"]
    known = ("strong", "weak", "unlikely", "probably", "chance")
    assert [next(word for word in known if word in line.split()) for line in lines] == words
    assert "90" in lines[0]


def test_every_method_of_every_picture_has_its_table_and_strip(calls, capsys, picture, tmp_path):
    output = tmp_path / "results.png"
    flags = [picture, picture, "--method=all", f"--output={output}"]
    assert main(["search", CONFIG, "--index=w", *flags]) == 0
    assert calls[:3] == [("w", False), ((40, 60, 3), None), ("global", 10)]
    assert len(calls) == 1 + 2 * 11
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{picture}, global:"
    assert sum(line.endswith(":") for line in lines) == 20
    assert lines[-1] == f"drawing  {output}"
    with Image.open(output) as drawing:
        assert drawing.height > 20 * 112


def test_some_methods(calls, capsys, picture):
    assert main(["search", CONFIG, "--index=w", picture, "--method=local,global+qe"]) == 0
    assert calls[2:] == [("local", 10), ("global+qe", 10)]
    assert capsys.readouterr().out.startswith("local:\n")


def test_without_a_config_that_of_the_features_is_taken(calls, capsys, monkeypatch, picture, index):
    noted = []
    check = searcher.check_request
    monkeypatch.setattr(
        searcher, "check_request", lambda *wanted: noted.append(wanted[2]) or check(*wanted)
    )
    flags = ["--config.search.kernel=threshold", "--config.extract.local_scales=(0.5, 1.0)"]
    assert main(["search", f"--index={index}", picture, *flags]) == 0
    (config,) = noted
    wanted = configuration.load(CONFIG_FILE, "smoke")
    changes = {"extract.max_features": 77, "seed": 5, "search.kernel": "threshold"}
    wanted = configuration.override(wanted, changes | {"extract.local_scales": (0.5, 1.0)})
    assert configuration.flatten(config) == configuration.flatten(wanted)
    assert isinstance(config.data.crop_area, tuple)
    assert config.is_locked
    assert calls[0] == (index, False)


def test_mistakes_with_a_stored_configuration_are_named(calls, capsys, picture, index, tmp_path):
    stored = f"--index={index}"
    for flags, named in (
        ([stored, "--config.search.kernl=cann"], "config.search.kernl = 'cann'"),
        ([stored, "--config.seed=x"], "config.seed = 'x'"),
        ([f"--index={tmp_path}"], f"workdir = {str(tmp_path)!r}"),
    ):
        assert error(capsys, *flags, picture).startswith(f"{named}: ")
    assert calls == []


def test_a_configuration_of_another_version_is_named(calls, capsys, picture, index):
    path = Path(index) / "features" / "database" / workdir.CONFIG_FILE
    content = json_files.read(path, "workdir", json_files.anything)
    later = {**content, "config": {**content["config"], "search.of_later": 1}}
    del content["config"]["search.kernel"]
    workdir.write_json(path, content)
    refused = error(capsys, f"--index={index}", picture)
    assert "another version" in refused
    assert "kernel" in refused
    workdir.write_json(path, later)
    refused = error(capsys, f"--index={index}", picture)
    assert refused.startswith(f"workdir = {str(index)!r}: ")
    assert "search.of_later" in refused


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "5,5,5,9", "1,2,3,4,5", "", "0,0,inf,1"])
def test_a_wrong_box_is_refused(calls, capsys, picture, box):
    assert error(capsys, CONFIG, "--workdir=w", picture, f"--box={box}").startswith("--box")
    assert calls == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "delg search = None: .*--image"),
        (["absent.jpg"], r"--image = 'absent\.jpg': "),
        (["{}", "{}", "--box=0,0,9,9"], "--box = '0,0,9,9': "),
        (["{}", "--method=global,magic"], "--method = 'magic': "),
        (["{}", "--top=0"], "--top = 0: "),
        (["{}", "--output=a.gif"], r"--output = 'a\.gif': "),
        (["{}", "--serve"], ".*--serve"),
        (["--serve", "--port=70000"], "--port = '70000'"),
        (["--serve", "--concurrency=0"], "--concurrency = '0'"),
        (["--serve", "--host=no such host"], ".*no such host"),
    ],
)
def test_mistakes_are_one_line(calls, capsys, picture, flags, named):
    flags = [flag.format(picture) for flag in flags]
    assert re.match(named, error(capsys, CONFIG, "--workdir=w", *flags))
    assert calls == []


def test_without_aiohttp_its_extra_is_named(calls, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "aiohttp" else found(name)
    )
    refused = error(capsys, CONFIG, "--workdir=w", "--serve")
    assert "pip install 'delg_jax[serve]'" in refused


def test_the_page_is_served(calls, capsys, monkeypatch):
    pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")
    from delg_jax.serving import server

    noted = []

    def serve(opened, listening, host, further, limits, announce):
        noted.append((host, further, limits))
        assert listening.getsockname()[0] == host
        announce("http://x/")
        return True

    monkeypatch.setattr(server, "serve", serve)
    flags = ["--port=0", "--allowed_hosts=a.b,c", "--max_upload_megabytes=0.5", "--concurrency=9"]
    assert main(["search", CONFIG, "--index=w", "--serve", *flags]) == 0
    ((host, further, limits),) = noted
    assert (host, further) == ("127.0.0.1", ["a.b", "c"])
    assert (limits.upload_bytes, limits.waiting, limits.request_seconds) == (2**19, 9, 60)
    assert capsys.readouterr().out == "serving 2 images at http://x/ (Ctrl-C stops)\n"
