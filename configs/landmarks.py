"""Heads on an ImageNet ResNet-18, trained on a folder of labelled photographs.

    delg train --config=configs/landmarks.py --config.data.root=DIR \
        --config.model.pretrained=resnet18.npz --workdir=runs/landmarks

DIR holds train/LABEL/*.jpg and validation/LABEL/*.jpg. The backbone is frozen unless
--config.train.freeze_backbone=False. Evaluate the checkpoint with configs/revisited.py:trained.
"""

import ml_collections

from configs import default


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Returns the training configuration, which has no variants."""
    config = default.get_config(argument)
    config.model = backbone(config.model, "resnet18")
    config.data.name = "folder"
    config.data.image_size = 224
    config.data.crop_area = (0.25, 1.0)
    config.train.steps = 400
    config.train.batch_size = 32
    config.train.learning_rate = 0.05
    config.train.warmup_steps = 50
    config.train.freeze_backbone = True
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    config.train.keep_checkpoints = 2
    return config


def backbone(model: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """Returns `model` with a backbone for torchvision's ImageNet weights, conv4 at stride 16."""
    model.backbone = name
    model.convention = "torchvision"
    model.conv4_stride = 16
    return model
