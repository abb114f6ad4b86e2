"""A picture of what global search, local search and similarity embeddings find for a query.

    delg evaluate --config=configs/quickstart.py --workdir=WORKDIR
    python -m experiments.local_to_global.picture --workdir=WORKDIR --output=PICTURE.jpg

Draws the query and the first images of each method. New images are correct images that embeddings
rank among the first --top and local search does not. A new image is indirect if it has no more
inliers with the query than 95 % of the first wrong images of local search: it was found by way of
other images. The query is chosen by a rule. Local search must have more correct images among its
first than global search, and embeddings must add a new image, an indirect one if any query has one;
of these queries, the one with the largest gain in average precision (Medium) of local over global
search is drawn. Its new images are marked; the program prints how many there are over all queries.
With --show=loss, the query is the one that embeddings harm most.
Only synthetic data is drawn, because photographs have owners; for other data --output must be
empty.
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
from delg_jax.retrieval import methods
from delg_jax.retrieval.settings import RerankSettings

TITLES = {
    "global": "global search",
    "local": "local search",
    "local+mds": "local search, re-ranked by similarity embeddings",
}
_PROTOCOL = "medium"
_WRONG = 40  # first wrong images of a query that are verified
_QUANTILE = 0.95  # of their inliers, which an indirect image does not exceed

Rankings = Mapping[str, np.ndarray]  # int [Q, N] by method


def read_rankings(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads rankings by method; a UserError if one of the methods in `TITLES` is missing."""
    try:
        with np.load(path) as stored:
            return {method: stored[method] for method in TITLES}
    except (OSError, ValueError, KeyError) as error:
        rule = f"must be the rankings of an evaluation by {', '.join(TITLES)} ({error})"
        raise UserError("--workdir", str(path), rule) from error


def new_images(rankings: Rankings, query: int, positives: np.ndarray, top: int) -> np.ndarray:
    """Returns correct images that embeddings rank among the first, but local search does not."""
    best = rankings["local+mds"][query][:top]
    return best[np.isin(best, positives) & ~np.isin(best, rankings["local"][query][:top])]


