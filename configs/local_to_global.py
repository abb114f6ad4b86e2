"""Local-to-global retrieval on Revisited Oxford, Paris, or any folder of that layout.

    delg evaluate --config=configs/local_to_global.py:imagenet --config.data.root=DIR --workdir=WORK

Variants, given as argument:
    imagenet  (default) ImageNet ResNet-50 without training: conv4 vectors with their norm as
              attention, PCA fitted to the database, images at their original size
    trained   the heads trained by configs/landmarks.py, otherwise like imagenet; PCA also removes
              the mean direction of an autoencoder's descriptors, which would make all of them match

The re-ranking was chosen on several data sets and features at once, see
experiments/local_to_global/choice.py.
"""

import ml_collections

from configs import revisited
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the evaluation of a variant: `imagenet` (default) or `trained`."""
    variant = parse_argument(argument, {"imagenet": False, "trained": False})
    if variant.imagenet and variant.trained:
        raise UserError("--config argument", argument, "must be imagenet or trained")
    config = revisited.get_config("trained" if variant.trained else "real")
    config.extract.pca_dim = 128
    config.search.idf_images = 400
    config.search.max_features = 400
    config.search.graph_features = 200
    config.rerank.mds.method = "profile"
    config.rerank.mds.short_list = 700
    config.rerank.mds.dim = 20
    config.rerank.mds.scale_neighbours = 5
    config.rerank.mds.contrast = 1.5
    config.rerank.mds.weight = 0.6
    config.rerank.mds.neighbours = 3
    config.rerank.mds.beta = 1.0
    config.rerank.mds.concat_weight = 0.7
    config.eval.methods = (
        "global",
        "global+sp",
        "global+superglobal",
        "local",
        "local+sp",
        "local+mds",
        "local+mds+global",
    )
    return config
