"""What the search page asks for, as values for JSON; blocking, for any thread."""

import collections
import hashlib
import math
import threading
import time
from typing import Any

from delg_jax.data import images
from delg_jax.errors import UserError
from delg_jax.features.extract import has_local
from delg_jax.features.origins import Box
from delg_jax.reports.thumbnails import Pictures
from delg_jax.retrieval.searcher import Query, Searcher, check_request
from delg_jax.serving.requests import Refusal

MOST_HITS = 200
_QUERIES = 128  # whose features are kept, so that another method or a look at matches is quick


class Answers:
    """Answers of one opened workdir.

    Args:
      searcher: of the workdir.
    """

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.pictures = Pictures(searcher.source, searcher.config.data)
        self._queries: collections.OrderedDict[str, Query] = collections.OrderedDict()
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What the page needs to know before a search."""
        return {
            "images": len(self._searcher.source),
            "methods": list(self._searcher.methods),
            "matches": has_local(self._searcher.config),
            "most_hits": MOST_HITS,
        }

    def check(self, method: str, top: int) -> None:
        """Raises a UserError for a search that cannot be done."""
        check_request(method, top, self._searcher.config)
        if top > MOST_HITS:
            raise UserError("--top", top, f"must be at most {MOST_HITS}")

    def search(self, data: bytes, box: Box | None, method: str, top: int) -> dict[str, Any]:
        """Hits of a picture.

        Args:
          data: the encoded picture.
          box: the part to look for, in pixels; None for all of it.
          method: as of `check`, like `top`.
          top: hits wanted, at most.

        Returns:
          `query` (a name for `matches`), `hits`, `milliseconds` by stage, `size` of the picture.

        Raises:
          UserError: for a picture or a box that cannot be used.
        """
        name = hashlib.sha256(repr(box).encode() + data).hexdigest()
        start = time.perf_counter()
        query = self._known(name)
        decoding = features = 0.0
        if query is None:
            picture = self._decode(data)
            decoding = 1000 * (time.perf_counter() - start)
            query = self._searcher.query(picture, box)
            features = query.milliseconds
            self._keep(name, query)
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
        """How a query of before and a database image fit together.

        Args:
          name: of the query.
          image: index of the image.

        Returns:
          `lines`, [y, x] in the query, [y, x] in the image, and whether it is an inlier; `inliers`;
          whether that is enough (`verified`); `sizes` of both pictures; `milliseconds`.

        Raises:
          Refusal: if the query is not kept any more.
          UserError: if there is no such image.
        """
        query = self._known(name)
        if query is None:
            raise Refusal(404, "this search is no longer kept; search again")
        start = time.perf_counter()
        found = self._searcher.matches(query, image)
        mask = found.verification.inlier_mask
        ends = (side.round(1).tolist() for side in found.locations)
        lines = [[*a, *b, fits] for a, b, fits in zip(*ends, mask.tolist(), strict=True)]
        inliers = int(mask.sum())
        return {
            "lines": lines,
            "inliers": inliers,
            "verified": inliers >= self._searcher.config.rerank.sp.min_inliers,
            "sizes": [query.size, self.pictures.shape(image)],
            "milliseconds": 1000 * (time.perf_counter() - start),
        }

    def _decode(self, data: bytes):
        limits = self._searcher.config.data
        try:
            return images.decode(data, limits.min_side, limits.max_pixels)
        except images.BadImageError as error:
            raise Refusal(422, f"the picture cannot be used: {error}") from error

    def _known(self, name: str) -> Query | None:
        with self._lock:
            if name in self._queries:
                self._queries.move_to_end(name)
            return self._queries.get(name)

    def _keep(self, name: str, query: Query) -> None:
        with self._lock:
            self._queries[name] = query
            while len(self._queries) > _QUERIES:
                self._queries.popitem(last=False)
