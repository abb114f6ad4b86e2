"""Pairs of verbs on one workdir at once.

Each must end well, or with one line and exit status 2, as one that finds the workdir held by
another job. After both, each alone must leave what it leaves where nothing disturbs it.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults import results, scenes
from tests.faults.programs import HANGS, Ended, Program, call, run

# Verbs that work in the same workdir, in the order in which each finds what it needs
VERBS = ("train", "extract", "index", "evaluate", "search", "verify", "export_hloc", "report")
_LATE = 0.3  # seconds of processor time of the first verb when the second starts
_PARTS = (
    "checkpoints",
    "features",
    "index",
    "evaluation",
    "metrics.json",
    "rankings.npz",
    "features.h5",
)
_KEPT = {"report": "evaluate", "verify": "extract", "search": "extract"}  # they fail without


class Pair(NamedTuple):
    """Two verbs that were run at once.

    Attributes:
      verbs: their names.
      endings: how each ended: `works` or the line that it said.
      problems: what is wrong.
    """

    verbs: tuple[str, str]
    endings: tuple[str, str]
    problems: list[str]


def words(verb: str, workdir: Path, root: Path) -> list[str]:
    """The command line of a verb."""
    flags = [*scenes.command_line(scenes.config()), f"--workdir={workdir}"]
    if verb == "search":
        return ["search", *flags, str(root / "photographs" / "0.jpg"), "--method=global,global+sp"]
    if verb == "verify":
        return ["verify", f"{workdir}/features/database"]
    return scenes.SCENES[verb]._replace(root=root).argv(workdir)


def make_whole(root: Path, verbs: Sequence[str]) -> None:
    """Runs verbs, and those that they need, one after the other in the workdir `whole`."""
    scenes.draw_photographs(root)
    needed = {*verbs, *(_KEPT[verb] for verb in verbs if verb in _KEPT)}
    for verb in sorted(needed, key=VERBS.index):
        ended = run(words(verb, root / "whole", root))
        if ended.status:
            raise RuntimeError(f"{verb} ended with status {ended.status}: {ended.output}")


def try_pairs(verbs: Sequence[str]) -> Iterator[Pair]:
    """Tries every pair of some of `VERBS`, each with itself, too."""
    with tempfile.TemporaryDirectory(prefix="delg_pairs_") as name:
        root = Path(name)
        make_whole(root, verbs)
        for pair in itertools.combinations_with_replacement(verbs, 2):
            yield try_pair(pair, root)


def try_pair(verbs: tuple[str, str], root: Path) -> Pair:
    """Runs two verbs at once where what they write is not there yet, and then each alone.

    Training is the exception: other verbs beside it use what it has left.

    Args:
      verbs: of `VERBS`.
      root: of `make_whole`.
    """
    workdir = root / "pair"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(root / "whole", workdir)
    needed = {_KEPT[verb] for verb in verbs if verb in _KEPT}
    needed |= {"train"} if verbs != ("train", "train") else set()
    for verb in {*verbs} - needed:
        for part in scenes.SCENES[verb].after if verb in scenes.SCENES else ():
            results.remove(workdir, part)
    first = Program(words(verbs[0], workdir, root))
    first.runs(_LATE)
    second = Program(words(verbs[1], workdir, root))
    ended = (first.end(), second.end())
    problems = [text for end in ended if (text := _wrong(end))]
    problems += [f"not whole: {path}" for path in call(results.not_whole, workdir)]
    for verb in sorted(verbs, key=VERBS.index):
        again = run(words(verb, workdir, root))
        if again.status:
            problems.append(f"{verb} alone ends with {again.status}: {again.output[-500:]}")
    found = call(results.fingerprint, workdir, _PARTS)
    expected = call(results.fingerprint, root / "whole", _PARTS)
    problems += [f"differs: {name}" for name in expected if found.get(name) != expected[name]]
    return Pair(verbs, (_ending(ended[0]), _ending(ended[1])), problems)


def _lines(ended: Ended) -> list[str]:
    return [line for line in ended.output.splitlines() if line.startswith("delg: ")]


def _ending(ended: Ended) -> str:
    return "works" if ended.status == 0 else (_lines(ended) or [str(ended.status)])[0][:100]


def _wrong(ended: Ended) -> str:
    if ended.status == HANGS:
        return f"hangs: {ended.output[-500:]}"
    one_line = ended.status == 2 and len(_lines(ended)) == 1
    right = ended.status == 0 or one_line
    return "" if right and "Traceback" not in ended.output else f"ended: {ended.output[-1500:]}"
