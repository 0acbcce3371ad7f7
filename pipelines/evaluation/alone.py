"""`reft evaluate ADAPTER`: an adapter beside its frozen base, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.contracts.evaluation import Evaluation
from pipelines.evaluation.ask import ask_all
from pipelines.evaluation.rows import Asked
from pipelines.evaluation.systems import System, base_of, check_can_answer, may_know
from pipelines.params.whole import Params
from pipelines.stages.evaluate import by_task, compare
from pipelines.tasks.family import open_family


@dataclass(frozen=True)
class Evaluated:
    """An adapter's figures on some rows.

    Attributes:
        adapter: its title.
        asked: the rows.
        evaluation: as stage evaluate has it, without what it looks at beside the figures.
        anew: how many answers were computed now; the others were kept from before.
        unknown: adapters that may have been trained on some of the rows, as :func:`may_know` says.
    """

    adapter: str
    asked: Asked
    evaluation: Evaluation
    anew: int
    unknown: tuple[str, ...]


def evaluate_adapter(system: System, every: Sequence[Asked], params: Params, *, root: Path) -> list[Evaluated]:
    """Ask the adapter and its base all rows; whether they can answer them is checked before the first is asked.

    Raises:
        PipelineError: as :func:`base_of`, :func:`check_can_answer` and :func:`ask_all`.
    """
    both = system, base_of(system)
    for asked in every:
        for one in both:
            check_can_answer(one, asked)
    return [_evaluated(both, asked, params, root) for asked in every]


def _evaluated(both: tuple[System, System], asked: Asked, params: Params, root: Path) -> Evaluated:
    own, frozen = ask_all(both, asked, params, root=root)
    task, settings, seed = open_family(asked.task), params.evaluate, params.seed
    found = compare(
        task, own.rows, own.answers, frozen.answers, settings, seed=seed,
        adapter_sha256=str(own.system.adapter_sha256),
    )  # fmt: skip
    if task.parts():
        found = replace(found, tasks=by_task(task, own.rows, own.answers, frozen.answers, settings, seed=seed))
    return Evaluated(own.system.title, asked, found, own.anew + frozen.anew, may_know(both, asked))
