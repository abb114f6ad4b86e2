"""Independent random streams of one world, addressed by name and ids instead of by order."""

import numpy as np

STREAMS = ("style", "facade", "view", "street")


def generator(seed: int, stream: str, *ids: int) -> np.random.Generator:
    """Returns the generator of one thing of a world.

    The same arguments always give the same draws, whatever was drawn before and in whichever
    process, so images can be rendered in any order.

    Args:
      seed: seed of the world, not negative.
      stream: one of `STREAMS`.
      *ids: what within the stream, for example landmark and view.

    Returns:
      A NumPy generator at the start of its stream.

    Raises:
      ValueError: if there is no such stream.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r}: must be one of {', '.join(STREAMS)}")
    return np.random.default_rng(np.random.SeedSequence([seed, STREAMS.index(stream), *ids]))
