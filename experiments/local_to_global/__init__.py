"""Local-to-global retrieval: its table, settings, a picture, approximate search."""
