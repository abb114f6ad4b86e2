"""Programs that run `delg bench` or measure what it does not: growth, load, stores, training."""

from delg_jax.benchmarks import blas_kernels

blas_kernels.unpin()  # before NumPy is loaded
