"""The server of the search page: a picture comes in, what the database has like it goes out.

It opens no file by a name that a client gives: the page is in memory, and pictures of the database
go by their index.
"""

import asyncio
import contextlib
import importlib.resources
import ipaddress
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from delg_jax.errors import UserError
from delg_jax.reports.thumbnails import SIZES
from delg_jax.retrieval.query import parse_box
from delg_jax.retrieval.searcher import Searcher
from delg_jax.serving.answers import Answers
from delg_jax.serving.requests import Limits, Refusal, Uploads, guard, hosts
from delg_jax.serving.search_queue import Jobs

__all__ = ["Limits", "application", "listen", "run", "serve"]

_LOG = logging.getLogger(__name__)

_PAGE = {
    "/": ("page.html", "text/html"),
    "/search.css": ("search.css", "text/css"),
    "/search.js": ("search.js", "text/javascript"),
    "/matches.js": ("matches.js", "text/javascript"),
    "/box.js": ("box.js", "text/javascript"),
}
_SMALL_BODY = 1024  # bytes, of a request for matches
_ENDING_SECONDS = 5.0  # for requests that are under way when the server is stopped


class Pages:
    """The handlers of requests.

    Args:
      answers: of the opened workdir.
      jobs: where they are worked out.
      limits: of the server.
    """

    def __init__(self, answers: Answers, jobs: Jobs, limits: Limits) -> None:
        self._answers, self._jobs, self._limits = answers, jobs, limits
        self._uploads = Uploads(limits)

    async def about(self, request: web.Request) -> web.Response:
        """Methods and limits."""
        del request
        return web.json_response(
            {**self._answers.about(), "upload_bytes": self._limits.upload_bytes}
        )

    async def search(self, request: web.Request) -> web.Response:
        """Searches the picture that is the body; `method`, `box` and `top` are in the query."""
        asked = request.query
        method, box = asked.get("method", "global"), asked.get("box") or None
        top = _whole_number("--top", asked.get("top", "10"))
        self._answers.check(method, top)
        box = None if box is None else parse_box(box)
        async with self._uploads.body(request, "image/") as data:
            found = await self._jobs.search(self._answers.search, data, box, method, top)
        return web.json_response(found)

    async def matches(self, request: web.Request) -> web.Response:
        """Matches of the `query` of a search and an `image`, both in a JSON body."""
        async with self._uploads.body(request, "application/json", _SMALL_BODY) as data:
            try:
                asked = json.loads(data)
                name, image = asked["query"], asked["image"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Refusal(400, "the body must have the fields query and image") from error
        if not isinstance(name, str) or type(image) is not int:
            raise Refusal(400, "query must be a text and image a whole number")
        return web.json_response(await self._jobs.search(self._answers.matches, name, image))

    async def image(self, request: web.Request) -> web.Response:
        """A picture of the database, shrunk."""
        index = _whole_number("image", request.match_info["index"])
        size = _whole_number("--size", request.query.get("size", str(SIZES[0])))
        if size not in SIZES:
            raise UserError("--size", size, f"must be one of {', '.join(map(str, SIZES))}")
        jpeg = await self._jobs.draw(self._answers.pictures.jpeg, index, size)
        headers = {"Cache-Control": "private, max-age=60"}
        return web.Response(body=jpeg, content_type="image/jpeg", headers=headers)


def application(
    answers: Answers, jobs: Jobs, limits: Limits, allowed: Collection[str]
) -> web.Application:
    """The routes.

    Args:
      answers: of the opened workdir.
      jobs: where they are worked out.
      limits: of the server.
      allowed: what a Host header may say.

    Returns:
      The application.
    """
    pages = Pages(answers, jobs, limits)
    app = web.Application(middlewares=[guard(allowed)])
    folder = importlib.resources.files("delg_jax.serving") / "templates"
    for path, (file, kind) in _PAGE.items():
        app.router.add_get(path, _constant((folder / file).read_text(encoding="utf-8"), kind))
    app.router.add_get("/api/about", pages.about)
    app.router.add_get("/api/image/{index}", pages.image)
    app.router.add_post("/api/search", pages.search)
    app.router.add_post("/api/matches", pages.matches)
    return app


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a UserError if there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        rule = f"cannot be listened on: {getattr(error, 'strerror', None) or error}"
        raise UserError("--host and --port", f"{host}:{port}", rule) from error


async def run(
    searcher: Searcher,
    listening: socket.socket,
    allowed: Collection[str],
    limits: Limits,
    stop: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until `stop` is set; requests that are under way may end.

    Args:
      searcher: of the opened workdir.
      listening: socket.
      allowed: what a Host header may say.
      limits: of the server.
      stop: ends it.
      ready: called when requests are answered.
    """
    quiet = logging.getLogger(f"{__name__}.protocol")
    quiet.setLevel(logging.CRITICAL)  # whoever sends no HTTP shall not fill the log
    with Jobs(limits) as jobs:
        runner = web.AppRunner(
            application(Answers(searcher), jobs, limits, allowed),
            access_log=None,
            logger=quiet,
            auto_decompress=False,
            handler_cancellation=True,  # nobody works for a client that is gone
            keepalive_timeout=limits.idle_seconds,
            lingering_time=3,
            shutdown_timeout=_ENDING_SECONDS,
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            ready()
            await stop.wait()
        finally:
            await runner.cleanup()


def serve(
    searcher: Searcher,
    listening: socket.socket,
    host: str,
    further_hosts: Collection[str],
    limits: Limits,
    announce: Callable[[str], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM; a second one does not wait for a search under way.

    Args:
      searcher: of the opened workdir.
      listening: socket, of `listen`.
      host: that was listened on.
      further_hosts: names under which browsers may ask.
      limits: of the server.
      announce: called with the page's address when requests are answered.
    """
    port = listening.getsockname()[1]
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if not is_loopback(host):
        _LOG.warning("%s: whoever reaches this address can search; there is no password", place)

    async def until_signalled() -> None:
        """Runs until one of the signals comes."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def end(number: int) -> None:
            stop.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, end, number)
        allowed = hosts(host, port, further_hosts)
        await run(searcher, listening, allowed, limits, stop, lambda: announce(place))

    asyncio.run(until_signalled())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _constant(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        del request
        headers = {"Cache-Control": "no-cache"}
        return web.Response(text=text, content_type=kind, headers=headers)

    return answer


def _whole_number(subject: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UserError(subject, text[:40], "must be a whole number")
    return int(text)
