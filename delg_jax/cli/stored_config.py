"""The configuration that a workdir's features were made with, in the place of a config file."""

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
    """Defines `--config` with the stored configuration; `--config.field=value` overrides a field.

    Args:
      values: gets the flag.
      argv: the verb's command line, which overrides are read from.
      folder: the workdir.

    Raises:
      UserError: if there are no features with a configuration, or an override names no field of it.
    """
    text = "Config file; without it the configuration of the features in the workdir. "
    text += "--config.field=value overrides a field."
    stored = read(pathlib.Path(folder))
    try:
        config_flags.DEFINE_config_dict("config", stored, text, flag_values=values, sys_argv=argv)
    except (AttributeError, KeyError) as error:  # an override of an unknown field
        raise arguments.explain(error, "delg search", argv) from error


def read(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the database's features in a workdir, as a tree; errors as `define`."""
    features = folder / "features" / "database"
    if not (features / workdir.CONFIG_FILE).is_file():
        rule = "must be a workdir with features; delg extract makes them, with a --config"
        raise UserError("workdir", str(folder), rule)
    return configuration.unflatten(workdir.stored_config(features)).lock()


@contextlib.contextmanager
def of_this_version(values: flags.FlagValues) -> Iterator[None]:
    """Says in one line if a field that is asked for in the block is not in a stored configuration.

    Args:
      values: parsed flags, with `--config` and `--workdir`; only what `define` read is looked at.

    Raises:
      UserError: if so; the program has got the field after the workdir was made.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        stored = isinstance(values["config"].default, ml_collections.ConfigDict)
        if not stored or raised_in != inspect.getfile(ml_collections.ConfigDict):
            raise
        field = " ".join(str(error).split()).strip("'\"")
        rule = f"was made by another version, without the field {field}; name its --config, or "
        raise UserError("workdir", values.workdir, f"{rule}make it again") from error
