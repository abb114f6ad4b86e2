"""The evaluation stage: every method on one data set, metrics and rankings into the workdir."""

import math
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.evaluation import methods, revisited
from delg_jax.features import Extracted, extract
from delg_jax.features.stage import sections
from delg_jax.search.stage import build_index

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
      What `metrics.json` holds: `methods`, from method to protocol to metric in percent, `seconds`
      by method without extraction, and the `images` and `queries` that were there.

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
    rankings, seconds = _rank(config, root, extracted, overwrite)
    result = {
        "methods": {
            method: score(by_protocol, extracted.data.ground_truth, kappas)
            for method, by_protocol in rankings.items()
        },
        "seconds": seconds,
        "images": len(extracted.database),
        "queries": len(extracted.queries),
    }
    artefacts.write_arrays(root / "rankings.npz", _named(rankings))
    artefacts.write_json(root / "metrics.json", result)
    return result


def _rank(
    config: ml_collections.ConfigDict, root: pathlib.Path, extracted: Extracted, overwrite: bool
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Rankings by method and protocol ("all" where no protocol matters), and seconds by method."""
    wanted = tuple(config.eval.methods)
    rankings, seconds = {}, {}
    for search in ("global", "local"):
        mine = [method for method in wanted if method.split("+")[0] == search]
        if not mine:
            continue
        start = time.monotonic()
        first = methods.search(search, extracted, config.search)
        searched = time.monotonic() - start
        embeds = any("mds" in method for method in mine)
        graph = build_index(config, root, overwrite, extracted) if embeds else None
        for method in mine:
            start = time.monotonic()
            if method.endswith("+sp"):
                found = methods.verify_spatially(extracted, first, config.rerank, config.seed)
            else:
                found = {"all": methods.rerank(method, extracted, first, graph, config.rerank)}
            rankings[method] = found
            seconds[method] = searched + time.monotonic() - start
    return {method: rankings[method] for method in wanted}, {m: seconds[m] for m in wanted}


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
