"""The web server of the search page.

It never opens a file by a name from a client: the page is in memory, and database images are
requested by index.
"""

import asyncio
import contextlib
import importlib.resources
import ipaddress
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator

from aiohttp import web

from delg_jax.errors import UserError
from delg_jax.reports.result_images import SIZES
from delg_jax.retrieval.query import parse_box
from delg_jax.retrieval.searcher import Searcher
from delg_jax.serving.answers import Answers
from delg_jax.serving.connections import BACKLOG, Connections, log_shortage_once
from delg_jax.serving.decoding import TooLargeError
from delg_jax.serving.requests import Limits, Refusal, Uploads, allowed_hosts, guard
from delg_jax.serving.search_queue import SearchQueue

__all__ = ["Limits", "application", "listen", "run", "serve"]

_LOG = logging.getLogger(__name__)

_PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/search.css": ("search.css", "text/css"),
    "/search.js": ("search.js", "text/javascript"),
    "/matches.js": ("matches.js", "text/javascript"),
    "/results.js": ("results.js", "text/javascript"),
    "/box.js": ("box.js", "text/javascript"),
}
_MATCHES_BODY = 1024  # maximum bytes of a request for matches


class Handlers:
    """Handlers of requests.

    Args:
      answers: of the database.
      queue: runs the work.
      limits: of the server.
    """

    def __init__(self, answers: Answers, queue: SearchQueue, limits: Limits) -> None:
        self._answers, self._queue, self._limits = answers, queue, limits
        self._uploads = Uploads(limits)

    async def about(self, request: web.Request) -> web.Response:
        """Methods and limits."""
        del request
        return web.json_response(
            {**self._answers.about(), "upload_bytes": self._limits.upload_bytes}
        )

    async def search(self, request: web.Request) -> web.Response:
        """Searches for the image in the body; `method`, `box`, `top`, `judge=1` are in the URL."""
        parameters = request.query
        method, corners = parameters.get("method", "global"), parameters.get("box")
        top = _whole_number("--top", parameters.get("top", "10"))
        judged = parameters.get("judge") == "1"
        self._answers.check(method, top)
        box = parse_box(corners) if corners else None
        answers, queue = self._answers, self._queue
        with _while_wanted() as wanted:
            async with queue.deadline():
                async with self._uploads.body(request, "image/") as data:
                    try:
                        picture = await queue.extract(answers.extract, data, box)
                    except TooLargeError:
                        picture = await queue.extract_large(answers.extract, data, box, True)
                found = await queue.search(answers.search, picture, method, top, judged, wanted)
        return web.json_response(found)

    async def matches(self, request: web.Request) -> web.Response:
        """Matches between the `query` of a search and an `image`, both in a JSON body."""
        async with self._uploads.body(request, "application/json", _MATCHES_BODY) as data:
            try:
                content = json.loads(data)
                name, image = content["query"], content["image"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Refusal(400, "the body must have the fields query and image") from error
        if not isinstance(name, str) or type(image) is not int:
            raise Refusal(400, "query must be a string and image a whole number")
        return web.json_response(await self._queue.search(self._answers.matches, name, image))

    async def image(self, request: web.Request) -> web.Response:
        """A database image, resized."""
        index = _whole_number("image", request.match_info["index"])
        size = _whole_number("--size", request.query.get("size", str(SIZES[0])))
        if size not in SIZES:
            raise UserError("--size", size, f"must be one of {', '.join(map(str, SIZES))}")
        jpeg = await self._queue.read_image(self._answers.pictures.jpeg, index, size)
        headers = {"Cache-Control": "private, max-age=60"}
        return web.Response(body=jpeg, content_type="image/jpeg", headers=headers)

    async def original(self, request: web.Request) -> web.Response:
        """A database image as it is stored."""
        index = _whole_number("image", request.match_info["index"])
        data, kind = await self._queue.read_image(self._answers.original, index)
        return web.Response(body=data, content_type=kind)

    async def size(self, request: web.Request) -> web.Response:
        """Rows and columns of a database image."""
        index = _whole_number("image", request.match_info["index"])
        shape = await self._queue.read_image(self._answers.pictures.shape, index)
        return web.json_response(shape)


@contextlib.contextmanager
def _while_wanted() -> Iterator[Callable[[], bool]]:
    """Yields what a thread asks: whether the block still runs, or the client or time is gone."""
    wanted = [True]
    try:
        yield lambda: wanted[0]
    finally:
        wanted[0] = False


def application(
    answers: Answers, queue: SearchQueue, limits: Limits, allowed: Collection[str]
) -> web.Application:
    """The web application with its routes.

    Args:
      answers: of the database.
      queue: runs the work.
      limits: of the server.
      allowed: values that a Host header may have.
    """
    handlers = Handlers(answers, queue, limits)
    app = web.Application(middlewares=[guard(allowed)])
    folder = importlib.resources.files("delg_jax.serving") / "templates"
    for path, (file, kind) in _PAGE_FILES.items():
        app.router.add_get(
            path, _constant_response((folder / file).read_text(encoding="utf-8"), kind)
        )
    app.router.add_get("/api/about", handlers.about)
    app.router.add_get("/api/image/{index}", handlers.image)
    app.router.add_get("/api/original/{index}", handlers.original)
    app.router.add_get("/api/size/{index}", handlers.size)
    app.router.add_post("/api/search", handlers.search)
    app.router.add_post("/api/matches", handlers.matches)
    return app


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket; a UserError if that fails."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        rule = f"cannot listen: {getattr(error, 'strerror', None) or error}"
        raise UserError("--host and --port", f"{host}:{port}", rule) from error


async def run(
    searcher: Searcher,
    listening: socket.socket,
    allowed: Collection[str],
    limits: Limits,
    stop: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
) -> bool:
    """Serves until `stop` is set; then running requests have a few seconds to finish.

    Args:
      searcher: of the database.
      listening: socket of `listen`.
      allowed: values that a Host header may have.
      limits: of the server.
      stop: stops the server.
      ready: called when the server accepts requests.

    Returns:
      Whether all work has ended; else a thread still computes.
    """
    quiet = logging.getLogger(f"{__name__}.protocol")
    quiet.setLevel(logging.CRITICAL)  # malformed requests must not fill the log
    answers = Answers(searcher, limits)
    with contextlib.closing(answers), SearchQueue(limits) as queue:
        runner = web.AppRunner(
            application(answers, queue, limits, allowed),
            handler_cancellation=True,  # drop the work of clients that disconnect
            shutdown_timeout=limits.shutdown_seconds / 2,  # aiohttp waits twice
        )
        await runner.setup()
        assert runner.server is not None
        connections = Connections(
            runner.server,
            limits,
            access_log=None,
            logger=quiet,
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=3,
        )
        loop = asyncio.get_running_loop()
        log_shortage_once(loop)
        accepting = await loop.create_server(connections, sock=listening, backlog=BACKLOG)
        try:
            ready()
            await stop.wait()
        finally:
            accepting.close()
            await runner.cleanup()
            answers.close()  # what is decoded now, nobody waits for
    return queue.is_idle


def serve(
    searcher: Searcher,
    listening: socket.socket,
    host: str,
    further_hosts: Collection[str],
    limits: Limits,
    announce: Callable[[str], None],
) -> bool:
    """Serves until Ctrl-C or SIGTERM; a second one does not wait for running searches.

    Args:
      searcher: of the database.
      listening: socket of `listen`.
      host: address that the server listens on.
      further_hosts: other names of the server.
      limits: of the server.
      announce: called with the URL of the page when the server accepts requests.

    Returns:
      Whether all work has ended; else a thread still computes, and keeps the process alive.
    """
    port = listening.getsockname()[1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if not is_loopback(host):
        _LOG.warning(
            "%s: everyone who can reach this address can search; there is no password", url
        )

    async def until_signalled() -> bool:
        """Runs until one of the signals arrives."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def end(number: int) -> None:
            stop.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, end, number)
        allowed = allowed_hosts(host, port, further_hosts)
        return await run(searcher, listening, allowed, limits, stop, lambda: announce(url))

    return asyncio.run(until_signalled())


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _constant_response(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        del request
        headers = {"Cache-Control": "no-cache"}
        return web.Response(text=text, content_type=kind, headers=headers)

    return answer


def _whole_number(subject: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(subject, text[:40], "must be a whole number")
    return int(text)
