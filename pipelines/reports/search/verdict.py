"""What a study came to, in plain words: which recipe won, why, against what, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import TYPE_CHECKING

from pipelines.contracts.trials import TrialRecord
from pipelines.params.search import SearchParams
from pipelines.reports.charts import Kind
from pipelines.reports.search.importance import importances
from pipelines.search.choice import Choice, Confirmed, front
from pipelines.search.origin import origin
from pipelines.search.records import saved_seconds
from pipelines.wording import duration, many, measure_words, part_value, points, recipe_words, share

if TYPE_CHECKING:
    from pipelines.search.worker import Found

SURE = 20  # complete trials, below which importances are a hint


@dataclass(frozen=True)
class Standing:
    """A line of the comparison: what it is, its value (of how many runs, with what spread), and its trial.

    ``lead``: by how much the chosen recipe is better on the same rows; ``lead_spread``: the standard deviation
    of that over the runs, of which each pair has a seed and its rows in common.
    """

    name: str
    value: float | None
    spread: float | None
    runs: int
    record: TrialRecord | None
    lead: float | None
    lead_spread: float | None = None


@dataclass(frozen=True)
class Costs:
    """What a study took: seconds of its trials, of the runs that confirm the best, and about what pruning saved."""

    trials: float
    confirmations: float
    saved: float

    @property
    def spent(self) -> float:
        """All seconds of training and scoring."""
        return self.trials + self.confirmations


@dataclass(frozen=True)
class Verdict:
    """A study that ended, and the recipe that was chosen."""

    found: Found
    choice: Choice

    @property
    def settings(self) -> SearchParams:
        """Section `search` of params.yaml."""
        return self.found.rule.settings

    @property
    def measure(self) -> str:
        """What trials were measured by, in words."""
        return measure_words(self.found.rule.measure.name)

    @cached_property
    def complete(self) -> list[TrialRecord]:
        """The trials that ran to their end."""
        return [record for record in self.found.records if record.state == "complete"]

    @cached_property
    def confirmed(self) -> dict[int, Confirmed]:
        """The runs of the candidates, by the number of the trial."""
        return {one.trial: one for one in self.found.confirmations}

    @cached_property
    def front(self) -> list[TrialRecord]:
        """The trials that might have been chosen."""
        return front(self.found.records, self.settings)

    @cached_property
    def importances(self) -> Mapping[str, float]:
        """How much each part matters, the most important first; none where too few trials are complete."""
        return importances(self.complete, self.found.space)

    @property
    def first(self) -> TrialRecord | None:
        """The trial of the recipe that was tried first; its last one, if that was killed."""
        return next((record for record in reversed(self.found.records) if record.enqueued == 0), None)

    def kind(self, record: TrialRecord) -> Kind:
        """How the trial is shown."""
        kinds: dict[str, Kind] = {"complete": "complete", "pruned": "pruned", "fail": "fail"}
        return "chosen" if record.number == self.choice.record.number else kinds[record.state]

    def costs(self) -> Costs:
        """What the study took."""
        return Costs(
            trials=sum(record.seconds or 0.0 for record in self.found.records),
            confirmations=sum(one.seconds for one in self.found.confirmations),
            saved=sum(saved_seconds(record, self.settings.reports) for record in self.found.records),
        )

    def standing(self, name: str, record: TrialRecord) -> Standing:
        """How a trial's recipe stands: by the runs that confirm it, where there are any; else by its trial."""
        runs = self.confirmed.get(record.number)
        if runs is not None:
            lead, spread = self._paired(runs)
            return Standing(name, runs.mean, runs.spread, len(runs.values) - 1, record, lead, spread)
        lead = None if record.value is None else (self.choice.record.value or 0.0) - record.value
        return Standing(name, record.value, None, 1, record, lead)

    def _paired(self, other: Confirmed) -> tuple[float | None, float | None]:
        """The mean lead of the chosen recipe over another's runs, and its spread; None where there is none."""
        pairs = zip(self.confirmed[self.choice.record.number].values[1:], other.values[1:], strict=True)
        leads = [own - theirs for own, theirs in pairs if own is not None and theirs is not None]
        whole = len(leads) == len(other.values) - 1
        return (mean(leads) if whole else None), (stdev(leads) if whole and len(leads) > 1 else None)

    @property
    def base_value(self) -> float | None:
        """That of the frozen base on the rows that the choice was made by."""
        return self.found.base_confirmed if self.confirmed else self.found.base_value

    def standings(self) -> list[Standing]:
        """The chosen recipe, the best of the others, the one tried first, the frozen base: what there is of them."""
        found = [self.standing("chosen", self.choice.record)]
        if (second := self._second()) is not None:
            found.append(self.standing("best of the others", second))
        if self.first is not None and self.first.number not in [line.record.number for line in found if line.record]:
            found.append(self.standing("tried first", self.first))
        if (base := self.base_value) is not None:
            found.append(Standing("frozen base", base, None, 1, None, self.choice.value - base))
        return found

    def _second(self) -> TrialRecord | None:
        """The best of the others; among confirmed ones where there are any."""
        others = [record for record in self.front if record.number != self.choice.record.number]
        able = [record for record in others if not self.confirmed or record.number in self.confirmed]
        lines = [line for record in able if (line := self.standing("", record)).value is not None]
        return max(lines, key=lambda line: line.value or 0.0).record if lines else None

    def reasons(self) -> list[str]:
        """Why this recipe, a sentence each."""
        rivals = [self._against_second(), self._against_first(), self._against_base()]
        said = [self._rule(), self._origin(), self._over(), *rivals, self._what_matters()]
        return [sentence for sentence in said if sentence]

    def _origin(self) -> str:
        return f"Its recipe was {origin(self.choice.record, self.settings, named=self.found.named).words}."

    def _rule(self) -> str:
        settings = self.settings
        able = f"the {many(len(self.front), 'trial')} that could be chosen"
        if len(settings.objectives) > 1:
            able = f"the {many(len(self.front), 'trial')} on the Pareto front of {_listed(settings.objectives)}"
        if self.confirmed:
            runs = len(self.found.confirmations[0].seeds) - 1
            again = f"run again with {many(runs, 'other seed')} each, on rows that chose none of them"
            able = f"the {many(len(self.confirmed), 'recipe')} that were {again}"
        if settings.choose == "smallest":
            return (
                f"Of {able}, it has the fewest parameters among those whose {self.measure} lies within one standard "
                "error of the best one's."
            )
        if self.confirmed:
            return f"Of {able}, it has the highest mean {self.measure}."
        if settings.judge == "loss":
            lowest = f"the lowest loss, {self.choice.record.loss or 0.0:.3f} nats"
            return f"Of {able}, it has {lowest}, in one run each: how far chance decided is not known."
        return f"Of {able}, it has the highest {self.measure}, in one run each: how far chance decided is not known."

    def _over(self) -> str:
        over = [record for record in self.found.records if record.over]
        limits = sorted({limit for record in over for limit in record.over})
        return f"{many(len(over), 'trial')} went over the limit of {_listed(limits)} and could not win." if over else ""

    def _against_second(self) -> str:
        second = self._second()
        if second is None:
            return ""
        name = f"The best of the others ({recipe_words(second.params)})"
        if second is self.first:
            name = f"The recipe that was tried first ({recipe_words(second.params)}), the best of the others,"
        return self._lead(name, self.standing("", second))

    def _against_first(self) -> str:
        first, best = self.first, self.choice.record
        if first is None or first is self._second():
            return ""
        name = f"The recipe that was tried first ({recipe_words(first.params)})"
        if first.number == best.number:
            return f"{name} is the one that won: the search found no better one."
        if first.state == "fail":
            return f"{name} failed: {first.error}."
        if first.state == "pruned" and first.intermediate:
            report = max(first.intermediate)
            there = f"; the winner had {share(best.intermediate[report])} there" if report in best.intermediate else ""
            return (
                f"{name} was stopped early: at report {report} of {self.settings.reports} it had "
                f"{share(first.intermediate[report])}{there}."
            )
        return self._lead(name, self.standing("", first))

    def _against_base(self) -> str:
        value = self.base_value
        if value is None:
            return ""
        lead, low = self.choice.value - value, self.found.rule.interval(self.choice.value, self.choice.rows)[0]
        level = f"{100 * self.found.rule.confidence:g} %"
        sure = "" if value < low else f", which lies inside its {level} interval on so few rows"
        return f"The frozen base has {share(value)}: the winner is {_apart(lead)}{sure}."

    def _lead(self, name: str, other: Standing) -> str:
        """By how much the chosen recipe is better than another, and whether that is more than chance."""
        if other.value is None or other.lead is None:
            return f"{name} failed with another seed."
        said = f"{name} has {share(other.value)}: the winner is {_apart(other.lead)}"
        if other.lead_spread is not None:
            words = "more than" if abs(other.lead) > other.lead_spread else "not more than"
            return f"{said}, {words} the spread of that over the runs ({points(other.lead_spread, sign=False)})."
        return f"{said}, in one run each{self.on_rows(other)}."

    def on_rows(self, other: Standing) -> str:
        """Which rows, where they are not those that the choice was made by."""
        apart = other.record is not None and bool(self.confirmed) and other.record.number not in self.confirmed
        return " on validation rows" if apart else ""

    def _what_matters(self) -> str:
        shares = list(self.importances.items())
        if not shares:
            return ""
        (first, most), *rest = shares
        then = f", then {rest[0][0]} ({100 * rest[0][1]:.0f} %)" if rest else ""
        few = len(self.complete) < SURE
        hint = f"; from {many(len(self.complete), 'complete trial')} this is a hint" if few else ""
        return f"What made the difference: {first} ({100 * most:.0f} % of it){then}{hint}."

    def bill(self) -> list[str]:
        """What it cost, a sentence each."""
        states = [record.state for record in self.found.records if not record.was_killed]
        killed = len(self.found.records) - len(states)
        ends = [("complete", "complete"), ("pruned", "stopped early"), ("fail", "failed")]
        said = ", ".join(f"{states.count(state)} {words}" for state, words in ends if states.count(state))
        costs, best = self.costs(), self.choice.record
        again = sum(len(one.seeds) - 1 for one in self.found.confirmations)
        said += f"; {killed} more ended with their process and were run again" if killed else ""
        lines = [f"{many(len(states), 'trial')}: {said}" + (f"; and {again} runs with other seeds" if again else "")]
        took = f"{duration(costs.spent)} of training and scoring, all processes together"
        lines.append(took + (f", {duration(costs.confirmations)} of it with other seeds" if again else ""))
        filled = sum(record.fill_seconds or 0.0 for record in self.found.records)
        if filled >= 0.5:
            lines.append(f"Beside that, {duration(filled)} went into what all trials share, which is kept")
        if costs.saved:
            whole = costs.saved + costs.trials
            lines.append(f"Pruning saved about {duration(costs.saved)}, {costs.saved / whole:.0%} of the trials' time")
        own = [f"{best.parameters:,} trained numbers" if best.parameters is not None else ""]
        own += [f"{duration(best.seconds)} a run" if best.seconds is not None else ""]
        own += [f"{best.memory_mb:,.0f} MB at its height" if best.memory_mb is not None else ""]
        lines.append("The winner: " + ", ".join(words for words in own if words))
        return lines


def _apart(lead: float) -> str:
    """A lead in words. "Better" is kept for what the exact test of test rows says, which no search has read."""
    return f"{points(abs(lead), sign=False)} {'ahead' if lead > 0 else 'behind'}" if lead else "level with it"


def _listed(words: Sequence[object]) -> str:
    *most, last = map(part_value, words)
    return f"{', '.join(most)} and {last}" if most else last
