"""The tables of `reft judge`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipelines.contracts.interval import Interval
from pipelines.judge.judgement import Judgement
from pipelines.judge.likeness import NO_JUDGEMENT, Measured
from pipelines.judge.pairs import Pair
from pipelines.judge.tally import Tally
from pipelines.wording import many, share


def judgement_tables(found: Judgement, tally: Tally, sides: tuple[str, str], pairs: Sequence[Pair]) -> RenderableType:
    """The rates with their intervals, the judge's own, what asking took, and what is to be said against it."""
    table = Table(title=f"{sides[0]} against {sides[1]}", title_justify="left", show_header=False)
    for name, said in (*_rates(found), *_lengths(pairs), *_of_judge(found), *_of_asking(tally)):
        table.add_row(Text(name), Text(said))
    findings = [Text(f"! {finding}") for finding in found.findings]
    return Group(table, *findings, Text("Figures: reports/judge.json; pairs: reports/judge.jsonl"))


def measured_table(found: Measured, sides: tuple[str, str]) -> RenderableType:
    """Both systems' figures beside each other, and below them that they judge nothing."""
    table = Table(title="Without a judge", title_justify="left")
    for column in ("", *(sides if found.other else sides[:1]), *(["difference"] if found.difference else [])):
        table.add_column(column)
    systems = [system for system in (found.one, found.other) if system is not None]
    loss = f"loss of the references, nats a token{_of_some(found.one.with_loss, found.one.rows)}"
    chrf = f"chrF to the references{_of_some(found.one.with_reference, found.one.rows)}"
    rows: dict[str, list[str]] = {
        "answers, and empty ones": [f"{system.rows:,}, {system.empty:,}" for system in systems],
        loss: [_number(system.loss) for system in systems],
        chrf: [_rate(system.chrf) for system in systems],
        "median length, characters": [f"{system.characters:,.0f}" for system in systems],
        "words' runs that are repeated": [_rate(system.repetition) for system in systems],
    }
    if found.difference is not None:
        told = {
            chrf: _rate(found.difference.chrf),
            "words' runs that are repeated": _rate(found.difference.repetition),
            loss: _number(found.difference.loss),
        }
        rows = {name: [*cells, told.get(name, "")] for name, cells in rows.items()}
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return Group(table, Text(NO_JUDGEMENT), Text("For a judgement name a judge: --model. Figures: reports/judge.json"))


def _rates(found: Judgement) -> Iterator[tuple[str, str]]:
    alike = f", {found.alike:,} with the same answer twice" if found.alike else ""
    yield "pairs", f"{found.pairs:,}, {found.scored:,} of them judged in both orders{alike}"
    yield "win rate, as the judge says", _rate(found.win_rate)
    controlled = "– (lengths cannot be told from the rest)" if found.win_rate else "–"
    yield "at equal lengths", _rate(found.length_controlled) if found.length_controlled else controlled
    if found.corrected is not None:
        corrected = _rate(found.corrected)
    elif found.calibration.made:
        corrected = "– (needs verdicts of people: --known)"
    else:
        corrected = "– (the judge does not tell better from worse)"
    yield "without the judge's errors", corrected


def _lengths(pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
    one, other = (median(len(getattr(pair, side)) for pair in pairs) for side in ("one", "other"))
    yield "median length, characters", f"{one:,.0f} against {other:,.0f}"


def _of_judge(found: Judgement) -> Iterator[tuple[str, str]]:
    known = found.calibration
    source = "made of references, easier than real ones" if known.made else "with known verdicts"
    yield "calibration", f"{many(known.pairs, 'pair')} {source}, {known.scored:,} judged"
    yield "true positives", _rate(known.true_positives)
    yield "false positives", _rate(known.false_positives)
    if found.contradictions:
        yield (
            "otherwise in the other order",
            f"{many(found.contradictions, 'pair')}, {found.first_place:,} for the first",
        )


def _of_asking(tally: Tally) -> Iterator[tuple[str, str]]:
    yield "questions", f"{tally.questions:,}: {tally.known:,} answered before, {tally.unanswered:,} without a reply"
    if tally.unasked:
        yield "left by the bound", f"{tally.unasked:,}: the same command goes on"
    tokens = f"{tally.read_tokens:,} tokens read, {tally.written_tokens:,} written"
    yield "calls", f"{tally.calls:,}; {tokens}" + (f"; cost {tally.cost:.2f}" if tally.cost else "")
    if tally.seconds:
        yield "seconds of a reply", f"median {median(tally.seconds):.2f}, longest {max(tally.seconds):.2f}"


def _rate(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{share(interval.value)}  ({share(interval.low)} to {share(interval.high)})"


def _number(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.3f}  ({interval.low:.3f} to {interval.high:.3f})"


def _of_some(some: int, rows: int) -> str:
    return f" ({some:,} of {many(rows, 'row')})" if 0 < some < rows else ""
