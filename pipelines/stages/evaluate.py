"""Stage evaluate: the adapter and the frozen base on the same test rows, with intervals, and paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.files import whole_directory, write_json, write_jsonl, write_table
from pipelines.model.workspace import Bench, open_bench
from pipelines.params.whole import EvaluateParams, Params
from reft import CausalModel, adapter_sha256, score_choices
from reft.adapters.any_method import MethodModel, load_method

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassFigures:
    """How one label fared; support is its number of rows."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class SystemFigures:
    """How one system (the adapter, or the base alone) fared on the test rows."""

    accuracy: float
    low: float
    high: float
    per_class: dict[str, ClassFigures]


@dataclass(frozen=True)
class Evaluation:
    """What metrics/evaluation.json holds, beside the adapter's hash.

    ``better``: the paired difference's whole interval lies above 0.
    """

    rows: int
    confidence: float
    adapter: SystemFigures
    base: SystemFigures
    difference: Interval
    better: bool


class ScoresError(PipelineError):
    """A score is NaN or infinite, so it says nothing of any label."""


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
    bench = open_bench(params, root=root, base=base, prepared=prepared)
    model = _load(adapter, bench)
    labels, rows = list(bench.task.labels), bench.rows("test")
    truth = np.array([labels.index(row.label) for row in rows])
    edited = probabilities(bench, model, rows, batch_size=params.evaluate.batch_size, title="adapter")
    with model.disabled():
        frozen = probabilities(bench, model, rows, batch_size=params.evaluate.batch_size, title="base")
    evaluation = compare(truth, edited.argmax(1), frozen.argmax(1), labels, params.evaluate, seed=params.seed)
    write_jsonl(predictions, _prediction_rows(rows, labels, edited, frozen))
    _write_plots(plots, truth, edited.argmax(1), labels)
    write_json(out, {"adapter_sha256": adapter_sha256(adapter), **asdict(evaluation)})
    return evaluation


def _load(adapter: Path, bench: Bench) -> MethodModel:
    try:
        return load_method(adapter, bench.base, base_sha256=bench.base_sha256)
    except ValueError as error:
        raise PipelineError(
            "the adapter must be the one that was trained on this base", got=error, do="Run: dvc repro --force train"
        ) from None


def probabilities(bench: Bench, model: CausalModel, rows: Sequence[Row], *, batch_size: int, title: str) -> Floats:
    """The probability of each label, normalised over the labels' words: [rows, labels].

    Raises:
        ScoresError: if a score is NaN or infinite.
    """
    encoded = [bench.encode_row(row) for row in rows]
    with tqdm(total=len(rows), desc=f"score {title}", unit="row", leave=False) as bar:
        scores = score_choices(
            model, [row.prompt_ids for row in encoded], bench.choices(), batch_size=batch_size,
            domains=[row.domain for row in encoded], progress=lambda n: _advance(bar, n),
        )  # fmt: skip
    found = np.asarray(scores.double().softmax(dim=-1).cpu().numpy())
    if broken := int((~np.isfinite(found).all(1)).sum()):
        raise ScoresError(
            f"scores of {title} must be numbers",
            got=f"NaN or infinity for {broken} of {len(rows)} rows",
            do="Lower the learning rate, or set base.dtype: float32.",
        )
    return found


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)


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


def paired_difference(
    one: NDArray[np.bool_] | Floats, other: NDArray[np.bool_] | Floats, *, confidence: float, resamples: int, seed: int
) -> Interval:
    """mean(one - other) over rows, with the percentile bootstrap interval over rows (Efron & Tibshirani 1993, ch. 13).

    Rows that both systems get right or both get wrong carry no difference, which is what makes the paired interval
    narrower than the difference of two separate ones.
    """
    from scipy import stats  # takes a second to import, and search, which scores with this module, does without

    values = one.astype(np.float64) - other.astype(np.float64)
    if np.all(values == values[0]):  # every resample is the same; scipy calls its interval degenerate
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed), batch=100,
    )  # fmt: skip
    return Interval(float(values.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high))


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
