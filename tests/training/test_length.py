from configs import default
from delg_jax.training.length import Length, of_config


def test_epochs_are_images_seen_per_image():
    length = Length(steps=30, batch_size=4, train_images=80)
    assert length.images_seen == 120
    assert length.epochs == 1.5
    assert str(length) == "120 images in 30 steps of 4: 1.5 epochs of 80 images"


def test_the_default_is_the_length_of_the_paper():
    length = of_config(default.get_config(), 960_000)
    assert length.images_seen == 24_000_000
    assert length.epochs == 25
