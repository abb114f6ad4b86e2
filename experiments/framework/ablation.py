"""Ablation of local-to-global retrieval: changes one field at a time."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from delg_jax import configuration
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.evaluation import revisited
from delg_jax.features import Extracted, extract
from delg_jax.reports.tables import markdown
from delg_jax.retrieval import methods
from delg_jax.retrieval.ranking import Ranked, Ranking, mark_skipped
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search import SimilarityGraph
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.index import build_index

METHODS = ("local", "local+mds", "local+mds+global")
Values = Mapping[str, Sequence[Any]]  # by field
Rows = dict[str, dict[str, dict[str, float | None]]]  # by value, method and protocol


def measure(
    config: ml_collections.ConfigDict,
    extracted: Extracted,
    graph: SimilarityGraph | None,
    first: Ranking | None = None,
) -> dict[str, dict[str, float | None]]:
    """Measures the mean average precision by method and protocol.

    Args:
      config: the whole tree.
      extracted: features.
      graph: similarities within the database; None to measure only local search.
      first: result of local search, if already known.

    Returns:
      mAP in percent; None without queries.
    """
    first = first or methods.search("local", extracted, SearchSettings.of(config.search))
    settings, found = RerankSettings.of(config.rerank), {}
    for method in METHODS if graph else METHODS[:1]:
        ranks = methods.rerank(method, extracted, first, graph, settings).images
        ranked = mark_skipped(Ranked({"all": ranks}), extracted, "local").by_protocol
        scored = revisited.by_protocol(ranked, extracted.data.ground_truth, (1,)).metrics
        found[method] = {name: scored[name]["map"] for name in PROTOCOLS}
    return found


def ablate(
    config: ml_collections.ConfigDict,
    root: pathlib.Path,
    rerank: Values,
    search: Values,
    graphs: bool = False,
) -> Iterator[tuple[str, Rows]]:
    """Changes one field at a time; features and graph of the base are computed once.

    Args:
      config: the base.
      root: its workdir; graphs are stored in `ablation`.
      rerank: values by field of `config.rerank.mds`.
      search: values by field of `config.search`; they change the local similarity, so that only
        local search is measured unless `graphs`.
      graphs: whether to build a similarity graph for each value of a field of the search.

    Yields:
      The name of a field and the rows of its values; first `base`, unchanged.
    """
    extracted = extract(config, root)
    graph = build_index(config, root, extracted=extracted)
    first = methods.search("local", extracted, SearchSettings.of(config.search))
    yield "base", {"as configured": measure(config, extracted, graph, first)}
    for field, values in rerank.items():
        path, rows = f"rerank.mds.{field}", {}
        for value in values:
            other = configuration.override(config, {path: value})
            rows[str(value)] = measure(other, extracted, graph, first)
        yield path, rows
    for field, values in search.items():
        path, rows = f"search.{field}", {}
        for value in values:
            other = configuration.override(config, {path: value})
            folder = root / "ablation" / f"{field}_{value}"
            mine = build_index(other, folder, extracted=extracted) if graphs else None
            rows[str(value)] = measure(other, extracted, mine)
        yield path, rows


def ablation_table(field: str, rows: Mapping[str, Mapping[str, Any]], base: str) -> str:
    """Returns a row for each value: mAP Medium and Hard of each method, in percent.

    Args:
      field: its name, for the header.
      rows: mAP by value, method and protocol.
      base: the configured value, which is marked.

    Returns:
      Markdown.
    """
    names = list(next(iter(rows.values())))
    header = [field, *(f"{name} M / H" for name in names)]
    cells = [
        [
            f"{value} *" if value == base else value,
            *(f"{_number(row['medium'])} / {_number(row['hard'])}" for row in found.values()),
        ]
        for value, found in rows.items()
    ]
    return markdown(header, cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
