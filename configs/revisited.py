"""Evaluation on Revisited Oxford, Revisited Paris, or any folder of that layout.

Without an argument: the paper's DELG (R50, slim, seven scales), for a trained checkpoint. The
paper's tau is the median attention in training: --config.extract.attention_quantile=0.5.
Checkpoints of `delg train` store it, converted weights do not.

    delg evaluate --config=configs/revisited.py --config.data.root=DIR \
        --config.model.checkpoint=RUN --workdir=runs/roxford

Variants, given as argument:
    real     ImageNet ResNet in torchvision's convention without training: conv4 vectors with their
             norm as attention, PCA fitted to the database, three scales, images at original size
    trained  the heads trained by configs/landmarks.py, otherwise like real
    gem      single-scale GeM (p = 3, conv5) without whitening or local head, original size
"""

import ml_collections

from configs import default, landmarks
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError

_THREE_SCALES = (0.70710677, 1.0, 1.4142135)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the evaluation of a variant: none, `real`, `trained` or `gem`."""
    variant = parse_argument(argument, {"real": False, "trained": False, "gem": False})
    if sum(variant.values()) > 1:
        raise UserError("--config argument", argument, "must name at most one variant")
    config = default.get_config()
    config.data.name = "revisited"
    if variant.real or variant.gem:
        config.model = landmarks.backbone(config.model, "resnet50")
    if variant.real:
        config.model.whitening = False
        config.model.attention = "norm"
        config.model.dim_reduction = "none"
        config.extract.pca_dim = 128
    if variant.trained:
        config.model = landmarks.get_config().model
    if variant.real or variant.trained:
        config.extract.local_scales = config.extract.global_scales = _THREE_SCALES
    if variant.gem:
        config.model.whitening = False
        config.model.local_head = False
        config.extract.local_scales = config.extract.global_scales = (1.0,)
        config.eval.methods = ("global",)
    if variant.real or variant.trained or variant.gem:
        config.extract.max_size = 0
    return config
