"""Builds the similarity graph by searching the database for each of its images.

Writes index/graph in the workdir, unless config.rerank.mds.graph is on_the_fly; with
--features=global, index/global_graph, which global diffusion uses. Also builds the index of an
approximate config.search.engine. Missing features are extracted first. The same command resumes a
stopped run; new images are added to an existing graph.

On many machines, run the same command once per process, with a shared workdir (see `delg train`
for how processes find each other); the processes share the work.
"""

import pathlib

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_weights(values)
    arguments.define_processes(values)
    text = "Features to compute similarities from."
    flags.DEFINE_enum("features", "local", ["local", "global"], text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Builds the graph and prints its size."""
    from delg_jax import distributed
    from delg_jax.features import extract
    from delg_jax.search.engine_choice import build_engine
    from delg_jax.search.index import FOLDERS, build_index

    arguments.use_weights(values)
    config, workdir, kind = values.config, values.workdir, values.features
    with arguments.processes(values):
        extracted = extract(config, workdir, values.overwrite)
        kept = build_engine(config, workdir, values.overwrite, extracted)
        graph = None
        if kind == "global" or config.rerank.mds.graph == "stored":
            graph = build_index(config, workdir, values.overwrite, extracted, kind)
        if distributed.is_first():
            if graph is None:
                print("config.rerank.mds.graph = 'on_the_fly': no graph is stored")
            else:
                images, neighbours = graph.indices.shape
                folder = pathlib.Path(workdir) / "index" / FOLDERS[kind]
                print(f"{folder}: {images} images, {neighbours} neighbours each")
            if kept is not None:
                print(f"{kept}: index of the engine {config.search.engine}")
