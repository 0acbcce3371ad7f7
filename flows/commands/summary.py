"""What ``reft run`` says at its end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.runs.cards import pages
from flows.runs.lines import lines_to_copy
from flows.runs.outcome import FlowResult
from pipelines.contracts.evaluation import Evaluation, SystemFigures, read_evaluation
from pipelines.contracts.registration import read_registration
from pipelines.contracts.search import read_search
from pipelines.contracts.training import read_training
from pipelines.registry.page import headline
from pipelines.reports.evaluation import (
    TASK_HEADER,
    detectable_words,
    diagnostic_figures,
    other_figures,
    rows_words,
    task_rows,
    verdict_words,
    warning_words,
)
from pipelines.wording import measure_words, part_value, share

COLOURS = {"ran": "green", "restored": "cyan", "skipped": "bright_black"}


def summary(result: FlowResult) -> RenderableType:
    """What ran, what was skipped, and what came out."""
    evaluation = read_evaluation(result.path("evaluation"))
    tasks: list[RenderableType] = [tasks_table(evaluation), ""] if evaluation.tasks else []
    news = Text("" if result.news is None else f"\n{result.news.words()}\n")
    return Group(news, _stages(result), "", _outcome(result, evaluation), "", *tasks, _next(result))


def _stages(result: FlowResult) -> Table:
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    table.add_column("outcome")
    table.add_column("seconds", justify="right")
    for run in result.runs:
        table.add_row(run.stage, Text(run.outcome, style=COLOURS[run.outcome]), f"{run.seconds:.1f}")
    table.add_section()
    table.add_row("all", "", f"{sum(run.seconds for run in result.runs):.1f}")
    return table


def tasks_table(evaluation: Evaluation) -> Table:
    """The tasks of a mixture, each by itself."""
    table = Table(title="Tasks", title_justify="left")
    for title in TASK_HEADER:
        table.add_column(title, overflow="fold")
    for line in task_rows(evaluation):
        table.add_row(*map(Text, line))
    return table


def evaluation_rows(evaluation: Evaluation) -> list[tuple[str, Text | str]]:
    """What is said of an evaluation, line by line: a name and its value."""
    measure, difference = measure_words(evaluation.measure), evaluation.difference
    points = f"{100 * difference.value:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    rows: list[tuple[str, Text | str]] = [
        ("measured on", rows_words(evaluation)),
        (f"base {measure}", _figure(evaluation.base)),
        (f"adapter {measure}", _figure(evaluation.adapter)),
    ]
    for name, (of_base, of_adapter) in other_figures(evaluation).items():
        rows.append((name, f"base {of_base}, adapter {of_adapter}"))
    rows += [(f"{name} baseline", share(value)) for name, value in evaluation.baselines.items()]
    rows.append(("paired difference", points))
    if least := detectable_words(evaluation):
        rows.append(("least that so many rows show", least))
    rows += diagnostic_figures(evaluation).items()
    rows.append(("verdict", verdict_words(evaluation)))
    return [*rows, *(("warning", Text(said, style="yellow")) for said in warning_words(evaluation))]


def _outcome(result: FlowResult, evaluation: Evaluation) -> Table:
    train = read_training(result.path("train_metrics"))
    version = read_registration(result.path("registration"))
    table = Table(title="Outcome", title_justify="left", show_header=False)
    table.add_column("figure")
    table.add_column("value")
    for name, said in evaluation_rows(evaluation):
        table.add_row(name, said)
    recipe = ", ".join(f"{name} {part_value(value)}" for name, value in train.chosen.items())
    table.add_row("recipe", f"{recipe} (trial {train.trial})")
    table.add_row("where it came from", read_search(result.path("search_metrics")).best_origin)
    table.add_row("trainable parameters", f"{train.trainable_parameters:,}")
    table.add_row("adapter size", f"{train.adapter_bytes / 1024:.0f} KiB")
    gate = result.gate
    alias = f"@{gate.alias}" if gate.alias else "no alias: name it by its number"
    table.add_row("model version", f"{version.model} version {version.version} ({alias})")
    if gate.decision is not None:
        table.add_row("gate", Text("\n".join([headline(gate.decision), *gate.decision.verdict.reasons])))
    table.add_row("pushed to the DVC remote", "yes" if result.pushed else "no: none is set (reft setup makes one)")
    return table


def _next(result: FlowResult) -> Text:
    paths = result.graph.paths
    version = read_registration(result.path("registration"))
    lines = [
        ("runs and versions", pages(result.store)),
        ("this run and its artifacts", "prefect server start, then http://127.0.0.1:4200"),
        ("plots", f"dvc plots show --open, or the pictures in {paths['evaluate_plots']} and {paths['search']}"),
        ("the search: what won, why", f"{paths['search']}/report.html, in a browser"),
        ("the evaluation: how good, and where not", f"{paths['evaluation_page']}, in a browser"),
        ("each test row", paths["predictions"]),
        *(
            [("what the gate decided, and why", str(Path(paths["gate"]).with_suffix(".md")))]
            if result.gate.decision
            else []
        ),
        *(
            [("how rows and scores move", paths["drift"])]
            if "drift" in paths and result.path("drift").is_file()
            else []
        ),
        ("answers to rows of your own", f"reft predict FILE --adapter models:/{version.model}/{version.version}"),
    ]
    if any(run.outcome != "skipped" for run in result.runs):
        code = " code.json" if (result.root / "code.json").is_file() else ""
        lines.append(("keep this state", f"git add dvc.lock metrics{code}{_written(result)} && git commit"))
    return lines_to_copy("Where to look next", lines)


def _written(result: FlowResult) -> str:
    """What new rows changed of the files in git."""
    if result.news is None or not result.news.is_any:
        return ""
    return " params.yaml" if result.news.untracked is None else f" {result.news.untracked}.dvc"


def _figure(figures: SystemFigures) -> str:
    return f"{share(figures.value)} [{share(figures.low)}, {share(figures.high)}]"
