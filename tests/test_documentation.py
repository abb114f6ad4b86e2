"""README and docs say what is so: commands parse, code runs, links lead somewhere."""

import ast
import importlib
import importlib.util
import pathlib
import re
import shlex
import shutil
import sys

import pytest

import delg_jax
from delg_jax import configuration
from delg_jax.cli import main as program
from delg_jax.cli import photographs
from delg_jax.features import extract
from tests import tiny
from tests.photographs import make_revisited

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "DEVELOPERS.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if not {"generated", "_build"} & set(page.parts)]
SOURCE = "https://github.com/delg-jax/delg_jax/blob/main/"


def blocks(page, *languages):
    """Code blocks of a page in one of the languages."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for language, text in found if language in languages]


def commands(page):
    """Commands of a page, in blocks and in its text; lines of one command are joined."""
    text = "\n".join(blocks(page, "", "sh", "bash")).replace("\\\n", " ")
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    # Without flags, it may be the name of a program rather than a command
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose) if "--" in code]
    lines += [line for line in inline if "|" not in line]
    starts = ("delg ", "python -m experiments", "make ")
    whole = [line for line in lines if line.startswith(starts)]
    return [line for line in whole if not re.search(r"[ =][.]{3}|hloc.delf", line)]


COMMANDS = [(page, line) for page in PAGES for line in commands(page)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the pictures and workdirs that the README names."""
    root = tmp_path_factory.mktemp("readme")
    config = tiny.retrieval_config(make_revisited(root / "photographs"))
    scales = {"extract.local_scales": (1.0,), "extract.global_scales": (1.0,)}
    extract(configuration.override(config, scales), root / "runs" / "quickstart")
    (root / "runs" / "photos").symlink_to("quickstart")
    (root / "photos").symlink_to("photographs/jpg")
    (root / "DIR").symlink_to("runs/quickstart")
    pictures = sorted((root / "photographs" / "jpg").iterdir())
    for name, photograph in zip(("query.jpg", "other.jpg"), pictures, strict=False):
        shutil.copy(photograph, root / name)
    return root


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_python_of_the_readme_runs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert "matches agree" in capsys.readouterr().out
    assert (place / "matches.png").is_file()


@pytest.mark.parametrize(
    ("page", "line"), COMMANDS, ids=[f"{p.name}: {line[:50]}" for p, line in COMMANDS]
)
def test_commands_have_the_flags_and_fields_that_they_give(place, monkeypatch, page, line):
    monkeypatch.chdir(place)
    monkeypatch.setattr(photographs, "_with_weights", lambda config, *given: config)
    monkeypatch.setattr(photographs, "_weights", lambda weights: "installed")
    line = line.replace("=configs/", f"={ROOT}/configs/")
    words = shlex.split(line.rstrip(" ]").replace("[", "").replace("]", ""))
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(word for word in words[1:] if "=" not in word) <= set(targets)
        return
    seen = []
    if words[0] == "delg":
        if words[1] in ("VERB", "--help", "--version", "help"):
            return
        module = importlib.import_module(f"delg_jax.cli.{words[1]}")
        run = lambda: program.main(words[1:])  # noqa: E731
    else:
        if words[2] == "experiments.MODULE":
            return
        monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
        module = importlib.import_module(words[2])
        run = lambda: program.run_experiment(module, words[3:])  # noqa: E731
    monkeypatch.setattr(module, "run", lambda values, *rest: seen.append(values))
    assert run() == 0, line
    assert seen or {"--help", "--print_config"} & set(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, heading = target.partition("#")
        if target.startswith(SOURCE):
            file = ROOT / place.removeprefix(SOURCE)
        elif "://" in target:
            continue
        else:
            file = page.parent / place if place else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, target


def _conf():
    """The functions of docs/conf.py that make the references; Sphinx need not be installed."""
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_references_have_every_field_and_every_public_function():
    conf = _conf()
    described = {name: text for name, _, text in conf.fields()}
    known = configuration.flatten(delg_jax.load_config("default"))
    assert set(described) == set(known)
    assert [name for name, text in described.items() if not text] == []
    listed = set(conf.modules())
    for path in sorted((ROOT / "delg_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
        if public and ".cli" not in name and name != "delg_jax":
            assert name in listed


def test_no_page_has_the_name_of_one_that_sphinx_writes():
    names = {page.stem for page in PAGES if page.parent == ROOT / "docs"}
    assert names.isdisjoint({"search", "genindex", "py-modindex"})


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES[2:]}
    pages = {page for page in pages if not page.startswith("..") and page != "index"}
    assert {page for page in pages if page not in index} == set()


def test_notebooks_hold_no_outputs_and_only_code_that_parses():
    notebooks = sorted((ROOT / "docs" / "notebooks").iterdir())
    assert [notebook.suffix for notebook in notebooks] == [".md", ".md"]
    for notebook in notebooks:
        cells = blocks(notebook, "{code-cell} python")
        assert len(cells) > 3
        ast.parse("\n".join(cells))
