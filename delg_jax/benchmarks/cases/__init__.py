"""The cases of `delg bench`."""