def choose(
    rankings: Rankings,
    ground_truth: Sequence[dict],
    top: int,
    indirect: Mapping[int, np.ndarray],
) -> int | None:
    """Chooses the query to draw, by the rule of this module.

    Args:
      rankings: int [Q, N] by method.
      ground_truth: of the queries.
      top: number of first images.
      indirect: images by query, from `count_indirect`.

    Returns:
      Index of the query, the lowest on a tie; None if no query meets the rule.
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
        if len(new_images(rankings, query, positives, top)):
            gain = precisions["local"][query] - precisions["global"][query]
            gains[query] = query in indirect, gain
    return max(gains, key=gains.get, default=None)


def choose_loss(rankings: Rankings, ground_truth: Sequence[dict], top: int) -> int | None:
    """The query that embeddings harm most.

    Args:
      rankings: int [Q, N] by method.
      ground_truth: of the queries.
      top: number of first images.

    Returns:
      Index of the query that loses most correct images among the first, of these the one that
      loses most average precision (Medium); None if none loses any.
    """
    precisions = {
        method: revisited.evaluate(rankings[method].T, ground_truth)[_PROTOCOL]["aps"]
        for method in ("local", "local+mds")
    }
    losses: dict[int, tuple[int, float]] = {}
    for query, entry in enumerate(ground_truth):
        positives, _ = revisited.protocol_sets(entry, _PROTOCOL)
        correct = {m: np.isin(rankings[m][query][:top], positives).sum() for m in precisions}
        lost = precisions["local"][query] - precisions["local+mds"][query]
        if lost > 0:
            losses[query] = int(correct["local"] - correct["local+mds"]), lost
    return max(losses, key=losses.get, default=None)


def count_indirect(
    extracted: Extracted, rankings: Rankings, config: ml_collections.ConfigDict, top: int
) -> tuple[int, dict[int, np.ndarray]]:
    """Counts the new images of all queries.

    Args:
      extracted: features.
      rankings: int [Q, N] by method.
      config: of the evaluation.
      top: number of first images.

    Returns:
      Their number, and the indirect ones by query.
    """
    settings = RerankSettings.of(config.rerank).sp
    inliers = methods.inlier_counter(extracted, settings, config.seed)
    number, indirect = 0, {}
    for query, entry in enumerate(extracted.data.ground_truth):
        positives, ignored = revisited.protocol_sets(entry, _PROTOCOL)
        found = new_images(rankings, query, positives, top)
        number += len(found)
        ranked = rankings["local"][query]
        wrong = ranked[~np.isin(ranked, [*positives, *ignored])][:_WRONG]
        if len(found) and len(wrong):
            counts = inliers(query, np.concatenate([found, wrong]))
            few = found[counts[found] <= np.quantile(counts[wrong], _QUANTILE)]
            if len(few):
                indirect[query] = few
    return number, indirect


def tiles(
    data: RetrievalData,
    ranked: np.ndarray,
    method: str,
    query: int,
    marked: Sequence[int] | np.ndarray,
) -> tuple[str, list[Tile]]:
    """Returns title and tiles of one method, of the query and its first images `ranked`."""
    positives, ignored = revisited.protocol_sets(data.ground_truth[query], _PROTOCOL)
    drawn = [Tile(_boxed(data, query), "query")]
    for image in ranked:
        kind = "correct" if image in positives else "ignored" if image in ignored else "wrong"
        pixels = images.decode(data.database.read(int(image)))
        drawn.append(Tile(pixels, kind, bool(np.isin(image, marked))))
    return TITLES[method], drawn


def _boxed(data: RetrievalData, query: int) -> np.ndarray:
    return images.crop(images.decode(data.queries.read(query)), data.ground_truth[query]["bbx"])


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="quickstart")
    flags.DEFINE_integer("top", 6, "First images of each method.", 1, flag_values=values)
    text = "A query that embeddings help, or the one that they harm most."
    flags.DEFINE_enum("show", "gain", ["gain", "loss"], text, flag_values=values)
    default = "experiments/results/local_to_global_picture.jpg"
    arguments.define_path(
        values, "output", default, "Picture to write, .jpg or .png; empty for none."
    )


def run(values: flags.FlagValues) -> None:
    """Counts new images, chooses a query, draws it and prints the result."""
    path = matches.check_path("--output", values.output) if values.output else None
    config, root = values.config, pathlib.Path(values.workdir)
    if path and config.data.name != "synthetic":
        rule = "must be synthetic, or --output empty: photographs are not stored in the repository"
        raise UserError("config.data.name", config.data.name, rule)
    rankings = read_rankings(root / "rankings.npz")
    extracted = extract(config, root)
    found, indirect = count_indirect(extracted, rankings, config, values.top)
    if path:
        truth = extracted.data.ground_truth
        if values.show == "loss":
            query = choose_loss(rankings, truth, values.top)
        else:
            query = choose(rankings, truth, values.top, indirect)
        if query is None:
            rule = "has no query that meets the rule; see --help"
            raise UserError("--workdir", values.workdir, rule)
        positives, _ = revisited.protocol_sets(truth[query], _PROTOCOL)
        marked = indirect.get(query, new_images(rankings, query, positives, values.top))
        best = {method: rankings[method][query][: values.top] for method in TITLES}
        _draw(extracted.data, best, query, marked, path)
    alone = sum(map(len, indirect.values()))
    print(
        f"among the first {values.top}, embeddings add {found} correct images to those of local "
        f"search; {alone} of them match their query no better than wrong images do"
    )


def _draw(
    data: RetrievalData,
    best: Rankings,
    query: int,
    marked: np.ndarray,
    path: pathlib.Path,
) -> None:
    """Draws the chosen query with the first images of each method, and prints their kinds."""
    drawn = [
        tiles(data, best[method], method, query, marked if method == "local+mds" else [])
        for method in TITLES
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    matches.save(result_images.draw(drawn), path)
    print(f"query {query}: {data.queries.names[query]}")
    for title, row in drawn:
        kinds = [tile.kind for tile in row[1:]]
        print(f"{title}: {kinds.count('correct')} of {len(kinds)} correct")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
