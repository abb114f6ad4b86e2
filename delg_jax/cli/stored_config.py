"""Uses the configuration stored in a workdir where a command line names no config file."""

import contextlib
import inspect
import pathlib
import traceback
from collections.abc import Iterator, Sequence

import ml_collections
from absl import flags

from delg_jax import config_files, configuration, workdir
from delg_jax.errors import UserError

FEATURES = ("features/database", "features/images")
# Outputs whose configuration a verb takes, the first that a workdir has
PLACES = (*FEATURES, "checkpoints")


def find(folder: pathlib.Path, places: Sequence[str] = PLACES) -> ml_collections.ConfigDict | None:
    """The configuration of an output in a workdir.

    Args:
      folder: the workdir.
      places: of outputs, in the order of preference.

    Returns:
      The locked tree; None if the workdir has no such output.

    Raises:
      UserError: if the stored configuration is damaged, or has fields that this version lacks.
    """
    there = (place for place in places if (folder / place / workdir.CONFIG_FILE).is_file())
    place = next(there, None)
    if place is None:
        return None
    stored = workdir.stored_config(folder / place)
    unknown = sorted(stored.keys() - configuration.flatten(config_files.run("default")).keys())
    if unknown:
        rule = f"was made by another version, with the field {unknown[0]}, which this one does "
        raise UserError("workdir", str(folder), f"{rule}not know; use that one, or extract again")
    return configuration.unflatten(stored).lock()


def read(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the database's features in a workdir; a UserError without features."""
    found = find(folder, FEATURES)
    if found is None:
        rule = "must be a workdir with features; run delg extract --config=... first"
        raise UserError("workdir", str(folder), rule)
    return found


@contextlib.contextmanager
def of_this_version(values: flags.FlagValues) -> Iterator[None]:
    """Turns the lack of a field in a stored configuration into a UserError.

    A field is absent if it was added to the program after the workdir was made.

    Args:
      values: parsed flags; a `--config` file is not affected.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        stored = "config" in values and isinstance(
            values["config"].default, ml_collections.ConfigDict
        )
        if not stored or raised_in != inspect.getfile(ml_collections.ConfigDict):
            raise
        field = " ".join(str(error).split()).strip("'\"")
        rule = f"was made by another version, without the field {field}; pass its --config, or "
        raise UserError("workdir", values.workdir, f"{rule}extract again") from error
