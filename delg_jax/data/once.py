"""Preparation of TFDS data that several processes may begin at the same time."""

import tensorflow_datasets as tfds


def prepare_once(builder: tfds.core.DatasetBuilder, **options: object) -> bool:
    """Prepares unless that is done; of several processes the first to finish counts.

    Args:
      builder: of data that do not depend on the process.
      **options: of `download_and_prepare`.

    Returns:
      Whether the data are those that this process prepared.
    """
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare(**options)
            return True
        except FileExistsError:  # TFDS renames a whole folder at the end, and another was faster
            pass
    builder.info.read_from_directory(builder.data_path)
    return False
