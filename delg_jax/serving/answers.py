"""Answers to the requests of the search page, as values for JSON; called from worker threads."""

import collections
import hashlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.features.experiment import has_local
from delg_jax.features.origins import Box
from delg_jax.reports.result_images import Pictures
from delg_jax.retrieval.searcher import Query, Searcher, check_request
from delg_jax.serving.decoding import Decoder, TooLargeError
from delg_jax.serving.requests import Limits, Refusal

MOST_HITS = 200
_USUAL_PIXELS, _USUAL_SECONDS = 25_000_000, 3.0  # others are large
_LEAST_MEGABYTES, _BYTES_PER_PIXEL = 100, 14
_CACHED_QUERIES = 128  # their features are reused for other methods and for matches


# First bytes of what browsers show
_MEDIA_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


class Picture(NamedTuple):
    """An upload, ready to be searched for.

    Attributes:
      name: of the picture and its box.
      query: its features.
      milliseconds: `decoding` and `features`, 0 if they were cached.
    """

    name: str
    query: Query
    milliseconds: dict[str, float]


class Answers:
    """Answers for one database; `close` ends its processes.

    Args:
      searcher: of the database.
      limits: of the server.
    """

    def __init__(self, searcher: Searcher, limits: Limits) -> None:
        self._searcher = searcher
        data, max_size = searcher.config.data, searcher.config.extract.max_size
        most = min(limits.upload_pixels, data.max_pixels)
        seconds = limits.decoding_seconds
        self._usual = Decoder(
            data.min_side,
            min(most, _USUAL_PIXELS),
            max_size,
            min(seconds, _USUAL_SECONDS),
            _megabytes(_USUAL_PIXELS),
        )
        self._large = Decoder(data.min_side, most, max_size, seconds, _megabytes(most))
        self._usual.start()
        self.pictures = Pictures(searcher.source, data.min_side, data.max_pixels)
        self._queries: collections.OrderedDict[str, Query] = collections.OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the processes that decode, also within an image."""
        self._usual.close()
        self._large.close()

    def about(self) -> dict[str, Any]:
        """What the page shows before a search: size, methods, limits."""
        return {
            "images": len(self._searcher.source),
            "methods": list(self._searcher.methods),
            "best": self._searcher.best_method,
            "matches": has_local(self._searcher.config),
            "most_hits": MOST_HITS,
        }

    def check(self, method: str, top: int) -> None:
        """Raises a UserError for a wrong method or number of results."""
        check_request(method, top, self._searcher.config)
        if top > MOST_HITS:
            raise UserError("--top", top, f"must be at most {MOST_HITS}")

    def extract(self, data: bytes, box: Box | None, large: bool = False) -> Picture:
        """Decodes an image and extracts its features, unless they are cached.

        Args:
          data: the encoded image.
          box: the part to search for, in pixels; None for the whole image.
          large: whether it may be large.

        Returns:
          The picture, for `search`.

        Raises:
          Refusal: for an image that cannot be used.
          TooLargeError: if it is large, and must not be.
          UserError: for a box that cannot be used.
        """
        name = hashlib.sha256(repr(box).encode() + data).hexdigest()
        query = self._cached(name)
        if query is not None:
            return Picture(name, query, {"decoding": 0.0, "features": 0.0})
        start = time.perf_counter()
        try:
            loaded, size = (self._large if large else self._usual).decode(data, box)
        except images.BadImageError as error:
            raise Refusal(422, f"the image cannot be used: {error}") from error
        except TooLargeError as error:
            if not large:
                raise
            raise Refusal(422, f"the image cannot be used: {error}") from error
        decoding = 1000 * (time.perf_counter() - start)
        query = self._searcher.query_prepared(loaded, size, box)
        self._cache(name, query)
        return Picture(name, query, {"decoding": decoding, "features": query.milliseconds})

    def search(
        self,
        picture: Picture,
        method: str,
        top: int,
        judged: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, Any]:
        """Searches for an image.

        Args:
          picture: result of `extract`.
          method: checked by `check`, like `top`.
          top: maximum number of hits.
          judged: whether to compare the inliers of the hits with those of wrong images.
          wanted: whether anybody still waits; else the search ends after its present stage.

        Returns:
          `query` (a name for `matches`), `hits`, `milliseconds` by stage, `size` of the image. With
          a `Verdict`, `level` and `inliers` of each hit, and `likely` and `least` as there; without
          one, `likely` and `least` are None.

        Raises:
          Abandoned: if nobody waits.
        """
        found = self._searcher.search(picture.query, method, top, wanted)
        verdict = self._searcher.judge(picture.query, found.hits, wanted) if judged else None
        hits: list[dict[str, Any]] = [
            {
                "image": hit.image,
                "name": hit.name,
                "score": hit.score if math.isfinite(hit.score) else None,
            }
            for hit in found.hits
        ]
        milliseconds = {**found.milliseconds, **picture.milliseconds}
        if verdict is not None:
            milliseconds["check"] = verdict.milliseconds
            for hit, inliers, level in zip(hits, verdict.inliers, verdict.levels, strict=True):
                hit |= {"inliers": inliers, "level": level}
        return {
            "query": picture.name,
            "hits": hits,
            "likely": None if verdict is None else verdict.likely,
            "least": None if verdict is None else verdict.least,
            "milliseconds": milliseconds,
            "size": picture.query.size,
        }

    def original(self, image: int) -> tuple[bytes, str]:
        """The file of a database image, unless a browser could take it for something else.

        Args:
          image: index of the image.

        Returns:
          The bytes and their media type.

        Raises:
          UserError: if there is no such image, or it cannot be decoded.
        """
        self.pictures.shape(image)  # whatever is no image stays here
        data = self._searcher.source.read(image)
        kinds = (kind for start, kind in _MEDIA_TYPES if data.startswith(start))
        return data, next(kinds, "application/octet-stream")

    def matches(self, name: str, image: int) -> dict[str, Any]:
        """Matches between an earlier query and a database image.

        Args:
          name: `query` of an earlier search.
          image: index of the image.

        Returns:
          `lines`: y, x in the query, y, x in the image, and whether the match is an inlier;
          `inliers`, their number; `verified`, whether they are enough; `sizes` of both images;
          `milliseconds`.

        Raises:
          Refusal: if the query is no longer cached.
          UserError: if there is no such image.
        """
        query = self._cached(name)
        if query is None:
            raise Refusal(404, "this search is no longer cached; search again")
        start = time.perf_counter()
        found = self._searcher.matches(query, image)
        mask = found.verification.inlier_mask
        ends = (locations.round(1).tolist() for locations in found.locations)
        lines = [[*a, *b, inlier] for a, b, inlier in zip(*ends, mask.tolist(), strict=True)]
        inliers = int(mask.sum())
        return {
            "lines": lines,
            "inliers": inliers,
            "verified": inliers >= self._searcher.config.rerank.sp.min_inliers,
            "sizes": [query.size, self.pictures.shape(image)],
            "milliseconds": 1000 * (time.perf_counter() - start),
        }

    def _cached(self, name: str) -> Query | None:
        with self._lock:
            if name in self._queries:
                self._queries.move_to_end(name)
            return self._queries.get(name)

    def _cache(self, name: str, query: Query) -> None:
        with self._lock:
            self._queries[name] = query
            while len(self._queries) > _CACHED_QUERIES:
                self._queries.popitem(last=False)


def _megabytes(pixels: int) -> int:
    """Memory to decode an image: its pixels three times, and what a decoder needs beside them."""
    return _LEAST_MEGABYTES + _BYTES_PER_PIXEL * pixels // 2**20
