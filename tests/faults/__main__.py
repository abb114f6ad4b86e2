"""Disturbs every verb at random moments and compares what restarts leave with undisturbed runs.

    python -m tests.faults --moments=62 [--verbs=train,extract] [--faults=killed]
    python -m tests.faults --pairs=train,extract,index,evaluate,search,verify,export_hloc,report

Prints a table; the exit status is 1 if anything differs. As root, workdirs lie on small file
systems that become full or read-only; others leave these two faults out. With --pairs, it runs each
pair of verbs on one workdir at once instead.
"""

import argparse
import collections
import os
import signal
import sys
import tempfile
from pathlib import Path

# For the programs that are forked from this one
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # input workers import this file, too
    _CACHE = tempfile.TemporaryDirectory(prefix="delg_faults_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from tests.faults import moments, pairs, scenes  # noqa: E402


def main(argv: list[str]) -> int:
    """Tries the moments, one after the other; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that file systems are unmounted
    options = _options(argv)
    if options.pairs:
        return _try_pairs(options.pairs.split(","))
    faults = tuple(options.faults.split(","))
    if not moments.can_mount():
        faults = tuple(fault for fault in faults if fault not in ("full disk", "read-only"))
        sys.stdout.write("full disk and read-only are left out: file systems cannot be mounted\n")
    verbs = tuple(options.verbs.split(","))
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="delg_undisturbed_") as folder:
        found = scenes.undisturbed(Path(folder), verbs)
        for number, moment in enumerate(moments.plan(options.moments, options.seed, verbs, faults)):
            outcome = moments.try_moment(moment, found[moment.verb])
            outcomes.append(outcome)
            said = "; ".join(outcome.problems) or ("equal" if outcome.hit else "equal, not hit")
            share = f"{moment.share:.2f}"
            place = f"{number + 1}/{options.moments} {moment.verb} {moment.fault} {share}"
            sys.stdout.write(f"{place}: {said}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{table(outcomes)}\n")
    return int(any(outcome.problems for outcome in outcomes))


def _try_pairs(verbs: list[str]) -> int:
    wrong = False
    sys.stdout.write(
        "| first | second | ends | ends | problems |\n| --- | --- | --- | --- | --- |\n"
    )
    for tried in pairs.try_pairs(verbs):
        wrong |= bool(tried.problems)
        cells = (*tried.verbs, *tried.endings, "; ".join(tried.problems) or "none")
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()
    return int(wrong)


def table(outcomes: list[moments.Outcome]) -> str:
    """A row for each verb and fault, in Markdown."""
    rows = collections.defaultdict(list)
    for outcome in outcomes:
        rows[outcome.moment.verb, outcome.moment.fault].append(outcome)
    lines = [
        "| verb | fault | moments | ended by it | restarts equal |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for (verb, fault), some in rows.items():
        counts = len(some), sum(o.hit for o in some), sum(not o.problems for o in some)
        lines.append(f"| {verb} | {fault} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _options(argv: list[str]) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests.faults", description=__doc__, formatter_class=form)
    parser.add_argument("--moments", type=int, default=62)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--verbs", default=",".join(scenes.SCENES))
    text = "of which all pairs are run at once"
    parser.add_argument("--pairs", help=text)
    parser.add_argument("--faults", default=",".join(moments.FAULTS))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
