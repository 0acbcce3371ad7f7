"""Stage search: an Optuna study over layers, positions, rank and learning rate, scored on the validation split.

The study lives in a database, not in a DVC output, so a killed search goes on where it was. Its name ends in a hash of
everything that its values depend on: trials of other data, another base or another space are never mixed in.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from pipelines.base import read_base
from pipelines.evaluate import probabilities
from pipelines.files import whole_directory, write_json, write_text
from pipelines.params import Params, Recipe, SpaceParams
from pipelines.prepared import Row
from pipelines.space import check_space
from pipelines.store import check_trials
from pipelines.study import (
    ENQUEUED,
    OWNER,
    TrialRecord,
    best_trial,
    close_killed_trials,
    counted,
    make_sampler,
    open_study,
    this_process,
    trial_records,
    write_trials_csv,
)  # fmt: skip
from pipelines.tracking import LiveRun, live_run
from pipelines.training import Bench, Keyed, build_model, fit_config, input_key, open_bench
from reft import Encoded, NonFiniteLossError, ReftModel, fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchResult:
    """What metrics/search.json holds."""

    study: str
    complete: int
    pruned: int
    failed: int
    best_trial: int
    best_value: float
    first_value: float | None


@dataclass(frozen=True)
class Rows:
    """The rows that every trial trains on and is scored on."""

    train: list[Encoded]
    validation: list[Row]


def run(params: Params, *, root: Path, base: Path, prepared: Path, out: Path, metrics: Path) -> SearchResult:
    """Bring the study to its number of trials, then write best.yaml, the table of trials and the plots."""
    check_space(params, read_base(base))
    check_trials(params, root)
    bench = open_bench(params, root=root, base=base, prepared=prepared)
    key = study_key(params, bench)
    study = open_study(params, root, name=f"search-{key}")
    rows = Rows(bench.encoded("train", params.search.train_rows), bench.rows("validation"))
    with live_run(params, root=root, stage="search", input_hash=key, name=study.study_name) as live:
        live.log_params({"trials": params.search.trials, "train_rows": params.search.train_rows})
        _optimise(study, params, bench, rows, live)
    records = trial_records(study)
    best = best_trial(study)
    _write_outputs(study, records, best, out)
    result = _result(study, records, best)
    write_json(metrics, asdict(result))
    return result


def study_key(params: Params, bench: Keyed) -> str:
    """The hash that the study's name ends in. The number of trials is left out: a study may grow."""
    settings = params.search.model_dump(exclude={"trials", "storage"})
    fixed = params.train.model_dump(exclude={"epochs", "checkpoint_every"})
    inputs = [bench.base_sha256, bench.data_sha256, settings, fixed, params.evaluate.batch_size]
    return input_key("search", *inputs, params.cone.enabled, params.seed, params.run.threads, params.run.device)


def _optimise(study: optuna.Study, params: Params, bench: Bench, rows: Rows, live: LiveRun) -> None:
    close_killed_trials(study, alone=params.search.storage.startswith("sqlite"))
    for place, recipe in enumerate(params.search.enqueue[: params.search.trials]):
        if not any(trial.user_attrs.get(ENQUEUED) == place for trial in study.get_trials(deepcopy=False)):
            study.enqueue_trial(recipe.model_dump(), user_attrs={ENQUEUED: place})
    with tqdm(total=params.search.trials, initial=counted(study), desc="search", unit="trial") as bar:
        while counted(study) < params.search.trials:
            # Seeded anew for each trial by how many went before: a search that was killed proposes what it would have.
            study.sampler = make_sampler(params, offset=counted(study))
            study.optimize(
                lambda trial: objective(trial, params, bench, rows, live),
                n_trials=1,
                catch=(NonFiniteLossError, MemoryError, RuntimeError),
            )
            _report(study, bar)


