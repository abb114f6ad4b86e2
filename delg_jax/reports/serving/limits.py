"""How much the search page's server takes, and the refusal of what is more."""

import dataclasses


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
