"""Which recipe is trained: the rule of params.yaml, over the trials and the runs that confirm the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pipelines.contracts.confirmed import Confirmed
from pipelines.contracts.trials import TrialRecord
from pipelines.errors import PipelineError
from pipelines.params.search import SearchParams
from pipelines.search.folds import fold_size
from pipelines.tasks.measures import Measure


@dataclass(frozen=True)
class Rule:
    """How to choose: the settings, the measure, and the rows of the splits, which say how sure a figure is."""

    settings: SearchParams
    measure: Measure
    training_rows: int
    validation_rows: int
    confidence: float

    @property
    def confirming_rows(self) -> int:
        """How many rows the runs that confirm a recipe are asked together, each counted once."""
        seeds = 0 if self.settings.confirm is None else self.settings.confirm.seeds
        return min(self.training_rows, seeds * fold_size(self.training_rows, self.validation_rows))

    def least(self, value: float, rows: int) -> float:
        """One standard error below a value on so many rows (Breiman et al. 1984, section 3.4.3)."""
        return value - self.measure.error(value, rows)

    def interval(self, value: float, rows: int) -> tuple[float, float]:
        """The confidence interval of a value on so many rows."""
        return self.measure.interval(value, rows, self.confidence)


@dataclass(frozen=True)
class Choice:
    """The chosen trial, the value that it was chosen by, on how many rows, and its spread where runs are several."""

    record: TrialRecord
    value: float
    spread: float | None
    rows: int


def confirmed(trial: int, runs: Mapping[int, float | None], *, seconds: float) -> Confirmed:
    """Sum up the runs of a candidate, by seed, in their order, and the seconds that those with other seeds took."""
    values = tuple(runs.values())
    others = values[1:]
    stood = [value for value in others if value is not None]
    whole = len(stood) == len(others) > 0
    return Confirmed(
        trial=trial,
        seeds=tuple(runs),
        values=values,
        mean=mean(stood) if whole else None,
        spread=stdev(stood) if whole and len(stood) > 1 else None,
        seconds=round(seconds, 1),
    )


def front(records: Sequence[TrialRecord], settings: SearchParams) -> list[TrialRecord]:
    """The trials that may be chosen: complete, within the limits, and, of several objectives, on the Pareto front."""
    complete = _whole(records)
    if len(settings.objectives) == 1:
        return complete
    return [one for one in complete if not any(_dominates(other, one) for other in complete)]


def _whole(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.state == "complete" and not record.over]


def candidates(records: Sequence[TrialRecord], rule: Rule) -> list[TrialRecord]:
    """The trials whose recipes are run again: the most accurate one, and those that the rule would take next.

    The recipe that was tried first is one of them, or comes beside them if it is complete and within the limits: the
    chosen one is to be better than it, on the same rows. It is chosen itself only if it might be without that.
    """
    confirm = rule.settings.confirm
    if confirm is None:
        return []
    able, value = _able(records, rule), {record.number: record.goal for record in records}
    rows = rule.validation_rows
    chosen = [_pick(able, value, rule, "best", rows)]
    while len(chosen) < min(confirm.top, len(able)):
        rest = [record for record in able if record not in chosen]
        chosen.append(_pick(rest, value, rule, rule.settings.choose, rows))
    first = [record for record in _whole(records) if record.enqueued == 0 and record not in chosen]
    return [*chosen, *first]


def choose(records: Sequence[TrialRecord], confirmations: Sequence[Confirmed], rule: Rule) -> Choice:
    """The recipe to train: by its trial alone, or by the mean of its runs where the best ones were run again.

    Raises:
        PipelineError: if no trial can be chosen, or no candidate stood its other seeds.
    """
    able = _able(records, rule)
    if not confirmations:
        values, rows = {record.number: record.goal for record in able}, rule.validation_rows
        best = _pick(able, values, rule, rule.settings.choose, rows)
        return Choice(best, best.value or 0.0, None, rows)
    means = {one.trial: one.mean for one in confirmations if one.mean is not None}
    stood = [record for record in able if record.number in means]
    if not stood:
        raise PipelineError(
            "one of the best recipes must train with other seeds too",
            got=f"trials {', '.join(str(one.trial) for one in confirmations)}, each of which failed with one",
            do="Lower the learning rates of search.space, or raise search.confirm.top.",
        )
    rows = rule.confirming_rows
    best = _pick(stood, means, rule, rule.settings.choose, rows)
    spread = next(one.spread for one in confirmations if one.trial == best.number)
    return Choice(best, means[best.number], spread, rows)


def _able(records: Sequence[TrialRecord], rule: Rule) -> list[TrialRecord]:
    able = front(records, rule.settings)
    if not able:
        ends = sorted({record.error or (f"over {record.over}" if record.over else record.state) for record in records})
        raise PipelineError(
            "at least one trial must be complete and within search.limits",
            got="; ".join(ends) or "no trial",
            do="Change search.space, or raise search.limits.",
        )
    return able


def _pick(
    records: Sequence[TrialRecord], value: Mapping[int, float], rule: Rule, choose: str, rows: int
) -> TrialRecord:
    """By the rule and these values, on so many rows; of equal ones the smaller, then the earlier."""
    if choose == "smallest":
        least = rule.least(max(value[record.number] for record in records), rows)
        records = [record for record in records if value[record.number] >= least]
        return min(records, key=lambda r: (r.parameters or 0, -value[r.number], r.number))
    return min(records, key=lambda r: (-value[r.number], r.parameters or 0, r.number))


def _dominates(one: TrialRecord, other: TrialRecord) -> bool:
    """Whether one trial is as good in every objective, and better in some: the measure is raised, costs are lowered."""
    losses, others = ((-values[0], *values[1:]) for values in (one.values, other.values))
    pairs = list(zip(losses, others, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
