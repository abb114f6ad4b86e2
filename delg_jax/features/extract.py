"""The extraction stage: database and queries of an experiment, into its workdir."""

import pathlib
from typing import NamedTuple

import ml_collections

from delg_jax.data import RetrievalData, open_retrieval
from delg_jax.errors import UserError
from delg_jax.features import dimensions
from delg_jax.features.extractor import check
from delg_jax.features.formats.imported import DECIDING_FIELDS, ImportedFeatures, is_imported
from delg_jax.features.network import LISTED, Network, Part, network_sections
from delg_jax.features.origins import Origins
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import claimed


class Extracted(NamedTuple):
    """What the stage leaves.

    Attributes:
      data: the images and the ground truth.
      database: features of the N database images.
      queries: features of the Q queries.
      weights: digest of the network's variables, or of the files that features came from.
    """

    data: RetrievalData
    database: FeatureStore
    queries: FeatureStore
    weights: str


def sections(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that decide features; of weights, images and files, digests decide.

    Where data lies decides nothing. Of rendered images, what is rendered does.
    """
    listing = ("data.synthetic",) if config.data.name == "synthetic" else ()
    if is_imported(config.extract):
        return (*listing, *(f"extract.{name}" for name in DECIDING_FIELDS))
    return (*network_sections(config), *listing)


def has_global(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has global descriptors: computed ones, or imported."""
    return bool(config.extract.imported_global) or not is_imported(config.extract)


def has_local(config: ml_collections.ConfigDict) -> bool:
    """Whether the experiment has local features: of a network with a local head, or imported."""
    if is_imported(config.extract):
        return bool(config.extract.imported_local)
    return config.model.local_head


def extract(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    runner: str = "",
    network: Network | None = None,
) -> Extracted:
    """Extracts what is missing of the database and the queries, or imports it.

    Args:
      config: the whole tree.
      workdir: gets `features/database` and `features/queries`.
      overwrite: whether features of another configuration are deleted instead of refused.
      runner: options of an Apache Beam pipeline that extracts, as "DirectRunner
        --direct_num_workers=4"; empty for the processes of this job.
      network: of this configuration and workdir, if the caller has loaded it.

    Returns:
      The stores, whole.

    Raises:
      UserError: for a wrong configuration, for data, weights or files that cannot be used, if no
        image or no query can be used, or if another job writes the stores.
    """
    root = pathlib.Path(workdir)
    check(config.extract)
    dimensions.check(config)
    data = open_retrieval(config.data)
    if is_imported(config.extract):
        if runner:
            rule = "must be left out where config.extract imports features: none are computed"
            raise UserError("--runner", runner, rule)
        return _import(config, root, data, overwrite)
    network = network or Network(config, root, runner)
    stores = []
    for name in ("database", "queries"):
        part = Part(config, name)
        source, boxes = part.open(data)
        with claimed(
            root / "features" / name,
            config,
            sections(config),
            network.weights,
            list(source.names),
            overwrite,
            origins=Origins(source, boxes, config.data.workers),
            projection=network.extractor.pca,
        ) as store:
            stores.append(network.fill(part, source, store, data))
            _require_some(stores[-1], config.data.max_skipped)
    return Extracted(data, *stores, network.weights)


def _require_some(store: FeatureStore, max_skipped: int) -> None:
    """Raises a UserError if no image of a store could be used: there is nothing to search."""
    if store.all_skipped():
        name, reason = next(iter(store.skipped().items()), ("", "there is none"))
        rule = f"none of the {len(store)} images of {store.folder} could be used, first {name} "
        raise UserError("config.data.max_skipped", max_skipped, f"{rule}({reason})")


def _import(
    config: ml_collections.ConfigDict, root: pathlib.Path, data: RetrievalData, overwrite: bool
) -> Extracted:
    sources = {"database": data.database, "queries": data.queries}
    names = {name: list(source.names) for name, source in sources.items()}
    _require_one_box(data)
    files = ImportedFeatures(config.extract, names)
    identity, decided_by = files.digest(), sections(config)
    stores = []
    for name in sources:
        folder = root / "features" / name
        with claimed(folder, config, decided_by, identity, names[name], overwrite) as store:
            stores.append(files.fill(name, store, config.data.max_skipped))
            _require_some(stores[-1], config.data.max_skipped)
    return Extracted(data, *stores, identity)


def _require_one_box(data: RetrievalData) -> None:
    """Refuses queries of one name with different boxes: files have one image of a name."""
    boxes: dict[str, tuple] = {}
    for name, entry in zip(data.queries.names, data.ground_truth, strict=True):
        box = tuple(entry.get("bbx", ()))
        if boxes.setdefault(name, box) != box:
            rule = f"is a query with the boxes {list(boxes[name])} and {list(box)}, and files to "
            rule += "import have one image of a name; give each its own"
            raise UserError("image", name, rule)


def extract_images(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    images: str,
    overwrite: bool = False,
    delete_missing: bool = False,
    runner: str = "",
) -> FeatureStore:
    """Extracts what is missing of some images; called again with more of them, it adds these.

    Args:
      config: the whole tree.
      workdir: gets `features/images`.
      images: a folder, glob, list file or tar, see `delg_jax.data.listing`.
      overwrite: whether features of another configuration are deleted instead of refused.
      delete_missing: whether images that are no longer listed are deleted instead of refused.
      runner: as of `extract`.

    Returns:
      The store, whole. Images that were added later stand behind the others.

    Raises:
      UserError: for a wrong configuration, images or weights that cannot be used, images that
        are gone, or if another job writes the store.
    """
    root = pathlib.Path(workdir)
    part = Part(config, LISTED, images)
    source, _ = part.open()
    network = Network(config, root, runner)

    def bring_up_to_date(store: FeatureStore) -> None:
        """Adds new images and deletes those that are gone."""
        wanted, known = set(source.names), set(store.names)
        gone = [name for name in store.names if name not in wanted]
        if gone and not delete_missing:
            rule = f"lacks {len(gone)} images of {store.folder}, first {gone[0]}; "
            rule += "--delete_missing deletes them from the store"
            raise UserError("--images", images, rule)
        store.delete(gone)
        store.append([name for name in source.names if name not in known])

    folder = root / "features" / LISTED
    deciding = network_sections(config)
    with claimed(
        folder,
        config,
        deciding,
        network.weights,
        source.names,
        overwrite,
        bring_up_to_date,
        Origins(source, workers=config.data.workers),
    ) as store:
        return network.fill(part, source, store)
