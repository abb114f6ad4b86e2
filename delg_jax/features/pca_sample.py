"""The sample of database images that PCA is fitted on."""

import ml_collections
import numpy as np

from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.extraction import Loader
from delg_jax.features.extractor import Extractor
from delg_jax.progress import Progress


def fit_pca(
    source: ImageSource, extractor: Extractor, data: ml_collections.ConfigDict
) -> pca.Pca | None:
    """Fits the projection that `config.extract.pca_dim` asks for, on evenly spaced images.

    Args:
      source: the database.
      extractor: without projection.
      data: the `config.data` tree.

    Returns:
      The projection, or None if `pca_dim` is 0.

    Raises:
      UserError: if the sample has too few descriptors.
    """
    settings = extractor.settings
    if not settings.pca_dim or not extractor.module.local_head:
        return None
    with settings.copy_and_resolve_references().unlocked() as single:
        single.local_scales = single.global_scales = (1.0,)
    sampler = Extractor(extractor.module, extractor.variables, single)
    loader = Loader(source, data, settings.max_size, None)
    chosen = sample_of(source, settings)
    found = []
    with Progress("fit PCA", len(chosen)) as progress:
        for index in chosen:
            loaded = loader(int(index))
            if not isinstance(loaded, str):
                local = sampler([loaded[0]])[0].local
                found.append(local.descriptors[local.mask])
            progress.advance()
    sample = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    if settings.pca_dim > min(sample.shape):
        rule = f"must not exceed the sample's {len(sample)} descriptors of {sample.shape[1]}"
        raise UserError("config.extract.pca_dim", settings.pca_dim, rule)
    return pca.fit(sample, settings.pca_dim, settings.pca_whitening)


def sample_of(source: ImageSource, settings: ml_collections.ConfigDict) -> np.ndarray:
    """Indices int [n] of the images that decide the projection, evenly spaced.

    Args:
      source: the database.
      settings: the `config.extract` tree.
    """
    return np.unique(np.linspace(0, len(source) - 1, settings.pca_images).astype(int))
