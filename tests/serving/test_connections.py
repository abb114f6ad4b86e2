import contextlib
import dataclasses
import socket
import time

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

from tests import search_page
from tests.search_page import ask, jpeg, search

_MOST = 6
_HEAD = "POST /api/search HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def small():
    """A server of few connections, which gives a search all the time it needs."""
    limits = dataclasses.replace(
        search_page.LIMITS, connections=_MOST, idle_seconds=60.0, body_seconds=60.0
    )
    searcher = search_page.QuickSearcher()
    with search_page.running(searcher, dataclasses.replace(limits, request_seconds=60.0)) as inside:
        inside.searcher = searcher
        yield inside
        searcher.gate.set()


def connect(port, sent=b""):
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.sendall(sent)
    return client


def received(client):
    """All that comes until the other side ends."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(4096):
            found += part
    return found


def test_idle_connections_make_room(small):
    head = _HEAD.format(port=small.port).encode()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(small.port, head[:n])) for n in range(4 * _MOST)]
        assert search(small.port).status == 200
        assert received(idle[0]) == b""  # closed


def test_connections_with_requests_stay_and_a_new_one_is_told_to_come_back(small):
    busy = _HEAD.format(port=small.port).encode() + b"Content-Length: 5000\r\n\r\nabc"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(small.port, busy)) for _ in range(_MOST)]
        time.sleep(0.5)  # so that they are known to have requests, as a rule
        end = time.monotonic() + 20
        refusal = b""
        while not refusal.startswith(b"HTTP/1.1 503") and time.monotonic() < end:
            with connect(small.port) as new:
                new.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    refusal = new.recv(4096)
        assert b"Retry-After" in refusal
        assert b"nosniff" in refusal
        assert len(clients) == _MOST
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            if search(small.port).status == 200:
                break
        assert time.monotonic() < end


def test_a_client_that_ends_its_sending_gets_its_answer(small):
    picture = jpeg(7)
    head = _HEAD.format(port=small.port) + f"Content-Length: {len(picture)}\r\n\r\n"
    with connect(small.port, head.encode() + picture) as client:
        client.shutdown(socket.SHUT_WR)
        assert b"HTTP/1.1 200 OK" in received(client)
    small.searcher.gate.clear()
    picture = jpeg(8)
    head = _HEAD.format(port=small.port) + f"Content-Length: {len(picture)}\r\n\r\n"
    with connect(small.port, head.encode() + picture) as client:
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
        small.searcher.gate.set()
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert b"HTTP/1.1 200 OK" in answer


def test_what_is_no_request_is_answered_with_the_same_headers(small):
    for sent in (b"noise\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n"):
        with connect(small.port, sent) as client:
            head = received(client).partition(b"\r\n\r\n")[0].decode()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert " 400 " in head
        assert lines["Server"] == "delg_jax"
        assert lines["X-Content-Type-Options"] == "nosniff"
        assert lines["Content-Security-Policy"].startswith("default-src 'none'")
    assert ask(small.port, "GET", "/").status == 200
