"""A verb on the run of the archives, on one device: how they were made, and how they resume.

python -m tests.upgrades train --workdir=DIR
"""

import sys

from delg_jax.cli.main import main
from delg_jax.models import resnet
from tests.tiny import command_line
from tests.upgrades.tiny_run import NARROW, TRAINING_OF_BEFORE, config

if __name__ == "__main__":
    resnet.ARCHITECTURES["tiny"] = NARROW
    sys.exit(main([sys.argv[1], *command_line(config(**TRAINING_OF_BEFORE)), *sys.argv[2:]]))
