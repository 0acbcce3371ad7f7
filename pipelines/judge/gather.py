"""Rows with what two systems say to them: of the predictions that a run left, or of a file that both are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.contracts.predictions import Prediction
from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.judge.answers import Asking, Losses, instruction_of, read_file, row_id
from pipelines.judge.pairs import Pair, sampled
from pipelines.judge.systems import ADAPTER, BASE, REFERENCE, System, check_same
from pipelines.sources.raw_row import RawRow

Columns = tuple[str | None, str | None]
Opened = Callable[[str], AbstractContextManager[Asking]]
"""Opens a system by its name: ``adapter``, ``base``, or where an adapter is to be had."""


@dataclass(frozen=True)
class Compared:
    """Rows with both answers, in their order.

    Attributes:
        pairs: the answers of the one system and of the other.
        references: of the pairs; "" of a row without one.
        systems: whose the answers are.
        left_out: rows that are broken, that one of the systems cannot be asked, or that have no reference where that is
            the other.
        losses: of both systems, what the references cost; empty where that was not asked for.
    """

    pairs: list[Pair]
    references: list[str]
    systems: tuple[System, System]
    left_out: int
    losses: tuple[Losses, Losses] = field(default_factory=lambda: ({}, {}))


def from_predictions(
    predictions: Sequence[Prediction],
    sides: tuple[str, str],
    *,
    made_by: Callable[[], Mapping[str, System]],
    rows: int | None,
    opened: Opened | None,
) -> Compared:
    """Take the answers that stage evaluate left.

    Args:
        predictions: of the stage.
        sides: of ``adapter``, ``base`` and, the second, ``reference``.
        made_by: whose the predictions are, by these names.
        rows: how many; None: all.
        opened: to find out the losses of the references with; None: they are not asked for.

    Raises:
        PipelineError: for other sides, rows that have no free answers, or systems that are not those of the
            predictions any more.
    """
    unknown = [side for side in sides if side not in (ADAPTER, BASE, REFERENCE)]
    if unknown:
        raise PipelineError(
            "the predictions of a run are those of adapter and base",
            got=unknown[0],
            do="Name a file of rows, which that adapter is then asked.",
        )
    if any(not row.references or not isinstance(row.adapter.value, str) for row in predictions):
        raise PipelineError(
            "a judge compares free answers", got="predictions of another kind", do="Train a task of family generation."
        )
    taken = sampled(predictions, rows, lambda row: row.prompt)

    def said(row: Prediction, side: str) -> str:
        return row.references[0] if side == REFERENCE else str(getattr(row, side).value)

    pairs = [Pair(row.id, row.prompt, said(row, sides[0]), said(row, sides[1])) for row in taken]
    whose, found = made_by(), [Losses(), Losses()]
    if opened is not None:
        asked = [Row(row.id, row.prompt, "", domain=row.domain) for row in taken]
        right = {row.id: row.references[0] for row in taken}
        for place, side in enumerate(sides):
            if side != REFERENCE:
                with opened(side) as asking:
                    check_same(asking.system, whose[side])
                    found[place] = asking.losses(asked, right)
    systems, references = (whose[sides[0]], whose[sides[1]]), [row.references[0] for row in taken]
    return Compared(pairs, references, systems, 0, (found[0], found[1]))


def from_file(
    path: Path, sides: tuple[str, str], *, opened: Opened, references: Columns, rows: int | None, losses: bool
) -> Compared:
    """Ask both systems the rows of a file; what they said before is not asked again.

    Args:
        path: of the file, which has the columns of both systems' templates.
        sides: names of systems; the second may be ``reference``.
        opened: opens one.
        references: the column of references that was asked for, which there must be; and the one that there may be.
        rows: how many; None: all.
        losses: whether to find out what the references cost each system.

    Raises:
        PipelineError: for a file that is none or has not the columns, or where no row is left.
    """
    named, usual = references
    reference = named or usual
    if sides[1] == REFERENCE and reference is None:
        raise PipelineError("answers are compared with a column of references", do="Name it: --reference COLUMN.")
    answers: list[dict[str, str]] = []
    costs: list[Losses] = []
    systems: list[System] = []
    with opened(sides[0]) as asking:
        columns = asking.columns
        needed = named if sides[1] != REFERENCE else reference
        found = read_file(path, (*columns.names, *([needed] if needed else [])))
        if needed and not any(_text(raw, needed) for raw in found):
            raise PipelineError(
                f"rows must have texts in the column of references, {needed}",
                got=f"none in {path}",
                do="Name another: --reference COLUMN.",
            )
        read = [raw for raw in found if raw.problem is None and (sides[1] != REFERENCE or _text(raw, reference))]
        raws = sampled(read, rows, lambda raw: instruction_of(raw, columns.texts))
        right = {row_id(raw): text for raw in raws if (text := _text(raw, reference))}
        wanted = right if losses else {}
        told = asking.answer(raws, wanted)
        systems.append(asking.system)
        answers.append(told.texts)
        costs.append(told.losses)
    if sides[1] == REFERENCE:
        systems.append(System(REFERENCE))
        answers.append(right)
        costs.append({})
    else:
        with opened(sides[1]) as asking:
            told = asking.answer(raws, wanted)
            systems.append(asking.system)
        answers.append(told.texts)
        costs.append(told.losses)
    kept = [raw for raw in raws if all(row_id(raw) in side for side in answers)]
    if not kept:
        raise PipelineError("a file must have rows for both systems", got=f"none of {len(raws)} in {path}")
    pairs = [
        Pair(row_id(raw), instruction_of(raw, columns.texts), answers[0][row_id(raw)], answers[1][row_id(raw)])
        for raw in kept
    ]
    left_out = len(found) - len(read) + len(raws) - len(kept)
    references_of = [right.get(row_id(raw), "") for raw in kept]
    return Compared(pairs, references_of, (systems[0], systems[1]), left_out, (costs[0], costs[1]))


def _text(raw: RawRow, column: str | None) -> str:
    """The text in a column, "" for none."""
    value = None if column is None else raw.values.get(column)
    return value.strip() if isinstance(value, str) else ""
