"""Tables of an ablation: what each value of a field gives."""

from collections.abc import Mapping
from typing import Any

from delg_jax.reports.tables import markdown


def ablation_table(field: str, rows: Mapping[str, Mapping[str, Any]], base: str) -> str:
    """One row per value: mAP Medium and Hard of each method, in percent.

    Args:
      field: its name, for the header.
      rows: from value to method to protocol to mAP.
      base: the value that is configured, which is marked.

    Returns:
      A Markdown table.
    """
    names = list(next(iter(rows.values())))
    header = [field, *(f"{name} M / H" for name in names)]
    cells = [
        [
            f"{value} *" if value == base else value,
            *(f"{_number(row['medium'])} / {_number(row['hard'])}" for row in found.values()),
        ]
        for value, found in rows.items()
    ]
    return markdown(header, cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
