"""Benchmarks: each kernel beside other libraries, on the same inputs, in turn."""
