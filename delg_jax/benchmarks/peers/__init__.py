"""The peers: other libraries and networks that benchmarks compare with."""
