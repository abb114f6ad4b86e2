"""A clock that jumps changes nothing: only what is shown to people may read the time of day."""

import re
from pathlib import Path

import delg_jax

PACKAGE = Path(delg_jax.__file__).parent
TIME_OF_DAY = re.compile(r"time\.time(_ns)?\(|datetime\.(now|utcnow|today)\(|date\.today\(")
SHOWN = {"benchmarks/environment.py"}  # the date of a result


def test_nothing_is_decided_by_the_time_of_day():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if TIME_OF_DAY.search(path.read_text(encoding="utf-8"))
    }
    assert found == SHOWN
