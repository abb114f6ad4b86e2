"""What folders hold, for comparisons of whole artefacts."""


def contents(folder):
    """Bytes of every file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
