"""Stage evaluate: the adapter and the frozen base on the same test rows, with intervals, and paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.contracts.base import read_base
from pipelines.contracts.evaluation import Against, Evaluation, SystemFigures, TaskFigures, write_evaluation
from pipelines.contracts.predictions import Prediction, Said, write_predictions
from pipelines.contracts.prepared import Row
from pipelines.contracts.training import TrainResult, read_training
from pipelines.diagnostics.diagnose import diagnose
from pipelines.diagnostics.row_scores import row_scores
from pipelines.diagnostics.slices import Answered
from pipelines.errors import PipelineError
from pipelines.files import whole_directory, write_table
from pipelines.model.frozen import HeadTraining, head_alone
from pipelines.model.intervals import Resampling, against, detectable, figure, group_numbers, holm, least_rows
from pipelines.model.scores import answers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import EvaluateParams, Params
from pipelines.project.lineage import code_tags
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import REFT, make_recipe
from pipelines.reports.evaluation_page import PageFacts, read_card_facts, write_pages
from pipelines.tasks.family import MAJORITY, Answer, Reading, TaskFamily, task_places
from pipelines.tasks.measures import Floats
from reft import ReftEncoder, adapter_sha256
from reft.adapters.any_method import MethodModel, load_method

DIGITS = 6  # of numbers in predictions.parquet


def run(
    params: Params,
    *,
    root: Path,
    base: Path,
    prepared: Path,
    adapter: Path,
    train_metrics: Path,
    out: Path,
    predictions: Path,
    plots: Path,
    page: Path,
    model_card: Path,
) -> Evaluation:
    """Score every test row with the adapter and with the frozen base; write figures, predictions, plots and pages.

    For an encoder, which has no answer without a head, the base is the head alone, trained as the adapter was.
    """
    workspace = open_workspace(params.computation(), root=root, base=base, prepared=prepared)
    model, trained = _load(adapter, workspace), read_training(train_metrics)
    task, rows = workspace.family, workspace.rows("test")
    edited = answers(workspace, task, model, rows, batch_size=params.evaluate.batch_size, title="adapter")
    if isinstance(model, ReftEncoder):
        model = _head_alone(workspace, params, trained, adapter)
    with model.disabled():
        frozen = answers(workspace, task, model, rows, batch_size=params.evaluate.batch_size, title="base")
    evaluation = compare(
        task, rows, edited, frozen, params.evaluate, seed=params.seed, adapter_sha256=adapter_sha256(adapter)
    )
    if task.parts():
        tasks = by_task(task, rows, edited, frozen, params.evaluate, seed=params.seed)
        evaluation = replace(evaluation, tasks=tasks)
    readings = [(task.read(row, a), task.read(row, b)) for row, a, b in zip(rows, edited, frozen, strict=True)]
    answered = Answered(rows, edited, frozen, readings)
    diagnostics = diagnose(workspace, model, answered, params.evaluate, seed=params.seed, root=root)
    evaluation = replace(evaluation, diagnostics=diagnostics)
    noted = predictions_of(task, answered)
    write_predictions(predictions, noted)
    _write_plots(plots, rows, [one.value for one, _ in readings], task.classes)
    card = read_card_facts(
        adapter,
        evaluation,
        name=params.register_.model,
        base=read_base(base),
        trained=trained,
        data_source=params.prepare.source,
    )
    made_by = {"study": trained.study, "trial of it": str(trained.trial), **code_tags(root)}
    write_pages(page, model_card, PageFacts(card, noted, params.seed, made_by))
    write_evaluation(out, evaluation)
    return evaluation


def _load(adapter: Path, workspace: Workspace) -> MethodModel:
    try:
        return load_method(adapter, workspace.base, base_sha256=workspace.base_sha256)
    except ValueError as error:
        raise PipelineError(
            "the adapter must be the one that was trained on this base", got=error, do="Run: dvc repro -f -s train"
        ) from None


def _head_alone(workspace: Workspace, params: Params, trained: TrainResult, adapter: Path) -> ReftEncoder:
    if trained.adapter_sha256 != adapter_sha256(adapter):
        raise PipelineError(
            "the figures of the training must be the adapter's", got=trained.adapter_sha256, do="Run: dvc repro train"
        )
    recipe = make_recipe(REFT, trained.recipe)
    assert isinstance(recipe, Recipe)
    rows, asked = workspace.rows("train"), workspace.rows("validation")
    return head_alone(workspace, HeadTraining(rows, asked, recipe, params.seed, params.evaluate.batch_size))


def compare(
    task: TaskFamily[Any],
    rows: Sequence[Row],
    edited: Sequence[Answer],
    frozen: Sequence[Answer],
    settings: EvaluateParams,
    *,
    seed: int,
    adapter_sha256: str,
) -> Evaluation:
    """Both systems' figures and the task's baselines, and the adapter's paired lead over base and majority."""
    how = Resampling(settings.confidence, settings.bootstrap, seed, group_numbers(rows))
    scores = task.scores(rows, edited)

    def lead(other: Floats) -> Against:
        return against(task.measure, [scores], [other], how)

    base, baselines = lead(task.scores(rows, frozen)), task.baselines(rows)
    over = lead(baselines[MAJORITY]) if MAJORITY in baselines else None
    return Evaluation(
        adapter_sha256=adapter_sha256,
        measure=task.measure.name,
        rows=len(rows),
        groups=how.units,
        confidence=how.confidence,
        adapter=system_figures(task, rows, edited, how),
        base=system_figures(task, rows, frozen, how),
        difference=base.difference,
        p_value=base.p_value,
        detectable=detectable(base.difference, how, task.measure),
        least_rows=least_rows(how.confidence),
        baselines={name: task.measure.add_up(each) for name, each in baselines.items()},
        over_majority=over,
        better=base.better and (over is None or over.better),
    )


