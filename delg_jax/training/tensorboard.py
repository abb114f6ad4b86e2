"""Metrics and pictures for TensorBoard, if its writer is installed; TensorFlow is not needed."""

import logging
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

_LOG = logging.getLogger(__name__)

_FLUSH_SECONDS = 10
_PICTURES = 4  # images beside each other
_VALIDATION = "validation_"


class TensorBoard:
    """One run's event file; importing the writer fails where the extra is not installed.

    Args:
      folder: of the event files.
      from_step: events of later steps are dropped, as the run resumes there.
    """

    def __init__(self, folder: pathlib.Path, from_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(folder), purge_step=from_step + 1, flush_secs=_FLUSH_SECONDS
        )

    def write(self, step: int, record: Mapping[str, float]) -> None:
        """Writes scalars; those of validation stand in a group of their own."""
        for name, value in record.items():
            group = "validation" if name.startswith(_VALIDATION) else "train"
            self._writer.add_scalar(f"{group}/{name.removeprefix(_VALIDATION)}", value, step)

    def draw(self, step: int, images: np.ndarray, scores: np.ndarray) -> None:
        """Draws images uint8 [B, H, W, 3], and below them their attention float32 [B, h, w]."""
        picture = attention_picture(images[:_PICTURES], scores[:_PICTURES])
        self._writer.add_image("validation/attention", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still in memory."""
        self._writer.close()


def open_board(folder: pathlib.Path, from_step: int) -> TensorBoard | None:
    """The event file of a run, or None and a line in the log where the extra is missing."""
    try:
        return TensorBoard(folder, from_step)
    except ImportError:
        _LOG.info("no TensorBoard files: pip install 'delg_jax[tensorboard]' for them")
        return None


def attention_picture(images: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Images in a row, and their attention in grey below them, white for its highest score.

    Args:
      images: uint8 [B, H, W, 3].
      scores: float32 [B, h, w], not negative.

    Returns:
      uint8 [2 H, B W, 3].
    """
    height, width = images.shape[1:3]
    highest = np.maximum(scores.max(axis=(1, 2), keepdims=True), 1e-12)
    grey = np.nan_to_num(255 * scores / highest).astype(np.uint8)
    maps = [
        Image.fromarray(map_).resize((width, height), Image.Resampling.NEAREST) for map_ in grey
    ]
    below = np.repeat(np.concatenate(maps, axis=1)[..., None], 3, axis=-1)
    return np.concatenate([np.concatenate(images, axis=1), below])
