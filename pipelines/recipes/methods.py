"""The methods that a recipe may be of: ReFT and its rivals, each with the parts that are its own.

A part of ReFT has its plain name, in `train`. A part of a rival stands in its sub-section of `method`, and has that
before its name wherever all parts are named, as `lora.rank`. How rows are batched and for how long is every method's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter

from pipelines.recipes import reft as reft_recipe
from pipelines.recipes.reft import SEARCHED, Layers, Recipe, Settable
from pipelines.sections import STRICT, Count, NotNegative, Positive, Section, Share
from reft.edits.layers import parse_layers

MethodName = Literal["reft", "lora", "dora", "time_lora", "prompt", "prefix", "p_tuning_v2", "full", "lora_then_reft"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
REFT: MethodName = "reft"
STACKED: MethodName = "lora_then_reft"
READS_DOMAIN: tuple[MethodName, ...] = ("time_lora",)  # which need prepare.domain_column

Shared = Literal["weight_decay", "warmup_ratio", "batch_size", "accumulation", "max_grad_norm", "epochs"]
SHARED: tuple[Shared, ...] = get_args(Shared)

# What a space may have: every part of every method.
Part = Literal[
    reft_recipe.Part,
    "lora.rank", "lora.alpha", "lora.dropout", "lora.target_modules", "lora.layers", "lora.learning_rate",
    "dora.rank", "dora.alpha", "dora.dropout", "dora.target_modules", "dora.layers", "dora.learning_rate",
    "time_lora.rank", "time_lora.alpha", "time_lora.dropout", "time_lora.target_modules", "time_lora.layers",
    "time_lora.learning_rate", "time_lora.degree",
    "prompt.virtual_tokens", "prompt.init", "prompt.learning_rate",
    "prefix.virtual_tokens", "prefix.width", "prefix.learning_rate",
    "p_tuning_v2.virtual_tokens", "p_tuning_v2.learning_rate",
    "full.layers", "full.embeddings", "full.learning_rate",
    "lora_then_reft.lora_share",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)
OWN_PARTS: tuple[Part, ...] = tuple(part for part in PARTS if "." in part)  # of the rivals


def _targets(names: str) -> str:
    given = [name.strip() for name in names.split(",")]
    if not all(given) or len(set(given)) < len(given) or ("all-linear" in given and len(given) > 1):
        raise ValueError("target modules are last names of linear modules, like q_proj,v_proj; or all-linear alone")
    return ",".join(given)


Targets = Annotated[str, AfterValidator(_targets)]
Start = Literal["vocabulary", "random"]
Between = Annotated[float, Field(gt=0.0, lt=1.0)]


class LoraParams(Section):
    """Section `method.lora`: two thin matrices beside each chosen linear module."""

    rank: Settable[Count]
    alpha: Settable[Positive]
    dropout: Settable[Share]
    target_modules: Settable[Targets]
    layers: Settable[Layers]
    learning_rate: Settable[Positive]


class DoraParams(LoraParams):
    """Section `method.dora`: the same, and a trained length of each row of the sum."""


class TimeLoraParams(LoraParams):
    """Section `method.time_lora`: the same as LoRA, and how many coefficients its core moves by with the domain."""

    degree: Settable[Count]


class PromptParams(Section):
    """Section `method.prompt`: trained embeddings before each prompt."""

    virtual_tokens: Settable[Count]
    init: Settable[Start]
    learning_rate: Settable[Positive]


class PrefixParams(Section):
    """Section `method.prefix`: keys and values before each prompt, which a perceptron makes."""

    virtual_tokens: Settable[Count]
    width: Settable[Count]
    learning_rate: Settable[Positive]


class PTuningParams(Section):
    """Section `method.p_tuning_v2`: keys and values before each prompt, trained themselves."""

    virtual_tokens: Settable[Count]
    learning_rate: Settable[Positive]


class FullParams(Section):
    """Section `method.full`: the weights of layers, and of what is outside them."""

    layers: Settable[Layers]
    embeddings: Settable[bool]
    learning_rate: Settable[Positive]


class StackedParams(Section):
    """Section `method.lora_then_reft`: LoRA as `method.lora` says, then ReFT as `train` says."""

    lora_share: Settable[Between]


class MethodParams(Section):
    """Section `method`: which method is trained, and the parts of each rival of ReFT, fixed or `searched`."""

    name: MethodName
    lora: LoraParams
    dora: DoraParams
    time_lora: TimeLoraParams
    prompt: PromptParams
    prefix: PrefixParams
    p_tuning_v2: PTuningParams
    full: FullParams
    lora_then_reft: StackedParams

    def value(self, part: str) -> Any:
        """What stands at a part of a rival."""
        method, _, key = part.partition(".")
        return getattr(getattr(self, method), key)

    def fixed(self) -> dict[str, Any]:
        """What of the rivals' parts is not searched."""
        return {part: value for part in OWN_PARTS if (value := self.value(part)) != SEARCHED}


class TrainingRecipe(Section):
    """The parts that every method has."""

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
        if "target_modules" in found:
            found["target_modules"] = sorted(set(found["target_modules"].split(",")))
        return found


class LayeredRecipe(TrainingRecipe):
    """Of a method that trains in some layers of the base."""

    layers: Layers

    def layer_numbers(self, num_layers: int) -> tuple[int, ...]:
        """The layers that it trains in, of a base of so many.

        Raises:
            ValueError: if there is no such layer.
        """
        return parse_layers(self.layers, num_layers)


