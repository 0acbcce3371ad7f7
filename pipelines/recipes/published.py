"""The recipes that LoReFT's authors published for families of tasks, by the names that `search.enqueue` takes.

Source: Wu et al. 2024 (ReFT: Representation Finetuning for Language Models), appendix D, and the commands of the
authors' repository: commonsense and arithmetic on LLaMA-7B, instructions on Llama-2-7B, GLUE's SST-2 on RoBERTa-base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def paper_point(name: str, space: Mapping[str, Any]) -> dict[str, Any]:
    """What of a published recipe a space chooses: its searched parts; the others are as `train` fixes them.

    Args:
        name: of :data:`PAPER_RECIPES`.
        space: section `search.space` as it was read.

    Raises:
        ValueError: for another name.
    """
    if name not in PAPER_RECIPES:
        raise ValueError(
            f"a published recipe is one of {', '.join(PAPER_RECIPES)}; got {name!r}; correct search.enqueue"
        )
    recipe = PAPER_RECIPES[name]
    return {part: recipe[part] for part, domain in space.items() if part in recipe and _chosen(domain, recipe)}


def _chosen(domain: Any, recipe: Mapping[str, Any]) -> bool:
    when = domain.get("when") if isinstance(domain, Mapping) else None
    if not isinstance(when, Mapping):  # none, or one that is refused when the space is read
        return True
    return all(isinstance(values, list) and recipe.get(parent) in values for parent, values in when.items())
