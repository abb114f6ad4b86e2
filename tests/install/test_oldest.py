import re
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def test_every_requirement_has_an_oldest_version_that_is_allowed():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'"([A-Za-z0-9_-]+)>=([0-9.]+)', setup))
    lines = (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert set(pins) == set(bounds)
    assert [n for n, pin in pins.items() if Version(pin) < Version(bounds[n])] == []
