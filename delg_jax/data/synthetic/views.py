"""Kinds of views: from where, how near and how freely a landmark is seen."""

import dataclasses

import numpy as np

from delg_jax.data.synthetic.camera import Camera, look_at, transform
from delg_jax.data.synthetic.facade import Facade
from delg_jax.data.synthetic.street import draw_occluders

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
