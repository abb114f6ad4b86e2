"""How long a training is: the images that it sees, and its epochs."""

import dataclasses

import ml_collections

from delg_jax import config_files
from delg_jax.errors import UserError

# Images of the published data sets; of gldv1 those of the paper (section 4.1)
PUBLISHED = {"gldv1": 1_200_000, "gldv2": 4_132_914, "gldv2_clean": 1_580_470}


@dataclasses.dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
      steps: number of updates.
      batch_size: images in an update.
      train_images: images to learn from.
    """

    steps: int
    batch_size: int
    train_images: int

    @property
    def images_seen(self) -> int:
        """Images in all updates."""
        return self.steps * self.batch_size

    @property
    def epochs(self) -> float:
        """How often each image is seen."""
        return self.images_seen / self.train_images

    def __str__(self) -> str:
        """Returns one line for a reader."""
        return (
            f"{self.images_seen:,} images in {self.steps:,} steps of {self.batch_size}: "
            f"{self.epochs:.1f} epochs of {self.train_images:,} images"
        )


def of_config(config: ml_collections.ConfigDict, train_images: int) -> Length:
    """The length of the training that a configuration describes, on a number of images."""
    return Length(config.train.steps, config.train.batch_size, train_images)


def of_recipe(name: str) -> Length:
    """The length of a recipe on its published data set, as `--config` names it.

    Args:
      name: config file or name of one of ours, and its argument after a colon, for example
        `delg_r50_gld:devices=32`.

    Raises:
      UserError: if the number of images of its data set is not published.
    """
    file, _, argument = name.partition(":")
    config = config_files.run(file, argument)
    images = PUBLISHED.get(config.data.name)
    if images is None:
        rule = f"has no published number of images, as {', '.join(PUBLISHED)} have"
        raise UserError("config.data.name", config.data.name, rule)
    return of_config(config, round(images * (1 - config.data.validation_share)))
