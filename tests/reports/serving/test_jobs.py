import concurrent.futures
import json
import socket
import time

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

from tests import serving
from tests.serving import ask, jpeg, refused, search

_THREADS = 3  # that search


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_than_may_wait_are_told_to_come_back(port, server):
    server.searcher.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(serving.LIMITS.waiting) as pool:
        good = [
            pool.submit(search, port, body=jpeg(100 + n)) for n in range(serving.LIMITS.waiting)
        ]
        wait_for(lambda: len(server.searcher.asked) == _THREADS)
        wait_for(lambda: _is_full(port))
        answer = search(port, body=jpeg(200))
        server.searcher.gate.set()
        assert refused(answer, 503, "too many")
        assert int(answer.headers["Retry-After"]) >= 1
        assert [future.result().status for future in good] == [200] * serving.LIMITS.waiting
    assert search(port).status == 200


def _is_full(port):
    body = json.dumps({"query": "x", "image": 0})
    answer = ask(port, "POST", "/api/matches", body, {"Content-Type": "application/json"})
    return answer.status == 503


def test_nobody_searches_for_a_client_that_is_gone(port, server):
    server.searcher.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        good = [pool.submit(search, port, body=jpeg(300 + n)) for n in range(_THREADS)]
        wait_for(lambda: len(server.searcher.asked) == _THREADS)
        picture = jpeg(400)
        with socket.create_connection(("127.0.0.1", port), 10) as gone:
            head = f"POST /api/search HTTP/1.1\r\nHost: localhost:{port}\r\n"
            head += f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            gone.sendall(head.encode() + picture)
            time.sleep(0.2)
        time.sleep(0.2)
        server.searcher.gate.set()
        assert [future.result().status for future in good] == [200] * _THREADS
    assert search(port, body=jpeg(401)).status == 200
    assert len(server.searcher.asked) == _THREADS + 1


def test_a_search_that_takes_too_long_is_given_up(port, server):
    server.searcher.gate.clear()
    answer = search(port, body=jpeg(500))
    server.searcher.gate.set()
    assert refused(answer, 503, "longer than 3 seconds")
