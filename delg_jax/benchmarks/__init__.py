"""Benchmarks: our kernels beside other libraries, on the same inputs, in turn."""
