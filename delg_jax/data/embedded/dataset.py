"""The embedded data set as training and retrieval data of an experiment."""

import ml_collections

from delg_jax.data.embedded.builder import EmbeddedLandmarks, prepare
from delg_jax.data.embedded.source import ground_truth, source
from delg_jax.data.sources import RetrievalData, TrainingData


def training(data: ml_collections.ConfigDict) -> TrainingData:
    """Prepares the data set if need be and opens `train` and `validation`.

    Args:
      data: the `config.data` tree.

    Returns:
      TrainingData.

    Raises:
      UserError: for an unknown size.
    """
    builder = _prepare(data)
    train = source(builder, "train")
    classes = [f"landmark_{label}" for label in range(int(train.labels.max()) + 1)]
    return TrainingData(train, source(builder, "validation"), classes)


def retrieval(data: ml_collections.ConfigDict) -> RetrievalData:
    """Prepares the data set if need be and opens `index` and `query`.

    Args:
      data: the `config.data` tree.

    Returns:
      RetrievalData, of landmarks that training has never seen.

    Raises:
      UserError: for an unknown size.
    """
    builder = _prepare(data)
    queries = ground_truth(builder)["gnd"]
    return RetrievalData(source(builder, "index"), source(builder, "query"), queries)


def _prepare(data: ml_collections.ConfigDict) -> EmbeddedLandmarks:
    return prepare(data.embedded.size, data.embedded.seed, data.tfds_dir)
