"""Which tokens are edited: ``f7+l7`` is the prompt's first seven and last seven, ``g8`` the first eight after it.

What follows a prompt is a completion in training and in scoring, and what the model writes in use; ``gN`` edits the
first N of these tokens as they are read. The prompt's last token decides the first token that follows, and is none of
them; a token that is read by no pass, as the last one of a completion, is edited by none.

Positions follow from the attention mask, the prompt lengths and the rows' own spans alone, never from token values:
the same tokens are edited alone or in a batch, and with the padding on the left or on the right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # parameter files are checked without loading torch
    from torch import Tensor

ALL = "all"
SPANS = "spans"
_ENDS = re.compile(r"f(?P<first>[1-9]\d{0,5})(?:\+l(?P<both>[1-9]\d{0,5}))?|l(?P<last>[1-9]\d{0,5})", re.ASCII)
_BEHIND = re.compile(r"(?:(?P<prompt>.+)\+)?g(?P<generated>[1-9]\d{0,5})", re.ASCII)
_RANGE = re.compile(r"(?P<start>\d{1,6}):(?P<stop>\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class Positions:
    """A parsed specification: one way to say which tokens of the prompt are edited or none, and how many behind it.

    Attributes:
        first: how many tokens at the start of the prompt.
        last: how many at its end.
        ranges: half-open ranges of prompt tokens, counted from 0.
        everything: every token of the prompt.
        spans: the tokens that each row names itself.
        generated: how many tokens behind the prompt.
    """

    first: int = 0
    last: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    everything: bool = False
    spans: bool = False
    generated: int = 0

    @property
    def two_sided(self) -> bool:
        """Whether both ends of the prompt are edited."""
        return self.first > 0 and self.last > 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the masks of :class:`PositionMasks` that may have tokens, in their order."""
        prompt = self.first > 0 or bool(self.ranges) or self.everything or self.spans
        named = (("first", prompt), ("last", self.last > 0), ("generated", self.generated > 0))
        return tuple(name for name, edited in named if edited)

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
            return Positions(first=joined[0][1], generated=self.generated)
        return Positions(ranges=tuple(joined), generated=self.generated)


@dataclass(frozen=True)
class PositionMasks:
    """Edited positions: three bool tensors [batch, sequence] that never overlap.

    Attributes:
        first: positions edited as one of the first tokens of the prompt, or without regard to its ends.
        last: positions edited as one of the last tokens of the prompt.
        generated: positions edited as one of the tokens behind the prompt.
    """

    first: Tensor
    last: Tensor
    generated: Tensor

    @property
    def either(self) -> Tensor:
        """All edited positions, bool [batch, sequence]."""
        return self.first | self.last | self.generated

    def parts(self, positions: Positions) -> tuple[Tensor, ...]:
        """Return the masks of :attr:`Positions.parts`, in their order."""
        masks = {"first": self.first, "last": self.last, "generated": self.generated}
        return tuple(masks[name] for name in positions.parts)


def parse_positions(spec: str) -> Positions:
    """Read ``fN``, ``lN``, ``fN+lN``, ``all``, ``spans``, or token ranges like ``0:2,5:9``; then ``+gN``, or it alone.

    Raises:
        ValueError: for anything else; nothing is read as "no positions", which would train nothing.
    """
    behind = _BEHIND.fullmatch(spec)
    if behind is None:
        return _of_prompt(spec, spec)
    prompt = Positions() if behind["prompt"] is None else _of_prompt(behind["prompt"], spec)
    return replace(prompt, generated=int(behind["generated"]))


def _of_prompt(part: str, spec: str) -> Positions:
    """Read the part of a specification that says which tokens of the prompt are edited."""
    if part == ALL:
        return Positions(everything=True)
    if part == SPANS:
        return Positions(spans=True)
    match = _ENDS.fullmatch(part)
    if match is not None:
        return Positions(first=int(match["first"] or 0), last=int(match["both"] or match["last"] or 0))
    ranges = [_RANGE.fullmatch(each.strip()) for each in part.split(",")]
    found = [(int(each["start"]), int(each["stop"])) for each in ranges if each is not None]
    if len(found) < len(ranges):
        raise ValueError(
            "positions are fN, lN or fN+lN, each N at least 1, all, spans, or ranges like 0:2,5:9, and behind the "
            f"prompt gN, alone or as in f7+l7+g8; got {spec!r}; write f7+l7 for the first seven and the last seven "
            "prompt tokens"
        )
    if any(start >= stop for start, stop in found):
        raise ValueError(f"a range of positions ends above its start; got {spec!r}; write 0:2 for the first two tokens")
    return Positions(ranges=tuple(found))


def position_masks(
    positions: Positions, attention_mask: Tensor, prompt_lengths: Tensor, spans: Tensor | None = None
) -> PositionMasks:
    """Find the edited positions of a batch.

    The prompt of a row is its first ``prompt_lengths[row]`` real tokens; those behind it are the completion's, as far
    as the mask goes, which for prompts to be continued has columns for what is to come. With both ends edited, each end
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
    prompt, none = real & (index < length), real & False
    generated = real & (index >= length) & (index < length + positions.generated) if positions.generated else none
    if positions.spans:
        if spans is None:
            raise ValueError("positions are spans, so the rows must name theirs; got none; give spans to encode")
        return PositionMasks(prompt & spans.bool(), none, generated)
    if positions.everything:
        return PositionMasks(prompt, none, generated)
    if positions.ranges:
        chosen = none
        for start, stop in positions.ranges:
            chosen = chosen | ((index >= start) & (index < stop))
        return PositionMasks(prompt & chosen, none, generated)
    limit = (length // 2).clamp(min=1) if positions.two_sided else length
    first = prompt & (index < limit.clamp(max=positions.first))
    last = prompt & (index >= length - limit.clamp(max=positions.last)) & ~first
    return PositionMasks(first, last, generated)
