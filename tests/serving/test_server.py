import contextlib
import json
import os
import signal
import threading

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

from delg_jax.errors import UserError
from delg_jax.retrieval.searcher import Abandoned, Verdict
from delg_jax.serving.answers import Answers
from delg_jax.serving.server import is_loopback, listen, serve
from tests import search_page
from tests.search_page import ask, jpeg, refused, search


def test_a_picture_is_searched_and_compared(port, server):
    found = search(port, "method=global&box=1,2,30,35&top=2")
    assert found.status == 200
    assert server.searcher.asked == [(1, 2, 30, 35)]
    assert [hit["image"] for hit in found.json["hits"]] == [0, 1]
    assert [hit["score"] for hit in found.json["hits"]] == [0.5, None]
    assert found.json["size"] == [40, 60]
    assert set(found.json["milliseconds"]) == {"decoding", "features", "search", "rerank"}
    body = json.dumps({"query": found.json["query"], "image": 0})
    pair = ask(port, "POST", "/api/matches", body, {"Content-Type": "application/json"})
    assert pair.json["lines"] == [[1.0, 2, 2.0, 3, True], [3, 4, 4, 5, False]]
    assert (pair.json["inliers"], pair.json["verified"]) == (1, False)
    assert pair.json["sizes"] == [[40, 60], [40, 60]]


def test_results_are_judged_on_request(port, server):
    server.searcher.verdict = Verdict([30, 2], ["strong", "chance"], 1, {"strong": 20}, 1.0)
    try:
        found, plain = (
            search(port, "method=global&judge=1").json,
            search(port, "method=global").json,
        )
    finally:
        server.searcher.verdict = None
    assert [(hit["inliers"], hit["level"]) for hit in found["hits"]] == [
        (30, "strong"),
        (2, "chance"),
    ]
    assert (found["likely"], found["least"]) == (1, {"strong": 20})
    assert "check" in found["milliseconds"]
    assert plain["likely"] is plain["least"] is None
    assert "level" not in plain["hits"][0]


def test_originals_come_as_they_are_stored(port):
    original = ask(port, "GET", "/api/original/0")
    assert original.headers["Content-Type"] == "image/jpeg"
    assert original.data == search_page.Source().read(0)
    assert ask(port, "GET", "/api/size/0").json == [40, 60]
    for path in ("/api/original/1", "/api/original/2", "/api/size/2", "/api/original/../x"):
        answer = ask(port, "GET", path)
        assert refused(answer, answer.status)
        assert answer.status in (400, 404)


def test_a_search_knows_that_nobody_waits(server, monkeypatch):
    def search(query, method, top, wanted):
        assert not wanted()
        raise Abandoned

    monkeypatch.setattr(server.searcher, "search", search)
    with contextlib.closing(Answers(server.searcher, search_page.LIMITS)) as answers:
        picture = answers.extract(jpeg(), None)
        with pytest.raises(Abandoned):
            answers.search(picture, "global", 1, wanted=lambda: False)


def test_the_same_picture_is_extracted_once_and_another_box_again(port, server):
    for query in ("method=global", "method=global%2Bsp", "box=0,0,9,9", "box=0,0,9,9&top=1"):
        assert search(port, query, jpeg(5)).status == 200
    assert server.searcher.asked == [None, (0, 0, 9, 9)]


def test_the_page_is_self_contained(port):
    page = ask(port, "GET", "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<script>" not in page.data
    assert b"style=" not in page.data
    for path in ("/search.js", "/search.css", "/box.js", "/matches.js", "/results.js"):
        asset = ask(port, "GET", path)
        assert asset.status == 200
        for fetched in (page.data, asset.data):
            assert b"https:" not in fetched
            assert b"innerHTML" not in fetched


def test_names_reach_the_page_as_data(port):
    found = search(port)
    assert [hit["name"] for hit in found.json["hits"]] == search_page.Source.names
    assert found.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("query", "subject"),
    [
        ("method=magic", "method"),
        ("method=%3Cscript%3E", "method"),
        ("box=1,2,3", "box"),
        ("box=nan,0,1,1", "box"),
        ("box=-inf,0,inf,1", "box"),
        ("box=9,9,1,1", "box"),
        ("top=0", "top"),
        ("top=201", "top"),
        ("top=1e9", "top"),
        (f"top={'9' * 5000}", "top"),
    ],
)
def test_wrong_requests_are_named(port, server, query, subject):
    assert refused(search(port, query), 400, f"{subject} = ")
    assert server.searcher.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/image/2",
        "/api/image/-1",
        "/api/image/..%2f..%2fetc%2fpasswd",
        "/api/image/../../../etc/passwd",
        "/api/image/0?size=100000",
        "/api/image/1",
        "/api/image/%D9%A3",
        "/search.css/../../page.html",
        "/%00",
        "/templates/page.html",
    ],
)
def test_nothing_but_pictures_by_index_can_be_had(port, path):
    answer = ask(port, "GET", path)
    assert refused(answer, answer.status)
    assert answer.status in (400, 404)


def test_pictures_come_in_two_sizes(port):
    for size in ("", "?size=768"):
        picture = ask(port, "GET", f"/api/image/0{size}")
        assert picture.headers["Content-Type"] == "image/jpeg"
        assert picture.data[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[" * 1000, 400),
        ("[]", 400),
        ('{"query": "x"}', 400),
        ('{"query": 1, "image": 0}', 400),
        ('{"query": "x", "image": true}', 400),
        ('{"query": "x", "image": 0}', 404),
        (" " * 1025, 413),
    ],
)
def test_wrong_requests_for_matches_are_refused(port, body, status):
    answer = ask(port, "POST", "/api/matches", body, {"Content-Type": "application/json"})
    assert refused(answer, status)


def test_other_ways_of_asking_are_refused(port):
    assert refused(ask(port, "DELETE", "/api/image/0"), 405)
    assert refused(ask(port, "OPTIONS", "/api/search"), 405)
    assert refused(ask(port, "GET", "/api/search"), 405)


@pytest.fixture
def interruptible():
    """SIGINT as in a terminal; jobs in the background start with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_peace(number):
    said = []
    with listen("localhost", 0) as listening:

        def announce(place):
            said.append((place, ask(int(place.rstrip("/").rpartition(":")[2]), "GET", "/").status))
            os.kill(os.getpid(), number)

        def later(place):
            threading.Thread(target=announce, args=(place,)).start()

        before = signal.getsignal(signal.SIGINT)
        serve(search_page.QuickSearcher(), listening, "localhost", [], search_page.LIMITS, later)
        assert signal.getsignal(signal.SIGINT) == before
    ((place, status),) = said
    assert place.startswith("http://localhost:")
    assert status == 200


def test_a_port_in_use_is_named():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}.*in use"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="no such host"):
        listen("no such host", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("0.0.0.0", False), ("::", False), ("photos.lan", False), ("::1", True), ("127.1.2.3", True)],
)
def test_an_open_door_is_detected(host, loopback):
    assert is_loopback(host) is loopback
