"""The libraries and networks that benchmarks compare with."""
