"""Where a trial's recipe came from: a person wrote it, an earlier study chose it, or the sampler proposed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.contracts.trials import TrialRecord
from pipelines.params.search import SearchParams
from pipelines.wording import many

LEARNING = ("tpe", "gp")  # samplers that learn from trials; the others draw by chance or by a plan
LEAST_TRIALS = 5  # of a study, and two more than search.enqueue names, before such a sampler says more than chance

Source = Literal["enqueue", "earlier", "chance", "sampler"]


@dataclass(frozen=True)
class Origin:
    """Which of the sources, and that in a sentence's words."""

    source: Source
    words: str


def startup_trials(named: int) -> int:
    """How many trials a sampler that learns has to see before it does; until then it draws by chance."""
    return max(named + 2, LEAST_TRIALS)


def origin(record: TrialRecord, settings: SearchParams, *, named: int) -> Origin:
    """Where the recipe of a trial came from.

    Args:
        record: the trial.
        settings: section search.
        named: how many recipes of ``search.enqueue`` the study tries, which are those of its method.
    """
    if record.enqueued is not None and record.enqueued < named:
        which = f"number {record.enqueued + 1} of the {many(named, 'recipe')}" if named > 1 else "the one recipe"
        return Origin("enqueue", f"written by hand: {which} in search.enqueue; no sampler proposed it")
    if record.enqueued is not None:
        return Origin("earlier", "the best of an earlier study, tried again (search.earlier)")
    sampler = settings.sampler
    if sampler in LEARNING and record.number >= startup_trials(named):
        return Origin("sampler", f"proposed by the sampler {sampler} from the trials before it")
    why = f", as {sampler} does for the first {startup_trials(named)} trials" if sampler in LEARNING else ""
    plan = f"by {sampler}" if sampler in ("grid", "qmc") else "by chance"
    return Origin("chance", f"taken from search.space {plan}{why}")
