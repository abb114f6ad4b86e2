"""The verb `evaluate`: runs every method on one data set and writes metrics and rankings."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax import configuration, distributed
from delg_jax import workdir as outputs
from delg_jax.configuration import require_seed
from delg_jax.data import RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import gldv2_tasks, pairs, revisited, significance
from delg_jax.evaluation.cost import Cost, measured
from delg_jax.evaluation.pairs import pair_average_precision
from delg_jax.features import Extracted, extract
from delg_jax.features.experiment import sections
from delg_jax.features.image_sets import LISTED
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval import methods, ranking
from delg_jax.retrieval.ranking import Ranked
from delg_jax.retrieval.settings import (
    RerankSettings,
    check_depth,
    check_ranks,
    ranked_depth,
)
from delg_jax.search import SimilarityGraph
from delg_jax.search.engine_choice import SearchSettings, deciding_fields, index_place
from delg_jax.search.graph import PairGraph
from delg_jax.search.index import build_index, pair_graph
from delg_jax.workdir import root_of

_BLOCKS = ("rerank.sp.pair_block", "rerank.mds.query_block")  # only change speed and memory


def evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> dict[str, Any]:
    """Extracts missing features, ranks by every method of `config.eval.methods`, and scores.

    Args:
      config: the whole tree.
      workdir: gets `metrics.json` and `rankings.npz`, beside features and index; for Google
        Landmarks v2 also `submission_TASK_METHOD.csv`, in the format of Kaggle.
      overwrite: whether outputs of another configuration are deleted instead of refused.

    Returns:
      The content of `metrics.json`: `methods`, from method to protocol to metric in percent;
      `average_precisions` and `intervals` of `revisited.Scores`, by method; `comparisons` of
      re-rankings with their search; `query_landmarks`, a number for the landmark of each query, in
      the order of the average precisions; `seconds`, `milliseconds_per_query` and `megabytes` by
      method, of search and re-ranking without extraction and similarity graph; the numbers of
      `images` and `queries`; `skipped`, see `ranking.count_skipped`, by search (global, local); and
      `pairs`, see `pair_average_precision`, if `config.eval.pairs` is set. Of several
      processes of `jax.distributed` the first one ranks; in the others the result is empty.

    Raises:
      UserError: for a wrong configuration, or data or weights that cannot be used.
    """
    root = root_of(workdir)
    _check(config)
    extracted = extract(config, root, overwrite)
    if distributed.is_first():
        _bind(config, root, extracted, overwrite)
    graphs = _graphs(config, root, extracted, overwrite)
    if not distributed.is_first():
        return {}
    ranked, costs = _rank_by_methods(config, root, extracted, graphs, overwrite)
    queries = max(len(extracted.queries), 1)
    marked = {
        m: ranking.mark_skipped(found, extracted, m.split("+")[0]) for m, found in ranked.items()
    }
    scored, comparisons = _score(config, root, marked, extracted.data)
    precisions = {method: found.average_precisions for method, found in scored.items()}
    result = {
        "methods": {method: found.metrics for method, found in scored.items()},
        "average_precisions": precisions,
        "intervals": {method: found.intervals for method, found in scored.items()},
        "comparisons": comparisons,
        "query_landmarks": next((found.landmarks for found in scored.values()), []),
        "seconds": {method: cost.seconds for method, cost in costs.items()},
        "milliseconds_per_query": {m: 1000 * cost.seconds / queries for m, cost in costs.items()},
        "megabytes": {method: cost.megabytes for method, cost in costs.items()},
        "images": len(extracted.database),
        "queries": len(extracted.queries),
        "skipped": {
            kind: ranking.count_skipped(extracted, kind) for kind in _searches(config.eval.methods)
        },
    }
    if config.eval.pairs:
        counts = config.eval.pairs, config.eval.negative_pairs
        result["pairs"] = pair_average_precision(
            extracted, RerankSettings.of(config.rerank).sp, *counts, config.seed
        )
    with outputs.where_writable(f"{root}: metrics.json and rankings.npz"):
        _require_bound(config, root, extracted)
        outputs.write_arrays(root / "rankings.npz", _named(ranked))
        outputs.write_json(root / "metrics.json", result)
    return result


def decided_by(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Prefixes of the fields that rankings and metrics depend on."""
    rerank = [path for path in configuration.flatten(config, ("rerank",)) if path not in _BLOCKS]
    return (
        "seed",
        "data.name",
        *sections(config),
        *deciding_fields(config.search),
        *rerank,
        "eval",
    )


