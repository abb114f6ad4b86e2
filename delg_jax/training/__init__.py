"""Training: state, step, loop, checkpoints and metrics."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delg_jax.training.convert import convert_weights
    from delg_jax.training.train import train_and_evaluate

__all__ = ["convert_weights", "train_and_evaluate"]


def __getattr__(name: str) -> Any:
    """Imports the verbs when they are first used: extraction needs only the checkpoints."""
    if name == "train_and_evaluate":
        from delg_jax.training.train import train_and_evaluate

        return train_and_evaluate
    if name == "convert_weights":
        from delg_jax.training.convert import convert_weights

        return convert_weights
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
