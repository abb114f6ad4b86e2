"""Draws a view of a landmark and renders it into a photograph, with its true geometry.

Kinds of views say from where, how near and how freely a landmark is seen.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from delg_jax.data.synthetic import facade as channels
from delg_jax.data.synthetic.camera import Camera, footprint, look_at, pixel_grid, transform
from delg_jax.data.synthetic.facade import SOLID, Facade
from delg_jax.data.synthetic.street import Street, draw_background, draw_occluders

DRAWS = 40  # draws of a view before the best one so far is taken
FOCAL = 1.15  # focal length as a share of the image's longer side
GRID = 40  # points along each side of the facade at which visibility is measured

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ViewKind:
    """What the views of a kind have in common.

    Attributes:
      yaw: range of the angle to either side, degrees.
      pitch: range of the angle upwards, degrees.
      roll: largest turn to either side, degrees.
      fill: range of the facade's size as a share of the image's, by the tighter side.
      offset: largest shift of the aim from the middle of the facade, as a share of its size.
      occluders: range of their number.
      near: how near to the camera they may stand, 0 to 1.
      visible: range of the visible share of the facade that is asked for.
      harsh: how bad light, blur and noise may be, 0 to 1.
    """

    yaw: Range
    pitch: Range
    roll: float
    fill: Range
    offset: float
    occluders: tuple[int, int]
    near: float
    visible: Range
    harsh: float


KINDS = {
    "query": ViewKind((0, 12), (0, 8), 3, (0.8, 0.95), 0.05, (0, 3), 0.3, (0.75, 1.0), 0.2),
    "mild": ViewKind((0, 22), (-3, 10), 5, (0.65, 1.0), 0.12, (0, 5), 0.4, (0.66, 1.0), 0.4),
    "oblique": ViewKind((42, 52), (-5, 14), 10, (0.7, 1.0), 0.1, (0, 5), 0.4, (0.55, 1.0), 0.5),
    "tilted": ViewKind((5, 30), (5, 20), 25, (0.6, 0.95), 0.15, (1, 5), 0.4, (0.5, 1.0), 0.6),
    "close": ViewKind((0, 30), (0, 18), 8, (1.35, 1.9), 0.25, (0, 3), 0.2, (0.28, 0.56), 0.5),
    "far": ViewKind((0, 30), (-5, 8), 5, (0.3, 0.42), 0.4, (0, 8), 0.3, (0.55, 1.0), 0.5),
    "hidden": ViewKind((0, 30), (0, 10), 6, (0.75, 1.1), 0.2, (6, 14), 0.75, (0.28, 0.56), 0.6),
    "barely": ViewKind((10, 45), (0, 10), 8, (0.8, 1.4), 1.1, (3, 10), 0.8, (0.05, 0.2), 0.7),
}


@dataclasses.dataclass(frozen=True)
class View:
    """A view before it is rendered.

    Attributes:
      camera: the camera.
      occluders: float32 [H, W, 4], colour times cover, and cover.
      visible: share of the facade's area that is in the image and not hidden.
    """

    camera: Camera
    occluders: np.ndarray
    visible: float


def draw_view(rng: np.random.Generator, facade: Facade, kind: str, image_side: int) -> View:
    """Draws a view of a kind, again and again until the visible share is as the kind asks.

    Args:
      rng: source of the draws.
      facade: the landmark.
      kind: a key of `KINDS`.
      image_side: pixels of the image's longer side.

    Returns:
      The first view that fits, or the nearest to it of `DRAWS`.
    """
    wanted = KINDS[kind]
    best: View | None = None
    best_gap = np.inf
    for _ in range(DRAWS):
        camera = _draw_camera(rng, facade, wanted, image_side)
        count = int(rng.integers(wanted.occluders[0], wanted.occluders[1] + 1))
        size = (facade.width, facade.height)
        occluders = draw_occluders(rng, camera, size, count, wanted.near)
        visible = visible_share(facade, camera, occluders[..., 3])
        gap = max(wanted.visible[0] - visible, visible - wanted.visible[1], 0.0)
        if gap < best_gap:
            best, best_gap = View(camera, occluders, visible), gap
        if gap == 0:
            break
    if best is None:
        raise ValueError(f"`DRAWS` (={DRAWS}) must be at least 1")
    return best


def _draw_camera(
    rng: np.random.Generator, facade: Facade, kind: ViewKind, image_side: int
) -> Camera:
    short = int(image_side * rng.choice([0.75, 1.0])) // 4 * 4
    upright = facade.height > facade.width
    size = (short, image_side) if upright else (image_side, short)
    focal = FOCAL * image_side
    fill = np.exp(rng.uniform(*np.log(kind.fill)))
    distance = focal * max(facade.width / size[0], facade.height / size[1]) / fill
    shift = rng.uniform(-kind.offset, kind.offset, 2) * np.array([1.0, 0.6])
    target = np.array([(0.5 + shift[0]) * facade.width, (0.5 + shift[1]) * facade.height, 0.0])
    # The camera stays above the ground, however steeply it looks up.
    headroom = (0.97 * facade.height - target[1]) / distance
    steepest = np.arcsin(np.clip(headroom, -0.9, 0.9))
    pitch = min(np.deg2rad(rng.uniform(*kind.pitch)), steepest)
    yaw = rng.choice([-1, 1]) * np.deg2rad(rng.uniform(*kind.yaw))
    roll = np.deg2rad(rng.uniform(-kind.roll, kind.roll))
    return look_at(target, (yaw, pitch, roll), distance, focal, size)


def visible_share(facade: Facade, camera: Camera, cover: np.ndarray) -> float:
    """Measures how much of a facade a view shows.

    Args:
      facade: the landmark.
      camera: the camera.
      cover: float [H, W], what hides it, 0 to 1.

    Returns:
      Share of the facade's own area, 0 to 1, on a grid of `GRID` x `GRID` points.
    """
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(steps * facade.width, steps * facade.height)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    points = points[facade.solid[points[:, 1].astype(int), points[:, 0].astype(int)]]
    pixels = np.floor(transform(camera.facade_homography(), points))
    width, height = camera.size
    inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    column, row = pixels[inside].astype(int).T
    return float((cover[row, column] < 0.5).sum() / len(points))


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


SHADOW_REACH = 0.011  # how far carvings cast their shadow, as a share of the facade's longer side


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A rendered view.

    Attributes:
      image: uint8 [H, W, 3].
      homography: float64 [3, 3], facade pixels (x, y, 1) to image pixels.
      visible: share of the facade's area that is in the image and not hidden.
      box: float64 [4], (x1, y1, x2, y2) around what is seen of the facade, pixels; zeros if
        nothing is.
    """

    image: np.ndarray
    homography: np.ndarray
    visible: float
    box: np.ndarray


