"""The search page's server in a thread, with a searcher that answers immediately."""

import asyncio
import contextlib
import functools
import http.client
import io
import json
import threading
from types import SimpleNamespace

import numpy as np
from PIL import Image

from delg_jax.rerank.spatial_verification import Verification
from delg_jax.retrieval.searcher import Found, Hit, Matches, Query, Verdict
from delg_jax.serving.requests import Limits
from tests import photographs, tiny

LIMITS = Limits(
    upload_bytes=20_000, waiting=5, body_seconds=2.0, idle_seconds=2.0, request_seconds=3.0
)
FURTHER_HOST = "photos.example"
MARKUP = "<img src=x onerror=alert(1)>"


@functools.cache
def jpeg(seed: int = 0, height: int = 40, width: int = 60) -> bytes:
    """A drawn photograph, encoded."""
    target = io.BytesIO()
    Image.fromarray(photographs.draw(seed, height, width)).save(target, "JPEG")
    return target.getvalue()


class Source:
    """Two images in memory, the first with a hostile name; the second is damaged."""

    names = [MARKUP, "../../etc/passwd"]
    labels = np.full(2, -1)

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> bytes:
        return jpeg(index) if index == 0 else b"damaged"


class QuickSearcher:
    """Finds both images for any query; while `gate` is cleared, queries wait."""

    def __init__(self) -> None:
        self.config = tiny.tiny_config().lock()
        self.source, self.methods = Source(), ("global", "global+sp")
        self.best_method = "global+sp"
        self.gate, self.asked, self.failure = threading.Event(), [], None
        self.gate.set()
        self.verdict: Verdict | None = None

    def query_prepared(self, loaded, size, box) -> Query:
        self.asked.append(box)
        self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        return Query(None, size, (0, 0), 1.5)

    def warm_up(self) -> None:
        """Nothing to compile."""

    def search(self, query, method, top, wanted=lambda: True) -> Found:
        del query, method, wanted
        hits = [Hit(0, Source.names[0], 0.5), Hit(1, Source.names[1], -np.inf)]
        return Found(hits[:top], {"features": 1.5, "search": 1.0, "rerank": 0.0})

    def judge(self, query, hits, wanted=lambda: True) -> Verdict | None:
        del query, hits, wanted
        return self.verdict

    def matches(self, query, image) -> Matches:
        del query, image
        places = np.array([[1.04, 2], [3, 4]], np.float32)
        found = Verification(np.zeros((2, 2), int), np.array([True, False]), np.eye(3)[:2])
        return Matches((places, places + 1), found)


@contextlib.contextmanager
def running(searcher, limits: Limits):
    """Serves in a thread; yields something with the `port`."""
    from delg_jax.serving import server
    from delg_jax.serving.requests import allowed_hosts

    listening = server.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    allowed = allowed_hosts("127.0.0.1", port, [FURTHER_HOST])
    ready, inside = threading.Event(), SimpleNamespace(port=port)

    async def main() -> None:
        inside.stop, inside.loop = asyncio.Event(), asyncio.get_running_loop()
        await server.run(searcher, listening, allowed, limits, inside.stop, ready.set)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield inside
    finally:
        inside.loop.call_soon_threadsafe(inside.stop.set)
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def ask(port: int, method: str, path: str, body=None, headers=None) -> SimpleNamespace:
    """Sends a request; returns `status`, `headers`, `data`, and `json` if the answer is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        data, kind = response.read(), response.headers["Content-Type"] or ""
        answer = json.loads(data) if data and kind.startswith("application/json") else None
        return SimpleNamespace(
            status=response.status, headers=response.headers, data=data, json=answer
        )
    finally:
        connection.close()


def search(port: int, query: str = "", body: bytes | None = None, **headers) -> SimpleNamespace:
    """Searches for an image."""
    sent = {"Content-Type": "image/jpeg"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return ask(port, "POST", f"/api/search?{query}", jpeg() if body is None else body, sent)


def refused(answer: SimpleNamespace, status: int, words: str = "") -> bool:
    """Asserts that an answer is an error in one line of JSON."""
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert "Traceback" not in answer.json["error"]
    return True
