"""Builds the similarity graph: each database image searched against the database, once.

Leaves index/graph.npz in the workdir, and the features first if they are not there.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)


def run(values: flags.FlagValues) -> None:
    """Builds the graph and says how large it is."""
    from delg_jax.search.stage import build_index

    graph = build_index(values.config, values.workdir, values.overwrite)
    images, neighbours = graph.indices.shape
    print(f"{values.workdir}/index/graph.npz: {images} images, {neighbours} neighbours each")