def render_view(
    rng: np.random.Generator, facade: Facade, street: Street, kind: str, image_side: int
) -> Photograph:
    """Renders a view.

    Args:
      rng: source of all draws of the view.
      facade: the landmark.
      street: pool of backgrounds.
      kind: a key of `KINDS`.
      image_side: pixels of the image's longer side.

    Returns:
      The photograph.
    """
    view = draw_view(rng, facade, kind, image_side)
    light = draw_light(rng, KINDS[kind].harsh)
    width, height = view.camera.size
    grid = pixel_grid(view.camera.size)
    image = draw_background(rng, street, view.camera, grid, (facade.width, facade.height))
    homography = view.camera.facade_homography()
    seen = footprint(facade.surface, homography, grid)
    surface = facade.surface.sample(seen.points, seen.level)
    towards = (light.direction[:2] / max(light.direction[2], 0.3)).astype(np.float32)
    reach = SHADOW_REACH * max(facade.width, facade.height) * towards
    above = facade.relief.sample(seen.points + reach[None, :], np.round(seen.level))[:, 0]
    position = seen.points / np.array([[facade.width, facade.height]], np.float32)
    cover = np.zeros((len(grid), 1), np.float32)
    cover[seen.pixels] = surface[:, SOLID, None]
    image *= 1 - cover
    image[seen.pixels] += shade_surface(surface, above, position, light)
    hidden = view.occluders[..., 3:]
    image = image.reshape(height, width, 3) * (1 - hidden) + view.occluders[..., :3]
    shown = cover.reshape(height, width) * (1 - hidden[..., 0]) > 0.5
    return Photograph(expose(rng, image, light), homography, view.visible, _box(shown))


def _box(shown: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
