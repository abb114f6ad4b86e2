"""Checks every chunk of a feature store against its checksum.

    delg verify WORKDIR/features/database

Names each damaged or missing file. With --repair, damaged chunks are deleted and their images
marked as missing, and delg extract, called as before, makes these again.
"""

import pathlib

from absl import flags

from delg_jax.errors import UserError
from delg_jax.progress import Progress

POSITIONAL = "STORE"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    text = "Delete damaged chunks, so that delg extract makes them again."
    flags.DEFINE_boolean("repair", False, text, flag_values=values)


def run(values: flags.FlagValues, *folders: str) -> None:
    """Reads the store and says what is damaged.

    Raises:
      UserError: if something is damaged and stays so.
    """
    from delg_jax.features import store_check
    from delg_jax.features.store import FeatureStore

    if len(folders) > 1:
        raise UserError("delg verify", " ".join(folders), "must be one STORE")
    store = FeatureStore(pathlib.Path(folders[0]))
    with Progress("verify", store_check.size(store), "B") as progress:
        damages = list(store_check.verify(store, progress.advance))
    for damage in damages:
        print(
            f"{damage.path}: {damage.array} of rows {damage.rows.start} to "
            f"{damage.rows.stop - 1}: {damage.reason}"
        )
    if not damages:
        print(f"{store.folder}: {len(store)} images, every chunk as it was written")
    elif values.repair:
        missing = store_check.repair(store, damages)
        print(f"{store.folder}: {missing} images to be extracted again, by delg extract")
    else:
        rule = f"has {len(damages)} damaged chunks; --repair prepares it for delg extract"
        raise UserError("feature store", str(store.folder), rule)
