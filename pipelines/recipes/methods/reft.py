"""A recipe: everything that decides an adapter. Each part is fixed in `train`, or chosen from `search.space`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter, field_validator

from pipelines.sections import STRICT, Count, NotNegative, Positive, Section, Share
from reft.edits.config import LayerOverride, ReftConfig
from reft.edits.layers import check_layers, parse_layers
from reft.edits.methods.forms import Activation, DropoutOn, EditForm, Init
from reft.edits.methods.table import DECLARED, Method, check_form
from reft.edits.positions import SPANS, Positions, parse_positions

SEARCHED = "searched"  # stands in `train` for what `search.space` has
Searched = Literal["searched"]

# The parts of a recipe that a space may have: all of them.
Part = Literal[
    "method", "init", "layers", "positions", "rank", "tied", "activation", "dropout", "dropout_on",
    "projection_bias", "learning_rate", "weight_decay", "warmup_ratio", "batch_size", "accumulation", "max_grad_norm",
    "epochs",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)


def _layers(spec: str) -> str:
    check_layers(spec)
    return spec


def _positions(spec: str) -> str:
    if parse_positions(spec).spans:
        raise ValueError(f"positions of {SPANS} need rows that name their own, which prepared rows do not; take it out")
    return spec


Layers = Annotated[str, AfterValidator(_layers)]
PositionsSpec = Annotated[str, AfterValidator(_positions)]


class OverrideParams(Section):
    """What one layer has of its own; see :class:`reft.edits.config.LayerOverride`."""

    layer: Annotated[int, Field(ge=0)]
    rank: Count | None
    positions: PositionsSpec | None


@dataclass(frozen=True)
class Placement:
    """Where a recipe edits a base.

    Attributes:
        layers: the edited ones, ascending.
        positions: the edited tokens.
        own: those of the layers that have their own.
    """

    layers: tuple[int, ...]
    positions: Positions
    own: Mapping[int, Positions]

    def every(self) -> tuple[Positions, ...]:
        """The edited tokens of all layers."""
        return (self.positions, *self.own.values())


class Recipe(Section):
    """All parts, each with its value, and the layers that have a rank or positions of their own."""

    method: Method
    init: Init
    layers: Layers
    positions: PositionsSpec
    rank: Count | None
    tied: bool
    activation: Activation
    dropout: Share
    dropout_on: DropoutOn
    projection_bias: bool
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_ratio: Share
    batch_size: Count
    accumulation: Count
    max_grad_norm: Positive
    epochs: Count
    overrides: list[OverrideParams]

    def placement(self, num_layers: int) -> Placement:
        """Where the recipe edits a base of so many layers.

        Raises:
            ValueError: if there is no such layer.
        """
        own = {one.layer: parse_positions(one.positions) for one in self.overrides if one.positions is not None}
        return Placement(parse_layers(self.layers, num_layers), parse_positions(self.positions), own)

    def form(self, num_layers: int) -> ReftConfig:
        """The form of the recipe's adapter for a base of so many layers.

        Raises:
            ValueError: if there is no such layer, or one of its own that the recipe does not edit.
        """
        return ReftConfig(
            layers=self.placement(num_layers).layers,
            positions=self.positions,
            rank=self.rank,
            method=self.method,
            init=self.init,
            tied=self.tied,
            activation=self.activation,
            dropout=self.dropout,
            dropout_on=self.dropout_on,
            projection_bias=self.projection_bias,
            overrides=tuple(LayerOverride(**override.model_dump()) for override in self.overrides),
        )

    def effect(self, num_layers: int) -> dict[str, Any]:
        """What the recipe does to a base of so many layers: equal for recipes that are the same adapter's."""
        placed = self.placement(num_layers)
        return self.model_dump() | {
            "layers": list(placed.layers),
            "positions": asdict(placed.positions.simplest()),
            "tied": self.tied or not any(len(positions.parts) > 1 for positions in placed.every()),
            "dropout_on": self.dropout_on if self.dropout else None,
            "init": self.init if "init" in DECLARED[self.method].parts else None,
        }


# How a value of each part is checked, wherever it stands.
CHECKS: Mapping[Part, TypeAdapter[Any]] = {
    part: TypeAdapter(hint, config=STRICT)
    for part, hint in get_type_hints(Recipe, include_extras=True).items()
    if part in PARTS
}

T = TypeVar("T")


def _how(value: object) -> str:
    return "searched" if value == SEARCHED else "fixed"


Settable = Annotated[Annotated[T, Tag("fixed")] | Annotated[Searched, Tag("searched")], Discriminator(_how)]


class TrainParams(Section):
    """Section `train`: each part of the recipe, fixed or `searched`, and how training is carried out."""

    method: Settable[Method]
    init: Settable[Init]
    layers: Settable[Layers]
    positions: Settable[PositionsSpec]
    rank: Settable[Count | None]
    tied: Settable[bool]
    activation: Settable[Activation]
    dropout: Settable[Share]
    dropout_on: Settable[DropoutOn]
    projection_bias: Settable[bool]
    learning_rate: Settable[Positive]
    weight_decay: Settable[NotNegative]
    warmup_ratio: Settable[Share]
    batch_size: Settable[Count]
    accumulation: Settable[Count]
    max_grad_norm: Settable[Positive]
    epochs: Settable[Count]
    overrides: list[OverrideParams]
    gradient_checkpointing: bool
    checkpoint_every: Count

    def fixed(self) -> dict[str, Any]:
        """What of a recipe is not searched: no layer has settings of its own that are."""
        return {name: value for name in (*PARTS, "overrides") if (value := getattr(self, name)) != SEARCHED}

    @field_validator("overrides")
    @classmethod
    def _ascending(cls, overrides: list[OverrideParams]) -> list[OverrideParams]:
        layers = [override.layer for override in overrides]
        if layers != sorted(set(layers)):
            raise ValueError(f"the layers of overrides must ascend, each once, like {sorted(set(layers))}")
        return overrides


def form_problem(values: Mapping[str, Any]) -> str | None:
    """Why no adapter can have these values of method, init, activation, bias and rank together; None if one can."""
    form = EditForm(values["rank"], values["init"], values["activation"], projection_bias=values["projection_bias"])
    try:
        check_form(values["method"], form)
    except ValueError as error:
        return str(error)
    return None
