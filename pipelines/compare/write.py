"""The files of a comparison of methods: table, figures, picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from pipelines.compare.changes import COLUMNS, change_values, changes_markdown, changes_of
from pipelines.compare.table import Comparison, Line, csv_text, heading, lines_of, markdown
from pipelines.files import whole_directory, write_json, write_table, write_text
from pipelines.params.whole import EvaluateParams
from pipelines.reports.plots import save
from pipelines.wording import measure_words

UNTRAINED = "untrained.csv"  # the figures of tasks that no method was trained on


def draw_comparison(path: Path, lines: Sequence[Line], measure: str) -> None:
    """Draw the measure with its interval against trained numbers, on a logarithmic axis; the frozen base is a line."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    markers = "osD^vP*Xhd<>"
    for place, line in enumerate(line for line in lines if line.value is not None):
        assert line.value is not None
        value, low, high = (100 * each for each in (line.value.value, line.value.low, line.value.high))
        if not line.parameters:
            axes.axhline(value, color="tab:gray", linestyle="--", linewidth=1, label=f"{line.name} (frozen)")
            continue
        axes.errorbar(
            line.parameters, value, yerr=[[value - low], [high - value]],
            fmt=markers[place % len(markers)], capsize=3, color=f"C{place % 10}", label=line.name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set(
        xlabel="trained numbers", ylabel=f"{measure_words(measure)} on test rows (%)", title="Methods side by side"
    )
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def write_comparison(found: Comparison, settings: EvaluateParams, out: Path, *, title: str) -> None:
    """Write table.md, table.csv, cells.json and the picture, and untrained.csv of such tasks; all or nothing."""
    lines, measure = lines_of(found, settings), found.measure.name
    cells = [found.base, *(cell for _, tuning, measured in found.lines for cell in (*tuning, *measured))]
    counts = [
        {
            "scores": len(cell.scores),
            "neutral": len(cell.neutral),
            "others": {key: len(scores) for key, scores in cell.others.items()},
        }
        for cell in cells
    ]
    changes = changes_of(found, settings)
    said = f"{heading(found, settings, title)}\n\n{markdown(lines, measure)}"
    if changes:
        said += f"\n{changes_markdown(changes, settings.confidence)}"
    with whole_directory(out) as folder:
        write_text(folder / "table.md", said)
        write_text(folder / "table.csv", csv_text(lines, measure))
        if changes:
            write_table(folder / UNTRAINED, COLUMNS, map(change_values, changes))
        write_json(
            folder / "cells.json",
            [vars(cell) | count for cell, count in zip(cells, counts, strict=True)],
        )
        draw_comparison(folder / f"{measure}.png", lines, measure)
