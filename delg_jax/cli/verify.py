"""Checks every chunk of a feature store against its checksum.

    delg verify WORKDIR/features/database

Lists damaged and missing files. With --repair, damaged chunks are deleted and their images marked
as missing; the same delg extract command as before then extracts them again. A store that an
interrupted --repair or delg extract left is repaired too.
"""

import pathlib

from absl import flags

from delg_jax.errors import UserError
from delg_jax.progress import Progress

POSITIONAL = "STORE"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    text = "Delete damaged chunks; delg extract then extracts their images again."
    flags.DEFINE_boolean("repair", False, text, flag_values=values)


def run(values: flags.FlagValues, *folders: str) -> None:
    """Checks the store and prints what is damaged; a UserError if damage remains."""
    from delg_jax.features import store_check
    from delg_jax.features.store import FeatureStore

    if len(folders) > 1:
        raise UserError("delg verify", " ".join(folders), "must be one STORE")
    store = FeatureStore(pathlib.Path(folders[0]), whole=not values.repair)
    with Progress("verify", store_check.size(store), "B") as progress:
        damages = list(store_check.verify(store, progress.advance))
    for damage in damages:
        print(
            f"{damage.path}: {damage.array} of rows {damage.rows.start} to "
            f"{damage.rows.stop - 1}: {damage.reason}"
        )
    if not damages and store.is_whole():
        print(f"{store.folder}: {len(store)} images, no damaged chunks")
    elif values.repair:
        missing = store_check.repair(store, damages)
        print(f"{store.folder}: {missing} images to extract again, by delg extract")
    else:
        rule = f"has {len(damages)} damaged chunks; --repair deletes them for delg extract"
        raise UserError("feature store", str(store.folder), rule)
