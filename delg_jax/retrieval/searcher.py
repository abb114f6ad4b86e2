"""A workdir opened for many searches; network and database are read once."""

import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from delg_jax.data import ImageSource, images
from delg_jax.errors import UserError
from delg_jax.features import Extracted, LocalFeatures, extract
from delg_jax.features.experiment import has_local, sections
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.in_memory import CachedFeatures, InMemoryFeatures
from delg_jax.features.network import Network
from delg_jax.features.origins import Box
from delg_jax.features.storage.rows import Layout
from delg_jax.progress import Progress
from delg_jax.rerank import spatial_verification
from delg_jax.rerank.spatial_verification import Verification
from delg_jax.retrieval import calibration, methods
from delg_jax.retrieval.calibration import CHANCE, ChanceModel
from delg_jax.retrieval.ranking import Ranking
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search import SimilarityGraph
from delg_jax.search.engine_choice import SearchSettings, index_place
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import PairGraph
from delg_jax.search.index import build_index, is_built, pair_graph
from delg_jax.workdir import Output, root_of

_LOG = logging.getLogger(__name__)


class Abandoned(Exception):
    """A search for which nobody waits."""


class Query(NamedTuple):
    """A photograph ready to be searched for.

    Attributes:
      features: of the image, or of its box, in pixels of the image as it was shrunk.
      size: rows and columns of the whole image.
      corner: (y, x) of the box in pixels; locations of features are relative to it.
      milliseconds: of extraction.
      scale: size of the shrunk image / size of the image.
    """

    features: InMemoryFeatures
    size: tuple[int, int]
    corner: tuple[int, int]
    milliseconds: float
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Hit:
    """A database image that was found.

    Attributes:
      image: its index in the database.
      name: its name.
      score: what the method ranks by. For `...+sp` it is the number of inliers, 0 below the short
        list, even if `config.rerank.sp.score` ranks by more than that; for `global+superglobal`
        the similarity of the search. Other re-rankings give minus infinity below the short list.
    """

    image: int
    name: str
    score: float


class Found(NamedTuple):
    """The result of a search.

    Attributes:
      hits: best first.
      milliseconds: by stage, `features`, `search` and `rerank`.
    """

    hits: list[Hit]
    milliseconds: dict[str, float]


class Matches(NamedTuple):
    """Matches between a query and a database image.

    Attributes:
      locations: float32 [L, 2] of the L matches in the query and in the image, (y, x) in pixels of
        the whole images.
      verification: matches, inliers, and the transformation from the image to the query's box, as
        it was shrunk.
    """

    locations: tuple[np.ndarray, np.ndarray]
    verification: Verification


class Verdict(NamedTuple):
    """How sure it is that hits show what the query shows.

    Attributes:
      inliers: of each hit, in their order; without `config.rerank.sp.min_inliers`.
      levels: `strong`, `weak` or `chance` of each hit, see `calibration.LEVELS`.
      likely: hits down to the last that is better than `chance`; those below are unlikely.
      least: inliers that this query needs, by level.
      milliseconds: of the verification.
    """

    inliers: list[int]
    levels: list[str]
    likely: int
    least: dict[str, int]
    milliseconds: float


