"""When a trial is stopped before its end: Optuna's pruners, and one that compares row by row."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pipelines.params.pruner import HalvingPruner, MedianPruner, WilcoxonPruner
from pipelines.params.search import SearchParams
from pipelines.search.goal import goal

SCORES = "scores"  # user attributes "scores:1" and so on: the score of each validation row at a report


def make_pruner(settings: SearchParams) -> optuna.pruners.BasePruner:
    """The pruner that params.yaml names; reports are numbered from 1."""
    match settings.pruner:
        case MedianPruner(startup_trials=startup, warmup_reports=warmup):
            # Optuna prunes from step n_warmup_steps on.
            return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1)
        case HalvingPruner(name="successive_halving", min_reports=least, reduction=reduction):
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=reduction)
        case HalvingPruner(min_reports=least, reduction=reduction):
            return optuna.pruners.HyperbandPruner(
                min_resource=least, max_resource=settings.reports, reduction_factor=reduction
            )
        case WilcoxonPruner(p=p, warmup_reports=warmup):
            return RowPruner(p / settings.reports, warmup)  # every report is a test, and one may be wrong by chance
        case _:
            return optuna.pruners.NopPruner()


def within_limits(trial: FrozenTrial) -> bool:
    """Whether a trial that ended is over none of search.limits."""
    return all(excess <= 0 for excess in trial.constraints.values())


class RowPruner(optuna.pruners.BasePruner):
    """Stops a trial whose rows are scored worse than the best trial's, by the Wilcoxon signed-rank test.

    At a report the scores of the same rows are compared, of this trial and of the best complete one that is within the
    limits. Optuna's own WilcoxonPruner takes all that a trial has reported for one sample: along a learning curve it
    would count each row once a report, and a report would be as many writes to the database as there are rows.
    """

    def __init__(self, p: float, warmup_reports: int) -> None:
        """Prune after ``warmup_reports`` reports where the test's one-sided p-value is below ``p``."""
        self.p = p
        self.warmup_reports = warmup_reports

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial at its last report."""
        report = trial.last_step
        if report is None or report <= self.warmup_reports:
            return False
        name = f"{SCORES}:{report}"
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        rivals = [rival for rival in complete if name in rival.user_attrs and within_limits(rival)]
        if not rivals:
            return False
        best = max(rivals, key=lambda rival: (goal(rival), -rival.number))
        differences = np.subtract(trial.user_attrs[name], best.user_attrs[name])
        if not differences.any():
            return False
        from scipy import stats  # takes a second to import, and the other pruners do without

        return bool(stats.wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue < self.p)
