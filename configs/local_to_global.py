"""Local-to-global retrieval on Revisited Oxford, Paris, or any folder of that layout.

    delg evaluate --config=configs/local_to_global.py:imagenet --config.data.root=DIR --workdir=WORK

Variants, given as argument:
    imagenet  (default) ImageNet ResNet-50 without training: conv4 vectors with their norm as
              attention, PCA fitted to the database, images at their original size
    trained   the heads trained by configs/landmarks.py, otherwise like imagenet; PCA also removes
              the mean direction of an autoencoder's descriptors, which would make all of them match
    large     like imagenet, for more than about 10,000 images: candidates of an inverted file are
              compared exactly, with the idf of visual words, and no graph is built

The re-ranking was chosen on several data sets and features at once, see
experiments/local_to_global/choice.py.
"""

from typing import Any

import ml_collections

from configs import revisited
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError

# A search whose time hardly grows with the database, with the idf of visual words, because that of
# a sample costs more than the candidates
CANDIDATES: dict[str, Any] = {
    "search.engine": "asmk",
    "search.candidates": 100,
    "search.estimated": 10_000,
    "search.idf_of": "words",
    "search.idf_power": 2.0,
}
# A re-ranking without a stored graph
ON_THE_FLY: dict[str, Any] = {
    "search.graph_features": 100,
    "rerank.mds.graph": "on_the_fly",
    "rerank.mds.short_list": 200,
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the evaluation of a variant: `imagenet` (default), `trained` or `large`."""
    variant = parse_argument(argument, {"imagenet": False, "trained": False, "large": False})
    if variant.imagenet + variant.trained + variant.large > 1:
        raise UserError("--config argument", argument, "must be imagenet, trained or large")
    config = revisited.get_config("trained" if variant.trained else "real")
    config.extract.pca_dim = 128
    config.search.idf_images = 400
    config.search.max_features = 400
    config.search.graph_features = 200
    rank_by_profiles(config.rerank.mds)
    config.rerank.mds.concat_weight = 0.7
    if variant.large:
        config.update_from_flattened_dict({**CANDIDATES, **ON_THE_FLY})
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


def rank_by_profiles(mds: ml_collections.ConfigDict) -> None:
    """Sets the re-ranking that was chosen on several data sets and features."""
    mds.method = "profile"
    mds.short_list = 700
    mds.dim = 20
    mds.scale_neighbours = 5
    mds.contrast = 1.5
    mds.weight = 0.6
    mds.neighbours = 3
    mds.beta = 1.0
    mds.keep_first = 1
