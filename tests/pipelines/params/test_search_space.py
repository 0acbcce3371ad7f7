"""The search space: what its points are, which spaces cannot be, and what each recipe costs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines.contracts.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params
from pipelines.project.keys import Inputs, study_key
from pipelines.project.settings import StudySettings
from pipelines.recipes.methods.reft import Recipe
from pipelines.search.fits_base import check_space
from pipelines.search.sizes import check_limit, extremes, paces, parameters_of
from tests.searching import RAW, make_params, raw_params

CONDITIONAL: dict[str, Any] = {
    "train.method": "searched",
    "train.init": "searched",
    "train.activation": "searched",
    "train.learning_rate": 0.001,
    "search.space.learning_rate": None,
    "search.space.method": ["loreft", "direft", "consreft"],
    "search.space.init": {"among": ["paper"], "when": {"method": ["consreft"]}, "otherwise": "identity"},
    "search.space.activation": {"among": ["linear", "gelu"], "when": {"method": ["direft"]}, "otherwise": "linear"},
    "search.space.layers": ["all"],
    "search.space.positions": ["l1", "f7+l7"],
    "search.space.rank": [1, 8],
    "search.enqueue": [],
}
LLAMA = BaseRecord(
    source="file:models/own/x", source_sha256=None, dtype="float32", sha256="0" * 64, files={}, model_type="llama",
    hidden_size=4096, num_layers=32, vocab_size=32000, parameters=6_738_415_616,
)  # fmt: skip


def params(changes: dict[str, Any] | None = None) -> Params:
    return check_params(raw_params(changes or {}), "params.yaml")


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(PipelineError) as error:
        params(changes)
    return str(error.value)


def test_the_points_under_conditions_are_counted_as_they_are_listed() -> None:
    space = params(CONDITIONAL).recipe_space().space
    points = list(space.points())
    assert len(points) == space.size() == (1 + 2 + 1) * 2 * 2  # loreft, direft with two activations, consreft
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert [space.problems(point) for point in points] == [[]] * len(points)


def test_a_part_that_a_condition_leaves_out_has_its_other_value() -> None:
    found = params(CONDITIONAL)
    point = {"method": "loreft", "layers": "all", "positions": "l1", "rank": 8}
    recipe = found.recipe_space().recipe(point, trial=True)
    assert (recipe.activation, recipe.init, recipe.rank) == ("linear", "identity", 8)
    assert found.recipe_space().recipe({**point, "method": "consreft", "init": "paper"}).init == "paper"
    assert found.recipe_space().space.problems({**point, "activation": "gelu"}) == ["it must not have activation"]
    assert found.recipe_space().space.problems({**point, "method": "direft"}) == ["it has no activation"]


def test_real_numbers_cannot_be_counted() -> None:
    assert params().recipe_space().space.size() == math.inf


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        ({"low": 1, "high": 4, "log": True}, [1, 2, 3, 4]),
        ({"low": 2, "high": 8, "step": 3}, [2, 5, 8]),
        ([1, 8], [1, 8]),
    ],
)
def test_integers_are_each_a_point(domain: Any, values: list[int]) -> None:
    space = params({"search.space.rank": domain, "search.enqueue": []}).recipe_space().space
    assert [point["rank"] for point in space.points(only=["rank"])] == values


def test_steps_between_real_numbers_are_what_their_decimals_say() -> None:
    changes = {"train.dropout": "searched", "search.space.dropout": {"low": 0, "high": 0.3, "step": 0.1}}
    space = params({**changes, "search.enqueue": []}).recipe_space().space
    assert [point["dropout"] for point in space.points(only=["dropout"])] == [0.0, 0.1, 0.2, 0.3]
    domain: Any = space.domain("dropout")
    assert domain.nearest(0.1 + 0.2) == 0.3
    assert domain.holds(0.3)
    assert not domain.holds(0.25)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search.space.rank": {"among": [1], "when": {}, "otherwise": 4}}, "rank.when: Dictionary should have at lea"),
        ({"search.space.rank": {"among": [1], "when": {"rank": [1]}, "otherwise": 4}}, "rank.when must name another"),
        ({"search.space.rank": {"among": [1], "when": {"method": ["loreft"]}, "otherwise": 4}}, "got method"),
        (
            {"search.space.rank": {"among": [1], "when": {"layers": ["all", "3"]}, "otherwise": 4}},
            "rank.when.layers must hold choices of layers; got ['3']",
        ),
        (
            {"search.space.rank": {"among": [1], "when": {"positions": RAW["search"]["space"]["positions"]},
                                   "otherwise": 4}},
            "rank.when must leave out a choice of positions; got all of them",
        ),
        ({"search.space.rank": {"among": [1], "when": {"layers": ["all"]}, "otherwise": 0}}, "rank.otherwise: Input"),
        ({"search.space.rank": {"among": ["x"], "when": {"layers": ["all"]}, "otherwise": 1}}, "rank.among.0: Input"),
        ({"search.space.positions": ["spans"]}, "positions of spans need rows that name their own"),
        ({**CONDITIONAL, "search.space.init": ["identity"]}, "consreft sets a subspace to a constant"),
        ({**CONDITIONAL, "search.sampler": "gp"}, "sampler gp knows no conditions"),
        ({"search.enqueue": [{"layers": "all"}]}, "it has no positions"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search.space.layers": ["all", "::2", "32"]}, "'32', which reaches 32"),
        ({"search.space.rank": [4, 5000]}, "hidden size 4096; got 5000"),
        ({"search.space.rank": {"low": 8, "high": 8192, "log": True}}, "hidden size 4096; got 8192"),
        ({"train.layers": "40", "search.space.layers": None}, "'40', which reaches 40"),
        ({"search.space.rank": {"among": [1], "when": {"layers": ["all"]}, "otherwise": 9999}}, "got 9999"),
    ],
)
def test_a_space_that_the_base_cannot_have_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError) as error:
        check_space(params({"search.enqueue": [], **changes}).recipe_space(), LLAMA)
    assert said in str(error.value)


def test_the_smallest_and_the_largest_recipe_are_those_of_the_published_counts() -> None:
    """LLaMA-7B, all layers, rank 8, tied: 2,097,408 trained numbers (0.0311 %), as the authors' code prints."""
    smallest, largest = extremes(
        params({"search.space.layers": ["31", "all"], "search.enqueue": []}).recipe_space(), LLAMA
    )
    assert (smallest.layers, smallest.rank, parameters_of(smallest, LLAMA)) == ("31", 1, 2 * 4096 + 1)
    assert (largest.layers, largest.rank, parameters_of(largest, LLAMA)) == ("all", 8, 2_097_408)


