"""Latency and memory (appendix): milliseconds to extract an image, bytes to store it.

    python -m experiments.tables.latency_memory --size=quick --workdir=runs/quick

Uses random weights and random images of 1024 (paper), 512 (real) or 160 pixels (quick); the time
does not depend on their content. The paper's times are from a P100. Memory is that of descriptors
alone, with 1000 local features per image, in units of 2^30 bytes. Writes latency_memory_SIZE.json
and .md into --results.
"""

import sys

from configs import quickstart, revisited
from delg_jax.cli.main import run_experiment
from experiments.framework import extraction_cost, presets
from experiments.framework.experiment import Base, Column, Experiment, Row, Setting, Size
from experiments.framework.program import program

_TIME, _GLOBAL, _FLOAT, _BIT = (
    "ms an image",
    "GB of ROxf+1M, global",
    "GB, global and local float",
    "GB, local one bit",
)
_HERE = {"any": {}}
_THREE = {"extract.local_scales": presets.THREE_SCALES}
_WITHOUT = {"model.local_head": False}
_R101 = {"model.backbone": "resnet101"}
_WHOLE = ("paper", "real")


def _row(name, fields, milliseconds=None, gigabytes=(), where=("paper", "real", "quick")):
    known = {_TIME: milliseconds, **dict(zip((_GLOBAL, _FLOAT, _BIT), gigabytes, strict=False))}
    paper = {title: value for title, value in known.items() if value is not None}
    return Row(name, (Setting(name, (), None, fields),), "", paper, where)


EXPERIMENT = Experiment(
    name="latency_memory",
    place="Appendix: latency and memory",
    columns=(
        Column(_TIME, "any", "milliseconds", interval="range"),
        Column(_GLOBAL, "any", "gigabytes/global"),
        Column(_FLOAT, "any", "gigabytes/float32"),
        Column(_BIT, "any", "gigabytes/sign"),
    ),
    rows=(
        _row("R50 global", _WITHOUT, 100.0, (7.7,)),
        _row("R50-DELG, 3 scales", _THREE),
        _row("R50-DELG, 7 scales", {}, 211.0, (7.7, 485.0, 16.0)),
        _row("R101 global", {**_WITHOUT, **_R101}, where=_WHOLE),
        _row("R101-DELG, 3 scales", {**_R101, **_THREE}, where=_WHOLE),
        _row("R101-DELG, 7 scales", _R101, 383.0, (7.7, 485.0, 16.0), where=_WHOLE),
    ),
    sizes={
        "paper": Size(
            about="the paper's networks and images of 1024 pixels, on this machine",
            evaluation=Base(revisited.get_config),
            data=_HERE,
            of_paper=True,
        ),
        "real": Size(
            about="the paper's networks and images of 512 pixels, on this machine",
            evaluation=Base(revisited.get_config, overrides={"extract.max_size": 512}),
            data=_HERE,
        ),
        "quick": Size(
            about="a tiny network in place of R50 and images of 160 pixels, on this machine",
            evaluation=Base(
                quickstart.get_config,
                overrides={
                    "extract.max_size": 160,
                    "extract.local_scales": presets.SEVEN_SCALES,
                    "extract.batch_pixels": 0,
                },
            ),
            data=_HERE,
        ),
    },
    measure=extraction_cost.measure,
    note="In brackets: range of the repeats. The paper's times are from a P100; GB are 2^30 bytes.",
)
define_flags, run = program(EXPERIMENT)

if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
