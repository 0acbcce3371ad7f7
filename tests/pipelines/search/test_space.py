"""What params.yaml says of an adapter: refused where a base cannot have it, else all of it in the adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.contracts.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.model.forms import reft_config
from pipelines.params.whole import Params, check_params
from pipelines.search.fits_base import check_space
from reft import LayerOverride, ReftConfig
from tests.tiny import tiny_llama

RAW = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8"))
RECORD = BaseRecord("file:models/own/tiny", None, "float32", "", {}, "llama", 32, 3, 400, 1)


def params(train: dict[str, Any], layers: list[str] | None = None) -> Params:
    raw = copy.deepcopy(RAW)
    raw["train"] |= train
    raw["search"]["enqueue"] = []
    raw["search"]["space"]["layers"] = layers or ["all", "0,2"]
    return check_params(raw, "params.yaml")


def override(layer: int, rank: int | None = None, positions: str | None = None) -> dict[str, Any]:
    return {"layer": layer, "rank": rank, "positions": positions}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([override(1, rank=2)], "got '0,2' without layer 1"),
        ([override(7, rank=2)], "got 'all' without layer 7; take one of them out; and every choice"),
        ([override(2, rank=64)], "hidden size 32; got 64"),
    ],
)
def test_an_override_that_some_trial_could_not_have_is_refused(overrides: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(PipelineError) as error:
        check_space(params({"overrides": overrides}).recipe_space(), RECORD)
    assert said in str(error.value)


def test_what_every_choice_of_layers_has_is_allowed() -> None:
    check_space(params({"overrides": [override(0, rank=32), override(2, positions="l1")]}).recipe_space(), RECORD)


def test_every_setting_of_an_adapter_reaches_it() -> None:
    train = {
        "method": "noreft",
        "init": "paper",
        "tied": False,
        "activation": "gelu",
        "dropout": 0.25,
        "dropout_on": "output",
        "projection_bias": True,
        "overrides": [override(0, rank=2), override(2, positions="1:3")],
    }
    recipe = (
        params(train).recipe_space().recipe({"layers": "0,2", "positions": "f2+l2", "rank": 4, "learning_rate": 1e-3})
    )
    expected = ReftConfig(
        (0, 2),
        "f2+l2",
        4,
        method="noreft",
        init="paper",
        tied=False,
        activation="gelu",
        dropout=0.25,
        dropout_on="output",
        projection_bias=True,
        overrides=(LayerOverride(0, rank=2), LayerOverride(2, positions="1:3")),
    )
    assert reft_config(recipe, tiny_llama()) == expected
    plain = ReftConfig((0, 2), "f2+l2", 4).to_dict()
    same = {name for name, value in expected.to_dict().items() if value == plain[name]}
    assert same == {"layers", "positions", "rank"}, "a setting that this test does not change shows nothing"