def test_a_limit_that_no_recipe_keeps_is_refused_before_any_trial() -> None:
    with pytest.raises(PipelineError, match=r"Got: 100, and the smallest recipe has 131,088"):
        check_limit(params().recipe_space(), 100, LLAMA)


def test_recipes_that_do_the_same_to_the_base_have_the_same_effect() -> None:
    recipe = params().recipe_space().recipe(RAW["search"]["enqueue"][0], trial=True)

    def effect(**parts: object) -> dict[str, Any]:
        return Recipe(**{**recipe.model_dump(), **parts}).effect(4)

    assert effect(layers="all") == effect(layers="0:4") != effect(layers="::2")
    assert effect(positions="l4", tied=True) == effect(positions="l4", tied=False)
    assert effect(positions="f1+l1", tied=True) != effect(positions="f1+l1", tied=False)
    assert effect(dropout_on="edit") == effect(dropout_on="output")
    assert effect(positions="f4") == effect(positions="0:4") == effect(positions="2:4,0:3") != effect(positions="l4")
    assert effect(positions="1:3") == effect(positions="2:3,1:2") != effect(positions="1:4")
    assert effect(positions="f4+g2") == effect(positions="0:4+g2") != effect(positions="f4+g3")
    assert effect(positions="l4+g2", tied=True) != effect(positions="l4+g2", tied=False)
    assert effect(positions="g2", tied=True) == effect(positions="g2", tied=False)


