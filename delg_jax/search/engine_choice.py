"""The engine of local search that `config.search` chooses, and the checks of its fields."""

import dataclasses
import pathlib
from typing import Any

import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax import workdir as outputs
from delg_jax.errors import UserError, fields_of, require_choice
from delg_jax.features.experiment import Extracted, extract, sections
from delg_jax.features.local_features import LocalFeatures
from delg_jax.search import asmk, asmk_store, cann, engines, index_store, ivf
from delg_jax.search.asmk import AsmkScoring, AsmkSettings
from delg_jax.search.binary import HAMMING
from delg_jax.search.engines import LocalSearch
from delg_jax.search.index_store import Place
from delg_jax.search.ivf import IvfSettings
from delg_jax.search.kernels import KINDS, SimilarityKernel
from delg_jax.search.lsh_grids import GridSettings
from delg_jax.workdir import root_of

# Fields that decide the index of an approximate engine
_INDEX_FIELDS = {
    "cann": ("search.cann",),
    "ivf": tuple(f"search.ivf.{name}" for name in ("count", "seed", "rounds")),
    "asmk": tuple(f"search.asmk.{name}" for name in ("words", "aggregate", "rounds", "seed")),
}
# Fields that change speed and memory alone
_SPEED_FIELDS = ("global_block", "local_block", "query_block")


def check(search: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong value in `config.search`."""
    kernel(search)
    require_choice("config.search.engine", search.engine, engines.ENGINES)
    require_choice("config.search.hamming", search.hamming, HAMMING)
    if search.engine == "exact" and search.candidates:
        rule = "must be 0 for the engine exact, which compares all images"
        raise UserError("config.search.candidates", search.candidates, rule)
    blocks = ("global_block", "local_block", "query_block", "graph_block", "graph_neighbours")
    positive = [(name, search[name]) for name in blocks]
    for name, value in (*positive, ("ivf.probes", search.ivf.probes)):
        if value < 1:
            raise UserError(f"config.search.{name}", value, "must be at least 1")
    _grid_settings(search.cann)
    _ivf_settings(search.ivf)
    _asmk_settings(search.asmk)
    for name in ("idf_images", "candidates", "graph_features", "max_features"):
        if search[name] < 0:
            raise UserError(f"config.search.{name}", search[name], "must not be negative")


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
    fields = (f"search.{name}" for name in search if name not in _SPEED_FIELDS)
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
    check(config.search)
    if config.search.engine == "exact":
        return None
    root = root_of(workdir)
    extracted = extracted or extract(config, root, overwrite)
    folder = f"{root / 'index' / config.search.engine}: claimed"
    with distributed.first_before_others(folder):
        place = index_place(config, root, extracted, overwrite)
    assert place is not None  # the engine is not exact
    database = extracted.database.local_features(config.search.max_features)
    if config.search.engine == "asmk":
        _asmk_index(database, config.search, place, shared=True)
    elif distributed.is_first():
        engine(database, config.search, place)
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
    outputs.claim(folder, config, decided_by, overwrite, {"weights": extracted.weights})
    return Place(folder / "index", extracted.database.digest(), extracted.database)


def engine(
    database: LocalFeatures,
    search: ml_collections.ConfigDict,
    place: Place | None = None,
) -> LocalSearch:
    """The local search over a database that `config.search` asks for.

    Args:
      database: local features.
      search: the `config.search` tree.
      place: of the index of an approximate engine; None to build one without storing it.

    Returns:
      The search.
    """
    if search.engine == "exact":
        return exact_search(database, search)
    first = _approximate(database, search, place)
    if not search.candidates:
        return first
    return engines.CandidateSearch(first, exact_search(database, search), search.candidates)


def _approximate(
    database: LocalFeatures, search: ml_collections.ConfigDict, place: Place | None
) -> LocalSearch:
    """The engine with an index, which is stored at `place` if there is one."""
    if database.descriptors.dtype == np.uint8:  # `config.search.packed`
        vectors: Any = engines.of_signs(database.descriptors)
        found = _approximate(database._replace(descriptors=vectors), search, place)
        return engines.SignSearch(found)
    descriptors, mask, idf = database.descriptors, database.mask, search.idf_images > 0
    if search.engine == "cann":
        grids = _grid_settings(search.cann)
        index = index_store.load_or_build(
            place, grids, descriptors.shape, lambda: cann.build(descriptors, mask, grids)
        )
        return engines.CannSearch(index, idf)
    if search.engine == "asmk":
        entries = _asmk_index(database, search, place)
        return engines.AsmkSearch(entries, _asmk_settings(search.asmk)[1])
    cells = _ivf_settings(search.ivf)
    inverted_file = index_store.load_or_build(
        place, cells, descriptors.shape, lambda: ivf.build(descriptors, mask, cells)
    )
    probes, block = search.ivf.probes, search.query_block
    return engines.IvfSearch(inverted_file, kernel(search), probes, block, idf)


def _asmk_index(
    database: LocalFeatures,
    search: ml_collections.ConfigDict,
    place: Place | None,
    shared: bool = False,
) -> asmk.AsmkIndex:
    """The inverted file of one-bit features; `shared` as of `asmk_store.load_or_build`."""
    settings, _ = _asmk_settings(search.asmk)
    descriptors: Any = database.descriptors
    if place is None:
        return asmk.build(descriptors, database.mask, settings)
    source = asmk_store.Source(descriptors, database.mask, place.source, place.features)
    return asmk_store.load_or_build(place.folder, settings, source, shared)


def exact_search(database: LocalFeatures, search: ml_collections.ConfigDict) -> engines.ExactSearch:
    """The engine that compares all features."""
    return engines.exact(
        database.descriptors,
        database.mask,
        kernel(search),
        search.local_block,
        search.idf_images,
        search.query_block,
        search.hamming,
    )


def kernel(search: ml_collections.ConfigDict) -> SimilarityKernel:
    """The kernel of the local similarity that `config.search` names.

    Raises:
      UserError: for a wrong value.
    """
    require_choice("config.search.kernel", search.kernel, KINDS)
    with fields_of("config.search", search):
        return SimilarityKernel(
            search.kernel, search.threshold, search.power, search.reach, search.curve
        )


def _grid_settings(settings: ml_collections.ConfigDict) -> GridSettings:
    """The grids that `config.search.cann` asks for."""
    with fields_of("config.search.cann", settings):
        return GridSettings.from_scale(**settings)


def _ivf_settings(settings: ml_collections.ConfigDict) -> IvfSettings:
    """The cells that `config.search.ivf` asks for."""
    with fields_of("config.search.ivf", settings):
        return IvfSettings(settings.count, settings.seed, settings.rounds)


def _asmk_settings(settings: ml_collections.ConfigDict) -> tuple[AsmkSettings, AsmkScoring]:
    """The inverted file that `config.search.asmk` asks for, and how it is searched."""
    fields = dict(settings)
    built = {field.name: fields.pop(field.name) for field in dataclasses.fields(AsmkSettings)}
    with fields_of("config.search.asmk", settings):
        return AsmkSettings(**built), AsmkScoring(**fields)
