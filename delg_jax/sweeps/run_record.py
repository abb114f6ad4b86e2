"""The record of a run in its folder, `run.json`: what was run, on which inputs, and the results."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, Self

import ml_collections

from delg_jax import configuration, json_files, migrations
from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.file_stamps import digest_of_path
from delg_jax.search.engine_choice import unused_fields
from delg_jax.training.checkpoints import FOLDER

FILE = "run.json"
LOG = "run.log"  # output of a run that is its own process
BEGUN, FINISHED, FAILED = "begun", "finished", "failed"
_FORMAT = 1

_WEIGHTS = ("model.pretrained", "model.pretrained_mapping", "model.checkpoint")
# Not `data.tfds_dir`, which a run may fill: what is prepared there is bound to `data.root`
_DATA = (
    *("data.root", "data.distractors", "data.exclude"),
    *("extract.imported_local", "extract.imported_global"),
)
# Fields that change speed, memory and logs alone
_INERT = (
    *("data.workers", "data.memory_megabytes", "data.beam_options"),
    *("train.cache_gigabytes", "train.interrupted_status", "train.resume_with"),
    *("train.tensorboard", "train.wandb", "train.chance_after"),
    *("extract.batch_pixels", "rerank.sp.pair_block", "rerank.mds.query_block"),
    *("search.global_block", "search.local_block", "search.query_block"),
)


@dataclasses.dataclass(frozen=True)
class Record:
    """State of a run.

    Attributes:
      status: `begun`, `finished` or `failed`. A run that was killed stays `begun`.
      config: its whole configuration, flattened.
      verbs: the verbs to run, in this order.
      metrics: what each finished verb returned, by verb.
      error: why it failed; otherwise empty.
      sources: digests of the files and folders it was made from, by configuration field; empty in
        records of earlier versions.
    """

    status: str
    config: Mapping[str, Any]
    verbs: tuple[str, ...]
    metrics: Mapping[str, Any]
    error: str = ""
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def begin(cls, config: ml_collections.ConfigDict, verbs: tuple[str, ...]) -> Self:
        """The record of a run before its first verb, without sources."""
        return cls(BEGUN, configuration.flatten(config), tuple(verbs), {})

    @property
    def digest(self) -> str:
        """Identifies configuration and verbs."""
        return _digest([self.config, self.verbs])

    @property
    def checksum(self) -> str:
        """Of the whole record, as earlier versions wrote it."""
        return _digest([self.status, self.config, self.verbs, self.metrics, self.error])

    def changes(self, wanted: "Record") -> list[str]:
        """How another configuration differs, a line for each field that affects the results."""
        before = migrations.completed(self.config, wanted.config)
        verbs = {*self.verbs, *wanted.verbs}
        return configuration.difference(_used(before, verbs), _used(wanted.config, verbs))

    def is_of(self, wanted: "Record") -> bool:
        """Whether the verbs, and all fields that affect the results, are the same."""
        return self.verbs == wanted.verbs and not self.changes(wanted)

    def changed_sources(self) -> list[str]:
        """Fields whose file or folder has changed since the run; those that are gone are not."""
        now = source_digests(self.config, tuple(self.sources))
        return [f"config.{field}" for field in now if now[field] != self.sources[field]]

    def changed_weights(self) -> list[str]:
        """As `changed_sources`, of weights, from which training would not start again."""
        weights = {f"config.{field}" for field in _WEIGHTS}
        return [field for field in self.changed_sources() if field in weights]

    def write(self, folder: pathlib.Path) -> None:
        """Writes `run.json`, whole or not at all."""
        content = {"format": _FORMAT, "digest": self.digest, **dataclasses.asdict(self)}
        outputs.write_json(folder / FILE, content)


def read(folder: pathlib.Path) -> Record | None:
    """The record in a folder; None if there is none or it is damaged: the run is then repeated."""
    try:
        content = json_files.read(folder / FILE, "run", json_files.anything)
        content = {"sources": {}, **content}
        fields = {field.name: content[field.name] for field in dataclasses.fields(Record)}
        if content["format"] != _FORMAT:
            return None
        record = Record(**{**fields, "verbs": tuple(fields["verbs"])})
        # `json_files` keeps the checksum of an earlier version; the earliest records have none
        sums = content["digest"], content.get("checksum", record.checksum)
        return record if sums == (record.digest, record.checksum) else None
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None


def require_unchanged(folder: pathlib.Path, wanted: Record) -> None:
    """Refuses a folder with a run that must not be mixed with a new one.

    Raises:
      UserError: if the folder holds a finished run of another configuration, or a run that began
        from other weights.
    """
    found = read(folder)
    if found is None:
        return
    remedy = "--overwrite replaces it, or use another --workdir"
    changes = found.changes(wanted)
    if changes and found.status == FINISHED:
        rule = f"was made by another configuration; {remedy}. It differs in {'; '.join(changes)}"
        raise UserError("workdir", str(folder), rule)
    if not changes and (weights := found.changed_weights()):
        rule = f"was made from other weights; {remedy}. Changed: {', '.join(weights)}"
        raise UserError("workdir", str(folder), rule)


def source_digests(
    config: Mapping[str, Any], fields: tuple[str, ...] = (*_WEIGHTS, *_DATA)
) -> dict[str, str]:
    """Digests of the files and folders that a run is made from, as they are now.

    Weights and single files are identified by content, folders of data by the names, sizes and
    times of their files.

    Args:
      config: flattened.
      fields: those that hold paths.

    Returns:
      Digest by field, of the paths that exist.
    """
    paths = {field: pathlib.Path(config[field]) for field in fields if config.get(field)}
    if "model.checkpoint" in paths and (paths["model.checkpoint"] / FOLDER).is_dir():
        paths["model.checkpoint"] /= FOLDER  # a workdir also gets other outputs
    return {
        field: digest_of_path(path, by_content=field in _WEIGHTS or path.is_file())
        for field, path in paths.items()
        if path.exists()
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _used(config: Mapping[str, Any], verbs: Collection[str]) -> dict[str, Any]:
    """A flattened configuration without fields that no result of these verbs depends on."""
    sections = tuple(unused_fields(config.get("search.engine")))
    if "train" not in verbs:
        sections += ("train",)
    if set(verbs) == {"train"}:
        sections += ("extract", "search", "rerank", "eval")
    unused = {*configuration.within(dict(config), sections), *_INERT}
    return {path: value for path, value in config.items() if path not in unused}
