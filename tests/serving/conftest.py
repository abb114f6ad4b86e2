"""A server of the search page for the tests of a module."""

from pathlib import Path

import pytest

from tests import search_page

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="drives the browser; the extra `test` installs it"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server():
    """A server in a thread, with its `port` and `searcher`."""
    searcher = search_page.QuickSearcher()
    with search_page.running(searcher, search_page.LIMITS) as inside:
        inside.searcher = searcher
        yield inside


@pytest.fixture
def port(server):
    """Of a server that answers at once and was asked nothing."""
    server.searcher.gate.set()
    server.searcher.failure = None
    server.searcher.asked.clear()
    return server.port
