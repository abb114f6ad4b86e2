"""Runs searches and image resizing in threads; a limited number of requests wait."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, Self, TypeVar

from delg_jax.serving.requests import Limits, Refusal

T = TypeVar("T")

_SEARCH_THREADS = 3  # some decode images while one uses the device
_IMAGE_THREADS = 2
_IMAGES_PER_SEARCH = 16  # a page requests the images of many results


class SearchQueue:
    """Runs work in threads outside the event loop; use it in a `with` block.

    Args:
      limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.request_seconds
        self._searches = _Pool("search", _SEARCH_THREADS, limits.waiting)
        images = limits.waiting * _IMAGES_PER_SEARCH
        self._images = _Pool("image", _IMAGE_THREADS, images)

    def __enter__(self) -> Self:
        """Does nothing: threads start when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for running work and drops waiting work."""
        for pool in (self._searches, self._images):
            pool.executor.shutdown(wait=True, cancel_futures=True)

    async def search(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs a search; a Refusal if too many requests wait, or it takes too long."""
        return await self._run(self._searches, work, *arguments)

    async def read_image(self, work: Callable[..., T], *arguments: Any) -> T:
        """Like `search`, for reading and resizing an image, which needs no device."""
        return await self._run(self._images, work, *arguments)

    async def _run(self, pool: "_Pool", work: Callable[..., T], *arguments: Any) -> T:
        if pool.requests >= pool.limit:
            raise Refusal(503, "too many requests; try again", 1)
        pool.requests += 1
        future = pool.executor.submit(work, *arguments)
        # If cancelled while it waits, as when the client disconnects, it never runs
        future.add_done_callback(pool.release_on(asyncio.get_running_loop()))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            reason = f"took longer than {self._seconds:g} seconds; try again"
            raise Refusal(503, reason, 5) from error


class _Pool:
    """A few threads and the number of their requests, which only the event loop changes."""

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self.executor = concurrent.futures.ThreadPoolExecutor(threads, name)
        self.limit, self.requests = limit, 0

    def release_on(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        """A callback, for any thread, that makes the event loop count one request less."""

        def release() -> None:
            self.requests -= 1

        def callback(_: object) -> None:
            loop.call_soon_threadsafe(release)

        return callback
