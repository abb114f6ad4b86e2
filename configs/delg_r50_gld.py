"""R50-DELG on Google Landmarks, the paper's recipe (sections 4.1, Tables 2 and 3).

    delg train --config=configs/delg_r50_gld.py --config.data.root=GLD \
        --config.model.pretrained=resnet_v1_50.npz --workdir=runs/delg_r50

GLD holds train.csv and the images of Google Landmarks v1 with 14,951 labels; a fifth of the images
is used for validation. For the second version, use --config.data.name=gldv2_clean. The paper trains
on 21 P100 with 16 images each for 1.5M steps, about 25 epochs, and reports mAP Medium / Hard on
Revisited Oxford of 69.7 / 45.1 with global descriptors and 75.4 / 53.7 after re-ranking.

The argument `devices=N` keeps 16 images per device and the number of epochs. The learning rate is
proportional to the batch size as in the official code (0.01 for 256 images, 0.005 for 128), up to
0.01, the largest of the rates from 3e-4 to 1e-2 that the paper tries. To try them:

    delg sweep --config=configs/delg_r50_gld.py:devices=8 --verbs=train --workdir=runs/rates \
        --sweep=train.learning_rate=0.0003,0.001,0.003,0.01 --config.data.root=GLD ...
"""

import ml_collections

from configs import default
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError

_DEVICES = 21  # in the paper
_RATE_OF_256_IMAGES = _LARGEST_RATE = 0.01


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe for a number of devices; the default is `devices=21`, as in the paper."""
    devices = parse_argument(argument, {"devices": _DEVICES}).devices
    if devices < 1:
        raise UserError("--config argument devices", devices, "must be at least 1")
    config = default.get_config()
    config.data.name = "gldv1"
    config.data.max_skipped = 1000
    config.train.batch_size = batch_size = 16 * devices
    config.train.learning_rate = min(_RATE_OF_256_IMAGES * batch_size / 256, _LARGEST_RATE)
    config.train.steps = round(config.train.steps * _DEVICES / devices)
    return config
