"""Times one kernel beside a peer on the same inputs.

    global, local, verify, mds    beside NumPy
    verify_opencv                 beside NumPy matching and OpenCV's RANSAC
    verify_official               beside SciPy's k-d tree and scikit-image's RANSAC, as the official
                                  code combines them
    extract_r18_3, extract_r18_7, extract_r50_3, extract_r50_7
                                  extraction with ResNet-18 or -50 and 3 or 7 scales, beside a
                                  PyTorch loop of batch 1 with the same weights; --size=gpu or
                                  gpu_bfloat16 for photographs of 1024 pixels

    delg bench global --repeats=9 --output=global.json

The two take turns after a warm-up; compilation is timed apart. The peer of local is the bare matrix
product inside it, a bound and not an equal; that of verify does fewer image pairs, times are per
pair.
"""

import pathlib
from typing import Any

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
    if "operations" in result:
        print(_rates(result))
    if values.output:
        artefacts.write_json(pathlib.Path(values.output), result)


def _rates(result: dict[str, Any]) -> str:
    ours, peer = (result[side]["units_per_second"] for side in ("ours", "peer"))
    share = 100 * result["operations"]["share"]
    return (
        f"{result['unit']}s a second: {ours:.3g}, peer {peer:.3g}; "
        f"{share:.0f} % of the peak of matrix products"
    )
