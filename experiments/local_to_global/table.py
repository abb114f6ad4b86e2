"""Local-to-global beside global-to-local, and with --ablate the effect of each component.

    python -m experiments.local_to_global.table --size=quick --workdir=DIR [--ablate] [--graphs]

Only the abstract of the second paper is known, so the table has no numbers of the paper. --ablate
changes one field at a time, of all fields or of those in --fields; results of an earlier run for
other fields are kept if its base had the same metrics. Fields of the search are measured with local
search only, unless --graphs builds a similarity graph for each value. Writes
local_to_global_SIZE.json and .md, and local_to_global_ablation_SIZE.json and .md, into --results.
"""

import dataclasses
import pathlib
import sys

from absl import flags

from delg_jax import configuration, json_files
from delg_jax.benchmarks import harness
from delg_jax.cli.main import run_experiment
from delg_jax.errors import require_choice
from experiments.framework import presets, program, trainings
from experiments.framework.ablation import ablate, ablation_table
from experiments.framework.experiment import Claim, Experiment, Row, Setting, map_columns
from experiments.framework.runs import first_evaluation

# By field of config.search, its values
SEARCH = {
    "idf_images": (0, 100, 400, 1600),
    "threshold": (0.5, 0.55, 0.6, 0.65, 0.7),
    "max_features": (50, 100, 200, 400, 800),
    "kernel": ("identity", "threshold", "power", "cann"),
}
# By field of config.rerank.mds, its values
RERANK = {
    "short_list": (50, 100, 200, 400, 700),
    "method": ("profile", "kernel", "classical", "landmark", "smacof"),
    "dim": (5, 10, 20, 40),
    "scale_neighbours": (2, 3, 5, 10),
    "contrast": (1.0, 1.5, 2.0, 3.0),
    "neighbours": (0, 1, 3, 5, 10),
    "beta": (0.3, 0.6, 1.0),
    "weight": (0.0, 0.3, 0.6, 0.8, 1.0),
    "keep_first": (0, 1, 5),
    "background_rank": (0, 400, 800),
    "concat_weight": (0.2, 0.35, 0.5, 0.7, 0.9),
}
_METHODS = {
    "global": "global",
    "global-to-local": "global+sp",
    "global, SuperGlobal": "global+superglobal",
    "local": "local",
    "local, verified": "local+sp",
    "local, embedded": "local+mds",
    "local-to-global": "local+mds+global",
}
_SETTING = Setting("local_to_global", tuple(_METHODS.values()), trainings.JOINT)
_PROTOCOLS = ("easy", "medium", "hard")

EXPERIMENT = Experiment(
    name="local_to_global",
    place="Local-to-global (second paper): retrieval, mAP in percent",
    columns=(
        *map_columns("oxford", "ROxf", _PROTOCOLS),
        *map_columns("paris", "RPar", _PROTOCOLS),
    ),
    rows=tuple(Row(name, (_SETTING,), method) for name, method in _METHODS.items()),
    sizes={
        "paper": dataclasses.replace(
            presets.PAPER, evaluation=presets.with_local_to_global(presets.PAPER.evaluation)
        ),
        "real": presets.REAL_THREE_SCALES,
        "quick": presets.QUICK,
    },
    claims=(
        Claim("local-to-global", "global-to-local"),
        Claim("local-to-global", "local"),
        Claim("local, embedded", "local"),
        Claim("local", "global"),
    ),
)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    program.define_flags(EXPERIMENT, values, argv)
    flags.DEFINE_boolean(
        "ablate", False, "Run the ablation, one field at a time.", flag_values=values
    )
    text = "Build a similarity graph for each value of a field of the search."
    flags.DEFINE_boolean("graphs", False, text, flag_values=values)
    text = "Fields to change, such as rerank.mds.method; empty for all."
    flags.DEFINE_list("fields", [], text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prints the table of methods, then the table of each field of the ablation."""
    rerank, search = (
        {field: tried for field, tried in known.items() if _is_chosen(f"{section}.{field}", values)}
        for section, known in (("rerank.mds", RERANK), ("search", SEARCH))
    )
    if program.run(EXPERIMENT, values) is None or not values.ablate:
        return
    config, root = first_evaluation(EXPERIMENT, program.options(values))
    path = pathlib.Path(values.results) / f"local_to_global_ablation_{values.size}.json"
    before = {}
    if values.fields:
        before = json_files.read(path, "--results", json_files.each(json_files.anything)) or {}
    known, found = configuration.flatten(config), {}
    for field, rows in ablate(config, root, rerank, search, values.graphs):
        found[field] = rows
        print(f"\n{ablation_table(field, rows, str(known.get(field)))}", flush=True)
    if before.get("base") == found["base"]:
        found = {field: rows for field, rows in before.items() if field in known} | found
    texts = [ablation_table(field, rows, str(known.get(field))) for field, rows in found.items()]
    text = "\n\n".join(texts) + "\n\n\\* as configured\n"
    harness.write_result(values.results, path.stem, found, text, config=config)


def _is_chosen(path: str, values: flags.FlagValues) -> bool:
    """Returns whether to change a field; a UserError if --fields names an unknown one."""
    known = [f"rerank.mds.{field}" for field in RERANK] + [f"search.{field}" for field in SEARCH]
    for field in values.fields:
        require_choice("--fields", field, known)
    return not values.fields or path in values.fields


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
