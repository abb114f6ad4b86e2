"""Exports the model, or the features of an experiment, for other programs.

    stablehlo  the network with its weights and the whole extraction (image in, features out) in
               one file for jax.export, and a .json file that describes inputs and outputs
    hloc       the features of database and queries in one HDF5 file
    delf       the same in a folder of .delg_local and .delg_global files
    ames       the same in a folder of the HDF5 files that AMES and ELViS re-rank

hloc, delf and ames extract missing features first. An existing output is only replaced with
--overwrite.
"""

import pathlib
import re

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError, require_choice

# Default name of the output in the workdir, by format
_OUTPUTS = {"stablehlo": "model.stablehlo", "hloc": "features.h5", "delf": "delf", "ames": "ames"}


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_weights(values)
    formats = ", ".join(_OUTPUTS)
    flags.DEFINE_string("format", "stablehlo", f"One of {formats}.", flag_values=values)
    arguments.define_path(
        values,
        "output",
        None,
        f"File or folder to write; by default {', '.join(_OUTPUTS.values())} in the workdir.",
    )
    flags.DEFINE_string(
        "canvas",
        None,
        "For stablehlo: ROWSxCOLUMNS of the largest image; every image takes as long as this one. "
        "By default a square of config.extract.max_size.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "platforms",
        None,
        "For stablehlo: comma-separated platforms to run on; by default cpu,cuda,tpu.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Exports and prints the path of the output."""
    arguments.use_weights(values)
    require_choice("--format", values.format, tuple(_OUTPUTS))
    output = values.output or pathlib.Path(values.workdir) / _OUTPUTS[values.format]
    if values.format == "stablehlo":
        print(_export_model(values, output))
        return
    for name in ("canvas", "platforms"):
        if values[name].value is not None:
            raise UserError(f"--{name}", values[name].value, "is only for --format=stablehlo")
    from delg_jax.features.formats.exported import export_features

    overwrite = values.overwrite
    print(export_features(values.config, values.workdir, values.format, output, overwrite))


def _export_model(values: flags.FlagValues, output: str | pathlib.Path) -> pathlib.Path:
    from delg_jax.features import stablehlo

    canvas = None if values.canvas is None else _parse_canvas(values.canvas)
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
    if values.platforms is not None:
        platforms = tuple(values.platforms.split(","))
        for platform in platforms:
            require_choice("--platforms", platform, stablehlo.PLATFORMS)
    return stablehlo.export_model(
        values.config,
        values.workdir,
        output,
        canvas=canvas,
        platforms=platforms,
        overwrite=values.overwrite,
    )


def _parse_canvas(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if not sides:
        raise UserError("--canvas", text, "must be ROWSxCOLUMNS in pixels, for example 512x768")
    return int(sides[1]), int(sides[2])
