"""What features cost: milliseconds to extract and bytes to keep, per image (appendix of DELG)."""

import statistics
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax.features import Extractor
from delg_jax.features.storage import encodings
from delg_jax.models.delg import build
from delg_jax.models.variables import initialize

IMAGES = 4_993 + 1_001_001  # of Revisited Oxford and R1M
_GIBIBYTE = 2**30
_LONGEST, _ASPECT = 512, 0.75  # pixels where the configuration has no limit; sides of pictures
_PICTURES, _REPEATS = 2, 5


def measure(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Times extraction with random weights of pictures without content, one device of this machine.

    Time depends on neither, bytes only on the lengths of descriptors: of each image there are the
    most features that it may have.

    Args:
      config: the whole tree; `extract.max_size` is the longer side of the pictures.

    Returns:
      `milliseconds` an image (median over repeats, after a call that compiles) and their `low` and
      `high` as `range`; `gigabytes` (GiB) for Revisited Oxford with a million distractors by
      `global`, `float32` (global and local) and `sign` (local, one bit); `bytes` an image alike.
    """
    module = build(config.model)
    extractor = Extractor(module, initialize(module, jax.random.key(config.seed)), config.extract)
    side = config.extract.max_size or _LONGEST
    rng = np.random.default_rng(config.seed)
    pictures = [
        rng.integers(0, 256, (round(_ASPECT * side), side, 3), np.uint8) for _ in range(_PICTURES)
    ]
    found = extractor(pictures)
    seconds = []
    for _ in range(_REPEATS):
        start = time.monotonic()
        extractor(pictures)
        seconds.append((time.monotonic() - start) / _PICTURES)
    descriptors = None if found[0].local is None else found[0].local.descriptors.shape[-1]
    size = _bytes(len(found[0].global_descriptor), config.extract.max_features, descriptors)
    return {
        "milliseconds": 1000 * statistics.median(seconds),
        "range": [1000 * min(seconds), 1000 * max(seconds)],
        "bytes": size,
        "gigabytes": {name: IMAGES * value / _GIBIBYTE for name, value in size.items()},
        "device": jax.local_devices()[0].device_kind,
    }


def _bytes(global_dim: int, features: int, local_dim: int | None) -> dict[str, int]:
    """Of the descriptors of an image; without a local head, of the global one alone."""
    pooled = np.zeros(global_dim, np.float32).nbytes
    if local_dim is None:
        return {"global": pooled}
    local = np.zeros((features, local_dim), np.float32)
    signs = encodings.encode(local, "sign").values.nbytes
    return {"global": pooled, "float32": pooled + local.nbytes, "sign": signs}
