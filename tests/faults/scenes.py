"""What the verbs do on the tiniest settings, and what they find before and leave behind."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections

from configs import quickstart
from delg_jax import configuration
from tests import photographs
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
      words: the command line but the configuration; `{workdir}` and `{root}` are filled in.
      earlier: scene whose outcome the verb finds; empty if it starts in an empty workdir.
      before: parts of that workdir that it finds.
      after: those that it leaves.
      spoil: damages what it finds.
      seconds: of processor time that it takes undisturbed.
      expected: fingerprint of what is there in the end.
      root: folder of all scenes; each has a folder there, by its name.
      whole: the workdir of an undisturbed run in that folder.
    """

    words: tuple[str, ...]
    earlier: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    spoil: Callable[[Path], None] | None = None
    seconds: float = 0.0
    expected: dict[str, str] | None = None
    root: Path | None = None
    whole: Path | None = None

    def argv(self, workdir: Path, *more: str) -> list[str]:
        """The command line."""
        verb, *words = (word.format(workdir=workdir, root=self.root) for word in self.words)
        flags = [] if verb in _WITHOUT_CONFIG else [*command_line(config()), f"--workdir={workdir}"]
        return [verb, *flags, *words, *more]

    def prepare(self, workdir: Path) -> None:
        """Leaves in `workdir` what the verb finds."""
        workdir.mkdir(parents=True, exist_ok=True)
        for part in self.before:
            for path in (self.root / self.earlier / _RUN).glob(part):
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, workdir / path.name)
        if self.spoil:
            self.spoil(workdir)


def _spoil(workdir: Path) -> None:
    """Flips a bit of a chunk of descriptors, and one of a chunk of states."""
    for array in ("descriptors", "state"):
        path = min((workdir / "features" / "images" / array).glob("c.1*"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


_RUN = "run"  # name of every workdir: the report shows it
_WITHOUT_CONFIG = ("verify", "report")
_SWEEP = ("sweep", "--sweep=rerank.sp.inlier_threshold=10.0,30.0")
_FEATURES, _RESULTS = ("features",), ("index", "evaluation", "metrics.json", "rankings.npz")

# Extraction and what follows use the network as it is drawn: only `sweep` goes from end to end
SCENES = {
    "train": Scene(
        ("train", "--config.data.workers=1"), "", (), ("checkpoints", "logs", "train_metrics.json")
    ),
    "extract": Scene(("extract",), "", (), _FEATURES),
    "index": Scene(("index",), "extract", _FEATURES, ("index",)),
    "evaluate": Scene(("evaluate",), "extract", _FEATURES, _RESULTS),
    "sweep": Scene(_SWEEP, "", (), ("*",)),
    "sweep_jobs": Scene((*_SWEEP, "--jobs=2"), "", (), ("*",)),
    "add": Scene(("extract", "--images={root}/some.txt"), "", (), _FEATURES),
    "append": Scene(("extract", "--images={root}/all.txt"), "add", _FEATURES, _FEATURES),
    "delete": Scene(
        ("extract", "--images={root}/other.txt", "--delete_missing"), "append", _FEATURES, _FEATURES
    ),
    "repair": Scene(
        ("verify", "{workdir}/features/images", "--repair"), "append", _FEATURES, _FEATURES, _spoil
    ),
    "extract_repaired": Scene(
        ("extract", "--images={root}/all.txt"), "repair", _FEATURES, _FEATURES
    ),
    "report": Scene(
        ("report", "{workdir}", "--output={workdir}/report.html"),
        "evaluate",
        (*_FEATURES, *_RESULTS),
        ("report.html",),
    ),
    # A run that is disturbed after its last write has an output, which only --overwrite replaces
    "export_hloc": Scene(
        ("export", "--format=hloc", "--overwrite"), "extract", _FEATURES, ("features.h5",)
    ),
    "export_delf": Scene(
        ("export", "--format=delf", "--overwrite"), "extract", _FEATURES, ("delf",)
    ),
    "export_model": Scene(
        ("export", "--format=stablehlo", "--canvas=64x64", "--platforms=cpu", "--overwrite"),
        "",
        (),
        ("model.*",),
    ),
}


def config() -> ml_collections.ConfigDict:
    """The configuration of all verbs."""
    return configuration.override(quickstart.get_config("smoke"), _OVERRIDES)


def undisturbed(root: Path, verbs: Sequence[str]) -> dict[str, Scene]:
    """Runs verbs as nothing disturbs them, after those before them, and notes what they leave.

    Args:
      root: gets a workdir for each, and the photographs.
      verbs: of `SCENES`.
    """
    draw_photographs(root)
    found: dict[str, Scene] = {}
    for verb in dict.fromkeys(name for last in verbs for name in _with_earlier(last)):
        scene = SCENES[verb]._replace(root=root, whole=root / verb / _RUN)
        # The second run, which is measured, finds what the first has compiled
        for _ in range(2 if verb in verbs else 1):
            shutil.rmtree(scene.whole, ignore_errors=True)
            scene.prepare(scene.whole)
            ended = run(scene.argv(scene.whole))
            if ended.status:
                raise RuntimeError(f"{verb} ended with status {ended.status}: {ended.output}")
        parts = (*scene.before, *scene.after)
        expected = call(results.fingerprint, scene.whole, parts)
        found[verb] = scene._replace(seconds=ended.seconds, expected=expected)
    return {verb: found[verb] for verb in verbs}


def _with_earlier(verb: str) -> list[str]:
    """The scenes that a scene needs, and itself."""
    return [*_with_earlier(SCENES[verb].earlier), verb] if verb else []


def draw_photographs(root: Path) -> None:
    """Draws photographs, and writes the lists of some, of all, and of all but a few."""
    paths = [root / "photographs" / f"{number}.jpg" for number in range(14)]
    for number, path in enumerate(paths):
        photographs.save(path, photographs.draw(number))
    for name, chosen in (("some", paths[:9]), ("all", paths), ("other", paths[3:])):
        (root / f"{name}.txt").write_text("".join(f"{path}\n" for path in chosen))
