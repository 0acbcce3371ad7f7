"""Stage evaluate: the adapter and the frozen base on the same test rows, with intervals, and paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipelines.contracts.evaluation import ClassFigures, Evaluation, SystemFigures
from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.files import whole_directory, write_json, write_jsonl, write_table
from pipelines.model.intervals import Floats, Ints, paired_difference
from pipelines.model.scores import probabilities
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import EvaluateParams, Params
from reft import adapter_sha256
from reft.adapters.any_method import MethodModel, load_method


def run(
    params: Params,
    *,
    root: Path,
    base: Path,
    prepared: Path,
    adapter: Path,
    out: Path,
    predictions: Path,
    plots: Path,
) -> Evaluation:
    """Score every test row with the adapter and with the frozen base, and write figures, predictions and plots."""
    workspace = open_workspace(params.computation(), root=root, base=base, prepared=prepared)
    model = _load(adapter, workspace)
    labels, rows = list(workspace.task.labels), workspace.rows("test")
    truth = np.array([labels.index(row.label) for row in rows])
    edited = probabilities(workspace, model, rows, batch_size=params.evaluate.batch_size, title="adapter")
    with model.disabled():
        frozen = probabilities(workspace, model, rows, batch_size=params.evaluate.batch_size, title="base")
    evaluation = compare(truth, edited.argmax(1), frozen.argmax(1), labels, params.evaluate, seed=params.seed)
    write_jsonl(predictions, _prediction_rows(rows, labels, edited, frozen))
    _write_plots(plots, truth, edited.argmax(1), labels)
    write_json(out, {"adapter_sha256": adapter_sha256(adapter), **asdict(evaluation)})
    return evaluation


def _load(adapter: Path, workspace: Workspace) -> MethodModel:
    try:
        return load_method(adapter, workspace.base, base_sha256=workspace.base_sha256)
    except ValueError as error:
        raise PipelineError(
            "the adapter must be the one that was trained on this base", got=error, do="Run: dvc repro --force train"
        ) from None


def compare(
    truth: Ints, edited: Ints, frozen: Ints, labels: Sequence[str], settings: EvaluateParams, *, seed: int
) -> Evaluation:
    """Both systems' figures, and the paired difference of their accuracies on the same rows."""
    difference = paired_difference(
        edited == truth,
        frozen == truth,
        confidence=settings.confidence,
        resamples=settings.bootstrap,
        seed=seed,
    )
    return Evaluation(
        rows=len(truth),
        confidence=settings.confidence,
        adapter=_figures(truth, edited, labels, settings.confidence),
        base=_figures(truth, frozen, labels, settings.confidence),
        difference=difference,
        better=difference.low > 0,
    )


def _figures(truth: Ints, predicted: Ints, labels: Sequence[str], confidence: float) -> SystemFigures:
    from scipy import stats
    from sklearn.metrics import precision_recall_fscore_support

    right = int((truth == predicted).sum())
    interval = stats.binomtest(right, len(truth)).proportion_ci(confidence_level=confidence, method="wilson")
    columns = precision_recall_fscore_support(truth, predicted, labels=range(len(labels)), zero_division=0.0)
    per_class = {
        label: ClassFigures(float(p), float(r), float(f), int(s))
        for label, p, r, f, s in zip(labels, *columns, strict=True)
    }
    return SystemFigures(right / len(truth), float(interval.low), float(interval.high), per_class)


def _prediction_rows(
    rows: Sequence[Row], labels: Sequence[str], edited: Floats, frozen: Floats
) -> list[dict[str, object]]:
    return [
        {
            "id": row.id,
            "prompt": row.prompt,
            "label": row.label,
            **({"domain": row.domain} if row.domain is not None else {}),
            "adapter": labels[int(a.argmax())],
            "base": labels[int(b.argmax())],
            "adapter_probabilities": dict(zip(labels, (round(float(x), 6) for x in a), strict=True)),
            "base_probabilities": dict(zip(labels, (round(float(x), 6) for x in b), strict=True)),
        }
        for row, a, b in zip(rows, edited, frozen, strict=True)
    ]


def _write_plots(folder: Path, truth: Ints, predicted: Ints, labels: Sequence[str]) -> None:
    from sklearn.metrics import confusion_matrix

    from pipelines.reports.plots import draw_confusion  # matplotlib takes a second to import

    with whole_directory(folder) as temporary:
        pairs = [(labels[t], labels[p]) for t, p in zip(truth, predicted, strict=True)]
        write_table(temporary / "confusion.csv", ("actual", "predicted"), pairs)
        counts = confusion_matrix(truth, predicted, labels=range(len(labels)))
        draw_confusion(temporary / "confusion.png", counts, labels)
