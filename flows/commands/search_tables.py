"""The tables of `reft search`: what it would do, and what it came to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipelines.contracts.search import read_search
from pipelines.contracts.trials import read_trials
from pipelines.recipes.methods.table import plain_parts
from pipelines.wording import duration, measure_words, part_value, points, share

if TYPE_CHECKING:  # what they import takes seconds to load
    from flows.search import SearchOutcome
    from pipelines.upkeep.estimate import Estimate, Extreme

SHOWN = 5  # trials


def estimate_table(found: Estimate) -> RenderableType:
    """The space, its points, its smallest and largest adapters, and the time of all trials."""
    space = Table(title="Search space", title_justify="left")
    space.add_column("part")
    space.add_column("chosen from", overflow="fold")
    for part, words in found.space.items():
        space.add_row(part, Text(words))
    plan = Table(title="Plan", title_justify="left", show_header=False)
    plan.add_column("figure")
    plan.add_column("value", overflow="fold")
    points = "without number: a part is a real number" if math.isinf(found.points) else f"{found.points:,.0f}"
    plan.add_row("points of the space", points)
    confirming = f", and up to {found.confirmations} runs to confirm the best" if found.confirmations else ""
    plan.add_row("trials", f"{found.trials}{confirming}")
    for name, extreme in _ends(found).items():
        plan.add_row(f"{name} recipe", Text(_extreme(extreme, found)))
    if found.missing is not None:
        plan.add_row("to know more, first make", found.missing)
    if found.seconds is not None:
        low, high = found.seconds
        said = f"{duration(low)} to {duration(high)} on one process, without what the pruner saves"
        plan.add_row("estimated time", said)
    return Group(space, "", plan)


def _ends(found: Estimate) -> dict[str, Extreme]:
    """The recipes at the ends of the space by what they are, one that is two things once."""
    ends = {"smallest": found.smallest, "largest": found.largest, "quickest": found.quickest, "slowest": found.slowest}
    shown: list[tuple[list[str], Extreme]] = []
    for name, extreme in ends.items():
        if extreme is None:
            continue
        same = next((names for names, each in shown if each.recipe == extreme.recipe), None)
        if same is None:
            shown.append(([name], extreme))
        else:
            same.append(name)
    return {" and ".join(names): extreme for names, extreme in shown}


def _extreme(extreme: Extreme, found: Estimate) -> str:
    recipe = plain_parts(extreme.recipe)
    said = ", ".join(f"{part} {part_value(recipe[part])}" for part in found.space)
    said = f"{extreme.parameters:,} parameters ({said})"
    if extreme.step_seconds is None or extreme.trial_seconds is None:
        return said
    return f"{said}: {extreme.step_seconds:.3f} s a step, {duration(extreme.trial_seconds)} a trial"


def outcome_table(outcome: SearchOutcome) -> RenderableType:
    """The best trials, the chosen recipe, and where to look next."""
    figures, folder = read_search(outcome.path("search_metrics")), outcome.graph.paths["search"]
    trials = read_trials(outcome.path("search") / "trials.json")
    names = sorted({name for trial in trials for name in trial.params})
    best = Table(title=f"The best of {len(trials)} trials", title_justify="left")
    for column in ("trial", measure_words(figures.measure), *names, "parameters", "seconds"):
        best.add_column(column, overflow="fold")
    complete = sorted((t for t in trials if t.value is not None), key=lambda t: (-(t.value or 0.0), t.number))
    for trial in complete[:SHOWN]:
        chosen = [part_value(trial.params.get(name, "")) for name in names]
        style = "bold" if trial.number == figures.best_trial else None
        row = [str(trial.number), share(trial.value or 0.0), *chosen, f"{trial.parameters:,}", str(trial.seconds)]
        best.add_row(*row, style=style)
    said = Table(title="Outcome", title_justify="left", show_header=False)
    said.add_column("figure")
    said.add_column("value", overflow="fold")
    ends = ", ".join(f"{getattr(figures, state)} {state}" for state in ("complete", "pruned", "failed"))
    saved = f"; pruning saved about {duration(figures.saved_seconds)}" if figures.saved_seconds else ""
    said.add_row("trials", f"{ends}; {duration(figures.seconds)} together{saved}")
    spread = "" if figures.best_spread is None else f" (spread {points(figures.best_spread, sign=False)})"
    rows = "training rows that its runs did without" if figures.confirm_seconds else "validation rows"
    said.add_row("chosen", f"trial {figures.best_trial}: {share(figures.best_value)}{spread} on {rows}")
    said.add_row("its recipe", figures.best_origin)
    said.add_row("report", f"{folder}/report.html, for a browser: which recipe won, why, and what it cost")
    said.add_row("files", f"{folder}/best.yaml, {folder}/trials.csv")
    said.add_row("next", "reft run")
    return Group(best, "", said)
