from __future__ import annotations

import json
import sys

import pytest

from rubrics.registry import Method, UnknownMethod, choices, find, pick

TABLE = {
    "dumps": Method("json:dumps", "Write", "Turns a value into text."),
    "heavy": Method("tests.rubrics.no_such_module:f", "Heavy", "Cannot be imported."),
    "decode": Method("json:JSONDecoder.decode", "Decode", "A nested name.", "json:JSONEncoder"),
}


def test_pick_loads_what_the_path_names():
    assert pick(TABLE, "dumps") is json.dumps
    assert pick(TABLE, "decode") is json.JSONDecoder.decode


def test_pick_names_the_known_keys_when_the_key_is_unknown():
    with pytest.raises(UnknownMethod, match=r"'nope'.*decode, dumps, heavy"):
        pick(TABLE, "nope")
    with pytest.raises(LookupError, match="none"):
        pick({}, "nope")


def test_reading_a_table_imports_nothing():
    assert choices(TABLE) == [("dumps", "Write"), ("heavy", "Heavy"), ("decode", "Decode")]
    assert find(TABLE, "heavy").label == "Heavy"
    assert "tests.rubrics.no_such_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        pick(TABLE, "heavy")


def test_options_load_only_where_the_method_has_some():
    assert TABLE["dumps"].load_options() is None
    assert TABLE["decode"].load_options() is json.JSONEncoder
