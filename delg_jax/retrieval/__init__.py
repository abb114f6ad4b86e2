"""Retrieval: a search with its re-rankings, and a database opened for queries."""
