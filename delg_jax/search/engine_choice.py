"""The settings of search, and the engine of local search that they choose."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, Self

import ml_collections
import numpy as np

from delg_jax import array_files, distributed
from delg_jax import workdir as outputs
from delg_jax.errors import UserError, WrongField, fields_of, require_choice, require_least
from delg_jax.features.experiment import Extracted, extract, sections
from delg_jax.features.local_features import LocalFeatures
from delg_jax.search import asmk, asmk_store, cann, engines, index_store, ivf
from delg_jax.search.asmk import AsmkScoring, AsmkSettings
from delg_jax.search.cann import GridSettings
from delg_jax.search.descriptor_similarity import HAMMING
from delg_jax.search.engines import LocalSearch
from delg_jax.search.index_store import Place
from delg_jax.search.ivf import IvfSettings
from delg_jax.search.kernels import KINDS, SimilarityKernel
from delg_jax.search.kmeans import Codebook
from delg_jax.workdir import root_of

IDF_OF = ("features", "words")

# Fields that decide the index of an approximate engine
_INDEX_FIELDS = {
    "cann": ("search.cann",),
    "ivf": tuple(f"search.ivf.{name}" for name in ("count", "seed", "rounds")),
    "asmk": tuple(f"search.asmk.{name}" for name in ("words", "aggregate", "rounds", "seed")),
}
# Fields that change speed and memory alone
_SPEED_FIELDS = ("global_block", "local_block", "query_block")


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How the database is searched, and compared with itself for the similarity graph.

    `config.search` has the same names, but for `probes`, which is `ivf.probes`, and `scoring`, the
    fields of `asmk` that do not decide its index.

    Attributes:
      global_block: database images compared at a time by global descriptors.
      kernel: of the local similarity.
      idf_images: database images on which IDF weights are estimated; 0 = no weights.
      idf_of: what they are estimated for, one of `IDF_OF`: each feature of a query, or once each
        visual word of the engine asmk.
      idf_power: exponent of the weights.
      candidates: images found by the engine, then compared exactly; 0 = none.
      estimated: images behind the candidates, whose similarity is estimated from the engine's.
      max_features: strongest features of an image that are compared; 0 = all.
      engine: of local search, one of `engines.ENGINES`.
      local_block: database images compared at a time on each device.
      query_block: queries compared at a time.
      hamming: how signs are compared, one of `descriptor_similarity.HAMMING`.
      packed: whether codes of the store are compared without decoding them.
      cann: the grids.
      ivf: what decides the inverted file.
      probes: cells of it that are searched for each query feature.
      asmk: what decides the inverted file of one-bit features.
      scoring: how that is searched.
      graph_features: features of an image compared for the graph; 0 = `max_features`.
      graph_neighbours: kept of each database image.
      graph_block: database images searched at a time for the graph.
    """

    global_block: int
    kernel: SimilarityKernel
    idf_images: int
    idf_of: str
    idf_power: float
    candidates: int
    estimated: int
    max_features: int
    engine: str
    local_block: int
    query_block: int
    hamming: str
    packed: bool
    cann: GridSettings
    ivf: IvfSettings
    probes: int
    asmk: AsmkSettings
    scoring: AsmkScoring
    graph_features: int
    graph_neighbours: int
    graph_block: int

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if self.engine == "exact" and self.candidates:
            rule = "must be 0 for the engine exact, which compares all images"
            raise WrongField("candidates", self.candidates, rule)
        if self.idf_of not in IDF_OF:
            raise WrongField("idf_of", self.idf_of, f"must be one of {', '.join(IDF_OF)}")
        if self.idf_of == "words" and not (self.engine == "asmk" and self.candidates):
            rule = "needs the engine asmk, whose words have weights, and candidates"
            raise WrongField("idf_of", self.idf_of, rule)
        if self.idf_of == "words" and not self.idf_images:
            raise WrongField("idf_images", 0, "must be positive for idf_of=words")
        require_least(self, 0, "idf_power")
        require_least(self, 1, "global_block", "local_block", "query_block")
        require_least(self, 1, "graph_block", "graph_neighbours")
        require_least(self, 0, "idf_images", "candidates", "estimated")
        require_least(self, 0, "graph_features", "max_features")

    @classmethod
    def of(cls, search: ml_collections.ConfigDict) -> Self:
        """The settings of `config.search`; raises a UserError for a wrong value."""
        fields = dict(search)
        require_choice("config.search.engine", search.engine, engines.ENGINES)
        require_choice("config.search.hamming", search.hamming, HAMMING)
        if search.ivf.probes < 1:
            raise UserError("config.search.ivf.probes", search.ivf.probes, "must be at least 1")
        require_choice("config.search.kernel", search.kernel, KINDS)
        shape = [fields.pop(name) for name in ("threshold", "power", "reach", "curve")]
        with fields_of("config.search", search):
            fields["kernel"] = SimilarityKernel(search.kernel, *shape)
        with fields_of("config.search.cann", search.cann):
            fields["cann"] = GridSettings.from_scale(**search.cann)
        cells = dict(search.ivf)
        fields["probes"] = cells.pop("probes")
        with fields_of("config.search.ivf", search.ivf):
            fields["ivf"] = IvfSettings(**cells)
        scoring = dict(search.asmk)
        entries = {name.name: scoring.pop(name.name) for name in dataclasses.fields(AsmkSettings)}
        with fields_of("config.search.asmk", search.asmk):
            fields["asmk"], fields["scoring"] = AsmkSettings(**entries), AsmkScoring(**scoring)
        with fields_of("config.search", search):
            return cls(**fields)

    @property
    def compared_for_graph(self) -> int:
        """Features of an image compared for the graph; 0 = all."""
        return self.graph_features or self.max_features


