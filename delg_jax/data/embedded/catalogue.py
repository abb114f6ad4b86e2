"""The embedded data set as the rest of the package asks for it."""

import ml_collections

from delg_jax.data.embedded.builder import prepare
from delg_jax.data.embedded.source import ground_truth, source
from delg_jax.data.embedded.world import landmark_name, world_size
from delg_jax.data.sources import RetrievalData, TrainingData


def training(data: ml_collections.ConfigDict) -> TrainingData:
    """Opens the landmarks to learn from, rendered first if need be.

    Args:
      data: the `config.data` tree.

    Returns:
      TrainingData; its sources are `EmbeddedSource`.

    Raises:
      UserError: if `config.data.embedded` names no world.
    """
    builder = prepare(data.embedded.size, data.embedded.seed, data.tfds_dir)
    count = world_size(data.embedded.size).train
    return TrainingData(
        train=source(builder, "train"),
        validation=source(builder, "validation"),
        classes=[landmark_name(landmark) for landmark in range(count)],
    )


def retrieval(data: ml_collections.ConfigDict) -> RetrievalData:
    """Opens the landmarks to search, rendered first if need be.

    Args:
      data: the `config.data` tree.

    Returns:
      RetrievalData; its sources are `EmbeddedSource`.

    Raises:
      UserError: if `config.data.embedded` names no world.
    """
    builder = prepare(data.embedded.size, data.embedded.seed, data.tfds_dir)
    return RetrievalData(
        database=source(builder, "index"),
        queries=source(builder, "query"),
        ground_truth=ground_truth(builder)["gnd"],
    )
