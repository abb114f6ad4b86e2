"""What is behind and below a landmark: sky, ground, other houses and trees.

The houses and grounds are a pool shared by all landmarks of a world, and each view draws its own
from it, so that the background tells nothing about the landmark.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from delg_jax.data.embedded.camera import Camera
from delg_jax.data.embedded.pyramid import Pyramid
from delg_jax.data.embedded.seeds import generator
from delg_jax.data.embedded.style import hsv, shade
from delg_jax.data.embedded.texture import fractal, masonry
from delg_jax.data.embedded.warp import warp

POOL = 8
STRIP = (512, 128)  # width and height of a row of houses, pixels
TILE = 128  # side of a ground texture, pixels


@dataclasses.dataclass(frozen=True)
class Street:
    """The pool of backgrounds of a world.

    Attributes:
      houses: pyramids of float32 [128, 512, 4]: colour times cover, and cover.
      grounds: pyramids of float32 [128, 128, 1], tones about 1.
    """

    houses: tuple[Pyramid, ...]
    grounds: tuple[Pyramid, ...]


def build_street(seed: int) -> Street:
    """Draws the pool of backgrounds of the world with a seed."""
    rngs = [generator(seed, "street", item) for item in range(POOL)]
    return Street(
        houses=tuple(Pyramid(_houses(rng), mirror=(True, False)) for rng in rngs),
        grounds=tuple(Pyramid(_ground(rng), mirror=(True, True)) for rng in rngs),
    )


def _houses(rng: np.random.Generator) -> np.ndarray:
    width, height = STRIP
    image = Image.new("RGBA", STRIP, (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    x = 0
    while x < width:
        span, top = int(rng.integers(30, 90)), int(height * rng.uniform(0.05, 0.6))
        colour = hsv(rng.uniform(0.0, 0.15), rng.uniform(0.05, 0.5), rng.uniform(0.35, 0.85))
        draw.rectangle((x, top, x + span, height), (*colour, 255))
        if rng.random() < 0.5:
            roof = [(x - 2, top), (x + span / 2, top - rng.integers(6, 24)), (x + span + 2, top)]
            draw.polygon(roof, (*shade(colour, 0.5), 255))
        glass = (*shade(colour, rng.uniform(0.3, 0.6)), 255)
        step_x, step_y = int(rng.integers(9, 16)), int(rng.integers(13, 22))
        for left in range(x + 4, x + span - 6, step_x):
            for upper in range(top + 5, height - 8, step_y):
                draw.rectangle((left, upper, left + step_x // 2, upper + step_y // 2), glass)
        x += span + int(rng.integers(0, 12))
    for _ in range(int(rng.integers(2, 9))):
        x, top = int(rng.integers(width)), int(height * rng.uniform(0.3, 0.75))
        leaf = hsv(rng.uniform(0.2, 0.38), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.5))
        for _ in range(12):
            left, upper = x + rng.normal(0, 9), rng.uniform(top, height - 8)
            draw.ellipse((left - 9, upper - 7, left + 9, upper + 9), (*leaf, 255))
            leaf = shade(leaf, rng.uniform(0.9, 1.12))
    pixels = np.asarray(image, np.float32) / 255
    grain = 1 + 0.12 * fractal(rng, (height, width), 60, 2)
    return np.dstack([pixels[..., :3] * grain[..., None] * pixels[..., 3:], pixels[..., 3:]])


def _ground(rng: np.random.Generator) -> np.ndarray:
    tone = 1 + 0.25 * fractal(rng, (TILE, TILE), 12, 4)
    if rng.random() < 0.6:
        course = rng.uniform(6, 16)
        slabs, _ = masonry(rng, (TILE, TILE), course, course * rng.uniform(1, 2.5), 0.2, 0.12)
        tone = tone * slabs
    return tone[..., None]


def draw_background(
    rng: np.random.Generator,
    street: Street,
    camera: Camera,
    grid: np.ndarray,
    facade_size: tuple[int, int],
) -> np.ndarray:
    """Renders sky, ground and a row of houses behind the landmark.

    Args:
      rng: source of the view's draws.
      street: pool of backgrounds.
      camera: the camera.
      grid: float [H * W, 2], pixel positions of the image.
      facade_size: (width, height) of the facade in facade pixels.

    Returns:
      float32 [H * W, 3], about 0 to 1.
    """
    width, height = camera.size
    extent, floor = max(facade_size), facade_size[1]
    to_right, to_depth, to_ground = np.eye(3)[[0, 2, 1]]
    image = _sky(rng, (height, width)).reshape(-1, 3)

    ground = camera.plane_homography(to_ground * floor, to_right, to_depth)
    zoom = rng.uniform(0.5, 1.2) * 320 / extent
    # A ground seen at a low angle is squeezed in depth more than its area tells: blur one level.
    tone = warp(street.grounds[rng.integers(POOL)], ground, grid, zoom, blur=1.0)
    hue, saturation = (0.1, 0.12) if rng.random() < 0.75 else (0.27, 0.45)
    colour = np.array(hsv(hue, saturation, rng.uniform(0.3, 0.7)), np.float32) / 255
    image = np.where(tone > 0, tone * colour[None, :], image)

    zoom = STRIP[1] / (extent * rng.uniform(0.35, 1.1))
    depth = rng.uniform(0.05, 1.2) * extent
    origin = np.array([rng.uniform(-4, 4) * extent, floor - STRIP[1] / zoom, depth])
    upright = camera.plane_homography(origin, to_right, to_ground)
    row = warp(street.houses[rng.integers(POOL)], upright, grid, zoom, blur=0.5)
    haze = rng.uniform(0.0, 0.35)
    cover = row[:, 3:]
    return image * (1 - cover) + (1 - haze) * row[:, :3] + haze * 0.8 * cover


def _sky(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    height, _ = shape
    overcast = rng.random() < 0.4
    if overcast:
        zenith, low = hsv(0.6, 0.08, 0.75), hsv(0.6, 0.03, rng.uniform(0.8, 0.95))
    else:
        zenith = hsv(rng.uniform(0.55, 0.62), rng.uniform(0.4, 0.65), rng.uniform(0.6, 0.9))
        low = hsv(rng.choice([0.08, 0.57]), 0.18, 0.93)
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    upper, lower = (np.array(colour, np.float32)[None, None, :] / 255 for colour in (zenith, low))
    clouds = np.clip(fractal(rng, shape, rng.uniform(2, 5), 4) * 1.5, 0, 1)[..., None]
    return (upper * (1 - share) + lower * share) * (1 - 0.6 * clouds) + 0.55 * clouds
