"""Downloads published data sets into the folder of all data sets.

    delg download --list
    delg download roxford5k rparis6k --data=DIR --dry_run
    delg download roxford5k gldv2 --data=DIR

DIR/roxford5k and the others are what config.data.root, config.data.distractors and the --data of
the tables in experiments take. What is there is kept, a broken download is resumed, and archives
are compared with the published sums where there are any.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError

POSITIONAL = "[NAME ...]"
_PARALLEL = 4
_MOST_PARALLEL = 64


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    del argv
    text = "Folder of all data sets; each gets a folder in it."
    arguments.define_path(values, "data", "data", text)
    text = "Print the data sets with their files, sizes and licences, and do nothing."
    flags.DEFINE_boolean("list", False, text, flag_values=values)
    text = "Print what would be downloaded, with bytes as the servers give them, and do nothing."
    flags.DEFINE_boolean("dry_run", False, text, flag_values=values)
    define_parallel(values)


def define_parallel(values: flags.FlagValues) -> None:
    """Defines `--parallel`."""
    text = "Downloads at a time."
    flags.DEFINE_integer("parallel", _PARALLEL, text, 1, _MOST_PARALLEL, flag_values=values)


def run(values: flags.FlagValues, *names: str) -> None:
    """Prints or downloads."""
    if values.list:
        _print_list()
        return
    if not names:
        raise UserError("delg download", "", "needs NAME ...; delg download --list shows them")
    download(names, pathlib.Path(values.data), values.parallel, values.dry_run)


def download(names: Sequence[str], root: pathlib.Path, parallel: int, dry_run: bool) -> None:
    """Prints what data sets lack, and downloads it unless it is a dry run.

    Args:
      names: of data sets.
      root: folder of all data sets.
      parallel: downloads at a time.
      dry_run: whether only to print.

    Raises:
      UserError: if something cannot be downloaded; before anything is, if no program can.
    """
    from delg_jax.data import published

    wanted = published.missing(names, root)
    by_hand = published.by_hand(names, root)
    sizes = published.sizes(wanted, parallel)
    for name in published.expand(names):
        mine = [size for one, size in zip(wanted, sizes, strict=True) if one.data == name]
        folder = root / published.PUBLISHED[name].folder
        what = f"{len(mine)} files, {sum(mine, published.Size())}" if mine else "complete"
        print(f"{name}: {by_hand.get(name, f'{what}, {folder}')}")
    print(f"total: {len(wanted)} files, {sum(sizes, published.Size())}")
    if dry_run:
        return
    for name, what in by_hand.items():
        raise UserError("data set", name, f"can only be had {what} (docs/data_sets.md)")
    published.download(names, root, wanted, sizes, parallel)


def _print_list() -> None:
    from delg_jax.data import published

    for name, data in published.PUBLISHED.items():
        about = published.size_on_page(data)
        size = f"{len(data.files)} files, {about}" if data.files else f"by hand, from {data.page}"
        print(f"{name}: {data.about}\n    {size}; in {data.folder}/; {data.licence}")
    for name, parts in published.GROUPS.items():
        print(f"{name}: {', '.join(parts)}")
