"""Orbax checkpoints of a training run: saved in the background, verified when restored."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint import checkpoint_managers

from delg_jax import configuration, json_files, system_errors
from delg_jax.errors import UserError
from delg_jax.models.variables import digest
from delg_jax.training.optimizer import TrainState

FOLDER = "checkpoints"
ATTENTION_QUANTILES = ("attention_p50", "attention_p75")
_DIGEST = "digest"  # of the variables; Orbax keeps no checksum of its arrays
_OPTIMIZER_DIGEST = "optimizer_digest"
_SUBJECT = "config.model.checkpoint"
_LONGEST_REASON = 200  # characters; Orbax quotes whole trees


class Restored(NamedTuple):
    """A restored checkpoint.

    Attributes:
      state: in NumPy arrays, so that any number of devices can take it.
      validated: False if the run stopped within the validation at this step.
    """

    state: TrainState
    validated: bool


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder of checkpoints holds one."""
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


class Checkpoints:
    """The checkpoints of one run, saved in the background; use it in a `with` block.

    Each checkpoint holds the variables, the optimiser state and, as `meta`, the configuration.
    The position of the input and all random draws derive from `config.seed` and the step number.

    Args:
      folder: of the run's checkpoints.
      model: the `config.model` tree with its number of classes, stored in every checkpoint.
      keep: how many of the latest checkpoints to keep.
      best_metric: the checkpoint with the best value of this metric is also kept. Higher is better,
        unless the name ends in `loss`; empty to keep none.
      config: the whole tree, stored in every checkpoint if given.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: ml_collections.ConfigDict,
        keep: int,
        best_metric: str = "",
        config: ml_collections.ConfigDict | None = None,
    ) -> None:
        policies: list[Any] = [checkpoint_managers.LatestN(keep)]
        best: dict[str, Any] = {}
        self._lower_is_better = lower = best_metric.endswith("loss")
        if best_metric:
            best = {"best_fn": lambda metrics: metrics[best_metric]}
            best["best_mode"] = "min" if lower else "max"
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=best["best_fn"],
                    n=1,
                    reverse=lower,
                    keep_checkpoints_without_metrics=False,
                )
            )
        policy = checkpoint_managers.AnyPreservationPolicy(policies)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=True, **best)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self._best_metric = best_metric
        self._not_validated: int | None = None  # step that was restored so
        # Not read again: the latest checkpoint may still be written
        self._values = {
            step: stored[best_metric]
            for step in (self._manager.all_steps() if best_metric else ())
            if best_metric in (stored := self._manager.metrics(step) or {})
        }
        self._meta = {"model": configuration.flatten(model)}
        if config is not None:
            self._meta["config"] = configuration.flatten(config)

    def __enter__(self) -> "Checkpoints":
        """Returns itself; the folder is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last save and closes the folder."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether the best metric is better than in every checkpoint so far."""
        value = metrics.get(self._best_metric)
        if value is None:
            return False
        if self._lower_is_better:
            return all(value < other for other in self._values.values())
        return all(value > other for other in self._values.values())

    def save(
        self,
        state: TrainState,
        metrics: Mapping[str, float] | None = None,
        validated: bool = True,
    ) -> None:
        """Saves a state; does nothing if this step is already saved.

        A restored checkpoint whose validation was repeated is replaced, unless it is the only one:
        a kill must not leave the run without any.

        Args:
          state: to save.
          metrics: of this step; only the best metric and the attention quantiles are stored.
          validated: False if the run stops within the validation at this step.
        """
        step, metrics, saved = int(state.step), metrics or {}, self._manager.all_steps()
        if step in saved:
            if step != self._not_validated or not validated or len(saved) == 1:
                return
            self._manager.delete(step)
        # Orbax would compile a slice of every replicated array for every device
        state = jax.device_get(state)
        attention = {name: metrics[name] for name in ATTENTION_QUANTILES if name in metrics}
        best = {name: metrics[name] for name in (self._best_metric,) if name in metrics}
        meta = {**self._meta, "attention": attention, "validated": validated}
        meta[_DIGEST] = digest(state.variables)
        optimizer = {"step": state.step, "state": state.opt_state}
        meta[_OPTIMIZER_DIGEST] = _digest_of_leaves(optimizer)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave(optimizer),
                meta=ocp.args.JsonSave(json_files.signed(meta)),
            ),
            metrics=best or None,
        )
        if best:
            self._values[step] = best[self._best_metric]

    def restore(self, like: TrainState) -> Restored:
        """Restores the latest checkpoint.

        Args:
          like: a state of the same structure, of arrays or their shapes.

        Returns:
          The state, and whether its step was validated.

        Raises:
          UserError: if the checkpoint is damaged, or has another optimiser or structure (as those
            of other versions may).
        """
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        optimizer = {"step": like.step, "state": like.opt_state}
        arguments = ocp.args.Composite(
            variables=ocp.args.StandardRestore(like.variables),
            optimizer=ocp.args.StandardRestore(optimizer),
            meta=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(self._manager.latest_step(), args=arguments)
        except Exception as error:  # on a damaged checkpoint, Orbax can raise anything
            system_errors.reraise(error)
            name = str(self._manager.directory)
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            rule = f"cannot resume ({reason}); delete the checkpoint, or start "
            rule += f"from its weights with --config.model.checkpoint={name} and a new --workdir"
            raise UserError("checkpoint", name, rule) from error
        variables, optimizer = restored["variables"], restored["optimizer"]
        folder = pathlib.Path(self._manager.directory)
        meta = intact_meta(restored["meta"], folder)
        require_intact(variables, meta, folder)
        if meta.get(_OPTIMIZER_DIGEST) not in (None, _digest_of_leaves(optimizer)):
            rule = "is damaged: the optimizer state is not that which was saved"
            raise UserError(_SUBJECT, str(folder), rule)
        state = TrainState(
            optimizer["step"], variables["params"], variables["batch_stats"], optimizer["state"]
        )
        validated = meta.get("validated", True)
        self._not_validated = None if validated else int(state.step)
        return Restored(state, validated)


def intact_meta(meta: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """The `meta` of a checkpoint as it was saved; a UserError if it is damaged.

    Args:
      meta: as restored; that of older versions has no checksum.
      folder: of the checkpoints.
    """
    return json_files.unsigned(meta, _SUBJECT, str(folder))


def _digest_of_leaves(tree: Any) -> str:
    """SHA-256 over shapes and values of the arrays of a tree, in order."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def require_intact(variables: Any, meta: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Raises a UserError if restored variables differ from those saved, or are not finite.

    Args:
      variables: as restored.
      meta: of their checkpoint; those of older versions have no digest.
      folder: of the checkpoints.
    """
    if meta.get(_DIGEST) not in (None, digest(variables)):
        rule = "is damaged: its numbers are not those that were saved"
        raise UserError(_SUBJECT, str(folder), rule)
    for name, tensor in traverse_util.flatten_dict(variables, sep="/").items():
        if not np.isfinite(np.asarray(tensor)).all():  # on a device, each shape would compile
            rule = f"must hold finite numbers; {name} does not"
            raise UserError(_SUBJECT, str(folder), rule)


@contextlib.contextmanager
def explain_read_errors(folder: pathlib.Path) -> Iterator[None]:
    """Turns whatever Orbax raises in the block into a UserError that names the folder.

    A shortage of memory or threads says nothing about the checkpoint, and is explained as one.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # on a damaged checkpoint, Orbax can raise anything
        system_errors.reraise(error)
        text = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        rule = f"does not hold this network, or is damaged: {text}"
        raise UserError(_SUBJECT, str(folder), rule) from error
