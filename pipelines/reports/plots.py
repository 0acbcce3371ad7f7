"""The pictures that stages leave beside their figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")  # no screen

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:  # optuna takes half a second to import, and train and evaluate draw without
    from pipelines.search.records import TrialRecord

if TYPE_CHECKING:
    from pipelines.compare.table import Line

# Without the time of day in the file the same figures give the same bytes, and DVC sees no change.
METADATA = {"Software": None}


def draw_confusion(path: Path, counts: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Draw a confusion matrix; counts: [actual, predicted]."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.9 * len(labels), 1.4 + 0.8 * len(labels)))
    axes.imshow(counts, cmap="Blues", vmin=0)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="actual", title="Adapter, test rows")
    for (row, column), count in np.ndenumerate(counts):
        dark = count > counts.max() / 2
        axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    save(figure, path)


def draw_loss(path: Path, steps: Sequence[int], losses: Sequence[float], rates: Sequence[float]) -> None:
    """Draw the training loss (with its running mean over a tenth of the steps) and the learning rate by step."""
    figure, axes = plt.subplots(figsize=(7, 3.5))
    window = max(1, len(losses) // 10)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="loss of the step")
    axes.plot(steps[window - 1 :], mean, color="tab:blue", linewidth=2, label=f"mean of {window} steps")
    axes.set(xlabel="optimiser step", ylabel="cross-entropy per token (nats)", title="Training loss")
    right = axes.twinx()
    right.plot(steps, rates, color="tab:orange", linewidth=1, linestyle="--", label="learning rate")
    right.set_ylabel("learning rate")
    lines, names = axes.get_legend_handles_labels()
    more_lines, more_names = right.get_legend_handles_labels()
    axes.legend(lines + more_lines, names + more_names, loc="upper right")
    save(figure, path)


def draw_comparison(path: Path, lines: Sequence[Line]) -> None:
    """Draw accuracy with its interval against trained numbers, on a logarithmic axis; the frozen base is a line."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    markers = "osD^vP*Xhd<>"
    for place, line in enumerate(line for line in lines if line.accuracy is not None):
        assert line.accuracy is not None
        value, low, high = (100 * each for each in (line.accuracy.value, line.accuracy.low, line.accuracy.high))
        if not line.parameters:
            axes.axhline(value, color="tab:gray", linestyle="--", linewidth=1, label=f"{line.name} (frozen)")
            continue
        axes.errorbar(
            line.parameters, value, yerr=[[value - low], [high - value]],
            fmt=markers[place % len(markers)], capsize=3, color=f"C{place % 10}", label=line.name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel="trained numbers", ylabel="accuracy on test rows (%)", title="Methods side by side")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and free it."""
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata=METADATA)
    plt.close(figure)


def draw_study(folder: Path, records: Sequence[TrialRecord]) -> None:
    """Draw history.png (value by trial, with the best so far) and learning_curves.png (validation score by report)."""
    done = [record for record in records if record.value is not None]
    figure, axes = plt.subplots(figsize=(7, 3.5))
    values = [record.value or 0.0 for record in done]
    axes.plot([r.number for r in done], values, "o", label="complete")
    axes.step([r.number for r in done], np.maximum.accumulate(values), where="post", label="best so far")
    for record in records:
        if record.state == "pruned" and record.intermediate:
            last = max(record.intermediate)
            axes.plot(record.number, record.intermediate[last], "x", color="tab:gray")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="validation accuracy", title="Search history (x: pruned, at its last score)")
    axes.legend()
    save(figure, folder / "history.png")
    figure, axes = plt.subplots(figsize=(7, 4))
    for record in records:
        steps = sorted(record.intermediate)
        name = ", ".join([f"{record.number}: {record.params.get('layers')}", *_short(record)])
        style = "-o" if record.state == "complete" else "--x"
        axes.plot(steps, [record.intermediate[step] for step in steps], style, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="report", ylabel="validation accuracy", title="Learning curves (dashed: pruned or failed)")
    axes.legend(fontsize="small")
    save(figure, folder / "learning_curves.png")


def _short(record: TrialRecord) -> list[str]:
    return [str(record.params.get("positions")), f"r{record.params.get('rank')}"]
