import asyncio
import concurrent.futures
import dataclasses
import socket
import threading
import time

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

from delg_jax.serving.requests import Refusal
from delg_jax.serving.search_queue import SearchQueue
from tests import search_page
from tests.search_page import jpeg, refused, search

_THREADS = 2  # that extract


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def patient():
    """A server that gives a search all the time it needs."""
    limits = dataclasses.replace(search_page.LIMITS, waiting=_THREADS + 1, request_seconds=120.0)
    searcher = search_page.QuickSearcher()
    searcher.gate.clear()
    with search_page.running(searcher, limits) as inside:
        inside.searcher = searcher
        yield inside
        searcher.gate.set()


def test_more_than_may_wait_are_told_to_come_back():
    limits, gate = dataclasses.replace(search_page.LIMITS, request_seconds=120.0), threading.Event()

    async def ask_for_too_much(queue):
        inside = [asyncio.create_task(queue.search(gate.wait, 60)) for _ in range(limits.waiting)]
        await asyncio.sleep(0)  # each of them takes its place
        with pytest.raises(Refusal, match="too many") as refusal:
            await queue.search(gate.wait, 60)
        gate.set()
        return refusal.value, await asyncio.gather(*inside), await queue.search(gate.wait, 60)

    with SearchQueue(limits) as queue:
        refusal, good, later = asyncio.run(ask_for_too_much(queue))
    assert (refusal.status, refusal.retry_seconds) == (503, 1)
    assert [*good, later] == [True] * (limits.waiting + 1)


def test_a_full_server_answers_at_once(patient):
    limit = _THREADS + 1
    with concurrent.futures.ThreadPoolExecutor(2 * limit) as pool:
        asked = [pool.submit(search, patient.port, body=jpeg(100 + n)) for n in range(2 * limit)]
        # As many are refused as are too many, whichever come last; the others are still waiting
        wait_for(lambda: sum(answer.done() for answer in asked) == limit)
        early = [answer.result() for answer in asked if answer.done()]
        patient.searcher.gate.set()
        statuses = [answer.result().status for answer in asked]
    assert all(refused(answer, 503, "too many") for answer in early)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in early)
    assert sorted(statuses) == [200] * limit + [503] * limit
    assert search(patient.port).status == 200


def test_nobody_searches_for_a_client_that_is_gone(patient):
    def connections():
        return len(asyncio.all_tasks(patient.loop))

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        good = [pool.submit(search, patient.port, body=jpeg(300 + n)) for n in range(_THREADS)]
        wait_for(lambda: len(patient.searcher.asked) == _THREADS)
        before, picture = connections(), jpeg(400)
        with socket.create_connection(("127.0.0.1", patient.port), 10) as gone:
            head = f"POST /api/search HTTP/1.1\r\nHost: localhost:{patient.port}\r\n"
            head += f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            gone.sendall(head.encode() + picture)
            time.sleep(0.2)  # so that it waits for a thread, as a rule
            wait_for(lambda: connections() > before)
        wait_for(lambda: connections() == before)
        patient.searcher.gate.set()
        assert [future.result().status for future in good] == [200] * _THREADS
    assert search(patient.port, body=jpeg(401)).status == 200
    assert len(patient.searcher.asked) == _THREADS + 1


def test_a_search_that_takes_too_long_is_abandoned(port, server):
    server.searcher.gate.clear()
    answer = search(port, body=jpeg(500))
    server.searcher.gate.set()
    assert refused(answer, 503, "longer than 3 seconds")


def test_the_end_waits_for_work_but_not_forever():
    limits, gate = dataclasses.replace(search_page.LIMITS, shutdown_seconds=0.2), threading.Event()

    async def leave(queue):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await queue.search(gate.wait, 60)

    queue, start = SearchQueue(limits), time.monotonic()
    with queue:
        asyncio.run(leave(queue))
    assert not queue.is_idle
    assert time.monotonic() - start < 20
    gate.set()
    with SearchQueue(limits) as queue:
        assert asyncio.run(queue.search(int, "7")) == 7
    assert queue.is_idle
