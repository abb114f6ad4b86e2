"""Curves over two logarithmic axes as an SVG."""

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 560, 360  # of the drawing area
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 230, 60  # around it; the names stand on the right
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf")
_RADIUS = 3

Points = Sequence[tuple[float, float]]


def log_plot(title: str, across: str, upward: str, curves: Mapping[str, Points]) -> str:
    """Draws curves of positive numbers; both axes span whole powers of ten.

    Args:
      title: what is drawn.
      across: what the first number of a point is, with its unit.
      upward: what the second one is.
      curves: points by the name of the curve, all positive; a curve of no points is left out.

    Returns:
      The SVG.

    Raises:
      ValueError: if there is no point, or one that is not positive.
    """
    curves = {name: points for name, points in curves.items() if points}
    corners = [point for points in curves.values() for point in points]
    if not corners or min(map(min, corners)) <= 0:
        raise ValueError(f"`curves` (={dict(curves)}) must have points, all positive")
    x_range, y_range = (_decades([corner[axis] for corner in corners]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * _share(x, x_range), _TOP + _HEIGHT * (1 - _share(y, y_range))

    body = [f"<title>{html.escape(title)}</title>", *_axes(title, across, upward, x_range, y_range)]
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [place(x, y) for x, y in points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{colour}"/>' for x, y in places
        ]
        x, y = _LEFT + _WIDTH + 12, _TOP + 20 * number + 10
        body.append(f'<path d="M{x},{y}h20" stroke="{colour}" stroke-width="2"/>')
        body.append(_text(x + 26, y + 4, name))
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    style = ' font-family="sans-serif" font-size="12">'
    return "\n".join([head + style, background, *body, "</svg>\n"])


def _axes(
    title: str, across: str, upward: str, x_range: tuple[int, int], y_range: tuple[int, int]
) -> list[str]:
    """Lines and labels at the powers of ten."""
    middle, bottom = _LEFT + _WIDTH / 2, _TOP + _HEIGHT
    body = [
        _text(middle, _TOP - 16, title, "middle"),
        _text(middle, bottom + 40, across, "middle"),
        f'<g transform="rotate(-90)">{_text(-_TOP - _HEIGHT / 2, 16, upward, "middle")}</g>',
    ]
    for power in range(x_range[0], x_range[1] + 1):
        x = _LEFT + _WIDTH * _share(10.0**power, x_range)
        body.append(f'<path d="M{x:.1f},{_TOP}v{_HEIGHT}" stroke="#ddd"/>')
        body.append(_text(x, bottom + 18, f"{10.0**power:,g}", "middle"))
    for power in range(y_range[0], y_range[1] + 1):
        y = _TOP + _HEIGHT * (1 - _share(10.0**power, y_range))
        body.append(f'<path d="M{_LEFT},{y:.1f}h{_WIDTH}" stroke="#ddd"/>')
        body.append(_text(_LEFT - 6, y + 4, f"{10.0**power:,g}", "end"))
    return body


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return (low, high) if high > low else (low, low + 1)


def _share(value: float, powers: tuple[int, int]) -> float:
    return (math.log10(value) - powers[0]) / (powers[1] - powers[0])
