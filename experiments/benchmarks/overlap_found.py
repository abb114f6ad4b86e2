"""Share of copies, crops and other views that `delg overlap` finds, by rate of false alarms.

    python -m experiments.benchmarks.overlap_found --data=DATA --weights=WEIGHTS --workdir=DIR

Training images are photographs of Revisited Oxford (DATA/roxford5k_1614). Among them are, for each
of some queries, a copy (recompressed, at 0.7 of the size), a crop of half of the area, and other
views: positives of its ground truth, easy and hard. The rest are photographs that are relevant to
none of these queries; a false alarm is one of them that is reported. The table has the share of
each kind that is found, by the least number of inliers. Writes overlap_found.json and .md.
"""

import pathlib
import shutil
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from configs import photos
from delg_jax import configuration
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data import ground_truth
from delg_jax.reports import overlaps, tables

KINDS = ("copy", "crop", "easy view", "hard view")
LEAST = (5, 8, 10, 12, 15, 20, 30)
_VIEWS = {"easy": 3, "hard": 2}  # of each query
_CANDIDATES = 50


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "data", None, "Folder with roxford5k_1614.", required=True)
    text = "Folder with resnet18_imagenet.npz."
    arguments.define_path(values, "weights", None, text, required=True)
    arguments.define_path(values, "workdir", None, "Folder of pictures and features.", True)
    flags.DEFINE_integer("queries", 8, "Queries, each of another landmark.", 1, flag_values=values)
    flags.DEFINE_integer("others", 64, "Unrelated photographs.", 1, flag_values=values)
    flags.DEFINE_string("method", "local+sp", "Search, as of delg overlap.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Plants, searches and prints the table."""
    root = pathlib.Path(values.workdir)
    kinds = plant(pathlib.Path(values.data) / "roxford5k_1614", root, values.queries, values.others)
    fields = {
        "data.root": str(root / "train"),
        "model.backbone": "resnet18",
        "model.pretrained": f"{values.weights}/resnet18_imagenet.npz",
        "extract.max_size": 512,
        "extract.local_scales": (0.70710677, 1.0),
        "extract.global_scales": (1.0,),
    }
    config = configuration.override(photos.get_config(), fields)
    least = min(LEAST)
    overlaps.write_overlaps(
        config, root, str(root / "tests"), root / "found", values.method, _CANDIDATES, least, 0
    )
    rows = tables_of(root / "found" / "overlap.csv", kinds)
    header = ("least inliers", *KINDS, "false alarms")
    cells = [
        (str(row["least"]), *(f"{row[kind]:.0%}" for kind in KINDS), f"{row['false alarms']:.1%}")
        for row in rows
    ]
    counts = Counter(kind for kind, _ in kinds.values())
    text = f"{tables.markdown(header, cells)}\n"
    content = {"method": values.method, "counts": dict(counts), "rows": rows}
    harness.write_result(values.results, "overlap_found", content, text)
    print(text, end="")


def plant(data: pathlib.Path, root: pathlib.Path, count: int, others: int) -> dict[str, tuple]:
    """Writes `train` and `tests` below `root`.

    Args:
      data: photographs and ground truth.
      root: folder to write to.
      count: queries, each of another landmark.
      others: unrelated photographs.

    Returns:
      Kind of each training image and the query that it belongs to, by name.
    """
    content = ground_truth.read(data / "gnd_roxford5k.json")
    kinds: dict[str, tuple[str, str]] = {}
    for name in ("train", "tests"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    related, used = set(), set()
    for query, entry in zip(content["qimlist"], content["gnd"], strict=True):
        landmark = query.rpartition("_")[0]
        enough = all(len(entry[name]) >= least for name, least in _VIEWS.items())
        for name in ("easy", "hard", "junk"):
            related.update(entry[name])
        if landmark in used or len(used) == count or not enough:
            continue
        used.add(landmark)
        picture = Image.open(data / "jpg" / f"{query}.jpg")
        picture.save(root / "tests" / f"{query}.jpg", quality=95)
        width, height = picture.size
        copy = picture.resize((round(0.7 * width), round(0.7 * height)), Image.Resampling.LANCZOS)
        copy.save(root / "train" / f"copy_{query}.jpg", quality=70)
        kinds[f"copy_{query}"] = ("copy", query)
        margin = (1 - 0.5**0.5) / 2
        box = [round(share * side) for share in (margin, 1 - margin) for side in (width, height)]
        picture.crop(box).save(root / "train" / f"crop_{query}.jpg", quality=85)
        kinds[f"crop_{query}"] = ("crop", query)
        for name, views in _VIEWS.items():
            for index in entry[name][:views]:
                image = content["imlist"][index]
                shutil.copy(data / "jpg" / f"{image}.jpg", root / "train")
                kinds.setdefault(image, (f"{name} view", query))
    unrelated = [i for i in range(len(content["imlist"])) if i not in related]
    for index in np.random.default_rng(0).choice(unrelated, others, replace=False):
        image = content["imlist"][index]
        shutil.copy(data / "jpg" / f"{image}.jpg", root / "train")
        kinds[image] = ("other", "")
    return kinds


def tables_of(path: pathlib.Path, kinds: dict[str, tuple]) -> list[dict[str, Any]]:
    """Shares of each kind that are found with their own query, by least number of inliers."""
    inliers: dict[str, int] = defaultdict(int)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, image, count = line.removesuffix("\r").split(",")
        image, query = image.removesuffix(".jpg"), query.removesuffix(".jpg")
        kind, own = kinds[image]
        if kind == "other" or own == query:
            inliers[image] = max(inliers[image], int(count))
    rows = []
    for least in LEAST:
        found = Counter(kind for image, (kind, _) in kinds.items() if inliers[image] >= least)
        total = Counter(kind for kind, _ in kinds.values())
        row: dict[str, Any] = {"least": least, "false alarms": found["other"] / total["other"]}
        rows.append(row | {kind: found[kind] / max(total[kind], 1) for kind in KINDS})
    return rows


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
