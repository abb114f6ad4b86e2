"""What the verbs do on the tiniest settings, and what they find before and leave behind."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections

from configs import quickstart
from delg_jax import configuration
from tests.faults import results
from tests.faults.programs import call, run
from tests.tiny import command_line

_OVERRIDES = {
    "model.global_dim": 8,
    "model.local_dim": 8,
    "model.attention_dim": 8,
    "train.steps": 12,
    "train.eval_every": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "train.keep_checkpoints": 2,
    "train.tensorboard": False,
    "extract.local_scales": (1.0,),
    "extract.global_scales": (1.0,),
    "extract.max_features": 10,
    "extract.chunk_images": 4,
    "search.graph_neighbours": 5,
    "search.graph_block": 4,
    "rerank.sp.hypotheses": 20,
    "rerank.sp.short_list": 3,
    "rerank.sp.min_inliers": 4,
    "rerank.mds.short_list": 5,
    "rerank.mds.dim": 4,
}


class Scene(NamedTuple):
    """A verb and its surroundings.

    Attributes:
      words: the verb, and flags of its own.
      before: parts of a workdir that it finds.
      after: those that it leaves.
      seconds: of processor time that it takes undisturbed.
      expected: fingerprint of what is there in the end.
      whole: the workdir of an undisturbed run.
    """

    words: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    seconds: float = 0.0
    expected: dict[str, str] | None = None
    whole: Path | None = None

    def argv(self, workdir: Path, *more: str) -> list[str]:
        """The command line."""
        verb, *flags = self.words
        return [verb, *command_line(config()), *flags, f"--workdir={workdir}", *more]

    def prepare(self, workdir: Path) -> None:
        """Leaves in `workdir` what the verb finds."""
        workdir.mkdir(parents=True, exist_ok=True)
        for part in self.before:
            shutil.copytree(self.whole / part, workdir / part)


# Extraction and what follows use the network as it is drawn: only `sweep` goes from end to end
SCENES = {
    "train": Scene(
        ("train", "--config.data.workers=1"), (), ("checkpoints", "logs", "train_metrics.json")
    ),
    "extract": Scene(("extract",), (), ("features",)),
    "index": Scene(("index",), ("features",), ("index",)),
    "evaluate": Scene(
        ("evaluate",), ("features",), ("index", "evaluation", "metrics.json", "rankings.npz")
    ),
    "sweep": Scene(("sweep", "--sweep=rerank.sp.inlier_threshold=10.0,30.0"), (), ("*",)),
}


def config() -> ml_collections.ConfigDict:
    """The configuration of all verbs."""
    return configuration.override(quickstart.get_config("smoke"), _OVERRIDES)


def undisturbed(root: Path, verbs: Sequence[str]) -> dict[str, Scene]:
    """Runs verbs as nothing disturbs them, with those before them, and notes what they leave.

    Args:
      root: gets a workdir for each.
      verbs: of `SCENES`.
    """
    found, chain = {}, ["extract", "index", "evaluate"]
    last = max((chain.index(verb) for verb in verbs if verb in chain), default=-1)
    alone = [verb for verb in verbs if verb not in chain]
    for verb in [*alone, *chain[: last + 1]]:
        scene = SCENES[verb]
        workdir = root / (verb if verb in alone else "whole")
        parts = (*scene.before, *scene.after)
        # The second run, which is measured, finds what the first has compiled
        for number in range(2 if verb in verbs else 1):
            for part in scene.after if number else ():
                results.remove(workdir, part)
            ended = run(scene.argv(workdir))
            if ended.status:
                raise RuntimeError(f"{verb} ended with status {ended.status}: {ended.output}")
        found[verb] = scene._replace(
            seconds=ended.seconds,
            expected=call(results.fingerprint, workdir, parts),
            whole=workdir,
        )
    return {verb: found[verb] for verb in verbs}
