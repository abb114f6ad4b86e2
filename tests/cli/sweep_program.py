"""The program with verbs that take an instant, for tests of sweeps; its runs are itself."""

import sys
import time
from pathlib import Path

from delg_jax.cli import sweep as verb
from delg_jax.cli.main import main
from delg_jax.errors import UserError
from delg_jax.sweeps import sweep


def train(config, workdir, overwrite):
    """Notes that it was called."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "calls").open("a") as file:
        file.write("train\n")
    time.sleep(0.3)
    if config.seed == 13:
        raise UserError("config.seed", 13, "brings bad luck")
    return {"validation_loss": config.train.learning_rate + config.seed}


def evaluate(config, workdir, overwrite):
    """Has the same mAP in all protocols."""
    score = {"map": 10.0 * config.train.learning_rate + config.seed}
    return {"methods": {"global": dict.fromkeys(("easy", "medium", "hard"), score)}}


if __name__ == "__main__":
    sweep.VERBS = {"train": train, "evaluate": evaluate}
    verb.PROGRAM = (sys.executable, str(Path(__file__)), "sweep")
    sys.exit(main(sys.argv[1:]))
