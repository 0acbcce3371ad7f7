"""Localist alignments by brute force: which units, if any, are a variable.

What distributed alignment search is compared with. Every candidate gives each variable units of its own; all are tried,
and none is learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb

import torch
from torch import Tensor

from reft.causal.accuracy import Accuracy
from reft.causal.counterfactuals import Counterfactual, moved_variables
from reft.causal.probes import Probe, S, X

Units = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class UnitFit:
    """A candidate, by variable the places of its units, and its interchange accuracy."""

    units: Units
    accuracy: Accuracy


def unit_choices(hidden_size: int, variables: Sequence[str], size: int, *, limit: int = 1_000_000) -> Iterator[Units]:
    """Yield every way to give each of one or two variables ``size`` units of its own; two share all the state.

    One variable takes each set of ``size`` units. Two take each set and its complement, so that their parts are the
    whole state, as the rows of a square rotation are.

    Raises:
        ValueError: for another number of variables, a size that leaves a variable no unit, or more than ``limit`` ways.
    """
    if not 1 <= len(variables) <= 2:
        raise ValueError(
            f"units are chosen for one variable or two; got {', '.join(variables) or 'none'}; take them in turn"
        )
    if not 1 <= size <= hidden_size - (len(variables) - 1):
        raise ValueError(
            f"each variable has a unit or more of the {hidden_size}; got {size} for the first; choose another size"
        )
    if comb(hidden_size, size) > limit:
        raise ValueError(
            f"there must be at most {limit} choices to try them all; got {comb(hidden_size, size)} of {size} out of "
            f"{hidden_size} units; take blocks, a smaller size, or a higher limit"
        )
    return _choices(hidden_size, variables, size)


def _choices(hidden_size: int, variables: Sequence[str], size: int) -> Iterator[Units]:
    for chosen in combinations(range(hidden_size), size):
        rest = tuple(unit for unit in range(hidden_size) if unit not in chosen)
        yield dict(zip(variables, (chosen, rest), strict=False))


def unit_blocks(hidden_size: int, variable: str, size: int) -> Iterator[Units]:
    """Yield the blocks of ``size`` neighbouring units, side by side; the last may be shorter."""
    for start in range(0, hidden_size, size):
        yield {variable: tuple(range(start, min(start + size, hidden_size)))}


@torch.no_grad()
def search_units(
    probe: Probe[X, S], site: S, rows: Sequence[Counterfactual[X]], candidates: Iterable[Units], *, chunk: int = 64
) -> list[UnitFit]:
    """Try every candidate on every row.

    Args:
        probe: the network.
        site: where the states are swapped; [rows, hidden] or [rows, tokens, hidden].
        rows: counterfactual rows.
        candidates: what is tried; each names every variable that a row moves.
        chunk: candidates in one pass.

    Returns:
        The candidates with their accuracies, the best first; those of one accuracy in their order.
    """
    names = moved_variables(rows)
    base = probe.read([row.base for row in rows], site)
    sources = {name: _sources(probe, site, rows, name) for name in names}
    labels = torch.tensor([row.label for row in rows], device=base.device)
    inputs = [row.base for row in rows]
    fits, waiting = [], iter(candidates)
    while tried := list(islice(waiting, chunk)):
        edited = base.expand(len(tried), *base.shape)
        for name in names:
            mask = _masks([units[name] for units in tried], base)
            edited = torch.where(mask, sources[name], edited)
        logits = probe.answers(inputs * len(tried), site, edited.flatten(0, 1))
        right = (logits.argmax(-1).view(len(tried), -1) == labels).sum(-1).tolist()
        fits += [UnitFit(units, Accuracy(count, len(rows))) for units, count in zip(tried, right, strict=True)]
    return sorted(fits, key=lambda fit: -fit.accuracy.right)


def _sources(probe: Probe[X, S], site: S, rows: Sequence[Counterfactual[X]], variable: str) -> Tensor:
    """Return what a variable is taken from, [rows, ..., hidden]; a row that does not move it has its base there."""
    given = [next((each.source for each in row.taken if each.variable == variable), row.base) for row in rows]
    return probe.read(given, site)


def _masks(units: Sequence[tuple[int, ...]], states: Tensor) -> Tensor:
    """Return where a variable's units are, bool [candidates, 1, ..., hidden]."""
    mask = torch.zeros(len(units), states.shape[-1], dtype=torch.bool, device=states.device)
    for place, own in enumerate(units):
        mask[place, list(own)] = True
    return mask.view(len(units), *[1] * (states.dim() - 1), states.shape[-1])
