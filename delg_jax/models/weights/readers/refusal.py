"""How a file of weights that cannot be read is refused."""

from delg_jax.errors import UserError


def refusal(path: str, rule: str) -> UserError:
    """Makes the error, to be raised, that names the field, the file and the rule it breaks."""
    return UserError("config.model.pretrained", path, rule)
