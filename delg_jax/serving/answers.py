"""Answers to the requests of the search page, as values for JSON; called from worker threads."""

import collections
import hashlib
import math
import threading
import time
from typing import Any

import numpy as np

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.features.extract import has_local
from delg_jax.features.origins import Box
from delg_jax.reports.result_images import Pictures
from delg_jax.retrieval.searcher import Query, Searcher, check_request
from delg_jax.serving.requests import Refusal

MOST_HITS = 200
_CACHED_QUERIES = 128  # their features are reused for other methods and for matches


class Answers:
    """Answers for one database.

    Args:
      searcher: of the database.
    """

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.pictures = Pictures(searcher.source, searcher.config.data)
        self._queries: collections.OrderedDict[str, Query] = collections.OrderedDict()
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What the page shows before a search: size, methods, limits."""
        return {
            "images": len(self._searcher.source),
            "methods": list(self._searcher.methods),
            "matches": has_local(self._searcher.config),
            "most_hits": MOST_HITS,
        }

    def check(self, method: str, top: int) -> None:
        """Raises a UserError for a wrong method or number of results."""
        check_request(method, top, self._searcher.config)
        if top > MOST_HITS:
            raise UserError("--top", top, f"must be at most {MOST_HITS}")

    def search(self, data: bytes, box: Box | None, method: str, top: int) -> dict[str, Any]:
        """Searches for an image.

        Args:
          data: the encoded image.
          box: the part to search for, in pixels; None for the whole image.
          method: checked by `check`, like `top`.
          top: maximum number of hits.

        Returns:
          `query` (a name for `matches`), `hits`, `milliseconds` by stage, `size` of the image.

        Raises:
          Refusal: for an image that cannot be decoded.
          UserError: for a box that cannot be used.
        """
        name = hashlib.sha256(repr(box).encode() + data).hexdigest()
        start = time.perf_counter()
        query = self._cached(name)
        decoding = features = 0.0
        if query is None:
            image = self._decode(data)
            decoding = 1000 * (time.perf_counter() - start)
            query = self._searcher.query(image, box)
            features = query.milliseconds
            self._cache(name, query)
        found = self._searcher.search(query, method, top)
        hits = [
            {
                "image": hit.image,
                "name": hit.name,
                "score": hit.score if math.isfinite(hit.score) else None,
            }
            for hit in found.hits
        ]
        milliseconds = {"decoding": decoding, **found.milliseconds, "features": features}
        return {"query": name, "hits": hits, "milliseconds": milliseconds, "size": query.size}

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

    def _decode(self, data: bytes) -> np.ndarray:
        limits = self._searcher.config.data
        try:
            return images.decode(data, limits.min_side, limits.max_pixels)
        except images.BadImageError as error:
            raise Refusal(422, f"the image cannot be used: {error}") from error

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
