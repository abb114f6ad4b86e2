"""Share of copies, crops and other views that `delg overlap` finds, at a rate of false alarms.

    python -m experiments.benchmarks.overlap_found --workdir=DIR [--data=DATA] [--weights=WEIGHTS]

Among the training images are, for each of some queries, a copy (recompressed, at 0.7 of the size),
a crop of half of the area, and other views, easy and hard. The rest are photographs that are
relevant to none of these queries; a false alarm is one of them that is reported. The table has the
share of each kind that is found, by the least number of inliers; its last row is at the number that
keeps false alarms within --rate. Photographs are rendered landmarks, or with --data those of
Revisited Oxford (DATA/roxford5k_1614). Writes overlap_found_DATA.json and .md.
"""

import math
import pathlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from configs import photos
from delg_jax import configuration
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data import ground_truth
from delg_jax.data.synthetic.facade import build_facade
from delg_jax.data.synthetic.render import render_view
from delg_jax.data.synthetic.street import build_street
from delg_jax.data.synthetic.world import generator, landmark_name
from delg_jax.reports import overlaps, tables
from delg_jax.training.named_weights import use_weights

KINDS = ("copy", "crop", "easy view", "hard view")
LEAST = (5, 10, 15, 20, 30, 45, 70, 100, 150)
_VIEWS = {"easy": 3, "hard": 2}  # of each query, in photographs
_RENDERED = {"easy": ("mild", "close"), "hard": ("oblique", "far")}  # kinds of views
_CANDIDATES = 50
_SIDES = (256, 384)  # of a rendered photograph and its facade, pixels
_FAMILIES = 12  # of rendered landmarks: those of one family look alike


class Photograph(NamedTuple):
    """A photograph that is read when it is needed.

    Attributes:
      name: unique, without ending.
      read: returns it.
    """

    name: str
    read: Callable[[], Image.Image]


