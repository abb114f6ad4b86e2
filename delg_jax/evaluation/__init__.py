"""Evaluation: protocols, and the stage that runs every method."""

from delg_jax.evaluation.experiment import evaluate, score

__all__ = ["evaluate", "score"]
