"""Builds the similarity graph by searching the database for each of its images.

Writes index/graph in the workdir; with --features=global, index/global_graph, which global
diffusion uses. Also builds the index of an approximate config.search.engine. Missing features are
extracted first. The same command resumes a stopped run; new images are added to an existing graph.

On many machines, run the same command once per process, with --coordinator, --num_processes and
--process_id; the processes share the work.
"""

import pathlib

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_processes(values)
    text = "Features to compute similarities from."
    flags.DEFINE_enum("features", "local", ["local", "global"], text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Builds the graph and prints its size."""
    from delg_jax import distributed
    from delg_jax.search.engine_choice import build_engine
    from delg_jax.search.index import FOLDERS, build_index

    distributed.initialize(values.coordinator, values.num_processes, values.process_id)
    kind = values.features
    graph = build_index(values.config, values.workdir, values.overwrite, features=kind)
    images, neighbours = graph.indices.shape
    folder = pathlib.Path(values.workdir) / "index" / FOLDERS[kind]
    if distributed.is_first():
        print(f"{folder}: {images} images, {neighbours} neighbours each")
        kept = build_engine(values.config, values.workdir, values.overwrite)
        if kept is not None:
            print(f"{kept}: index of the engine {values.config.search.engine}")
