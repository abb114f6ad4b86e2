"""Configurations stored by earlier versions: fields added, renamed and removed since."""

from collections.abc import Container, Mapping
from typing import Any

# Field added since the first outputs of this format -> the value that keeps the earlier behaviour
ADDED = {
    "model.pretrained_mapping": "",
    "model.conv4_block": 0,
    "data.distractors": "",
    "data.exclude": "",
    "data.beam_options": "",
    "data.split_seed": 0,
    "data.validation_share": 0.2,
    "data.memory_megabytes": 4096,
    "data.reduced_decode": False,
    "train.accumulation_steps": 1,
    "train.cache_features": False,
    "train.cache_gigabytes": 8.0,
    "train.eval_images": 0,
    "train.norm_momentum": 0.9,
    "train.matmul_precision": "default",
    "train.shard_classifier": False,
    "train.best_metric": "",
    "train.chance_after": 1000,
    "train.tensorboard": True,
    "train.wandb": "",
    "train.interrupted_status": 0,
    "train.resume_with": "",
    "extract.scale_pooling": "mean",
    "extract.gem_power": 0.0,
    "extract.regional": 0.0,
    "extract.relup": 0.0,
    "extract.reduced_decode": False,
    "extract.attention_quantile": 0.0,
    "extract.nms_radius": 0,
    "extract.imported_local": "",
    "extract.imported_global": "",
    "extract.local_encoding": "float16",
    "extract.global_dtype": "float32",
    "extract.compression": 1,
    "search.reach": 1.0,
    "search.curve": 0.459176,
    "search.idf_images": 0,
    "search.candidates": 0,
    "search.estimated": 0,
    "search.idf_of": "features",
    "search.idf_power": 1.0,
    "search.engine": "exact",
    "search.query_block": 64,
    "search.hamming": "popcount",
    "search.packed": False,
    "search.cann.norm": 120.0,
    "search.cann.first_radius": 28.283,
    "search.cann.reach": 120.0,
    "search.cann.curve": 0.459176,
    "search.cann.approximation": 1.16594,
    "search.cann.grids": 20,
    "search.cann.axes": 0,
    "search.cann.width": 1.0,
    "search.cann.seed": 0,
    "search.ivf.count": 1000,
    "search.ivf.probes": 24,
    "search.ivf.seed": 0,
    "search.ivf.rounds": 0,
    "search.asmk.words": 16_384,
    "search.asmk.aggregate": False,
    "search.asmk.rounds": 2,
    "search.asmk.seed": 0,
    "search.asmk.assignments": 5,
    "search.asmk.threshold": 0.25,
    "search.asmk.power": 3.0,
    "search.asmk.idf": "hits",
    "search.asmk.normalize": False,
    "search.graph_features": 0,
    "search.graph_block": 32,
    "rerank.sp.one_bit": False,
    "rerank.sp.hamming": "popcount",
    "rerank.sp.model": "affine",
    "rerank.sp.scoring": "inliers",
    "rerank.sp.local_optimization": False,
    "rerank.sp.guided": False,
    "rerank.sp.score": "inliers",
    "rerank.mds.background": 0.0,
    "rerank.mds.background_rank": 0,
    "rerank.mds.power": 1.0,
    "rerank.mds.missing": "zero",
    "rerank.mds.method": "classical",
    "rerank.mds.landmarks": 200,
    "rerank.mds.iterations": 30,
    "rerank.mds.missing_weight": 0.1,
    "rerank.mds.concat_weight": 0.5,
    "rerank.mds.neighbours": 0,
    "rerank.mds.beta": 0.3,
    "rerank.mds.scale_neighbours": 0,
    "rerank.mds.keep_first": 0,
    "rerank.mds.query_block": 8,
    "rerank.mds.graph": "stored",
    "rerank.superglobal.short_list": 400,
    "rerank.superglobal.neighbours": 9,
    "rerank.superglobal.beta": 0.15,
    "rerank.qe.images": 10,
    "rerank.qe.alpha": 3.0,
    "rerank.diffusion.neighbours": 50,
    "rerank.diffusion.query_neighbours": 10,
    "rerank.diffusion.power": 3.0,
    "rerank.diffusion.spread": 0.99,
    "rerank.diffusion.iterations": 20,
    "eval.depth": 0,
    "eval.recognition_top": 3,
    "eval.pairs": 0,
    "eval.negative_pairs": 1000,
}

# Old name of a field or section -> its present name
RENAMED = {
    "data.embedded": "data.synthetic",
    "extract.suppression": "extract.nms_radius",
    "search.cells": "search.ivf",
    "search.rarity_images": "search.idf_images",
    "rerank.sp.residual": "rerank.sp.inlier_threshold",
}
# Field and its old value -> its present value
RENAMED_VALUES = {
    ("data.name", "embedded"): "synthetic",
    ("search.engine", "cells"): "ivf",
}
# Field that no longer exists -> why; the value that an earlier version stored is ignored
REMOVED = {
    "rerank.mds.solver": "eigh is the only solver",
}


def new_name(path: str) -> str:
    """The present name of a renamed field or section, by dotted path; "" if it was not renamed."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return ""


def what_became_of(path: str) -> str:
    """What happened to a field of earlier versions, as a sentence without a subject.

    Args:
      path: of the field, dotted.

    Returns:
      For example "is now called config.data.synthetic"; "" for a name that never existed.
    """
    if path in REMOVED:
        return f"was removed: {REMOVED[path]}"
    new = new_name(path)
    return f"is now called config.{new}" if new else ""


def renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A flattened configuration with the present names, without removed fields.

    Args:
      stored: values by dotted path.
    """
    fields = {
        new_name(path) or path: value for path, value in stored.items() if path not in REMOVED
    }
    for (path, old), new in RENAMED_VALUES.items():
        if fields.get(path) == old:
            fields[path] = new
    return fields


def completed(stored: Mapping[str, Any], known: Container[str] = ADDED) -> dict[str, Any]:
    """A flattened configuration of an earlier version as this version would have stored it.

    Args:
      stored: values by dotted path.
      known: only fields among these are added.
    """
    return {**{name: value for name, value in ADDED.items() if name in known}, **renamed(stored)}
