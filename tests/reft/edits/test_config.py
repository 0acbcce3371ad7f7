from __future__ import annotations

import json
from typing import Any

import pytest

import reft
from reft.edits.config import LayerOverride, ReftConfig, count_parameters

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
        ({"positions": "some"}, "fN"),
        ({"positions": 3}, "must be a text"),
        ({"rank": 0}, "at least 1"),
        ({"rank": 1.0}, "integer"),
        ({"method": "lora"}, "one of loreft"),
        ({"method": ["loreft"]}, "one of loreft"),
        ({"init": "zero"}, "identity, paper"),
        ({"tied": 1}, "true or false"),
        ({"activation": "softmax"}, "one of linear"),
        ({"activation": ["relu"]}, "one of linear"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"dropout": "0"}, r"in \[0, 1\)"),
        ({"dropout_on": "all"}, "edit, output"),
        ({"projection_bias": True}, "only noreft"),
        ({"overrides": {}}, "list of mappings"),
        ({"overrides": [{"layer": 0}]}, "needs every key"),
        ({"overrides": [{"layer": 1, "rank": 2, "positions": None}]}, "of an edited layer"),
        ({"overrides": [{"layer": 0, "rank": 0, "positions": None}]}, "at least 1"),
        ({"overrides": [{"layer": 0, "rank": None, "positions": "7"}]}, "fN"),
        (
            {"overrides": [{"layer": 2, "rank": 1, "positions": None}, {"layer": 0, "rank": 1, "positions": None}]},
            "ascend",
        ),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReftConfig.from_dict(GOOD | change)


def test_a_layer_may_have_its_own_rank_and_positions() -> None:
    own = (LayerOverride(0, rank=2), LayerOverride(2, positions="l1"))
    config = ReftConfig((0, 1, 2), "f2+l2", 4, tied=False, overrides=own)
    assert ReftConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    forms = {slot: form.rank for slot, form in config.forms().items()}
    assert forms == {"layer_0_first": 2, "layer_0_last": 2, "layer_1_first": 4, "layer_1_last": 4, "layer_2": 4}
    assert count_parameters(config, 10) == (2 + 2 + 4 + 4 + 4) * 21  # r(2d + 1) for each


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
