"""DELG and local-to-global image retrieval in JAX.

A notebook needs `load` and the verbs of the program as functions; they are imported when they are
first used, so that `import delg_jax` is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delg_jax.api import Model, draw, load
    from delg_jax.configuration import load as load_config
    from delg_jax.data import prepare
    from delg_jax.evaluation.experiment import evaluate
    from delg_jax.features.experiment import extract, extract_images
    from delg_jax.features.formats.exported import export_features
    from delg_jax.features.in_memory import extract_image
    from delg_jax.features.stablehlo import export_model
    from delg_jax.features.store_check import repair, verify
    from delg_jax.reports.html import write_report
    from delg_jax.retrieval.pair_matching import match_images
    from delg_jax.retrieval.query import search_image
    from delg_jax.search.index import build_index
    from delg_jax.sweeps.sweep import run as sweep
    from delg_jax.training.convert import convert_weights
    from delg_jax.training.train import train_and_evaluate

__version__ = "0.1.0"

# Name -> the module that defines it, and its name there if that differs
_MODULES = {
    "Model": "api",
    "build_index": "search.index",
    "convert_weights": "training.convert",
    "draw": "api",
    "evaluate": "evaluation",
    "export_features": "features.formats.exported",
    "export_model": "features.stablehlo",
    "extract": "features",
    "extract_image": "features",
    "extract_images": "features.experiment",
    "load": "api",
    "load_config": "configuration:load",
    "match_images": "retrieval.pair_matching",
    "prepare": "data",
    "repair": "features.store_check",
    "search_image": "retrieval.query",
    "sweep": "sweeps.sweep:run",
    "train_and_evaluate": "training.train",
    "verify": "features.store_check",
    "write_report": "reports.html",
}

__all__ = [
    "Model",
    "build_index",
    "convert_weights",
    "draw",
    "evaluate",
    "export_features",
    "export_model",
    "extract",
    "extract_image",
    "extract_images",
    "load",
    "load_config",
    "match_images",
    "prepare",
    "repair",
    "search_image",
    "sweep",
    "train_and_evaluate",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, original = _MODULES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), original or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
