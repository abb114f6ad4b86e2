"""Curves over two axes as an SVG; what the axes are is up to `line_plot` and `log_plot`."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 560, 360  # of the drawing area
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 230, 60  # around it; the names stand on the right
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf")
_RADIUS = 3

Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """One axis.

    Attributes:
      name: what the numbers are, with their unit.
      ticks: labelled numbers.
      share: place of a number on the axis, from 0 to 1.
    """

    name: str
    ticks: Sequence[float]
    share: Callable[[float], float]


def picture(title: str, across: Axis, upward: Axis, curves: Mapping[str, Points]) -> str:
    """Draws curves.

    Args:
      title: what is drawn.
      across: axis of the first number of a point.
      upward: axis of the second one.
      curves: points by the name of the curve.

    Returns:
      The SVG.
    """
    body = [f"<title>{html.escape(title)}</title>", *_axes(title, across, upward)]
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(_x(across, x), _y(upward, y)) for x, y in points]
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


def _axes(title: str, across: Axis, upward: Axis) -> list[str]:
    """Lines and labels at the ticks."""
    middle, bottom = _LEFT + _WIDTH / 2, _TOP + _HEIGHT
    body = [
        _text(middle, _TOP - 16, title, "middle"),
        _text(middle, bottom + 40, across.name, "middle"),
        f'<g transform="rotate(-90)">{_text(-_TOP - _HEIGHT / 2, 16, upward.name, "middle")}</g>',
    ]
    for tick in across.ticks:
        x = _x(across, tick)
        body.append(f'<path d="M{x:.1f},{_TOP}v{_HEIGHT}" stroke="#ddd"/>')
        body.append(_text(x, bottom + 18, f"{tick:,g}", "middle"))
    for tick in upward.ticks:
        y = _y(upward, tick)
        body.append(f'<path d="M{_LEFT},{y:.1f}h{_WIDTH}" stroke="#ddd"/>')
        body.append(_text(_LEFT - 6, y + 4, f"{tick:,g}", "end"))
    return body


def _x(axis: Axis, value: float) -> float:
    return _LEFT + _WIDTH * axis.share(value)


def _y(axis: Axis, value: float) -> float:
    return _TOP + _HEIGHT * (1 - axis.share(value))


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
