"""Recipes by the names that `search.enqueue` takes: published ones, and those that won on public tasks.

LoReFT's authors published theirs for families of tasks.

Source: Wu et al. 2024 (ReFT: Representation Finetuning for Language Models), appendix D, and the commands of the
authors' repository: commonsense and arithmetic on LLaMA-7B, instructions on Llama-2-7B, GLUE's SST-2 on RoBERTa-base.
Those of tasks are the best of 36 on 200 validation rows (docs/results/protocol.md): 100 steps on a model of 135M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from pipelines.recipes.domains import Conditional
from pipelines.recipes.space import SpaceParams

_LLAMA: Mapping[str, Any] = {
    "method": "loreft", "layers": "all", "positions": "f7+l7", "rank": 8, "tied": True, "activation": "linear",
    "learning_rate": 9.0e-4, "dropout": 0.0, "weight_decay": 0.0, "warmup_ratio": 0.1, "batch_size": 16,
    "accumulation": 2, "init": "paper", "dropout_on": "output",
}  # fmt: skip

PAPER_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "commonsense": {**_LLAMA, "epochs": 6},
    "arithmetic": {**_LLAMA, "epochs": 12},
    "instructions": {
        **_LLAMA, "layers": "3,9,18,24", "positions": "f5+l5", "rank": 4, "tied": False, "warmup_ratio": 0.0,
        "batch_size": 4, "accumulation": 32, "epochs": 9,
    },
    "glue": {
        **_LLAMA, "positions": "f3", "rank": 1, "learning_rate": 6.0e-4, "dropout": 0.1, "batch_size": 32,
        "accumulation": 1, "epochs": 40,
    },
}  # fmt: skip

_SHORT: Mapping[str, Any] = {
    **_LLAMA, "layers": "::2", "learning_rate": 1.6e-3, "batch_size": 4, "accumulation": 1, "init": "identity",
    "dropout_on": "edit", "epochs": 2,
}  # fmt: skip
WON_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "trec": {**_SHORT, "positions": "l1"},
    "cola": {**_SHORT, "positions": "l4"},
}
NAMED_RECIPES = {**PAPER_RECIPES, **WON_RECIPES}


def _known(name: str) -> str:
    if name not in NAMED_RECIPES:
        raise ValueError(f"a recipe's name is one of {', '.join(NAMED_RECIPES)}; got {name!r}; correct search.enqueue")
    return name


RecipeName = Annotated[str, AfterValidator(_known)]


def named_point(name: str, space: SpaceParams) -> dict[str, Any]:
    """What of a named recipe a space chooses: its searched parts; the others are as `train` fixes them."""
    recipe = NAMED_RECIPES[name]
    chosen = [part for part, domain in space.root.items() if part in recipe and _chosen(domain, recipe)]
    return {str(part): recipe[part] for part in chosen}


def _chosen(domain: object, recipe: Mapping[str, Any]) -> bool:
    if not isinstance(domain, Conditional):
        return True
    return all(recipe.get(parent) in values for parent, values in domain.when.items())
