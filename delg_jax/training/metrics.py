"""Metrics of a run: a JSON line and a log line per record, and TensorBoard files."""

import itertools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from delg_jax import distributed, json_files
from delg_jax.workdir import write_text

_LOG = logging.getLogger(__name__)

_FILE = "metrics.jsonl"
_VALIDATION = "validation_"
# Names, or their endings
_LOGGED = ("loss", "accuracy", "learning_rate", "scale", "images_per_second", "wait_share")
_FLUSH_SECONDS = 10
_MAX_DRAWN = 4  # images in a row


class TensorBoard:
    """The event file of a run; raises ImportError if the extra is not installed.

    Args:
      folder: of the event files.
      from_step: where the run resumes; events of later steps are dropped.
    """

    def __init__(self, folder: pathlib.Path, from_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(folder), purge_step=from_step + 1, flush_secs=_FLUSH_SECONDS
        )

    def write(self, step: int, record: Mapping[str, float]) -> None:
        """Writes scalars, those of validation in their own group."""
        for name, value in record.items():
            group = "validation" if name.startswith(_VALIDATION) else "train"
            self._writer.add_scalar(f"{group}/{name.removeprefix(_VALIDATION)}", value, step)

    def draw_attention(self, step: int, images: np.ndarray, scores: np.ndarray) -> None:
        """Draws images uint8 [B, H, W, 3] above their attention float32 [B, h, w]."""
        picture = attention_picture(images[:_MAX_DRAWN], scores[:_MAX_DRAWN])
        self._writer.add_image("validation/attention", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still buffered."""
        self._writer.close()


def _open_tensorboard(folder: pathlib.Path, from_step: int) -> TensorBoard | None:
    """Opens the event file of a run; None, and a log line, if the extra is not installed."""
    try:
        return TensorBoard(folder, from_step)
    except ImportError:
        _LOG.info("no TensorBoard files: pip install 'delg_jax[tensorboard]' for them")
        return None


def attention_picture(images: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Draws images in a row above their attention in grey, white for the highest score.

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
        np.asarray(Image.fromarray(map_).resize((width, height), Image.Resampling.NEAREST))
        for map_ in grey
    ]
    below = np.repeat(np.concatenate(maps, axis=1)[..., None], 3, axis=-1)
    return np.concatenate([np.concatenate(images, axis=1), below])


class MetricsWriter:
    """Appends records to `metrics.jsonl`; drops those of steps that will run again.

    With several processes, only the first writes.

    Args:
      folder: of the file; created if absent.
      from_step: where the run resumes; records of later steps are dropped.
      tensorboard: whether to write the same to `tensorboard/` in the folder, if its extra is
        installed.
    """

    def __init__(self, folder: pathlib.Path, from_step: int, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / _FILE
        self._board = None
        if distributed.is_first():
            kept = [record for record in read_records(folder) if record["step"] <= from_step]
            write_text(self._path, "".join(map(json_files.line, kept)))
            self._board = (
                _open_tensorboard(folder / "tensorboard", from_step) if tensorboard else None
            )

    def read(self, step: int) -> dict[str, float]:
        """All that was written for one step, as one record."""
        values = [record for record in read_records(self._folder) if record.pop("step") == step]
        return dict(itertools.chain.from_iterable(record.items() for record in values))

    def write(self, step: int, values: dict[str, Any]) -> dict[str, float]:
        """Writes one record and returns it as plain numbers."""
        record = {name: float(value) for name, value in jax.device_get(values).items()}
        if distributed.is_first():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json_files.line({"step": step, **record}))
        if self._board:
            self._board.write(step, record)
        logged = sorted(name for name in record if name.endswith(_LOGGED))
        text = ", ".join(f"{name} {record[name]:.4g}" for name in logged)
        _LOG.info("step %d: %s", step, text)
        return record

    def draw_attention(self, step: int, images: np.ndarray, scores: jax.Array | None) -> None:
        """Draws images and their attention, if there is a local head and TensorBoard.

        Args:
          step: number of the step.
          images: uint8 [B, H, W, 3].
          scores: float32 [devices, B / devices, h, w].
        """
        if self._board and scores is not None:
            values = np.asarray(jax.device_get(scores))
            self._board.draw_attention(step, images, values.reshape(-1, *values.shape[2:]))

    def close(self) -> None:
        """Closes the TensorBoard file; records are complete at any time."""
        if self._board:
            self._board.close()


def read_records(folder: pathlib.Path) -> list[dict[str, float]]:
    """Reads the records of a run.

    Args:
      folder: of `metrics.jsonl`.

    Returns:
      One record per line, with its `step`; empty if nothing was written.

    Raises:
      UserError: if a line is damaged.
    """
    return json_files.read_lines(folder / _FILE, "metrics", _record)


def _record(value: Any, where: str) -> None:
    json_files.each(json_files.number)(value, where)
    json_files.require("step" in value, where, "must have a step")
