"""Benchmarks that are more than one case: growth, load, whole trainings."""
