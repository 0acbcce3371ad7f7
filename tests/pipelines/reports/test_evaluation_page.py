"""The page of an evaluation says question, answer and what it rests on, of each kind of task; nothing in it can act."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pipelines.contracts.predictions import Prediction, Said
from pipelines.markdown import text as as_text
from pipelines.reports.differing import LONGEST, differing, drawn, right_words
from pipelines.reports.evaluation import QUESTION, answer_words
from pipelines.reports.evaluation_markdown import evaluation_markdown
from pipelines.reports.evaluation_page import evaluation_page, write_pages
from pipelines.reports.model_card import model_card
from tests.browser import Tab
from tests.pipelines.reports.evaluated import KINDS, ROWS, evaluated, page_facts
from tests.pipelines.reports.pages import Page

ALWAYS = ["Adapter and base", "By slice", "Forgetting and calibration", "Rows that differ"]
MADE = ["Cost", "How it was made", "Lineage", "Commands"]


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_markdown_say_the_same_beginning_with_the_answer(kind: str) -> None:
    facts = page_facts(kind)
    evaluation = facts.card.evaluation
    assert evaluation is not None
    page = Page(evaluation_page(facts))
    said = page.words.split(QUESTION)[-1].strip()
    assert said.startswith(answer_words(evaluation))
    assert re.match(r"(Yes|It is not shown): .* is \d+\.\d % with the adapter and .*95 % interval \+\d", said)
    titles = page.texts_of("h2")
    assert [title for title in titles if title not in ("By task", "By class or label")] == ALWAYS + MADE
    assert ("By task" in titles) == (kind == "mixture")
    assert ("By class or label" in titles) == (kind == "classification")
    markdown = evaluation_markdown(evaluation, facts.predictions, seed=facts.seed)
    assert re.findall("^## (.*)$", markdown, re.MULTILINE) == titles[: -len(MADE)]
    # Every figure of the page's tables stands in the Markdown too.
    figures = [cell for cell in page.texts_of("td") if re.search(r"\d %", cell) and "of the base's" not in cell]
    assert len(figures) > 8
    assert [cell for cell in figures if as_text(cell) not in markdown] == []


def test_who_answers_better_is_counted_by_the_scores_of_rows() -> None:
    """The adapter is wrong in 6 of 60 rows and the base in 30: where 7 n % 10 is 5 or more, and so in none of the 6."""
    _, predictions = evaluated("classification")
    found = differing(predictions)
    assert found is not None
    assert (len(found.won), len(found.lost), found.same, found.right) == (30, 6, 24, 24)
    assert [row.id for row in found.lost] == [f"f:{place}" for place in range(0, ROWS, 10)]
    some = drawn(found.won, 4, seed=1)
    assert some == drawn(found.won, 4, seed=1) != drawn(found.won, 4, seed=2)
    assert [found.won.index(row) for row in some] == sorted(found.won.index(row) for row in some)
    assert drawn(found.lost, 99, seed=1) == found.lost


def test_of_numbers_the_nearer_one_is_better_and_none_is_right() -> None:
    off = [
        Prediction("f:1", "p", Said(2.0, {}, -1.0), Said(3.0, {}, -2.0)),
        Prediction("f:2", "p", Said(1.0, {}, 0.0), Said(1.0, {}, 0.0)),
    ]
    found = differing(off)
    assert found is not None
    assert (len(found.won), found.same, found.right) == (1, 1, None)
    assert differing([Prediction("f:1", "p", Said("a"), Said("b"))]) is None  # as release 0.1 wrote it


def test_long_texts_are_cut_and_say_so() -> None:
    long = Prediction("f:1", "p", Said("a"), Said("b"), references=("x" * (LONGEST + 5),))
    assert right_words(long) == f"{'x' * LONGEST}… (5 more characters)"


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_row_becomes_an_element(kind: str) -> None:
    page = Page(evaluation_page(page_facts(kind)))
    assert page.count("script") == page.count("img") == page.count("b") == 0
    assert "<script>alert('it ran')</script>" in page.words
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert not any({"src", "action", "style"} & set(attrs) for _, attrs in page.elements)
    links = [attrs["href"] or "" for _, attrs in page.elements if "href" in attrs]
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert links[0] == "data:,"
    assert {link.removeprefix("#") for link in links[1:]} == ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_cards_metadata_are_those_of_a_hub_and_its_text_has_no_row(kind: str) -> None:
    facts = page_facts(kind, data_source=f"hub:org/films@{'a' * 40}")
    evaluation = facts.card.evaluation
    assert evaluation is not None
    card = ModelCard(model_card(facts.card))
    results = card.data.eval_results
    assert results is not None
    assert len(results) == 1 + len(evaluation.tasks)
    first = results[0]
    assert (first.metric_type, first.metric_value) == (evaluation.measure, round(evaluation.adapter.value, 4))
    assert (first.dataset_type, first.dataset_split) == ("org/films", "test")
    assert card.data.datasets == ["org/films"]
    assert answer_words(evaluation) in card.text.replace("\\", "")
    assert "Film 0" not in card.text  # which may be nobody's to publish
    assert "| trained numbers | 520, 1.3 % of the base's |" in card.text


def test_both_files_are_written_whole_and_again_with_the_same_bytes(tmp_path: Path) -> None:
    paths = tmp_path / "reports" / "evaluation.html", tmp_path / "reports" / "model_card.md"
    write_pages(*paths, page_facts("choice"))
    before = [path.read_bytes() for path in paths]
    write_pages(*paths, page_facts("choice"))
    assert [path.read_bytes() for path in paths] == before
    assert b"evil.example" in before[0]


AXE = "axe.run().then(found => found.violations.map(each => [each.id, each.nodes.map(node => node.html)]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind if kind == "mixture" else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_a_browser_shows_it_readably_without_a_complaint_or_a_request(kind: str, tab: Tab, tmp_path: Path) -> None:
    """On a phone in the dark and at a desk; axe-core looks at contrast, headings, names and the keyboard's reach."""
    path = tmp_path / "evaluation.html"
    write_pages(path, tmp_path / "card.md", page_facts(kind))
    rules = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    for width, dark in ((390, True), (1280, False)):
        tab.size(width, dark=dark)
        tab.open(path.as_uri())
        assert tab.requests == [path.as_uri()]
        assert tab.run("document.documentElement.scrollWidth") <= width
        light = tab.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0] > 128")
        assert light is not dark
        tab.run(f"{rules}; 0")
        assert tab.run(AXE) == []
        assert tab.complaints == []


@pytest.mark.slow
def test_axe_finds_what_cannot_be_read(tab: Tab, tmp_path: Path) -> None:
    """Planted: grey words on white paper, and a heading that skips levels."""
    path = tmp_path / "evaluation.html"
    write_pages(path, tmp_path / "card.md", page_facts("choice"))
    tab.size(1280)
    tab.open(path.as_uri())
    tab.run("document.querySelector('.answer').style.color = '#bbb'")
    tab.run("document.querySelector('h2').outerHTML = '<h5>deep</h5>'")
    tab.run(f"{files('axe_core_python').joinpath('axe.min.js').read_text('utf-8')}; 0")
    assert {"color-contrast", "heading-order"} <= {found for found, _ in tab.run(AXE)}
