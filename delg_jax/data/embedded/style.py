"""What the landmarks of a family share, so that they look alike from afar."""

import colorsys
import dataclasses

from delg_jax.data.embedded.canvas import Colour
from delg_jax.data.embedded.seeds import generator
from delg_jax.data.embedded.texture import WALLS

HEADS = ("square", "arch", "pointed", "square", "arch")
CROWNS = ("flat", "gable", "stepped", "dome", "battlement", "spire")

# Hue range, saturation range and value range of plausible wall materials.
_MATERIALS = (
    ((0.00, 0.05), (0.35, 0.60), (0.50, 0.75)),  # red brick
    ((0.07, 0.13), (0.12, 0.35), (0.65, 0.90)),  # sandstone
    ((0.08, 0.12), (0.30, 0.55), (0.70, 0.92)),  # ochre
    ((0.50, 0.65), (0.03, 0.12), (0.50, 0.85)),  # granite
    ((0.20, 0.45), (0.08, 0.25), (0.55, 0.80)),  # green render
    ((0.55, 0.62), (0.15, 0.35), (0.60, 0.85)),  # blue render
    ((0.95, 1.00), (0.12, 0.30), (0.70, 0.90)),  # rose render
    ((0.05, 0.10), (0.25, 0.45), (0.30, 0.48)),  # dark wood or slate
)


@dataclasses.dataclass(frozen=True)
class Style:
    """Parameters of a family of landmarks.

    Attributes:
      wall: kind of wall, a key of `texture.WALLS`.
      course: height of a brick in units (the longer side of a facade is 100).
      wall_colour: RGB.
      trim_colour: RGB of cornices, frames and carvings.
      roof_colour: RGB.
      accent_colour: RGB of doors, signs and mosaics.
      glass_colour: RGB.
      head: form of the windows' upper end.
      crown: form of the upper end of the facade.
      aspect: width / height.
      floors: number of floors.
      columns: number of window columns.
    """

    wall: str
    course: float
    wall_colour: Colour
    trim_colour: Colour
    roof_colour: Colour
    accent_colour: Colour
    glass_colour: Colour
    head: str
    crown: str
    aspect: float
    floors: int
    columns: int


def shade(colour: Colour, factor: float) -> Colour:
    """Returns the colour made lighter (factor above 1) or darker."""
    red, green, blue = (min(int(channel * factor), 255) for channel in colour)
    return (red, green, blue)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Returns the RGB colour, 0 to 255, of hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (int(255 * red), int(255 * green), int(255 * blue))


def family_style(seed: int, family: int) -> Style:
    """Returns the style of a family.

    Args:
      seed: seed of the world.
      family: number of the family.

    Returns:
      Its style, the same for all its landmarks.
    """
    rng = generator(seed, "style", family)
    hue, saturation, value = _MATERIALS[rng.integers(len(_MATERIALS))]
    wall_colour = hsv(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
    pale = rng.random() < 0.6
    tower = rng.random() < 0.35
    return Style(
        wall=sorted(WALLS)[rng.integers(len(WALLS))],
        course=rng.uniform(1.5, 2.4),
        wall_colour=wall_colour,
        trim_colour=hsv(0.11, rng.uniform(0.03, 0.2), rng.uniform(0.82, 0.97))
        if pale
        else shade(wall_colour, rng.uniform(0.5, 0.7)),
        roof_colour=hsv(*((0.03, 0.5, 0.5), (0.6, 0.1, 0.4), (0.42, 0.3, 0.55))[rng.integers(3)]),
        accent_colour=hsv(rng.random(), rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.65)),
        glass_colour=hsv(rng.uniform(0.5, 0.65), rng.uniform(0.1, 0.35), rng.uniform(0.18, 0.4)),
        head=HEADS[rng.integers(len(HEADS))],
        crown=CROWNS[rng.integers(len(CROWNS))],
        aspect=rng.uniform(0.42, 0.58) if tower else rng.uniform(0.75, 1.35),
        floors=int(rng.integers(4, 7)) if tower else int(rng.integers(3, 5)),
        columns=int(rng.integers(2, 4)) if tower else int(rng.integers(4, 7)),
    )
