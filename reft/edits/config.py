"""What decides the form of a trained model: every choice that changes the forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any

from reft.edits.methods.forms import Activation, DropoutOn, EditForm, Init
from reft.edits.methods.table import DECLARED, check_form
from reft.edits.positions import Positions, parse_positions


@dataclass(frozen=True)
class LayerOverride:
    """What one layer has of its own; None is the config's value.

    Attributes:
        layer: its number.
        rank: of its interventions.
        positions: its edited tokens.
    """

    layer: int
    rank: int | None = None
    positions: str | None = None

    def __post_init__(self) -> None:
        check_integer("an override's layer", self.layer, 0)
        if self.rank is not None:
            check_integer("an override's rank", self.rank, 1)
        if self.positions is not None:
            parse_positions(self.positions)


@dataclass(frozen=True)
class ReftConfig:
    """Method, place and size of the interventions; checks itself.

    Attributes:
        layers: edited layers, numbered from 0, ascending; the edit is at a layer's output.
        positions: edited tokens, as :func:`reft.edits.positions.parse_positions` reads them.
        rank: dimensions of the edited subspace; None for a method without one.
        method: of :data:`reft.edits.methods.table.METHOD_NAMES`.
        init: where training starts: ``identity`` or ``paper``.
        tied: whether one intervention a layer edits all of its tokens; if not, the prompt's first tokens (or those that
            are named without regard to its ends), its last ones and those behind it have one each.
        activation: f in the formula, a key of :data:`reft.edits.interventions.ACTIVATIONS`.
        dropout: in training, of what ``dropout_on`` says.
        dropout_on: ``edit``, or ``output`` as the authors' code does.
        projection_bias: NoReFT's b2.
        overrides: layers with a rank or positions of their own, ascending.

    Raises:
        ValueError: at construction, with the rule, the value and what to do.
    """

    layers: tuple[int, ...]
    positions: str
    rank: int | None
    method: str = "loreft"
    init: Init = "identity"
    tied: bool = True
    activation: Activation = "linear"
    dropout: float = 0.0
    dropout_on: DropoutOn = "edit"
    projection_bias: bool = False
    overrides: tuple[LayerOverride, ...] = ()

    def __post_init__(self) -> None:
        check_layer_numbers("layers", self.layers)
        _ = self._positions  # refuses what are none
        if self.rank is not None:
            check_integer("rank", self.rank, 1)
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied must be true or false; got {self.tied!r}; use a boolean")
        if self.overrides:
            check_layer_numbers("the layers of overrides", tuple(override.layer for override in self.overrides))
        edited = set(self.layers)
        for override in self.overrides:
            if override.layer not in edited:
                raise ValueError(
                    f"an override is of an edited layer; got layer {override.layer}; "
                    f"use one of {', '.join(map(str, self.layers))}"
                )
        for form in (self.form(layer) for layer in self.layers):
            check_form(self.method, form)

    def form(self, layer: int) -> EditForm:
        """Return the form of the interventions at ``layer``."""
        return EditForm(
            rank=self._override(layer).rank or self.rank,
            init=self.init,
            activation=self.activation,
            dropout=self.dropout,
            dropout_on=self.dropout_on,
            projection_bias=self.projection_bias,
        )

    def positions_at(self, layer: int) -> Positions:
        """Return the edited tokens at ``layer``."""
        return self._positions[layer]

    def untied_at(self, layer: int) -> bool:
        """Whether the layer has several interventions, one for each part of its positions."""
        return not self.tied and len(self.positions_at(layer).parts) > 1

    def slots(self, layer: int) -> tuple[str, ...]:
        """Return the names of the interventions at ``layer``: one, or one for each part of its positions."""
        if not self.untied_at(layer):
            return (f"layer_{layer}",)
        return tuple(f"layer_{layer}_{part}" for part in self.positions_at(layer).parts)

    def forms(self) -> dict[str, EditForm]:
        """Return the form of every intervention, by its slot's name, from the lowest layer up."""
        return {slot: self.form(layer) for layer in self.layers for slot in self.slots(layer)}

    @cached_property
    def _positions(self) -> dict[int, Positions]:
        """The edited tokens of each layer; each text is read once."""
        texts = {layer: self._override(layer).positions or self.positions for layer in self.layers}
        read = {text: parse_positions(text) for text in {self.positions, *texts.values()}}
        return {layer: read[text] for layer, text in texts.items()}

    def _override(self, layer: int) -> LayerOverride:
        return self._overrides.get(layer) or LayerOverride(layer)

    @cached_property
    def _overrides(self) -> dict[int, LayerOverride]:
        return {override.layer: override for override in self.overrides}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        overrides = [asdict(override) for override in self.overrides]
        return {**asdict(self), "layers": list(self.layers), "overrides": overrides}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ReftConfig:
        """Build a config from :meth:`to_dict`'s values.

        Raises:
            ValueError: for a key that is unknown (the nearest known one is named), missing, or of another type.
        """
        check_keys("a ReFT config", raw, [field.name for field in fields(cls)])
        layers, overrides = raw["layers"], raw["overrides"]
        if not isinstance(layers, list | tuple):
            raise ValueError(f"layers must be a list of layer numbers; got {layers!r}; write [0, 1]")
        if not isinstance(raw["positions"], str):
            raise ValueError(f"positions must be a text; got {raw['positions']!r}; write one like f7+l7")
        if not isinstance(overrides, list | tuple) or not all(isinstance(entry, Mapping) for entry in overrides):
            raise ValueError(f"overrides must be a list of mappings; got {overrides!r}; write [] for none")
        for entry in overrides:
            check_keys("an override", entry, [field.name for field in fields(LayerOverride)])
        built = tuple(LayerOverride(**entry) for entry in overrides)
        return cls(**{**raw, "layers": tuple(layers), "overrides": built})

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the plain values of the keys that have a default."""
        return {
            field.name: list(field.default) if isinstance(field.default, tuple) else field.default
            for field in fields(cls)
            if field.default is not MISSING
        }


def count_parameters(config: ReftConfig, hidden_size: int) -> int:
    """Return the number of trainable parameters on a base of ``hidden_size``, without building the model."""
    method = DECLARED[config.method]
    return sum(method.count_parameters(hidden_size, form) for form in config.forms().values())


def check_keys(name: str, raw: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise ValueError unless ``raw`` has these keys and no other; of an unknown one the nearest known is named."""
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            advice = f"did you mean {near[0]}?" if near else "remove it"
            raise ValueError(f"{name} has the keys {', '.join(known)}; got {key!r}; {advice}")
    missing = [key for key in known if key not in raw]
    if missing:
        raise ValueError(f"{name} needs every key; got none for {', '.join(missing)}; add them")


def check_layer_numbers(name: str, layers: tuple[int, ...]) -> None:
    """Raise ValueError unless ``layers`` is a tuple of ascending layer numbers."""
    if not isinstance(layers, tuple) or not layers:
        raise ValueError(f"{name} must be a tuple of at least one layer number; got {layers!r}; name a layer")
    for layer in layers:
        check_integer("each layer", layer, 0)
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"{name} must ascend, each once; got {layers}; use {tuple(sorted(set(layers)))}")


def check_integer(name: str, value: object, lowest: int) -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``lowest``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be an integer of at least {lowest}; got {value!r}; correct it")
