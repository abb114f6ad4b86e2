"""Data of the query explorer of the page: queries, results, matches; plain values for JSON."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.errors import UserError
from delg_jax.progress import Progress
from delg_jax.reports.local_feature_views import UNIT, LocalFeatureViews, Shape
from delg_jax.reports.method_results import MethodResult, choose_queries, ground_truth, top_images
from delg_jax.reports.result_images import Thumbnails
from delg_jax.reports.workdir_results import WorkdirResults


@dataclasses.dataclass(frozen=True)
class PageSettings:
    """Amount of content of the page.

    Attributes:
      top: images shown per method and query.
      queries: number of queries listed; 0 for all.
      choose: which queries come first, see `method_results.choose_queries`.
      pictures: number of queries, from the start of the list, with pictures and matches.
      megabytes: maximum size of all pictures.
    """

    top: int = 10
    queries: int = 1000
    choose: str = "changed"
    pictures: int = 60
    megabytes: float = 16.0

    def __post_init__(self) -> None:
        """Raises a UserError that names the first wrong value."""
        for name, least in (("top", 1), ("queries", 0), ("pictures", 0), ("megabytes", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise UserError(f"--{name}", value, f"must be at least {least}")


class Explorer:
    """Collects the queries of one group of runs.

    Args:
      runs: of the group; notes on what cannot be shown are added to them.
      results: of the methods of the group, by label.
      settings: see `PageSettings`.
    """

    def __init__(
        self,
        runs: Sequence[WorkdirResults],
        results: dict[str, MethodResult],
        settings: PageSettings,
    ) -> None:
        self._runs, self._labelled, self._settings = runs, results, settings
        self._results = list(results.values())
        self._truth = ground_truth(runs)
        self._thumbnails = Thumbnails(settings.megabytes * 1e6)
        self._data = next((run.data for run in runs if run.data is not None), None)
        self._views = [self._local_features(run) for run in runs]
        self._images: dict[int, int] = {}  # index in the page by index in the database
        self.chosen = choose_queries(self._results, settings.choose, settings.queries)

    def content(self) -> dict[str, Any]:
        """All data that the scripts of the page read."""
        names, images = self._runs[0].names or ([], [])
        listed = [self._query(number, names[number]) for number in self.chosen]
        shown: dict[str, Any] = {"imagePictures": {}, "matches": {}, "spots": {}}
        first = self.chosen[: self._settings.pictures]
        with Progress("pictures and matches", len(first), "query") as progress:
            for query, number in zip(listed, first, strict=False):
                self._add_pictures(query, number, shown)
                progress.advance()
        return {
            "protocols": list(PROTOCOLS),
            "runs": [str(run.folder) for run in self._runs],
            "minInliers": [views and views.min_inliers for views in self._views],
            "methods": [
                {
                    "label": label,
                    "run": result.run,
                    "firstStage": result.first_stage,
                    "baseline": result.baseline,
                }
                for label, result in self._labelled.items()
            ],
            "queries": listed,
            "images": [images[number] for number in self._images],
            "pictures": self._thumbnails.pictures,
            "leftOut": self._thumbnails.left_out,
            **shown,
        }

    def _local_features(self, run: WorkdirResults) -> LocalFeatureViews | None:
        if run.database is None or run.queries is None:
            return None
        try:
            return LocalFeatureViews(run, self._data)
        except UserError as error:
            run.notes.append(f"Matches are not shown: {error}.")
            return None

    def _query(self, number: int, name: str) -> dict[str, Any]:
        """A row of the list, with the results of every method."""
        entry = None if self._truth is None else self._truth[number]
        found = []
        for protocol in PROTOCOLS:
            by_method = []
            for result in self._results:
                first = None if result.first_stage is None else self._results[result.first_stage]
                before = None if first is None else first.rankings[protocol][number]
                order, top = result.rankings[protocol][number], self._settings.top
                by_method.append(
                    [
                        [self._images.setdefault(hit.image, len(self._images)), *hit[1:]]
                        for hit in top_images(order, before, entry, protocol, top)
                    ]
                )
            found.append(by_method)
        precisions = [
            [_rounded(result.precisions[protocol][number]) for result in self._results]
            for protocol in PROTOCOLS
        ]
        return {"number": number, "name": name, "precisions": precisions, "found": found}

    def _add_pictures(self, query: dict[str, Any], number: int, shown: dict[str, Any]) -> None:
        """Adds pictures, matches and attention of a query and its results."""
        numbers = list(self._images)
        query["picture"] = self._picture("queries", number)
        shape = self._thumbnails.shape(("queries", number))
        box = None if self._truth is None else self._truth[number]["bbx"]
        query["box"] = None if shape is None or box is None else _box(box, shape)
        images = shown["imagePictures"]
        for run, place in sorted(_pairs(query, self._results)):
            image = numbers[place]
            if place not in images:
                images[place] = self._picture("database", image)
            self._add_matches(run, number, image, place, shown)

    def _add_matches(
        self, run: int, number: int, image: int, place: int, shown: dict[str, Any]
    ) -> None:
        """Adds matches of a pair of images and the attention of both, by one run."""
        views = self._views[run]
        if views is None:
            return
        shapes = (
            self._thumbnails.shape(("queries", number)),
            self._thumbnails.shape(("database", image)),
        )
        shown["matches"][f"{run}/{number}/{place}"] = views.matches(number, image, shapes)
        spots = shown["spots"]
        if f"{run}/q{number}" not in spots:
            spots[f"{run}/q{number}"] = views.attention("queries", number, shapes[0])
        if f"{run}/{place}" not in spots:
            spots[f"{run}/{place}"] = views.attention("database", image, shapes[1])

    def _picture(self, split: str, number: int) -> int | None:
        if self._data is None:
            return None
        source = getattr(self._data, split)
        return self._thumbnails.add((split, number), functools.partial(source.read, number))


def _pairs(query: dict[str, Any], results: Sequence[MethodResult]) -> set[tuple[int, int]]:
    """Runs, and images (index in the page) that a method of the run shows for a query."""
    return {
        (result.run, hit[0])
        for by_method in query["found"]
        for result, hits in zip(results, by_method, strict=True)
        for hit in hits
    }


def _box(box: Sequence[float], shape: Shape) -> list[int]:
    """x, y, width and height of a query's box, in thousandths of its picture."""
    rows, columns = shape
    ends = zip(box, (columns, rows, columns, rows), strict=True)
    x1, y1, x2, y2 = (min(max(round(UNIT * end / side), 0), UNIT) for end, side in ends)
    return [x1, y1, max(x2 - x1, 0), max(y2 - y1, 0)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