class Searcher:
    """Searches the database of a workdir; threads may share it, the device serves one at a time.

    Args:
      config: the whole tree.
      workdir: whose network, features and index are used; missing features are extracted, and a
        graph or an index is built when a method first needs it.
      overwrite: whether outputs of another configuration are deleted instead of refused.

    Attributes:
      config: as given.
      source: the images of the database.
      methods: those of `methods.METHODS` that the configuration supports.

    Raises:
      UserError: for a configuration, weights or data that cannot be used.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str | pathlib.Path,
        overwrite: bool = False,
    ) -> None:
        check_has_network(config)
        self.config, self._root, self._overwrite = config, root_of(workdir), overwrite
        self.methods = possible_methods(config)
        self._max_size, self._layout = config.extract.max_size, Layout.of(config.extract)
        self._has_local, self._seed, self._depth = has_local(config), config.seed, config.eval.depth
        self._search_settings = SearchSettings.of(config.search)
        self._rerank_settings = RerankSettings.of(config.rerank)
        network = Network(config, self._root)
        self._stored = extract(config, self._root, overwrite, network=network)
        self._extractor = network.extractor.on_few_canvases()  # queries have any shape
        self._database = CachedFeatures(self._stored.database)
        self.source: ImageSource = self._stored.data.database
        self._engine: LocalSearch | None = None
        self._graphs: dict[str, SimilarityGraph | PairGraph] = {}
        self._device = threading.Lock()
        self._chance: ChanceModel | None = None
        self._is_calibrated = False

    @property
    def compiled_shapes(self) -> list[tuple]:
        """What extraction has compiled, as `Extractor.compiled_shapes` names it."""
        return list(self._extractor.compiled_shapes)

    def query(self, image: np.ndarray, box: Box | None = None) -> Query:
        """Extracts the features of a photograph.

        Args:
          image: uint8 [H, W, 3].
          box: the part to search for, [x1, y1, x2, y2] in pixels; None for the whole image.

        Returns:
          The query.

        Raises:
          UserError: if the box lies outside the image.
        """
        start = time.perf_counter()
        try:
            loaded = images.prepare(image, box, self._max_size)
        except images.BadImageError as error:
            raise UserError("--box", box, str(error)) from error
        spent = _milliseconds_since(start)
        query = self.query_prepared(loaded, image.shape[:2], box)
        return query._replace(milliseconds=query.milliseconds + spent)

    def query_prepared(
        self, loaded: images.Loaded, size: tuple[int, int], box: Box | None = None
    ) -> Query:
        """Extracts the features of a photograph that is cropped and shrunk already.

        Args:
          loaded: result of `images.prepare` with `config.extract.max_size`.
          size: rows and columns of the whole image.
          box: as `images.prepare` got it.

        Returns:
          The query.
        """
        with self._device:
            start = time.perf_counter()  # does not count waiting for other threads
            found = self._extractor([loaded.image])[0]
            spent = _milliseconds_since(start)
        stored = self._layout
        one = InMemoryFeatures([found], stored.local_encoding, stored.global_dtype)
        x, y = (0, 0) if box is None else (max(round(float(side)), 0) for side in box[:2])
        return Query(one, size, (y, x), spent, loaded.scale)

    def search(
        self,
        query: Query,
        method: str = "global",
        top: int = 10,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Found:
        """Ranks the database.

        Args:
          query: result of `query`.
          method: one of `methods.METHODS`.
          top: maximum number of hits.
          wanted: asked before each stage, whether anybody still waits for the result.

        Returns:
          The hits in the order of evaluation; at most `config.eval.depth`, if that is set.

        Raises:
          Abandoned: if nobody waits.
          UserError: for a wrong method or number of hits.
        """
        check_request(method, top, self.config)
        # Both have what searches read of a store
        database: Any = self._database
        queries: Any = query.features
        extracted = self._stored._replace(database=database, queries=queries)
        with self._device:
            _require(wanted)
            start = time.perf_counter()
            first = self._search(method, extracted)
            searched = _milliseconds_since(start)
            _require(wanted)
            start = time.perf_counter()
            order, scores = self._rerank(method, extracted, first)
        milliseconds = {"features": query.milliseconds, "search": searched}
        milliseconds["rerank"] = _milliseconds_since(start)
        names = self._database.names
        best = zip(order[:top].tolist(), scores[:top].tolist(), strict=True)
        hits = [Hit(image, names[image], float(score)) for image, score in best]
        return Found(hits, milliseconds)

    def matches(self, query: Query, image: int) -> Matches:
        """Matches a query and a database image, as re-ranking by `...+sp` does.

        Args:
          query: result of `query`.
          image: index of the database image.

        Returns:
          The matches, with the inliers that spatial verification counts.

        Raises:
          UserError: if there is no such image, or there are no local features.
        """
        if not self._has_local:
            rule = "must be True: local features are matched"
            raise UserError("config.model.local_head", False, rule)
        if not 0 <= image < len(self._database):
            rule = f"must be the index of an image, 0 to {len(self._database) - 1}"
            raise UserError("image", image, rule)
        settings = self._rerank_settings.sp
        with self._device:
            sides = [
                LocalFeatures(*(np.asarray(field[row]) for field in part))
                for part, row in (
                    (query.features.local_features(settings.max_features), 0),
                    (self._database.local_features(settings.max_features), image),
                )
            ]
            key = jax.random.key(self._seed)  # as `methods.inlier_counter` draws
            found = spatial_verification.verify_pair(sides[0], sides[1], key, settings, image)
        first, second = (
            np.asarray(side.locations)[found.matches[:, column]]
            for column, side in enumerate(sides)
        )
        corner = np.array(query.corner, np.float32)
        return Matches((first / np.float32(query.scale) + corner[None, :], second), found)

    @property
    def best_method(self) -> str:
        """The method that finds most, of those that need no graph which is not built yet."""
        for method in ("local+mds", "local+mds+global"):
            kind = methods.graph_name(method, self._rerank_settings.mds)
            if method in self.methods and (kind == "pairs" or is_built(self._root, kind)):
                return method
        return "global+sp" if "global+sp" in self.methods else self.methods[0]

    def judge(
        self, query: Query, hits: Sequence[Hit], wanted: Callable[[], bool] = lambda: True
    ) -> Verdict | None:
        """Verifies hits, and compares their inliers with those of wrong images.

        The first call measures pairs of database images, and keeps the result in the workdir.

        Args:
          query: result of `query`.
          hits: of a search for it.
          wanted: as of `search`.

        Returns:
          The verdict; None without local features, or if the database is too small to tell.

        Raises:
          Abandoned: if nobody waits.
          UserError: if the stored calibration is damaged.
        """
        if not self._has_local:
            return None
        settings = self._rerank_settings.sp
        images = np.array([hit.image for hit in hits], np.int32)
        with self._device:
            _require(wanted)
            model = self._calibrated()
            if model is None:
                return None
            start = time.perf_counter()
            local = query.features.local_features(settings.max_features)
            one = LocalFeatures(*(np.asarray(field[0]) for field in local))
            database = self._database.local_features(settings.max_features)
            inliers = spatial_verification.count_inliers(
                one,
                LocalFeatures(*(np.asarray(field[images]) for field in database)),
                images,
                jax.random.key(self._seed),  # as `methods.inlier_counter` draws
                settings,
            )
            spent = _milliseconds_since(start)
        least = model.least(int(np.sum(one.mask)), len(self.source))
        levels = calibration.levels(inliers.tolist(), least)
        better = [rank for rank, level in enumerate(levels, 1) if level != CHANCE]
        return Verdict(inliers.tolist(), levels, max(better, default=0), least, spent)

    def warm_up(self) -> None:
        """Compiles what a search for any photograph needs, so that none has to wait for it.

        Methods that need a stored similarity graph are left out: they may have to build it.
        """
        sizes = self._extractor.warm_up_sizes()
        mds = self._rerank_settings.mds
        quick = [m for m in self.methods if methods.graph_name(m, mds) in ("", "pairs")]
        with Progress("warm up", len(sizes) + len(quick) + 1, "step") as progress:
            with self._device:
                self._extractor.warm_up(progress.advance)
            noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
            query = self.query(noise)
            for method in quick:
                self.search(query, method)
                progress.advance()
            if self._has_local:
                self.matches(query, 0)
                self.judge(query, self.search(query, "global", 1).hits)
            progress.advance()

    def _calibrated(self) -> ChanceModel | None:
        """The model of wrong images; the device is the caller's."""
        if not self._is_calibrated:
            folder, extra = self._root / calibration.FOLDER, {"weights": self._stored.weights}
            fields = (*sections(self.config), *calibration.DECIDING_FIELDS)
            self._chance = calibration.load_or_measure(
                Output.of(folder, self.config, fields, extra),
                self._rerank_settings.sp,
                self._seed,
                self._stored.database.digest(),
                self._database,
            )
            self._is_calibrated = True
        return self._chance

    def _search(self, method: str, extracted: Extracted) -> Ranking:
        """The search that a method starts with; the engine is kept."""
        settings = self._search_settings
        if method.startswith("local") and self._engine is None:
            place = index_place(self.config, self._root, self._stored, self._overwrite)
            self._engine = methods.open_locally(extracted, settings, place)
        return methods.search(method, extracted, settings, depth=self._depth, opened=self._engine)

    def _rerank(
        self, method: str, extracted: Extracted, first: Ranking
    ) -> tuple[np.ndarray, np.ndarray]:
        """Database images for the one query, best first, int [N], and their scores [N]."""
        if method.endswith("+sp"):
            sp = self._rerank_settings.sp
            ranked = methods.verify(extracted, first, sp, self._seed, quiet=True)
            assert ranked.inliers is not None
            images, inliers = ranked.by_protocol["all"][0], ranked.inliers[0]
            return images, np.pad(inliers, (0, len(images) - len(inliers)))
        graph = None
        kind = methods.graph_name(method, self._rerank_settings.mds)
        if kind:
            if kind not in self._graphs:
                self._graphs[kind] = self._open_graph(kind)
            graph = self._graphs[kind]
        settings, block = self._rerank_settings, self._search_settings.global_block
        ranking = methods.rerank(method, extracted, first, graph, settings, block)
        return ranking.images[0], ranking.similarities[0]

    def _open_graph(self, kind: str) -> SimilarityGraph | PairGraph:
        """The similarities that `methods.graph_name` names."""
        if kind == "pairs":
            assert self._engine is not None  # which made the ranking
            return pair_graph(self._stored, self._search_settings, self._engine)
        return build_index(self.config, self._root, self._overwrite, self._stored, kind)


def check_has_network(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError if features are imported: there is no network for a new photograph."""
    if is_imported(config.extract):
        rule = "must be empty to search for a picture: imported features come without the network "
        rule += "that made them"
        field = "imported_local" if config.extract.imported_local else "imported_global"
        raise UserError(f"config.extract.{field}", config.extract[field], rule)


def check_request(method: str, top: int, config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong method or number of hits."""
    methods.check("--method", method, config)
    if top < 1:
        raise UserError("--top", top, "must be at least 1")


def possible_methods(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The methods that a configuration supports; a UserError if it is wrong for all of them."""
    methods.check("--method", "global", config)
    return tuple(method for method in methods.METHODS if _supports(method, config))


def _supports(method: str, config: ml_collections.ConfigDict) -> bool:
    try:
        methods.check("--method", method, config)
    except UserError as error:
        if error.subject != "--method":  # a mistake, not just missing features
            _LOG.warning("%s is not available: %s", method, error)
        return False
    return True


def _require(wanted: Callable[[], bool]) -> None:
    """Ends a search that nobody waits for."""
    if not wanted():
        raise Abandoned


def _milliseconds_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)
