"""What an evaluation allows to be said, in words: on cards, in the summary of a run, and in a model card."""

from __future__ import annotations

from pipelines.contracts.evaluation import Evaluation
from pipelines.wording import many, measure_words, points, share


def verdict_words(evaluation: Evaluation) -> str:
    """What the figures allow to be said of the adapter."""
    least, over, rows = evaluation.least_rows, evaluation.over_majority, evaluation.rows
    groups = rows if evaluation.groups is None else evaluation.groups
    if evaluation.better:
        said = "better than the base" + (" and than always giving the commonest answer" if over else "")
        return f"{said}{_tasks_words(evaluation)}"
    if least is not None and groups < least:
        return f"no verdict: {many(rows, 'row')}{_grouped(evaluation)} are too few, it takes {least}"
    if over is not None and not over.better and evaluation.difference.low > 0:
        return "not better than always giving the commonest answer by more than chance"
    return f"not better than the base by more than chance{_tasks_words(evaluation)}"


def rows_words(evaluation: Evaluation) -> str:
    """How many test rows there are, and in how many groups, where some are together."""
    return f"{many(evaluation.rows, 'test row')}{_grouped(evaluation)}"


def detectable_words(evaluation: Evaluation) -> str:
    """How small a difference the test rows can show; "" where the file does not say."""
    if evaluation.detectable is None:
        return ""
    return f"{points(evaluation.detectable, sign=False)} at {evaluation.confidence:.0%} confidence and 80 % power"


def other_figures(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    """What else the task reports of all rows, by its name in words: of the frozen base, and of the adapter."""
    base, adapter = evaluation.base.summary, evaluation.adapter.summary
    return {measure_words(name): (_figure(base[name]), _figure(adapter[name])) for name in adapter if name in base}


TASK_HEADER = ("task", "measure", "rows", "frozen base", "adapter", "difference", "p, Holm", "better")


def task_rows(evaluation: Evaluation) -> list[list[str]]:
    """Of a mixture, a line for each task under :data:`TASK_HEADER`: its figures, and by how much the adapter leads."""
    lines = []
    for name, one in evaluation.tasks.items():
        lead = one.difference
        difference = f"{points(lead.value)} ({100 * lead.low:+.1f} to {100 * lead.high:+.1f})"
        p_value, better = f"{one.adjusted_p_value:.2g}", "yes" if one.better else "no"
        base, adapter = share(one.base.value), share(one.adapter.value)
        lines.append([name, measure_words(one.measure), str(one.rows), base, adapter, difference, p_value, better])
    return lines


def tasks_words(evaluation: Evaluation) -> str:
    """How the table of tasks is read; "" where there is one task."""
    if not evaluation.tasks:
        return ""
    return (
        "All other figures are of the mean over the tasks, by which the verdict is. Of a single task, better goes by "
        "its own interval and by its p-value, which Holm's method adjusts for their number."
    )


def _tasks_words(evaluation: Evaluation) -> str:
    if not evaluation.tasks:
        return ""
    better = sum(one.better for one in evaluation.tasks.values())
    return f", as the mean over {len(evaluation.tasks)} tasks; by themselves {better} of them are better"


def _grouped(evaluation: Evaluation) -> str:
    return "" if evaluation.groups in (None, evaluation.rows) else f" in {many(evaluation.groups or 0, 'group')}"


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
