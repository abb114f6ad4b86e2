"""Times one kernel beside a peer on the same inputs.

    global, local, verify, mds    beside NumPy
    verify_opencv                 beside NumPy matching and OpenCV's RANSAC
    verify_official               beside SciPy's k-d tree and scikit-image's RANSAC, as the official
                                  code combines them

    delg bench global --repeats=9 --output=global.json

The two take turns after a warm-up; compilation is timed apart. The peer of local is the bare matrix
product inside it, a bound and not an equal; that of verify does fewer image pairs, times are per
pair.
"""

import pathlib

from absl import flags

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.reports import tables

POSITIONAL = "NAME"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_integer("repeats", 5, "Timed calls of each.", flag_values=values)
    flags.DEFINE_string("size", "standard", "standard, or tiny for a trial.", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file for the numbers.", flag_values=values)


def run(values: flags.FlagValues, *names: str) -> None:
    """Times and prints the table."""
    from delg_jax.evaluation.benchmarks import bench

    if len(names) > 1:
        raise UserError("delg bench", " ".join(names), "must be one NAME")
    result = bench(names[0], values.repeats, values.size)
    print(tables.benchmark_table(result))
    if values.output:
        artefacts.write_json(pathlib.Path(values.output), result)
