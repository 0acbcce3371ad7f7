"""Which prompt tokens are edited: ``f7+l7`` is the first seven and the last seven.

Positions follow from the attention mask and the prompt lengths alone, never from token values: the same
tokens are edited alone or in a batch, and with the padding on the left or on the right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # parameter files are checked without loading torch
    from torch import Tensor

_SPEC = re.compile(r"f(?P<first>[1-9]\d{0,5})(?:\+l(?P<both>[1-9]\d{0,5}))?|l(?P<last>[1-9]\d{0,5})", re.ASCII)


@dataclass(frozen=True)
class Positions:
    """How many tokens are edited at each end of the prompt; 0 means none at that end."""

    first: int
    last: int

    @property
    def two_sided(self) -> bool:
        """Whether both ends of the prompt are edited."""
        return self.first > 0 and self.last > 0


@dataclass(frozen=True)
class PositionMasks:
    """Edited positions: two bool tensors [batch, sequence] that never overlap.

    Attributes:
        first: positions edited as one of the first tokens of the prompt.
        last: positions edited as one of the last tokens of the prompt.
    """

    first: Tensor
    last: Tensor

    @property
    def either(self) -> Tensor:
        """All edited positions, bool [batch, sequence]."""
        return self.first | self.last


def parse_positions(spec: str) -> Positions:
    """Read ``fN``, ``lM`` or ``fN+lM`` with N and M of 1 or more.

    Raises:
        ValueError: for anything else; nothing is read as "no positions", which would train nothing.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(
            f"positions are fN, lN or fN+lN, each N at least 1; got {spec!r}; "
            "write f7+l7 for the first seven and the last seven prompt tokens"
        )
    return Positions(first=int(match["first"] or 0), last=int(match["both"] or match["last"] or 0))


def position_masks(positions: Positions, attention_mask: Tensor, prompt_lengths: Tensor) -> PositionMasks:
    """Find the edited positions of a batch.

    The prompt of a row is its first ``prompt_lengths[row]`` real tokens. With both ends edited, each end
    takes ``min(n, prompt_length // 2)`` tokens, as pyreft's ``get_intervention_locations`` does, so the ends
    never overlap. Two differences from pyreft: a prompt of one token has that token edited (as a first one;
    pyreft edits nothing), and one-sided positions take up to the whole prompt (pyreft stops at half of it).

    Args:
        positions: the parsed specification.
        attention_mask: [batch, sequence], 1 or True at real tokens; padding may be at either end.
        prompt_lengths: [batch], integers, in tokens.
    """
    real = attention_mask.bool()
    index = real.long().cumsum(-1) - 1  # place among the real tokens of the row
    length = prompt_lengths.long().unsqueeze(-1)
    limit = (length // 2).clamp(min=1) if positions.two_sided else length
    first_count = limit.clamp(max=positions.first)
    last_count = limit.clamp(max=positions.last)
    first = real & (index < first_count) & (index < length)
    last = real & (index >= length - last_count) & (index < length) & ~first
    return PositionMasks(first=first, last=last)
