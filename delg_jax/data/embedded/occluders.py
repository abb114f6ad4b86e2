"""People, trees, vehicles and lamps that stand between the camera and a landmark."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from delg_jax.data.embedded.camera import Camera, transform
from delg_jax.data.embedded.style import hsv, shade

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