def test_targets_in_another_order_are_the_same_adapter_s() -> None:
    def effect(targets: str) -> dict[str, Any]:
        changes = {"method.name": "lora", "method.lora.rank": 4, "method.lora.learning_rate": 1e-3}
        found = params({**changes, "method.lora.target_modules": targets, "search.enqueue": [], "search.space": {}})
        return found.recipe_space().recipe({}, trial=True).effect(4)

    assert effect("q_proj,v_proj") == effect("v_proj,q_proj") != effect("q_proj")


def test_the_quickest_and_the_slowest_recipe_are_those_with_least_and_most_to_compute() -> None:
    searched = {"train.epochs": "searched", "search.epochs": None, "search.space.epochs": [3, 1], "search.enqueue": []}
    for end, whole in (("l4", "f7+l7"), ("g4", "all"), ("l4+g4", "0:2+g4")):
        space = {"search.space.positions": [end, whole], "search.space.layers": ["all", "upper-half"]}
        quickest, slowest = paces(params({**searched, **space}).recipe_space(), LLAMA)
        assert isinstance(quickest, Recipe)
        assert isinstance(slowest, Recipe)
        assert (quickest.epochs, quickest.positions, quickest.layers) == (1, end, "upper-half")
        assert (slowest.epochs, slowest.positions, slowest.layers) == (3, whole, "all")


def test_a_published_recipe_is_named_and_has_what_the_space_searches() -> None:
    space = {"search.space.positions": ["f7+l7", "l4"], "search.space.rank": [1, 8]}
    found = params({**space, "search.enqueue": ["commonsense", {"layers": "all", "positions": "l4", "rank": 8}]} | {
        "search.space.learning_rate": None, "train.learning_rate": 9.0e-4,
    })  # fmt: skip
    assert found.recipe_space().first[0] == {"layers": "all", "positions": "f7+l7", "rank": 8}
    said = refused({"search.enqueue": ["arithmetic"]})
    assert "does not: positions is 'f7+l7', where search.space has 'l4', 'l2', 'l1'" in said
    said = refused({"search.enqueue": ["comonsense"]})
    assert "a recipe's name is one of commonsense, arithmetic, instructions, glue, trec, cola; got 'comonsense'" in said
    conditional = params({**CONDITIONAL, "search.enqueue": ["commonsense"]}).recipe_space().first[0]
    assert conditional == {"method": "loreft", "layers": "all", "positions": "f7+l7", "rank": 8}


def test_the_name_of_a_study_holds_what_its_values_depend_on_and_no_more() -> None:
    def key(changes: dict[str, Any] | None = None, *, base: str = "a", data: str = "b") -> str:
        return study_key(StudySettings.of(make_params(changes)), Inputs(base, data, "2" * 64))

    growing = {
        "search.trials": 99,
        "search.seconds": 9.0,
        "search.patience": 9,
        "search.storage": "postgresql://host/db",
        "search.choose": "smallest",
        "search.confirm": {"top": 2, "seeds": 1},
        "train.epochs": 9,
    }
    assert key(growing) == key()
    others: list[dict[str, Any]] = [
        {"search.space.rank": [2, 8], "search.enqueue": []},
        {"search.space.learning_rate": {"low": 1e-3, "high": 2e-1, "log": True}},
        {"search.enqueue": []},
        {"search.sampler": "random"},
        {"search.epochs": 2},
        {"search.train_rows": 8},
        {"train.batch_size": 8},
        {"seed": 43},
    ]
    keys = [key(), key(base="c"), key(data="c"), *map(key, others)]
    assert len(set(keys)) == len(keys)
