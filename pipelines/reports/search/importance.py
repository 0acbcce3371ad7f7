"""How much each searched part matters for the measure: PED-ANOVA, of Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from pipelines.contracts.trials import TrialRecord
from pipelines.recipes.domains import Span, Steps
from pipelines.recipes.space import SpaceParams

LEAST = 5  # complete trials, below which nothing is said
BEST = 0.25  # the share of the trials whose parts are compared with those of all


def importances(complete: Sequence[TrialRecord], space: SpaceParams) -> Mapping[str, float]:
    """By how much the best trials differ in each part from all of them (Watanabe et al. 2023); the sum is 1.

    Args:
        complete: the trials that have a value.
        space: what their parts were chosen from.

    Returns:
        The share of each part that was chosen from several values, the largest first; empty where there are fewer than
        ``LEAST`` trials or none was better than another.
    """
    domains = {str(part): _distribution(space.domain(part)) for part in space.parts()}
    names = {name for record in complete for name in record.params if not domains[name].single()}
    if len(complete) < LEAST or len({record.value for record in complete}) < 2 or not names:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            create_trial(
                params=dict(record.params),
                distributions={name: domains[name] for name in record.params},
                value=record.value,
            )
            for record in complete
        ]
    )
    share = max(BEST, min(0.5, LEAST / len(complete)))  # a handful at least, or one trial decides
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    return dict(get_param_importances(study, evaluator=evaluator, params=sorted(names)))


def _distribution(domain: list[Any] | Span | Steps) -> BaseDistribution:
    match domain:
        case Span(low=low, high=high, log=log) as span:
            return IntDistribution(low, high, log=log) if span.whole else FloatDistribution(low, high, log=log)
        case Steps(low=low, high=high, step=step) as steps:
            return IntDistribution(low, high, step=step) if steps.whole else FloatDistribution(low, high, step=step)
        case choices:
            return CategoricalDistribution(choices)
