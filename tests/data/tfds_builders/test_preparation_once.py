import tensorflow_datasets as tfds

from delg_jax.data.synthetic.datasets import SyntheticConfig, SyntheticLandmarks, prepare
from delg_jax.data.tfds_builders.preparation import prepare_once


def test_the_first_of_two_to_finish_counts(tmp_path, monkeypatch):
    """Another process prepares the same data while this one renders."""
    config = SyntheticConfig(name="tiny_0", size="tiny", seed=0)
    slow = SyntheticLandmarks(config=config, data_dir=str(tmp_path), file_format="array_record")
    render = slow._generate_examples

    def overtaken(split):
        prepare("tiny", 0, str(tmp_path))
        return render(split)

    monkeypatch.setattr(slow, "_generate_examples", overtaken)
    prepare_once(slow)
    for split, info in slow.info.splits.items():
        data = slow.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        images = sorted(example["image"] for example in data)
        assert len(images) == info.num_examples > 0
        assert images == sorted(example["image"] for _, example in render(split))
