"""Metrics of a run: one JSON line a record, and a line to the terminal."""

import itertools
import json
import logging
import pathlib
from typing import Any

import jax

_LOG = logging.getLogger(__name__)


class MetricsWriter:
    """Appends records to `metrics.jsonl`, dropping those of steps that will be run again.

    Args:
      folder: of the file; created if absent.
      from_step: records of later steps are dropped, as the run resumes there.
    """

    def __init__(self, folder: pathlib.Path, from_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= from_step]
        self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _lines(self) -> list[str]:
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.endswith("}")]  # a kill may leave half a line

    def read(self, step: int) -> dict[str, float]:
        """Everything that was written of one step, as one record."""
        records = [json.loads(line) for line in self._lines()]
        values = [record for record in records if record.pop("step") == step]
        return dict(itertools.chain.from_iterable(record.items() for record in values))

    def write(self, step: int, values: dict[str, Any]) -> dict[str, float]:
        """Writes one record and returns it as plain numbers."""
        record = {name: float(value) for name, value in jax.device_get(values).items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **record}) + "\n")
        text = ", ".join(f"{name} {value:.4g}" for name, value in sorted(record.items()))
        _LOG.info("step %d: %s", step, text)
        return record
