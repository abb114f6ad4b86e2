"""`delg extract`: features of the database and the queries of an experiment, into its workdir."""

import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections

from delg_jax import configuration, distributed
from delg_jax import workdir as outputs
from delg_jax.data import RetrievalData, open_retrieval
from delg_jax.data.images import worker_count
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.features.beam_extraction import extract_with_beam, require_beam
from delg_jax.features.extraction import Loader, extract_to_store
from delg_jax.features.formats.imported import DECIDING_FIELDS, ImportedFeatures, is_imported
from delg_jax.features.image_sets import LISTED, PARTS, ImageSet, store_folder
from delg_jax.features.in_memory import InMemoryFeatures
from delg_jax.features.network import Network, check, check_dimension, network_sections
from delg_jax.features.origins import Box, CurrentImages
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import open_for_writing
from delg_jax.workdir import root_of

_LOG = logging.getLogger(__name__)


class Extracted(NamedTuple):
    """Features of an experiment.

    Attributes:
      data: the images and the ground truth.
      database: features of the N database images.
      queries: features of the Q queries; without a folder if there are none.
      weights: digest of the network's variables, or of the imported files.
    """

    data: RetrievalData
    database: FeatureStore
    queries: FeatureStore
    weights: str


def extract(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    runner: str = "",
    network: Network | None = None,
) -> Extracted:
    """Extracts or imports the missing features of the database and the queries.

    The database of the data set `images` follows its files: new ones are added, those that are gone
    are deleted. A projection stays the one that was fitted to the first files.

    Args:
      config: the whole tree.
      workdir: gets `features/database` (`features/images` for the data set `images`) and
        `features/queries`.
      overwrite: whether features of another configuration are deleted instead of refused.
      runner: options of an Apache Beam pipeline that extracts, as "DirectRunner
        --direct_num_workers=4"; empty to use the processes of this job.
      network: of this configuration and workdir, if it is loaded already.

    Returns:
      The stores, whole.

    Raises:
      UserError: for a wrong configuration, unusable data, weights or files, if no image or no
        query can be used, or if another job writes the stores.
    """
    root = root_of(workdir)
    check(config.extract)
    check_dimension(config)
    data = open_retrieval(config.data)
    if is_imported(config.extract):
        if runner:
            rule = "must be left out where config.extract imports features: none are computed"
            raise UserError("--runner", runner, rule)
        return _import(config, root, data, overwrite)
    require_beam(runner)
    network = network or Network(config, root)
    stores: list[Any] = []
    for part in PARTS:
        image_set = ImageSet(config, part)
        source, boxes = image_set.open(data)
        if part == "queries" and not len(source):  # of the data set images
            stores.append(InMemoryFeatures([]))
            break
        listed = part == "database" and config.data.name == LISTED
        folder = store_folder(root, config.data.name, part)
        with open_for_writing(
            outputs.Output.of(folder, config, sections(config), {"weights": network.weights}),
            Layout.of(config.extract),
            config.data.memory_megabytes,
            list(source.names),
            overwrite,
            _updating(source.names, _forget) if listed else None,
            CurrentImages(source, boxes, worker_count(config.data.workers)),
            network.extractor.pca,
            keep_projection=listed,
        ) as store:
            _extract_missing(image_set, source, boxes, network, store, root, runner)
        if listed:
            _record_place(config, store, network.weights)
            data = data.ordered(store.names)
        _require_usable_images(store, config.data.max_skipped)
        stores.append(store)
    return Extracted(data, stores[0], stores[1], network.weights)


def extract_images(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    images: str,
    overwrite: bool = False,
    delete_missing: bool = False,
    runner: str = "",
) -> FeatureStore:
    """Extracts the missing features of images; a later call with more images appends them.

    Args:
      config: the whole tree.
      workdir: gets `features/images`.
      images: a folder, glob, list file or tar, see `delg_jax.data.listing`.
      overwrite: whether features of another configuration are deleted instead of refused.
      delete_missing: whether images that are no longer listed are deleted instead of refused.
      runner: as for `extract`.

    Returns:
      The store, whole. Images that were added later come after the others.

    Raises:
      UserError: for a wrong configuration, unusable images or weights, images that are no longer
        listed, or if another job writes the store.
    """
    root = root_of(workdir)
    place = {"data.name": LISTED, "data.root": os.path.abspath(images)}
    config = configuration.override(config, place)  # what other verbs find in the workdir
    image_set = ImageSet(config, LISTED, images)
    source, boxes = image_set.open()
    require_beam(runner)
    network = Network(config, root)

    def forget(store: FeatureStore, gone: list[str]) -> None:
        """Deletes images that are no longer listed, if that is asked for."""
        if gone and not delete_missing:
            rule = f"lacks {len(gone)} images of {store.folder}, first {gone[0]}; "
            rule += "--delete_missing deletes them from the store"
            raise UserError("--images", images, rule)
        store.delete(gone)

    folder, extra = root / "features" / LISTED, {"weights": network.weights}
    with open_for_writing(
        outputs.Output.of(folder, config, network_sections(config), extra),
        Layout.of(config.extract),
        config.data.memory_megabytes,
        source.names,
        overwrite,
        _updating(source.names, forget),
        CurrentImages(source, workers=worker_count(config.data.workers)),
    ) as store:
        _extract_missing(image_set, source, boxes, network, store, root, runner)
    _record_place(config, store, network.weights)
    return store


