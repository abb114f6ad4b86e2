import base64
import hashlib
import html.parser
import importlib.resources
import json
import re

import pytest

from configs import default
from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.reports.explorer import PageSettings
from delg_jax.reports.html import json_for_script, write_report
from tests.reports import workdirs

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{ 7 * 7 }}<!-- & \u2028",
]
VOID = {"meta", "link", "input", "img", "br"}


class Page(html.parser.HTMLParser):
    """Collects tags, attributes, text and the bodies of scripts; fails where tags do not nest."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], "", []
        self._open = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "run <b>"
    scores = {"map": 12.345, "mp@1": 50.0}
    outputs.write_json(
        folder / "metrics.json",
        {
            "methods": {"global": {p: scores for p in ("easy", "medium", "hard")}},
            "seconds": {"global": 1.0},
            "images": 7,
            "queries": 2,
        },
    )
    config = default.get_config()
    config.data.name, config.data.root = "revisited", "</td><script>alert(1)</script>"
    outputs.Output.of(folder / "evaluation", config, ("eval",)).claim()
    outputs.Output.of(folder / "logs", config, ("train",)).claim()
    outputs.write_json(folder / "train_metrics.json", {"loss": 0.5})
    records = [{"step": step, "loss": 2.0 / step, "sparsity_conv4": 0.5} for step in (1, 2, 3)]
    lines = [json.dumps(record) for record in records] + ['{"step": 4, "lo']
    outputs.write_text(folder / "logs" / "metrics.jsonl", "\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A workdir whose queries have hostile names; a slash cannot be in them."""
    root = tmp_path_factory.mktemp("hostile")
    names = [name.replace("/", "\u2215") for name in HOSTILE]
    return workdirs.make(root / "run", root / "data", names)


def report(folders, tmp_path, **settings):
    path = write_report(
        folders, tmp_path / "out" / "report.html", settings=PageSettings(**settings)
    )
    return Page(path.read_text(encoding="utf-8"))


def test_a_report_shows_methods_curves_and_configurations(trained, tmp_path):
    page = report([trained], tmp_path)
    for text in (
        "12.35",
        "50.00",
        "E map",
        "2 queries, 7 database images",
        "rerank.sp.inlier_threshold",
    ):
        assert text in page.text
    assert page.tags.count("figure") == 2
    drawn = [json.loads(value) for name, value in page.attributes if name == "data-chart"]
    assert [chart["curves"] for chart in drawn] == [
        [["loss", [2.0, 1.0, 0.666667]]],
        [["sparsity_conv4", [0.5, 0.5, 0.5]]],
    ]
    assert page.tags.count("details") == 3
    assert "cannot be opened" in page.text
    assert "no queries are shown" in page.text


def test_a_report_needs_no_network_and_runs_only_its_script(trained, hostile, tmp_path):
    page = report([trained, hostile], tmp_path)
    assert not {"link", "img", "iframe", "b", "object"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert "src" not in names
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not [name for name in names if name.startswith("on")]
    assert page.tags.count("script") == 3  # data, library, own
    assert "<script>alert(1)</script>" in page.text
    assert "run <b>" in page.text
    (policy,) = [value for name, value in page.attributes if "default-src" in (value or "")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    digests = [hashlib.sha256(script.encode()).digest() for script in page.scripts[-2:]]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    assert policy.endswith(f"; script-src {allowed}")


def test_a_report_holds_the_library_of_its_charts_with_its_licence(trained, tmp_path):
    path = write_report([trained], tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    vendor = importlib.resources.files("delg_jax.reports") / "templates" / "vendor"
    names = {file.name for file in vendor.iterdir()}
    assert names == {"uPlot.LICENSE", "uPlot.iife.min.js", "uPlot.min.css"}
    for name in names:
        assert (vendor / name).read_text("utf-8") in text
    # A name space and the origin of the library; nothing is loaded from either.
    assert set(re.findall(r"https?://[^\s\"'();,]+", text)) == {
        "http://www.w3.org/2000/svg",
        "https://github.com/leeoniya/uPlot",
    }
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|import\(", text)


def test_hostile_names_stay_text_in_the_data(hostile, tmp_path):
    page = report([hostile], tmp_path)
    assert not any(sign in page.scripts[0] for sign in "<>&\u2028")
    content = json.loads(page.scripts[0])
    wanted = {name.replace("/", "\u2215") for name in HOSTILE}
    assert {query["name"] for query in content["queries"]} == wanted


def test_json_for_script_is_json_that_ends_no_script():
    for value in (*HOSTILE, "]]>", "<!--", "é\u2029"):
        text = json_for_script({"name": value})
        assert json.loads(text) == {"name": value}
        assert "<" not in text
    with pytest.raises(ValueError, match="JSON"):
        json_for_script(float("nan"))


def test_the_language_and_the_headings_are_in_order(hostile, tmp_path):
    page = report([hostile, hostile], tmp_path)
    assert ("lang", "en") in page.attributes
    levels = [int(tag[1]) for tag in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert "Comparison" in page.text


def test_two_runs_are_compared_and_a_difference_is_drawn(hostile, tmp_path):
    other = workdirs.make(tmp_path / "other", hostile.parent / "data", seed=1)
    page = report([hostile, other], tmp_path)
    assert "2: local" in page.text
    assert "Medium: local, difference by query" in page.text
    assert "Medium: global, difference by query" not in page.text


def test_deleted_images_are_reported(hostile, tmp_path):
    page = Page(
        write_report(
            [hostile], tmp_path / "page.html", data_root=str(tmp_path / "gone")
        ).read_text()
    )
    assert "cannot be opened" in page.text
    assert "no pictures" in page.text
    assert json.loads(page.scripts[0])["pictures"] == []


def test_pictures_that_are_left_out_are_counted(hostile, tmp_path):
    assert "pictures are left out" in report([hostile], tmp_path, megabytes=0.02).text


def test_a_list_that_is_cut_says_so(hostile, tmp_path):
    assert "2 of 4 queries are listed" in report([hostile], tmp_path, queries=2).text


def test_a_report_takes_workdirs_of_training_only_and_several(trained, tmp_path):
    other = tmp_path / "trained"
    outputs.write_json(other / "train_metrics.json", {"validation_loss": 1.25})
    page = report([trained, other], tmp_path)
    assert page.tags.count("section") == 2
    assert "1.25" in page.text


def test_a_folder_without_metrics_and_a_damaged_file_are_named(trained, tmp_path):
    with pytest.raises(UserError, match="absent"):
        report([tmp_path / "absent"], tmp_path)
    (trained / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="metrics.json"):
        report([trained], tmp_path)
    assert not (tmp_path / "out").exists()
