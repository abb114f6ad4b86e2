"""The benchmarks, one file each; `evaluation.benchmarks` runs them."""
