"""Tables of sweeps: means and standard deviations over the runs of a group."""

import functools
import statistics
from collections.abc import Callable, Collection, Sequence

from delg_jax.evaluation import revisited
from delg_jax.reports.tables import markdown
from delg_jax.sweeps.sweep import Result

Reader = Callable[[Result], float | None]

_PROTOCOLS = tuple(revisited.PROTOCOLS)
# First stage of each re-ranking
FIRST_STAGES = {"global+sp": "global", "local+mds": "local"}


def spread(values: Sequence[float | None], sign: str = "") -> str:
    """Mean and sample standard deviation as text; for a single value, the value.

    Args:
      values: numbers; None is ignored.
      sign: "+" to show the sign of the mean.

    Returns:
      For example `48.27 ± 1.20`; `-` where there is no value.
    """
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = format(statistics.fmean(known), f"{sign}.2f")
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.2f}"


def sweep_table(results: Sequence[Result]) -> str:
    """A row per group: mAP of every method; without evaluation, validation metrics or the loss.

    Args:
      results: of the sweep.

    Returns:
      The table, without failed runs; `runs` counts those in the table.
    """
    columns = _columns(results)
    rows = []
    for group, members in _groups(results).items():
        good = [result for result in members if not result.error]
        cells = [spread([read(result) for result in good]) for read in columns.values()]
        rows.append([group.replace("|", "\\|"), f"{len(good)}/{len(members)}", *cells])
    return markdown(["setting", "runs", *columns], rows)


def sweep_report(results: Sequence[Result], missing: Collection[str] = ()) -> str:
    """The table of a sweep, and a line for each missing run.

    Args:
      results: of the sweep.
      missing: names of runs that neither finished nor failed; their errors say why.

    Returns:
      Markdown.
    """
    absent = [result for result in results if result.error]
    lines = []
    for result in absent:
        state = "missing" if result.run.name in missing else "failed"
        lines.append(f"- {state}: `{result.run.name}`, {' '.join(result.error.split())}")
    notes = [f"{len(results) - len(absent)} of {len(results)} runs are in the table.", *lines]
    return "\n".join([sweep_table(results), *(["", *notes] if absent else [])])


def methods_table(results: Sequence[Result]) -> str:
    """One row per group and method: mAP Easy, Medium and Hard, in percent."""
    rows = []
    for group, members in _groups(results).items():
        for method in _methods(members):
            cells = [spread([_map(r, method, p) for r in members]) for p in _PROTOCOLS]
            rows.append([f"{group}, {method}", *cells])
    return markdown(["mAP", *(p.capitalize() for p in _PROTOCOLS)], rows)


def gains_table(results: Sequence[Result]) -> str:
    """One row per group and re-ranking: gain in mAP over its first stage, paired by run."""
    rows = []
    for group, members in _groups(results).items():
        for method in _methods(members):
            if method in FIRST_STAGES:
                cells = [spread([_gain(r, method, p) for r in members], "+") for p in _PROTOCOLS]
                rows.append([f"{group}, {method} over {FIRST_STAGES[method]}", *cells])
    return markdown(["gain in mAP", *(p.capitalize() for p in _PROTOCOLS)], rows)


def _groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.group, []).append(result)
    return groups


def _columns(results: Sequence[Result]) -> dict[str, Reader]:
    """Functions that read a value from a result, by the heading of the column."""
    if any("evaluate" in result.metrics for result in results):
        return {
            f"{method} {protocol[0].upper()}": functools.partial(
                _map, method=method, protocol=protocol
            )
            for method in _methods(results)
            for protocol in _PROTOCOLS[1:]
        }
    trained = [set(r.metrics.get("train", {})) for r in results]
    names = sorted(name for name in set().union(*trained) if name.startswith("validation_"))
    names = names or ["loss"]  # trained without validation images
    return {name: functools.partial(_training_metric, name=name) for name in names}


def _methods(results: Sequence[Result]) -> list[str]:
    """Methods of all results, in order of first appearance."""
    found = [m for r in results for m in r.metrics.get("evaluate", {}).get("methods", {})]
    return list(dict.fromkeys(found))


def _training_metric(result: Result, name: str) -> float | None:
    return result.metrics.get("train", {}).get(name)


def _map(result: Result, method: str, protocol: str) -> float | None:
    methods = result.metrics.get("evaluate", {}).get("methods", {})
    return methods.get(method, {}).get(protocol, {}).get("map")


def _gain(result: Result, method: str, protocol: str) -> float | None:
    before, after = (_map(result, m, protocol) for m in (FIRST_STAGES[method], method))
    return None if before is None or after is None else after - before
