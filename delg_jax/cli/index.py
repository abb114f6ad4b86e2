"""Builds the similarity graph: each database image searched against the database, once.

Leaves index/graph in the workdir, and the features first if they are not there. A job that was
stopped goes on where it was; new images complete the graph that is there. With --features=global
the graph of the global descriptors, index/global_graph, for diffusion. The index of an approximate
config.search.engine is built, too.

On many machines, the same command runs once in each process, with --coordinator, --num_processes
and --process_id; they share the work.
"""

import pathlib

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_processes(values)
    text = "Features whose similarities are taken."
    flags.DEFINE_enum("features", "local", ["local", "global"], text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Builds the graph and says how large it is."""
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