def system_figures(
    task: TaskFamily[Any], rows: Sequence[Row], said: Sequence[Answer], how: Resampling
) -> SystemFigures:
    """How one system fares on these rows."""
    found = figure(task.measure, task.scores(rows, said), how)
    return SystemFigures(found.value, found.low, found.high, task.figures(rows, said), task.summary(rows, said))


def by_task(
    task: TaskFamily[Any],
    rows: Sequence[Row],
    edited: Sequence[Answer],
    frozen: Sequence[Answer],
    settings: EvaluateParams,
    *,
    seed: int,
) -> dict[str, TaskFigures]:
    """The same of each task of a mixture, on its own rows; the p-values are Holm's over the tasks."""
    places, found = task_places(rows), dict[str, Evaluation]()
    for name, part in task.parts().items():
        if name not in places:  # of a few rows, none need be of a task
            continue
        mine = places[name]
        own, said, base = [rows[p] for p in mine], [edited[p] for p in mine], [frozen[p] for p in mine]
        found[name] = compare(part, own, said, base, settings, seed=seed, adapter_sha256="")
    adjusted = holm([_known(one.p_value) for one in found.values()])
    return {
        name: TaskFigures(
            measure=one.measure,
            rows=one.rows,
            groups=int(_known(one.groups)),
            adapter=one.adapter,
            base=one.base,
            difference=one.difference,
            p_value=_known(one.p_value),
            adjusted_p_value=p_value,
            baselines=one.baselines,
            over_majority=one.over_majority,
            better=one.better and p_value < 1 - settings.confidence,
        )
        for (name, one), p_value in zip(found.items(), adjusted, strict=True)
    }


def _known(value: float | None) -> float:
    """A figure that only files of earlier releases lack."""
    assert value is not None
    return value


def predictions_of(task: TaskFamily[Any], answered: Answered) -> list[Prediction]:
    """Each row, what is right of it, and what both systems said."""
    scores = (row_scores(task, answered.rows, said).tolist() for said in (answered.adapter, answered.base))
    return [
        Prediction(
            id=row.id,
            prompt=row.prompt,
            adapter=_said(adapter, scored),
            base=_said(base, base_scored),
            label=row.label,
            choices=row.choices,
            references=row.references,
            domain=row.domain,
            second=row.second,
            task=row.task,
        )
        for row, (adapter, base), scored, base_scored in zip(answered.rows, answered.read, *scores, strict=True)
    ]


def _said(answer: Reading, score: float) -> Said:
    value = round(answer.value, DIGITS) if isinstance(answer.value, float) else answer.value
    return Said(value, {name: _rounded(each) for name, each in answer.details.items()}, round(score, DIGITS))


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _write_plots(folder: Path, rows: Sequence[Row], answered: Sequence[object], classes: Sequence[str]) -> None:
    """The confusion of classes, for a task that has them; for another an empty folder."""
    with whole_directory(folder) as temporary:
        if not classes:
            return
        from sklearn.metrics import confusion_matrix

        from pipelines.reports.plots import draw_confusion  # matplotlib takes a second to import

        right = [row.label for row in rows]
        pairs = list(zip(right, answered, strict=True))
        write_table(temporary / "confusion.csv", ("actual", "predicted"), pairs)
        counts = np.asarray(confusion_matrix(right, answered, labels=list(classes)))
        draw_confusion(temporary / "confusion.png", counts, list(classes))
