"""Damaged files: bytes of whole ones with changes, and bytes of any kind."""

from hypothesis import strategies as st


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
