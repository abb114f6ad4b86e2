"""Features: pyramid, extraction, selection, and the store."""

from delg_jax.features.experiment import Extracted, extract
from delg_jax.features.extractor import Extractor, Features
from delg_jax.features.in_memory import extract_image
from delg_jax.features.local_features import LocalFeatures, strongest
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.features.store import FeatureStore

__all__ = [
    "Extracted",
    "ExtractionSettings",
    "Extractor",
    "FeatureStore",
    "Features",
    "LocalFeatures",
    "extract",
    "extract_image",
    "strongest",
]
