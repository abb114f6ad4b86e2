"""What is behind and below a landmark: sky, ground, other houses and trees.

The houses and grounds are a pool shared by all landmarks of a world, and each view draws its own
from it, so that the background tells nothing about the landmark.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from delg_jax.data.synthetic.camera import Camera, Pyramid, transform, warp
from delg_jax.data.synthetic.materials import fractal, hsv, masonry, shade
from delg_jax.data.synthetic.world import generator

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
            roof = [
                (x - 2, top),
                (x + span / 2, top - int(rng.integers(6, 24))),
                (x + span + 2, top),
            ]
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
            middle, level = x + rng.normal(0, 9), rng.uniform(top, height - 8)
            draw.ellipse((middle - 9, level - 7, middle + 9, level + 9), (*leaf, 255))
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


SUPERSAMPLE = 2

# Draws one thing of a height (pixels) with its foot at (x, y).
Painter = Callable[[ImageDraw.ImageDraw, np.random.Generator, float, float, float], None]


def _person(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, height: float
) -> None:
    coat = hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.15, 0.8))
    legs = hsv(0.62, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.4))
    skin = hsv(0.06, rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.85))
    half, stride = 0.13 * height, rng.uniform(0.02, 0.1) * height
    for side in (-1, 1):
        leg = [(x, y - 0.5 * height), (x + side * stride, y)]
        draw.line(leg, fill=(*legs, 255), width=max(1, int(0.09 * height)))
    draw.rounded_rectangle(
        (x - half, y - 0.83 * height, x + half, y - 0.42 * height), 0.07 * height, (*coat, 255)
    )
    head = 0.075 * height
    draw.ellipse((x - head, y - height, x + head, y - 0.83 * height), (*skin, 255))


def _tree(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, height: float
) -> None:
    trunk = max(1, int(0.05 * height))
    draw.line([(x, y), (x, y - 0.55 * height)], fill=(70, 52, 40, 255), width=trunk)
    leaf = hsv(rng.uniform(0.2, 0.36), rng.uniform(0.3, 0.65), rng.uniform(0.2, 0.5))
    for blob in range(45):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        across = x + 0.26 * height * reach * np.cos(angle)
        up = y - 0.68 * height + 0.29 * height * reach * np.sin(angle)
        size = rng.uniform(0.03, 0.075) * height
        tint = shade(leaf, rng.uniform(0.7, 1.0) + 0.008 * blob)
        draw.ellipse((across - size, up - size, across + size, up + size), (*tint, 255))


def _vehicle(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, height: float
) -> None:
    body = hsv(rng.random(), rng.uniform(0.0, 0.8), rng.uniform(0.2, 0.9))
    half = height * rng.uniform(1.1, 1.6)
    cabin = rng.uniform(0.4, 0.85) * half
    radius = 0.15 * height
    top = (x - cabin, y - height, x + cabin, y - 0.4 * height)
    draw.rounded_rectangle(top, radius, (*shade(body, 0.9), 255))
    panes = int(rng.integers(2, 5))
    for pane in range(panes):
        left = x - 0.9 * cabin + 1.8 * cabin * pane / panes
        right = left + 1.6 * cabin / panes
        draw.rectangle((left, y - 0.9 * height, right, y - 0.58 * height), (60, 75, 90, 255))
    lower = (x - half, y - 0.58 * height, x + half, y - 0.15 * height)
    draw.rounded_rectangle(lower, radius, (*body, 255))
    for side in (-0.6, 0.6):
        wheel = x + side * half
        draw.ellipse(
            (wheel - 0.2 * height, y - 0.36 * height, wheel + 0.2 * height, y + 0.04 * height),
            (25, 25, 28, 255),
        )


def _lamp(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, height: float
) -> None:
    iron = shade((60, 64, 66), rng.uniform(0.5, 1.2))
    arm = rng.choice([-1, 1]) * rng.uniform(0.0, 0.18) * height
    post = [(x, y), (x, y - 0.95 * height), (x + arm, y - height)]
    draw.line(post, fill=(*iron, 255), width=max(1, int(0.022 * height)))
    bulb = 0.03 * height
    lamp = (x + arm - bulb, y - 1.03 * height, x + arm + bulb, y - 0.95 * height)
    draw.ellipse(lamp, (235, 225, 190, 255))


# Painter, range of heights as a share of the facade's longer side, and how common it is.
_KINDS: tuple[tuple[Painter, float, float, float], ...] = (
    (_person, 0.09, 0.14, 0.5),
    (_tree, 0.35, 0.75, 0.2),
    (_vehicle, 0.1, 0.18, 0.2),
    (_lamp, 0.35, 0.55, 0.1),
)


def draw_occluders(
    rng: np.random.Generator, camera: Camera, facade_size: tuple[int, int], count: int, near: float
) -> np.ndarray:
    """Draws things that stand on the ground before the facade.

    Args:
      rng: source of the draws.
      camera: the camera.
      facade_size: (width, height) of the facade in facade pixels.
      count: how many.
      near: how near to the camera they may come: 0 at the facade, 1 at the camera.

    Returns:
      float32 [H, W, 4]: colour times cover, and cover, in [0, 1].
    """
    width, height = camera.size
    image = Image.new("RGBA", (width * SUPERSAMPLE, height * SUPERSAMPLE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    shares = np.array([kind[3] for kind in _KINDS])
    right, down = np.eye(3)[:2]
    for share in np.sort(rng.uniform(0.02, near, count)):  # far ones first
        painter, low, high, _ = _KINDS[rng.choice(len(_KINDS), p=shares)]
        tall = rng.uniform(low, high) * max(facade_size)
        foot = np.array([rng.uniform(-0.1, 1.1) * facade_size[0], facade_size[1], 0.0])
        foot += share * np.array([camera.centre[0] - foot[0], 0.0, camera.centre[2]])
        upright = camera.plane_homography(foot, right, down)
        ends = transform(upright, np.array([(0.0, 0.0), (0.0, -tall)]))
        if np.isnan(ends).any():
            continue
        (x, y), (_, top) = ends * SUPERSAMPLE
        painter(draw, rng, x, y, float(np.clip(y - top, 2, 4 * height)))
    pixels = np.asarray(image.reduce(SUPERSAMPLE), np.float32) / 255
    return np.dstack([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]])
