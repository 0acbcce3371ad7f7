"""What an evaluation allows to be said, in words: on cards, in the summary of a run, and in a model card."""

from __future__ import annotations

from pipelines.contracts.diagnostics import NEAR_TRAINING
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.interval import Interval
from pipelines.wording import many, measure_words, points, relative, share

UNREADABLE = "unreadable_answers"  # in the summary of families whose answers are read
BROKEN = 0.5  # of the base's perplexity on neutral text: a rise that is surely above it is warned of
MOST_UNREADABLE = 0.05  # of answers; a larger share is warned of
NEARLY_ALL = 0.99  # of the rows with one answer
MANY_NEAR = 0.01  # of the test rows
FORGETTING = "perplexity on neutral text"


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


QUESTION = "Is the adapter better than the frozen base, on rows that nobody trained or chose on?"


def answer_words(evaluation: Evaluation) -> str:
    """The answer to :data:`QUESTION` in one sentence, with its interval."""
    difference, measure = evaluation.difference, measure_words(evaluation.measure)
    low, high = 100 * difference.low, 100 * difference.high
    both = f"{share(evaluation.adapter.value)} with the adapter and {share(evaluation.base.value)} without"
    return (
        f"{_answer(evaluation)}: {measure} is {both} on {rows_words(evaluation)}, {points(difference.value)} "
        f"({100 * evaluation.confidence:g} % interval {low:+.1f} to {high:+.1f}); {verdict_words(evaluation)}."
    )


def _answer(evaluation: Evaluation) -> str:
    least = evaluation.least_rows
    groups = evaluation.rows if evaluation.groups is None else evaluation.groups
    if evaluation.better:
        return "Yes"
    if least is not None and groups < least:
        return "It cannot be said"
    return "No, it is worse" if evaluation.difference.high < 0 else "It is not shown"


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
    base, adapter, rows = evaluation.base.summary, evaluation.adapter.summary, evaluation.rows
    shared = [name for name in adapter if name in base]
    return {measure_words(name): (_figure(base[name], rows), _figure(adapter[name], rows)) for name in shared}


def diagnostic_figures(evaluation: Evaluation) -> dict[str, str]:
    """What was looked at beside the task's figures, by name in words; empty for a file of an earlier release."""
    found = evaluation.diagnostics
    if found is None:
        return {}
    said = {FORGETTING: "does not apply: an encoder continues no text"}
    if (own := found.forgetting) is not None:
        rise = f"{relative(own.change.value)} [{relative(own.change.low)}, {relative(own.change.high)}]"
        said[FORGETTING] = f"base {own.base:.5g}, adapter {own.adapter:.5g}: {rise}"
    if found.calibration:
        errors = {system: points(own.expected_error, sign=False) for system, own in found.calibration.items()}
        said["expected calibration error"] = f"base {errors['base']}, adapter {errors['adapter']}"
    near = found.near_training
    said["test rows near a training row"] = f"{near} of {evaluation.rows} ({share(near / evaluation.rows)})"
    return said


def warning_words(evaluation: Evaluation) -> list[str]:
    """What makes the figures worth less than they look, each in a sentence; [] where nothing does."""
    found, said, rows = evaluation.diagnostics, list[str](), evaluation.rows
    unreadable = evaluation.adapter.summary.get(UNREADABLE, 0) / rows
    if unreadable > MOST_UNREADABLE:
        said.append(f"Of the adapter's answers {share(unreadable)} cannot be read, and count as wrong.")
    if found is None:
        return said
    if (own := found.forgetting) is not None and own.change.low > BROKEN:
        said.append(
            "The adapter breaks text that has nothing to do with the task: its perplexity rises from "
            f"{own.base:.5g} to {own.adapter:.5g}."
        )
    if (common := found.common["adapter"]).share > NEARLY_ALL:
        said.append(f"The adapter gives {share(common.share)} of the rows the same answer, {common.answer!r}.")
    if found.near_training / rows > MANY_NEAR:
        other = [own for own in found.slices if (own.by, own.part) == (NEAR_TRAINING, "no")]
        without = f"; on the others the adapter has {share(other[0].adapter.value)}" if other else ""
        said.append(f"{share(found.near_training / rows)} of the test rows are nearly a training row{without}.")
    return said


SLICE_HEADER = ("by", "rows that", "rows", "base", "adapter", "difference, points")


def slice_rows(evaluation: Evaluation) -> list[list[str]]:
    """The figures of parts of the test rows: what they are sliced by, part, rows, base, adapter, and difference."""
    found = [] if evaluation.diagnostics is None else evaluation.diagnostics.slices
    return [
        [own.by, own.part, str(own.rows), _within(own.base), _within(own.adapter), _lead(own.difference)]
        for own in found
    ]


RELIABILITY_HEADER = ("probability of the adapter's answer", "rows", "mean", "right")


def reliability_rows(evaluation: Evaluation) -> list[list[str]]:
    """The adapter's answers by their probability: between what, rows, the mean, and how many of them are right."""
    found = {} if evaluation.diagnostics is None else evaluation.diagnostics.calibration
    bins = found["adapter"].bins if found else []
    return [
        [f"{own.low:.1f} to {own.high:.1f}", str(own.rows), f"{own.confidence:.3f}", f"{own.accuracy:.3f}"]
        for own in bins
    ]


def _within(figure: Interval) -> str:
    return f"{share(figure.value)} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _lead(difference: Interval) -> str:
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+.1f} [{low:+.1f}, {high:+.1f}]"


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
        "All other figures are of the mean over the tasks, by which the verdict is. A single task is better where its "
        "own interval lies above 0, its p-value, which Holm's method adjusts for the number of tasks, is beyond the "
        "confidence, and it beats always giving the commonest answer too."
    )


def _tasks_words(evaluation: Evaluation) -> str:
    if not evaluation.tasks:
        return ""
    better = sum(one.better for one in evaluation.tasks.values())
    return f", as the mean over {len(evaluation.tasks)} tasks; by themselves {better} of them are better"


def _grouped(evaluation: Evaluation) -> str:
    return "" if evaluation.groups in (None, evaluation.rows) else f" in {many(evaluation.groups or 0, 'group')}"


def _figure(value: float, rows: int) -> str:
    """A count of rows with its share, or another figure."""
    return f"{value} ({share(value / rows)})" if isinstance(value, int) else f"{value:.3f}"
