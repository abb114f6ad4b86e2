"""What every request passes: whom it may address, where it may come from, and how errors look."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from aiohttp import web

from delg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
      upload_bytes: of a picture.
      waiting: searches that may wait or run at a time.
      body_seconds: for a picture to arrive.
      idle_seconds: for the head of a request to arrive, before a connection is closed.
      request_seconds: for a search, its waiting included.
    """

    upload_bytes: int = 20 * 2**20
    waiting: int = 64
    body_seconds: float = 30.0
    idle_seconds: float = 15.0
    request_seconds: float = 60.0


class Refusal(Exception):
    """A request that is not answered.

    Args:
      status: of HTTP.
      reason: for the client, one line.
      retry_seconds: after which it may ask again; None if that does not help.
    """

    def __init__(self, status: int, reason: str, retry_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_seconds = status, reason, retry_seconds


_LOG = logging.getLogger(__name__)

# Subjects of mistakes that are the client's; others are the server's own and tell its paths
_OF_CLIENT = ("--image", "--box", "--method", "--top", "--size", "image", "config.model.local_head")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "delg_jax",  # and nothing of its version
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def hosts(host: str, port: int, further: Collection[str] = ()) -> frozenset[str]:
    """What a Host header may say.

    A page of another site whose name was made to lead to this address (DNS rebinding) says that
    name, and is thereby known.

    Args:
      host: address that is listened on.
      port: of it.
      further: names under which the page is known, with or without a port.
    """
    bracketed = f"[{host}]" if ":" in host else host
    names = (bracketed, "localhost", "127.0.0.1", "[::1]", *further)
    allowed = {f"{name}:{port}".lower() for name in names}
    allowed.update(name.lower() for name in (names if port == 80 else further))
    return frozenset(allowed)


def guard(allowed: Collection[str]) -> Callable[[web.Request, Handler], Awaitable]:
    """The outermost middleware of the server; `allowed` is as from `hosts`."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks a request, answers it, and gives every answer its headers."""
        try:
            _check(request, allowed)
            response = await handler(request)
        except Refusal as refusal:
            response = _error(refusal.status, refusal.reason)
            if refusal.retry_seconds is not None:
                response.headers["Retry-After"] = str(refusal.retry_seconds)
        except UserError as error:
            response = _of_user_error(error)
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:  # a bug must not show its traceback to a client
            _LOG.exception("%r failed", request.path)
            response = _error(500, "the server failed; its log says why")
        response.headers.update(_HEADERS)
        return response

    return guarded


def _check(request: web.Request, allowed: Collection[str]) -> None:
    named = request.headers.getall("Host", [])
    if len(named) != 1 or named[0].lower() not in allowed:
        raise Refusal(403, "the Host header names another server; see --allowed_hosts")
    if request.method in ("GET", "HEAD"):
        return
    for origin in request.headers.getall("Origin", []):  # absent where no browser asks
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https") or place not in allowed:
            raise Refusal(403, "the request comes from a page of another site")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "the request comes from a page of another site")


def _of_user_error(error: UserError) -> web.Response:
    if error.subject not in _OF_CLIENT:
        _LOG.warning("a search failed: %s", " ".join(str(error).split()))
        return _error(500, "the server cannot do this; its log says why")
    subject = error.subject.removeprefix("--")
    return _error(400, f"{subject} = {error.value!r}: {error.rule}")


def _error(status: int, reason: str) -> web.Response:
    return web.json_response({"error": " ".join(reason.split())}, status=status)


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
