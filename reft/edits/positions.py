"""Which prompt tokens are edited: ``f7+l7`` is the first seven and the last seven.

Positions follow from the attention mask, the prompt lengths and the rows' own spans alone, never from token values:
the same tokens are edited alone or in a batch, and with the padding on the left or on the right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # parameter files are checked without loading torch
    from torch import Tensor

ALL = "all"
SPANS = "spans"
_ENDS = re.compile(r"f(?P<first>[1-9]\d{0,5})(?:\+l(?P<both>[1-9]\d{0,5}))?|l(?P<last>[1-9]\d{0,5})", re.ASCII)
_RANGE = re.compile(r"(?P<start>\d{1,6}):(?P<stop>\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Positions:
    """A parsed specification; one of its parts says which tokens are edited.

    Attributes:
        first: how many tokens at the start of the prompt.
        last: how many at its end.
        ranges: half-open ranges of prompt tokens, counted from 0.
        everything: every token of the prompt.
        spans: the tokens that each row names itself.
    """

    first: int = 0
    last: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    everything: bool = False
    spans: bool = False

    @property
    def two_sided(self) -> bool:
        """Whether both ends of the prompt are edited."""
        return self.first > 0 and self.last > 0

    def simplest(self) -> Positions:
        """Return the same positions, ranges in order and joined; those from the first token on as ``first``."""
        if not self.ranges:
            return self
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(self.ranges):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        if len(joined) == 1 and joined[0][0] == 0:
            return Positions(first=joined[0][1])
        return Positions(ranges=tuple(joined))


@dataclass(frozen=True)
class PositionMasks:
    """Edited positions: two bool tensors [batch, sequence] that never overlap.

    Attributes:
        first: positions edited as one of the first tokens of the prompt, or without regard to its ends.
        last: positions edited as one of the last tokens of the prompt.
    """

    first: Tensor
    last: Tensor

    @property
    def either(self) -> Tensor:
        """All edited positions, bool [batch, sequence]."""
        return self.first | self.last


def parse_positions(spec: str) -> Positions:
    """Read ``fN``, ``lN``, ``fN+lN``, ``all``, ``spans``, or token ranges like ``0:2,5:9``.

    Raises:
        ValueError: for anything else; nothing is read as "no positions", which would train nothing.
    """
    if spec == ALL:
        return Positions(everything=True)
    if spec == SPANS:
        return Positions(spans=True)
    match = _ENDS.fullmatch(spec)
    if match is not None:
        return Positions(first=int(match["first"] or 0), last=int(match["both"] or match["last"] or 0))
    ranges = [_RANGE.fullmatch(part.strip()) for part in spec.split(",")]
    found = [(int(part["start"]), int(part["stop"])) for part in ranges if part is not None]
    if len(found) < len(ranges):
        raise ValueError(
            "positions are fN, lN or fN+lN, each N at least 1, all, spans, or ranges like 0:2,5:9; "
            f"got {spec!r}; write f7+l7 for the first seven and the last seven prompt tokens"
        )
    if any(start >= stop for start, stop in found):
        raise ValueError(f"a range of positions ends above its start; got {spec!r}; write 0:2 for the first two tokens")
    return Positions(ranges=tuple(found))


def position_masks(
    positions: Positions, attention_mask: Tensor, prompt_lengths: Tensor, spans: Tensor | None = None
) -> PositionMasks:
    """Find the edited positions of a batch.

    The prompt of a row is its first ``prompt_lengths[row]`` real tokens. With both ends edited, each end
    takes ``min(n, prompt_length // 2)`` tokens, as pyreft's ``get_intervention_locations`` does, so the ends
    never overlap. Two differences from pyreft: a prompt of one token has that token edited (as a first one;
    pyreft edits nothing), and one-sided positions take up to the whole prompt (pyreft stops at half of it).

    Args:
        positions: the parsed specification.
        attention_mask: [batch, sequence], 1 or True at real tokens; padding may be at either end.
        prompt_lengths: [batch], integers, in tokens.
        spans: bool [batch, sequence], the rows' own tokens, for positions of ``spans``.

    Raises:
        ValueError: if the positions are ``spans`` and there are none.
    """
    real = attention_mask.bool()
    index = real.long().cumsum(-1) - 1  # place among the real tokens of the row
    length = prompt_lengths.long().unsqueeze(-1)
    prompt = real & (index < length)
    if positions.spans:
        if spans is None:
            raise ValueError("positions are spans, so the rows must name theirs; got none; give spans to encode")
        return _one(prompt & spans.bool())
    if positions.everything:
        return _one(prompt)
    if positions.ranges:
        chosen = real & False
        for start, stop in positions.ranges:
            chosen = chosen | ((index >= start) & (index < stop))
        return _one(prompt & chosen)
    limit = (length // 2).clamp(min=1) if positions.two_sided else length
    first = prompt & (index < limit.clamp(max=positions.first))
    last = prompt & (index >= length - limit.clamp(max=positions.last)) & ~first
    return PositionMasks(first=first, last=last)


def _one(mask: Tensor) -> PositionMasks:
    return PositionMasks(first=mask, last=mask & False)
