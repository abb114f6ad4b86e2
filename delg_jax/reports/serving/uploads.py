"""Bodies of requests, read within limits of size and time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from delg_jax.reports.serving.limits import Limits, Refusal

_WHOLE = 16  # pictures of the largest size that may be in memory at a time


class Uploads:
    """Reads the bodies of all requests, and knows how much of them is in memory.

    Args:
      limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._held = limits, 0

    @contextlib.asynccontextmanager
    async def body(
        self, request: web.Request, content_type: str, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held inside the block.

        Args:
          request: whose head was read.
          content_type: that it must have, or begin with.
          limit: bytes; None for that of a picture.

        Raises:
          Refusal: if it is of another type, too large or too slow, or too many are read.
        """
        limit = self._limits.upload_bytes if limit is None else limit
        if not request.content_type.startswith(content_type):
            kind = f"{content_type}*" if content_type.endswith("/") else content_type
            raise Refusal(415, f"the body must be of the type {kind}")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "the body must come as it is, not encoded")
        if (request.content_length or 0) > limit:
            raise Refusal(413, _too_large(limit))
        received = bytearray()
        try:
            await self._receive(request, limit, received)
            yield bytes(received)
        finally:
            self._held -= len(received)

    async def _receive(self, request: web.Request, limit: int, received: bytearray) -> None:
        """Appends the parts of a body to `received` as they arrive."""
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.content.iter_any():
                    received += part
                    self._held += len(part)
                    if len(received) > limit:
                        raise Refusal(413, _too_large(limit))
                    if self._held > _WHOLE * self._limits.upload_bytes:
                        raise Refusal(503, "too many pictures arrive at a time", 2)
        except TimeoutError as error:
            raise Refusal(408, "the body must arrive sooner") from error


def _too_large(limit: int) -> str:
    return f"the body must have at most {limit} bytes"
