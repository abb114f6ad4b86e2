"""Damaged files: bytes of whole ones with changes, bytes of any kind, and other values in JSON."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.sampled_from((2**31, 2**63, 2**64, 10**400, 1e300, float("nan"), float("inf"))),
    st.sampled_from(("5", "", [], {}, [0], {"a": 1}, "float16", "</script>")),
)


@st.composite
def mutated(draw: st.DrawFn, wholes: tuple[bytes, ...], most: int = 6) -> bytes:
    """One of `wholes` with up to `most` changes: other bytes, bits, cuts, copies, insertions."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(("byte", "bit", "cut", "drop", "copy", "insert", "number")))
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        if kind == "cut":
            del data[place:]
        elif kind == "drop":
            del data[place : place + draw(st.integers(1, 16))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "copy":
            start = draw(st.integers(0, max(len(data) - 1, 0)))
            data[place:place] = data[start : start + draw(st.integers(1, 64))]
        elif kind == "number":  # a length or a size that lies
            width = draw(st.sampled_from((1, 2, 4, 8)))
            extreme = draw(st.sampled_from((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1)))
            order = draw(st.sampled_from(("little", "big")))
            data[place : place + width] = extreme.to_bytes(width, order)
        elif data:
            change = draw(st.integers(1, 255)) if kind == "byte" else 1 << draw(st.integers(0, 7))
            data[place] ^= change
    return bytes(data)


def damaged(wholes: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Mutated files, and now and then bytes that never were a file."""
    return st.one_of(mutated(wholes), mutated(wholes), mutated(wholes), st.binary(max_size=200))


def _places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys that lead to every value in JSON."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield (*above, key)
            yield from _places(value, (*above, key))


@st.composite
def changed_json(draw: st.DrawFn, text: str) -> str:
    """JSON of which one value is another, or gone."""
    content = json.loads(text)
    *above, last = draw(st.sampled_from(list(_places(content))))
    holder = content
    for key in above:
        holder = holder[key]
    if draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = draw(_VALUES)
    return json.dumps(content)
