"""Local-to-global retrieval on Revisited Oxford, Paris, or any folder of that layout.

    delg evaluate --config=configs/local_to_global.py:imagenet --config.data.root=DIR --workdir=WORK

Variants, as argument:
    imagenet  ImageNet ResNet-50 and nothing trained: conv4 vectors with their norm as attention,
              PCA fitted on the database; images as they are
    trained   the heads that configs/landmarks.py trains, otherwise as imagenet

How search and re-ranking were chosen: experiments/local_to_global.py, README.
"""

import ml_collections

from configs import revisited
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError


def get_config(argument: str = "imagenet") -> ml_collections.ConfigDict:
    """Returns the evaluation that `argument` names: `imagenet` or `trained`."""
    variant = parse_argument(argument, {"imagenet": False, "trained": False})
    if variant.imagenet == variant.trained:
        raise UserError("--config argument", argument, "must be imagenet or trained")
    config = revisited.get_config("real" if variant.imagenet else "trained")
    config.search.rarity_images = 400
    config.search.max_features = 400
    config.search.graph_features = 200
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
