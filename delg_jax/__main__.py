"""`python -m delg_jax` is `delg`."""

from delg_jax.cli.main import console

if __name__ == "__main__":
    console()
