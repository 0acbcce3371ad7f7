"""The page of an evaluation: one file that a browser opens without anything else, and the model card beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.base import BaseRecord
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.predictions import Prediction
from pipelines.contracts.training import TrainResult
from pipelines.files import write_text
from pipelines.reports.differing import Names, differing_section
from pipelines.reports.document import Commands, Figures, Section, as_element, contents
from pipelines.reports.evaluation import QUESTION, answer_words
from pipelines.reports.evaluation_charts import legend
from pipelines.reports.markup import element, page
from pipelines.reports.model_card import (
    CardFacts,
    base_section,
    cost_section,
    how_good,
    making_section,
    model_card,
    training_facts,
)
from pipelines.wording import measure_words, share
from reft.adapters.any_method import read_info, read_method

COMMANDS = (
    "reft evaluate                  # asks the test rows again, and leaves every file as it is",
    "dvc repro -f -s evaluate       # the same, and writes the figures and this page anew",
    "reft run                       # all stages in which something changed",
)


@dataclass(frozen=True)
class PageFacts:
    """What a page says beside what the card does.

    Attributes:
        card: the facts of the model card; it has an evaluation.
        predictions: each test row.
        seed: by which rows that differ are drawn.
        lineage: which code, data and packages made it, by name.
    """

    card: CardFacts
    predictions: Sequence[Prediction]
    seed: int
    lineage: Mapping[str, str]


def read_card_facts(
    adapter: Path, evaluation: Evaluation, *, name: str, base: BaseRecord, trained: TrainResult, data_source: str
) -> CardFacts:
    """Read what the adapter's directory says, and put it beside what the stages found.

    Args:
        adapter: its directory.
        evaluation: of it.
        name: of the card.
        base: the frozen model's record.
        trained: how it was trained.
        data_source: the address of the data.
    """
    return CardFacts(
        name=name,
        config=read_method(adapter),
        trained=trained.trainable_parameters,
        info=read_info(adapter),
        adapter_sha256=evaluation.adapter_sha256,
        adapter_bytes=trained.adapter_bytes,
        base=base,
        evaluation=evaluation,
        training=training_facts(trained),
        data_source=data_source,
    )


def write_pages(page_path: Path, card_path: Path, facts: PageFacts) -> None:
    """Write the page, and the model card."""
    write_text(page_path, evaluation_page(facts))
    write_text(card_path, model_card(facts.card))


def evaluation_page(facts: PageFacts) -> str:
    """The page as HTML. The same facts give the same text: there is no time of day in it."""
    card, evaluation = facts.card, facts.card.evaluation
    assert evaluation is not None
    sections = [
        *how_good(evaluation, card.base),
        differing_section(facts.predictions, Names(), seed=facts.seed),
        cost_section(card),
        making_section(card),
        _lineage(facts),
        Section("Commands", [Commands(COMMANDS)]),
    ]
    header = element(
        "header",
        None,
        element("h1", None, QUESTION),
        element("p", {"class": "answer"}, answer_words(evaluation)),
        element("p", {"class": "study"}, _setting(card)),
        contents(sections),
    )
    title = f"Evaluation: {measure_words(evaluation.measure)} {share(evaluation.adapter.value)}"
    return page(title, header, element("main", None, legend(), *map(as_element, sections)))


def _setting(card: CardFacts) -> str:
    data = "" if card.data_source is None else f" Data: {card.data_source}."
    return f"{card.name}: method {card.config.method} on the base {card.base.source}.{data} Seed: {card.info.seed}."


def _lineage(facts: PageFacts) -> Section:
    rows = [[name, value] for name, value in facts.lineage.items()]
    return Section("Lineage", [Figures("Lineage", ("what", "value"), rows), *base_section(facts.card).blocks])
