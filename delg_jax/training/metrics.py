"""Metrics of a run: one JSON line a record, a line to the terminal, and TensorBoard's files."""

import itertools
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from delg_jax import json_files
from delg_jax import workdir as artefacts
from delg_jax.training import processes
from delg_jax.training.tensorboard import open_board

_LOG = logging.getLogger(__name__)

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
        if processes.is_first():
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
        if processes.is_first():
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
