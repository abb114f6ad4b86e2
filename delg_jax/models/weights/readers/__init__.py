"""Readers of weight files, one file per format: `KIND` names it, `read` returns its arrays."""
