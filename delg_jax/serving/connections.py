"""Connections of clients: how many there may be, and how each of them ends."""

import asyncio
import errno
import importlib
import logging
import os
from typing import Any

from aiohttp import web

from delg_jax.serving.requests import HEADERS, Limits

BACKLOG = 64  # connections that the system may accept at once
_RESERVE = 48  # files that the server may open beside connections: images, parts of the index
_LEAST = 8  # connections, however few files may be open
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.1  # seconds until a request that has just arrived is answered
_PROBE = 1.0  # seconds between looks whether a client is still there
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LOG = logging.getLogger(__name__)


class Connections:
    """Makes the protocol of each connection, and keeps their number below a limit.

    If there are too many, the one that waits longest without a request is closed for a new one;
    if all have requests, the new one is refused.

    Args:
      manager: of aiohttp.
      limits: of the server.
      options: of `web.RequestHandler`.
    """

    def __init__(self, manager: web.Server, limits: Limits, **options: Any) -> None:
        self._manager, self._options = manager, options
        self._limit = min(limits.connections, max(_spare_files(), _LEAST))
        self._open: dict[Connection, None] = {}  # the one that was idle longest comes first

    def __call__(self) -> "Connection":
        """A protocol for `loop.create_server`."""
        return Connection(self, self._manager, **self._options)

    def admit(self, new: "Connection") -> bool:
        """Makes room for a connection; False if there is none."""
        if len(self._open) >= self._limit:
            idle = next((one for one in self._open if one.request is None), None)
            if idle is None:
                return False
            self.forget(idle)
            idle.force_close()
        self._open[new] = None
        return True

    def forget(self, connection: "Connection") -> None:
        """Counts a connection no more."""
        self._open.pop(connection, None)

    def note_use(self, connection: "Connection") -> None:
        """Lets a connection count as the latest that was in use."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None


class Connection(web.RequestHandler):
    """One connection.

    Args:
      others: all connections.
      manager: of aiohttp.
      options: of `web.RequestHandler`.

    Attributes:
      request: that is being answered; None if it is idle.
    """

    __slots__ = ("_loop_of", "_others", "request")

    def __init__(self, others: Connections, manager: web.Server, **options: Any) -> None:
        self._loop_of = asyncio.get_running_loop()
        super().__init__(manager, loop=self._loop_of, **options)
        self._others = others
        self.request: web.Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuses the connection if there is no room."""
        if self._others.admit(self):
            super().connection_made(transport)
        else:
            assert isinstance(transport, asyncio.Transport)
            transport.write(_FULL)
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Makes room for others."""
        self._others.forget(self)
        super().connection_lost(exc)

    def handle_error(self, *arguments: Any, **options: Any) -> web.StreamResponse:
        """The response to what is no request, with the headers of every response."""
        response = super().handle_error(*arguments, **options)
        response.headers.update(HEADERS)
        return response

    def begin(self, request: web.Request) -> None:
        """Notes that a request is being answered."""
        self.request = request

    def end(self) -> None:
        """Notes that its answer is ready."""
        self.request = None
        self._others.note_use(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp closes the connection
        """Answers a client that sends no more, as long as it is there."""
        self._loop_of.call_later(_PAUSE, self._look)
        return True

    def _look(self) -> None:
        """Ends the work for a client that is gone.

        A client that only ended its sending takes interim responses; to one that is gone, they
        fail.
        """
        if self.transport is None:
            return
        if self.request is None:
            if self.transport.get_write_buffer_size():  # of the last response
                self._loop_of.call_later(_PAUSE, self._look)
            else:
                self.force_close()
        elif not self.request.content.is_eof():
            self.force_close()  # the rest of the body will never come
        else:
            if self.request.version >= (1, 1):
                self.transport.write(_CONTINUE)
            self._loop_of.call_later(_PROBE, self._look)


def log_shortage_once(loop: asyncio.AbstractEventLoop) -> None:
    """Logs once that no connection can be accepted; asyncio would do it thousands of times."""
    said = False

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs an error of the event loop."""
        nonlocal said
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _SHORTAGES):
            loop.default_exception_handler(context)
        elif not said:
            said = True
            _LOG.warning("connections wait: %s", error.strerror)

    loop.set_exception_handler(handle)


def _spare_files() -> int:
    """Connections for which there are file descriptors; many if the system has no limit."""
    try:
        resource = importlib.import_module("resource")
        taken = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):  # on Windows
        return 2**20
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if limit == resource.RLIM_INFINITY else limit - taken - BACKLOG - _RESERVE


_FULL = "".join(
    [
        "HTTP/1.1 503 Service Unavailable\r\n",
        *(f"{name}: {value}\r\n" for name, value in HEADERS.items()),
        "Content-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n",
    ]
).encode()
