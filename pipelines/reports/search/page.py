"""The report of a search: one page that a browser opens without anything else, made from what the study holds."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from pipelines.files import write_text
from pipelines.reports.charts import Kind, marker
from pipelines.reports.markup import Child, element, page, table
from pipelines.reports.search.cost_charts import costs, tradeoffs
from pipelines.reports.search.part_charts import importance, parallel, parts_that_vary, slices
from pipelines.reports.search.study_charts import confirmations, curves, history
from pipelines.reports.search.trial_table import trial_table
from pipelines.reports.search.verdict import Standing, Verdict
from pipelines.search.choice import Choice
from pipelines.wording import many, part_value, points, recipe_words, share

if TYPE_CHECKING:
    from pipelines.search.worker import Found

LEGEND: dict[Kind, str] = {
    "chosen": "chosen",
    "complete": "complete",
    "pruned": "stopped early (at its last score)",
    "fail": "failed",
}


def write_report(path: Path, found: Found, choice: Choice) -> None:
    """Write the page of a study. The same study gives the same bytes: there is no time of day in it.

    Args:
        path: where to.
        found: what the study came to.
        choice: the recipe that is trained, and the value that it was chosen by.
    """
    verdict = Verdict(found, choice)
    title = f"Search report: trial {choice.record.number} won"
    script = files("pipelines.reports.search").joinpath("search_report.js").read_text("utf-8")
    main = element("main", None, *_sections(verdict))
    write_text(path, page(title, _header(verdict), _legend(), main, script=script))


def _header(verdict: Verdict) -> Element:
    choice = verdict.choice
    spread = "" if choice.spread is None else f" ± {points(choice.spread, sign=False)}"
    runs = verdict.standings()[0].runs
    low, high = verdict.found.rule.interval(choice.value, choice.rows)
    of_runs = "one run" if runs == 1 else f"the mean of {runs} runs, ± their standard deviation"
    kind = "held-out training row" if verdict.confirmed else "validation row"
    on_rows = (
        f"{verdict.measure.capitalize()} on {many(choice.rows, kind)}: {of_runs}. "
        f"{100 * verdict.found.rule.confidence:g} % interval of so many rows: {share(low)} to {share(high)}."
    )
    space = verdict.found.space
    values = space.complete(choice.record.params)
    whole = {part: values[part] for part in map(str, space.parts())}
    recipe = [(part, part_value(value)) for part, value in whole.items()]
    return element(
        "header",
        None,
        element("h1", None, f"Trial {choice.record.number} won: {recipe_words(whole)}"),
        element("p", {"class": "study"}, _setting(verdict)),
        element(
            "div",
            {"class": "cards"},
            _card(
                "The winning recipe",
                element("p", {"class": "big"}, share(choice.value), element("span", None, spread)),
                element("p", {"class": "small"}, on_rows),
                table(("part", "value"), recipe, kind="recipe"),
            ),
            _card("Against what", _comparison(verdict), element("p", {"class": "small"}, _caveat(verdict))),
            _card("Why it won", _list(verdict.reasons())),
            _card("What it cost", _list(verdict.bill())),
        ),
    )


def _caveat(verdict: Verdict) -> str:
    flatter = (
        "These are training rows that the runs did without; they chose among the best, so they flatter a little."
        if verdict.confirmed
        else "These rows chose the winner, so they flatter it."
    )
    return f"{flatter} What it is worth, the stage evaluate says, on test rows that no trial has seen."


def _setting(verdict: Verdict) -> str:
    settings = verdict.settings
    epochs = "as many epochs as the recipe says" if settings.epochs is None else many(settings.epochs, "epoch")
    return (
        f"Study {verdict.found.study}. Each trial trains on {many(settings.train_rows, 'row')} for {epochs}. Sampler: "
        f"{settings.sampler}; pruner: {settings.pruner.name.replace('_', ' ')}; objectives: "
        f"{', '.join(settings.objectives)}{'; judged by the loss' if settings.judge == 'loss' else ''}."
    )


def _comparison(verdict: Verdict) -> Element:
    chosen, *others = verdict.standings()
    rows = [_line(verdict, chosen), *(_line(verdict, standing) for standing in others)]
    header = ("", verdict.measure, "winner's lead", "trained numbers")
    return element("div", {"class": "frame"}, table(header, rows, kind="lines"))


def _line(verdict: Verdict, standing: Standing) -> list[Child]:
    record = standing.record
    name = standing.name if record is None else f"{standing.name} (trial {record.number})"
    if standing.value is None:
        state = "stopped early" if record is not None and record.state == "pruned" else "failed"
        value, lead = state, ""
    else:
        spread = "" if standing.spread is None else f" ± {100 * standing.spread:.1f}"
        runs = f", {standing.runs} runs" if standing.runs > 1 else ""
        value = f"{share(standing.value)}{spread}{runs}{verdict.on_rows(standing)}"
        lead = "" if record is verdict.choice.record or standing.lead is None else points(standing.lead)
    numbers = "0" if record is None else "" if record.parameters is None else f"{record.parameters:,}"
    return [name, value, lead, numbers]


def _card(title: str, *content: Child) -> Element:
    return element("section", {"class": "card"}, element("h2", None, title), *content)


def _list(sentences: Iterable[str]) -> Element:
    return element("ul", None, *(element("li", None, sentence) for sentence in sentences))


def _legend() -> Element:
    frame = {"viewBox": "-9 -9 18 18", "aria-hidden": "true"}
    entries = [
        element("li", None, element("svg", frame, marker(kind, 0, 0, None)), words) for kind, words in LEGEND.items()
    ]
    return element("ul", {"class": "legend", "aria-label": "What the marks mean"}, *entries)


def _sections(verdict: Verdict) -> list[Element]:
    runs = [history(verdict)]
    if verdict.found.confirmations:
        runs.append(confirmations(verdict))
    if any(record.intermediate for record in verdict.found.records):
        runs.append(curves(verdict))
    parts = [importance(verdict)] if verdict.importances else []
    parts += slices(verdict)
    if len(parts_that_vary(verdict)) > 1:
        parts.append(parallel(verdict))
    found = [_section("The trials", runs)]
    if parts:
        found.append(_section("The parts of the recipe", parts))
    found.append(_section("What trials cost", [*tradeoffs(verdict), *costs(verdict)]))
    found.append(element("section", None, element("h2", None, "Every trial"), trial_table(verdict)))
    return found


def _section(title: str, figures: Iterable[Element]) -> Element:
    return element("section", None, element("h2", None, title), element("div", {"class": "grid"}, *figures))
