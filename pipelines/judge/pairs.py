"""Pairs of answers to one instruction, those whose better answer is known, and what two orders of a pair say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.judge.question import Outcome, Question
from pipelines.sources.raw_row import SUFFIXES, RawRow, format_of
from pipelines.sources.rows import Reader

Side = Literal["one", "other"]
T = TypeVar("T")

COLUMNS = ("instruction", "output_1", "output_2", "preference")  # as AlpacaEval's annotations by people have them
LEAST_KNOWN = 5  # pairs of each known verdict, below which rates say nothing
MADE = 60  # pairs at most that are made of references
LIMIT = 1 << 30  # bytes of a file of pairs
SCORES: dict[tuple[Outcome, Outcome], float] = {  # of both orders, the one first and the other first
    ("first", "second"): 1.0, ("second", "first"): 0.0,
    ("first", "first"): 0.5, ("second", "second"): 0.5, ("tie", "tie"): 0.5,
    ("first", "tie"): 0.75, ("tie", "second"): 0.75, ("second", "tie"): 0.25, ("tie", "first"): 0.25,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two answers to an instruction.

    Attributes:
        id: of the row that it is of.
        instruction: what both answer.
        one: of the system that is judged.
        other: what that is compared with.
        better: which is known to be the better; None where the judge is to say.
    """

    id: str
    instruction: str
    one: str
    other: str
    better: Side | None = None

    @property
    def alike(self) -> bool:
        """Whether both say the same, which is a tie that nobody need be asked about."""
        return self.one.strip() == self.other.strip()

    def questions(self) -> tuple[Question, Question]:
        """Both orders: the one first, and the other first."""
        return Question(self.instruction, self.one, self.other), Question(self.instruction, self.other, self.one)


def score(outcomes: tuple[Outcome | None, Outcome | None]) -> float | None:
    """What a pair scores: the mean of both orders, of which each is 1 where the one wins, 0 where the other, 1/2 a tie.

    Args:
        outcomes: of both orders, as :meth:`Pair.questions` has them.

    Returns:
        None where an order has no verdict.
    """
    first, second = outcomes
    return None if first is None or second is None else SCORES.get((first, second))


def sampled(items: Sequence[T], rows: int | None, text: Callable[[T], str]) -> list[T]:
    """So many of the items, in their order, chosen by the hash of their text: more rows hold those of fewer."""
    if rows is None or rows >= len(items):
        return list(items)
    ranked = sorted(range(len(items)), key=lambda place: (sha256_json(text(items[place])), place))
    return [items[place] for place in sorted(ranked[:rows])]


def read_known(path: Path) -> list[Pair]:
    """Read pairs whose better answer is known: columns :data:`COLUMNS`, with 1 or 2 as the preference.

    Raises:
        PipelineError: for a file that cannot be read as such, or with fewer than :data:`LEAST_KNOWN` of each verdict.
    """
    layout = format_of(path.name)
    if layout is None or not path.is_file():
        raise PipelineError(
            f"pairs with known verdicts are in a file that ends in {', '.join(SUFFIXES)}",
            got=path,
            do="Name such a file.",
        )
    with path.open("rb") as stream:
        rows = list(Reader(layout, None, True, COLUMNS).parse(stream, path.name, limit=LIMIT))
    pairs = [_known(row) for row in rows]
    counts = {number: sum(pair.better == side for pair in pairs) for number, side in (("1", "one"), ("2", "other"))}
    if min(counts.values()) < LEAST_KNOWN:
        raise PipelineError(
            f"known verdicts must be {LEAST_KNOWN} of preference 1 and {LEAST_KNOWN} of preference 2 at least",
            got=f"{counts['1']} and {counts['2']} in {path}",
            do="Add some; where one answer is always the better, exchange the outputs of every second row.",
        )
    return pairs


def _known(row: RawRow) -> Pair:
    values = [row.values.get(name) for name in COLUMNS]
    said = str(values[3]).strip().removesuffix(".0")
    if row.problem is not None or said not in ("1", "2") or not all(isinstance(text, str) for text in values[:3]):
        raise PipelineError(
            "a pair with a known verdict has the texts instruction, output_1, output_2, and 1 or 2 as preference",
            got=f"line {row.line} of {row.file}: {row.problem or dict(zip(COLUMNS, values, strict=True))}",
            do="Correct it; leave ties out.",
        )
    instruction, one, other = map(str, values[:3])
    return Pair(f"{row.file}:{row.line}", instruction, one, other, "one" if said == "1" else "other")


def made_known(rows: Sequence[tuple[str, str, str]]) -> list[Pair]:
    """Pairs of a row's own reference and something worse that is made of another row's.

    In turn that is its own with the other's behind it, longer; the first half of its own, shorter; or the other's
    itself, which answers something else. Rows come in the order of :func:`sampled`, and the other is the one of the
    nearest length before it, so that more rows keep the pairs of fewer. The better is the one in every second pair of
    a kind. Such pairs are easier than answers of two models: a judge who errs here is none, and one who does not may
    still err elsewhere.

    Args:
        rows: id, instruction and reference of each.
    """
    before: list[tuple[str, str]] = []
    pairs: list[Pair] = []
    for name, instruction, right in sorted(rows, key=lambda row: sha256_json(row[1])):
        others = [text for asked, text in before if asked != instruction and text.strip() != right.strip()]
        before.append((instruction, right))
        if not others:
            continue
        other, number = min(others, key=lambda text: abs(len(text) - len(right))), len(pairs)
        worse = (f"{right}\n\n{other}", right[: len(right) // 2], other)[number % 3]
        better: Side = "one" if number // 3 % 2 == 0 else "other"
        texts = (right, worse) if better == "one" else (worse, right)
        pairs.append(Pair(f"{name}, made", instruction, *texts, better=better))
        if len(pairs) == MADE:
            break
    return pairs
