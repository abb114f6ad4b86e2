import json

import pytest

from delg_jax.errors import UserError, WrongField, fields_of, require_choice, require_package


def test_the_message_is_one_line_with_field_value_and_rule():
    error = UserError("config.data.root", "no\nwhere", "must be an existing folder")
    assert str(error) == r"config.data.root = 'no\nwhere': must be an existing folder"
    assert (error.subject, error.value) == ("config.data.root", "no\nwhere")
    assert error.rule == "must be an existing folder"


def test_a_choice_must_be_listed():
    require_choice("config.x", "b", ("a", "b"))
    with pytest.raises(UserError, match="config.x = 'c': "):
        require_choice("config.x", "c", ("a", "b"))


def test_a_wrong_field_is_that_of_its_section_with_the_value_that_was_given():
    error = WrongField("radius", 0.5, "must be at least 1")
    assert isinstance(error, ValueError)
    assert str(error) == "`radius` (=0.5) must be at least 1"
    with pytest.raises(UserError) as raised, fields_of("config.a.b", {"radius": 60, "other": 1}):
        raise error
    assert str(raised.value) == "config.a.b.radius = 60: must be at least 1"


def test_the_text_is_one_line_whatever_is_in_it():
    assert (
        str(UserError("a\nfile", 1, "holds\r\nlines\u2028of text"))
        == "a file = 1: holds lines of text"
    )


def test_an_absent_package_is_named_with_its_remedy():
    assert require_package("json", "json", "all need it") is json
    with pytest.raises(UserError) as raised:
        require_package("no_such_module", "no-such-package", "it is needed: pip install it")
    assert (raised.value.subject, raised.value.value) == ("package", "no-such-package")
    assert raised.value.rule.endswith("pip install it")
