"""What the declarations of ReFT's rivals are made of.

A rival's parts stand in its sub-section of `method`, and have its name before theirs wherever all parts are named, as
`lora.rank`. How rows are batched and for how long is every method's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator

from pipelines.recipes.methods.reft import Layers, Settable
from pipelines.sections import Count, NotNegative, Positive, Section, Share
from reft.edits.layers import parse_layers

Shared = Literal["weight_decay", "warmup_ratio", "batch_size", "accumulation", "max_grad_norm", "epochs"]
SHARED: tuple[Shared, ...] = get_args(Shared)

DomainRange = tuple[float, float]
Form = dict[str, Any]
"""The values of a trainer's config by name, all but the method's."""


def _targets(names: str) -> str:
    given = [name.strip() for name in names.split(",")]
    if not all(given) or len(set(given)) < len(given) or ("all-linear" in given and len(given) > 1):
        raise ValueError("target modules are last names of linear modules, like q_proj,v_proj; or all-linear alone")
    return ",".join(given)


Targets = Annotated[str, AfterValidator(_targets)]


class TrainingRecipe(Section):
    """The parts that every method has."""

    name: str
    weight_decay: NotNegative
    warmup_ratio: Share
    batch_size: Count
    accumulation: Count
    max_grad_norm: Positive
    epochs: Count

    def effect(self, num_layers: int) -> dict[str, Any]:
        """What the recipe does to a base of so many layers: equal for recipes that are the same adapter's."""
        found = self.model_dump()
        if isinstance(self, LayeredRecipe):
            found["layers"] = list(self.layer_numbers(num_layers))
        if isinstance(self, LowRankRecipe):
            found["target_modules"] = sorted(set(self.target_modules.split(",")))
        return found


class PartRecipe(TrainingRecipe):
    """Of a rival that is one training."""

    learning_rate: Positive


class LayeredRecipe(PartRecipe):
    """Of a method that trains in some layers of the base."""

    layers: Layers

    def layer_numbers(self, num_layers: int) -> tuple[int, ...]:
        """The layers that it trains in, of a base of so many.

        Raises:
            ValueError: if there is no such layer.
        """
        return parse_layers(self.layers, num_layers)


class LowRankParams(Section):
    """What the sections of LoRA and its kin have in common."""

    rank: Settable[Count]
    alpha: Settable[Positive]
    dropout: Settable[Share]
    target_modules: Settable[Targets]
    layers: Settable[Layers]
    learning_rate: Settable[Positive]


class LowRankRecipe(LayeredRecipe):
    """What the recipes of LoRA and its kin have in common."""

    rank: Count
    alpha: Positive
    dropout: Share
    target_modules: Targets

    def low_rank(self, num_layers: int) -> dict[str, Any]:
        """What their configs have in common, for a base of so many layers."""
        return {
            "layers": self.layer_numbers(num_layers),
            "targets": tuple(self.target_modules.split(",")),
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
        }


@dataclass(frozen=True)
class RivalMethod:
    """A rival of ReFT, as the pipeline knows it.

    Attributes:
        name: in params.yaml.
        title: in text.
        section: its sub-section of `method`, whose keys are its own parts.
        recipe: all its parts, each with its value.
        form: the values of the trainer's config, for a recipe and a base of so many layers; the range is that of the
            training rows' domains.
        sized: which of its own parts change how many numbers are trained.
        reads_domain: whether it reads a number of each row, so that prepare.domain_column must be set.
        made_of: the methods that it trains one after the other, whose parts are its own too.
    """

    name: str
    title: str
    section: type[Section]
    recipe: type[TrainingRecipe]
    form: Callable[[Any, int, DomainRange], Form]
    sized: frozenset[str]
    reads_domain: bool = False
    made_of: tuple[str, ...] = ()
