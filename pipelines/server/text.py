"""From tokens to text as it can be sent: whole characters alone, and nothing that may be the start of a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reft.batching.sampling import Chosen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = 6  # tokens of the prompt that are decoded with the first ones, whose space some tokenizers drop at a start
UNFINISHED = "\ufffd"  # what a tokenizer makes of bytes that are no whole character yet


@dataclass(frozen=True)
class Told:
    """A token whose text has been sent.

    Attributes:
        chosen: it.
        text: of it alone.
        start: where in the choice's text it begins.
        alternatives: the likeliest tokens' texts and log-probabilities.
    """

    chosen: Chosen
    text: str
    start: int
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What can be sent now.

    Attributes:
        text: that follows what was sent before.
        tokens: that it ends.
        stopped: whether a stop text came; there is no more then.
    """

    text: str
    tokens: tuple[Told, ...] = ()
    stopped: bool = False


class Writer:
    """The text of one choice, token by token.

    Args:
        tokenizer: of the base.
        prompt: its tokens.
        stops: texts that end the choice, and are no part of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids = list(prompt[-BEFORE:])
        self._first, self._read = 0, len(self._ids)  # of what is decoded together, and of what is text already
        self.text = ""
        self._sent = 0
        self._waiting: list[Told] = []

    def add(self, chosen: Chosen) -> Piece:
        """Take the next token."""
        start = len(self.text)
        self._ids.append(chosen.id)
        others = tuple((self._tokenizer.decode([token]), logprob) for token, logprob in chosen.alternatives)
        self._waiting.append(Told(chosen, self._tokenizer.decode([chosen.id]), start, others))
        self.text += self._new_text(finished=False)
        return self._send(start, self._held(), whole=self._read == len(self._ids))

    def end(self) -> Piece:
        """Send what was held back."""
        start = len(self.text)
        self.text += self._new_text(finished=True)
        return self._send(start, 0, whole=True)

    def _new_text(self, *, finished: bool) -> str:
        known = self._decode(self._ids[self._first : self._read])
        whole = self._decode(self._ids[self._first :])
        if len(whole) <= len(known) or (whole.endswith(UNFINISHED) and not finished):
            return ""
        self._first, self._read = self._read, len(self._ids)
        return whole[len(known) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _send(self, start: int, held: int, *, whole: bool) -> Piece:
        """Send all but so many characters, or up to a stop text that ends behind ``start``.

        A token is told once its text is sent; one that has none yet, where the last character is ``whole``.
        """
        longest = max(map(len, self._stops), default=0)
        places = [self.text.find(stop, max(0, start - longest + 1)) for stop in self._stops]
        found = [place for place in places if place >= 0]
        end = min(found) if found else len(self.text) - held
        sent, self._sent = self._sent, max(self._sent, end)
        told = [token for token in self._waiting if token.start < self._sent or (whole and not held and not found)]
        self._waiting = [] if found else [token for token in self._waiting if token not in told]
        return Piece(self.text[sent : self._sent], tuple(told), bool(found))

    def _held(self) -> int:
        """How many of the last characters may be the start of a stop text."""
        lengths = [
            length for stop in self._stops for length in range(1, len(stop)) if self.text.endswith(stop[:length])
        ]
        return max(lengths, default=0)
