"""Evaluation: the metrics of the retrieval benchmarks."""
