"""Light on a facade, and what a camera's sensor makes of it."""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from delg_jax.data.embedded import facade as channels

RELIEF_SLOPE = 0.022  # slope of the surface for a grey level a facade pixel


@dataclasses.dataclass(frozen=True)
class Light:
    """The light and the exposure of a view.

    Attributes:
      direction: float [3], unit, towards the sun: to the right, down, out of the facade.
      ambient: share of light that comes from everywhere, 0 to 1.
      colour: float [3], gain of the sensor for red, green and blue.
      gamma: contrast; above 1 darkens the middle tones.
      sky: float [3], what the panes reflect.
      shadow_edge: float [3], line (a, b, c) with a x + b y + c = 0 in facade shares (0 to 1)
        beyond which another building's shadow lies.
      blur: radius in pixels.
      noise: standard deviation of the sensor's noise, 0 to 1.
    """

    direction: np.ndarray
    ambient: float
    colour: np.ndarray
    gamma: float
    sky: np.ndarray
    shadow_edge: np.ndarray
    blur: float
    noise: float


def draw_light(rng: np.random.Generator, harsh: float) -> Light:
    """Draws the light of a view.

    Args:
      rng: source of the draws.
      harsh: 0 for an ordinary day, 1 for the worst light, blur and noise.
    """
    azimuth, height = rng.uniform(-1.2, 1.2), rng.uniform(0.25, 1.1)
    direction = np.array([np.sin(azimuth), -np.tan(height) * 0.8, np.cos(azimuth)])
    warm = rng.uniform(-1, 1) * (0.08 + 0.1 * harsh)
    exposure = np.exp(rng.uniform(-1, 0.6) * (0.22 + 0.33 * harsh))
    angle = rng.uniform(0, 2 * np.pi)
    shaded = rng.random() < 0.25 + 0.3 * harsh
    return Light(
        direction=direction / np.linalg.norm(direction),
        ambient=rng.uniform(0.45, 0.75),
        colour=exposure * np.array([1 + warm, 1.0, 1 - warm]),
        gamma=np.exp(rng.uniform(-1, 1) * (0.12 + 0.2 * harsh)),
        sky=np.array([0.55, 0.65, 0.8]) * rng.uniform(0.3, 1.1),
        shadow_edge=np.array(
            [np.cos(angle), np.sin(angle), rng.uniform(-0.9, -0.1) if shaded else -10.0]
        ),
        blur=rng.uniform(0.0, 0.45 + 0.75 * harsh),
        noise=rng.uniform(0.004, 0.015 + 0.025 * harsh),
    )


def shade_surface(
    surface: np.ndarray, above: np.ndarray, position: np.ndarray, light: Light
) -> np.ndarray:
    """Lights the surface of a facade.

    Args:
      surface: float32 [n, 8], channels of `facade`, multiplied by SOLID.
      above: float32 [n], relief a little way towards the sun, multiplied by SOLID.
      position: float [n, 2], shares of the facade's width and height.
      light: the light.

    Returns:
      float32 [n, 3], colour multiplied by SOLID.
    """
    slope_x, slope_y = surface[:, channels.SLOPE].T * np.float32(RELIEF_SLOPE)
    across, down, out = light.direction.astype(np.float32)
    facing = out - slope_x * across - slope_y * down
    facing /= np.sqrt(1 + slope_x**2 + slope_y**2)
    hidden = np.clip((above - surface[:, channels.RELIEF] - 12) / 40, 0, 1)
    edge = light.shadow_edge.astype(np.float32)
    beyond = position[:, 0] * edge[0] + position[:, 1] * edge[1] + edge[2]
    hidden = np.maximum(hidden, 0.85 * np.clip(0.5 + beyond / 0.02, 0, 1))
    sun = np.float32(1.5 * (1 - light.ambient))
    lit = np.float32(light.ambient) + sun * np.maximum(facing, 0) * (1 - hidden)
    colour = surface[:, channels.COLOUR] * lit[:, None]
    mirrored = surface[:, channels.GLASS, None] * np.float32(0.35)
    return (1 - mirrored) * colour + mirrored * light.sky[None, :].astype(np.float32)


def expose(rng: np.random.Generator, image: np.ndarray, light: Light) -> np.ndarray:
    """Turns light into a photograph: exposure, contrast, blur and noise.

    Args:
      rng: source of the noise.
      image: float32 [H, W, 3].
      light: the exposure.

    Returns:
      uint8 [H, W, 3].
    """
    gain = (255 * light.colour).astype(np.float32)
    picture = Image.fromarray(np.clip(image * gain[None, None, :], 0, 255).astype(np.uint8))
    curve = (255 * (np.arange(256) / 255) ** light.gamma).round().astype(int).tolist()
    picture = picture.point(curve * 3).filter(ImageFilter.GaussianBlur(light.blur))
    blurred = np.asarray(picture, np.float32)
    grain = rng.standard_normal(blurred.shape, np.float32) * np.float32(255 * light.noise)
    return np.clip(blurred + grain + 0.5, 0, 255).astype(np.uint8)
