"""Checks of every request (host, origin, size of the body), and error responses."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Collection
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from delg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
      upload_bytes: maximum size of an image.
      upload_pixels: maximum number of pixels of an image, in addition to `config.data.max_pixels`.
      waiting: maximum number of searches that wait or run.
      body_seconds: maximum time to receive an image.
      idle_seconds: maximum time to receive the head of a request; then the connection is closed.
      request_seconds: maximum time for a search, waiting included.
      decoding_seconds: maximum time to decode an image.
      connections: maximum number of open connections.
      shutdown_seconds: time for running requests when the server stops.
    """

    upload_bytes: int = 20 * 2**20
    upload_pixels: int = 64_000_000
    waiting: int = 64
    body_seconds: float = 30.0
    idle_seconds: float = 15.0
    request_seconds: float = 60.0
    decoding_seconds: float = 15.0
    connections: int = 512
    shutdown_seconds: float = 3.0


class Refusal(Exception):
    """A request that is refused.

    Args:
      status: HTTP status.
      reason: one line for the client.
      retry_seconds: time after which to try again; None if that does not help.
    """

    def __init__(self, status: int, reason: str, retry_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_seconds = status, reason, retry_seconds


_LOG = logging.getLogger(__name__)

_MAX_UPLOADS = 16  # images of the maximum size that may be in memory

# Subjects of client errors. Other errors are the server's, and their text could reveal paths
_CLIENT_SUBJECTS = (
    "--image",
    "--box",
    "--method",
    "--top",
    "--size",
    "image",
    "config.model.local_head",
)
# Of every response
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "delg_jax",  # without a version
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def allowed_hosts(host: str, port: int, further: Collection[str] = ()) -> frozenset[str]:
    """Values that a Host header may have.

    This protects against DNS rebinding: a page of another site whose name was made to resolve to
    this address sends that name as Host.

    Args:
      host: address that the server listens on.
      port: port that the server listens on.
      further: other names of the server, with or without a port.
    """
    bracketed = f"[{host}]" if ":" in host else host
    names = (bracketed, "localhost", "127.0.0.1", "[::1]", *further)
    allowed = {f"{name}:{port}".lower() for name in names}
    allowed.update(name.lower() for name in (names if port == 80 else further))
    return frozenset(allowed)


def guard(allowed: Collection[str]) -> Middleware:
    """The outermost middleware of `connections`; `allowed` is from `allowed_hosts`."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks a request, answers it, and sets the headers of every response."""
        connection: Any = request.protocol
        connection.begin(request)
        try:
            _check(request, allowed)
            response = await handler(request)
        except Refusal as refusal:
            response = _error(refusal.status, refusal.reason)
            if refusal.retry_seconds is not None:
                response.headers["Retry-After"] = str(refusal.retry_seconds)
        except UserError as error:
            response = _user_error(error)
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:  # a bug must not show its traceback to a client
            _LOG.exception("%r failed", request.path)
            response = _error(500, "internal error; see the log of the server")
        finally:
            connection.end()
        response.headers.update(HEADERS)
        return response

    return guarded


def _check(request: web.Request, allowed: Collection[str]) -> None:
    named = request.headers.getall("Host", [])
    if len(named) != 1 or named[0].lower() not in allowed:
        raise Refusal(403, "the Host header is not a name of this server; see --allowed_hosts")
    if request.method in ("GET", "HEAD"):
        return
    for origin in request.headers.getall("Origin", []):  # only browsers send it
        scheme, _, host = origin.lower().partition("://")
        if scheme not in ("http", "https") or host not in allowed:
            raise Refusal(403, "the request comes from a page of another site")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "the request comes from a page of another site")


def _user_error(error: UserError) -> web.Response:
    if error.subject not in _CLIENT_SUBJECTS:
        _LOG.warning("a search failed: %s", " ".join(str(error).split()))
        return _error(500, "internal error; see the log of the server")
    subject = error.subject.removeprefix("--")
    return _error(400, f"{subject} = {error.value!r}: {error.rule}")


def _error(status: int, reason: str) -> web.Response:
    return web.json_response({"error": " ".join(reason.split())}, status=status)


class Uploads:
    """Reads the bodies of all requests, and limits how much of them is in memory.

    Args:
      limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._in_memory = limits, 0

    @contextlib.asynccontextmanager
    async def body(
        self, request: web.Request, content_type: str, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """Reads the body of a request, which counts as in memory inside the block.

        Args:
          request: the request.
          content_type: required type, or its beginning.
          limit: maximum number of bytes; None for the maximum of an image.

        Raises:
          Refusal: if it has another type, is too large or slow, or too many are in memory.
        """
        limit = self._limits.upload_bytes if limit is None else limit
        if not request.content_type.startswith(content_type):
            kind = f"{content_type}*" if content_type.endswith("/") else content_type
            raise Refusal(415, f"the body must be of the type {kind}")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "the body must not be encoded")
        if (request.content_length or 0) > limit:
            raise Refusal(413, _too_large(limit))
        received = bytearray()
        try:
            await self._receive(request, limit, received)
            yield bytes(received)
        finally:
            self._in_memory -= len(received)

    async def _receive(self, request: web.Request, limit: int, received: bytearray) -> None:
        """Appends the body to `received` as it arrives."""
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.content.iter_any():
                    received += chunk
                    self._in_memory += len(chunk)
                    if len(received) > limit:
                        raise Refusal(413, _too_large(limit))
                    if self._in_memory > _MAX_UPLOADS * self._limits.upload_bytes:
                        raise Refusal(503, "too many uploads at the same time", 2)
        except TimeoutError as error:
            raise Refusal(408, "the body took too long") from error


def _too_large(limit: int) -> str:
    size = f"{limit / 2**20:.3g} MB" if limit >= 2**20 else f"{limit} bytes"
    return f"the body must have at most {size}"