def _report(study: optuna.Study, bar: tqdm[NoReturn]) -> None:
    """Say how the newest trial ended, and the best value so far."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.datetime_complete is not None]
    last = max(ended, key=lambda trial: (trial.datetime_complete, trial.number))
    said = {TrialState.COMPLETE: f"accuracy {last.value}", TrialState.FAIL: str(last.user_attrs.get("error"))}
    recipe = ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in last.params.items()
    )
    bar.write(f"trial {last.number}: {recipe}: {said.get(last.state, last.state.name.lower())}", file=sys.stderr)
    complete = [trial.value or 0.0 for trial in ended if trial.state is TrialState.COMPLETE]
    if complete:
        bar.set_postfix(best=f"{max(complete):.3f}")
    bar.update()


def suggest(trial: optuna.Trial, space: SpaceParams) -> Recipe:
    """Let Optuna choose a point of the space."""
    rate = space.learning_rate
    return Recipe(
        layers=trial.suggest_categorical("layers", space.layers),
        positions=trial.suggest_categorical("positions", space.positions),
        rank=trial.suggest_categorical("rank", space.rank),
        learning_rate=trial.suggest_float("learning_rate", rate.low, rate.high, log=rate.log),
    )


def objective(trial: optuna.Trial, params: Params, bench: Bench, rows: Rows, live: LiveRun) -> float:
    """Train the recipe on the trial's rows; the value is its accuracy on the validation split after the last step."""
    trial.set_user_attr(OWNER, this_process())
    recipe = suggest(trial, params.search.space)
    with live.child(f"trial-{trial.number}", finished_by=(optuna.TrialPruned,)) as run, _noted(trial):
        run.log_params(recipe.model_dump())
        model = build_model(bench, recipe, params)
        trial.set_user_attr("parameters", model.num_trainable())
        settings = fit_config(recipe, params, epochs=params.search.epochs)
        accuracy, report = float("nan"), 0
        for step in fit(model, rows.train, settings, pad_id=bench.pad_id, checkpoint=None):
            run.log_metrics({"loss": step.loss}, step=step.step)
            if step.step * params.search.reports // step.total_steps > report:
                report = step.step * params.search.reports // step.total_steps
                accuracy = _accuracy(bench, model, rows.validation, params, title=f"trial {trial.number}")
                run.log_metrics({"validation_accuracy": accuracy}, step=step.step)
                trial.report(accuracy, step=report)
                if report < params.search.reports and trial.should_prune():
                    raise optuna.TrialPruned
        return accuracy


@contextmanager
def _noted(trial: optuna.Trial) -> Iterator[None]:
    """Keep the seconds of a trial and, when it fails, its error."""
    started = time.monotonic()
    try:
        yield
    except optuna.TrialPruned:
        raise
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        raise
    finally:
        trial.set_user_attr("seconds", round(time.monotonic() - started, 3))


def _accuracy(bench: Bench, model: ReftModel, rows: list[Row], params: Params, *, title: str) -> float:
    labels = list(bench.task.labels)
    scores = probabilities(bench, model, rows, batch_size=params.evaluate.batch_size, title=title)
    right = sum(labels[int(p.argmax())] == row.label for p, row in zip(scores, rows, strict=True))
    return right / len(rows)


def _result(study: optuna.Study, records: list[TrialRecord], best: FrozenTrial) -> SearchResult:
    states = [record.state for record in records]
    first = next(
        (t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(ENQUEUED) == 0 and t.value is not None),
        None,
    )
    return SearchResult(
        study=study.study_name,
        complete=states.count("complete"),
        pruned=states.count("pruned"),
        failed=states.count("fail"),
        best_trial=best.number,
        best_value=best.value or 0.0,
        first_value=None if first is None else first.value,
    )


def _write_outputs(study: optuna.Study, records: list[TrialRecord], best: FrozenTrial, out: Path) -> None:
    from pipelines.plots import draw_study  # matplotlib takes a second to import

    chosen = best.params | {"study": study.study_name, "trial": best.number, "value": best.value}
    with whole_directory(out) as temporary:
        write_text(temporary / "best.yaml", yaml.safe_dump(chosen, sort_keys=False))
        write_json(temporary / "trials.json", [asdict(record) for record in records])
        write_trials_csv(temporary / "trials.csv", records)
        draw_study(temporary, records)
