from __future__ import annotations

import json
from typing import Any

import pytest

import reft
from reft.config import ReftConfig

GOOD: dict[str, Any] = ReftConfig((0, 2), "f2+l2", 4, init="paper", tied=False).to_dict()


def test_config_survives_json() -> None:
    assert ReftConfig.from_dict(json.loads(json.dumps(GOOD))) == ReftConfig(
        (0, 2), "f2+l2", 4, init="paper", tied=False
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rnak": 4}, "did you mean rank"),
        ({"layers": [2, 0]}, "ascend"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [-1]}, "at least 0"),
        ({"layers": "all"}, "list of layer numbers"),
        ({"layers": [True]}, "integer"),
        ({"positions": "all"}, "fN"),
        ({"positions": 3}, "must be a text"),
        ({"rank": 0}, "at least 1"),
        ({"rank": 1.0}, "integer"),
        ({"method": "lora"}, "one of loreft"),
        ({"method": ["loreft"]}, "one of loreft"),
        ({"init": "zero"}, "identity, paper"),
        ({"tied": 1}, "true or false"),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReftConfig.from_dict(GOOD | change)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        ReftConfig.from_dict({name: value for name, value in GOOD.items() if name != key})


def test_every_public_name_is_there_and_sorted() -> None:
    assert all(hasattr(reft, name) for name in reft.__all__)
    functions = [name for name in reft.__all__ if name.islower()]
    assert functions == sorted(functions)
    with pytest.raises(AttributeError):
        _ = reft.nothing
