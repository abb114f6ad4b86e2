"""Local-to-global retrieval: its table, its choices, a picture, approximate search."""
