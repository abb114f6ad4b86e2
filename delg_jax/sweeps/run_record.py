"""The record of a run in its folder, `run.json`: what was done, with what, and what came of it."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import ml_collections

from delg_jax import configuration, json_files, migrations
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.search.engine_choice import unused_fields

FILE = "run.json"
LOG = "run.log"  # what a run says that is a process of its own
BEGUN, FINISHED, FAILED = "begun", "finished", "failed"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Record:
    """State of a run.

    Attributes:
      status: `begun`, `finished` or `failed`. A run that was killed stays `begun`.
      config: its whole configuration, flattened.
      verbs: what is done, in this order.
      metrics: what each verb returned, by verb, of those that are done.
      error: why it failed; else empty.
    """

    status: str
    config: Mapping[str, Any]
    verbs: tuple[str, ...]
    metrics: Mapping[str, Any]
    error: str = ""

    @classmethod
    def begin(cls, config: ml_collections.ConfigDict, verbs: tuple[str, ...]) -> Self:
        """The record of a run of which nothing is done yet."""
        return cls(BEGUN, configuration.flatten(config), tuple(verbs), {})

    @property
    def digest(self) -> str:
        """Names what is to be done: configuration and verbs."""
        return _digest([self.config, self.verbs])

    @property
    def checksum(self) -> str:
        """Tells a damaged record of an earlier version: of all that it says."""
        return _digest(dataclasses.astuple(self))

    def changes(self, wanted: "Record") -> list[str]:
        """How another configuration differs, a line for each field that decides anything."""
        before = migrations.completed(self.config, wanted.config)
        return configuration.difference(_used(before), _used(wanted.config))

    def is_of(self, wanted: "Record") -> bool:
        """Whether it records the same work: no field that decides anything and no verb differs."""
        return self.verbs == wanted.verbs and not self.changes(wanted)

    def write(self, folder: pathlib.Path) -> None:
        """Writes `run.json`, whole or not at all."""
        content = {"format": _FORMAT, "digest": self.digest, **dataclasses.asdict(self)}
        artefacts.write_json(folder / FILE, content)


def read(folder: pathlib.Path) -> Record | None:
    """The record in a folder; None if there is none that can be read, so that the run is done."""
    try:
        content = json_files.read(folder / FILE, "run", json_files.anything)
        fields = {field.name: content[field.name] for field in dataclasses.fields(Record)}
        if content["format"] != _FORMAT:
            return None
        record = Record(**{**fields, "verbs": tuple(fields["verbs"])})
        # `json_files` leaves the checksum of an earlier version; there were records without one
        sums = content["digest"], content.get("checksum", record.checksum)
        return record if sums == (record.digest, record.checksum) else None
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None


def require_unchanged(folder: pathlib.Path, wanted: Record) -> None:
    """Raises a UserError if the folder holds a finished run of another configuration."""
    found = read(folder)
    if found is None or found.status != FINISHED:
        return
    if changes := found.changes(wanted):
        rule = "was made by another configuration; --overwrite replaces it, or take another "
        rule += f"--workdir. It differs in {'; '.join(changes)}"
        raise UserError("workdir", str(folder), rule)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _used(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flattened configuration without the fields of engines of local search that are not used."""
    unused = configuration.within(config, unused_fields(config.get("search.engine")))
    return {path: value for path, value in config.items() if path not in unused}
