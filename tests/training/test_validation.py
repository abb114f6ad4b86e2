import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from delg_jax.data import folder
from delg_jax.data.pipeline import InputSettings
from delg_jax.data.skips import SkipLog
from delg_jax.training.interruption import StopRequest
from delg_jax.training.loop import Validation, choose_validation
from tests.photographs import make_folder, truncate
from tests.tiny import training_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return training_config(make_folder(tmp_path_factory.mktemp("photographs")))


@pytest.fixture(scope="module")
def source(config):
    return folder.training(config.data).validation


def eval_step(state, batch):
    """Sums, over valid images, their labels and the mean of their pixels."""
    labels, valid = batch["label"].ravel(), batch["valid"].ravel()
    pixels = batch["image"].mean(axis=(2, 3, 4)).ravel()
    sums = {"label": labels[valid].sum(), "pixel": pixels[valid].sum(), "count": valid.sum()}
    return {name: np.float32(value) for name, value in sums.items()}, None


def run(source, config, tmp_path, step=eval_step, stop=None):
    drawn = []
    settings, log = InputSettings.of(config.data), SkipLog(tmp_path / "skipped.csv")
    validate = Validation(source, settings, 8, step, log)
    if stop is not None:
        return validate(None, stop, lambda *arguments: drawn.append(arguments)), drawn
    with StopRequest(75) as request:
        return validate(None, request, lambda *arguments: drawn.append(arguments)), drawn


def test_means_are_over_all_valid_images(source, config, tmp_path):
    means, drawn = run(source, config, tmp_path)
    assert set(means) == {"validation_label", "validation_pixel"}
    assert means["validation_label"] == pytest.approx(source.labels.mean())
    ((images, scores),) = drawn  # the first batch
    assert images.shape == (8, 64, 64, 3)
    assert scores is None


def test_bad_images_do_not_count(config, tmp_path):
    data = config.data.copy_and_resolve_references()
    data.root = str(make_folder(tmp_path / "photographs"))
    truncate(tmp_path / "photographs" / "validation" / "class_3" / "0.jpg")
    source = folder.training(data).validation
    means, _ = run(source, config, tmp_path)
    kept = np.delete(source.labels, source.names.index("class_3/0.jpg"))
    assert means["validation_label"] == pytest.approx(kept.mean())


def test_without_images_there_are_no_means(source, config, tmp_path):
    nothing = dataclasses.replace(source, names=[], labels=source.labels[:0])
    assert run(nothing, config, tmp_path) == ({}, [])


@pytest.mark.parametrize("last", [0, 1])
def test_a_stop_between_batches_gives_no_means(source, config, tmp_path, last):
    with StopRequest(75) as stop:
        done = []

        def step(state, batch):
            done.append(batch)
            if len(done) > last:
                os.kill(os.getpid(), signal.SIGTERM)
            return eval_step(state, batch)

        means, _ = run(source, config, tmp_path, step, stop)
    complete = -(-len(source) // 8)
    assert len(done) == min(last + 1, complete)
    assert (means is None) == (len(done) < complete)


def test_the_sums_of_a_batch_are_read_at_the_end(config, tmp_path, monkeypatch):
    events = []

    def step(state, batch):
        events.append("batch")
        return eval_step(state, batch)

    monkeypatch.setattr(jax, "block_until_ready", lambda sums: events.append(len(sums)))
    monkeypatch.setattr(jax, "device_get", lambda sums: events.append("read") or sums)
    run(folder.training(config.data).train, config, tmp_path, step)
    # Only the batch before the one that is being computed is waited for
    assert events == ["batch", 0, "batch", 1, "batch", 1, "read"]


def test_a_choice_is_fixed_seeded_and_in_order(source):
    chosen = choose_validation(source, 5, seed=0)
    assert chosen.names == choose_validation(source, 5, seed=0).names
    assert chosen.names != choose_validation(source, 5, seed=1).names
    places = [source.names.index(name) for name in chosen.names]
    assert places == sorted(set(places))
    assert chosen.labels.tolist() == [source.labels[place] for place in places]
    assert [chosen.read(i) for i in range(5)] == [source.read(place) for place in places]
    np.testing.assert_array_equal(chosen.stamps([4, 0]), source.stamps([places[4], places[0]]))


@pytest.mark.parametrize("count", [0, 12, 13, 50_000])
def test_all_images_are_taken_where_no_choice_is_needed(source, count):
    assert choose_validation(source, count, seed=0) is source