class LowRankRecipe(LayeredRecipe):
    """What LoRA and its kin have in common."""

    rank: Count
    alpha: Positive
    dropout: Share
    target_modules: Targets
    learning_rate: Positive


class LoraRecipe(LowRankRecipe):
    """All parts of LoRA or DoRA."""

    SECTION: ClassVar = ("lora", "dora")
    name: Literal["lora", "dora"]


class TimeLoraRecipe(LowRankRecipe):
    """All parts of LoRA that moves with the domain."""

    SECTION: ClassVar = ("time_lora",)
    name: Literal["time_lora"]
    degree: Count


class PromptRecipe(TrainingRecipe):
    """All parts of prompt tuning."""

    SECTION: ClassVar = ("prompt",)
    name: Literal["prompt"]
    virtual_tokens: Count
    init: Start
    learning_rate: Positive


class PrefixRecipe(TrainingRecipe):
    """All parts of prefix tuning."""

    SECTION: ClassVar = ("prefix",)
    name: Literal["prefix"]
    virtual_tokens: Count
    width: Count
    learning_rate: Positive


class PTuningRecipe(TrainingRecipe):
    """All parts of P-tuning v2."""

    SECTION: ClassVar = ("p_tuning_v2",)
    name: Literal["p_tuning_v2"]
    virtual_tokens: Count
    learning_rate: Positive


class FullRecipe(LayeredRecipe):
    """All parts of full fine-tuning."""

    SECTION: ClassVar = ("full",)
    name: Literal["full"]
    embeddings: bool
    learning_rate: Positive


class StackedRecipe(TrainingRecipe):
    """All parts of LoRA and then ReFT; how rows are batched and for how long is the same for both."""

    SECTION: ClassVar = ("lora_then_reft",)
    name: Literal["lora_then_reft"]
    lora_share: Between
    lora: LoraRecipe
    reft: Recipe

    def effect(self, num_layers: int) -> dict[str, Any]:
        """What the recipe does to a base of so many layers."""
        both = {"lora": self.lora.effect(num_layers), "reft": self.reft.effect(num_layers)}
        return {"name": self.name, "lora_share": self.lora_share, **both}


PartRecipe = LoraRecipe | TimeLoraRecipe | PromptRecipe | PrefixRecipe | PTuningRecipe | FullRecipe
AnyRecipe = Recipe | PartRecipe | StackedRecipe
_RECIPES: tuple[type[TrainingRecipe], ...] = (*get_args(PartRecipe), StackedRecipe)


def _checks() -> dict[Part, TypeAdapter[Any]]:
    found: dict[Part, TypeAdapter[Any]] = {part: check for part, check in reft_recipe.CHECKS.items()}  # noqa: C416
    for recipe in _RECIPES:
        hints = get_type_hints(recipe, include_extras=True)
        for method in recipe.SECTION:  # type: ignore[attr-defined]
            names = {part: part.partition(".")[2] for part in OWN_PARTS if part.startswith(f"{method}.")}
            found |= {part: TypeAdapter(hints[name], config=STRICT) for part, name in names.items()}
    return found


# How a value of each part is checked, wherever it stands.
CHECKS: Mapping[Part, TypeAdapter[Any]] = _checks()


def owner(part: str) -> str | None:
    """The method that a part is of; None for a part of all."""
    if part in SHARED:
        return None
    return part.partition(".")[0] if "." in part else REFT


def is_part_of(part: str, method: str) -> bool:
    """Whether a recipe of the method has the part."""
    of = owner(part)
    return of is None or of == method or (method == STACKED and of in ("lora", REFT))


def make_recipe(method: str, values: Mapping[str, Any]) -> AnyRecipe:
    """The whole recipe of a method.

    Args:
        method: its name.
        values: of its parts, by their names in :data:`PARTS`; and ReFT's ``overrides``.
    """
    shared = {name: values[name] for name in SHARED}
    if method == REFT:
        return Recipe(**{name: values[name] for name in Recipe.model_fields})
    own = {part.partition(".")[2]: values[part] for part in OWN_PARTS if part.startswith(f"{method}.")}
    if method == STACKED:
        own |= {"lora": make_recipe("lora", values), "reft": make_recipe(REFT, values)}
    recipe = next(recipe for recipe in _RECIPES if method in recipe.SECTION)  # type: ignore[attr-defined]
    made: AnyRecipe = recipe(name=method, **shared, **own)  # type: ignore[assignment]
    return made


def plain_parts(recipe: AnyRecipe) -> dict[str, Any]:
    """The value of each part by its name in :data:`PARTS`; of ReFT also ``overrides``, of a rival also its ``name``."""
    if isinstance(recipe, Recipe):
        return recipe.model_dump()
    if isinstance(recipe, StackedRecipe):
        both = plain_parts(recipe.lora) | plain_parts(recipe.reft)
        return {**both, f"{STACKED}.lora_share": recipe.lora_share, "name": recipe.name}
    own = {
        f"{recipe.name}.{key}": value for key, value in recipe.model_dump(exclude={"name", *map(str, SHARED)}).items()
    }
    return {"name": recipe.name, **own, **recipe.model_dump(include={*map(str, SHARED)})}