def _updating(
    names: Sequence[str], forget: Callable[[FeatureStore, list[str]], None]
) -> Callable[[FeatureStore], None]:
    """Makes `names` the images of a store: appends new ones; `forget` gets those that are gone."""

    def update(store: FeatureStore) -> None:
        """Updates the images of a store."""
        store.forget_repeated()
        listed, known = set(names), set(store.names)
        forget(store, [name for name in store.names if name not in listed])
        store.append([name for name in names if name not in known])

    return update


def _forget(store: FeatureStore, gone: list[str]) -> None:
    if gone:
        text = "%s: %d images are gone, first %s; their features are deleted"
        _LOG.info(text, store.folder, len(gone), gone[0])
    store.delete(gone)


def _record_place(config: ml_collections.ConfigDict, store: FeatureStore, weights: str) -> None:
    """Stores where the images lie now, for verbs that are called without a configuration."""
    stored = outputs.stored_config(store.folder)
    place = {"data.name": LISTED, "data.root": os.path.abspath(config.data.root)}
    if {name: stored.get(name) for name in place} == place or not distributed.is_first():
        return
    with outputs.where_writable(f"{store.folder}: where the images lie"):
        moved = configuration.override(config, place)
        fields, extra = network_sections(config), {"weights": weights}
        outputs.Output.of(store.folder, moved, fields, extra).describe()


def sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that features depend on; digests cover weights, images and files.

    Where data is stored does not matter. For rendered images, the fields of the renderer do.
    """
    rendered = ("data.synthetic",) if config.data.name == "synthetic" else ()
    if is_imported(config.extract):
        return (*rendered, *(f"extract.{name}" for name in DECIDING_FIELDS))
    return (*network_sections(config), *rendered)


def has_global(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has global descriptors, computed or imported."""
    return bool(config.extract.imported_global) or not is_imported(config.extract)


def has_local(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has local features, of a network with a local head or imported."""
    if is_imported(config.extract):
        return bool(config.extract.imported_local)
    return config.model.local_head


def _extract_missing(
    image_set: ImageSet,
    source: ImageSource,
    boxes: list[Box] | None,
    network: Network,
    store: FeatureStore,
    workdir: pathlib.Path,
    runner: str,
) -> None:
    """Extracts what a store lacks, on Apache Beam if a runner is given."""
    network.set_projection(source, store)
    if runner:
        extract_with_beam(image_set, workdir, store, runner)
        return
    extract, data = image_set.config.extract, image_set.config.data
    limits = extract.max_size, data.min_side, data.max_pixels, extract.reduced_decode
    loader = Loader(source, boxes, *limits)
    extract_to_store(loader, network.extractor, store, worker_count(data.workers), data.max_skipped)


def _require_usable_images(store: FeatureStore, max_skipped: int) -> None:
    """Raises a UserError if a store has no features, because there is nothing to search."""
    if store.all_skipped():
        name, reason = next(iter(store.skipped().items()), ("", "there is none"))
        rule = f"none of the {len(store)} images of {store.folder} could be used, first {name} "
        raise UserError("config.data.max_skipped", max_skipped, f"{rule}({reason})")


def _import(
    config: ml_collections.ConfigDict, root: pathlib.Path, data: RetrievalData, overwrite: bool
) -> Extracted:
    """Imports the features of the database and the queries."""
    sources = {"database": data.database, "queries": data.queries}
    names = {name: list(source.names) for name, source in sources.items()}
    _require_one_box_per_query(data)
    asked = config.extract
    paths, layout = (asked.imported_local, asked.imported_global), Layout.of(asked)
    files = ImportedFeatures(*paths, layout, names)
    digest, memory = files.digest(), config.data.memory_megabytes
    stores = []
    for name in sources:
        folder, extra = root / "features" / name, {"weights": digest}
        output = outputs.Output.of(folder, config, sections(config), extra)
        with open_for_writing(output, layout, memory, names[name], overwrite) as store:
            files.import_to_store(name, store, config.data.max_skipped)
        _require_usable_images(store, config.data.max_skipped)
        stores.append(store)
    return Extracted(data, stores[0], stores[1], digest)


def _require_one_box_per_query(data: RetrievalData) -> None:
    """Refuses queries of one name with different boxes: files have one image per name."""
    boxes: dict[str, tuple] = {}
    for name, entry in zip(data.queries.names, data.ground_truth, strict=True):
        box = tuple(entry.get("bbx", ()))
        if boxes.setdefault(name, box) != box:
            rule = f"is a query with the boxes {list(boxes[name])} and {list(box)}, and files to "
            rule += "import have one image of a name; give each its own"
            raise UserError("image", name, rule)
