"""Trainings and settings that several tables share."""

from experiments.framework.experiment import Setting, Training

_GLOBAL = {"train.heads": "global"}
_AVERAGE = {**_GLOBAL, "model.pooling": "avg"}

JOINT = Training("joint")
JOINT_R101 = Training(
    "joint_r101",
    {"model.backbone": "resnet101", "model.pretrained": "{weights}/resnet_v1_101.npz"},
)
FLOWING = Training("joint_flowing", {"model.stop_gradient": False})
GLOBAL = Training("global", _GLOBAL)
AVERAGE_ARCFACE = Training("global_average", _AVERAGE)
AVERAGE_SOFTMAX = Training("global_average_softmax", {**_AVERAGE, "model.global_loss": "softmax"})

# Matching of one-bit descriptors. The distance corresponds to 1 between unit vectors, because the
# expected cosine of signs is 1 - 2 arccos(c) / pi.
ONE_BIT = {"rerank.sp.one_bit": True, "rerank.sp.max_distance": 1.1547}

DELG = Setting("delg", ("global", "global+sp"), JOINT)
DELG_R101 = Setting("delg_r101", ("global", "global+sp"), JOINT_R101)
