"""Nothing of a property is kept between runs, and what was tried is counted."""

import pytest

from tests.properties import cases


@pytest.fixture(autouse=True)
def no_folder_of_hypothesis(monkeypatch, tmp_path_factory):
    """Hypothesis keeps what it learnt of the program in a temporary folder, not in the clone."""
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path_factory.getbasetemp()))


def pytest_terminal_summary(terminalreporter):
    """Says how many cases the properties were tried on."""
    if cases.counts:
        total = sum(cases.counts.values())
        terminalreporter.write_line(f"properties: {total} cases of {len(cases.counts)}")
