"""Extracts the features of database and queries into the workdir.

Leaves features/database, features/queries and, where images were bad, skipped.csv in them. Uses
the network of the workdir's checkpoints/, of config.model.checkpoint, or config.model.pretrained.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)


def run(values: flags.FlagValues) -> None:
    """Extracts and says where the stores are."""
    from delg_jax.features import extract

    extracted = extract(values.config, values.workdir, values.overwrite)
    for store in (extracted.database, extracted.queries):
        print(f"{store.folder}: {len(store)} images, {len(store.skipped())} skipped")
