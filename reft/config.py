"""What decides the form of a trained model: every choice that changes the forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from reft.interventions import INITS, METHODS, Init
from reft.positions import Positions, parse_positions


@dataclass(frozen=True)
class ReftConfig:
    """Method, place and size of the interventions; checks itself.

    Attributes:
        layers: edited decoder layers, numbered from 0, ascending; the edit is at a layer's output.
        positions: edited prompt tokens, as :func:`reft.positions.parse_positions` reads them.
        rank: dimensions of the edited subspace.
        method: a key of :data:`reft.interventions.METHODS`.
        init: where training starts: ``identity`` or ``paper``.
        tied: whether one intervention a layer edits both ends of the prompt; without two ends it changes nothing.

    Raises:
        ValueError: at construction, with the rule, the value and what to do.
    """

    layers: tuple[int, ...]
    positions: str
    rank: int
    method: str = "loreft"
    init: Init = "identity"
    tied: bool = True

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        parse_positions(self.positions)
        _check_integer("rank", self.rank, 1)
        _check_choice("method", self.method, tuple(METHODS))
        _check_choice("init", self.init, INITS)
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied must be true or false; got {self.tied!r}; use a boolean")

    @property
    def parsed_positions(self) -> Positions:
        """The positions as numbers."""
        return parse_positions(self.positions)

    @property
    def untied(self) -> bool:
        """Whether each layer has two interventions, one for each end of the prompt."""
        return not self.tied and self.parsed_positions.two_sided

    def slots(self, layer: int) -> tuple[str, ...]:
        """Return the names of the interventions at ``layer``: one, or one for each end of the prompt."""
        return (f"layer_{layer}_first", f"layer_{layer}_last") if self.untied else (f"layer_{layer}",)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ReftConfig:
        """Build a config from :meth:`to_dict`'s values.

        Raises:
            ValueError: for a key that is unknown (the nearest known one is named), missing, or of another type.
        """
        known = [field.name for field in fields(cls)]
        for key in raw:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                advice = f"did you mean {near[0]}?" if near else "remove it"
                raise ValueError(f"a ReFT config has the keys {', '.join(known)}; got {key!r}; {advice}")
        missing = [name for name in known if name not in raw]
        if missing:
            raise ValueError(f"a ReFT config needs every key; got none for {', '.join(missing)}; add them")
        layers, positions, rank = raw["layers"], raw["positions"], raw["rank"]
        if not isinstance(layers, list | tuple):
            raise ValueError(f"layers must be a list of layer numbers; got {layers!r}; write [0, 1]")
        if not isinstance(positions, str):
            raise ValueError(f"positions must be a text; got {positions!r}; write one like f7+l7")
        init = cast(Init, raw["init"])
        return cls(tuple(layers), positions, rank, method=raw["method"], init=init, tied=raw["tied"])


def count_parameters(config: ReftConfig, hidden_size: int) -> int:
    """Return the number of trainable parameters on a base of ``hidden_size``, without building the model."""
    interventions = sum(len(config.slots(layer)) for layer in config.layers)
    return interventions * METHODS[config.method].count_parameters(hidden_size, config.rank)


def _check_layers(layers: tuple[int, ...]) -> None:
    if not isinstance(layers, tuple) or not layers:
        raise ValueError(f"layers must be a tuple of at least one layer number; got {layers!r}; name a layer")
    for layer in layers:
        _check_integer("each layer", layer, 0)
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"layers must ascend, each once; got {layers}; use {tuple(sorted(set(layers)))}")


def _check_integer(name: str, value: object, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be an integer of at least {lowest}; got {value!r}; correct it")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}; choose one of them")
