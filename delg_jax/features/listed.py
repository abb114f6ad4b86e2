"""Extraction of any images: a folder, a glob, a list of files or a tar, without ground truth."""

import pathlib

import ml_collections

from delg_jax.errors import UserError
from delg_jax.features.claiming import claimed
from delg_jax.features.network import Network, network_sections
from delg_jax.features.origins import Origins
from delg_jax.features.parts import LISTED, Part
from delg_jax.features.store import FeatureStore


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
