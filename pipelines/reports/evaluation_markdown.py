"""An evaluation as Markdown, for the page of a run; it loads no model, as its page does."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import markdown
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.predictions import Prediction
from pipelines.reports.differing import Names, differing_section
from pipelines.reports.document import as_markdown
from pipelines.reports.evaluation import QUESTION, answer_words
from pipelines.reports.evaluation_sections import evaluation_sections


def evaluation_markdown(
    evaluation: Evaluation, predictions: Sequence[Prediction], *, seed: int, encoder: bool = False
) -> str:
    """The same as Markdown, for the page of a run: question, answer and what was found."""
    sections = evaluation_sections(evaluation, encoder=encoder)
    if predictions:
        sections.append(differing_section(predictions, Names(), seed=seed))
    head = f"# {QUESTION}\n\n**{markdown.text(answer_words(evaluation))}**"
    return "\n\n".join([head, *(as_markdown(one, level=2) for one in sections)])
