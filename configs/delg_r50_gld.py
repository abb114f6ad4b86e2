"""R50-DELG on Google Landmarks, the paper's recipe (sections 4.1, Tables 2 and 3).

    delg train --config=configs/delg_r50_gld.py --config.data.root=GLD \
        --config.model.pretrained=resnet_v1_50.npz --workdir=runs/delg_r50

GLD holds train.csv and the images of Google Landmarks v1 with 14,951 labels; a fifth of the images
is used for validation. The paper reports mAP Medium / Hard on Revisited Oxford of 69.7 / 45.1 with
global descriptors and 75.4 / 53.7 after re-ranking.

The paper takes 1.5M updates of 16 images on 21 GPUs, asynchronously: 24M images, 25 epochs. Updates
here are synchronous, so the number of images is kept and the steps follow from the batch. The
argument `devices=N` has 16 images per device; the default of 8 takes 187,500 steps of 128 images.
The learning rate is proportional to the batch size as in the official code (0.01 for 256 images,
0.005 for 128), up to 0.01, the largest of the rates from 3e-4 to 1e-2 that the paper tries. To try
them:

    delg sweep --config=configs/delg_r50_gld.py --verbs=train --workdir=runs/rates \
        --sweep=train.learning_rate=0.0003,0.001,0.003,0.01 --config.data.root=GLD ...

The argument `tf2` is the recipe of the official TensorFlow 2 code instead: Google Landmarks v2
clean, 500,000 steps of 256 images of 321 pixels on 8 devices, its ResNet and a fixed ArcFace scale.
With `tf2,devices=4` the batch is half as large and there are twice as many steps.

    python -c "from delg_jax.training import train; print(train.length_of_recipe('delg_r50_gld'))"

prints the images seen and the epochs of a recipe; an argument follows a colon.
"""

import ml_collections

from configs import default
from delg_jax.configuration import parse_argument
from delg_jax.errors import UserError

_DEVICES = 8
_RATE_OF_256_IMAGES = _LARGEST_RATE = 0.01
_TF2_STEPS, _TF2_BATCH = 500_000, 256


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of the paper, or with `tf2` of the TF2 code, for a number of devices."""
    choice = parse_argument(argument, {"devices": _DEVICES, "tf2": False})
    if choice.devices < 1:
        raise UserError("--config argument devices", choice.devices, "must be at least 1")
    config = default.get_config()
    train = config.train
    images, per_device = train.steps * train.batch_size, 16
    config.data.name = "gldv1"
    config.data.max_skipped = 1000
    config.extract.attention_quantile = 0.5  # tau is the median in the paper
    if choice.tf2:
        images, per_device = _TF2_STEPS * _TF2_BATCH, _TF2_BATCH // _DEVICES
        config.data.name = "gldv2_clean"
        config.data.image_size = 321
        config.model.convention = "keras"
        train.arcface_scale_learned = False
    train.batch_size = per_device * choice.devices
    train.learning_rate = min(_RATE_OF_256_IMAGES * train.batch_size / 256, _LARGEST_RATE)
    train.steps = round(images / train.batch_size)
    return config