def check_packed(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for codes of the store that the engine cannot compare.

    Args:
      config: the whole tree.
    """
    search, encoding = config.search, config.extract.local_encoding
    if search.packed and search.engine != "exact" and encoding != "sign":
        rule = f"needs the engine exact, not {search.engine}, or config.extract.local_encoding="
        raise UserError("config.search.packed", search.packed, f"{rule}sign, not {encoding}")


def deciding_fields(search: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The fields of `config.search` that decide its results.

    Fields that change only speed and memory are left out, and so are those of unused engines.
    """
    idle = [*_SPEED_FIELDS]
    if not search.candidates:
        idle.append("estimated")
    if not search.idf_images:
        idle += ["idf_of", "idf_power"]
    fields = (f"search.{name}" for name in search if name not in idle)
    return tuple(field for field in fields if field not in unused_fields(search.engine))


def unused_fields(engine: str | None) -> tuple[str, ...]:
    """The sections of the configuration that `engine` does not read."""
    return tuple(f"search.{name}" for name in _INDEX_FIELDS if name != engine)


def build_engine(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    extracted: Extracted | None = None,
) -> pathlib.Path | None:
    """Builds the index of an approximate engine, unless it is there.

    Args:
      config: the whole tree.
      workdir: gets `index/ENGINE`, and the features if they are missing.
      overwrite: whether an index of another configuration is deleted instead of refused.
      extracted: the features, if the caller has them.

    Returns:
      The folder of the index; None for the exact engine, which needs none. Of several processes of
      `jax.distributed`, all call this; they share the work for asmk.

    Raises:
      UserError: for a wrong configuration, or data that cannot be used.
    """
    settings = SearchSettings.of(config.search)
    if settings.engine == "exact":
        return None
    root = root_of(workdir)
    extracted = extracted or extract(config, root, overwrite)
    folder = f"{root / 'index' / settings.engine}: claimed"
    with distributed.first_before_others(folder):
        place = index_place(config, root, extracted, overwrite)
    assert place is not None  # the engine is not exact
    database = extracted.database.local_features(settings.max_features)
    if settings.engine == "asmk":
        _asmk_index(database, settings.asmk, place, shared=True)
        if settings.idf_of == "words" and distributed.is_first():
            engine(database, settings, place)  # keeps the weights of words
    elif distributed.is_first():
        engine(database, settings, place)
    return place.folder


def index_place(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    extracted: Extracted,
    overwrite: bool = False,
) -> Place | None:
    """Claims the folder for the index of an approximate engine over these features.

    Args:
      config: the whole tree.
      workdir: gets `index/ENGINE`.
      extracted: the features.
      overwrite: whether an index of another configuration is deleted instead of refused.

    Returns:
      The place for `engine`; None for the exact engine, which needs none.

    Raises:
      UserError: if the folder holds an index of another configuration.
    """
    name = config.search.engine
    if name == "exact":
        return None
    decided_by = (*sections(config), "search.max_features", *_INDEX_FIELDS[name])
    folder = workdir / "index" / name
    outputs.Output.of(folder, config, decided_by, {"weights": extracted.weights}).claim(overwrite)
    return Place(folder / "index", extracted.database.digest(), extracted.database)


def engine(
    database: LocalFeatures,
    search: SearchSettings,
    place: Place | None = None,
    idf: Callable[[engines.Array, engines.Array], np.ndarray] | None = None,
) -> LocalSearch:
    """The local search over a database.

    Args:
      database: local features.
      search: which engine, and its settings.
      place: of the index of an approximate engine; None to build one without storing it.
      idf: of the features of queries that are compared with candidates; None for that of `search`.

    Returns:
      The search.
    """
    if search.engine == "exact":
        return exact_search(database, search)
    first = _approximate(database, search, place)
    if not search.candidates:
        return first
    exact = exact_search(database, search)
    if idf is None and search.idf_of == "words":
        idf = _word_idf(_codebook(first), exact, search, place)
    if idf is not None:
        exact = dataclasses.replace(exact, idf=idf)
    return engines.CandidateSearch(first, exact, search.candidates, search.estimated)


def _word_idf(
    codebook: Codebook, exact: engines.ExactSearch, search: SearchSettings, place: Place | None
) -> engines.WordIdf:
    """The weights of words, which are kept beside the index at `place`."""
    assert exact.sample is not None  # `SearchSettings`
    descriptors, mask = (np.asarray(side) for side in exact.sample)
    made_of = hashlib.sha256(repr(exact.kernel).encode())
    for array in (codebook.centres, descriptors, mask):
        made_of.update(np.ascontiguousarray(array).tobytes())
    key = np.frombuffer(made_of.digest(), np.uint8)
    path = None if place is None else place.folder.with_name(f"{place.folder.name}_idf.npz")
    weights = None if path is None else _stored_weights(path, key)
    if weights is None:
        weights = engines.word_weights(
            codebook, descriptors, mask, exact.kernel, search.local_block
        )
        if path is not None:
            with outputs.where_writable(str(path)):
                outputs.write_arrays(path, {"key": key, "weights": weights})
    return engines.WordIdf(codebook, weights, search.scoring.assignments, search.idf_power)


def _stored_weights(path: pathlib.Path, key: np.ndarray) -> np.ndarray | None:
    """The weights of a file, if they are whole and of this key."""
    try:
        found = array_files.read_arrays(path)
    except (ValueError, FileNotFoundError):
        return None
    return found["weights"] if np.array_equal(found.get("key", ()), key) else None


def _codebook(first: LocalSearch) -> Codebook:
    """The visual words of the engine asmk."""
    found: Any = first.engine if isinstance(first, engines.SignSearch) else first
    return found.index.codebook


def _with_vectors(database: LocalFeatures) -> LocalFeatures:
    """Packed signs, of `config.search.packed`, as unit vectors."""
    if database.descriptors.dtype != np.uint8:
        return database
    vectors: Any = engines.of_signs(database.descriptors)
    return database._replace(descriptors=vectors)


def _approximate(
    database: LocalFeatures, search: SearchSettings, place: Place | None
) -> LocalSearch:
    """The engine with an index, which is stored at `place` if there is one."""
    if database.descriptors.dtype == np.uint8:  # `config.search.packed`
        return engines.SignSearch(_approximate(_with_vectors(database), search, place))
    descriptors, mask, idf = database.descriptors, database.mask, search.idf_images > 0
    if search.engine == "cann":
        grids = search.cann
        index = index_store.load_or_build(
            place, grids, descriptors.shape, lambda: cann.build(descriptors, mask, grids)
        )
        return engines.CannSearch(index, idf)
    if search.engine == "asmk":
        return engines.AsmkSearch(_asmk_index(database, search.asmk, place), search.scoring)
    inverted_file = index_store.load_or_build(
        place, search.ivf, descriptors.shape, lambda: ivf.build(descriptors, mask, search.ivf)
    )
    return engines.IvfSearch(inverted_file, search.kernel, search.probes, search.query_block, idf)


def _asmk_index(
    database: LocalFeatures,
    settings: AsmkSettings,
    place: Place | None,
    shared: bool = False,
) -> asmk.AsmkIndex:
    """The inverted file of one-bit features; `shared` as of `asmk_store.load_or_build`."""
    descriptors: Any = database.descriptors
    if place is None:
        return asmk.build(descriptors, database.mask, settings)
    source = asmk_store.Source(descriptors, database.mask, place.source, place.features)
    return asmk_store.load_or_build(place.folder, settings, source, shared)


def exact_search(database: LocalFeatures, search: SearchSettings) -> engines.ExactSearch:
    """The engine that compares all features."""
    return engines.exact(
        database.descriptors,
        database.mask,
        search.kernel,
        search.local_block,
        search.idf_images,
        search.query_block,
        search.hamming,
        idf_power=search.idf_power,
    )
