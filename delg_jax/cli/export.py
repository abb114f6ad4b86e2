"""Writes the model, or the features of an experiment, for programs that know nothing of this one.

    stablehlo  the network, its weights and the whole extraction in one file for jax.export: image
               in, features out; beside it, as .json, its inputs and outputs
    hloc       the features of database and queries, one HDF5 file; extracts what is missing
    delf       the same as a folder of .delg_local and .delg_global files

An output that exists is refused without --overwrite.
"""

import pathlib
import re

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError, require_choice

# Format: the output's name under the workdir, where the command line gives none.
_OUTPUTS = {"stablehlo": "model.stablehlo", "hloc": "features.h5", "delf": "delf"}


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    formats = ", ".join(_OUTPUTS)
    flags.DEFINE_string("format", "stablehlo", f"One of {formats}.", flag_values=values)
    arguments.define_path(
        values,
        "output",
        None,
        f"File or folder to write; without it {', '.join(_OUTPUTS.values())} in the workdir.",
    )
    flags.DEFINE_string(
        "canvas",
        None,
        "Of stablehlo: ROWSxCOLUMNS of the largest picture, which every picture costs as much as; "
        "without it a square of config.extract.max_size.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "platforms",
        None,
        "Of stablehlo: what it shall run on, with commas; without it cpu,cuda,tpu.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Exports and says where to."""
    require_choice("--format", values.format, tuple(_OUTPUTS))
    output = values.output or pathlib.Path(values.workdir) / _OUTPUTS[values.format]
    if values.format == "stablehlo":
        print(_export_model(values, output))
        return
    for name in ("canvas", "platforms"):
        if values[name].value is not None:
            raise UserError(f"--{name}", values[name].value, "is for --format=stablehlo alone")
    from delg_jax.features.formats.exported import export_features

    overwrite = values.overwrite
    print(export_features(values.config, values.workdir, values.format, output, overwrite))


def _export_model(values: flags.FlagValues, output: str | pathlib.Path) -> pathlib.Path:
    from delg_jax.features import stablehlo

    options = {}
    if values.canvas is not None:
        options["canvas"] = _parse_canvas(values.canvas)
    if values.platforms is not None:
        options["platforms"] = tuple(values.platforms.split(","))
        for platform in options["platforms"]:
            require_choice("--platforms", platform, stablehlo.PLATFORMS)
    return stablehlo.export_model(
        values.config, values.workdir, output, overwrite=values.overwrite, **options
    )


def _parse_canvas(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if not sides:
        raise UserError("--canvas", text, "must be ROWSxCOLUMNS in pixels, for example 512x768")
    return int(sides[1]), int(sides[2])
