"""Downloads the published data sets and weights that a table needs."""

import importlib.util
import pathlib
from collections.abc import Sequence

from delg_jax import downloads, workdir
from delg_jax.cli import download as download_verb
from delg_jax.data import published
from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays
from experiments.framework import plan
from experiments.framework.experiment import Experiment
from experiments.framework.plan import Options

# ImageNet networks of TensorFlow's Slim, which trainings start from; no digest is published
_SLIM = "http://download.tensorflow.org/models"
WEIGHTS = {
    f"resnet_v1_{depth}.npz": f"{_SLIM}/resnet_v1_{depth}_2016_08_28.tar.gz" for depth in (50, 101)
}


def download(experiment: Experiment, options: Options, parallel: int, dry_run: bool) -> None:
    """Downloads what the folders of `--data` and `--weights` lack.

    Args:
      experiment: that is going to be run.
      options: of the command line.
      parallel: downloads at a time.
      dry_run: whether only to print what would be downloaded.

    Raises:
      UserError: if something cannot be had; before anything is downloaded, if no program can.
    """
    places = plan.places(experiment, options)
    folders = list(dict.fromkeys(part.partition("/")[0] for part in places.get("data", [])))
    names = [name for name, data in published.PUBLISHED.items() if data.folder in folders]
    weights = pathlib.Path(options.weights)
    lacking = [part for part in dict.fromkeys(places.get("weights", [])) if part in WEIGHTS]
    lacking = [part for part in lacking if not (weights / part).exists()]
    for part in lacking:
        print(f"{part}: {_size(WEIGHTS[part])}, {weights}")
    if lacking and not dry_run:
        _require_tensorflow(lacking)
    download_verb.download(names, pathlib.Path(options.data), parallel, dry_run)
    if not dry_run:
        for part in lacking:
            _weights(weights / part, WEIGHTS[part])


def _size(url: str) -> published.Size:
    found = downloads.size(url)
    return published.Size(unknown=1) if found is None else published.Size(measured=found)


def _require_tensorflow(parts: Sequence[str]) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        rule = "is published as a TensorFlow checkpoint: pip install 'delg_jax[convert]'"
        raise UserError("--weights", parts[0], rule)


def _weights(target: pathlib.Path, url: str) -> None:
    """Makes the .npz of a checkpoint, which is kept beside it."""
    checkpoint = target.with_suffix(".ckpt")
    downloads.download(url, checkpoint, unpack=downloads.unpack_file)
    workdir.write_arrays(target, read_arrays(str(checkpoint)))
