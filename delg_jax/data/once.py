"""Preparation of TFDS data that several processes may begin at the same time."""

import tensorflow_datasets as tfds


def prepare_once(builder: tfds.core.DatasetBuilder, **options: object) -> None:
    """Prepares unless that is done; of several processes the first to finish counts.

    Args:
      builder: of data that do not depend on the process.
      **options: of `download_and_prepare`.
    """
    try:
        builder.download_and_prepare(**options)
    except FileExistsError:  # TFDS renames a whole folder at the end, and another was faster
        builder.info.read_from_directory(builder.data_path)
