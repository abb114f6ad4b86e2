"""The work behind the search page: one search at a time on the device, others wait in order."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar

from delg_jax.serving.requests import Limits, Refusal

T = TypeVar("T")

_SEARCHES, _DRAWINGS = 3, 2  # threads; a few decode pictures while one has the device
_DRAWINGS_PER_SEARCH = 16  # a page asks for the pictures of many results


class Jobs:
    """Runs searches and shrinks pictures beside the event loop; use it in a `with` block.

    Args:
      limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._seconds = limits.request_seconds
        self._searches = _Lane("search", _SEARCHES, limits.waiting)
        self._drawings = _Lane("draw", _DRAWINGS, limits.waiting * _DRAWINGS_PER_SEARCH)

    def __enter__(self) -> "Jobs":
        """Threads start when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for what runs, and drops what waits."""
        for lane in (self._searches, self._drawings):
            lane.pool.shutdown(wait=True, cancel_futures=True)

    async def search(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs a search; a Refusal if too many wait, or it takes too long."""
        return await self._run(self._searches, work, *arguments)

    async def draw(self, work: Callable[..., T], *arguments: Any) -> T:
        """As `search`, for what takes no device."""
        return await self._run(self._drawings, work, *arguments)

    async def _run(self, lane: "_Lane", work: Callable[..., T], *arguments: Any) -> T:
        if lane.inside >= lane.limit:
            raise Refusal(503, "too many requests wait; try again", 1)
        lane.inside += 1
        future = lane.pool.submit(work, *arguments)
        # Cancelled while it waits, as when its client is gone, it never runs; what runs, ends
        future.add_done_callback(lane.leave_from(asyncio.get_running_loop()))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            reason = f"took longer than {self._seconds:g} seconds; try again"
            raise Refusal(503, reason, 5) from error


class _Lane:
    """A few threads and how many requests are at them; only the event loop counts."""

    def __init__(self, name: str, threads: int, limit: int) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, name)
        self.limit, self.inside = limit, 0

    def leave_from(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        """A callback, for any thread, that counts one request less."""

        def leave() -> None:
            self.inside -= 1

        return lambda _: loop.call_soon_threadsafe(leave)
