"""Every figure of README and docs is that of a result file, and every result says its origin."""

import json
import re

import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from experiments import figures

PAGES = figures.pages()
CLAIM = {
    "better": "b",
    "worse": "a",
    "column": "x y",
    "difference": 2.5,
    "low": -1.0,
    "high": 6.0,
    "p_value": 0.0123,
    "p_holm": 0.5,
    "queries": 9,
    "clusters": 3,
}
TABLE = {
    "cells": [
        {"row": "a", "column": "x y", "ours": 1.0, "low": 0.5, "high": 2.0, "paper": 10.0},
        {"row": "b", "column": "x y", "ours": 3.5, "low": 3.0, "high": 4.0, "paper": 12.5},
        {"row": "c", "column": "x y", "ours": None, "low": None, "high": None, "paper": None},
    ],
    "claims": [CLAIM],
    "environment": {"commit": "abc", "date": "2026-01-02", "processor": "Brand"},
}
OLD = {
    **TABLE,
    "claims": [{k: v for k, v in CLAIM.items() if k not in ("clusters", "p_holm")}],
    "environment": {
        "commit": "unknown",
        "date": "unknown",
        "processor": "unknown",
        "stored": {"commit": "fed", "date": "2026-01-01"},
    },
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_figure_is_that_of_its_result_file(page):
    """After `python -m experiments.figures` it is."""
    text = page.read_text(encoding="utf-8")
    assert figures.filled(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_stands_without_a_mark(page):
    assert figures.unmarked(page.read_text(encoding="utf-8")) == []


def test_the_page_of_claims_has_every_measurement_of_every_claim():
    page = (figures.ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    missing = []
    of_papers = set(figures.RESULTS.glob("*.json")) - {
        figures.RESULTS / "pretrained_weights_real.json"  # weights beside weights
    }
    for path in sorted(of_papers):
        for claim in json.loads(path.read_text(encoding="utf-8")).get("claims", ()):
            field = f"{path.stem}#{claim['better']} over {claim['worse']} | {claim['column']}"
            # Easy is left out where there are Medium and Hard
            if f"{{{field}}}" not in page and not claim["column"].endswith("Easy"):
                missing.append(field)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_text_begins_with_a_comment(page):
    """Markdown takes such a line as HTML, with its marks of code and emphasis as they are."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r"\s*<!--.*-->\s*[^\s<]", line)] == []


@pytest.mark.parametrize("path", sorted(figures.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_where_it_comes_from(path):
    found = json.loads(path.read_text(encoding="utf-8"))["environment"]
    names = ("command", "configuration", "commit", "date", "processor", "kernels", "versions")
    assert [name for name in names if name not in found] == []
    if "unknown" in (found["commit"], found["date"]):
        assert found["stored"]["commit"]
        assert found["stored"]["date"]


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "experiments" / "results"
    folder.mkdir(parents=True)
    (folder / "new.json").write_text(json.dumps(TABLE))
    (folder / "new.md").write_text("# Title\n\n| a | table |\n")
    (folder / "old.json").write_text(json.dumps(OLD))
    rows = [{"name": "p", "s": 0.5, "list": [1, 2]}, {"name": "q", "s": 4.0, "list": [3, 4]}]
    (folder / "plain.json").write_text(json.dumps({"rows": rows, "none": None}))
    return folder


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("new#a | x y", "1.00 [0.50, 2.00]"),
        ("new#a | x y:value", "1.00"),
        ("new#a | x y:paper", "10"),
        ("new#c | x y", "-"),
        ("new#b over a | x y", "+2.50 [-1.00, +6.00], p 0.012, by Holm 0.5"),
        ("new#b over a | x y:short", "+2.50, p 0.012, by Holm 0.5"),
        ("new#b over a | x y:value", "+2.50"),
        ("new#b over a | x y:paper", "+2.5"),
        ("new#b over a | x y:side", "leans in favour"),
        ("old#b over a | x y:side", "leans in favour"),
        ("new#source", "commit abc, 2026-01-02, Brand"),
        ("new#text", "| a | table |"),
        # Intervals and tests that took queries as independent are not shown
        ("old#a | x y", "1.00"),
        ("old#b over a | x y", "+2.50, not tested"),
        ("old#source", "commit unknown, stored by fed on 2026-01-01"),
        ("rows/name=q/s", "4.0"),
        ("rows/0/s:ms .1f", "500.0"),
        ("rows/-1/list/1:d", "4"),
        ("rows/name=p/s:1/ .2f", "2.00"),
        ("rows/name=q/s ÷ rows/name=p/s:.0f", "8"),
        ("none:.2f", "-"),
    ],
)
def test_fields(results, field, text):
    page = f"<!-- figures plain: {{{field}}} -->?<!-- /figures -->"
    mark = page.partition("?")[0]
    assert figures.filled(page, results) == f"{mark}{text}<!-- /figures -->"


@pytest.mark.parametrize(
    "field", ["rows/name=z/s", "rows/7", "no", "new#d | x y", "absent#a", "ratio a | b"]
)
def test_a_field_of_nothing_is_named(results, field):
    with pytest.raises((UserError, IndexError)):
        figures.filled(f"<!-- figures plain: {{{field}}} -->?<!-- /figures -->", results)


@pytest.mark.parametrize(("difference", "side"), [(2.5, "in favour"), (-2.5, "against")])
def test_a_significant_comparison_takes_a_side(results, difference, side):
    claim = {**CLAIM, "p_holm": 0.05, "difference": difference}
    (results / "sure.json").write_text(json.dumps({**TABLE, "claims": [claim]}))
    page = "<!-- figures sure: {b over a | x y:side} --><!-- /figures -->"
    assert f"-->{side}<!--" in figures.filled(page, results)


def test_a_block_keeps_its_template_and_filling_again_changes_nothing(results):
    text = "before\n<!-- figures plain:\n| x |\n| {rows/0/s:.1f} |\n--><!-- /figures -->\nafter"
    once = figures.filled(text, results)
    assert once.endswith("-->\n\n| x |\n| 0.5 |\n\n<!-- /figures -->\nafter")
    assert figures.filled(once, results) == once


def test_what_is_yet_to_be_measured_says_so(results):
    page = "<!-- figures? later: {a:.1f} -->?<!-- /figures -->"
    assert "-->not measured yet<!--" in figures.filled(page, results)
    (results / "later.json").write_text('{"a": 2}')
    assert "-->2.0<!--" in figures.filled(page, results)


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ({"Brand": 4.3}, "4.3 (Brand)"),
        ({"Brand": 4.3, "Other": 1.14}, "at least 1.1"),
        ({"Brand": 0.5, "Other": 0.9}, "at most 0.9"),
        ({"Brand": 4.3, "Other": 0.94}, "4.3 (Brand) and 0.94 (Other)"),
    ],
)
def test_a_ratio_is_claimed_only_if_it_held_on_two_kinds_of_processor(tmp_path, ratios, text):
    for kind, ratio in ratios.items():
        peers = [{"name": "faiss flat", "ratio": ratio}, {"name": "NumPy", "ratio": 1.0}]
        result = {"name": "mds", "implementations": peers, "environment": {"processor": kind}}
        (tmp_path / f"bench_mds_on_{kind}.json").write_text(json.dumps(result))
    assert figures.ratio(figures.Results(tmp_path), "", "mds | faiss") == text


@pytest.mark.parametrize(
    "line",
    [
        "| ours | 48.3 |",
        "It takes 7 ms a pair.",
        "finds 98 % of them",
        "1.14 times faiss",
        "a store of 30 GB",
    ],
)
def test_figures_without_marks_are_found(line):
    assert figures.unmarked(f"# Title\n\n{line}\n") == [f"3: {line}"]
    for exempt in (
        f"```\n{line}\n```",
        f"<!-- given: a limit -->{line}<!-- /given -->",
        f"`{line}`",
    ):
        assert figures.unmarked(exempt) == []


def test_what_is_no_figure_is_let_be():
    text = (
        "Python 3.11 to 3.13, 95 % bootstrap intervals, 1,614 photographs, [a](b/3.5.md), step 4. "
        "Apache-2.0."
    )
    assert figures.unmarked(text) == []


@pytest.fixture
def checkout(tmp_path, results):
    (tmp_path / "docs").mkdir()
    page = "# Page\n\n<!-- figures new: {a | x y:value} -->1.00<!-- /figures -->\n"
    (tmp_path / "docs" / "page.md").write_text(page)
    (tmp_path / "README.md").write_text("# Name\n")
    return tmp_path


def test_an_edited_mark_fails_the_check_and_is_filled_again(checkout, capsys):
    page = checkout / "docs" / "page.md"
    right = page.read_text()
    assert run_experiment(figures, [f"--root={checkout}", "--check"]) == 0
    page.write_text(right.replace("1.00", "9.00"))
    assert run_experiment(figures, [f"--root={checkout}", "--check"]) == 2
    assert "page.md: differs" in capsys.readouterr().out
    assert "9.00" in page.read_text()
    assert run_experiment(figures, [f"--root={checkout}"]) == 0
    assert page.read_text() == right


def test_a_table_without_a_mark_fails_the_check(checkout, capsys):
    (checkout / "README.md").write_text("| mAP |\n| ---: |\n| 48.27 |\n")
    assert run_experiment(figures, [f"--root={checkout}", "--check"]) == 2
    assert "README.md:3: | 48.27 |" in capsys.readouterr().out
