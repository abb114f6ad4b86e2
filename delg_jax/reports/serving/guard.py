"""What every request passes: whom it may address, where it may come from, and how errors look."""

import logging
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from delg_jax.errors import UserError
from delg_jax.reports.serving.limits import Refusal

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
