"""The picture of a study's history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from pipelines.contracts.trials import TrialRecord
from pipelines.reports.plots import save
from pipelines.wording import measure_words


def draw_study(folder: Path, records: Sequence[TrialRecord], measure: str) -> None:
    """Draw history.png (value by trial, with the best so far) and learning_curves.png (validation score by report)."""
    done = [record for record in records if record.value is not None]
    value = f"validation {measure_words(measure)}"
    figure, axes = plt.subplots(figsize=(7, 3.5))
    values = [record.value or 0.0 for record in done]
    axes.plot([r.number for r in done], values, "o", label="complete")
    axes.step([r.number for r in done], np.maximum.accumulate(values), where="post", label="best so far")
    for record in records:
        if record.state == "pruned" and record.intermediate:
            last = max(record.intermediate)
            axes.plot(record.number, record.intermediate[last], "x", color="tab:gray")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=value, title="Search history (x: pruned, at its last score)")
    axes.legend()
    save(figure, folder / "history.png")
    figure, axes = plt.subplots(figsize=(7, 4))
    for record in records:
        steps = sorted(record.intermediate)
        name = ", ".join([f"{record.number}: {record.params.get('layers')}", *_short(record)])
        style = "-o" if record.state == "complete" else "--x"
        axes.plot(steps, [record.intermediate[step] for step in steps], style, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="report", ylabel=value, title="Learning curves (dashed: pruned or failed)")
    axes.legend(fontsize="small")
    save(figure, folder / "learning_curves.png")


def _short(record: TrialRecord) -> list[str]:
    return [str(record.params.get("positions")), f"r{record.params.get('rank')}"]
