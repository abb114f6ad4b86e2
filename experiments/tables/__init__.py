"""The papers' tables and figures, one program each."""
