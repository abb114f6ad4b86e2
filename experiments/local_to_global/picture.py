"""A picture of what global search, local search and similarity embeddings find for one query.

    delg evaluate --config=configs/quickstart.py --workdir=WORKDIR
    python -m experiments.local_to_global.picture --workdir=WORKDIR --output=PICTURE.jpg

Draws the query and the best images of each method. Of the images that embeddings newly bring among
the best, those are indirect that have no more inliers with the query than 95 % of the wrong images
which local search ranks first: others led to them. The query is chosen by rule: of those for which
local search has more correct images among its best than global search, and embeddings bring in a
correct one, an indirect one if any query has such, the one whose average precision (medium) local
search raises most over global search. What was so brought in is marked, and counted over all
queries. Only the synthetic data is drawn: it is rendered, and nobody's photograph; for other data
--output must be empty.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np
from absl import flags

from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data import images
from delg_jax.data.sources import RetrievalData
from delg_jax.errors import UserError
from delg_jax.evaluation import revisited
from delg_jax.features import Extracted, extract
from delg_jax.reports import matches, result_images
from delg_jax.reports.result_images import Tile
from delg_jax.retrieval import verification

TITLES = {
    "global": "global search",
    "local": "local search",
    "local+mds": "local search, re-ranked by similarity embeddings",
}
_PROTOCOL = "medium"
_WRONG = 40  # wrong images of a query that are verified
_CHANCE = 0.95  # share of them that an indirect image does not exceed

Rankings = Mapping[str, np.ndarray]  # int [Q, N] by method


def read_rankings(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The rankings of an evaluation by method; a UserError if one of `TITLES` is not there."""
    try:
        with np.load(path) as stored:
            return {method: stored[method] for method in TITLES}
    except (OSError, ValueError, KeyError) as error:
        rule = f"must be the rankings of an evaluation by {', '.join(TITLES)} ({error})"
        raise UserError("--workdir", str(path), rule) from error


def brought_in(rankings: Rankings, query: int, positives: np.ndarray, top: int) -> np.ndarray:
    """Correct images among the best of the embeddings, and not among those of local search."""
    best = rankings["local+mds"][query][:top]
    return best[np.isin(best, positives) & ~np.isin(best, rankings["local"][query][:top])]


def choose(
    rankings: Rankings,
    ground_truth: Sequence[dict],
    top: int,
    indirect: Mapping[int, np.ndarray],
) -> int | None:
    """The query that the rule of this file chooses.

    Args:
      rankings: int [Q, N] by method.
      ground_truth: of the queries.
      top: images that count as the best.
      indirect: of `count_indirect`.

    Returns:
      Its number, the lowest of equals; None if none meets the rule.
    """
    precisions = {
        method: revisited.evaluate(rankings[method].T, ground_truth)[_PROTOCOL]["aps"]
        for method in ("global", "local")
    }
    gains: dict[int, tuple[bool, float]] = {}
    for query, entry in enumerate(ground_truth):
        positives, _ = revisited.protocol_sets(entry, _PROTOCOL)
        correct = {m: np.isin(rankings[m][query][:top], positives).sum() for m in precisions}
        if correct["local"] <= correct["global"]:
            continue
        if len(brought_in(rankings, query, positives, top)):
            gain = precisions["local"][query] - precisions["global"][query]
            gains[query] = query in indirect, gain
    return max(gains, key=gains.get, default=None)


def count_indirect(
    extracted: Extracted, rankings: Rankings, config: ml_collections.ConfigDict, top: int
) -> tuple[int, dict[int, np.ndarray]]:
    """Counts the correct images that embeddings bring among the best of any query.

    Args:
      extracted: features.
      rankings: int [Q, N] by method.
      config: of the evaluation.
      top: images that count as the best.

    Returns:
      Their number, and by query those that match it no better than wrong images do.
    """
    inliers = verification.inlier_counter(extracted, config.rerank, config.seed)
    number, indirect = 0, {}
    for query, entry in enumerate(extracted.data.ground_truth):
        positives, ignored = revisited.protocol_sets(entry, _PROTOCOL)
        found = brought_in(rankings, query, positives, top)
        number += len(found)
        ranked = rankings["local"][query]
        wrong = ranked[~np.isin(ranked, [*positives, *ignored])][:_WRONG]
        if len(found) and len(wrong):
            counts = inliers(query, np.concatenate([found, wrong]))
            few = found[counts[found] <= np.quantile(counts[wrong], _CHANCE)]
            if len(few):
                indirect[query] = few
    return number, indirect


def strip(
    data: RetrievalData,
    ranked: np.ndarray,
    method: str,
    query: int,
    marked: Sequence[int] | np.ndarray,
) -> tuple[str, list[Tile]]:
    """Title and tiles of one method; `ranked` are its best images."""
    positives, ignored = revisited.protocol_sets(data.ground_truth[query], _PROTOCOL)
    tiles = [Tile(_boxed(data, query), "query")]
    for image in ranked:
        kind = "correct" if image in positives else "ignored" if image in ignored else "wrong"
        picture = images.decode(data.database.read(int(image)))
        tiles.append(Tile(picture, kind, bool(np.isin(image, marked))))
    return TITLES[method], tiles


def _boxed(data: RetrievalData, query: int) -> np.ndarray:
    return images.crop(images.decode(data.queries.read(query)), data.ground_truth[query]["bbx"])


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    flags.DEFINE_integer("top", 6, "Images of each method.", 1, flag_values=values)
    default = "experiments/results/local_to_global_picture.jpg"
    arguments.define_path(values, "output", default, "Picture, .jpg or .png; empty for none.")


def run(values: flags.FlagValues) -> None:
    """Counts, chooses, draws, and prints what was chosen."""
    path = matches.check_path("--output", values.output) if values.output else None
    config, root = values.config, pathlib.Path(values.workdir)
    if path and config.data.name != "synthetic":
        rule = "must be synthetic, or --output empty: photographs are not drawn into the repository"
        raise UserError("config.data.name", config.data.name, rule)
    rankings = read_rankings(root / "rankings.npz")
    extracted = extract(config, root)
    found, indirect = count_indirect(extracted, rankings, config, values.top)
    if path:
        query = choose(rankings, extracted.data.ground_truth, values.top, indirect)
        if query is None:
            rule = "has no query that meets the rule; see --help"
            raise UserError("--workdir", values.workdir, rule)
        positives, _ = revisited.protocol_sets(extracted.data.ground_truth[query], _PROTOCOL)
        marked = indirect.get(query, brought_in(rankings, query, positives, values.top))
        best = {method: rankings[method][query][: values.top] for method in TITLES}
        _draw(extracted.data, best, query, marked, path)
    alone = sum(map(len, indirect.values()))
    print(
        f"among the best {values.top}, embeddings bring {found} correct images that local search "
        f"does not; {alone} match their query no better than wrong images do"
    )


def _draw(
    data: RetrievalData,
    best: Rankings,
    query: int,
    marked: np.ndarray,
    path: pathlib.Path,
) -> None:
    """Draws the chosen query with the best images [top] of each method, and prints it."""
    drawn = [
        strip(data, best[method], method, query, marked if method == "local+mds" else [])
        for method in TITLES
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    matches.save(result_images.draw(drawn), path)
    print(f"query {query}: {data.queries.names[query]}")
    for title, tiles in drawn:
        kinds = [tile.kind for tile in tiles[1:]]
        print(f"{title}: {kinds.count('correct')} of {len(kinds)} correct")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
