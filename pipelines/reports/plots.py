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

if TYPE_CHECKING:  # optuna takes half a second to import, and train and evaluate draw without
    pass


# Without the time of day in the file the same figures give the same bytes, and DVC sees no change.
METADATA = {"Software": None}
MOST_SHOWN = 20  # labels that get room of their own; with more the writing is smaller, not the picture larger


def draw_confusion(path: Path, counts: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Draw a confusion matrix; counts: [actual, predicted]."""
    width = min(len(labels), MOST_SHOWN)
    figure, axes = plt.subplots(figsize=(1.6 + 0.9 * width, 1.4 + 0.8 * width))
    axes.imshow(counts, cmap="Blues", vmin=0)
    named = [label.replace("$", r"\$") for label in labels]  # text, whatever it is, and no formula
    size = None if width == len(labels) else 10 * MOST_SHOWN / len(labels)
    axes.set_xticks(range(len(labels)), named, rotation=30, ha="right", fontsize=size)
    axes.set_yticks(range(len(labels)), named, fontsize=size)
    axes.set(xlabel="predicted", ylabel="actual", title="Adapter, test rows")
    for (row, column), count in np.ndenumerate(counts):
        dark = count > counts.max() / 2
        color = "white" if dark else "black"
        if count or width == len(labels):
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=size)
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


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and free it."""
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata=METADATA)
    plt.close(figure)
