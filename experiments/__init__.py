"""Experiments: the tables of the papers, local-to-global retrieval, and benchmarks."""
