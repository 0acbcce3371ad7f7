"""The picture of drift: rows by file, and scores by decision."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pipelines.contracts.verdict import Decision
from pipelines.reports.drift import PartDrift, commonest
from pipelines.reports.plots import save
from pipelines.wording import measure_words

TICKS = 12  # names below an axis
LONGEST = 24  # signs of a name


def draw_drift(path: Path, parts: Sequence[PartDrift], decisions: Sequence[Decision]) -> None:
    """Draw lengths, new words and shares by file, and the champion's and challengers' scores by decision."""
    figure, ((lengths, words), (labels, scores)) = plt.subplots(2, 2, figsize=(12, 8))
    places = range(len(parts))
    lengths.plot(places, [part.length for part in parts], marker="o", color="tab:blue")
    lengths.set(title="Length of the prompt, median", ylabel="characters", ylim=(0, None))
    words.plot(
        places, [nan if part.new_words is None else part.new_words for part in parts], marker="o", color="tab:orange"
    )
    words.set(title="Words that stand in no file before", ylabel="share", ylim=(0, None))
    _draw_shares(labels, parts)
    for axes in (lengths, words, labels):
        _name(axes, [part.name for part in parts])
    _draw_scores(scores, decisions)
    save(figure, path)


def _draw_shares(axes: Axes, parts: Sequence[PartDrift]) -> None:
    for name in commonest(part.labels for part in parts):
        (line,) = axes.plot([part.labels.get(name, 0.0) for part in parts], marker="o", label=_plain(name))
        answered = [part.answers.get(name, 0.0) if part.answers else nan for part in parts]
        axes.plot(answered, linestyle="--", color=line.get_color())
    axes.set(title="Labels (dashed: answers on test rows)", ylabel="share", ylim=(0, 1))
    if axes.lines:
        axes.legend(fontsize=8)


def _draw_scores(axes: Axes, decisions: Sequence[Decision]) -> None:
    for system, style in (("champion", "-"), ("challenger", ":"), ("base", "--")):
        axes.plot([one.verdict.values.get(system, nan) for one in decisions], style, marker="o", label=system)
    measure = measure_words(decisions[-1].verdict.measure) if decisions else "score"
    axes.set(title="Scores, at each decision of the gate", ylabel=measure)
    _name(axes, [one.at[:10] for one in decisions])
    axes.legend(fontsize=8)


def _name(axes: Axes, names: Sequence[str]) -> None:
    shown = list(range(0, len(names), 1 + len(names) // TICKS))
    axes.set_xticks(shown, [_plain(names[place]) for place in shown], rotation=30, ha="right", fontsize=8)


def _plain(name: str) -> str:
    """A name as text, whatever it is, and no formula."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return short.replace("$", r"\$")
