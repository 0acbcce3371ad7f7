"""The test rows on which two systems differ: how many each of them wins, and some of them in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.predictions import Prediction, Said
from pipelines.reports.document import Figures, Paragraph, Section, Texts
from pipelines.wording import many, share

SHOWN = 4  # rows that are won and as many that are lost
LONGEST = 1200  # characters of a text; the file of predictions has the rest
SAME = 1e-6  # a score that is higher by no more is the same, of numbers that are written with six digits


@dataclass(frozen=True)
class Names:
    """What a page calls the two systems: ``adapter`` of a prediction, and ``base``."""

    adapter: str = "adapter"
    base: str = "frozen base"


@dataclass(frozen=True)
class Differing:
    """Rows by who answered them better; of ``same`` ones neither did, whatever was said.

    Attributes:
        won: by the adapter, in the order of the file.
        lost: by it.
        same: how many others there are.
        right: how many of these both answered rightly, where answers are right or wrong; else None.
    """

    won: list[Prediction]
    lost: list[Prediction]
    same: int
    right: int | None


def differing(predictions: Sequence[Prediction]) -> Differing | None:
    """Tell rows apart by the scores of their answers; None where they have none, as in a file of release 0.1."""
    scored = [(row, row.adapter.score, row.base.score) for row in predictions]
    pairs = [(row, own, other) for row, own, other in scored if own is not None and other is not None]
    if not pairs or len(pairs) < len(scored):
        return None
    won = [row for row, own, other in pairs if own > other + SAME]
    lost = [row for row, own, other in pairs if other > own + SAME]
    counts = all(score in (0.0, 1.0) for _, *both in pairs for score in both)
    right = sum(own == other == 1.0 for _, own, other in pairs) if counts else None
    return Differing(won, lost, len(pairs) - len(won) - len(lost), right)


def drawn(rows: Sequence[Prediction], count: int, *, seed: int) -> list[Prediction]:
    """So many of the rows, drawn by the seed and so by nobody's taste, in the order of the file."""
    places = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[place] for place in sorted(places.tolist())]


def differing_section(predictions: Sequence[Prediction], names: Names, *, seed: int, shown: int = SHOWN) -> Section:
    """How many rows each system wins, and some of those that differ, in full."""
    found = differing(predictions)
    if found is None:
        return Section("Rows that differ", [Paragraph("The file of predictions says not how good each answer is.")])
    rows = [(f"{names.adapter} better", found.won), (f"{names.base} better", found.lost)]
    counted = [[name, *_counted(len(own), len(predictions))] for name, own in rows]
    if found.right is None:
        counted.append(["as good", *_counted(found.same, len(predictions))])
    else:
        counted.append(["both right", *_counted(found.right, len(predictions))])
        counted.append(["both wrong", *_counted(found.same - found.right, len(predictions))])
    blocks: list[Paragraph | Figures | Texts] = [Figures("Who answers better", ("who", "rows", "share"), counted)]
    for name, own in rows:
        some = drawn(own, shown, seed=seed)
        if some:
            part = f"{len(some)} of {many(len(own), 'row')}, drawn by the seed" if some != own else "all rows"
            blocks.append(Paragraph(f"{name[:1].upper()}{name[1:]}: {part}.", "small"))
            blocks += [in_full(row, names) for row in some]
    return Section("Rows that differ", blocks)


def in_full(row: Prediction, names: Names) -> Texts:
    """A row with what is right and what both systems said."""
    said = [(names.base, said_words(row.base)), (names.adapter, said_words(row.adapter))]
    asked = [("prompt", _clipped(row.prompt)), ("second text", _clipped(row.second)), ("right", right_words(row))]
    place = f"{row.task}, {row.id}" if row.task else row.id
    return Texts(place, [(name, words) for name, words in [*asked, *said] if words])


def right_words(row: Prediction) -> str:
    """What is right of a row: its references, or the label, with the text of the option that it is a letter of."""
    if row.references:
        return _clipped(" / ".join(row.references))
    letters = [chr(ord("A") + place) for place in range(len(row.choices))]
    option = row.choices[letters.index(row.label)].strip() if row.label in letters else ""
    return row.label if option in ("", row.label) else _clipped(f"{row.label}: {option}")


def said_words(said: Said) -> str:
    """An answer, with what its task tells of it: the letter of an option, and what was read in a text."""
    value = f"{said.value:.4g}" if isinstance(said.value, float) else str(said.value)
    letter, read = said.details.get("letter"), said.details.get("answer")
    if letter is not None and letter != value:
        return _clipped(f"{letter}: {value}")
    return _clipped(value) + ("" if read is None or str(read) == value else f" (read as {read})") or "(nothing)"


def _counted(count: int, rows: int) -> tuple[str, str]:
    return f"{count:,}", share(count / rows)


def _clipped(words: str) -> str:
    left = len(words) - LONGEST
    return words if left <= 0 else f"{words[:LONGEST]}… ({many(left, 'more character')})"
