import json
import shutil

import pytest
from hypothesis import strategies as st

from delg_jax.cli import bench
from delg_jax.errors import UserError
from delg_jax.reports.html import write_report
from delg_jax.training.metrics import MetricsWriter
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import changed_json, damaged
from tests.reports import workdirs

_RECORDS = "".join(f'{{"step": {step}, "loss": 2.5, "accuracy": 0.25}}\n' for step in (10, 20, 30))
_TRAINING = {"loss": 1.25, "global_accuracy": 0.5, "scale": 45.0}
_TIMED = {"name": "a", "kind": "ours", "median": 0.5, "spread": 0.01, "ratio": 1.0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An evaluated and trained workdir, with every part that an evaluation writes."""
    root = tmp_path_factory.mktemp("reports")
    folder = workdirs.make(root / "run", root / "data")
    content = json.loads((folder / "metrics.json").read_text())
    content.pop("checksum", None)  # or every change would be found by it alone
    content.setdefault("megabytes", dict.fromkeys(content["methods"], 12.5))
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "train_metrics.json").write_text(json.dumps(_TRAINING))
    (folder / "logs").mkdir()
    (folder / "logs" / "metrics.jsonl").write_text(_RECORDS)
    return folder


def _report(folder):
    """The page of the metrics alone: without features and rankings it takes no time."""
    return outcome(lambda: write_report([folder], folder / "report.html").read_text())


def _copy(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    for name in ("metrics.json", "train_metrics.json", "logs/metrics.jsonl"):
        shutil.copy(whole / name, folder / name)
    return folder


def test_the_metrics_have_every_part(whole, tmp_path):
    """Otherwise the changes below would change less than an evaluation writes."""
    content = json.loads((whole / "metrics.json").read_text())
    assert {"methods", "average_precisions", "intervals", "comparisons", "seconds"} < set(content)
    assert "<html" in _report(_copy(whole, tmp_path))


@cases(200)
@pytest.mark.parametrize("name", ["metrics.json", "train_metrics.json"])
def test_a_report_of_any_metrics_is_written_or_refused(whole, tmp_path, name, examples):
    def check(case):
        folder = _copy(whole, tmp_path)
        changed = case.draw(changed_json((whole / name).read_text()))
        (folder / name).write_text(changed)
        page = _report(folder)
        assert isinstance(page, UserError) or '</script>"' not in page

    hold(examples, check, st.data())


@cases(100)
def test_records_of_any_kind_are_drawn_or_refused(whole, tmp_path, examples):
    """A resumed training keeps the earlier ones, or says that they are damaged."""

    def check(case):
        folder = _copy(whole, tmp_path)
        path = folder / "logs" / "metrics.jsonl"
        if case.draw(st.booleans()):
            path.write_bytes(case.draw(damaged((_RECORDS.encode(),))))
        else:
            first, *others = _RECORDS.splitlines(keepends=True)
            path.write_text(case.draw(changed_json(first)) + "\n" + "".join(others))
        _report(folder)
        writer = outcome(lambda: MetricsWriter(path.parent, 20))
        if not isinstance(writer, UserError):
            assert isinstance(writer.read(20), dict)

    hold(examples, check, st.data())


@cases(80)
def test_any_benchmarks_are_compared_or_refused(tmp_path, capsys, examples):
    size = {"points": 5, "dtype": "float32"}
    whole = json.dumps({"name": "mds", "size": size, "unit": "query", "implementations": [_TIMED]})
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(whole)

    def check(case):
        new.write_text(case.draw(changed_json(whole)))

        def compare():
            return bench._compare(bench._read(old), bench._read(new))

        outcome(compare)
        capsys.readouterr()

    hold(examples, check, st.data())
