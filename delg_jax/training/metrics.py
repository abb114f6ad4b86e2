"""Metrics of a run: one JSON line a record, a line to the terminal, and TensorBoard's files."""

import itertools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from delg_jax import distributed, json_files
from delg_jax import workdir as artefacts

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


_FILE = "metrics.jsonl"

# Names, or how they end, of what the line to the terminal tells; the files have everything.
_SHOWN = ("loss", "accuracy", "learning_rate", "scale", "images_per_second")


class MetricsWriter:
    """Appends records to `metrics.jsonl`, dropping those of steps that will be run again.

    Of several processes, only the first writes.

    Args:
      folder: of the file; created if absent.
      from_step: records of later steps are dropped, as the run resumes there.
      tensorboard: whether `tensorboard/` in the folder gets the same, if its extra is installed.
    """

    def __init__(self, folder: pathlib.Path, from_step: int, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / _FILE
        self._board = None
        if distributed.is_first():
            kept = [record for record in read_records(folder) if record["step"] <= from_step]
            artefacts.write_text(self._path, "".join(map(json_files.line, kept)))
            self._board = open_board(folder / "tensorboard", from_step) if tensorboard else None

    def read(self, step: int) -> dict[str, float]:
        """Everything that was written of one step, as one record."""
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
        shown = sorted(name for name in record if name.endswith(_SHOWN))
        text = ", ".join(f"{name} {record[name]:.4g}" for name in shown)
        _LOG.info("step %d: %s", step, text)
        return record

    def draw(self, step: int, images: np.ndarray, scores: jax.Array | None) -> None:
        """Draws images and their attention, where there is a local head and TensorBoard.

        Args:
          step: number of the step.
          images: uint8 [B, H, W, 3].
          scores: float32 [devices, B / devices, h, w].
        """
        if self._board and scores is not None:
            scores = jax.device_get(scores)
            self._board.draw(step, images, scores.reshape(-1, *scores.shape[2:]))

    def close(self) -> None:
        """Ends TensorBoard's file; the records are whole at any time."""
        if self._board:
            self._board.close()


def read_records(folder: pathlib.Path) -> list[dict[str, float]]:
    """The records of a run.

    Args:
      folder: of `metrics.jsonl`.

    Returns:
      A record for each line, with its `step`; none if nothing was written.

    Raises:
      UserError: if a line is damaged.
    """
    return json_files.read_lines(folder / _FILE, "metrics", _record)


def _record(value: Any, where: str) -> None:
    json_files.each(json_files.number)(value, where)
    json_files.require("step" in value, where, "must have a step")
