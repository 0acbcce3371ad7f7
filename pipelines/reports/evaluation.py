"""What an evaluation allows to be said, in words: on cards, in the summary of a run, and in a model card."""

from __future__ import annotations

from pipelines.contracts.evaluation import Evaluation
from pipelines.wording import many, measure_words, points


def verdict_words(evaluation: Evaluation) -> str:
    """What the figures allow to be said of the adapter."""
    least, over, rows = evaluation.least_rows, evaluation.over_majority, evaluation.rows
    groups = rows if evaluation.groups is None else evaluation.groups
    if evaluation.better:
        return "better than the base" + (" and than always giving the commonest answer" if over else "")
    if least is not None and groups < least:
        return f"no verdict: {many(rows, 'row')}{_grouped(evaluation)} are too few, it takes {least}"
    if over is not None and not over.better and evaluation.difference.low > 0:
        return "not better than always giving the commonest answer by more than chance"
    return "not better than the base by more than chance"


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


def _grouped(evaluation: Evaluation) -> str:
    return "" if evaluation.groups in (None, evaluation.rows) else f" in {many(evaluation.groups or 0, 'group')}"


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
