"""A server of the search page for the tests of a module."""

import pytest

from tests import search_page


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