class Planted(NamedTuple):
    """A query, and what shows the same.

    Attributes:
      query: the test picture.
      views: by kind, `easy` or `hard`, those to plant.
    """

    query: Photograph
    views: dict[str, list[Photograph]]


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "workdir", None, "Folder of pictures and features.", True)
    text = "Folder with roxford5k_1614; empty to render."
    arguments.define_path(values, "data", "", text)
    text = "Weights of a backbone, as of delg extract --weights."
    flags.DEFINE_string("weights", "efficientnet_lite0", text, flag_values=values)
    flags.DEFINE_integer("queries", 6, "Queries, each of another landmark.", 1, flag_values=values)
    flags.DEFINE_integer("others", 40, "Unrelated photographs.", 1, flag_values=values)
    text = "Largest share of unrelated photographs that may be reported."
    flags.DEFINE_float("rate", 0.05, text, 0.0, 1.0, flag_values=values)
    flags.DEFINE_string("method", "local+sp", "Search, as of delg overlap.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Plants, searches and prints the table."""
    root = pathlib.Path(values.workdir)
    if values.data:
        data = pathlib.Path(values.data) / "roxford5k_1614"
        planted, others = photographs(data, values.queries, values.others)
    else:
        planted, others = rendered(values.queries, values.others)
    kinds = plant(root, planted, others)
    fields = {
        "data.root": str(root / "train"),
        "extract.max_size": 512,
        "extract.local_scales": (0.70710677, 1.0),
        "extract.global_scales": (1.0,),
    }
    config = configuration.override(photos.get_config(), fields)
    use_weights(config, values.weights)
    least = min(LEAST)
    overlaps.write_overlaps(
        config, root, str(root / "tests"), root / "found", values.method, _CANDIDATES, least, 0
    )
    inliers = inliers_of(root / "found" / "overlap.csv", kinds)
    rows = [shares(inliers, kinds, number) for number in LEAST]
    counts = Counter(kind for kind, _ in kinds.values())
    chosen = at_rate(inliers, kinds, values.rate)
    text = _text(rows, chosen, values.rate, counts)
    content = {"method": values.method, "weights": values.weights, "counts": dict(counts)}
    content |= {"rate": values.rate, "at_rate": chosen, "rows": rows}
    name = f"overlap_found_{'roxford_1614' if values.data else 'rendered'}"
    harness.write_result(values.results, name, content, text, config=config)
    print(text, end="")


def _text(
    rows: list[dict[str, Any]], chosen: dict[str, Any], rate: float, counts: Counter[str]
) -> str:
    header = ("least inliers", *KINDS, "false alarms")
    cells = [
        (str(row["least"]), *(f"{row[kind]:.0%}" for kind in KINDS), f"{row['false alarms']:.1%}")
        for row in [*rows, chosen]
    ]
    about = f"{counts['other']} unrelated photographs, and of each kind "
    about += ", ".join(f"{counts[kind]} ({kind})" for kind in KINDS)
    about += f". The last row is the least number with false alarms within {rate:.1%}"
    return f"{tables.markdown(header, cells)}\n\n{about}.\n"


def photographs(data: pathlib.Path, count: int, others: int) -> tuple[list[Planted], list]:
    """Photographs of Revisited Oxford.

    Args:
      data: photographs and ground truth.
      count: queries, each of another landmark.
      others: unrelated photographs.

    Returns:
      The queries with their views, and the unrelated photographs.
    """
    content = ground_truth.read(data / "gnd_roxford5k.json")

    def photograph(name: str) -> Photograph:
        return Photograph(name, lambda: Image.open(data / "jpg" / f"{name}.jpg").convert("RGB"))

    planted: dict[str, Planted] = {}
    related: set[int] = set()
    for query, entry in zip(content["qimlist"], content["gnd"], strict=True):
        landmark = query.rpartition("_")[0]
        for name in ("easy", "hard", "junk"):
            related.update(entry[name])
        enough = all(len(entry[name]) >= least for name, least in _VIEWS.items())
        if landmark in planted or len(planted) == count or not enough:
            continue
        views = {
            name: [photograph(content["imlist"][index]) for index in entry[name][:number]]
            for name, number in _VIEWS.items()
        }
        planted[landmark] = Planted(photograph(query), views)
    unrelated = [i for i in range(len(content["imlist"])) if i not in related]
    chosen = np.random.default_rng(0).choice(unrelated, others, replace=False)
    return list(planted.values()), [photograph(content["imlist"][index]) for index in chosen]


def rendered(count: int, others: int) -> tuple[list[Planted], list[Photograph]]:
    """Rendered landmarks, one for each query and one for each unrelated photograph.

    Args:
      count: queries.
      others: unrelated photographs, some of families that queries are of, too.

    Returns:
      As `photographs`.
    """
    street, order = build_street(0), [kind for kinds in _RENDERED.values() for kind in kinds]

    def photograph(landmark: int, view: int, kind: str) -> Photograph:
        def render() -> Image.Image:
            facade = build_facade(0, landmark, landmark % _FAMILIES, _SIDES[1])
            rng = generator(0, "view", landmark, view)
            return Image.fromarray(render_view(rng, facade, street, kind, _SIDES[0]).image)

        return Photograph(f"{landmark_name(landmark)}_{kind}", render)

    planted = []
    for landmark in range(count):
        views: dict[str, list[Photograph]] = {
            name: [photograph(landmark, order.index(kind) + 1, kind) for kind in kinds]
            for name, kinds in _RENDERED.items()
        }
        planted.append(Planted(photograph(landmark, 0, "query"), views))
    return planted, [photograph(n, 0, "mild") for n in range(count, count + others)]


def plant(
    root: pathlib.Path, planted: list[Planted], others: list[Photograph]
) -> dict[str, tuple[str, str]]:
    """Writes `train` and `tests` below `root`.

    Args:
      root: folder to write to.
      planted: queries with their views.
      others: unrelated photographs.

    Returns:
      Kind of each training image and the query that it belongs to, by name.
    """
    kinds: dict[str, tuple[str, str]] = {}
    for name in ("train", "tests"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)

    def train(picture: Image.Image, name: str, kind: str, query: str, quality: int = 90) -> None:
        if name not in kinds:  # one photograph may be a view of several queries
            picture.save(root / "train" / f"{name}.jpg", quality=quality)
            kinds[name] = (kind, query)

    for query, views in planted:
        picture = query.read()
        picture.save(root / "tests" / f"{query.name}.jpg", quality=95)
        width, height = picture.size
        copy = picture.resize((round(0.7 * width), round(0.7 * height)), Image.Resampling.LANCZOS)
        train(copy, f"copy_{query.name}", "copy", query.name, 70)
        margin = (1 - 0.5**0.5) / 2
        box = [round(share * side) for share in (margin, 1 - margin) for side in (width, height)]
        train(picture.crop(box), f"crop_{query.name}", "crop", query.name, 85)
        for name, found in views.items():
            for view in found:
                train(view.read(), view.name, f"{name} view", query.name)
    for other in others:
        train(other.read(), other.name, "other", "")
    return kinds


def inliers_of(path: pathlib.Path, kinds: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """Most inliers of each training image with its own query, or of an unrelated one with any.

    Args:
      path: the table that `delg overlap` writes.
      kinds: as `plant` returns them.

    Returns:
      Inliers by name, 0 for images that are not in the table.
    """
    inliers = dict.fromkeys(kinds, 0)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, image, count = line.removesuffix("\r").split(",")
        image, query = image.removesuffix(".jpg"), query.removesuffix(".jpg")
        kind, own = kinds[image]
        if kind == "other" or own == query:
            inliers[image] = max(inliers[image], int(count))
    return inliers


def shares(
    inliers: Mapping[str, int], kinds: Mapping[str, tuple[str, str]], least: int
) -> dict[str, Any]:
    """Share of each kind with `least` inliers or more; of unrelated ones as `false alarms`."""
    total = Counter(kind for kind, _ in kinds.values())
    found = Counter(kind for image, (kind, _) in kinds.items() if inliers[image] >= least)
    row: dict[str, Any] = {"least": least, "false alarms": found["other"] / total["other"]}
    return row | {kind: found[kind] / max(total[kind], 1) for kind in KINDS}


def at_rate(
    inliers: Mapping[str, int], kinds: Mapping[str, tuple[str, str]], rate: float
) -> dict[str, Any]:
    """The shares at the least number of inliers with no more false alarms than `rate`."""
    others = sorted(inliers[image] for image, (kind, _) in kinds.items() if kind == "other")
    allowed = math.floor(rate * len(others))
    least = others[-allowed - 1] + 1 if allowed < len(others) else min(LEAST)
    return shares(inliers, kinds, max(least, min(LEAST)))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
