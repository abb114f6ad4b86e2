"""Finds a picture in the database and prints the best images with their scores.

The score is what the method ranks by: a similarity, with a method that ends in +sp the number of
inliers; with global+superglobal it is the similarity of the search before.
Uses the workdir's network and features, and makes the features first if they are not there.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError
from delg_jax.reports import tables


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    flags.DEFINE_string("image", None, "File of the picture.", flag_values=values)
    flags.mark_flag_as_required("image", flag_values=values)
    flags.DEFINE_string(
        "box", None, "Part of the picture to look for: x1,y1,x2,y2 in pixels.", flag_values=values
    )
    rule = "global or local search, with or without re-ranking: global, global+sp, "
    rule += "global+superglobal, global+qe, global+diffusion, local, local+sp, local+mds, "
    rule += "local+mds+global or local+diffusion."
    flags.DEFINE_string("method", "global", rule, flag_values=values)
    flags.DEFINE_integer("top", 10, "Images to print.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Searches and prints the table."""
    from delg_jax.evaluation.query import search_image

    hits = search_image(
        values.config,
        values.workdir,
        values.image,
        _box(values.box),
        values.method,
        values.top,
        values.overwrite,
    )
    score = "inliers" if values.method.endswith("+sp") else "score"
    rows = [(str(rank), hit.name, f"{hit.score:.4g}") for rank, hit in enumerate(hits, start=1)]
    print(tables.markdown(("rank", "image", score), rows))


def _box(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(side) for side in text.split(","))
    except ValueError as error:
        rule = "must be four numbers x1,y1,x2,y2 in pixels"
        raise UserError("--box", text, rule) from error
    if not (x1 < x2 and y1 < y2):
        raise UserError("--box", text, "must have x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
