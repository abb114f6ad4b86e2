"""Runs searches, decoding and image resizing in threads; a limited number of requests wait."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar

from delg_jax.serving.requests import Limits, Refusal

T = TypeVar("T")

_PAUSE = 0.02  # seconds
_EXTRACTION_THREADS = 2  # one decodes while the other uses the device
_SEARCH_THREADS = 2
_IMAGE_THREADS = 2
_IMAGES_PER_SEARCH = 16  # a page requests the images of many results
_LARGE_SHARE = 8  # for one large image that waits, so many searches may


class SearchQueue:
    """Runs work in threads outside the event loop; use it in a `with` block.

    Large uploads are taken one at a time, beside others, so that they hold up nobody else.

    Args:
      limits: of the server.

    Attributes:
      is_idle: at the end of the block, whether all work has ended.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds, self._patience = limits.request_seconds, limits.shutdown_seconds
        self._searches = _Pool("search", _SEARCH_THREADS, limits.waiting)
        images = limits.waiting * _IMAGES_PER_SEARCH
        self._images = _Pool("image", _IMAGE_THREADS, images)
        self._extraction = _Pool("extraction", _EXTRACTION_THREADS, limits.waiting)
        self._large = _Pool("large", 1, -(-limits.waiting // _LARGE_SHARE))
        self.is_idle = True

    def __enter__(self) -> Self:
        """Does nothing: threads start when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drops waiting work, and waits for running work for some seconds."""
        pools = self._searches, self._images, self._extraction, self._large
        for pool in pools:
            pool.executor.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + self._patience
        while (running := any(pool.running for pool in pools)) and time.monotonic() < end:
            time.sleep(_PAUSE)
        self.is_idle = not running

    async def search(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs a search; a Refusal if too many requests wait, or it takes too long."""
        return await self._run(self._searches, work, *arguments)

    async def extract(self, work: Callable[..., T], *arguments: Any) -> T:
        """Like `search`, for decoding an upload and extracting its features."""
        return await self._run(self._extraction, work, *arguments)

    async def extract_large(self, work: Callable[..., T], *arguments: Any) -> T:
        """Like `extract`, for an upload that takes long."""
        return await self._run(self._large, work, *arguments)

    async def read_image(self, work: Callable[..., T], *arguments: Any) -> T:
        """Like `search`, for reading and resizing an image, which needs no device."""
        return await self._run(self._images, work, *arguments)

    @contextlib.asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """A Refusal if the block takes longer than a request may; other deadlines may be inside."""
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            reason = f"took longer than {self._seconds:g} seconds; try again"
            raise Refusal(503, reason, 5) from error

    async def _run(self, pool: "_Pool", work: Callable[..., T], *arguments: Any) -> T:
        if pool.requests >= pool.limit:
            raise Refusal(503, "too many requests; try again", 1)
        pool.requests += 1
        future = pool.executor.submit(pool.count, work, *arguments)
        # If cancelled while it waits, as when the client disconnects, it never runs
        future.add_done_callback(pool.release_on(asyncio.get_running_loop()))
        async with self.deadline():
            return await asyncio.wrap_future(future)


class _Pool:
    """A few threads and the number of their requests, which only the event loop changes."""

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self.executor = concurrent.futures.ThreadPoolExecutor(threads, name)
        self.limit, self.requests = limit, 0
        self.running: set[int] = set()  # threads at work

    def count(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs work, and notes the thread for as long."""
        self.running.add(threading.get_ident())
        try:
            return work(*arguments)
        finally:
            self.running.discard(threading.get_ident())

    def release_on(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        """A callback, for any thread, that makes the event loop count one request less."""

        def release() -> None:
            self.requests -= 1

        def callback(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(release)

        return callback
