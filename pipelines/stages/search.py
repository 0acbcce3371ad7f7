"""Stage search: an Optuna study over the parts of a recipe, scored on the validation split.

The study lives in a database, not in a DVC output, so a killed search goes on where it was. Its name ends in a hash of
everything that its values depend on: trials of other data, another base or another space are never mixed in. The stage
brings the study to its number of trials, as other processes may have done before it, and writes down what it holds.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.contracts.best import Best, write_best
from pipelines.contracts.confirmed import write_confirmed
from pipelines.contracts.search import SearchResult, write_search
from pipelines.contracts.trials import write_trials
from pipelines.files import whole_directory
from pipelines.params.whole import Params
from pipelines.search.choice import Choice, choose
from pipelines.search.origin import origin
from pipelines.search.records import saved_seconds, write_trials_csv
from pipelines.search.worker import Found, run_until_target, search_context
from pipelines.tracking.live import log_report

REPORT = "report.html"


def run(params: Params, *, root: Path, base: Path, prepared: Path, out: Path, metrics: Path) -> SearchResult:
    """Run the trials that the study lacks, then write best.yaml, the tables of trials, the plots and the report."""
    found = run_until_target(search_context(params, root=root, base=base, prepared=prepared))
    choice = choose(found.records, found.confirmations, found.rule)
    _write_outputs(found, choice, out)
    result = _result(found, choice)
    write_search(metrics, result)
    log_report(params.tracking, root, study=found.study, input_hash=found.key, report=out / REPORT)
    return result


def _result(found: Found, choice: Choice) -> SearchResult:
    states = [record.state for record in found.records if not record.was_killed]
    reports = found.rule.settings.reports
    return SearchResult(
        measure=found.rule.measure.name,
        study=found.study,
        input_hash=found.key,
        complete=states.count("complete"),
        pruned=states.count("pruned"),
        failed=states.count("fail"),
        best_trial=choice.record.number,
        best_origin=origin(choice.record, found.rule.settings, named=found.named).words,
        best_value=choice.value,
        best_spread=choice.spread,
        first_value=_first_value(found),
        base_value=found.base_confirmed if found.confirmations else found.base_value,
        seconds=round(sum(record.seconds or 0.0 for record in found.records), 1),
        fill_seconds=round(sum(record.fill_seconds or 0.0 for record in found.records), 1),
        confirm_seconds=round(sum(one.seconds for one in found.confirmations), 1),
        saved_seconds=round(sum(saved_seconds(record, reports) for record in found.records), 1),
    )


def _first_value(found: Found) -> float | None:
    """None too where the first recipe was not run on the rows that the choice was made by."""
    first = next((record for record in found.records if record.enqueued == 0 and record.value is not None), None)
    if first is None or not found.confirmations:
        return None if first is None else first.value
    return next((one.mean for one in found.confirmations if one.trial == first.number), None)


def _write_outputs(found: Found, choice: Choice, out: Path) -> None:
    from pipelines.reports.search.page import write_report
    from pipelines.reports.search.plots import draw_study

    best = Best(
        chosen=found.space.complete(choice.record.params),
        study=found.study,
        trial=choice.record.number,
        origin=origin(choice.record, found.rule.settings, named=found.named).words,
        value=choice.value,
        spread=choice.spread,
    )
    with whole_directory(out) as temporary:
        write_best(temporary / "best.yaml", best)
        write_trials(temporary / "trials.json", found.records)
        write_confirmed(temporary / "confirmed.json", found.confirmations)
        write_trials_csv(temporary / "trials.csv", found.records)
        draw_study(temporary, found.records, found.rule.measure.name)
        write_report(temporary / REPORT, found, choice)
