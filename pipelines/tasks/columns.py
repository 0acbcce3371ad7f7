"""The columns that a row must have to be asked about, in use as in the data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """The columns of a row that an adapter's prompt, and its choices where they differ by row, are made of.

    Attributes:
        texts: the template's, once each, as far as rows have them.
        domain: of the number t, for an adapter that reads one; it may be one of the template's too.
        choices: of the row's own choices.
        optional: those of ``choices`` that a row may do without.
        whole: a column that all of these but the domain may stand in, as the data has them.
        turns: of ``texts``, the column of conversations, each a list of turns.
    """

    texts: tuple[str, ...]
    domain: str | None = None
    choices: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    whole: str | None = None
    turns: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, once each."""
        domain = () if self.domain is None else (self.domain,)
        return tuple(dict.fromkeys((*self.texts, *self.choices, *domain)))

    @property
    def needed(self) -> tuple[str, ...]:
        """Those that every row has."""
        return tuple(name for name in self.names if name not in self.optional)

    @property
    def said(self) -> str:
        """How a message says what an input is."""
        number = "" if self.domain is None else f", of which {self.domain!r}, the domain, is a finite number"
        objects = f"an object with {', '.join(map(repr, self.needed))}{number}"
        if self.turns is not None:
            return f"{objects}, of which {self.turns!r} is a list of objects with role and content"
        return f"a string, or {objects}" if len(self.names) == 1 else objects
