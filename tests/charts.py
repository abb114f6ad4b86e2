"""Reads the curves of a chart back from its SVG."""

import xml.etree.ElementTree as ET

import numpy as np

_SVG = "{http://www.w3.org/2000/svg}"


def read(svg: str) -> tuple[list[np.ndarray], list[str]]:
    """Corners [n, 2] of every curve, in points from the upper left, and all text."""
    root = ET.fromstring(svg)
    curves = []
    for group in root.iter(f"{_SVG}g"):
        if group.get("id", "").startswith("curve-"):
            words = group.find(f"{_SVG}path").get("d").replace("M", "").replace("L", "").split()
            curves.append(np.array(words, float).reshape(-1, 2))
    return curves, [e.text for e in root.iter(f"{_SVG}text")]
