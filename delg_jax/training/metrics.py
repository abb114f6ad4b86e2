"""Metrics of a run: a JSON line and a log line per record, TensorBoard, Weights & Biases."""

import itertools
import logging
import pathlib
import secrets
import shlex
from collections.abc import Mapping
from typing import Any, Protocol

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
_WANDB_ID = "wandb_id.txt"  # of the run, which resuming continues


class Board(Protocol):
    """Where people look at metrics."""

    def write(self, step: int, record: Mapping[str, float]) -> None:
        """Writes scalars, those of validation in their own group."""

    def draw_attention(self, step: int, picture: np.ndarray) -> None:
        """Shows images above their attention, uint8 [2 H, B W, 3]."""

    def close(self) -> None:
        """Writes what is still buffered."""


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
        for name, value in _grouped(record).items():
            self._writer.add_scalar(name, value, step)

    def draw_attention(self, step: int, picture: np.ndarray) -> None:
        """Shows images above their attention, uint8 [2 H, B W, 3]."""
        self._writer.add_image("validation/attention", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still buffered."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; it goes where the environment variables of its program say.

    A resumed run continues the same one. Steps that run again are already there, and are not
    written a second time.

    Args:
      folder: of the files of its program, and of the name of the run.
      project: that the run belongs to.
    """

    def __init__(self, folder: pathlib.Path, project: str) -> None:
        import wandb

        path = folder / _WANDB_ID
        if not path.is_file():
            write_text(path, secrets.token_hex(8))
        name = path.read_text(encoding="utf-8").strip()
        self._image = wandb.Image
        self._run = wandb.init(
            project=project, dir=str(folder), id=name, resume="allow", reinit="create_new"
        )
        place = None if self._run.offline else self._run.url
        if place is None:
            place = f"wandb sync {shlex.quote(str(pathlib.Path(self._run.dir).parent))}"
        _LOG.info("Weights & Biases: %s", place)

    def write(self, step: int, record: Mapping[str, float]) -> None:
        """Writes scalars, those of validation in their own group."""
        self._run.log(_grouped(record), step=step)

    def draw_attention(self, step: int, picture: np.ndarray) -> None:
        """Shows images above their attention, uint8 [2 H, B W, 3]."""
        self._run.log({"validation/attention": self._image(picture)}, step=step)

    def close(self) -> None:
        """Waits until all is written or sent."""
        self._run.finish()


def _grouped(record: Mapping[str, float]) -> dict[str, float]:
    """Names with their group, `train/` or `validation/`."""
    return {
        ("validation/" if name.startswith(_VALIDATION) else "train/")
        + name.removeprefix(_VALIDATION): value
        for name, value in record.items()
    }


def _open_boards(
    folder: pathlib.Path, from_step: int, tensorboard: bool, wandb: str
) -> list[Board]:
    """Opens what is asked for, and logs how to look at it.

    TensorBoard is left out, with a log line, if its extra is not installed.
    """
    boards: list[Board] = []
    if tensorboard:
        place = folder / "tensorboard"
        try:
            boards.append(TensorBoard(place, from_step))
            _LOG.info("TensorBoard: tensorboard --logdir=%s", shlex.quote(str(place)))
        except ImportError:
            _LOG.info("no TensorBoard files: pip install 'delg_jax[tensorboard]' for them")
    if wandb:
        boards.append(WeightsAndBiases(folder, wandb))
    return boards


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
      wandb: project of Weights & Biases to write the same to; "" for none.
    """

    def __init__(
        self, folder: pathlib.Path, from_step: int, tensorboard: bool = False, wandb: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / _FILE
        self._boards: list[Board] = []
        if distributed.is_first():
            kept = [record for record in read_records(folder) if record["step"] <= from_step]
            write_text(self._path, "".join(map(json_files.line, kept)))
            self._boards = _open_boards(folder, from_step, tensorboard, wandb)

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
        for board in self._boards:
            board.write(step, record)
        logged = sorted(name for name in record if name.endswith(_LOGGED))
        text = ", ".join(f"{name} {record[name]:.4g}" for name in logged)
        _LOG.info("step %d: %s", step, text)
        return record

    def draw_attention(self, step: int, images: np.ndarray, scores: jax.Array | None) -> None:
        """Draws images and their attention, if there is a local head and a board.

        Args:
          step: number of the step.
          images: uint8 [B, H, W, 3].
          scores: float32 [devices, B / devices, h, w].
        """
        if self._boards and scores is not None:
            values = np.asarray(jax.device_get(scores))
            values = values.reshape(-1, *values.shape[2:])
            picture = attention_picture(images[:_MAX_DRAWN], values[:_MAX_DRAWN])
            for board in self._boards:
                board.draw_attention(step, picture)

    def close(self) -> None:
        """Closes the boards; records are complete at any time."""
        for board in self._boards:
            board.close()


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
