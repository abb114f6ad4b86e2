from delg_jax.features.formats.image_order import spellings


def test_a_name_may_lack_its_suffix_or_have_one():
    assert spellings("a/b") == ["a/b", "a/b.jpg", "a/b.jpeg", "a/b.png", "a/b.JPG"]
    assert spellings("b.png")[0] == "b.png"
    for name in ("b.png", "b.PNG", "b.webp", "b.JFIF"):
        assert spellings(name)[-1] == "b"
    assert spellings("b.c")[-1] == "b.c.JPG"
    assert "v1" not in spellings("v1.5")
