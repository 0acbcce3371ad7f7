"""Interchange interventions: modules that put a part of a source's hidden state in the place of the base's.

Each maps (b, s, variable) to a state; b and s are the hidden states of base and source at one site, [..., hidden]. What
a variable has no part in stays as it is in the base. The arithmetic is fp32 or wider whatever the states are; the
result is cast back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.edits.orthogonal import OrthonormalRows

LOWEST_BOUNDARY = 1e-3  # of a boundless swap: a boundary of 0 would have no gradient any more


class Swap(nn.Module, ABC):
    """One interchange intervention.

    Args:
        variables: the causal variables that it knows.

    Raises:
        ValueError: at construction without variables; in a call for a variable that it does not know.
    """

    def __init__(self, variables: Sequence[str]) -> None:
        super().__init__()
        if not variables:
            raise ValueError("a swap is of one causal variable or more; got none; name one")
        self.variables = tuple(variables)

    def forward(self, base: Tensor, source: Tensor, variable: str) -> Tensor:
        """Return the base's states with the variable's part from the source.

        Args:
            base: [..., hidden], any floating dtype.
            source: the same shape.
            variable: whose part is moved.

        Returns:
            [..., hidden] in the base's dtype.
        """
        if variable not in self.variables:
            raise ValueError(
                f"this swap is of the variables {', '.join(self.variables)}; got {variable!r}; name one of them"
            )
        with torch.autocast(base.device.type, enabled=False):
            wide = torch.promote_types(base.dtype, torch.float32)
            return self.swapped(base.to(wide), source.to(wide), variable).to(base.dtype)

    @abstractmethod
    def swapped(self, base: Tensor, source: Tensor, variable: str) -> Tensor:
        """Return the formula's value for states [..., hidden] in fp32 or wider."""


class VectorSwap(Swap):
    """s: the whole state is the source's."""

    def swapped(self, base: Tensor, source: Tensor, variable: str) -> Tensor:  # noqa: ARG002
        return source


class UnitSwap(Swap):
    """b + m (s - b): the localist swap, in which a variable is some of the units and m is 1 at them.

    Args:
        hidden_size: width of the states.
        units: by variable, the places of its units.

    Raises:
        ValueError: if a unit is not one of the state's, or belongs to two variables.
    """

    masks: Tensor

    def __init__(self, hidden_size: int, units: Mapping[str, Sequence[int]]) -> None:
        super().__init__(list(units))
        every = [unit for own in units.values() for unit in own]
        if not all(0 <= unit < hidden_size for unit in every) or len(set(every)) < len(every):
            raise ValueError(
                f"units are places from 0 to {hidden_size - 1}, each of one variable; got {dict(units)}; correct them"
            )
        masks = torch.zeros(len(units), hidden_size)
        for place, own in enumerate(units.values()):
            masks[place, list(own)] = 1
        self.register_buffer("masks", masks, persistent=False)

    def swapped(self, base: Tensor, source: Tensor, variable: str) -> Tensor:
        return base + self.masks[self.variables.index(variable)] * (source - base)


class RotatedSwap(Swap):
    """b + R^T(Rs - Rb): distributed interchange in the rows of R that are the variable's (Geiger et al. 2023, DII).

    All variables share one R with orthonormal rows, so their subspaces are orthogonal and may take from different
    sources one after the other. A variable with as many rows as the state has units takes all of the source.

    Args:
        hidden_size: width d of the states.
        ranks: by variable, the dimension of its subspace.
        generator: of the random R that learning starts from, on the CPU.

    Raises:
        ValueError: if a rank is below 1, or they add up to more than ``hidden_size``.
    """

    def __init__(self, hidden_size: int, ranks: Mapping[str, int], generator: torch.Generator) -> None:
        super().__init__(list(ranks))
        if min(ranks.values()) < 1:
            raise ValueError(f"each variable's subspace has a dimension of 1 or more; got {dict(ranks)}; correct it")
        self.ranks = dict(ranks)
        self.rotation = OrthonormalRows(hidden_size, sum(ranks.values()), generator)

    def rows(self, variable: str) -> slice:
        """Return which rows of R are the variable's."""
        place = self.variables.index(variable)
        start = sum(list(self.ranks.values())[:place])
        return slice(start, start + self.ranks[variable])

    def swapped(self, base: Tensor, source: Tensor, variable: str) -> Tensor:
        rotation = self.rotation()[self.rows(variable)].to(base.dtype)
        return base + functional.linear(source - base, rotation) @ rotation


class BoundlessSwap(Swap):
    """R^T((1 - m) Rb + m Rs): DII whose dimension is learned (Wu et al. 2023, boundless DAS).

    R is square and m_i = sigmoid(i / T) sigmoid((d beta - i) / T) for i from 0 to d - 1: a soft choice of the first
    share ``beta`` of R's rows that hardens as the temperature T falls. The first factor halves the weight of row 0 at
    every temperature; it is the paper's, and :meth:`hardened` is free of it.

    Args:
        hidden_size: width d of the states.
        variable: the causal variable.
        generator: of the random R that learning starts from, on the CPU.

    Attributes:
        temperature: T; whoever learns lowers it.
    """

    def __init__(self, hidden_size: int, variable: str, generator: torch.Generator) -> None:
        super().__init__([variable])
        self.hidden_size = hidden_size
        self.temperature = 50.0
        self.rotation = OrthonormalRows(hidden_size, hidden_size, generator)
        self.boundary = nn.Parameter(torch.tensor(0.5))

    @property
    def share(self) -> Tensor:
        """The boundary beta in (0, 1], a scalar."""
        return self.boundary.clamp(LOWEST_BOUNDARY, 1)

    def mask(self) -> Tensor:
        """Return m [hidden]."""
        place = torch.arange(self.hidden_size, device=self.boundary.device)
        inside = (self.share * self.hidden_size - place) / self.temperature
        return torch.sigmoid(place / self.temperature) * torch.sigmoid(inside)

    def swapped(self, base: Tensor, source: Tensor, variable: str) -> Tensor:  # noqa: ARG002
        rotation, mask = self.rotation().to(base.dtype), self.mask().to(base.dtype)
        return ((1 - mask) * functional.linear(base, rotation) + mask * functional.linear(source, rotation)) @ rotation

    @torch.no_grad()
    def hardened(self) -> RotatedSwap:
        """Return the swap of the rows inside the boundary, at least one: what is measured after learning."""
        rank = min(self.hidden_size, max(1, round(self.share.item() * self.hidden_size)))
        hard = RotatedSwap(self.hidden_size, {self.variables[0]: rank}, torch.Generator())
        hard.to(self.boundary.device).rotation.set_rotation(self.rotation()[:rank])
        return hard
