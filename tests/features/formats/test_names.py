from delg_jax.features.formats.names import spellings


def test_a_name_may_lack_its_suffix_or_have_one():
    assert spellings("a/b") == ["a/b", "a/b.jpg", "a/b.jpeg", "a/b.png", "a/b.JPG"]
    assert spellings("b.png")[0] == "b.png"
    assert spellings("b.png")[-1] == "b"
    assert "v1" not in spellings("v1.5")
