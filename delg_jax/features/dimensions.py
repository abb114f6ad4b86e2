"""Dimension of local descriptors, as far as the configuration determines it."""

import ml_collections

from delg_jax.errors import UserError
from delg_jax.features.formats.imported import is_imported

_BITS = 8  # of a byte


def local_dimension(config: ml_collections.ConfigDict) -> tuple[str, int]:
    """The field that determines D, and D; 0 if it depends on the network or on imported files."""
    extract, model = config.extract, config.model
    if is_imported(extract) or not model.local_head:
        return "", 0
    if extract.pca_dim:
        return "config.extract.pca_dim", extract.pca_dim
    if model.dim_reduction == "none":
        return "", 0
    return "config.model.local_dim", model.local_dim


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a dimension that the encoding or the projection does not allow."""
    field, dimension = local_dimension(config)
    if config.extract.local_encoding == "sign" and dimension % _BITS:
        rule = f"must be a multiple of {_BITS}: config.extract.local_encoding = 'sign' packs bits"
        raise UserError(field, dimension, rule)
    if field == "config.extract.pca_dim" and config.model.dim_reduction != "none":
        most = config.model.local_dim
        if dimension > most:
            rule = (
                f"must be at most config.model.local_dim (={most}), the dimension before projection"
            )
            raise UserError(field, dimension, rule)
