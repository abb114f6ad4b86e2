"""Training images that show what test photographs show, which makes a test too easy.

They are found by search and written as a table, drawings, and a list of images to leave out.
"""

import base64
import csv
import dataclasses
import io
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import ml_collections
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from delg_jax import configuration, workdir
from delg_jax.data import ImageSource, exclusion, images, listing
from delg_jax.errors import UserError
from delg_jax.progress import Progress
from delg_jax.reports import matches
from delg_jax.retrieval.searcher import Query, Searcher, check_request

_LOG = logging.getLogger(__name__)

_WIDTH, _QUALITY = 900, 70  # of a drawing: pixels, and of JPEG
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Overlap</title>
<style>body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}
img{max-width:100%}figure{margin:0 0 2em}</style>
"""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training image that shows what a test photograph shows.

    Attributes:
      query: name of the test photograph.
      image: index of the training image.
      name: of the training image.
      inliers: of the geometry that both share.
    """

    query: str
    image: int
    name: str
    inliers: int


def find_overlaps(
    searcher: Searcher,
    queries: Iterable[tuple[str, np.ndarray]],
    method: str,
    candidates: int,
    min_inliers: int,
    seen: Callable[[Query, np.ndarray, list[Overlap]], None] = lambda *_: None,
) -> Iterator[Overlap]:
    """Searches the training images for test photographs, and verifies the geometry of the hits.

    Args:
      searcher: opened on the training images.
      queries: name and uint8 [H, W, 3] of each test photograph.
      method: of the search, one of `methods.METHODS`; candidates of `...+sp` are verified already,
        those of other methods here, by the same rule.
      candidates: images verified for each test photograph, the first of its ranking.
      min_inliers: fewer are no overlap.
      seen: called after each test photograph with its features, pixels and overlaps.

    Yields:
      Overlaps, in the order of test photographs, the one with the most inliers first.
    """
    for name, picture in queries:
        query = searcher.query(picture)
        found = []
        for hit in searcher.search(query, method, candidates).hits:
            inliers = hit.score
            if not method.endswith("+sp"):
                inliers = searcher.matches(query, hit.image).verification.inlier_mask.sum()
            if inliers >= min_inliers:
                found.append(Overlap(name, hit.image, hit.name, int(inliers)))
        found.sort(key=lambda overlap: -overlap.inliers)
        seen(query, picture, found)
        yield from found


def overlapping_images(overlaps: Iterable[Overlap]) -> list[str]:
    """Names of the training images, each once, sorted."""
    return sorted({overlap.name for overlap in overlaps})


class Written(NamedTuple):
    """Counts of a report.

    Attributes:
      queries: test photographs.
      skipped: of them, those that could not be read.
      shown: of them, those that overlap.
      images: training images that overlap.
    """

    queries: int
    skipped: int
    shown: int
    images: int


def write_overlaps(
    config: ml_collections.ConfigDict,
    train: str | pathlib.Path,
    queries: str,
    output: str | pathlib.Path,
    method: str = "local+sp",
    candidates: int = 50,
    min_inliers: int = 0,
    pictures: int = 100,
) -> Written:
    """Finds training images that show what test photographs show, and writes what it found.

    Args:
      config: of the features of the training images.
      train: workdir with these features.
      queries: test photographs, as `listing.open_images` takes them.
      output: folder; gets `overlap.csv`, `overlap.html` and `exclude.txt`.
      method: of the search, one of `methods.METHODS`.
      candidates: training images that are verified for each test photograph.
      min_inliers: least inliers of an overlap; 0 for `config.rerank.sp.min_inliers`.
      pictures: overlaps that are drawn.

    Returns:
      The counts.

    Raises:
      UserError: for a wrong method, or pictures or features that cannot be used.
    """
    min_inliers = min_inliers or config.rerank.sp.min_inliers
    fields = {"rerank.sp.min_inliers": min_inliers, "rerank.sp.short_list": candidates}
    config = configuration.override(config, fields)
    check_request(method, candidates, config)
    source = listing.open_images(queries, "QUERIES")
    searcher = Searcher(config, train)
    skipped: list[str] = []
    drawings: list[tuple[Overlap, str]] = []

    def draw(query: Query, picture: np.ndarray, found: list[Overlap]) -> None:
        drawings.extend((one, _drawing(searcher, query, picture, one)) for one in found[:pictures])
        drawings.sort(key=lambda entry: -entry[0].inliers)
        del drawings[pictures:]

    tested = _photographs(source, config.data.min_side, config.data.max_pixels, skipped)
    found = list(find_overlaps(searcher, tested, method, candidates, min_inliers, draw))
    if len(skipped) == len(source):
        raise UserError("QUERIES", queries, f"must have pictures that can be read ({skipped[0]})")
    about = f"{len(overlapping_images(found))} training images share {min_inliers} or more inliers "
    about += f"with test pictures of {queries} ({method}, {candidates} candidates each)"
    folder = pathlib.Path(output)
    with workdir.where_writable(f"{folder}: the overlap"):
        folder.mkdir(parents=True, exist_ok=True)
        workdir.write_text(folder / "overlap.csv", _table(found))
        workdir.write_text(folder / "overlap.html", _page(about, found, drawings))
        text = exclusion.listing(overlapping_images(found), about)
        workdir.write_text(folder / "exclude.txt", text)
    shown = len({one.query for one in found})
    return Written(len(source), len(skipped), shown, len(overlapping_images(found)))


def _photographs(
    source: ImageSource, min_side: int, max_pixels: int, skipped: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Decodes test photographs; those that cannot be are logged and added to `skipped`."""
    suffix = getattr(source, "suffix", "")
    with Progress("overlap", len(source)) as progress:
        for index, name in enumerate(source.names):
            try:
                picture = images.decode(source.read(index), min_side, max_pixels)
            except (OSError, images.BadImageError) as error:
                skipped.append(f"{name}{suffix}: {error}")
                _LOG.warning("skipped %s", skipped[-1])
            else:
                yield f"{name}{suffix}", picture
            progress.advance()


def _drawing(searcher: Searcher, query: Query, picture: np.ndarray, one: Overlap) -> str:
    """Both pictures with their inliers, as a data URL."""
    data = searcher.config.data
    other = images.decode(searcher.source.read(one.image), data.min_side, data.max_pixels)
    found = searcher.matches(query, one.image)
    drawn: Image.Image = matches.draw(
        (picture, other), found.locations, found.verification.inlier_mask
    )
    drawn.thumbnail((_WIDTH, _WIDTH))
    encoded = io.BytesIO()
    drawn.save(encoded, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _table(found: list[Overlap]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", "image", "inliers"))
    writer.writerows((one.query, one.name, one.inliers) for one in found)
    return text.getvalue()


def _page(about: str, found: list[Overlap], drawings: list[tuple[Overlap, str]]) -> str:
    parts = [Markup(_HEAD), Markup("<h1>Overlap</h1><p>{}.</p>").format(about)]
    parts.append(Markup("<p>{} pairs, {} shown.</p>").format(len(found), len(drawings)))
    for one, drawing in drawings:
        caption = f"{one.query} and {one.name}: {one.inliers} inliers"
        figure = '<figure><figcaption>{0}</figcaption><img alt="{0}" src="{1}"></figure>\n'
        parts.append(Markup(figure).format(escape(caption), drawing))
    return "".join(parts)
