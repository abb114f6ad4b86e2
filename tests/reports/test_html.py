import html.parser
import json

import pytest

from configs import default
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.reports.html import write_report


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run <b>"
    scores = {"map": 12.345, "mp@1": 50.0}
    artefacts.write_json(
        folder / "metrics.json",
        {
            "methods": {"global": {p: scores for p in ("easy", "medium", "hard")}},
            "seconds": {"global": 1.0},
            "images": 7,
            "queries": 2,
        },
    )
    config = default.get_config()
    config.data.root = "</td><script>alert(1)</script>"
    artefacts.claim(folder / "evaluation", config, ("eval",))
    artefacts.claim(folder / "logs", config, ("train",))
    artefacts.write_json(folder / "train_metrics.json", {"loss": 0.5})
    records = [{"step": step, "loss": 2.0 / step} for step in (1, 2, 3)]
    lines = [json.dumps(record) for record in records] + ['{"step": 4, "lo']
    artefacts.write_text(folder / "logs" / "metrics.jsonl", "\n".join(lines))
    return folder


def report(folders, tmp_path):
    return Page(write_report(folders, tmp_path / "out" / "report.html").read_text())


def test_a_report_shows_methods_curves_and_configurations(workdir, tmp_path):
    page = report([workdir], tmp_path)
    for text in ("12.35", "50.00", "E map", "2 queries, 7 database images", "rerank.sp.residual"):
        assert text in page.text
    assert page.tags.count("polyline") == 1
    (points,) = [value for name, value in page.attributes if name == "points"]
    assert len(points.split()) == 3
    assert page.tags.count("details") == 3


def test_a_report_needs_no_network_and_runs_nothing(workdir, tmp_path):
    page = report([workdir], tmp_path)
    assert not {"script", "link", "img", "iframe", "b"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "<script>alert(1)</script>" in page.text
    assert "run <b>" in page.text


def test_a_report_takes_workdirs_of_training_only_and_several(workdir, tmp_path):
    other = tmp_path / "trained"
    artefacts.write_json(other / "train_metrics.json", {"validation_loss": 1.25})
    page = report([workdir, other], tmp_path)
    assert page.tags.count("section") == 2
    assert "1.25" in page.text


def test_a_folder_without_metrics_and_a_damaged_file_are_named(workdir, tmp_path):
    with pytest.raises(UserError, match="absent"):
        report([tmp_path / "absent"], tmp_path)
    (workdir / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="metrics.json"):
        report([workdir], tmp_path)
    assert not (tmp_path / "out").exists()
