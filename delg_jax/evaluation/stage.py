"""The evaluation stage: every method on one data set, metrics and rankings into the workdir."""

import math
import pathlib
from typing import Any

import ml_collections
import numpy as np

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.evaluation import methods, revisited
from delg_jax.evaluation.cost import Cost, measured
from delg_jax.features import Extracted, extract
from delg_jax.features.stage import sections
from delg_jax.search import SimilarityGraph
from delg_jax.search.stage import build_index, index_folder

Metrics = dict[str, dict[str, float | None]]


def evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> dict[str, Any]:
    """Extracts what is missing, ranks by every method of `config.eval.methods`, and scores.

    Args:
      config: the whole tree.
      workdir: gets `metrics.json` and `rankings.npz`, beside features and index.
      overwrite: whether artefacts of another configuration are deleted instead of refused.

    Returns:
      What `metrics.json` holds: `methods`, from method to protocol to metric in percent; `seconds`,
      `milliseconds_per_query` and `megabytes` by method, of search and re-ranking without
      extraction and similarity graph; and the `images` and `queries` that were there.

    Raises:
      UserError: for a wrong configuration, or data or weights that cannot be used.
    """
    root = pathlib.Path(workdir)
    for method in config.eval.methods:
        methods.check("config.eval.methods", method, config)
    kappas = tuple(config.eval.kappas)
    if not all(isinstance(kappa, int) and kappa > 0 for kappa in kappas):
        raise UserError("config.eval.kappas", kappas, "must be positive whole numbers")
    extracted = extract(config, root, overwrite)
    decided_by = (*sections(config), "search", "rerank", "eval")
    extra = {"weights": extracted.weights}
    artefacts.claim(root / "evaluation", config, decided_by, overwrite, extra)
    rankings, costs = _rank(config, root, extracted, overwrite)
    queries = max(len(extracted.queries), 1)
    result = {
        "methods": {
            method: score(by_protocol, extracted.data.ground_truth, kappas)
            for method, by_protocol in rankings.items()
        },
        "seconds": {method: cost.seconds for method, cost in costs.items()},
        "milliseconds_per_query": {m: 1000 * cost.seconds / queries for m, cost in costs.items()},
        "megabytes": {method: cost.megabytes for method, cost in costs.items()},
        "images": len(extracted.database),
        "queries": len(extracted.queries),
    }
    artefacts.write_arrays(root / "rankings.npz", _named(rankings))
    artefacts.write_json(root / "metrics.json", result)
    return result


def _rank(
    config: ml_collections.ConfigDict, root: pathlib.Path, extracted: Extracted, overwrite: bool
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Cost]]:
    """Rankings by method and protocol ("all" where no protocol matters), and costs by method."""
    wanted = tuple(config.eval.methods)
    rankings, costs = {}, {}
    for search in ("global", "local"):
        mine = [method for method in wanted if method.split("+")[0] == search]
        if not mine:
            continue
        with measured() as searched:
            folder = index_folder(config, root, extracted, overwrite)
            first = methods.search(search, extracted, config.search, folder)
        graph = None
        if any(map(methods.needs_graph, mine)):
            graph = build_index(config, root, overwrite, extracted, search)
        for method in mine:
            with measured() as reranked:
                rankings[method] = _rerank(method, config, extracted, first, graph)
            costs[method] = searched + reranked
    return {method: rankings[method] for method in wanted}, {m: costs[m] for m in wanted}


def _rerank(
    method: str,
    config: ml_collections.ConfigDict,
    extracted: Extracted,
    first: methods.Ranking,
    graph: SimilarityGraph | None,
) -> dict[str, np.ndarray]:
    """Rankings by protocol."""
    if method.endswith("+sp"):
        return methods.verify_spatially(extracted, first, config.rerank, config.seed)
    block = config.search.global_block
    found = methods.rerank(method, extracted, first, graph, config.rerank, block)
    return {"all": found.images}


def score(
    rankings: dict[str, np.ndarray], ground_truth: list[dict], kappas: tuple[int, ...]
) -> Metrics:
    """Scores one method.

    Args:
      rankings: int [Q, N] by protocol, or under "all" for protocols without their own.
      ground_truth: for each query `easy`, `hard` and `junk`.
      kappas: ranks of the mean precisions.

    Returns:
      From protocol to metric (`map`, `mp@k`) in percent; None if no query has positives.
    """
    source = {name: name if name in rankings else "all" for name in revisited.PROTOCOLS}
    scored = {
        name: revisited.evaluate(rankings[name].T, ground_truth, kappas)
        for name in set(source.values())
    }
    table = {}
    for protocol in revisited.PROTOCOLS:
        values = scored[source[protocol]][protocol]
        table[protocol] = {
            name: None if math.isnan(value) else 100.0 * value
            for name, value in values.items()
            if name != "aps"
        }
    return table


def _named(rankings: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of `rankings.npz`: `METHOD`, and `METHOD:PROTOCOL` where protocols differ."""
    return {
        method if protocol == "all" else f"{method}:{protocol}": ranks.astype(np.int32)
        for method, by_protocol in rankings.items()
        for protocol, ranks in by_protocol.items()
    }
