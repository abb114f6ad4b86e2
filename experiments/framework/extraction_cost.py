"""The cost of features: milliseconds to extract and bytes to store an image (appendix of DELG)."""

from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax.benchmarks import harness
from delg_jax.features import ExtractionSettings, Extractor
from delg_jax.features.storage import encodings
from delg_jax.models.delg import build
from delg_jax.models.variables import initialize

IMAGES = 4_993 + 1_001_001  # in Revisited Oxford and R1M
_GIBIBYTE = 2**30
_LONGER_SIDE = 512  # pixels, if the configuration has no limit
_ASPECT = 0.75  # shorter over longer side
IMAGES_TIMED, REPEATS = 2, 5


def measure(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Times the extraction of random images with random weights, on one device.

    The time depends on neither; the bytes depend only on the dimensions of descriptors, with the
    largest number of features for each image.

    Args:
      config: the whole tree; `extract.max_size` is the longer side of the images.

    Returns:
      `milliseconds` per image (median over repeats) and the fastest and slowest as `range`; `bytes`
      per image of `global`, `float32` (global and local) and `sign` (local, one bit) descriptors;
      `gigabytes` (GiB) of the same for Revisited Oxford with a million distractors; `device`.
    """
    module = build(config.model)
    variables = initialize(module, jax.random.key(config.seed))
    extractor = Extractor(module, variables, ExtractionSettings.of(config.extract))
    side = config.extract.max_size or _LONGER_SIDE
    rng = np.random.default_rng(config.seed)
    shape = (round(_ASPECT * side), side, 3)
    images = [rng.integers(0, 256, shape, np.uint8) for _ in range(IMAGES_TIMED)]
    found = extractor(images)
    (timing,) = harness.time_in_turn([lambda: extractor(images)], REPEATS)
    milliseconds = 1000 * np.array(timing.seconds) / len(images)
    descriptors = None if found[0].local is None else found[0].local.descriptors.shape[-1]
    size = _bytes(len(found[0].global_descriptor), config.extract.max_features, descriptors)
    return {
        "milliseconds": float(np.median(milliseconds)),
        "range": [float(milliseconds.min()), float(milliseconds.max())],
        "bytes": size,
        "gigabytes": {name: IMAGES * value / _GIBIBYTE for name, value in size.items()},
        "device": jax.local_devices()[0].device_kind,
    }


def _bytes(global_dim: int, features: int, local_dim: int | None) -> dict[str, int]:
    """Bytes of the descriptors of an image, by kind; only `global` without a local head."""
    pooled = np.zeros(global_dim, np.float32).nbytes
    if local_dim is None:
        return {"global": pooled}
    local = np.zeros((features, local_dim), np.float32)
    signs = encodings.encode(local, "sign").values.nbytes
    return {"global": pooled, "float32": pooled + local.nbytes, "sign": signs}