def sources(
    database: FeatureStore, queries: FeatureStore, data: RetrievalData | None
) -> dict[str, str]:
    """Digests of what rankings and metrics are made from, by name; `data` only if given."""
    found = {"database": database.digest(), "queries": queries.digest()}
    if data is None:
        return found
    text = json.dumps(data.ground_truth, sort_keys=True, default=np.ndarray.tolist)
    return {**found, "ground_truth": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def _bind(
    config: ml_collections.ConfigDict, root: pathlib.Path, extracted: Extracted, overwrite: bool
) -> None:
    """Records what this evaluation is made from; first deletes results made from anything else."""
    output = _output(config, root, extracted.weights)
    made_from = sources(extracted.database, extracted.queries, extracted.data)
    known = output.is_there()
    if not known and not overwrite:
        output.claim()  # an error if there is one
    if not known or outputs.sources(output.folder) != made_from:
        submissions = root.glob("submission_*.csv")
        for path in (root / "metrics.json", root / "rankings.npz", *submissions):
            path.unlink(missing_ok=True)
    output.claim(overwrite)
    with outputs.where_writable(f"{output.folder}: its configuration"):
        output.describe(made_from)


def _require_bound(
    config: ml_collections.ConfigDict, root: pathlib.Path, extracted: Extracted
) -> None:
    """Refuses to write beside the record of another evaluation, which another job has begun."""
    output = _output(config, root, extracted.weights)
    made_from = sources(extracted.database, extracted.queries, extracted.data)
    if not output.is_there() or outputs.sources(output.folder) not in (made_from, {}):
        rule = "was begun by another job, with another configuration or other features, while this "
        rule += "one was running; use another --workdir"
        raise UserError("evaluation", str(output.folder), rule)


def _output(config: ml_collections.ConfigDict, root: pathlib.Path, weights: str) -> outputs.Output:
    """The evaluation of a workdir, of features of these weights."""
    extra = {"weights": weights}
    return outputs.Output.of(root / "evaluation", config, decided_by(config), extra)


def _check(config: ml_collections.ConfigDict) -> None:
    """Checks the configuration before hours of extraction."""
    evaluation = config.eval
    if config.data.name == LISTED and not config.data.ground_truth:
        rule = "must name a file of queries and answers, to evaluate the data set images"
        raise UserError("config.data.ground_truth", "", rule)
    if config.data.name == "ilias":
        rule = "is scored by delg ilias, which reads its distractors in parts, after delg export "
        raise UserError("config.data.name", "ilias", f"{rule}--format=ames")
    check_depth(evaluation.methods, config)
    for method in evaluation.methods:
        methods.check("config.eval.methods", method, config)
    kappas = tuple(evaluation.kappas)
    if not all(isinstance(kappa, int) and kappa > 0 for kappa in kappas):
        raise UserError("config.eval.kappas", kappas, "must be positive whole numbers")
    check_ranks(config, _counted(config))
    require_seed(config)
    gldv2_tasks.check(config)
    pairs.check(config)


def _graphs(
    config: ml_collections.ConfigDict, root: pathlib.Path, extracted: Extracted, overwrite: bool
) -> dict[str, SimilarityGraph]:
    """The stored similarities of database images that methods need, by `methods.graph_name`."""
    mds = RerankSettings.of(config.rerank).mds
    names = {methods.graph_name(method, mds) for method in config.eval.methods}
    return {
        name: build_index(config, root, overwrite, extracted, name)
        for name in sorted(names - {"", "pairs"})
    }


def _rank_by_methods(
    config: ml_collections.ConfigDict,
    root: pathlib.Path,
    extracted: Extracted,
    stored: dict[str, SimilarityGraph],
    overwrite: bool,
) -> tuple[dict[str, Ranked], dict[str, Cost]]:
    """Rankings and costs by method."""
    graphs: dict[str, SimilarityGraph | PairGraph] = dict(stored)
    wanted, task = tuple(config.eval.methods), gldv2_tasks.task_of(config.data.name)
    settings, reranking = SearchSettings.of(config.search), RerankSettings.of(config.rerank)
    truth = None if task else extracted.data.ground_truth
    depth = ranked_depth(config, _counted(config))
    ranked, costs = {}, {}
    for search in _searches(wanted):
        own = [method for method in wanted if method.split("+")[0] == search]
        opened = None
        ranking.require_features(extracted, search)  # before an index is built of none
        with measured() as searched:
            if search == "local":
                place = index_place(config, root, extracted, overwrite)
                opened = methods.open_locally(extracted, settings, place)
            first = methods.search(search, extracted, settings, depth=depth, opened=opened)
        if opened and "pairs" in {methods.graph_name(method, reranking.mds) for method in own}:
            graphs["pairs"] = pair_graph(extracted, settings, opened)
        for method in own:
            with measured() as reranked:
                if method.endswith("+sp"):
                    excluded = None if truth is None else methods.junk_by_protocol(truth)
                    found = methods.verify(extracted, first, reranking.sp, config.seed, excluded)
                else:
                    graph = graphs.get(methods.graph_name(method, reranking.mds))
                    block = settings.global_block
                    one = methods.rerank(method, extracted, first, graph, reranking, block)
                    found = Ranked({"all": one.images}, one.similarities if task else None)
                ranked[method] = found
            costs[method] = searched + reranked
    return {method: ranked[method] for method in wanted}, {m: costs[m] for m in wanted}


def _counted(config: ml_collections.ConfigDict) -> int:
    """Images per query that the task of the data set scores; 0 for all."""
    return gldv2_tasks.counted(gldv2_tasks.task_of(config.data.name), config.eval.recognition_top)


def _searches(wanted: Sequence[str]) -> list[str]:
    """The searches that methods start with."""
    return sorted({method.split("+")[0] for method in wanted})


def _score(
    config: ml_collections.ConfigDict,
    root: pathlib.Path,
    ranked: dict[str, Ranked],
    data: RetrievalData,
) -> tuple[dict[str, revisited.Scores], dict[str, dict[str, significance.Gain]]]:
    """Scores by method, and comparisons of re-rankings with their search.

    For Google Landmarks v2, also writes the predictions of every method.
    """
    task, kappas = gldv2_tasks.task_of(config.data.name), config.eval.kappas
    if not task:
        scored = {
            method: revisited.by_protocol(found.by_protocol, data.ground_truth, kappas)
            for method, found in ranked.items()
        }
    else:
        predicted = {
            method: gldv2_tasks.predictions(task, found, data, config.eval.recognition_top)
            for method, found in ranked.items()
        }
        for method, predictions in predicted.items():
            path = root / f"submission_{task}_{method}.csv"
            asked = list(gldv2_tasks.answers(task, data))
            with outputs.where_writable(str(path)):
                gldv2_tasks.write_predictions(path, task, asked, predictions)
        scored = {
            method: gldv2_tasks.score(task, predictions, data, kappas)
            for method, predictions in predicted.items()
        }
    if task == "recognition":
        return scored, gldv2_tasks.recognition_comparisons(predicted, data)
    precisions = {method: found.average_precisions for method, found in scored.items()}
    landmarks = next((found.landmarks for found in scored.values()), None)
    return scored, significance.comparisons(precisions, landmarks)


def score(
    rankings: dict[str, np.ndarray], ground_truth: list[dict], kappas: tuple[int, ...]
) -> revisited.Metrics:
    """The metrics of `revisited.by_protocol`."""
    return revisited.by_protocol(rankings, ground_truth, kappas).metrics


def _named(ranked: dict[str, Ranked]) -> dict[str, np.ndarray]:
    """Arrays of `rankings.npz`: `METHOD`, and `METHOD:PROTOCOL` where protocols differ.

    Each has every image once, skipped ones last. Metrics count these, and all images of a skipped
    query, as not found.
    """
    return {
        method if protocol == "all" else f"{method}:{protocol}": ranks.astype(np.int32)
        for method, found in ranked.items()
        for protocol, ranks in found.by_protocol.items()
    }
