"""Uses the configuration stored with a workdir's features instead of a config file."""

import contextlib
import inspect
import pathlib
import traceback
from collections.abc import Iterator

import ml_collections
from absl import flags
from ml_collections import config_flags

from delg_jax import configuration, workdir
from delg_jax.cli import arguments
from delg_jax.errors import UserError


def define(values: flags.FlagValues, argv: list[str], folder: str) -> None:
    """Defines `--config` with the stored configuration as its default.

    Args:
      values: gets the flag.
      argv: the verb's command line, from which overrides of fields are read.
      folder: the workdir.

    Raises:
      UserError: if there are no features with a configuration, or an override has an unknown field.
    """
    text = "Config file; by default the configuration of the features in the workdir. "
    text += "--config.field=value overrides a field."
    stored = read(pathlib.Path(folder))
    try:
        config_flags.DEFINE_config_dict("config", stored, text, flag_values=values, sys_argv=argv)
    except (AttributeError, KeyError) as error:  # an override of an unknown field
        raise arguments.explain(error, "delg search", argv) from error


def read(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the database's features in a workdir; errors as for `define`."""
    features = folder / "features" / "database"
    if not (features / workdir.CONFIG_FILE).is_file():
        rule = "must be a workdir with features; run delg extract --config=... first"
        raise UserError("workdir", str(folder), rule)
    return configuration.unflatten(workdir.stored_config(features)).lock()


@contextlib.contextmanager
def of_this_version(values: flags.FlagValues) -> Iterator[None]:
    """Turns the lack of a field in a stored configuration into a UserError.

    A field is absent if it was added to the program after the workdir was made.

    Args:
      values: parsed flags, with `--config` and `--workdir`; a `--config` file is not affected.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        stored = isinstance(values["config"].default, ml_collections.ConfigDict)
        if not stored or raised_in != inspect.getfile(ml_collections.ConfigDict):
            raise
        field = " ".join(str(error).split()).strip("'\"")
        rule = f"was made by another version, without the field {field}; pass its --config, or "
        raise UserError("workdir", values.workdir, f"{rule}extract again") from error
