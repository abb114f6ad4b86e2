"""DELG in JAX: global and local image features, trained jointly, and retrieval with both."""

__version__ = "0.1.0"
